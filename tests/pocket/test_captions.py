"""Captions name what is drawn, as often and as variously as people do."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from analyzer.pocket.captions import (
    BACKGROUNDS,
    BAD,
    CLOTHES,
    CLOTHES_COLOURS,
    FEATURES,
    GOOD,
    HAIR_COLOURS,
    HAIR_STYLES,
    PEOPLE,
    SIDES,
    SIZES,
    Portrait,
    Style,
    caption,
    choose,
    full_caption,
    named,
    unasked,
    vocabulary,
)

STYLES: tuple[Style, ...] = ("shaded", "flat")
WOMAN = Portrait("woman", "red", "long", "coat", "blue", "facing left", "close-up", "sunset")


@settings(max_examples=60)
@given(style=st.sampled_from(STYLES), seed=st.integers(0, 2**32))
def test_captions_hold_tags_of_the_portrait_in_known_words(style: Style, seed: int) -> None:
    """No tag twice, none that is not drawn, and no word that the vocabulary lacks."""
    rng = np.random.default_rng(seed)
    portrait = choose(style, rng)
    text = caption(portrait, rng)
    tags = text.split(", ") if text else []
    allowed = {*portrait.tags, *(BAD if portrait.blurred else (GOOD,))}
    assert [] == [tag for tag in tags if tag not in allowed]
    assert len(tags) == len(set(tags))
    assert set(re.findall(r"[a-z]+", f"{full_caption(portrait)} {text}")) <= set(vocabulary())


@settings(max_examples=60)
@given(style=st.sampled_from(STYLES), seed=st.integers(0, 2**32))
def test_what_a_caption_names_is_what_is_drawn(style: Style, seed: int) -> None:
    """Of each feature the portrait's value, or nothing if its tag is left out; a uniform has no colour."""
    rng = np.random.default_rng(seed)
    portrait = choose(style, rng)
    text = caption(portrait, rng)
    tags = dict(zip(("person", "hair", "clothes", "side", "size", "background"), portrait.tags, strict=True))
    for number, (feature, values) in zip(named(text), FEATURES.items(), strict=True):
        told = values[number - 1] if number else None
        if feature == "quality":
            assert (told is None) == (not text or not (GOOD in text or portrait.blurred))
            assert told is None or told in text
            continue
        tag = tags[feature.removesuffix("_colour").removesuffix("_style")]
        coloured = feature != "clothes_colour" or portrait.clothes != "school uniform"
        expected = getattr(portrait, feature) if tag in text.split(", ") and coloured else None
        assert expected == told


def test_every_feature_is_named() -> None:
    """Who, hair, clothes, side, size, background, in this order; a uniform has no colour."""
    expected = "best quality, a woman, long red hair, blue coat, facing left, close-up, sunset"
    assert expected == full_caption(WOMAN)
    uniform = Portrait("man", "grey", "bun", "school uniform", "red", "facing right", "from afar", "sea")
    expected = "best quality, a man, bun grey hair, school uniform, facing right, from afar, sea"
    assert expected == full_caption(uniform)


def test_captions_leave_out_and_shuffle_as_often_as_they_say() -> None:
    """One in ten is empty; a feature is named in 88 % of the others; three in ten are out of order."""
    rng = np.random.default_rng(5)
    texts = [caption(WOMAN, rng) for _ in range(4000)]
    filled = [text.removeprefix(f"{GOOD}, ").split(", ") for text in texts if text]
    assert binomtest(texts.count(""), len(texts), 0.1).pvalue > 1e-3
    named = Counter(tag for tags in filled for tag in tags)
    for tag in WOMAN.tags:
        assert binomtest(named[tag], len(filled), 0.88).pvalue > 1e-3, tag
    six = [tuple(tags) for tags in filled if len(tags) == 6]
    assert 0.2 < sum(tags != WOMAN.tags for tags in six) / len(six) < 0.4


def test_pictures_out_of_focus_are_called_so_and_never_praised() -> None:
    """In every caption that says anything."""
    rng = np.random.default_rng(6)
    blurred = Portrait("man", "black", "short", "shirt", "red", "facing viewer", "upper body", "sea", True)
    texts = [text for text in (caption(blurred, rng) for _ in range(300)) if text]
    assert all(text.startswith(BAD) for text in texts)
    assert set(BAD) == {text.split(", ")[0] for text in texts}


@pytest.mark.parametrize("style", STYLES)
def test_every_value_occurs_and_the_styles_have_different_habits(style: Style) -> None:
    """A is sober, and evenly man or woman; B shows more of what drawn characters look like."""
    rng = np.random.default_rng(7)
    found = [choose(style, rng) for _ in range(3000)]
    for feature, values in (
        ("person", PEOPLE), ("hair_colour", HAIR_COLOURS), ("hair_style", HAIR_STYLES), ("clothes", CLOTHES),
        ("clothes_colour", CLOTHES_COLOURS), ("side", SIDES), ("size", SIZES), ("background", BACKGROUNDS),
    ):  # fmt: skip
        assert set(values) == {getattr(portrait, feature) for portrait in found}
    clothes = Counter(portrait.clothes for portrait in found)
    assert chisquare([clothes[name] for name in CLOTHES]).pvalue > 1e-3
    women = sum(portrait.person == "woman" for portrait in found)
    assert binomtest(women, len(found), 0.5 if style == "shaded" else 0.7).pvalue > 1e-3
    coloured = sum(portrait.hair_colour in ("blue", "pink", "green") for portrait in found) / len(found)
    assert (coloured < 0.25) == (style == "shaded")


@pytest.mark.parametrize("style", STYLES)
def test_unasked_is_how_often_two_pictures_agree(style: Style) -> None:
    """Counted in pairs of portraits."""
    rng = np.random.default_rng(8)
    found = [choose(style, rng) for _ in range(6000)]
    for feature in FEATURES.keys() - {"quality"}:
        same = sum(
            getattr(one, feature) == getattr(other, feature)
            for one, other in zip(found[::2], found[1::2], strict=True)
        )
        assert binomtest(same, 3000, unasked(style, feature)).pvalue > 1e-3, feature
