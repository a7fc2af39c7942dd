"""The keys of a group as a sample, and what the group's record would be of other such samples.

A resample draws as many keys as there are, with replacement. As records add, the record of a resample is a
product: how often each key was drawn (a multinomial vector) times the matrix of the keys' sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.column_arithmetic import Floats, HistogramColumns, evaluate
from analyzer.columns import TASK, ColumnRecord
from analyzer.measures import BINS, SUM_FIELDS, TASK_FIELDS, TaskSums
from analyzer.records import KeyScan
from analyzer.statistics import STATISTICS

RESAMPLES = 1000  # the standard error of an interval's width is then about 2 %

Places: TypeAlias = NDArray[np.intp]

_NO_TASK = TaskSums()
_FIELDS = (*SUM_FIELDS, *(TASK + name for name in TASK_FIELDS))
_COLUMN = {name: column for column, name in enumerate(_FIELDS)}
_SPREADS = (("m2_a", "sum_a"), ("m2_b", "sum_b"))


class Table:
    """The sums of many keys as matrices, one row a key, sorted by their names."""

    def __init__(self, keys: Sequence[KeyScan]) -> None:
        self.keys = sorted(keys, key=lambda row: (row.key, row.rows or (0, 0)))
        self.sums = np.array([_numbers(row) for row in self.keys], np.float64).reshape(-1, len(_FIELDS))
        self.counts = np.zeros((len(keys), BINS))
        self.energies = np.zeros((len(keys), BINS))
        for place, row in enumerate(self.keys):
            held = row.sums.histogram
            end = held.first + len(held.counts)
            self.counts[place, held.first : end] = held.counts
            self.energies[place, held.first : end] = held.energies

    @cached_property
    def changed(self) -> float:
        """Σd² of all keys: what `energy_share` is a share of."""
        return float(self.sums[:, _COLUMN["sum_dd"]].sum())


@dataclass(frozen=True, slots=True)
class Measured:
    """A statistic of a group: of its keys together, of each of them, of each resample. NaN: undefined."""

    value: float
    own: Floats  # shape (keys,)
    drawn: Floats  # shape (RESAMPLES,)


class Sample:
    """The keys of one group. The seed of its resamples is made from the names of its keys."""

    def __init__(self, table: Table, places: Sequence[int], *, total: float | None) -> None:
        """`places` are those of the group's keys in the table; `total` is the Σd² of the whole scan.

        It is None for a group that is no part of that.
        """
        self._table = table
        self._places = np.array(sorted(places), np.intp)
        self._total = total
        used = np.flatnonzero(table.counts[self._places].any(axis=0))
        self._bins = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)

    def __len__(self) -> int:
        return len(self._places)

    def field(self, name: str) -> Floats:
        """One field of `Sums`, or with "task." before it of `TaskSums`, of every key."""
        column: Floats = self._table.sums[self._places, _COLUMN[name]]
        return column

    def measure(self, name: str) -> Measured:
        """A statistic of the sample and of its resamples.

        The draws of a maximum or a minimum over keys are NaN: the largest of a sample tells nothing of what
        lies beyond it, however it is resampled.
        """
        statistic = STATISTICS[name]
        with np.errstate(all="ignore"):
            if statistic.of_key is not None:
                return self._of_keys(name)
            if name == "energy_share":
                return self._share()
            assert statistic.formula is not None
            whole, own, drawn = (
                evaluate(statistic.formula, record) for record in (self._whole, self._own, self._drawn)
            )
            if name == "max_abs_delta":
                drawn = np.full(RESAMPLES, np.nan)
            return Measured(float(whole[0]), own, drawn)

    def _share(self) -> Measured:
        """The group's part of all change: that of the other groups stays as it is."""
        whole, own, drawn = (
            np.where(r.numeric > 0, r.sum_dd, np.nan) for r in (self._whole, self._own, self._drawn)
        )
        # No part of the whole scan, or nothing changed in it, or more than fp64 can hold.
        if not self._total or not np.isfinite(self._total):
            return Measured(np.nan, np.full(own.shape, np.nan), np.full(drawn.shape, np.nan))
        others = max(self._total - float(whole[0]), 0.0)
        return Measured(float(whole[0] / (whole[0] + others)), own / self._total, drawn / (drawn + others))

    def _of_keys(self, name: str) -> Measured:
        """A statistic that does not add: the median of those keys that have it."""
        statistic = STATISTICS[name]
        assert statistic.of_key is not None
        found = [statistic.of_key(self._table.keys[place]) for place in self._places]
        own = np.array([np.nan if value is None else value for value in found])
        defined = own[~np.isnan(own)]
        value = float(statistic.join(defined.tolist())) if defined.size else np.nan
        if statistic.join is min or not defined.size:
            return Measured(value, own, np.full(RESAMPLES, np.nan))
        return Measured(value, own, weighted_medians(own, self._weights))

    @cached_property
    def _weights(self) -> Floats:
        """How often each key is drawn, shape (RESAMPLES, keys): every row sums to the number of keys."""
        count = len(self)
        drawn = np.random.default_rng(self._seed()).integers(0, count, (RESAMPLES, count))
        drawn += np.arange(RESAMPLES)[:, None] * count
        return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(float)

    def _seed(self) -> int:
        """The same for the same keys, in every process and on every machine."""
        rows = (self._table.keys[place] for place in self._places)
        names = "\0".join(f"{row.key}\1{row.rows}" for row in rows)
        return int.from_bytes(hashlib.blake2b(names.encode(errors="surrogatepass"), digest_size=8).digest())

    @cached_property
    def _own(self) -> ColumnRecord:
        fields = {name: self.field(name) for name in _FIELDS}
        return ColumnRecord(fields, lambda: self._columns(*self._histograms()))

    @cached_property
    def _whole(self) -> ColumnRecord:
        return self._add(np.ones((1, len(self))))

    @cached_property
    def _drawn(self) -> ColumnRecord:
        return self._add(self._weights)

    def _histograms(self) -> tuple[Floats, Floats]:
        return self._table.counts[self._places, self._bins], self._table.energies[self._places, self._bins]

    def _add(self, weights: Floats) -> ColumnRecord:
        """The records of samples in which the keys stand as often as the weights say."""
        sums = self._table.sums[self._places]
        added = _product(weights, sums)
        fields = {name: added[:, column] for name, column in _COLUMN.items()}
        fields["max_abs_d"] = np.where(weights > 0, self.field("max_abs_d"), 0.0).max(axis=1, initial=0.0)
        for square, total in _SPREADS:
            fields[square] = self._squares(weights, square, fields[total], fields["numeric"], total)
        counts, energies = self._histograms()
        return ColumnRecord(fields, lambda: self._columns(weights @ counts, _product(weights, energies)))

    def _columns(self, counts: Floats, energies: Floats) -> HistogramColumns:
        """Histograms that all hold the same bins, of matrices (records, bins)."""
        records, bins = counts.shape
        first, lengths = (np.full(records, number) for number in (self._bins.start, bins))
        return HistogramColumns(first, lengths, counts.ravel(), energies.ravel())

    def _squares(self, weights: Floats, square: str, totals: Floats, numeric: Floats, total: str) -> Floats:
        """Σ(x − mean)² of the samples.

        About one common centre such squares add, and the way from there to the mean of each sample is short:
        the centre is the mean of all keys, so that little is lost where the two differ.
        """
        sizes, sums = self.field("numeric"), self.field(total)
        if not sizes.any():
            return np.zeros(len(weights))
        centre = sums.sum() / sizes.sum()
        means = np.divide(sums, sizes, out=np.full(len(sizes), centre), where=sizes > 0)
        about = self.field(square) + sizes * (means - centre) ** 2
        middles = np.divide(totals, numeric, out=np.full(len(numeric), centre), where=numeric > 0)
        added: Floats = _product(weights, about[:, None])[:, 0] - numeric * (middles - centre) ** 2
        return np.maximum(added, 0.0)


def weighted_medians(values: Floats, weights: Floats) -> Floats:
    """The median of the values, each taken as often as a row of `weights` says; NaN values have no say.

    `weights` has the shape (samples, values). NaN for a sample that holds no value.
    """
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    passed = np.cumsum(weights[:, order], axis=1)
    sizes = passed[:, -1]
    ranks = np.floor((sizes - 1) / 2), np.floor(sizes / 2)  # from 0: the two in the middle, or one twice
    low, high = (values[order[np.argmax(passed > rank[:, None], axis=1)]] for rank in ranks)
    return np.where(sizes > 0, (low + high) / 2, np.nan)


def _product(weights: Floats, sums: Floats) -> Floats:
    """The matrix product; NaN for a column that is not finite in some key, as 0 · inf would be."""
    finite = np.isfinite(sums)
    if finite.all():
        return weights @ sums
    product = weights @ np.where(finite, sums, 0.0)
    product[:, ~finite.all(axis=0)] = np.nan
    return product


def _numbers(row: KeyScan) -> list[float]:
    sums, task = row.sums, row.sums.task or _NO_TASK
    return [
        *(getattr(sums, name) for name in SUM_FIELDS),
        *(getattr(task, name) for name in TASK_FIELDS),
    ]
