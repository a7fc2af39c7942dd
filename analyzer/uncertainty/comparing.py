"""Tests between groups of numbers: which differ, do any? Knows no keys and no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analyzer.column_arithmetic import Floats
from analyzer.uncertainty.rank_tests import false_discovery_rates, kruskal_wallis, mann_whitney

LEVEL = 0.05  # of the adjusted p from which on two groups are called alike


@dataclass(frozen=True, slots=True)
class Comparison:
    """A group against one that follows it: a Mann–Whitney test of the values of their keys."""

    other: str  # the group that follows it
    keys: tuple[int, int]  # how many of this one and of the other have a value
    u: float  # how many of all pairs (this, other) this one wins; ties count half
    p: float  # two-sided
    p_adjusted: float  # by Benjamini and Hochberg, over all pairs of the ranking that were tested
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


@dataclass(frozen=True, slots=True)
class Border:
    """Why a tier ends: a group of it that can be told from the first group of the next one."""

    group: str  # of the tier that ends
    test: Comparison | None  # against the first of the next tier; None: their intervals are disjoint


@dataclass(frozen=True, slots=True)
class Told:
    """Which groups of a ranking can be told apart, by their places in it."""

    neighbours: tuple[Comparison, ...]  # each group but the last against the one that follows
    tiers: tuple[int, ...]  # of every group, from 1
    borders: Mapping[int, Border]  # by the place of the group with which a further tier begins
    tests: int  # how many pairs were tested: p is adjusted over all of them


def tell_apart(
    names: Sequence[str],
    values: Sequence[Floats],
    intervals: Sequence[tuple[float, float] | None],
    *,
    rising: bool,
) -> Told:
    """Tests between the groups of a ranking, given in its order, and the tiers that follow from them.

    A tier ends where a group has an interval that is disjoint from that of any group of the tier, or keys
    that can be told from those of its first or its last one. (A chain in which only neighbours are
    compared may lead from any value to any other.) Two ways to tell groups apart: a test looks at all keys
    alike, the intervals at the groups as they are ranked, in which large keys weigh more. A test of 5 keys
    against 5 is never better than p = 0.008, which no adjustment for many tests survives. `rising` says
    that the ranking begins with the smallest values. Mann & Whitney, On a test of whether one of two random
    variables is stochastically larger than the other, 1947; Benjamini & Hochberg, Controlling the false
    discovery rate, 1995; Cliff, Dominance statistics, 1993.
    """
    pairs = _Pairs(names, values, intervals, rising=rising)
    for both in pairwise(range(len(names))):
        pairs.test(*both)
    # Which firsts are tested depends on where tiers begin, and this on all p, which are adjusted over all
    # tests: until no further test is asked for.
    while True:
        before = pairs.tests
        tiers, borders = _tiers(pairs)
        if pairs.tests == before:
            neighbours = tuple(pairs.comparison(*both) for both in pairwise(range(len(names))))
            return Told(neighbours, tiers, borders, pairs.tests)


class _Pairs:
    """The tests between groups by their places: each is made once, and p is adjusted over all that are."""

    def __init__(
        self,
        names: Sequence[str],
        values: Sequence[Floats],
        intervals: Sequence[tuple[float, float] | None],
        *,
        rising: bool,
    ) -> None:
        self._names, self._values, self._intervals = names, values, intervals
        self._sign = -1 if rising else 1
        self._found: dict[tuple[int, int], tuple[float, float]] = {}
        self._adjusted: dict[tuple[int, int], float] = {}

    def __len__(self) -> int:
        return len(self._names)

    @property
    def tests(self) -> int:
        """How many pairs were tested."""
        return len(self._found)

    def test(self, this: int, other: int) -> None:
        """Make the test, if it was not made."""
        if (this, other) not in self._found:
            self._found[this, other] = _test(self._values[this], self._values[other])

    def comparison(self, this: int, other: int) -> Comparison:
        """The group at one place against that at a later one."""
        self.test(this, other)
        if len(self._adjusted) < self.tests:
            adjusted = false_discovery_rates([p for _, p in self._found.values()])
            self._adjusted = dict(zip(self._found, adjusted, strict=True))
        (u, p), p_adjusted = self._found[this, other], self._adjusted[this, other]
        sizes = len(self._values[this]), len(self._values[other])
        effect = 2 * u / (sizes[0] * sizes[1]) - 1
        # Where most keys point the other way than the groups do, the test does not support the ranking.
        by_keys = bool(p_adjusted < LEVEL and self._sign * effect > 0)
        by_intervals = _disjoint(self._intervals[this], self._intervals[other])
        return Comparison(self._names[other], sizes, u, p, p_adjusted, effect, by_keys, by_intervals)

    def border(self, first: int, at: int) -> Border | None:
        """What tells the group at a place from those from `first` up to it, if anything does."""
        for place in dict.fromkeys((first, at - 1)):
            test = self.comparison(place, at)
            if test.told_by_keys:
                return Border(self._names[place], test)
        for place in range(at - 1, first - 1, -1):
            if _disjoint(self._intervals[place], self._intervals[at]):
                return Border(self._names[place], None)
        return None


def _tiers(pairs: _Pairs) -> tuple[tuple[int, ...], dict[int, Border]]:
    """The tier of every group, and what ends each but the last."""
    tiers: list[int] = []
    borders = {}
    first = 0
    for at in range(len(pairs)):
        border = pairs.border(first, at) if at else None
        if border is not None:
            first, borders[at] = at, border
        tiers.append(1 + len(borders))
    return tuple(tiers), borders


def compare_all(values: Sequence[Floats]) -> AxisTest | None:
    """All groups at once; None of fewer than two. Kruskal & Wallis, 1952; ε²: Kelley 1935."""
    if len(values) < 2:
        return None
    together = np.concatenate(values)
    if (together == together[0]).all():
        return AxisTest(len(values), together.size, 0.0, 1.0, 0.0)
    h, p = kruskal_wallis(values)
    return AxisTest(len(values), together.size, h, p, h / (together.size - 1))


def _disjoint(this: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return this is not None and other is not None and (this[0] > other[1] or other[0] > this[1])


def _test(this: Floats, other: Floats) -> tuple[float, float]:
    """(U of the first, p). Two groups of one and the same value cannot be told apart."""
    if (this == this[0]).all() and (other == this[0]).all():
        return this.size * other.size / 2, 1.0
    return mann_whitney(this, other)
