"""The numbers of many records of sums as columns, and the record of any of them. Knows no keys and no files.

What is asked of 100,000 records one by one takes a second; of their columns it takes milliseconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.arithmetic import Formula
from analyzer.column_arithmetic import COLUMNS, Floats, HistogramColumns, Places, evaluate
from analyzer.measures import (
    COUNTS,
    HISTOGRAMS,
    SUM_FIELDS,
    TASK_COUNTS,
    TASK_FIELDS,
    Histogram,
    Sums,
    TaskSums,
    add,
)  # fmt: skip
from analyzer.verdicts import VERDICTS, Verdict, verdict_code

__all__ = ["TASK", "ColumnRecord", "Floats", "Places", "SumColumns", "join_histograms"]

TASK = "task."  # before the name of a field of `TaskSums`
_BLOCK = 1 << 13  # records whose histograms are joined at a time, for constant memory
_SPREADS = {"m2_a": "sum_a", "m2_b": "sum_b"}  # of what each is the sum of squares about the mean


class SumColumns:
    """Many records: of each field one column, an fp64 for every record. Counts are exact up to 2^53."""

    def __init__(self, records: Sequence[Sums]) -> None:
        self.records = records
        self._columns = dict(zip(SUM_FIELDS, _matrix(records, SUM_FIELDS), strict=True))
        with_task = [place for place, record in enumerate(records) if record.task is not None]
        self.with_task = np.array(with_task, np.intp)  # the places of the records that have tasks
        tasks = np.broadcast_to(np.zeros(len(records)), (len(TASK_FIELDS), len(records)))
        if with_task:
            tasks = np.zeros(tasks.shape)
            tasks[:, with_task] = _matrix([records[place].task for place in with_task], TASK_FIELDS)
        self._columns |= zip((TASK + name for name in TASK_FIELDS), tasks, strict=True)

    @classmethod
    def of(cls, records: Iterable[Sums]) -> SumColumns:
        """The columns of these records, in their order."""
        return cls(tuple(records))

    def __len__(self) -> int:
        return len(self.records)

    def column(self, name: str) -> Floats:
        """One field of all records, shape (records,): of `Sums`, or of `TaskSums` under "task.aa".

        A record without tasks has zeros in theirs.
        """
        column: Floats = self._columns[name]
        return column

    def total(self, places: Places | NDArray[np.bool_] | Sequence[int] | None = None) -> Sums:
        """The record of these records together, or of all: what `add_sums` gives.

        `places` are indices or a mask.
        """
        everywhere = np.arange(len(self))
        if places is None or not len(places):
            chosen = everywhere if places is None else everywhere[:0]
        else:
            chosen = everywhere[np.asarray(places)]
        if len(chosen) <= 1:
            return self.records[chosen[0]] if len(chosen) else Sums()
        values = {name: self._joined(name, chosen) for name in SUM_FIELDS}
        rows = [self.records[place] for place in chosen.tolist()]
        values |= {name: join_histograms([getattr(row, name) for row in rows]) for name in HISTOGRAMS}
        return Sums(**values, task=self._task(chosen))

    def histograms(self, name: str) -> HistogramColumns:
        """One of `HISTOGRAMS` of all records."""
        return HistogramColumns.of([getattr(record, name) for record in self.records])

    def values(self, formula: Formula) -> Floats:
        """A formula of every record, shape (records,); NaN where it is undefined."""
        return evaluate(formula, self.record)

    @cached_property
    def record(self) -> ColumnRecord:
        """The columns in the place of a record's numbers, as formulas read them."""
        return ColumnRecord(self._columns, lambda: self.histograms("histogram"))

    def verdict_codes(self) -> NDArray[np.uint8]:
        """The verdict on every record, see `verdict`: its index in `VERDICTS`."""
        with np.errstate(all="ignore"):
            return np.asarray(verdict_code(self.record, COLUMNS), np.uint8)

    def verdicts(self) -> list[Verdict]:
        """The verdict on every record, see `analyzer.verdicts.verdict`."""
        return [VERDICTS[code] for code in self.verdict_codes().tolist()]

    def _joined(self, name: str, chosen: Places) -> Any:
        column = self.column(name)[chosen]
        if name == "max_abs_d":
            return float(column.max())
        if name in _SPREADS:
            return self._joined_squares(column, chosen, self.column(_SPREADS[name])[chosen])
        return _sum(column, exact=name in COUNTS)

    def _joined_squares(self, squares: Floats, chosen: Places, sums: Floats) -> Any:
        """Σ(x − mean)² of all: within the records, and between their means and the common one."""
        sizes = self.column("numeric")[chosen]
        count = _sum(sizes, exact=True)
        if not count:
            return 0.0
        sized = sizes > 0
        with np.errstate(all="ignore"):
            away = sums[sized] / sizes[sized] - _sum(sums) / count
            between = sizes[sized] * away * away
        return _sum(np.concatenate([squares, between]))

    def _task(self, chosen: Places) -> TaskSums | None:
        chosen = chosen[np.isin(chosen, self.with_task)] if len(self.with_task) else chosen[:0]
        if len(chosen) <= 1:
            return self.records[chosen[0]].task if len(chosen) else None
        columns = {name: self.column(TASK + name)[chosen] for name in TASK_FIELDS}
        return TaskSums(**{name: _sum(values, exact=name in TASK_COUNTS) for name, values in columns.items()})


class ColumnRecord(SimpleNamespace):
    """What formulas read of many records: a column in the place of each number, their tasks, histograms."""

    def __init__(self, columns: Mapping[str, Floats], histograms: Callable[[], HistogramColumns]) -> None:
        """`columns` by name, those of the tasks as "task.aa"; `histograms` makes what few formulas need."""
        super().__init__(**{name: column for name, column in columns.items() if not name.startswith(TASK)})
        self.task = SimpleNamespace(
            **{name.removeprefix(TASK): column for name, column in columns.items() if name.startswith(TASK)}
        )
        self._histograms = histograms

    @cached_property
    def histogram(self) -> HistogramColumns:
        """Of |d|."""
        return self._histograms()


def join_histograms(histograms: Sequence[Histogram]) -> Histogram:
    """The histogram of all samples together. Counts add exactly, energies but for one rounding a block."""
    held = [histogram for histogram in histograms if len(histogram)]
    if len(held) <= 1:
        return held[0] if held else Histogram()
    first = min(histogram.first for histogram in held)
    length = max(histogram.first + len(histogram) for histogram in held) - first
    counts, energies = np.zeros(length, np.int64), []
    for block in _blocks(held):
        columns = HistogramColumns.of(block)
        bins = (columns.bins - first).astype(np.int16)
        order = np.argsort(bins, kind="stable")  # short integers are sorted by radix
        bins = bins[order]
        starts = np.flatnonzero(np.diff(bins, prepend=-1))
        filled = bins[starts]
        counts[filled] += np.add.reduceat(columns.counts[order], starts)
        sums = np.zeros(length)
        with np.errstate(all="ignore"):
            sums[filled] = np.add.reduceat(columns.energies[order], starts)  # pairwise
        energies.append(sums)
    joined = (add(list(column)) for column in zip(*(sums.tolist() for sums in energies), strict=True))
    return Histogram(first, array("q", counts.tobytes()), array("d", joined))


def _blocks(histograms: Sequence[Histogram]) -> Iterator[Sequence[Histogram]]:
    for start in range(0, len(histograms), _BLOCK):
        yield histograms[start : start + _BLOCK]


def _matrix(records: Sequence[Any], names: Sequence[str]) -> Floats:
    """A row a name, and in it the number of every record."""
    numbers = chain.from_iterable(map(attrgetter(*names), records))
    table = np.fromiter(numbers, np.float64, len(records) * len(names))
    return np.ascontiguousarray(table.reshape(len(records), len(names)).T)


def _sum(column: Floats, *, exact: bool = False) -> Any:
    """The sum, rounded once; of counts exact and an int."""
    if exact:
        return int(column.astype(np.int64).sum())
    return add(column.tolist())
