"""Carry out a plan: stream A and B into a new file, in constant memory. Decides nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from analyzer import __version__
from analyzer.blending import AbstractBlender, Bytes, open_blender
from analyzer.categories import RuleBook, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.errors import RecipeError
from analyzer.kernels.backends import CPU_CHUNK
from analyzer.kernels.formats import FLOATS, count_nonfinite
from analyzer.methods import METHODS, Function
from analyzer.pairing import pair
from analyzer.recipe import Recipe, resolve
from analyzer.records import Action, Pair, Plan, Run, TensorInfo
from analyzer.scan import categorize_both, side_of
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.writer import Entry, SafetensorsWriter, check_target, create_safetensors

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote."""

    path: Path
    bytes: int
    nonfinite: Mapping[str, int]  # key -> how many values computed or taken from B are NaN or Inf
    clipped: Mapping[str, int]  # key -> how many values were too large for A's fp8 scale


def plan_merge(a: Checkpoint, b: Checkpoint, recipe: Recipe, *, book: RuleBook | None = None) -> Plan:
    """What a recipe comes to on these two models, before anything is read or written.

    `book` are the architectures (default: those that ship). Raises PairingError if they share no
    key, RecipeError or SelectorError if the recipe does not fit them.
    """
    if a.format == "gguf":
        raise RecipeError(
            f"{a.path}: GGUF is read and not written, and a merge is written as A is; name the model's "
            "safetensors file or folder as A"
        )
    categorized, labels_b = categorize_both(a, b, book=book or shipped())
    return resolve(
        recipe,
        a=a.infos,
        b=b.infos,
        pairing=pair(side_of(a, categorized), side_of(b, labels_b)),
        categorized=categorized,
        labels_b=labels_b.labels,
        metadata=a.metadata,
    )


def merge(
    a: Checkpoint,
    b: Checkpoint,
    plan: Plan,
    recipe: Recipe,
    *,
    out: Path,
    force: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> MergeResult:
    """Write the merged model to `out`, whole or not at all.

    Keys that the plan keeps are copied as bytes. Memory is bounded by a few chunk buffers a thread.
    The bytes written depend on the inputs, the plan and the recipe only. Raises OutputError if
    `out` is an input, exists without `force`, or cannot be written; CheckpointError if an input
    ends early.
    """
    check_target(out, inputs=[*a.files, *b.files], force=force)
    steps = [_step(index, action, a, b, plan) for index, action in enumerate(plan.actions)]
    # Before the output is opened: a merge that only copies needs no arithmetic, nor its start-up.
    blender = open_blender(device) if any(step.computes for step in steps) else None
    chunk = blender.chunk if blender else CPU_CHUNK
    spans = (span for step in steps for span in _spans(step, chunk))
    with create_safetensors(out, [step.entry for step in steps], _metadata(plan, a, b)) as writer:
        worker = _Worker(a, b, METHODS[recipe.method].function, blender, writer)
        run_batches(
            in_batches(spans, size=lambda span: span.nbytes, limit=_BATCH_BYTES),
            worker.run,
            state=lambda: (np.empty(chunk * 8, np.uint8), np.empty(chunk * 8, np.uint8)),
            threads=threads or (blender.threads if blender else None),
            total=sum(step.entry.nbytes for step in steps),
            progress=progress,
        )
    return MergeResult(
        out, out.stat().st_size, dict(sorted(worker.nonfinite.items())), dict(sorted(worker.clipped.items()))
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """How one tensor of the output comes about."""

    index: int
    action: Action
    entry: Entry
    pair: Pair | None = None  # where both sides, or B alone, are read in A's shape
    copied: tuple[Checkpoint, TensorInfo] | None = None  # what is copied or cast
    encoder: AbstractEncodedSource | None = None  # what turns values into A's codes

    @property
    def computes(self) -> bool:
        """Whether it takes arithmetic, and not only a copy of bytes."""
        if self.copied:
            return self.copied[1].dtype != self.action.dtype
        if self.pair is None:
            return False
        plain = all(run.b.dtype == self.action.dtype for run in self.pair.parts)
        return self.action.verb != "take" or not plain or self.encoder is not None


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of elements of one output tensor, small enough for one buffer."""

    step: _Step
    run: Run | None
    start: int  # within the run
    count: int

    @property
    def nbytes(self) -> int:
        """How many bytes are written."""
        return self.count * self.step.entry.itemsize

    @property
    def place(self) -> int:
        """Where the first element stands in the output tensor."""
        return self.start + (self.run.start if self.run else 0)


class _Worker:
    """Does one batch of spans at a time; called from many threads."""

    def __init__(
        self,
        a: Checkpoint,
        b: Checkpoint,
        method: Function,
        blender: AbstractBlender | None,
        writer: SafetensorsWriter,
    ) -> None:
        self.nonfinite: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self._a, self._b = a, b
        self._method, self._blender, self._writer = method, blender, writer
        self._lock = threading.Lock()

    def run(self, batch: list[_Span], buffers: tuple[Bytes, Bytes]) -> int:
        """Compute and write every span; return the bytes written."""
        for span in batch:
            data, bad = self._compute(span, buffers)
            if encoder := span.step.encoder:
                data, clipped = encoder.encode(span.place, data.view("<f4"))
                self._count(self.clipped, span, clipped)
            self._writer.write(span.step.index, span.place * span.step.entry.itemsize, data)
            self._count(self.nonfinite, span, bad)
        return sum(span.nbytes for span in batch)

    def _count(self, counts: dict[str, int], span: _Span, count: int) -> None:
        if count:
            key = span.step.action.key
            with self._lock:
                counts[key] = counts.get(key, 0) + count

    def _compute(self, span: _Span, buffers: tuple[Bytes, Bytes]) -> tuple[Bytes, int]:
        step, action = span.step, span.step.action
        if step.copied:
            checkpoint, info = step.copied
            raw = _read(checkpoint, info, span, buffers[0])
            if not step.computes:
                # What A held itself is no news.
                return raw, count_nonfinite(raw, info.dtype) if action.verb == "add" else 0
            assert self._blender is not None
            return self._blender.convert(raw, info.dtype, dtype=action.dtype)
        if span.run is None:
            return np.arange(span.start, span.start + span.count, dtype="<i8").view(np.uint8), 0
        two = span.run.b
        raw_b = _read(self._b, two, span, buffers[1])
        if not step.computes:
            return raw_b, count_nonfinite(raw_b, two.dtype)
        assert self._blender is not None
        dtype = "F32" if step.encoder else action.dtype
        if action.verb == "take":
            return self._blender.convert(raw_b, two.dtype, dtype=dtype)
        one = span.run.a
        raw_a = _read(self._a, one, span, buffers[0])
        assert action.alpha is not None
        return self._method(self._blender, raw_a, one.dtype, raw_b, two.dtype, action.alpha, dtype)


def _read(checkpoint: Checkpoint, info: TensorInfo, span: _Span, buffer: Bytes) -> Bytes:
    """The span's elements of a tensor, as bytes at the front of the buffer."""
    raw = buffer[: span.count * info.itemsize]
    checkpoint.read_into(info, span.start * info.itemsize, raw)
    return raw


def _step(index: int, action: Action, a: Checkpoint, b: Checkpoint, plan: Plan) -> _Step:
    if action.verb == "reset":
        return _Step(index, action, Entry(action.key, action.dtype, action.shape, prod(action.shape) * 8))
    source = b if action.verb == "add" else a
    info = source.infos[action.key]
    stored = info.encoded or info
    if action.dtype == stored.dtype:
        entry = Entry(action.key, action.dtype, stored.shape, stored.nbytes)
    else:
        nbytes = prod(action.shape) * FLOATS[action.dtype].bits // 8
        entry = Entry(action.key, action.dtype, action.shape, nbytes)
    if action.verb in ("keep", "add"):
        return _Step(index, action, entry, copied=(source, stored if action.dtype == stored.dtype else info))
    if action.verb == "cast":
        return _Step(index, action, entry, copied=(source, info))
    encoder = None
    if info.encoded and action.dtype == stored.dtype:
        found = a.sources[info.source]
        assert isinstance(found, AbstractEncodedSource)
        encoder = found
    return _Step(index, action, entry, pair=plan.pairs[action.key], encoder=encoder)


def _spans(step: _Step, chunk: int) -> Iterator[_Span]:
    for run in step.pair.parts if step.pair else (None,):
        numel = run.a.numel if run else prod(step.entry.shape)
        for start in range(0, numel, chunk):
            yield _Span(step, run, start, min(chunk, numel - start))


def _metadata(plan: Plan, a: Checkpoint, b: Checkpoint) -> dict[str, str]:
    """A's metadata and the recipe. No time and no folder: the same merge gives the same bytes."""
    document = {
        "format": "mergescope.recipe",
        "version": 1,
        "tool": f"mergescope {__version__}",
        "recipe": dict(plan.recipe),
        "inputs": {
            side: {"name": c.path.name, "bytes": c.bytes, "fingerprint": c.fingerprint()}
            for side, c in (("a", a), ("b", b))
        },
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # Loaders of the transformers family refuse a file that does not say which framework wrote it.
    return {"format": "pt"} | dict(plan.metadata) | {"mergescope.recipe": text}
