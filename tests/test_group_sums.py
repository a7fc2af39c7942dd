"""Records of many groups at once are those that the groups' records give one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.columns import SumColumns
from analyzer.group_sums import group_sums
from analyzer.measures import COUNTS, SUM_FIELDS, TASK_COUNTS, TASK_FIELDS, Sums, TaskSums, add_sums

examples = settings(max_examples=100)

SIGNED = {"sum_a", "sum_b", "sum_ab", "dot_a"}


def number(name: str) -> st.SearchStrategy[float]:
    """Any value that a field has in a sound scan."""
    if name in COUNTS | TASK_COUNTS:
        return st.integers(0, 3) | st.integers(0, 10**9)
    return st.floats(-1e6 if name in SIGNED else 0, 1e6)


tasks = st.builds(TaskSums, **{name: number(name) for name in TASK_FIELDS})
records = st.builds(
    Sums,
    **{name: number(name) for name in SUM_FIELDS if name != "numeric"},
    numeric=st.integers(1, 10**9),
    task=st.none() | tasks,
)


def plain(record: Sums | TaskSums, names: Sequence[str]) -> list[float]:
    """The numbers of a record."""
    return [getattr(record, name) for name in names]


@examples
@given(rows=st.lists(st.tuples(records, st.integers(0, 4)), max_size=12))
def test_groups_are_the_sums_of_their_records(rows: list[tuple[Sums, int]]) -> None:
    """Whatever the groups are, and in whatever order their records stand; counts are exact."""
    codes = np.array([group for _, group in rows], np.intp)
    found = group_sums(SumColumns.of(record for record, _ in rows), codes, 5)
    for group, own in enumerate(found):
        expected = add_sums(record for record, code in rows if code == group)
        assert plain(expected, SUM_FIELDS) == pytest.approx(plain(own, SUM_FIELDS), rel=1e-12, abs=1e-9)
        assert [getattr(expected, name) for name in COUNTS] == [getattr(own, name) for name in COUNTS]
        assert all(isinstance(getattr(own, name), int) for name in COUNTS)
        assert (expected.task is None) == (own.task is None)
        if expected.task is not None and own.task is not None:
            both = (plain(each, TASK_FIELDS) for each in (expected.task, own.task))
            assert next(both) == pytest.approx(next(both), rel=1e-12, abs=1e-9)


def test_spreads_join_about_the_common_mean() -> None:
    """Of values far from zero: the textbook formula would lose all digits."""
    values = [np.array([1e8, 1e8 + 1, 1e8 + 2]), np.array([1e8 + 7]), np.array([1e8 - 4, 1e8 + 4])]
    parts = [
        Sums(numel=len(v), n=len(v), numeric=len(v), sum_a=v.sum(), m2_a=((v - v.mean()) ** 2).sum())
        for v in values
    ]
    (whole,) = group_sums(SumColumns.of(parts), np.zeros(3, np.intp), 1)
    joined = np.concatenate(values)
    assert ((joined - joined.mean()) ** 2).sum() == pytest.approx(whole.m2_a, rel=1e-12)


def test_what_overflows_is_infinite() -> None:
    """As where the records are added one by one, without a warning."""
    rows = [Sums(numel=1, n=1, numeric=1, sum_aa=1e308)] * 2
    (whole,) = group_sums(SumColumns.of(rows), np.zeros(2, np.intp), 1)
    assert math.inf == whole.sum_aa
