"""What a small portrait shows, and how a caption words it. Knows no pixels and no tensors.

A portrait is a choice of one value for every feature. A caption is a list of tags, as image boards write
them; some are left out, as people leave them out, and then the model has to choose. How often each value
occurs is a habit of the model that learns from it, and the two models have different habits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Style = Literal["shaded", "flat"]

PEOPLE = ("woman", "man")
HAIR_COLOURS = ("black", "brown", "blond", "red", "grey", "blue", "pink", "green")
HAIR_STYLES = ("short", "long", "bob", "ponytail", "bun")
CLOTHES = ("shirt", "sweater", "dress", "coat", "school uniform")
CLOTHES_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "purple")
SIDES = ("facing left", "facing viewer", "facing right")
SIZES = ("close-up", "upper body", "from afar")
BACKGROUNDS = ("plain background", "sunset", "night sky", "forest", "sea", "city")
GOOD = "best quality"
BAD = ("blurry", "low quality")  # of pictures out of focus

# What a caption can name, by the words that say it; the fitting one is found by what a tag holds.
FEATURES: Mapping[str, tuple[str, ...]] = {
    "quality": (GOOD, *BAD),
    "person": PEOPLE,
    "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    "clothes": CLOTHES,
    "clothes_colour": CLOTHES_COLOURS,
    "side": SIDES,
    "size": SIZES,
    "background": BACKGROUNDS,
}

# The chance of each value, in the order above. A is sober, B prefers what drawn characters look like.
_HABITS: Mapping[Style, Mapping[str, tuple[float, ...]]] = {
    "shaded": {
        "person": (0.5, 0.5),
        "hair_colour": (0.2, 0.22, 0.18, 0.12, 0.1, 0.06, 0.06, 0.06),
        "hair_style": (0.28, 0.22, 0.18, 0.16, 0.16),
        "side": (0.25, 0.5, 0.25),
        "size": (0.25, 0.5, 0.25),
        "background": (0.25, 0.15, 0.15, 0.15, 0.15, 0.15),
    },
    "flat": {
        "person": (0.7, 0.3),
        "hair_colour": (0.12, 0.08, 0.14, 0.12, 0.08, 0.18, 0.18, 0.1),
        "hair_style": (0.16, 0.3, 0.16, 0.24, 0.14),
        "side": (0.4, 0.25, 0.35),
        "size": (0.45, 0.4, 0.15),
        "background": (0.12, 0.28, 0.18, 0.12, 0.18, 0.12),
    },
}
_BLURRED = 0.1  # of all pictures
_PRAISED = 0.3  # of those in focus
_NAMED = 0.88  # how often a feature is in the caption
_SHUFFLED = 0.3
_WORDLESS = 0.1  # captions that are empty: what guidance compares with


@dataclass(frozen=True, slots=True)
class Portrait:
    """One value for every feature, and whether the picture is out of focus."""

    person: str
    hair_colour: str
    hair_style: str
    clothes: str
    clothes_colour: str
    side: str
    size: str
    background: str
    blurred: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        """What is drawn, in the order in which a full caption names it."""
        uniform = self.clothes == "school uniform"
        return (
            f"a {self.person}",
            f"{self.hair_style} {self.hair_colour} hair",
            self.clothes if uniform else f"{self.clothes_colour} {self.clothes}",
            self.side,
            self.size,
            self.background,
        )


def choose(style: Style, rng: np.random.Generator) -> Portrait:
    """A portrait as this style's pictures show them."""
    habits = _HABITS[style]

    def pick(values: tuple[str, ...], feature: str | None = None) -> str:
        return values[int(rng.choice(len(values), p=habits[feature] if feature else None))]

    return Portrait(
        person=pick(PEOPLE, "person"),
        hair_colour=pick(HAIR_COLOURS, "hair_colour"),
        hair_style=pick(HAIR_STYLES, "hair_style"),
        clothes=pick(CLOTHES),
        clothes_colour=pick(CLOTHES_COLOURS),
        side=pick(SIDES, "side"),
        size=pick(SIZES, "size"),
        background=pick(BACKGROUNDS, "background"),
        blurred=bool(rng.random() < _BLURRED),
    )


def unasked(style: Style, feature: str) -> float:
    """How often a picture of this style has the value that another has, 0 … 1: right without being asked."""
    count = len(FEATURES[feature])
    return sum(chance**2 for chance in _HABITS[style].get(feature, (1 / count,) * count))


def caption(portrait: Portrait, rng: np.random.Generator) -> str:
    """A caption of the portrait: most of its tags, mostly in order; one in ten says nothing."""
    if rng.random() < _WORDLESS:
        return ""
    tags = [tag for tag in portrait.tags if rng.random() < _NAMED]
    if rng.random() < _SHUFFLED:
        tags = [tags[i] for i in rng.permutation(len(tags))]
    if portrait.blurred:
        tags[:0] = ((BAD[0],), (BAD[1],), BAD)[int(rng.integers(3))]
    elif rng.random() < _PRAISED:
        tags.insert(0, GOOD)
    return ", ".join(tags)


def full_caption(portrait: Portrait) -> str:
    """All that a picture in focus shows, in order."""
    return ", ".join((GOOD, *portrait.tags))


def named(text: str) -> tuple[int, ...]:
    """What a caption names of each of `FEATURES`: the value's number from 1 on, 0 for what it leaves out."""
    found = dict.fromkeys(FEATURES, 0)
    for tag in text.split(", "):
        words = tag.split()
        hair = words[-1:] == ["hair"]
        for feature, values in FEATURES.items():
            if ("hair" in feature) != hair:
                continue
            for number, value in enumerate(values, 1):
                if value == tag or (" " not in value and value in words):
                    found[feature] = number
    return tuple(found.values())


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted; a hyphen stands between two words."""
    phrases = (
        "a", *PEOPLE, *HAIR_COLOURS, *HAIR_STYLES, "hair", *CLOTHES, *CLOTHES_COLOURS,
        *SIDES, *SIZES, *BACKGROUNDS, GOOD, *BAD,
    )  # fmt: skip
    return tuple(sorted({word for phrase in phrases for word in phrase.replace("-", " ").split()}))
