"""Measure spans by torch: on a GPU, and on a CPU for which nothing can be compiled."""

from __future__ import annotations

import numpy as np

from analyzer.batches import (
    AT_A,
    AT_B,
    AT_C,
    CODE_A,
    CODE_B,
    CODE_C,
    COUNT,
    FIRST,
    ROW,
    ROW_WIDTH,
    AbstractMeasurer,
    Array,
    Batch,
    BatchSums,
    Integers,
    gathered,
)  # fmt: skip
from analyzer.kernels import torch_sums
from analyzer.kernels.backends import CPU_CHUNK, GPU_CHUNK, device_errors
from analyzer.kernels.formats import FLOATS

_FORMATS = {f.code: (dtype, f.bits // 8) for dtype, f in FLOATS.items()}


class TorchMeasurer(AbstractMeasurer):
    """The sums by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        # One GPU is fed by two threads: one reads while the other's chunk is measured.
        self.threads = None if device == "cpu" else 2

    def new_scratch(self) -> Array:
        """Nothing: torch has memory of its own."""
        return np.empty(0)

    def measure_batch(self, batch: Batch, scratch: Array) -> BatchSums:  # noqa: ARG002 - torch needs none
        """One span after the other."""
        rows = np.zeros((batch.rows, 3))
        with device_errors(self._device):
            spans = [
                self._measure(batch, span, spacings, rows)
                for span, spacings in zip(batch.spans, batch.spacing, strict=True)
            ]
        return gathered(spans, rows)

    def _measure(
        self, batch: Batch, span: Integers, spacing: Array, rows: Array
    ) -> tuple[Array, Array | None, list[Array]]:
        """The sums of one span, of its tasks if it has a base, and its histograms; adds to `rows`."""
        spacings = spacing.tolist()
        a, b = _operand(batch, span, 0), _operand(batch, span, 1)
        base = _operand(batch, span, 2) if span[AT_C] >= 0 else None
        usable = torch_sums.Usable(a, b, base, self._device, spacings)
        width, first, count = int(span[ROW_WIDTH]), int(span[FIRST]), int(span[COUNT])
        if width:
            touched = -(-(first + count) // width)
            at = int(span[ROW])
            rows[at : at + touched] += torch_sums.row_sums(usable, first, width, touched)
        tasks = torch_sums.task_sums(usable) if base else None
        return torch_sums.pair_sums(usable, spacings), tasks, torch_sums.histograms(usable, spacings)


def _operand(batch: Batch, span: Integers, side: int) -> torch_sums.Operand:
    """The bytes of one side of a span, and their dtype."""
    at = int(span[(AT_A, AT_B, AT_C)[side]])
    dtype, itemsize = _FORMATS[int(span[(CODE_A, CODE_B, CODE_C)[side]])]
    return batch.raw[side][at : at + int(span[COUNT]) * itemsize], dtype
