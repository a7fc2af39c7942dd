"""The models that ship paint what their prompts name, judged by what the drawings look like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.pocket import base_path, fine_tune_path
from analyzer.pocket.captions import Style, full_caption, unasked
from analyzer.pocket.portraits import draw
from analyzer.pocket.samples import paint

pytestmark = pytest.mark.usefixtures("libraries")
FOLLOWED = ("background", "hair_colour", "clothes_colour", "side")


@pytest.fixture(scope="module")
def following(libraries: None) -> Any:
    """The module, which imports diffusers where it paints."""
    from analyzer.pocket import following

    return following


@pytest.mark.parametrize("style", ["shaded", "flat"])
def test_drawings_are_judged_as_they_were_drawn(following: Any, style: Style) -> None:
    """Other drawings of the same portraits: nine in ten of all features are told right, each in most."""
    wanted = [replace(portrait, clothes="coat") for portrait in following.portraits(style, 4)]
    pictures = [draw(one, style, np.random.default_rng((9, number))) for number, one in enumerate(wanted)]
    found = following.shares(pictures, wanted, style, drawings=3)
    assert set(following.JUDGED) == found.keys()
    assert np.mean([*found.values()]) >= 0.9
    assert min(found.values()) > 0.5
    nobody = following.shares([], [], style)
    assert all(np.isnan(share) for share in nobody.values())


@pytest.mark.parametrize(("style", "file"), [("shaded", base_path()), ("flat", fine_tune_path())])
def test_the_models_that_ship_follow_their_prompts(following: Any, style: Style, file: Path) -> None:
    """Three pictures in four or more, of each feature; what they would show unasked is far below."""
    wanted = following.portraits(style, 8)
    pictures = paint(file, [full_caption(portrait) for portrait in wanted], seeds=(1,), steps=15)
    found = following.shares(pictures, wanted, style, drawings=2, features=FOLLOWED)
    assert min(found.values()) >= 0.75, found
    assert max(unasked(style, feature) for feature in FOLLOWED) < 0.4
