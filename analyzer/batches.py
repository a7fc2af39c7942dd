"""Many runs of elements, measured by one call: what goes in, what comes out, the records made of it.

Knows no keys and no files. Which arithmetic runs is another module's: see `analyzer.sums`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.formats import FLOATS, spacing
from analyzer.measures import BINS, HISTOGRAMS, STEP_BINS, SUM_FIELDS, TASK_FIELDS, Histogram, Sums, TaskSums

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# The columns of `Batch.spans`: places in bytes, then numbers of elements, then rows.
(
    AT_A,
    AT_B,
    AT_C,  # −1: no base
    COUNT,
    CODE_A,  # of its dtype, see `formats.FLOATS`
    CODE_B,
    CODE_C,
    FIRST,  # which element of its row the first element is
    ROW_WIDTH,  # elements of a row; 0: rows are not told apart
    ROW,  # of the sums of rows, the first one that the span adds to
    _BINS,  # not used
    _RESERVED,
    SPAN_WIDTH,
) = range(13)

BINS_OF_A_SPAN = BINS + 2 * STEP_BINS  # at most, in all its histograms

# The fields of `Sums` in the kernels' order; see `analyzer.kernels.compiled_sums`.
SUMS_WIDTH = 18
_WHOLE = 7  # the first of them that are counts
TASKS_WIDTH = 12
_WHOLE_TASKS = 4
assert SUM_FIELDS[3:] == (
    "nonfinite_a", "nonfinite_b", "nonfinite_differs", "changed", "cast_only", "sign_flips",
    "sum_a", "sum_b", "sum_aa", "sum_bb", "sum_dd", "sum_ab", "sum_abs_d", "max_abs_d", "sum_ulp_sq",
    "m2_a", "m2_b",
)  # fmt: skip
assert len(TASK_FIELDS) == 1 + TASKS_WIDTH


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Sums over the rows of a matrix, to be filled."""

    width: int  # elements of a row
    first: int  # which element of its row the first element is
    sums: Array  # for every row that the elements touch (Σa², Σb², Σd²)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Runs of elements, all floating point: a span of each is as long in `a` as in `b`, and in a base."""

    raw: Sequence[Bytes]  # of a, of b, and of their base (empty if there is none)
    spans: Integers  # shape (spans, SPAN_WIDTH)
    spacing: Array  # shape (spans, 8): `formats.spacing` of the dtypes of each
    rows: int  # of all spans together


@dataclass(frozen=True, slots=True, eq=False)
class BatchSums:
    """What was measured of a batch, in the kernels' order."""

    out: Array  # shape (spans, SUMS_WIDTH)
    tasks: Array  # shape (spans, TASKS_WIDTH); zeros where there is no base
    edges: Integers  # shape (spans, 3, 2): of each histogram the first bin and how many bins are held
    bins: Array  # (count, Σd²) of every bin that is held: span by span, histogram by histogram
    rows: Array  # shape (rows, 3): (Σa², Σb², Σd²)


class AbstractMeasurer(ABC):
    """Measures spans whose two sides are both floating point. Safe to call from many threads."""

    chunk: int  # elements that one span has at most
    threads: int | None = None  # that keep it busy; None: what `run_batches` takes

    @abstractmethod
    def new_scratch(self) -> Array:
        """What one thread hands to `measure_batch`, again and again."""

    def new_buffer(self, nbytes: int) -> Bytes:
        """What one thread reads a model's bytes into, again and again."""
        return np.empty(nbytes, np.uint8)

    @abstractmethod
    def measure_batch(self, batch: Batch, scratch: Array) -> BatchSums:
        """The sums of every span by itself."""

    def measure(
        self,
        raw_a: Bytes,
        dtype_a: str,
        raw_b: Bytes,
        dtype_b: str,
        *,
        base: tuple[Bytes, str] | None = None,
        rows: Rows | None = None,
    ) -> Sums:
        """The sums of two byte strings that hold equally many elements; with a base's, also of the tasks.

        Adds to `rows`, if there are any.
        """
        raw_c, dtype_c = base or (np.empty(0, np.uint8), dtype_a)
        a, b, c = (FLOATS[dtype] for dtype in (dtype_a, dtype_b, dtype_c))
        count = len(raw_a) * 8 // a.bits
        first, width = (rows.first, rows.width) if rows else (0, 0)
        at_c = 0 if base else -1
        spans = np.array([[0, 0, at_c, count, a.code, b.code, c.code, first, width, 0, 0, 0]], np.int64)
        batch = Batch(
            (raw_a, raw_b, raw_c), spans, spacing(dtype_a, dtype_b)[None], len(rows.sums) if rows else 0
        )
        found = self.measure_batch(batch, self.new_scratch())
        if rows:
            rows.sums[:] += found.rows
        return records(batch, found)[0]


_SIDES = ((AT_A, CODE_A), (AT_B, CODE_B), (AT_C, CODE_C))
_ITEMSIZES = np.zeros(len(FLOATS), np.int64)
_ITEMSIZES[[f.code for f in FLOATS.values()]] = [f.bits // 8 for f in FLOATS.values()]


def check_bounds(batch: Batch) -> None:
    """ValueError if a span reaches beyond the bytes of a model, or beyond the sums of rows."""
    spans = batch.spans
    counts, widths = spans[:, COUNT], spans[:, ROW_WIDTH]
    for raw, (at, code) in zip(batch.raw, _SIDES, strict=True):
        ends = spans[:, at] + counts * _ITEMSIZES[spans[:, code]]
        if (ends[spans[:, at] >= 0] > len(raw)).any():
            raise ValueError("a span ends behind the bytes of its model")
    rows = spans[:, ROW] - -(spans[:, FIRST] + counts) // np.maximum(widths, 1)
    if (rows[widths > 0] > batch.rows).any():
        raise ValueError("a span has more rows than there are sums for")


def records(batch: Batch, found: BatchSums) -> list[Sums]:
    """The record of every span."""
    counts = found.out[:, :_WHOLE].astype(np.int64).tolist()
    sums = found.out[:, _WHOLE:].tolist()
    tasks = _task_records(batch, found)
    shapes = _histograms(found)
    numels = batch.spans[:, COUNT].tolist()
    return [
        Sums(*(numel, whole[0], *whole, *real, *shape, task))
        for numel, whole, real, shape, task in zip(numels, counts, sums, shapes, tasks, strict=True)
    ]


def _task_records(batch: Batch, found: BatchSums) -> list[TaskSums | None]:
    if not len(batch.raw[2]):
        return [None] * len(found.tasks)
    n = found.out[:, 0].astype(np.int64).tolist()
    counts = found.tasks[:, :_WHOLE_TASKS].astype(np.int64).tolist()
    sums = found.tasks[:, _WHOLE_TASKS:].tolist()
    based = (batch.spans[:, AT_C] >= 0).tolist()
    return [
        TaskSums(count, *whole, *real) if has_base else None
        for has_base, count, whole, real in zip(based, n, counts, sums, strict=True)
    ]


_EMPTY = Histogram()


def _histograms(found: BatchSums) -> list[list[Histogram]]:
    """All histograms of every span."""
    # copied once more, since an array that grew keeps room to grow
    counts = _packed(found.bins[:, 0])[:]
    energies = array("d", found.bins[:, 1].tobytes())[:]
    made = []
    start = 0
    for edges in found.edges.tolist():
        shapes = []
        for first, held in edges:
            if held:
                end = start + held
                shapes.append(Histogram(first, counts, energies, start, end))
                start = end
            else:
                shapes.append(_EMPTY)
        made.append(shapes)
    return made


def _packed(counts: Array) -> array[int]:
    """The counts in the least memory: of a small tensor a quarter of what 64 bits each take."""
    largest = counts.max(initial=0.0)
    typecode = "H" if largest < 1 << 16 else "I" if largest < 1 << 32 else "q"
    return array(typecode, counts.astype(typecode).tobytes())


def trimmed(bins: Array) -> Histogram:
    """The histogram of (count, Σd²) for every bin, without the empty bins at both ends."""
    first, held = edges_of(bins)
    if not held:
        return Histogram()
    kept = bins[first : first + held]
    return Histogram(first, array("q", kept[:, 0].astype("q").tobytes()), array("d", kept[:, 1].tobytes()))


def edges_of(bins: Array) -> tuple[int, int]:
    """The first bin that is not empty, and how many follow up to the last such one; (0, 0): all are empty."""
    held = bins[:, 0].nonzero()[0]
    return (int(held[0]), int(held[-1] - held[0]) + 1) if len(held) else (0, 0)


def gathered(spans: Sequence[tuple[Array, Array | None, Sequence[Array]]], rows: Array) -> BatchSums:
    """The sums of a batch whose spans were measured one by one: the sums of each, of its tasks, all bins."""
    edges = np.array([[edges_of(bins) for bins in shapes] for *_, shapes in spans], np.int64)
    kept = [
        bins[first : first + held]
        for (*_, shapes), limits in zip(spans, edges.tolist(), strict=True)
        for bins, (first, held) in zip(shapes, limits, strict=True)
    ]
    none = np.zeros(TASKS_WIDTH)
    return BatchSums(
        np.array([out for out, *_ in spans]).reshape(-1, SUMS_WIDTH),
        np.array([none if tasks is None else tasks for _, tasks, _ in spans]).reshape(-1, TASKS_WIDTH),
        edges.reshape(-1, len(HISTOGRAMS), 2),
        np.concatenate([np.empty((0, 2)), *kept]),
        rows,
    )
