"""Measure one chunk of a pair: bytes of a and b in, `Sums` out. Knows no keys and no files.

Which arithmetic runs is decided once, by `open_measurer`; all of it is in fp64, so that squares and
products of fp32 and narrower values are exact and only their accumulation rounds.

Why numba on the CPU. Measured on two cores of an AMD EPYC with AVX2, fp16 input in the page cache,
GB of input per second: one torch call per statistic on 64 Ki chunks 1.0–1.4 (the interpreter
dominates); one 4-row Gram product per 128 Ki chunk in torch 1.9–2.4, with four sums only; this fused
loop 1.5–2.5 a thread, with all sixteen, in fp64 as fast as in fp32 since the conversion, not the
arithmetic, is the limit. A C++ extension would save numba's import (0.3 s) and its first
compilation, at the price of a wheel for every platform and interpreter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.backends import (
    CPU_CHUNK,
    GPU_CHUNK,
    SCAN_CHUNK,
    cache_errors,
    device_errors,
    has_numba,
)  # fmt: skip
from analyzer.kernels.formats import FLOATS, spacing, value_tables, values_of
from analyzer.measures import (
    BINS,
    COUNTS,
    HISTOGRAMS,
    STEP_BINS,
    TASK_COUNTS,
    TASK_FIELDS,
    Histogram,
    Sums,
    TaskSums,
)  # fmt: skip

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Sums over the rows of a matrix, to be filled."""

    width: int  # elements of a row
    first: int  # which element of its row the first element is
    sums: NDArray[np.float64]  # for every row that the elements touch (Σa², Σb², Σd²)


class AbstractMeasurer(ABC):
    """Measures chunks whose two sides are both floating point. Safe to call from many threads."""

    chunk: int  # elements that one call takes at most
    threads: int | None = None  # that keep it busy; None: one for each processor

    @abstractmethod
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


def open_measurer(device: str) -> AbstractMeasurer:
    """The measurer for "cpu", or for a torch device such as "cuda:0"."""
    if device != "cpu":
        return _TorchMeasurer(device)
    # numba comes late to new versions of Python; torch is slower, and gives the same numbers.
    return _CompiledMeasurer() if has_numba() else _TorchMeasurer("cpu")


def compare_equality(raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str, *, itemsize: int) -> Sums:
    """The record of a chunk of which a side is integer, boolean or complex: equal or not, no sums.

    Sides of one dtype are compared by their bytes. Sides of different dtypes are compared by
    value where numpy knows both dtypes, and count as changed where it does not.
    """
    count = len(raw_a) // itemsize
    if dtype_a == dtype_b:
        changed = int(np.count_nonzero((raw_a != raw_b).reshape(count, itemsize).any(axis=1)))
        return Sums(numel=count, n=count, changed=changed)
    a, b = values_of(raw_a, dtype_a), values_of(raw_b, dtype_b)
    if a is None or b is None:
        return Sums(numel=count, n=count, changed=count)
    finite_a, finite_b = np.isfinite(a), np.isfinite(b)
    both = finite_a & finite_b
    different = (a != b) & ~(np.isnan(a) & np.isnan(b))
    return Sums(
        numel=count,
        n=int(both.sum()),
        nonfinite_a=int((~finite_a).sum()),
        nonfinite_b=int((~finite_b).sum()),
        nonfinite_differs=int((different & ~both).sum()),
        changed=int((different & both).sum()),
    )


class _CompiledMeasurer(AbstractMeasurer):
    """The fused loop on the CPU."""

    chunk = SCAN_CHUNK

    def __init__(self) -> None:
        from analyzer.kernels import compiled_sums

        self._kernel = compiled_sums
        self._tables = value_tables()
        nothing = np.empty(0, np.uint8)
        with cache_errors():  # the first call compiles, or reads what an earlier one compiled
            self.measure(nothing, "F32", nothing, "F32")

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
        raw_c, dtype_c = base or (_NO_BYTES, dtype_a)
        rows = rows or _NO_ROWS
        a, b, c = FLOATS[dtype_a], FLOATS[dtype_b], FLOATS[dtype_c]
        count = len(raw_a) * 8 // a.bits
        out, tasks = np.zeros(self._kernel.WIDTH), np.zeros(self._kernel.TASK_WIDTH)
        bins = [np.zeros((count, 2)) for count in (BINS, STEP_BINS, STEP_BINS)]
        self._kernel.measure(
            raw_a, a.code, self._tables[dtype_a], raw_b, b.code, self._tables[dtype_b],
            raw_c, c.code, self._tables[dtype_c], count, spacing(dtype_a, dtype_b),
            rows.first, rows.width, out, tasks, bins[0], bins[1], bins[2], rows.sums,
        )  # fmt: skip
        return _record(count, out, bins, tasks if base else None)


class _TorchMeasurer(AbstractMeasurer):
    """The same sums by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        from analyzer.kernels import torch_sums

        self._kernel = torch_sums
        self._device = device
        self.chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        # One GPU is fed by two threads: one reads while the other's chunk is measured.
        self.threads = None if device == "cpu" else 2

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
        with device_errors(self._device):
            spacings = spacing(dtype_a, dtype_b).tolist()
            usable = self._kernel.Usable((raw_a, dtype_a), (raw_b, dtype_b), base, self._device, spacings)
            out = self._kernel.pair_sums(usable, spacings)
            bins = self._kernel.histograms(usable, spacings)
            tasks = self._kernel.task_sums(usable) if base else None
            if rows:
                rows.sums[:] += self._kernel.row_sums(usable, rows.first, rows.width, len(rows.sums))
        return _record(len(raw_a) * 8 // FLOATS[dtype_a].bits, out, bins, tasks)


_NO_BYTES = np.empty(0, np.uint8)
_NO_ROWS = Rows(width=1, first=0, sums=np.empty((0, 3)))
# The fields of `Sums` in the kernels' order; see `analyzer.kernels.compiled_sums`.
_ORDER = (
    "n", "nonfinite_a", "nonfinite_b", "nonfinite_differs", "changed", "cast_only", "sign_flips",
    "sum_a", "sum_b", "sum_aa", "sum_bb", "sum_dd", "sum_ab", "sum_abs_d", "max_abs_d", "sum_ulp_sq",
    "m2_a", "m2_b",
)  # fmt: skip


def _record(count: int, out: Array, bins: Sequence[Array], tasks: Array | None) -> Sums:
    """`Sums` of arrays in the kernels' order; `bins` are (count, Σd²) for every bin of all `HISTOGRAMS`."""
    values: dict[str, Any] = dict(zip(_ORDER, out.tolist(), strict=True))
    values |= {name: int(value) for name, value in values.items() if name in COUNTS}
    values |= zip(HISTOGRAMS, map(trimmed, bins), strict=True)
    return Sums(
        numel=count,
        numeric=values["n"],
        task=None if tasks is None else _tasks(values["n"], tasks),
        **values,
    )


def trimmed(bins: Array) -> Histogram:
    """The histogram of (count, Σd²) for every bin, without the empty bins at both ends."""
    held = bins[:, 0].nonzero()[0]
    if not len(held):
        return Histogram()
    first = int(held[0])
    kept = bins[first : int(held[-1]) + 1]
    return Histogram(first, array("q", kept[:, 0].astype("q").tobytes()), array("d", kept[:, 1].tobytes()))


def _tasks(n: int, tasks: Array) -> TaskSums:
    values: dict[str, Any] = dict(zip(TASK_FIELDS[1:], tasks.tolist(), strict=True))
    return TaskSums(n, **{k: int(v) if k in TASK_COUNTS else v for k, v in values.items()})
