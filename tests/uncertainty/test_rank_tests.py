"""The tests on ranks give what scipy's give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analyzer.uncertainty.rank_tests import false_discovery_rates, kruskal_wallis, mann_whitney

SIZES = [
    (1, 1),
    (1, 9),
    (2, 3),
    (5, 5),
    (8, 8),
    (8, 9),
    (5, 300),
    (8, 1500),
    (7, 2),
    (1, 700),
    (9, 9),
    (40, 7),
    (300, 200),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_mann_whitney_is_scipys(sizes: tuple[int, int], ties: bool) -> None:
    """Exact for few values, normal for many and where values are alike, whichever sample is the larger."""
    rng = np.random.default_rng(sum(sizes))
    for shift in (0.0, 0.5, 2.0, -9.0):
        this, other = rng.standard_normal(sizes[0]) + shift, rng.standard_normal(sizes[1])
        if ties:
            this, other = np.round(this, 0), np.append(np.round(other[1:], 0), np.round(this[0], 0))
            if np.unique([*this, *other]).size == 1:
                continue  # which nobody asks for: no variance
        expected = stats.mannwhitneyu(this, other)
        assert (expected.statistic, expected.pvalue) == pytest.approx(mann_whitney(this, other), rel=1e-9)


@pytest.mark.parametrize("digits", [0, 9])
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_kruskal_wallis_is_scipys(groups: int, digits: int) -> None:
    """With ties and without."""
    rng = np.random.default_rng(groups)
    samples = [np.round(rng.standard_normal(int(n)) + n / 9, digits) for n in rng.integers(2, 40, groups)]
    expected = stats.kruskal(*samples)
    assert (expected.statistic, expected.pvalue) == pytest.approx(kruskal_wallis(samples), rel=1e-9)


def test_false_discovery_rates_are_scipys() -> None:
    """Of any number of tests, some of them with the same p."""
    rng = np.random.default_rng(3)
    for count in (1, 2, 50):
        p = np.round(rng.random(count) ** 3, 2)
        assert stats.false_discovery_control(p).tolist() == pytest.approx(false_discovery_rates(p.tolist()))
