"""Intervals: where they are withheld, that they hold the truth, and what they do at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import group, moved, random_key
from scipy import stats

from analyzer.records import KeyScan
from analyzer.statistics import STATISTICS
from analyzer.uncertainty.bands import KINDS, Band, band, effective_keys, widening
from analyzer.uncertainty.sampling import Sample, Table

examples = settings(max_examples=60)


def band_of(keys: list[KeyScan], name: str = "relative_change") -> Band:
    """The band of these keys as a group."""
    table = Table(keys)
    sample = Sample(table, range(len(keys)), total=2 * table.changed)
    return band(sample, sample.measure(name), KINDS[name])


def test_every_statistic_has_an_interval_or_a_reason() -> None:
    """Counts are exact and extremes cannot be resampled; all others have a scale."""
    without = {"numel", "nonfinite_a", "nonfinite_b", "max_abs_delta", "row_cosine_min"}
    assert set(STATISTICS) - without == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_an_interval_holds_the_value(name: str) -> None:
    """Low to high, inside the range of the statistic."""
    rng = np.random.default_rng(6)
    keys = [random_key(f"k{i}", rng, size=int(rng.integers(150, 500))) for i in range(15)]
    found = band_of(keys, name)
    assert found.interval is not None
    low, high = found.interval
    value = Sample(Table(keys), range(15), total=2 * Table(keys).changed).measure(name).value
    assert low < value < high
    bottom, _, top = STATISTICS[name].range.partition(" … ")
    if STATISTICS[name].range not in ("any", "1 …"):
        assert float(bottom.replace("−", "-").replace("0.01", "0").rstrip(" …")) <= low
        assert high <= float(top or "inf")


@pytest.mark.parametrize(
    ("count", "note"), [(1, "1 key"), (2, "too few keys"), (4, "too few keys"), (5, ""), (30, "")]
)
def test_few_keys_say_so(count: int, note: str) -> None:
    """Below five keys there is no interval, and the note says why."""
    found = band_of(group("ff", count, 0.1))
    assert (count, note, note != "") == (found.keys, found.note, found.interval is None)


def test_keys_without_a_value_are_not_counted() -> None:
    """Four keys with a norm and four of zeros are four keys."""
    zeros = [moved(f"z{i}", 1.0, norm=0.0) for i in range(4)]
    assert Band(4, None, "too few keys") == band_of([*group("ff", 4, 0.1), *zeros])
    assert Band(0, None) == band_of(zeros)


def test_many_small_keys_beside_one_large_are_few() -> None:
    """Twenty biases and one matrix: the matrix is all that the sum is made of."""
    keys = [moved("matrix", 0.1, norm=100.0), *(moved(f"bias{i}", 0.1 + i / 100) for i in range(20))]
    assert "rests on few keys" == band_of(keys).note
    assert "rests on few keys" == band_of([moved(f"k{i}", float(i == 3)) for i in range(20)]).note


@pytest.mark.parametrize(
    ("name", "value"),
    [("relative_change", 0.0), ("changed_fraction", 0.0), ("energy_share", 0.0), ("cosine", 1.0)],
)
def test_what_did_not_change_has_no_width(name: str, value: float) -> None:
    """All keys are alike, so others like these would be too."""
    keys = [*(moved(f"k{i}", 0.0, norm=i + 1.0) for i in range(8)), moved("other", 0.5)]
    table = Table(keys)
    sample = Sample(table, range(8), total=table.changed)
    assert (value, value) == band(sample, sample.measure(name), KINDS[name]).interval


def test_a_resample_may_hold_none_of_the_keys_that_changed() -> None:
    """Its logarithm is −∞; it counts as the lowest of the others, and the interval stays finite."""
    keys = [moved(f"k{i}", 0.1 + i / 100 if i < 3 else 0.0) for i in range(6)]
    found = band_of(keys)
    assert found.interval is not None
    low, high = found.interval
    assert 0 < low < 0.08 < high < 1


@examples
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_effective_keys(weights: list[float], factor: float) -> None:
    """Between 1 and the number of keys, which it is for equal weights; a common factor changes nothing."""
    w = np.array(weights)
    found = effective_keys(w)
    assert 1 - 1e-9 <= found <= len(weights) + 1e-9
    assert found == pytest.approx(effective_keys(w * factor))
    assert len(weights) == pytest.approx(effective_keys(np.full(len(weights), factor)))
    assert 0.0 == effective_keys(np.zeros(3))


@pytest.mark.parametrize("m", [2.2, 3, 10, 1000])
def test_widening_is_students(m: float) -> None:
    """The t quantile over normal quantile, times √(m/(m − 1)); nothing for many keys."""
    expected = stats.t.ppf(0.975, m - 1) / stats.norm.ppf(0.975) * (m / (m - 1)) ** 0.5
    assert widening(m) == pytest.approx(expected, rel=1e-9)
    assert widening(1e6) == pytest.approx(1.0, abs=1e-4)


def test_an_interval_is_that_of_a_t_test_for_equal_weights() -> None:
    """Of keys of one size the mean's interval is the textbook's, but for the luck of the resamples."""
    rng = np.random.default_rng(11)
    keys = [random_key(f"k{i}", rng, size=100) for i in range(40)]
    means = np.array([row.sums.sum_a / 100 for row in keys])
    expected = stats.t.interval(0.95, 39, means.mean(), means.std(ddof=1) / 40**0.5)
    found = band_of(keys, "mean_a").interval
    assert found is not None
    assert np.array(found) == pytest.approx(np.array(expected), abs=0.06 * (expected[1] - expected[0]))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """200 categories of 15 keys, changes spread by e^0.3: 95 % nominal, 94 % measured at length.

    `tests/benchmarks/interval_coverage.py` measures it for all sizes and spreads.
    """
    truth = 0.1 * np.exp(0.3**2)
    held = []
    for seed in range(200):
        found = band_of(group("ff", 15, 0.1, seed=seed)).interval
        assert found is not None
        held.append(found[0] <= truth <= found[1])
    assert 0.89 <= np.mean(held) <= 0.985
