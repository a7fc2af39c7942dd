"""Blend or convert one chunk: bytes in, bytes of the output's dtype out. Knows no keys and no files."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.backends import BLOCK, CPU_CHUNK, GPU_CHUNK, cache_errors, device_errors, has_numba
from analyzer.kernels.formats import FLOATS, rounding_parameters, tables_by_code
from analyzer.kernels.machine_code import open_loops

Bytes = NDArray[np.uint8]

# Elements of one call, and of one read and one write, where nothing is widened: with fewer the threads wait
# for the interpreter's lock, with more the buffers leave the cache (0.86 s at 2^17, 0.78 s here, 0.9 s at
# 2^21 for two models of 0.65 GB).
FUSED_CHUNK = 1 << 20


class AbstractBlender(ABC):
    """Arithmetic in fp64, rounded once to the output's dtype. Safe to call from many threads."""

    chunk: int  # elements that are widened to fp64 at a time
    fused_chunk: int  # elements that one call of `blend` or `convert` takes at most
    threads: int | None = None  # that keep it busy; None: what `run_batches` takes

    @abstractmethod
    def blend(
        self,
        raw_a: Bytes,
        dtype_a: str,
        raw_b: Bytes,
        dtype_b: str,
        *,
        alpha: float,
        dtype: str,
        out: Bytes | None = None,
    ) -> tuple[Bytes, int]:
        """The bytes of a + alpha·(b − a), and how many results are NaN or Inf.

        `out` is memory that may be used for them, large enough and no part of the operands.
        """

    @abstractmethod
    def convert(
        self, raw: Bytes, dtype_in: str, *, dtype: str, out: Bytes | None = None
    ) -> tuple[Bytes, int]:
        """The bytes of the same values in another dtype, the number of NaN and Inf, and `out`, as above."""


def open_blender(device: str) -> AbstractBlender:
    """The blender for "cpu", or for a torch device such as "cuda:0"."""
    if device != "cpu":
        return _TorchBlender(device)
    # numba comes late to new versions of Python; torch is slower, and gives the same bytes.
    return _CompiledBlender() if has_numba() else _TorchBlender("cpu")


class _CompiledBlender(AbstractBlender):
    """The fused loops on the CPU."""

    chunk = CPU_CHUNK
    fused_chunk = FUSED_CHUNK

    def __init__(self) -> None:
        loops = open_loops("compiled_blend")
        self._blend, self._convert = loops["blend"], loops["convert"]
        self._tables = tables_by_code()
        self._rounding = {
            name: rounding_parameters(name) if f.bits <= 16 else np.empty(0, np.int64)
            for name, f in FLOATS.items()
        }
        empty = np.empty(0, np.uint8)
        with cache_errors():  # the first calls compile, or read what an earlier one compiled
            self.blend(empty, "F32", empty, "F32", alpha=0.5, dtype="F32")
            self.convert(empty, "F32", dtype="F32")

    def blend(
        self,
        raw_a: Bytes,
        dtype_a: str,
        raw_b: Bytes,
        dtype_b: str,
        *,
        alpha: float,
        dtype: str,
        out: Bytes | None = None,
    ) -> tuple[Bytes, int]:
        count, out = self._output(raw_a, dtype_a, dtype, out)
        if len(raw_b) * 8 < count * FLOATS[dtype_b].bits:  # the loop looks at no bounds
            raise ValueError("the second operand has fewer elements than the first")
        bad = self._blend(
            raw_a, FLOATS[dtype_a].code, raw_b, FLOATS[dtype_b].code, self._tables,
            count, float(alpha), out, FLOATS[dtype].code, self._rounding[dtype], np.empty(2 * BLOCK),
        )  # fmt: skip
        return out, int(bad)

    def convert(
        self, raw: Bytes, dtype_in: str, *, dtype: str, out: Bytes | None = None
    ) -> tuple[Bytes, int]:
        count, out = self._output(raw, dtype_in, dtype, out)
        bad = self._convert(
            raw, FLOATS[dtype_in].code, self._tables,
            count, out, FLOATS[dtype].code, self._rounding[dtype], np.empty(BLOCK),
        )  # fmt: skip
        return out, int(bad)

    def _output(self, raw: Bytes, dtype_in: str, dtype: str, out: Bytes | None) -> tuple[int, Bytes]:
        count = len(raw) * 8 // FLOATS[dtype_in].bits
        size = count * FLOATS[dtype].bits // 8
        if out is None:
            return count, np.empty(size, np.uint8)
        if len(out) < size:
            raise ValueError(f"{size} bytes do not fit into the {len(out)} of the output")
        return count, out[:size]


class _TorchBlender(AbstractBlender):
    """The same bytes by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        from analyzer.kernels import on_torch

        self._kernels, self._device = on_torch, device
        self.chunk = self.fused_chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        self.threads = None if device == "cpu" else 2  # see analyzer.sums

    def blend(
        self,
        raw_a: Bytes,
        dtype_a: str,
        raw_b: Bytes,
        dtype_b: str,
        *,
        alpha: float,
        dtype: str,
        out: Bytes | None = None,  # noqa: ARG002 - torch brings its own
    ) -> tuple[Bytes, int]:
        with device_errors(self._device):
            return self._kernels.blend(raw_a, dtype_a, raw_b, dtype_b, alpha, dtype, self._device)

    def convert(
        self,
        raw: Bytes,
        dtype_in: str,
        *,
        dtype: str,
        out: Bytes | None = None,  # noqa: ARG002
    ) -> tuple[Bytes, int]:
        with device_errors(self._device):
            return self._kernels.convert(raw, dtype_in, dtype, self._device)
