"""Measure runs of elements of a pair: bytes of a and b in, `Sums` out. Knows no keys and no files.

Which arithmetic runs is decided once, by `open_measurer`; all of it is in fp64, so that squares and
products of fp32 and narrower values are exact and only their accumulation rounds.

Why loops that numba compiles and llvmlite loads (decided in November 2026, two cores of an AMD EPYC of the
Zen 4 generation, fp16 in the page cache, GB of input a second):

    one torch call per statistic, chunks of 64 Ki elements        1.0–1.4   the interpreter dominates
    one 4-row Gram product a chunk of 128 Ki, in torch            1.9–2.4   four sums only
    this loop, 20 sums and three histograms, one thread           2.5       1.6 ns a pair of elements
    the same, two threads                                         4.3       chunks of 1 Mi: with 128 Ki, 3.4

In fp64 it is as fast as in fp32 was: what it waits for is the table of the histograms. What was weighed:

- a C++ extension: no first compilation, but a wheel for each platform and interpreter, a compiler on every
  machine without one, and vector code written for each processor by hand;
- numba as it comes: 0.11 s of import and 0.28 s to load its cached functions, at every start;
- this: numba writes the few loops that Python calls in LLVM's language, and they are compiled as one program
  once for each processor (a scan's in 4 s on these cores, a merge's in 2; 8 and 5 where numba also compiles
  them one by one), to an object file that needs nothing else; from then on llvmlite loads it in 0.03 s
  without an import of numba (`analyzer.kernels.machine_code`). The loops that few runs need, those of codes
  with scales and of a recovery, are still numba's as they come;
- `torch.compile`: torch's import alone takes as long as the scan; Triton: for GPUs, not written yet.

Where nothing can be compiled, and on a GPU, torch gives the same numbers (`analyzer.torch_measurer`).
"""

from __future__ import annotations

import numpy as np

from analyzer.batches import (
    BINS_OF_A_SPAN,
    SUMS_WIDTH,
    TASKS_WIDTH,
    AbstractMeasurer,
    Array,
    Batch,
    BatchSums,
    Bytes,
    check_bounds,
)
from analyzer.kernels.backends import SCAN_CHUNK, aligned_zeros, cache_errors, has_numba
from analyzer.kernels.formats import tables_by_code, values_of
from analyzer.kernels.machine_code import open_loops
from analyzer.measures import HISTOGRAMS, Sums


def open_measurer(device: str) -> AbstractMeasurer:
    """The measurer for "cpu", or for a torch device such as "cuda:0"."""
    # numba comes late to new versions of Python; torch is slower, and gives the same numbers.
    if device == "cpu" and has_numba():
        return CompiledMeasurer()
    from analyzer.torch_measurer import TorchMeasurer

    return TorchMeasurer(device)


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


class CompiledMeasurer(AbstractMeasurer):
    """The fused loop on the CPU."""

    chunk = SCAN_CHUNK

    def __init__(self) -> None:
        loops = open_loops("compiled_sums")
        self._measure, self._scratch_size = loops["measure_batch"], loops["scratch_size"]
        self._tables = tables_by_code()
        nothing = np.empty(0, np.uint8)
        with cache_errors():  # the first call compiles, or reads what an earlier one compiled
            self.measure(nothing, "F32", nothing, "F32")

    def new_scratch(self) -> Array:
        """The loop's own memory."""
        return aligned_zeros(self._scratch_size(3))

    def measure_batch(self, batch: Batch, scratch: Array) -> BatchSums:
        """All spans by one call. ValueError if one reaches beyond the bytes: the loop looks at no bounds."""
        check_bounds(batch)
        n = len(batch.spans)
        found = BatchSums(
            np.zeros((n, SUMS_WIDTH)),
            np.zeros((n, TASKS_WIDTH)),
            np.zeros((n, len(HISTOGRAMS), 2), np.int64),
            np.empty((n * BINS_OF_A_SPAN, 2)),  # of which only what is written is ever touched
            np.zeros((batch.rows, 3)),
        )
        held = self._measure(
            batch.raw[0], batch.raw[1], batch.raw[2], batch.spans, self._tables, batch.spacing,
            found.out, found.tasks, found.edges, found.bins, found.rows, scratch,
        )  # fmt: skip
        return BatchSums(found.out, found.tasks, found.edges, found.bins[:held], found.rows)
