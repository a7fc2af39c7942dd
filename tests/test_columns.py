"""Columns of records: what they say of each record and of any of them together is what the records say."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.columns import SumColumns, join_histograms
from analyzer.formulas import cosine, relative_change
from analyzer.measures import (
    BINS,
    COUNTS,
    HISTOGRAMS,
    STEP_BINS,
    SUM_FIELDS,
    TASK_COUNTS,
    TASK_FIELDS,
    Histogram,
    Sums,
    TaskSums,
    add_sums,
)
from analyzer.statistics import STATISTICS
from analyzer.verdicts import VERDICTS, verdict

examples = settings(max_examples=30)

SIGNED = {"sum_a", "sum_b", "sum_ab", "dot_a"}
counts = st.integers(0, 3) | st.integers(0, 10**9)
positive = st.sampled_from([0.0, 1.0, math.inf]) | st.floats(0, 1e300)
signed = positive | positive.map(lambda x: -x)


def number(name: str) -> st.SearchStrategy[float]:
    """Any value that a field can have."""
    if name in COUNTS | TASK_COUNTS:
        return counts
    return signed if name in SIGNED else positive


@st.composite
def histograms(draw: st.DrawFn, bins: int) -> Histogram:
    """A histogram without empty bins at its ends; often without any."""
    held = draw(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1e6)), max_size=6))
    held = [(count, energy if count else 0.0) for count, energy in held]
    while held and not held[0][0]:
        held.pop(0)
    while held and not held[-1][0]:
        held.pop()
    if not held:
        return Histogram()
    first = draw(st.integers(0, bins - len(held)))
    return Histogram(first, array("q", [c for c, _ in held]), array("d", [e for _, e in held]))


tasks = st.builds(TaskSums, **{name: number(name) for name in TASK_FIELDS})
records = st.builds(
    Sums,
    **{name: number(name) for name in SUM_FIELDS},
    histogram=histograms(BINS),
    steps=histograms(STEP_BINS),
    e4m3_steps=histograms(STEP_BINS),
    task=st.none() | tasks,
)


def assert_same_record(expected: Sums, found: Sums) -> None:
    """Counts equal, sums but for one rounding; NaN is NaN."""
    for name in SUM_FIELDS:
        close(getattr(expected, name), getattr(found, name))
    for name in HISTOGRAMS:
        one, other = getattr(expected, name), getattr(found, name)
        assert one.first == other.first
        assert one.counts == other.counts
        assert one.energies.tolist() == pytest.approx(other.energies.tolist(), rel=1e-15)
    assert (expected.task is None) == (found.task is None)
    if expected.task is not None and found.task is not None:
        for name in TASK_FIELDS:
            close(getattr(expected.task, name), getattr(found.task, name))


def close(expected: float, found: float) -> None:
    """The same int, or the same float but for one rounding."""
    assert type(expected) is type(found)
    if isinstance(expected, int):
        assert expected == found
    else:
        assert found == pytest.approx(expected, rel=1e-15, nan_ok=True)


@examples
@given(st.lists(records, max_size=6))
def test_a_total_is_that_of_the_records(rows: list[Sums]) -> None:
    """All of them, and any of them by index or mask."""
    columns = SumColumns.of(rows)
    assert len(rows) == len(columns)
    assert_same_record(add_sums(rows), columns.total())
    some = list(range(len(rows)))[::-2]
    assert_same_record(add_sums(rows[place] for place in some), columns.total(some))
    mask = np.arange(len(rows)) % 2 == 0
    assert_same_record(add_sums(rows[::2]), columns.total(mask))


def test_sums_that_cancel_keep_their_digits() -> None:
    """Σa of keys whose sums nearly cancel is rounded once, as by fsum."""
    values = [1e16, 1.0, -1e16, 3.0, 1e-9] * 100
    columns = SumColumns.of(Sums(n=1, numeric=1, sum_a=value) for value in values)
    assert math.fsum(values) == columns.total().sum_a


def test_a_spread_far_from_its_mean_keeps_its_digits() -> None:
    """Σ(x − mean)² of records around 1e6 with a spread of 1e-3."""
    x = 1e6 + 1e-3 * np.random.default_rng(4).standard_normal((20, 50))
    parts = [
        Sums(n=50, numeric=50, sum_a=math.fsum(row), m2_a=float(((row - row.mean()) ** 2).sum())) for row in x
    ]
    expected = ((x - x.mean()) ** 2).sum()
    assert SumColumns.of(parts).total().m2_a == pytest.approx(expected, rel=1e-6)


def test_a_histogram_of_many_blocks_is_exact() -> None:
    """More histograms than are joined at a time, against bincount."""
    rng = np.random.default_rng(7)
    first, length = rng.integers(0, 100, 20_000), rng.integers(0, 4, 20_000)
    parts = [
        Histogram(
            int(at), array("q", rng.integers(1, 9, size).tolist()), array("d", rng.random(size).tolist())
        )
        for at, size in zip(first, length, strict=True)
    ]
    places = np.concatenate([part.first + np.arange(len(part.counts)) for part in parts])
    counts = np.bincount(places, np.concatenate([part.counts for part in parts]))
    energies = np.bincount(places, np.concatenate([part.energies for part in parts]))
    joined = join_histograms(parts)
    held = slice(joined.first, joined.first + len(joined.counts))
    assert counts[held].tolist() == joined.counts.tolist()
    assert sum(counts) == sum(joined.counts)
    assert joined.energies.tolist() == pytest.approx(energies[held].tolist(), rel=1e-13)


@examples
@given(st.lists(records, max_size=8))
def test_columns_hold_the_numbers(rows: list[Sums]) -> None:
    """Every field of every record, zeros for the tasks of a record without."""
    columns = SumColumns.of(rows)
    for name in SUM_FIELDS:
        assert [getattr(row, name) for row in rows] == columns.column(name).tolist()
    for name in TASK_FIELDS:
        expected = [getattr(row.task or TaskSums(), name) for row in rows]
        assert expected == columns.column(f"task.{name}").tolist()


@settings(examples, max_examples=200)
@given(rows=st.lists(records, max_size=5))
def test_every_formula_has_the_same_values_in_columns(rows: list[Sums]) -> None:
    """Of whatever records, in any order; NaN where the formula of one record gives None."""
    columns = SumColumns.of(rows)
    formulas = {name: statistic.formula for name, statistic in STATISTICS.items() if statistic.formula}
    for name, formula in formulas.items():
        expected = [math.nan if value is None else value for value in map(formula, rows)]
        found = columns.values(formula).tolist()
        # the closed form of a nearly even density has half of its digits
        tolerance = 1e-6 if name == "top_energy_share" else 1e-14
        assert found == pytest.approx(expected, rel=tolerance, abs=1e-15, nan_ok=True), name


def test_overflow_is_undefined_and_not_a_number_out_of_range() -> None:
    """Sums beyond fp64 have no cosine and no ratio, in columns as alone."""
    rows = [
        Sums(n=1, numeric=1, sum_aa=math.inf, sum_bb=1.0),
        Sums(n=1, numeric=1, sum_aa=1.0, sum_dd=math.nan),
    ]
    for formula in (cosine, relative_change):
        assert [None, None] == [formula(row) for row in rows]
        assert np.isnan(SumColumns.of(rows).values(formula)).all()


@examples
@given(
    st.lists(
        records.flatmap(
            lambda row: st.builds(
                replace, st.just(row), nonfinite_differs=st.sampled_from([0, 0, 1]),
                changed=st.integers(0, 2), cast_only=st.integers(0, 2), sum_dd=st.floats(0, 9),
                sum_ulp_sq=st.sampled_from([0.0, math.inf]) | st.floats(0, 9),
            )
        ),
        max_size=8,
    )
)  # fmt: skip
def test_verdicts_are_those_of_the_records(rows: list[Sums]) -> None:
    """As strings and as their index in `VERDICTS`."""
    columns = SumColumns.of(rows)
    expected = [verdict(row) for row in rows]
    assert expected == columns.verdicts()
    assert expected == [VERDICTS[code] for code in columns.verdict_codes()]
