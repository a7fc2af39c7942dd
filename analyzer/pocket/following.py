"""How often the pocket models paint what a prompt names: `python -m analyzer.pocket.following`.

A portrait is worded in full, and painted. For every feature it is also drawn, several times with each value
that the feature can have, all else equal: a picture shows the value whose drawings, on average, it is nearest
to. Prints the table of the model card: of each model how often a feature would come out right unasked, how
often the judgement is right of other drawings, and how often of what the model paints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.pocket import base_path, fine_tune_path
from analyzer.pocket.captions import FEATURES, Portrait, Style, choose, full_caption, unasked
from analyzer.pocket.portraits import draw
from analyzer.pocket.samples import paint

Picture = NDArray[np.uint8]  # (64 × 64 × 3)

PORTRAITS = 48
DRAWINGS = 6  # of each value
_SEED = 5
JUDGED = tuple(feature for feature in FEATURES if feature != "quality")


def portraits(style: Style, count: int) -> list[Portrait]:
    """What is asked for: as the style's pictures are, all in focus."""
    rng = np.random.default_rng((_SEED, style == "flat"))
    return [replace(choose(style, rng), blurred=False) for _ in range(count)]


def shown(picture: Picture, portrait: Portrait, feature: str, style: Style, drawings: int = DRAWINGS) -> str:
    """The value of a feature that a picture shows, if all else is as in `portrait`."""

    def distance(value: str) -> float:
        other = replace(portrait, **{feature: value})  # type: ignore[arg-type]  # none of them is `blurred`
        drawn = [draw(other, style, np.random.default_rng((_SEED, number))) for number in range(drawings)]
        return float(np.square(picture - np.mean(drawn, axis=0)).sum())

    return min(FEATURES[feature], key=distance)


def shares(
    pictures: Sequence[Picture], wanted: Sequence[Portrait], style: Style, *, drawings: int = DRAWINGS,
    features: Iterable[str] = JUDGED,
) -> Mapping[str, float]:  # fmt: skip
    """Of each feature, the share of pictures, 0 … 1, that show what was asked for; NaN of none.

    The colour of clothes is not judged where they are a uniform, which has its own.
    """
    found: dict[str, float] = {}
    for feature in features:
        right = [
            shown(picture, portrait, feature, style, drawings) == getattr(portrait, feature)
            for picture, portrait in zip(pictures, wanted, strict=True)
            if feature != "clothes_colour" or portrait.clothes != "school uniform"
        ]
        found[feature] = sum(right) / len(right) if right else float("nan")
    return found


def main() -> None:
    """Print the table."""
    columns: list[Mapping[str, float]] = []
    styles: tuple[tuple[Style, Path], ...] = (("shaded", base_path()), ("flat", fine_tune_path()))
    for style, file in styles:
        wanted = portraits(style, PORTRAITS)
        asked = [full_caption(portrait) for portrait in wanted]
        others = [draw(one, style, np.random.default_rng((9, number))) for number, one in enumerate(wanted)]
        columns.append({feature: unasked(style, feature) for feature in JUDGED})
        columns.append(shares(others, wanted, style))
        columns.append(shares(paint(file, asked, seeds=(1,)), wanted, style))
    for feature in JUDGED:
        row = " | ".join(f"{column[feature]:.0%}" for column in columns)
        sys.stdout.write(f"| {feature.replace('_', ' ')} | {row} |\n")


if __name__ == "__main__":
    main()
