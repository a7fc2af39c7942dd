"""Tests between groups of numbers: do neighbours differ, do any differ? Knows no keys and no statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import false_discovery_control, kruskal, mannwhitneyu

from analyzer.uncertainty.array_formulas import Floats

LEVEL = 0.05  # of the adjusted p from which on two neighbours are called alike


@dataclass(frozen=True, slots=True)
class Comparison:
    """A group against the one that follows it: a Mann–Whitney test of the values of their keys."""

    other: str  # the group that follows
    keys: tuple[int, int]  # how many of this one and of the other have a value
    u: float  # how many of all pairs (this, other) this one wins; ties count half
    p: float  # two-sided
    p_adjusted: float  # by Benjamini and Hochberg, over all neighbours of the ranking
    # Rank-biserial correlation, also Cliff's delta, in −1 … 1: P(this > other) − P(this < other)
    effect: float
    told_by_keys: bool  # whether the test tells them apart, in the direction of the ranking
    told_by_intervals: bool  # whether both have an interval, and these have nothing in common

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart at all."""
        return self.told_by_keys or self.told_by_intervals


@dataclass(frozen=True, slots=True)
class AxisTest:
    """A Kruskal–Wallis test: whether the keys of some groups tend to larger values than those of others."""

    groups: int
    keys: int
    h: float
    p: float
    effect: float  # ε² = H / (keys − 1), in 0 … 1: share of the variance of the ranks that lies between


def compare_neighbours(
    names: Sequence[str],
    values: Sequence[Floats],
    intervals: Sequence[tuple[float, float] | None],
    *,
    rising: bool,
) -> list[Comparison]:
    """Each group but the last against its successor, in the order of a ranking.

    Two ways to tell them apart: the test looks at all keys alike, the intervals at the groups as they are
    ranked, in which large keys weigh more. A test of 5 keys against 5 is never better than p = 0.008, which
    no adjustment for many neighbours survives. `rising` says that the ranking begins with the smallest
    values. Mann & Whitney, On a test of whether one of two random variables is stochastically larger than
    the other, 1947; Benjamini & Hochberg, Controlling the false discovery rate, 1995; Cliff, Dominance
    statistics, 1993.
    """
    found = [_test(this, other) for this, other in pairwise(values)]
    adjusted = false_discovery_control([p for _, p in found]) if found else []
    comparisons = []
    for place, ((u, p), p_adjusted) in enumerate(zip(found, adjusted, strict=True)):
        sizes = len(values[place]), len(values[place + 1])
        effect = 2 * u / (sizes[0] * sizes[1]) - 1
        # Where most keys point the other way than the groups do, the test does not support the ranking.
        by_keys = bool(p_adjusted < LEVEL and (effect < 0 if rising else effect > 0))
        by_intervals = _disjoint(intervals[place], intervals[place + 1])
        test = Comparison(names[place + 1], sizes, u, p, float(p_adjusted), effect, by_keys, by_intervals)
        comparisons.append(test)
    return comparisons


def tiers(comparisons: Sequence[Comparison]) -> list[int]:
    """The tier of every group, from 1: a new one begins where two neighbours can be told apart."""
    found = [1]
    for comparison in comparisons:
        found.append(found[-1] + comparison.apart)
    return found


def compare_all(values: Sequence[Floats]) -> AxisTest | None:
    """All groups at once; None of fewer than two. Kruskal & Wallis, 1952; ε²: Kelley 1935."""
    if len(values) < 2:
        return None
    together = np.concatenate(values)
    if (together == together[0]).all():
        return AxisTest(len(values), together.size, 0.0, 1.0, 0.0)
    h, p = kruskal(*values)
    return AxisTest(len(values), together.size, float(h), float(p), float(h) / (together.size - 1))


def _disjoint(this: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return this is not None and other is not None and (this[0] > other[1] or other[0] > this[1])


def _test(this: Floats, other: Floats) -> tuple[float, float]:
    """(U of the first, p). Two groups of one and the same value cannot be told apart."""
    if (this == this[0]).all() and (other == this[0]).all():
        return this.size * other.size / 2, 1.0
    found = mannwhitneyu(this, other)
    return float(found.statistic), float(found.pvalue)
