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

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.backends import CPU_CHUNK, GPU_CHUNK, cache_errors, device_errors, has_numba
from analyzer.kernels.formats import FLOATS, eight_bit_values, ulp_parameters, value_tables
from analyzer.records import Sums

Bytes = NDArray[np.uint8]


class AbstractMeasurer(ABC):
    """Measures chunks whose two sides are both floating point. Safe to call from many threads."""

    chunk: int  # elements that one call takes at most
    threads: int | None = None  # that keep it busy; None: one for each processor

    @abstractmethod
    def measure(self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str) -> Sums:
        """The sums of two byte strings that hold equally many elements."""


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
    a, b = _values(raw_a, dtype_a), _values(raw_b, dtype_b)
    if a is None or b is None:
        return Sums(numel=count, n=count, changed=count)
    finite_a, finite_b = np.isfinite(a), np.isfinite(b)
    both = finite_a & finite_b
    return Sums(
        numel=count,
        n=int(both.sum()),
        nonfinite_a=int((~finite_a).sum()),
        nonfinite_b=int((~finite_b).sum()),
        changed=int(((a != b) & both).sum()),
    )


_NUMPY_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4",
    "U64": "u8", "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8", "C64": "c8",
}  # fmt: skip


def _values(raw: Bytes, dtype: str) -> NDArray[np.generic] | None:
    """The elements as numpy knows them, little-endian as files are; None for a dtype it lacks."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return eight_bit_values(dtype)[raw]
    name = _NUMPY_DTYPES.get(dtype)
    return raw.view(np.dtype(name).newbyteorder("<")) if name else None


class _CompiledMeasurer(AbstractMeasurer):
    """The fused loop on the CPU."""

    chunk = CPU_CHUNK

    def __init__(self) -> None:
        from analyzer.kernels import compiled

        self._loop = compiled.measure
        self._width = compiled.WIDTH
        self._tables = value_tables()
        with cache_errors():  # the first call compiles, or reads what an earlier one compiled
            self.measure(np.empty(0, np.uint8), "F32", np.empty(0, np.uint8), "F32")

    def measure(self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str) -> Sums:
        out = np.zeros(self._width)
        a, b = FLOATS[dtype_a], FLOATS[dtype_b]
        count = len(raw_a) * 8 // a.bits
        scale, floor = ulp_parameters(dtype_a, dtype_b)
        table_a, table_b = self._tables[dtype_a], self._tables[dtype_b]
        self._loop(raw_a, a.code, table_a, raw_b, b.code, table_b, count, scale, floor, out)
        return _record(count, out)


class _TorchMeasurer(AbstractMeasurer):
    """The same sums by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        from analyzer.kernels import on_torch

        self._kernel = on_torch.measure
        self._device = device
        self.chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        # One GPU is fed by two threads: one reads while the other's chunk is measured.
        self.threads = None if device == "cpu" else 2

    def measure(self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str) -> Sums:
        with device_errors(self._device):
            out = self._kernel(raw_a, dtype_a, raw_b, dtype_b, self._device)
        return _record(len(raw_a) * 8 // FLOATS[dtype_a].bits, out)


def _record(count: int, out: NDArray[np.float64]) -> Sums:
    """`Sums` of an array in the kernels' order."""
    n, nonfinite_a, nonfinite_b, changed, sign_flips, *sums = out.tolist()
    return Sums(
        count, int(n), int(n), int(nonfinite_a), int(nonfinite_b), int(changed), int(sign_flips), *sums
    )
