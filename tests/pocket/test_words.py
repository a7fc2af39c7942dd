"""The vocabulary is a byte-pair encoding in CLIP's format, and transformers reads it as such."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.pocket import networks
from analyzer.pocket.captions import caption, choose, full_caption, vocabulary
from analyzer.pocket.words import END, START, byte_pairs

VOCABULARY, MERGES = byte_pairs()
SIGNS = ",.-'!?()_:;+&/"


@pytest.fixture(scope="module")
def words(libraries: None) -> Any:
    """Of transformers, with our vocabulary."""
    from analyzer.pocket.folders import tokenizer

    return tokenizer()


def test_each_token_has_one_number() -> None:
    """0 and up without a gap, the two that begin and end a text last, as CLIP has them."""
    assert list(range(len(VOCABULARY))) == sorted(VOCABULARY.values())
    assert [START, END] == sorted(VOCABULARY, key=VOCABULARY.__getitem__)[-2:]
    assert len(MERGES) == len(set(MERGES))
    assert all(token in VOCABULARY for pair in MERGES for token in (*pair, "".join(pair)))


@pytest.mark.parametrize("word", [*vocabulary(), "masterpiece", "girl"])
def test_every_word_of_a_caption_is_one_token(word: str) -> None:
    """By the merges alone, applied one after the other to all places."""
    assert [f"{word}</w>"] == encoded(word)


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(vocabulary()),
            st.text("abcdehilnorstuwyABE", max_size=9),
            st.text("0123456789" + SIGNS, max_size=4),
        ),
        max_size=8,
    )
)
def test_transformers_encodes_as_the_merges_say(words: Any, parts: Sequence[str]) -> None:
    """Any text of letters, digits and signs; an independent encoder gives the same numbers."""
    text = " ".join(parts)
    pieces = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower())
    expected = [START, *(token for piece in pieces for token in encoded(piece)), END]
    assert [VOCABULARY[token] for token in expected] == words(text)["input_ids"]


def test_captions_come_back_and_the_longest_fits(words: Any) -> None:
    """Every tag of every portrait stands within the 32 tokens."""
    rng = np.random.default_rng(2)
    portraits = [choose("flat", rng) for _ in range(50)]
    for text in [*(caption(p, rng) for p in portraits), *map(full_caption, portraits)]:
        ids = words(text)["input_ids"]
        assert len(ids) <= networks.TOKENS
        found = words.decode(ids, skip_special_tokens=True)
        assert text.replace(" ", "") == found.replace(" ", "")


def test_unknown_signs_become_the_end_and_long_texts_are_cut(words: Any) -> None:
    """Nothing raises: whoever writes a prompt in Japanese gets the picture of an empty one."""
    assert {VOCABULARY[START], VOCABULARY[END]} == set(words("少女 £")["input_ids"])
    ids = words("red " * 99, padding="max_length", truncation=True)["input_ids"]
    assert (networks.TOKENS, VOCABULARY[END]) == (len(ids), ids[-1])


def test_saved_words_are_read_again_in_both_forms(words: Any, tmp_path: Path) -> None:
    """By transformers of today, and as the two files that its predecessors want."""
    from transformers import CLIPTokenizer

    from analyzer.pocket.folders import write_configs

    write_configs(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    text = "best quality, a woman, school uniform"
    assert words(text)["input_ids"] == again(text)["input_ids"]
    assert networks.TOKENS == again.model_max_length
    assert json.loads((tmp_path / "tokenizer" / "vocab.json").read_text(encoding="utf-8")) == VOCABULARY
    lines = (tmp_path / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert [" ".join(pair) for pair in MERGES] == lines[1:]


def encoded(piece: str) -> list[str]:
    """Textbook byte-pair encoding: each merge in its order, wherever its pair stands, from the left."""
    tokens = [*piece[:-1], piece[-1] + "</w>"]
    for one, other in MERGES:
        place = 0
        while place < len(tokens) - 1:
            if (tokens[place], tokens[place + 1]) == (one, other):
                tokens[place : place + 2] = [one + other]
            place += 1
    return tokens
