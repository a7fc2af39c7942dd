"""Tests between groups: against the same tests by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.uncertainty.comparing import LEVEL, Comparison, Told, compare_all, tell_apart

examples = settings(max_examples=60)


def neighbours(
    names: Sequence[str],
    values: Sequence[np.ndarray],
    intervals: Sequence[tuple[float, float] | None],
    *,
    rising: bool = False,
) -> tuple[Comparison, ...]:
    """The tests between neighbours."""
    return tell_apart(names, values, intervals, rising=rising).neighbours


def compare(*groups: list[float], rising: bool = False) -> list[tuple[bool, bool]]:
    """What tells each neighbour from the next: (the test, the intervals); no group has an interval."""
    names = [f"g{i}" for i in range(len(groups))]
    found = neighbours(names, [np.array(g) for g in groups], [None] * len(groups), rising=rising)
    assert names[1:] == [test.other for test in found]
    return [(test.told_by_keys, test.told_by_intervals) for test in found]


@examples
@given(
    st.lists(st.integers(0, 9).map(float), min_size=5, max_size=12),
    st.lists(st.integers(0, 9).map(float), min_size=5, max_size=12),
)
def test_effects_are_counted_pairs(x: list[float], y: list[float]) -> None:
    """U is the number of pairs won, ties half; the effect is the share won minus the share lost."""
    (test,) = neighbours(["a", "b"], [np.array(x), np.array(y)], [None, None], rising=False)
    won = sum((i > j) + 0.5 * (i == j) for i in x for j in y)
    lost = sum(i < j for i in x for j in y)
    above = sum(i > j for i in x for j in y)
    assert won == test.u
    assert test.effect == pytest.approx((above - lost) / (len(x) * len(y)))
    assert 0 <= test.p <= 1
    assert (len(x), len(y)) == test.keys


def test_an_exact_p() -> None:
    """Five keys all above five others: 2 of the 252 orders are as extreme."""
    x, y = np.arange(5.0) + 10, np.arange(5.0)
    (test,) = neighbours(["a", "b"], [x, y], [None, None], rising=False)
    assert (25.0, 1.0) == (test.u, test.effect)
    assert test.p == pytest.approx(2 / 252)


def test_p_values_are_adjusted_over_all_tests_made() -> None:
    """Benjamini and Hochberg: p · tests / rank, and never below that of a smaller p."""
    rng = np.random.default_rng(3)
    groups = [rng.standard_normal(12) - shift for shift in (0, 0.8, 0.9, 2.5, 2.6, 3.4)]
    told = tell_apart(list("abcdef"), groups, [None] * 6, rising=False)
    firsts = {tier: told.tiers.index(tier) for tier in told.tiers}
    made = set(pairwise(range(6)))
    made |= {(firsts[told.tiers[at - 1]], at) for at in range(1, 6)}
    assert told.tests == len(made)
    p = {pair: neighbours("xy", [groups[i] for i in pair], [None] * 2)[0].p for pair in made}
    order = sorted(made, key=p.__getitem__)
    expected, lowest = {}, 1.0
    for place in range(len(order), 0, -1):
        lowest = min(lowest, p[order[place - 1]] * len(order) / place)
        expected[order[place - 1]] = lowest
    found = [test.p_adjusted for test in told.neighbours]
    assert found == pytest.approx([expected[pair] for pair in pairwise(range(6))])


def test_a_chain_of_small_steps_is_not_one_tier() -> None:
    """Groups of which only neighbours are alike: each tier ends at what can be told from its first group."""
    groups = [np.linspace(-1, 1, 40) - step / 5 for step in range(12)]
    told = tell_apart([f"g{i}" for i in range(12)], groups, [None] * 12, rising=False)
    assert not any(test.apart for test in told.neighbours)
    assert max(told.tiers) > 2
    for at, border in told.borders.items():
        assert border.test is not None
        assert border.group == f"g{told.tiers.index(told.tiers[at] - 1)}"
        assert border.test.other == f"g{at}"
        assert border.test.p_adjusted < LEVEL


@examples
@given(
    seed=st.integers(0, 10**6),
    shape=st.lists(
        st.tuples(st.floats(0, 3), st.integers(5, 30), st.one_of(st.none(), st.floats(0.01, 0.4))), max_size=9
    ),
)
def test_no_tier_holds_disjoint_intervals(seed: int, shape: list[tuple[float, int, float | None]]) -> None:
    """Nor a group that its neighbour or the first of the tier can be told from; every border has a reason."""
    shape.sort(key=lambda group: group[0])
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(size) - shift for shift, size, _ in shape]
    intervals = [None if half is None else (-shift - half, -shift + half) for shift, _, half in shape]
    names = [f"g{i}" for i in range(len(shape))]
    told = tell_apart(names, values, intervals, rising=False)
    assert len(names) == len(told.tiers)
    for i, j in combinations(range(len(names)), 2):
        this, other = intervals[i], intervals[j]
        if told.tiers[i] == told.tiers[j] and this is not None and other is not None:
            assert this[0] <= other[1]
            assert other[0] <= this[1]
    for (before, after), test in zip(pairwise(told.tiers), told.neighbours, strict=True):
        assert 0 <= after - before <= 1
        assert after > before or not test.apart
    assert {at for at in range(1, len(names)) if told.tiers[at] > told.tiers[at - 1]} == set(told.borders)
    for at, border in told.borders.items():
        place = names.index(border.group)
        assert told.tiers[place] == told.tiers[at] - 1
        one, two = intervals[place], intervals[at]
        by_intervals = one is not None and two is not None and (one[0] > two[1] or two[0] > one[1])
        assert by_intervals if border.test is None else border.test.told_by_keys


def test_the_direction_must_be_that_of_the_ranking() -> None:
    """Keys that clearly point the other way do not support the order of their groups."""
    low, high = [float(i) for i in range(10)], [float(i) for i in range(20, 30)]
    assert [(True, False)] == compare(high, low)
    assert [(False, False)] == compare(low, high)
    assert [(True, False)] == compare(low, high, rising=True)


def test_equal_values_cannot_be_told_apart() -> None:
    """Two groups in which nothing changed: p is 1, and no test divides by zero."""
    (test,) = neighbours(["a", "b"], [np.zeros(6), np.zeros(9)], [(0.0, 0.0)] * 2, rising=False)
    assert (1.0, 0.0, False) == (test.p, test.effect, test.apart)


def test_disjoint_intervals_tell_apart() -> None:
    """However few the keys are; intervals that touch or are missing do not."""
    alike = [np.arange(5.0)] * 4
    intervals = [(0.3, 0.4), (0.1, 0.2), (0.2, 0.5), None]
    told = tell_apart(list("abcd"), alike, intervals, rising=False)
    assert [True, False, False] == [test.told_by_intervals for test in told.neighbours]
    assert [True, False, False] == [test.apart for test in told.neighbours]
    assert (1, 2, 2, 2) == told.tiers
    assert ("a", None) == (told.borders[1].group, told.borders[1].test)


def test_tiers_of_nothing_and_of_one_group() -> None:
    """One group is one tier; there is nothing to compare."""
    assert Told((), (), {}, 0) == tell_apart([], [], [], rising=False)
    assert Told((), (1,), {}, 0) == tell_apart(["a"], [np.arange(6.0)], [None], rising=False)
    assert compare_all([]) is None
    assert compare_all([np.arange(6.0)]) is None


def test_kruskal_wallis_by_hand() -> None:
    """H from the rank sums of values without ties: 12/(N(N+1)) · Σ R²/n − 3(N+1)."""
    rng = np.random.default_rng(9)
    groups = [rng.standard_normal(size) + shift for size, shift in ((6, 0), (8, 0.5), (7, 2))]
    ranks = np.argsort(np.argsort(np.concatenate(groups))) + 1.0
    parts = np.split(ranks, [6, 14])
    count = len(ranks)
    expected = 12 / (count * (count + 1)) * sum(part.sum() ** 2 / len(part) for part in parts) - 3 * (
        count + 1
    )
    found = compare_all(groups)
    assert found is not None
    assert found.h == pytest.approx(expected)
    assert (3, 21, pytest.approx(expected / 20)) == (found.groups, found.keys, found.effect)


def test_equal_groups_do_not_differ() -> None:
    """All keys have one value: H is 0 and p is 1."""
    found = compare_all([np.ones(6), np.ones(5)])
    assert found is not None
    assert (0.0, 1.0, 0.0) == (found.h, found.p, found.effect)
