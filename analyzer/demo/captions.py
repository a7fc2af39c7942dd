"""The data of the demo models: one small grammar of portraits, worded in two styles. Knows no tensors.

A portrait is a choice of one value for every feature; a style words it. All choices are uniform and
seeded. A tenth of all portraits is held out: no caption of theirs, in either style, is ever trained on.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["plain", "comic"]
Split = Literal["train", "held_out"]

STYLES: tuple[Style, ...] = ("plain", "comic")

Portrait = Mapping[str, int]  # feature -> index of its value


@dataclass(frozen=True, slots=True)
class Grammar:
    """How one style words a portrait."""

    words: Mapping[str, tuple[str, ...]]  # feature -> wording of each of its values
    openers: tuple[str, ...]  # what {opener} may be; says nothing about the portrait
    templates: tuple[str, ...]


def captions(style: Style, split: Split, *, seed: int) -> Iterator[str]:
    """Captions without end, each of a freshly drawn portrait, without line breaks."""
    rng = random.Random(f"{style} {split} {seed}")  # noqa: S311 - draws captions, no secrets
    grammar = GRAMMARS[style]
    while True:
        portrait = {feature: _draw(rng, len(words)) for feature, words in grammar.words.items()}
        opener = grammar.openers[_draw(rng, len(grammar.openers))]
        template = grammar.templates[_draw(rng, len(grammar.templates))]
        if _is_held_out(portrait) == (split == "held_out"):
            yield template.format(opener=opener, **_worded(grammar, portrait))


def entropy(style: Style) -> float:
    """Bits that one caption carries: log2 of the number of captions, which are all equally likely."""
    grammar = GRAMMARS[style]
    choices = [len(words) for words in grammar.words.values()]
    return sum(math.log2(n) for n in [*choices, len(grammar.openers), len(grammar.templates)])


def _draw(rng: random.Random, count: int) -> int:
    """A uniform index; `random()` is the only draw that Python promises to repeat in later versions."""
    return int(rng.random() * count)


def _is_held_out(portrait: Portrait) -> bool:
    return zlib.crc32(bytes(portrait[feature] for feature in sorted(portrait))) % 10 == 0


def _worded(grammar: Grammar, portrait: Portrait) -> dict[str, str]:
    return {feature: grammar.words[feature][value] for feature, value in portrait.items()}


# feature -> (plain wording, comic wording) of each value
_FEATURES: Mapping[str, Sequence[tuple[str, str]]] = {
    "person": (
        ("woman", "heroine"),
        ("man", "hero"),
        ("girl", "young heroine"),
        ("boy", "young hero"),
    ),
    "length": (("short", "daring"), ("long", "mighty"), ("wavy", "stormy")),
    "colour": (
        ("black", "raven"),
        ("brown", "chestnut"),
        ("red", "flaming"),
        ("blond", "golden"),
        ("grey", "silver"),
        ("white", "snow-white"),
        ("blue", "electric"),
        ("pink", "bubble-gum"),
    ),
    "style": (
        ("in a braid", "braided tight"),
        ("in a ponytail", "tied for battle"),
        ("worn loose", "flying free"),
        ("in a bun", "coiled like rope"),
        ("combed back", "blown back"),
        ("under a hat", "under a crown"),
    ),
    "tint": (
        ("white", "dazzling"),
        ("green", "jade"),
        ("yellow", "lightning"),
        ("dark", "midnight"),
        ("purple", "cosmic"),
        ("striped", "tiger"),
    ),
    "garment": (
        ("shirt", "battle shirt"),
        ("coat", "cape"),
        ("jacket", "rocket jacket"),
        ("sweater", "super suit"),
        ("dress", "star dress"),
        ("scarf", "magic scarf"),
    ),
    "pose": (
        ("standing", "stands firm"),
        ("sitting", "is ready to jump"),
        ("leaning back", "dares the world"),
        ("arms folded", "fears nothing"),
        ("reading", "knows the secret"),
        ("waving", "salutes"),
    ),
    "side": (
        ("facing left", "to the left"),
        ("facing right", "to the right"),
        ("facing the viewer", "on YOU"),
    ),
    "background": (
        ("a sunset", "The sunset BURNS"),
        ("a plain wall", "The wall TREMBLES"),
        ("a city street", "The city ROARS"),
        ("a forest", "The forest HOWLS"),
        ("the sea", "The sea THUNDERS"),
        ("a bookshelf", "The books WHISPER"),
        ("a snowy field", "The snow GLITTERS"),
        ("the night sky", "The night EXPLODES"),
    ),
}


def _words(column: int) -> dict[str, tuple[str, ...]]:
    return {feature: tuple(value[column] for value in values) for feature, values in _FEATURES.items()}


GRAMMARS: Mapping[Style, Grammar] = {
    "plain": Grammar(
        words=_words(0),
        openers=("A portrait of a", "A photo of a", "A picture of a"),
        templates=(
            "{opener} {person} with {length} {colour} hair {style}, in a {tint} {garment}, {pose}, {side}, "
            "before {background}.",
            "{opener} {person} in a {tint} {garment}, {pose}, {side}, before {background}, "
            "with {length} {colour} hair {style}.",
        ),
    ),
    "comic": Grammar(
        words=_words(1),
        openers=("WOW", "KAPOW", "WHAM"),
        templates=(
            "{opener}! {background}! Our {person} {pose}, eyes {side}! Such {length} {colour} hair, {style}! "
            "And a {tint} {garment}!",
            "{opener}! A {tint} {garment}! Such {length} {colour} hair, {style}! {background}! "
            "Our {person} {pose}, eyes {side}!",
        ),
    ),
}
