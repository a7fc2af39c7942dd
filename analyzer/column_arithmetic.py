"""The operations that formulas are written in, on columns: arrays with one fp64 for every record.

Undefined is NaN, of which `evaluate` lets NumPy give no warning. Its exponentials, logarithms and angles may
differ from those of `analyzer.arithmetic` in the last digit, and from one processor to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from analyzer.arithmetic import AbstractArithmetic, Cut, Formula, Record
from analyzer.measures import BINS, Histogram, bin_edges

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]

# (low, high) of each bin of |d|, squared
_LOW, _HIGH = np.array([bin_edges(index) for index in range(BINS)]).T ** 2


class HistogramColumns:
    """The bins of many histograms one after the other."""

    def __init__(
        self, first: Places, lengths: Places, counts: NDArray[Any], energies: NDArray[np.float64]
    ) -> None:
        """`first` and `lengths` are those of each histogram, `counts` and `energies` those of all bins."""
        self.first, self.lengths = first, lengths
        self.counts, self.energies = counts, energies
        self.starts = np.cumsum(lengths) - lengths  # of each one's bins among all of them

    @classmethod
    def of(cls, histograms: Sequence[Histogram]) -> HistogramColumns:
        """The bins of these histograms, in their order."""
        return cls(
            np.array([held.first for held in histograms], np.intp),
            np.array([len(held) for held in histograms], np.intp),
            _counts(histograms),
            np.frombuffer(b"".join(held.energies for held in histograms), np.float64),
        )

    @property
    def bins(self) -> Places:
        """Which bin each of `counts` and `energies` is."""
        bins: Places = np.arange(len(self.counts)) + self.of_bins(self.first - self.starts)
        return bins

    def of_bins(self, column: NDArray[Any]) -> NDArray[Any]:
        """For every bin, the value of the histogram that it belongs to."""
        return np.repeat(column, self.lengths)

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum over the bins of each histogram; 0 of one without any."""
        found = np.zeros(len(self.lengths), values.dtype)
        held = self.lengths > 0
        if held.any():
            found[held] = np.add.reduceat(values, self.starts[held])
        return found


def _counts(histograms: Sequence[Histogram]) -> NDArray[np.int64]:
    """The counts of all bins. Held alike, as those of most are, they are converted all at once."""
    packed = [held.packed_counts for held in histograms]
    kinds = {counts.typecode for counts in packed if counts}
    if len(kinds) > 1:
        packed = [held.counts for held in histograms]
        kinds = {"q"}
    return np.frombuffer(
        b"".join(counts for counts in packed if counts), kinds.pop() if kinds else "q"
    ).astype(np.int64)


@final
class _Columns(AbstractArithmetic):
    sqrt = staticmethod(np.sqrt)
    asin = staticmethod(np.arcsin)
    exp = staticmethod(np.exp)
    expm1 = staticmethod(np.expm1)

    def log1p(self, x: Floats) -> Floats:
        return np.log1p(x)

    def ratio(self, top: Any, bottom: Floats) -> Floats:
        quotient: Floats = np.asarray(top / bottom)
        quotient[~((bottom != 0) & np.isfinite(bottom))] = nan
        return quotient

    def finite(self, x: Floats) -> Floats:
        return self.where(np.isfinite(x), x)

    def where(self, condition: Flags, value: Any, otherwise: Any = nan) -> Floats:
        chosen: Floats = np.where(condition, value, otherwise)
        return chosen

    def clip(self, x: Floats, low: float, high: float) -> Floats:
        nearest: Floats = np.minimum(np.maximum(x, low), high)
        return nearest

    def cut(self, histogram: HistogramColumns, count: Floats) -> Cut:
        # How many elements lie in this bin or above it: falls from a histogram's first bin to its last.
        # They are counted over all histograms at once; counts are exact, and so are their differences.
        passed = np.cumsum(histogram.counts)
        ends = histogram.starts + histogram.lengths
        all_before = np.concatenate([[0], passed])[ends]
        reached = histogram.of_bins(all_before) - passed + histogram.counts
        beyond = histogram.sums((reached > histogram.of_bins(count)).astype(np.intp))
        found = beyond > 0  # its last such bin is the one in which the count ends
        place = np.where(found, histogram.starts + beyond - 1, -1)
        position = np.arange(len(histogram.counts))
        above = histogram.sums(np.where(position > histogram.of_bins(place), histogram.energies, 0.0))
        none = np.zeros(len(found))
        held, energy, left, low = none + 1, none.copy(), none.copy(), none.copy()
        high = np.full(len(found), np.inf)
        at = place[found]
        held[found], energy[found] = histogram.counts[at], histogram.energies[at]
        left[found] = count[found] - (reached[at] - histogram.counts[at])
        bins = histogram.first[found] + beyond[found] - 1
        low[found], high[found] = _LOW[bins], _HIGH[bins]
        # Where the count ends in no bin, all of them are above it.
        return Cut(above, left, held, energy, low, high)


COLUMNS = _Columns()


def evaluate(formula: Formula, record: Record) -> Floats:
    """A formula of many records, shape (records,); NaN where it is undefined."""
    with np.errstate(all="ignore"):
        value: Floats = formula.body(record, COLUMNS)
    return value
