"""The colours of the report page: text that can be read, and a scale that invents no edges."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise

import pytest


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("text", ["ink", "muted", "accent", "warn"])
@pytest.mark.parametrize("ground", ["page", "card"])
def test_text_has_the_contrast_of_level_aa(scheme: str, text: str, ground: str) -> None:
    """Every text colour on every ground reaches 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    style = files("reports").joinpath("styles/page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w[\w-]*): (#\w{6});", part)) for part in style.split("@media", 2)[:2]
    )
    colours = {**light, **dark} if scheme == "dark" else light
    bright, dim = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_the_colour_scale_is_even() -> None:
    """Equal steps of a value are equal steps of lightness, so that a map does not invent edges."""
    source = files("reports").joinpath("js/theme.js").read_text(encoding="utf-8")
    sequential = re.findall(r"#\w{6}", source[source.index("SEQUENTIAL") : source.index("];")])
    # CIE 1976 lightness of a relative luminance above 0.009
    lightness = [116 * luminance(colour) ** (1 / 3) - 16 for colour in sequential]
    steps = [a - b for a, b in pairwise(lightness)]
    assert 11 == len(sequential)
    assert [sum(steps) / 10] * 10 == pytest.approx(steps, abs=0.6)


def luminance(colour: str) -> float:
    """The relative luminance of "#rrggbb", in 0 … 1 (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
