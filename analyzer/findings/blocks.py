"""The block that moved unlike the other blocks."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import median

import numpy as np

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Counted, Group, Survey
from analyzer.formulas import relative_change
from analyzer.outliers import CHANCE, limit
from analyzer.records import Finding

# A block is odd among at least so many, at a robust z-score beyond what chance gives to the farthest of them,
# and if it moved by this factor more or less than the median block.
BLOCKS = 8
BLOCK_FACTOR = 1.5
# The spread of log change is taken as at least this: blocks that all moved by exactly the same would make
# any other one infinitely odd.
LEAST_SPREAD = 0.01
MAD_TO_DEVIATION = 1.4826  # of normal values; Rousseeuw & Croux 1993


def find_odd_block(survey: Survey) -> list[Finding]:
    """The block that moved much more or much less than its components do in the other blocks.

    Blocks are made of different components, and a block without attention is not odd because attention
    moved most. So a block's change is measured against the one that it would have if each of its
    components moved as in the median block. A block in a part that was replaced or trained apart is left out:
    how far it moved says nothing. Of the logarithm of that ratio the robust z-score of Iglewicz
    & Hoaglin, How to Detect and Handle Outliers, 1993: a factor of two up is as odd as one down.
    """
    counted = survey.counted
    blocks = [b for b in survey.blocks if b.moved and not counted.touches(b, survey.strange)]
    if len(blocks) < BLOCKS:
        return []
    ratios = _against_usual(blocks, counted)
    if len(ratios) < BLOCKS:
        return []
    middle = median(value for value, _ in ratios)
    spread = max(MAD_TO_DEVIATION * median(abs(value - middle) for value, _ in ratios), LEAST_SPREAD)
    value, block = max(ratios, key=lambda pair: abs(pair[0] - middle))
    change = relative_change(block.sums)
    if abs(value - middle) < max(limit(len(ratios)) * spread, log(BLOCK_FACTOR)) or change is None:
        return []
    text = (
        f"block {block.path} stands out: it moved by {wording.change(change)}, "
        f"{wording.ratio(exp(value - middle))} times as far as its categories do in the other blocks"
    )
    return [Finding(text, "relative_change", change, survey.selecting.groups("block", [block.path]))]


def _against_usual(blocks: Sequence[Group], counted: Counted) -> list[tuple[float, Group]]:
    """The log of each block's change over that of its components in the median block that has them."""
    squares = _squares(counted)
    cells = [squares[block.path] for block in blocks]
    changes: dict[str, list[float]] = {}
    for cell in cells:
        for component, (d, a) in cell.items():
            changes.setdefault(component, []).append(sqrt(d / a))
    usual = {component: median(values) for component, values in changes.items()}
    ratios = []
    for block, cell in zip(blocks, cells, strict=True):
        moved = sum(d for d, _ in cell.values())
        expected = sum(usual[component] ** 2 * a for component, (_, a) in cell.items())
        if moved > 0 and expected > 0:
            ratios.append((log(moved / expected) / 2, block))
    return ratios


def _squares(counted: Counted) -> dict[str, dict[str, tuple[float, float]]]:
    """(Σd², Σa²) of each component in each block, where that can be divided."""
    blocks, components = counted.paths["block"], counted.paths["component"]
    cells = counted.codes["block"] * len(components) + counted.codes["component"]
    known, seats = np.unique(cells, return_inverse=True)
    d, a = (np.bincount(seats, counted.columns.column(name)).tolist() for name in ("sum_dd", "sum_aa"))
    squares: dict[str, dict[str, tuple[float, float]]] = {block: {} for block in blocks}
    for cell, own_d, own_a in zip(known.tolist(), d, a, strict=True):
        block, component = divmod(cell, len(components))
        if own_a > 0:
            squares[blocks[block]][components[component]] = (own_d, own_a)
    return squares


ODD_BLOCK = Finder(
    find_odd_block,
    (
        Rule(
            "block OUT05 stands out: it moved by 30% of its length, 2.1 times as far as its categories do in "
            "the other blocks",
            "of {BLOCKS} blocks or more that changed, a robust z-score (median, MAD, a deviation of "
            "{LEAST_SPREAD} at least) that chance gives to any block with a probability below {CHANCE}, and "
            "a factor of {BLOCK_FACTOR} or more, of the block's change over that of its components in the "
            "median block",
            {
                "BLOCKS": BLOCKS,
                "LEAST_SPREAD": LEAST_SPREAD,
                "CHANCE": CHANCE,
                "BLOCK_FACTOR": BLOCK_FACTOR,
            },
        ),
    ),
)
