"""Blend or convert one chunk: bytes in, bytes of the output's dtype out. Knows no keys and no files."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.formats import FLOATS, eight_bit_values, rounding_parameters

Bytes = NDArray[np.uint8]


class AbstractBlender(ABC):
    """Arithmetic in fp64, rounded once to the output's dtype. Safe to call from many threads."""

    @abstractmethod
    def blend(
        self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str, *, alpha: float, dtype: str
    ) -> tuple[Bytes, int]:
        """The bytes of a + alpha·(b − a), and how many results are NaN or Inf."""

    @abstractmethod
    def convert(self, raw: Bytes, dtype_in: str, *, dtype: str) -> tuple[Bytes, int]:
        """The bytes of the same values in another dtype, and how many results are NaN or Inf."""


def open_blender(device: str) -> AbstractBlender:
    """The blender for "cpu", or for a torch device such as "cuda:0"."""
    if device != "cpu":
        return _TorchBlender(device)
    if importlib.util.find_spec("numba") is None:  # not there for this interpreter yet
        return _TorchBlender("cpu")  # slower, and the same bytes
    return _CompiledBlender()


class _CompiledBlender(AbstractBlender):
    """The fused loops on the CPU, imported at first use: a merge that only copies needs none."""

    def __init__(self) -> None:
        self._tables = {
            name: eight_bit_values(name) if f.bits == 8 else np.empty(0) for name, f in FLOATS.items()
        }
        self._rounding = {
            name: rounding_parameters(name) if f.bits <= 16 else np.empty(0, np.int64)
            for name, f in FLOATS.items()
        }

    def blend(
        self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str, *, alpha: float, dtype: str
    ) -> tuple[Bytes, int]:
        count, out = self._output(raw_a, dtype_a, dtype)
        from analyzer.kernels.compiled import blend

        bad = blend(
            raw_a, FLOATS[dtype_a].code, self._tables[dtype_a],
            raw_b, FLOATS[dtype_b].code, self._tables[dtype_b],
            count, float(alpha), out, FLOATS[dtype].code, self._rounding[dtype],
        )  # fmt: skip
        return out, int(bad)

    def convert(self, raw: Bytes, dtype_in: str, *, dtype: str) -> tuple[Bytes, int]:
        from analyzer.kernels.compiled import convert

        count, out = self._output(raw, dtype_in, dtype)
        code, table = FLOATS[dtype_in].code, self._tables[dtype_in]
        bad = convert(raw, code, table, count, out, FLOATS[dtype].code, self._rounding[dtype])
        return out, int(bad)

    def _output(self, raw: Bytes, dtype_in: str, dtype: str) -> tuple[int, Bytes]:
        count = len(raw) * 8 // FLOATS[dtype_in].bits
        return count, np.empty(count * FLOATS[dtype].bits // 8, np.uint8)


class _TorchBlender(AbstractBlender):
    """The same bytes by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        from analyzer.kernels import on_torch

        self._blend, self._convert, self._device = on_torch.blend, on_torch.convert, device

    def blend(
        self, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str, *, alpha: float, dtype: str
    ) -> tuple[Bytes, int]:
        return self._blend(raw_a, dtype_a, raw_b, dtype_b, alpha, dtype, self._device)

    def convert(self, raw: Bytes, dtype_in: str, *, dtype: str) -> tuple[Bytes, int]:
        return self._convert(raw, dtype_in, dtype, self._device)
