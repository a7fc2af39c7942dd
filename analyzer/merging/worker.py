"""Read, combine and write one batch of runs at a time; called from many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.blending import AbstractBlender, Bytes
from analyzer.kernels.formats import count_nonfinite, largest_finite
from analyzer.merging.cuts import Place
from analyzer.merging.neighbours import neighbours, read_neighbours
from analyzer.merging.sinks import Sink
from analyzer.merging.steps import Span, Step
from analyzer.methods import Method, Operands, combine_linear

Buffers = list[Bytes]

_LARGEST_E4M3 = 0x7E  # the code, without its sign


class Worker:
    """Does what the steps say, and counts what became of the values."""

    def __init__(
        self,
        method: Method,
        known: Mapping[str, Any],
        blender: AbstractBlender | None,
        sinks: Sequence[Sink],
    ) -> None:
        self.nonfinite: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self.fused = method.fused
        self._method, self._known = method, known
        self._blender, self._sinks = blender, sinks
        self._lock = threading.Lock()

    def run(self, batch: list[Span], buffers: Buffers) -> int:
        """Compute and write every span; return the bytes written. The last buffer takes results."""
        most = len(buffers[0]) // 8  # elements
        for spans in neighbours(batch, self._sinks, most=most, fused=self.fused):
            if len(spans) == 1 or not self._write_together(spans, buffers):
                for span in spans:
                    self._write(span, buffers)
        return sum(span.nbytes for span in batch)

    def _write_together(self, spans: Sequence[Span], buffers: Buffers) -> bool:
        """Write neighbours at once; False, and nothing written, if values are to be counted by key."""
        first = spans[0]
        data, bad = self._fused(spans, buffers, first.step.entry.dtype, buffers[-1])
        if bad or (not first.step.copies and _may_be_clipped(data, first.step.entry.dtype)):
            return False
        self._sinks[first.step.file].write(first.step.index, first.offset, data)
        return True

    def _write(self, span: Span, buffers: Buffers) -> None:
        data, bad = self._compute(span, buffers)
        if encoder := span.step.encoder:
            data, clipped = encoder.encode(span.place, data.view("<f8"))
            self._count(self.clipped, span, clipped)
        self._sinks[span.step.file].write(span.step.index, span.offset, data)
        self._count(self.nonfinite, span, bad)

    def _count(self, counts: dict[str, int], span: Span, count: int) -> None:
        if count:
            key = span.step.action.key
            with self._lock:
                counts[key] = counts.get(key, 0) + count

    def _compute(self, span: Span, buffers: Buffers) -> tuple[Bytes, int]:
        step = span.step
        if span.cut is None:
            return np.arange(span.start, span.start + span.count, dtype="<i8").view(np.uint8), 0
        dtype = "F64" if step.encoder else step.entry.dtype
        if step.setting is not None and not self.fused:
            return self._combine(span, buffers, dtype)
        data, bad = self._fused([span], buffers, dtype, buffers[-1])
        if not step.copies and _may_be_clipped(data, dtype):
            wide, _ = self._fused([span], buffers, "F64", None)
            self._count(self.clipped, span, _beyond(wide.view("<f8"), dtype))
        return data, bad

    def _fused(
        self, spans: Sequence[Span], buffers: Buffers, dtype: str, out: Bytes | None
    ) -> tuple[Bytes, int]:
        """The bytes of spans that one call deals with, and how many are NaN or Inf and were not A's own.

        What is computed goes to `out`, or else to memory of its own.
        """
        step, cut = spans[0].step, spans[0].cut
        assert cut is not None
        places = cut.places if step.setting is None else cut.places[:2]
        raws = [
            (read_neighbours(spans, which, buffer), place.info.dtype)
            for which, (place, buffer) in enumerate(zip(places, buffers, strict=False))
        ]
        raw, dtype_in = raws[0]
        if step.copies:
            # What A held itself is no news.
            return raw, 0 if step.keeps else count_nonfinite(raw, dtype_in)
        assert self._blender is not None
        if step.setting is None:
            return self._blender.convert(raw, dtype_in, dtype=dtype, out=out)
        return self._blender.blend(*raws[0], *raws[1], alpha=step.setting.alpha, dtype=dtype, out=out)

    def _combine(self, span: Span, buffers: Buffers, dtype: str) -> tuple[Bytes, int]:
        """The same by a method that is no fused loop."""
        step = span.step
        assert self._blender is not None
        assert step.setting is not None
        operands = operands_of(span, buffers, self._blender)
        known = self._known.get(step.action.key)
        with np.errstate(all="ignore"):  # what is not finite in a model is counted in the result
            if self._method.coefficients is not None:
                values = combine_linear(operands, self._method.coefficients(step.setting, known))
            else:
                assert self._method.combine is not None
                values = self._method.combine(operands, step.setting, known)
        raw = np.ascontiguousarray(values).view(np.uint8)
        out, bad = self._blender.convert(raw, "F64", dtype=dtype, out=buffers[-1])
        if _may_be_clipped(out, dtype):
            self._count(self.clipped, span, _beyond(values, dtype))
        return out, bad


def buffers_for(steps: Sequence[Step], chunk: int) -> Callable[[], Buffers]:
    """What makes one thread's buffers: for `chunk` elements of every model, and of the result at the end."""
    most = max((len(cut.places) for step in steps for cut in step.cuts), default=1)
    return lambda: [np.empty(chunk * 8, np.uint8) for _ in range(most + 1)]


def operands_of(span: Span, buffers: Buffers, blender: AbstractBlender) -> Operands:
    """The run's elements of every model that takes part, in fp64."""
    cut, step = span.cut, span.step
    assert cut is not None
    assert step.setting is not None
    a, b, *others = (
        widened(read(place, span, buffer), place.info.dtype, blender)
        for place, buffer in zip(cut.places, buffers, strict=False)
    )
    base = others.pop(0) if step.setting.based else a
    return Operands(a, b, base, tuple(others), step.action.key, span.place, step.action.shape)


def read(place: Place, span: Span, buffer: Bytes) -> Bytes:
    """The run's elements of one model, as bytes at the front of the buffer."""
    info = place.info
    raw = buffer[: span.count * info.itemsize]
    place.checkpoint.read_into(info, (place.start + span.start) * info.itemsize, raw)
    return raw


def widened(raw: Bytes, dtype: str, blender: AbstractBlender) -> NDArray[np.float64]:
    """The elements in fp64, in memory of their own."""
    return blender.convert(raw, dtype, dtype="F64")[0].view("<f8")


def _may_be_clipped(out: Bytes, dtype: str) -> bool:
    """Whether there is a largest number in a run of a format that has no Inf: larger ones became that."""
    return dtype == "F8_E4M3" and bool(((out & 0x7F) == _LARGEST_E4M3).any())


def _beyond(values: NDArray[np.float64], dtype: str) -> int:
    """How many finite values are larger than a format's largest number."""
    return int(np.count_nonzero(np.isfinite(values) & (np.abs(values) > largest_finite(dtype))))
