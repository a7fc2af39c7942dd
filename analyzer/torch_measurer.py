"""Measure spans by torch: on a GPU, and on a CPU for which nothing can be compiled.

A GPU is fed by two threads. Each reads into pinned memory of its own and works on a stream of its own, so
the bytes of one batch travel, and are measured, while the other thread reads the next one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch

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
    Bytes,
    Integers,
    gathered,
)  # fmt: skip
from analyzer.kernels import on_torch, torch_sums
from analyzer.kernels.backends import CPU_CHUNK, GPU_CHUNK, device_errors
from analyzer.kernels.formats import FLOATS

_AT, _CODE = (AT_A, AT_B, AT_C), (CODE_A, CODE_B, CODE_C)  # of each side
_FORMATS = {f.code: (dtype, f.bits // 8) for dtype, f in FLOATS.items()}


class TorchMeasurer(AbstractMeasurer):
    """The sums by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        self.threads = None if device == "cpu" else 2
        self._own = threading.local()  # of each thread: its stream

    def new_scratch(self) -> Array:
        """Nothing: torch has memory of its own."""
        return np.empty(0)

    def new_buffer(self, nbytes: int) -> Bytes:
        """Memory that stays where it is, for a GPU: it fetches from there by itself."""
        if not self._device.startswith("cuda"):
            return np.empty(nbytes, np.uint8)
        with device_errors(self._device):
            pinned: Bytes = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned

    def measure_batch(self, batch: Batch, scratch: Array) -> BatchSums:  # noqa: ARG002 - torch needs none
        """One span after the other."""
        rows = np.zeros((batch.rows, 3))
        with device_errors(self._device), self._stream():
            used = [side[: _end(batch.spans, i)] for i, side in enumerate(batch.raw)]
            raw = [on_torch.upload(side, self._device) for side in used]
            spans = [
                self._measure(raw, span, spacings, rows)
                for span, spacings in zip(batch.spans, batch.spacing, strict=True)
            ]
        return gathered(spans, rows)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """Work on a queue of this thread alone: threads that share one wait for each other's results."""
        if not self._device.startswith("cuda"):
            yield
            return
        stream = getattr(self._own, "stream", None)
        if stream is None:
            stream = self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch's own
        with torch.cuda.stream(stream):
            try:
                yield
            finally:  # after an error too, nothing may go on reading from the thread's buffers
                stream.synchronize()

    def _measure(
        self, raw: Sequence[torch.Tensor], span: Integers, spacing: Array, rows: Array
    ) -> tuple[Array, Array | None, list[Array]]:
        """The sums of one span, of its tasks if it has a base, and its histograms; adds to `rows`."""
        spacings = spacing.tolist()
        a, b = _operand(raw, span, 0), _operand(raw, span, 1)
        base = _operand(raw, span, 2) if span[AT_C] >= 0 else None
        usable = torch_sums.Usable(a, b, base, self._device, spacings)
        width, first, count = int(span[ROW_WIDTH]), int(span[FIRST]), int(span[COUNT])
        if width:
            touched = -(-(first + count) // width)
            at = int(span[ROW])
            rows[at : at + touched] += torch_sums.row_sums(usable, first, width, touched)
        tasks = torch_sums.task_sums(usable) if base else None
        return torch_sums.pair_sums(usable, spacings), tasks, torch_sums.histograms(usable, spacings)


def _end(spans: Integers, side: int) -> int:
    """How many bytes of a side's buffer the spans take up."""
    there = spans[spans[:, _AT[side]] >= 0]
    ends = [int(span[_AT[side]]) + int(span[COUNT]) * _FORMATS[int(span[_CODE[side]])][1] for span in there]
    return max(ends, default=0)


def _operand(raw: Sequence[torch.Tensor], span: Integers, side: int) -> torch_sums.Operand:
    """The bytes of one side of a span, and their dtype."""
    at = int(span[_AT[side]])
    dtype, itemsize = _FORMATS[int(span[_CODE[side]])]
    return raw[side][at : at + int(span[COUNT]) * itemsize], dtype
