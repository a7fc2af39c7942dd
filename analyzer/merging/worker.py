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
from analyzer.merging.steps import Span, Step
from analyzer.methods import Method, Operands, combine_linear
from analyzer.writing.writer import SafetensorsWriter

Buffers = list[Bytes]

_LARGEST_E4M3 = 0x7E  # the code, without its sign


class Worker:
    """Does what the steps say, and counts what became of the values."""

    def __init__(
        self,
        method: Method,
        known: Mapping[str, Any],
        blender: AbstractBlender | None,
        writers: Sequence[SafetensorsWriter],
    ) -> None:
        self.nonfinite: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self._method, self._known = method, known
        self._blender, self._writers = blender, writers
        self._lock = threading.Lock()

    def run(self, batch: list[Span], buffers: Buffers) -> int:
        """Compute and write every span; return the bytes written."""
        for span in batch:
            data, bad = self._compute(span, buffers)
            if encoder := span.step.encoder:
                data, clipped = encoder.encode(span.place, data.view("<f8"))
                self._count(self.clipped, span, clipped)
            writer = self._writers[span.step.file]
            writer.write(span.step.index, span.place * span.step.entry.itemsize, data)
            self._count(self.nonfinite, span, bad)
        return sum(span.nbytes for span in batch)

    def _count(self, counts: dict[str, int], span: Span, count: int) -> None:
        if count:
            key = span.step.action.key
            with self._lock:
                counts[key] = counts.get(key, 0) + count

    def _compute(self, span: Span, buffers: Buffers) -> tuple[Bytes, int]:
        step, cut = span.step, span.cut
        if cut is None:
            return np.arange(span.start, span.start + span.count, dtype="<i8").view(np.uint8), 0
        dtype = "F64" if step.encoder else step.entry.dtype
        if step.setting is not None:
            return self._merge(span, buffers, dtype)
        place = cut.places[0]
        raw = read(place, span, buffers[0])
        if step.copies:
            # What A held itself is no news.
            kept = step.action.verb in ("keep", "cast")
            return raw, 0 if kept else count_nonfinite(raw, place.info.dtype)
        return self._convert(span, raw, place.info.dtype, dtype)

    def _merge(self, span: Span, buffers: Buffers, dtype: str) -> tuple[Bytes, int]:
        step, cut = span.step, span.cut
        assert cut is not None
        assert step.setting is not None
        assert self._blender is not None
        if self._method.fused:
            a, b = cut.places[:2]
            raw = read(a, span, buffers[0]), a.info.dtype, read(b, span, buffers[1]), b.info.dtype
            alpha = step.setting.alpha
            out, bad = self._blender.blend(*raw, alpha=alpha, dtype=dtype)
            if _may_be_clipped(out, dtype):
                wide, _ = self._blender.blend(*raw, alpha=alpha, dtype="F64")
                self._count(self.clipped, span, _beyond(wide.view("<f8"), dtype))
            return out, bad
        operands = operands_of(span, buffers, self._blender)
        known = self._known.get(step.action.key)
        with np.errstate(all="ignore"):  # what is not finite in a model is counted in the result
            if self._method.coefficients is not None:
                values = combine_linear(operands, self._method.coefficients(step.setting, known))
            else:
                assert self._method.combine is not None
                values = self._method.combine(operands, step.setting, known)
        return self._convert(span, np.ascontiguousarray(values).view(np.uint8), "F64", dtype)

    def _convert(self, span: Span, raw: Bytes, dtype_in: str, dtype: str) -> tuple[Bytes, int]:
        assert self._blender is not None
        out, bad = self._blender.convert(raw, dtype_in, dtype=dtype)
        if _may_be_clipped(out, dtype):
            self._count(self.clipped, span, _beyond(widened(raw, dtype_in, self._blender), dtype))
        return out, bad


def buffers_for(steps: Sequence[Step], chunk: int) -> Callable[[], Buffers]:
    """What makes one thread's buffers: one for each model that a run of `chunk` elements is read from."""
    most = max((len(cut.places) for step in steps for cut in step.cuts), default=1)
    return lambda: [np.empty(chunk * 8, np.uint8) for _ in range(most)]


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
