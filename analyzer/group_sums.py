"""The records of many groups of keys at once, of their plain numbers alone. Knows no keys and no files.

`add_sums` takes half a millisecond a group, and 100,000 keys can be 10,000 groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.columns import TASK, Floats, Places, SumColumns
from analyzer.measures import COUNTS, SUM_FIELDS, TASK_COUNTS, TASK_FIELDS, Sums, TaskSums

_LARGEST = "max_abs_d"
_SPREADS = {"m2_a": "sum_a", "m2_b": "sum_b"}  # of what each is the sum of squares about the mean


def group_sums(columns: SumColumns, codes: Places, count: int) -> list[Sums]:
    """What `add_sums` gives for each group, but with empty histograms.

    `codes`, shape (records,), say which of the `count` groups a record is of. A group without records has
    the empty record, and one of which none has tasks has none.
    """
    groups = _Groups(codes, count)
    totals = {name: groups.sums(columns.column(name)) for name in SUM_FIELDS if name not in _SPREADS}
    totals[_LARGEST] = groups.largest(columns.column(_LARGEST))
    sizes = columns.column("numeric")
    with np.errstate(all="ignore"):
        for name, of in _SPREADS.items():
            # between the means of the records and that of their group: Chan, Golub & LeVeque 1979
            means = totals[of] / totals["numeric"]
            away = columns.column(of) / sizes - means[codes]
            between = np.where(sizes > 0, sizes * away * away, 0.0)
            totals[name] = groups.sums(columns.column(name)) + groups.sums(between)
    tasks = _tasks(columns, codes, groups, count)
    numbers = [_numbers(totals[name], name in COUNTS) for name in SUM_FIELDS]
    return [
        Sums(**dict(zip(SUM_FIELDS, own, strict=True)), task=task)
        for *own, task in zip(*numbers, tasks, strict=True)
    ]


def _tasks(columns: SumColumns, codes: Places, groups: _Groups, count: int) -> list[TaskSums | None]:
    found: list[TaskSums | None] = [None] * count
    if len(columns.with_task):
        totals = [groups.sums(columns.column(TASK + name)) for name in TASK_FIELDS]
        numbers = [
            _numbers(total, name in TASK_COUNTS) for name, total in zip(TASK_FIELDS, totals, strict=True)
        ]
        for group in np.unique(codes[columns.with_task]).tolist():
            found[group] = TaskSums(*(column[group] for column in numbers))
    return found


class _Groups:
    """Sums over the records of every group, formed in the order of the records."""

    def __init__(self, codes: Places, count: int) -> None:
        self._count = count
        self._order = np.argsort(codes, kind="stable")
        ordered = codes[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self._filled = ordered[self._starts]  # the groups that have records

    def sums(self, column: Floats) -> Floats:
        """Σ of each group, added pairwise; 0 of none."""
        return self._reduced(np.add, column)

    def largest(self, column: Floats) -> Floats:
        """The maximum of each group; 0 of none."""
        return self._reduced(np.maximum, column)

    def _reduced(self, reduce: np.ufunc, column: Floats) -> Floats:
        found = np.zeros(self._count)
        if len(self._starts):
            with np.errstate(all="ignore"):  # what overflows is infinite
                found[self._filled] = reduce.reduceat(column[self._order], self._starts)
        return found


def _numbers(column: Floats, exact: bool) -> list[Any]:
    """Python's numbers; of counts, which are exact up to 2^53, whole ones."""
    numbers: list[Any] = (column.astype(np.int64) if exact else column).tolist()
    return numbers
