"""Carry out a plan: stream A and B into a new file, in constant memory. Decides nothing."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analyzer import __version__
from analyzer.blending import AbstractBlender, Bytes, open_blender
from analyzer.categories import categorize
from analyzer.checkpoints import Checkpoint
from analyzer.kernels.backends import CPU_CHUNK
from analyzer.kernels.formats import FLOATS, count_nonfinite
from analyzer.methods import METHODS, Function
from analyzer.pairing import pair
from analyzer.recipe import Recipe, resolve
from analyzer.records import Action, Plan, TensorInfo
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.writer import Entry, SafetensorsWriter, check_target, create_safetensors

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote."""

    path: Path
    bytes: int
    nonfinite: Mapping[str, int]  # key -> how many values computed or taken from B are NaN or Inf


def plan_merge(a: Checkpoint, b: Checkpoint, recipe: Recipe) -> Plan:
    """What a recipe comes to on these two models, before anything is read or written.

    Raises PairingError if they share no key, RecipeError or SelectorError if the recipe does not
    fit them.
    """
    return resolve(
        recipe,
        a=a.infos,
        b=b.infos,
        pairing=pair(a.infos, b.infos, names=(str(a.path), str(b.path))),
        categorized=categorize(a.infos.values()),
        labels_b=categorize(b.infos.values()).labels if recipe.only_in_b == "add" else {},
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
    steps = [_step(index, action, a, b) for index, action in enumerate(plan.actions)]
    # Before the output is opened: a merge that only copies needs no arithmetic, nor its start-up.
    blender = open_blender(device) if any(step.computes for step in steps) else None
    chunk = blender.chunk if blender else CPU_CHUNK
    spans = (span for step in steps for span in _spans(step, chunk))
    with create_safetensors(out, [step.entry for step in steps], _metadata(plan, a, b)) as writer:
        worker = _Worker(METHODS[recipe.method].function, blender, writer)
        run_batches(
            in_batches(spans, size=lambda span: span.nbytes, limit=_BATCH_BYTES),
            worker.run,
            state=lambda: (np.empty(chunk * 8, np.uint8), np.empty(chunk * 8, np.uint8)),
            threads=threads or (blender.threads if blender else None),
            total=sum(step.entry.nbytes for step in steps),
            progress=progress,
        )
    return MergeResult(out, out.stat().st_size, dict(sorted(worker.nonfinite.items())))


@dataclass(frozen=True, slots=True)
class _Operand:
    """A tensor to read from."""

    checkpoint: Checkpoint
    info: TensorInfo

    def read(self, start: int, count: int, buffer: Bytes) -> Bytes:
        """Elements start … start+count, as bytes at the front of the buffer."""
        itemsize = self.info.nbytes // self.info.numel
        raw = buffer[: count * itemsize]
        self.checkpoint.read_into(self.info, start * itemsize, raw)
        return raw


@dataclass(frozen=True, slots=True)
class _Step:
    """How one tensor of the output comes about: from no operand a table, from one a copy or cast."""

    index: int
    action: Action
    operands: tuple[_Operand, ...]
    entry: Entry

    @property
    def computes(self) -> bool:
        """Whether it takes arithmetic, and not only a copy of bytes."""
        return len(self.operands) > 1 or any(o.info.dtype != self.action.dtype for o in self.operands)


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of elements of one output tensor, small enough for one buffer."""

    step: _Step
    start: int
    count: int
    itemsize: int  # of the output

    @property
    def nbytes(self) -> int:
        """How many bytes are written."""
        return self.count * self.itemsize


class _Worker:
    """Does one batch of spans at a time; called from many threads."""

    def __init__(self, method: Function, blender: AbstractBlender | None, writer: SafetensorsWriter) -> None:
        self.nonfinite: dict[str, int] = {}
        self._method, self._blender, self._writer = method, blender, writer
        self._lock = threading.Lock()

    def run(self, batch: list[_Span], buffers: tuple[Bytes, Bytes]) -> int:
        """Compute and write every span; return the bytes written."""
        for span in batch:
            data, bad = self._compute(span, buffers)
            self._writer.write(span.step.index, span.start * span.itemsize, data)
            if bad:
                key = span.step.action.key
                with self._lock:
                    self.nonfinite[key] = self.nonfinite.get(key, 0) + bad
        return sum(span.nbytes for span in batch)

    def _compute(self, span: _Span, buffers: tuple[Bytes, Bytes]) -> tuple[Bytes, int]:
        action, operands = span.step.action, span.step.operands
        if not operands:
            table = np.arange(span.start, span.start + span.count, dtype="<i8")
            return table.view(np.uint8), 0
        raw = [o.read(span.start, span.count, buffer) for o, buffer in zip(operands, buffers, strict=False)]
        dtypes = [o.info.dtype for o in operands]
        if not span.step.computes:
            taken = action.verb in ("take", "add")  # what A held itself is no news
            return raw[0], count_nonfinite(raw[0], dtypes[0]) if taken else 0
        assert self._blender is not None
        if len(operands) == 1:
            return self._blender.convert(raw[0], dtypes[0], dtype=action.dtype)
        assert action.alpha is not None
        return self._method(self._blender, raw[0], dtypes[0], raw[1], dtypes[1], action.alpha, action.dtype)


def _step(index: int, action: Action, a: Checkpoint, b: Checkpoint) -> _Step:
    sides = {"keep": (a,), "cast": (a,), "take": (b,), "add": (b,), "merge": (a, b), "reset": ()}[action.verb]
    operands = tuple(_Operand(side, side.infos[action.key]) for side in sides)
    if operands and operands[0].info.dtype == action.dtype:
        nbytes = operands[0].info.nbytes
    else:
        bits = 64 if action.verb == "reset" else FLOATS[action.dtype].bits
        nbytes = math.prod(action.shape) * bits // 8
    return _Step(index, action, operands, Entry(action.key, action.dtype, action.shape, nbytes))


def _spans(step: _Step, chunk: int) -> Iterator[_Span]:
    numel = math.prod(step.action.shape)
    for start in range(0, numel, chunk):
        yield _Span(step, start, min(chunk, numel - start), step.entry.nbytes // numel)


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
