"""What a caption says can be seen in the picture, in either style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from analyzer.pocket.captions import (
    BACKGROUNDS,
    CLOTHES,
    CLOTHES_COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    PEOPLE,
    SIDES,
    SIZES,
    Portrait,
    Style,
)
from analyzer.pocket.portraits import draw

STYLES: tuple[Style, ...] = ("shaded", "flat")
PLAIN = Portrait(
    "woman", "black", "short", "sweater", "blue", "facing viewer", "upper body", "plain background"
)
# sRGB of the web's names (CSS Color Module 4) where they fit, of hair where the word means something else
NAMED = {
    "black": (20, 20, 20), "brown": (101, 67, 33), "blond": (250, 240, 150), "red": (178, 34, 34),
    "grey": (169, 169, 169), "blue": (30, 80, 220), "pink": (255, 105, 180), "green": (46, 139, 87),
    "white": (255, 255, 255), "yellow": (255, 215, 0), "purple": (128, 0, 128),
}  # fmt: skip
VALUES = {
    "person": PEOPLE, "hair_colour": HAIR_COLOURS, "hair_style": HAIR_STYLES, "clothes": CLOTHES,
    "clothes_colour": CLOTHES_COLOURS, "side": SIDES, "size": SIZES, "background": BACKGROUNDS,
}  # fmt: skip
Pixels = NDArray[np.float64]


def drawn(style: Style, seed: int = 0, **features: object) -> Pixels:
    """A picture in which only some features differ from a plain one."""
    picture = draw(replace(PLAIN, **features), style, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert ((64, 64, 3), np.uint8) == (picture.shape, picture.dtype)
    return picture.astype(np.float64)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("feature", VALUES)
def test_every_value_of_a_feature_is_another_picture(feature: str, style: Style) -> None:
    """Of the same seed; and the same values give the same bytes."""
    pictures = [drawn(style, **{feature: value}) for value in VALUES[feature]]
    for place, one in enumerate(pictures):
        for other in pictures[:place]:
            assert (np.abs(one - other).max(axis=-1) > 25).sum() >= 12
    again = drawn(style, **{feature: VALUES[feature][0]})
    assert np.array_equal(pictures[0], again)
    assert not np.array_equal(again, drawn(style, seed=1, **{feature: VALUES[feature][0]}))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colour", HAIR_COLOURS)
def test_hair_has_the_colour_of_its_name(colour: str, style: Style) -> None:
    """Of eight, the named one is nearest to what stands above the forehead, by hue and lightness."""
    above = np.mean(
        [drawn(style, seed, hair_colour=colour)[14:17, 29:36] for seed in range(4)], axis=(0, 1, 2)
    )
    assert colour == nearest(above, HAIR_COLOURS)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colour", CLOTHES_COLOURS)
def test_clothes_have_the_colour_of_their_name(colour: str, style: Style) -> None:
    """On the chest."""
    chest = np.mean(
        [drawn(style, seed, clothes_colour=colour)[46:58, 24:40] for seed in range(4)], axis=(0, 1, 2)
    )
    assert colour == nearest(chest, CLOTHES_COLOURS)


@pytest.mark.parametrize("style", STYLES)
def test_heads_are_as_large_as_the_frame_says(style: Style) -> None:
    """Seen closer, more of the picture is not background."""
    counts = []
    for size in SIZES:
        rng = np.random.default_rng(3)
        picture = draw(replace(PLAIN, size=size, hair_colour="red"), style, rng).astype(float)
        counts.append(int((picture[:, :, 0] - picture[:, :, 2] > 40).sum()))  # skin and hair
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 1.5 * counts[1] > 2 * counts[2]


@pytest.mark.parametrize("style", STYLES)
def test_faces_look_to_the_side_that_is_named(style: Style) -> None:
    """The skin of the head lies left of its hair, on it, or right of it, by some pixels."""
    offsets = []
    for side in SIDES:
        found = []
        for seed in range(4):
            picture = drawn(style, seed, side=side, hair_colour="green")[10:34]
            red, green, blue = np.moveaxis(picture, -1, 0)
            skin, hair = (red > green + 12) & (red > blue + 30), green > red + 15
            columns = np.arange(64.0)
            found.append((columns * skin).sum() / skin.sum() - (columns * hair).sum() / hair.sum())
        offsets.append(np.mean(found))
    assert offsets[0] < -2 < offsets[1] < 2 < offsets[2]


LOOKS: Mapping[str, Callable[[Pixels, Pixels, Pixels], bool]] = {
    "plain background": lambda r, g, b: bool(max(np.ptp(c) for c in np.stack([r, g, b], -1)) < 14),
    "sunset": lambda r, g, b: bool(r[30:].mean() > g[30:].mean() + 30 > b[30:].mean() + 30),
    "night sky": lambda r, g, b: bool(np.median(r) < 45 and np.median(b) > np.median(r) + 10),
    "forest": lambda r, g, b: bool(g.mean() > r.mean() + 8 and g.mean() > b.mean() + 15),
    "sea": lambda r, g, b: bool(b[40:].mean() > r[40:].mean() + 50 and 90 < np.median(g) < np.median(b)),
    "city": lambda r, g, b: bool(
        np.median(r - g) < 5 and ((r - b > 90) & (g > 200)).mean() > 0.03
    ),  # windows
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_edges_show_the_background(name: str, style: Style) -> None:
    """As its name says, on either side of somebody from afar, and as no other does."""
    for seed in range(4):
        picture = drawn(style, seed, background=name, size="from afar")
        edges = np.moveaxis(np.concatenate([picture[:, :8], picture[:, -8:]], axis=1), -1, 0)
        assert [name] == [other for other, looks in LOOKS.items() if looks(*edges)]


@pytest.mark.parametrize("style", STYLES)
def test_out_of_focus_pictures_have_no_sharp_edges(style: Style) -> None:
    """The steps between neighbours shrink, the mean colour stays."""
    sharp, soft = drawn(style), drawn(style, blurred=True)
    assert np.abs(np.diff(soft, axis=1)).max() < 0.4 * np.abs(np.diff(sharp, axis=1)).max()
    assert np.abs(soft.mean(axis=(0, 1)) - sharp.mean(axis=(0, 1))).max() < 4


def test_the_styles_can_be_told_apart() -> None:
    """Flat pictures have lines of ink around areas of one colour; shaded ones have gradients."""
    lines, even = {}, {}
    for style in STYLES:
        pictures = [drawn(style, seed, hair_colour="blond", clothes_colour="white") for seed in range(4)]
        lines[style] = np.mean([(picture.max(axis=-1) < 75).mean() for picture in pictures])
        steps = [np.diff(picture[16:, 20:44], axis=0) for picture in pictures]
        even[style] = np.mean([(step == 0).all(axis=-1).mean() for step in steps])
    assert lines["flat"] > 3 * lines["shaded"]
    assert even["flat"] > 2 * even["shaded"]


# --- oracles ---------------------------------------------------------------------------------


def nearest(colour: Pixels, names: tuple[str, ...]) -> str:
    """The name whose colour lies nearest, in CIELAB; lightness counts half."""
    weights = np.array([0.5, 1.0, 1.0])  # light and shadow move lightness, and not the hue
    own = lab(colour) * weights
    return min(names, key=lambda name: float(np.linalg.norm(lab(np.array(NAMED[name])) * weights - own)))


def lab(srgb: Pixels) -> Pixels:
    """CIE 1976 L*a*b* of an sRGB colour of 0 … 255, D65."""
    linear = srgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = matrix @ linear / np.array([0.95047, 1.0, 1.08883])
    f = [np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
