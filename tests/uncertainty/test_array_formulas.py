"""The formulas over arrays are those over one record, and resampled records are records of repeated keys."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import measure, moved, random_key

from analyzer.evaluation import evaluate, evaluate_key
from analyzer.measures import Histogram, Sums, add_sums
from analyzer.records import KeyScan
from analyzer.statistics import STATISTICS
from analyzer.uncertainty.sampling import RESAMPLES, Sample, Table, weighted_medians

examples = settings(max_examples=40)

EXTREMES = ("max_abs_delta", "row_cosine_min")


def awkward_keys() -> list[KeyScan]:
    """Keys at the edges of what is defined: empty, zeros, unchanged, integers, overflow, without ulp."""
    rng = np.random.default_rng(5)
    ones, zeros = np.ones(200), np.zeros(200)
    bare = moved("bare", 0.1)
    records = {
        "empty": Sums(),
        "zeros": measure(zeros, zeros),
        "from zero": measure(zeros, ones, ones),
        "to zero": measure(ones, zeros),
        "same": measure(ones, ones, ones),
        "longer": measure(ones, 3 * ones, ones),
        "opposite": measure(ones, -ones, zeros),
        "integers": Sums(numel=5, n=5, changed=2),
        "broken": Sums(numel=5, n=3, numeric=3, nonfinite_a=2, sum_aa=1.0, sum_bb=1.0),
        "no ulp": replace(measure(ones, rng.standard_normal(200)), sum_ulp_sq=math.inf),
        "overflow": replace(measure(ones, 2 * ones), sum_aa=math.inf, sum_dd=math.inf, histogram=Histogram()),
    }
    return [replace(bare, key=name, sums=sums) for name, sums in records.items()]


def expect(expected: float | None, found: float) -> None:
    """Equal to the last digits but a few (an arccos near −1 has half of them); None is NaN."""
    if expected is None:
        assert not math.isfinite(found)
    else:
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_key_has_the_same_value_alone_and_in_an_array(name: str) -> None:
    """Also where it is undefined."""
    rng = np.random.default_rng(1)
    keys = [*(random_key(f"k{i}", rng, size=int(rng.integers(50, 500))) for i in range(30)), *awkward_keys()]
    table = Table(keys)
    whole = replace(add_sums(row.sums for row in keys[:30]), sum_dd=7.0)
    measured = Sample(table, range(len(keys)), total=7.0).measure(name)
    for row, found in zip(table.keys, measured.own, strict=True):
        expect(evaluate_key(row, total=whole)[name], found)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_group_has_the_same_value_as_its_summed_record(name: str) -> None:
    """The matrix product with ones is the sum of the records, as rankings form it."""
    rng = np.random.default_rng(2)
    keys = [random_key(f"k{i}", rng, size=int(rng.integers(50, 500))) for i in range(12)]
    total = add_sums(row.sums for row in keys)
    places = [1, 4, 5, 9, 11]
    table = Table(keys)
    chosen = [table.keys[place] for place in places]
    measured = Sample(table, places, total=table.changed).measure(name)
    expect(evaluate(add_sums(row.sums for row in chosen), total=total, keys=chosen)[name], measured.value)


@pytest.mark.parametrize("name", [name for name in STATISTICS if name not in EXTREMES])
def test_a_resample_is_the_record_of_its_keys(name: str) -> None:
    """Each key taken as often as it was drawn, and then all added: the same value, without any matrix."""
    rng = np.random.default_rng(3)
    keys = [random_key(f"k{i}", rng, size=int(rng.integers(150, 500))) for i in range(6)]
    sample = Sample(Table(keys), range(6), total=None if name == "energy_share" else 1.0)
    measured = sample.measure(name)
    for resample in range(0, RESAMPLES, 97):
        drawn = [
            row for row, often in zip(keys, sample._weights[resample], strict=True) for _ in range(int(often))
        ]
        assert 6 == len(drawn)
        values = evaluate(add_sums(row.sums for row in drawn), total=None, keys=drawn)
        expect(values[name], measured.drawn[resample])


def test_the_share_of_a_resample_is_of_the_others_and_itself() -> None:
    """What the other groups changed stays as it is."""
    keys = [moved(f"k{i}", 0.1 * (i + 1)) for i in range(8)]
    table = Table(keys)
    sample = Sample(table, range(5), total=table.changed)
    others = sum(row.sums.sum_dd for row in keys[5:])
    drawn = sample._weights @ np.array([row.sums.sum_dd for row in keys[:5]])
    assert sample.measure("energy_share").drawn == pytest.approx(drawn / (drawn + others), rel=1e-12)


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_are_not_resampled(name: str) -> None:
    """The largest of a resample is the largest of the sample, or less: it says nothing of the population."""
    rng = np.random.default_rng(3)
    sample = Sample(Table([random_key(f"k{i}", rng) for i in range(6)]), range(6), total=1.0)
    measured = sample.measure(name)
    assert math.isfinite(measured.value)
    assert np.isnan(measured.drawn).all()


def test_resamples_depend_on_the_names_of_the_keys_alone() -> None:
    """Not on their order, on what else is in the table, or on the process: the same seed, the same draws."""
    keys = [moved(f"k{i}", 0.1 + i / 50) for i in range(9)]
    plain = Sample(Table(keys), range(9), total=1.0).measure("relative_change").drawn
    table = Table([moved("a", 0.5), *keys[::-1], moved("z", 0.5)])
    assert (plain == Sample(table, range(1, 10), total=9.0).measure("relative_change").drawn).all()
    renamed = [replace(row, key=f"other{row.key}") for row in keys]
    assert (plain != Sample(Table(renamed), range(9), total=1.0).measure("relative_change").drawn).any()
    assert 0x3021C1476ABEF5C5 == Sample(Table(keys), range(9), total=1.0)._seed()  # everywhere


def test_every_resample_has_as_many_keys_as_there_are() -> None:
    """Multinomial counts: their mean is 1 and their variance 1 − 1/n."""
    weights = Sample(Table([moved(f"k{i}", 0.1) for i in range(20)]), range(20), total=1.0)._weights
    assert (RESAMPLES, 20) == weights.shape
    assert (weights.sum(axis=1) == 20).all()
    assert weights.mean() == pytest.approx(1.0)
    assert weights.var() == pytest.approx(1 - 1 / 20, abs=0.03)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_spread_far_from_its_mean_keeps_its_digits() -> None:
    """Σ(x − mean)² of keys around 1e6 with a spread of 1e-3, where Σx² − n·mean² would be noise."""
    rng = np.random.default_rng(8)
    values = [1e6 + 1e-3 * rng.standard_normal(300) for _ in range(7)]
    bare = moved("k", 0.1)
    keys = [replace(bare, key=f"k{i}", sums=measure(x, x)) for i, x in enumerate(values)]
    sample = Sample(Table(keys), range(7), total=1.0)
    measured = sample.measure("std_a")
    for resample in range(0, RESAMPLES, 191):
        often = sample._weights[resample].astype(int)
        x = np.concatenate([value for value, count in zip(values, often, strict=True) for _ in range(count)])
        assert measured.drawn[resample] == pytest.approx((x - 1e6).std(), rel=1e-4)


@examples
@given(
    values=st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=1, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_medians_of_repeated_values(values: list[float], seed: int) -> None:
    """The median of the values repeated as often as they are drawn, by numpy; NaN of none."""
    weights = np.random.default_rng(seed).integers(0, 3, (5, len(values))).astype(float)
    x = np.array(values)
    if np.isnan(x).all():
        return
    for row, found in zip(weights, weighted_medians(x, weights), strict=True):
        repeated = np.repeat(x, row.astype(int))
        repeated = repeated[~np.isnan(repeated)]
        expect(float(np.median(repeated)) if repeated.size else None, found)
