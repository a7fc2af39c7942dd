"""The vocabulary of the pocket models in CLIP's format: byte-pair merges that make one token of each word.

Knows no tensors. Letters, digits and the usual signs that no merge joins stay tokens of their own; whatever
else stands in a text becomes the token that ends it, as CLIP's tokenizer does with what it does not know.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from analyzer.pocket.captions import vocabulary as caption_words

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_SIGNS = ",.-'!?()_:;+&/"
# Words that captions never hold and prompts often do; a model that never saw them pays them little heed.
_FURTHER = (
    "anime", "beautiful", "boy", "detailed", "girl", "masterpiece", "of", "photo", "portrait", "the", "with",
)  # fmt: skip


@cache  # a tenth of a second, and asked for again and again; nobody writes into it
def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary (token -> number) and the merges in their order.

    Of all pairs the most frequent is merged first (Sennrich et al. 2016), a tie by the alphabet, until each
    word is one token.
    """
    alphabet = [*string.ascii_lowercase, *string.digits, *_SIGNS]
    merges = _merges(sorted({*caption_words(), *_FURTHER}))
    tokens = [*alphabet, *(sign + END_OF_WORD for sign in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    split = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in split for pair in pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(word, best) for word in split]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
