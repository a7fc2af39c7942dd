"""Carry out a plan: stream A and B into a new file, or a folder like A's, in constant memory.

Decides nothing about values; what the output consists of follows from A and from the output's name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from analyzer import __version__
from analyzer.blending import AbstractBlender, Bytes, open_blender
from analyzer.categories import RuleBook, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.errors import OutputError, RecipeError
from analyzer.folder_writer import Folder, WeightFile, check_folder, create_folder
from analyzer.kernels.backends import CPU_CHUNK
from analyzer.kernels.formats import FLOATS, count_nonfinite
from analyzer.methods import METHODS, Function
from analyzer.model_folder import Companions, OutputFile, companions, configs, distribute, indexes
from analyzer.pairing import pair
from analyzer.recipe import Recipe, obsolete_scales, resolve, still_true
from analyzer.records import Action, Pair, Plan, Run, TensorInfo
from analyzer.scan import categorize_both, side_of
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.writer import Entry, SafetensorsWriter, check_target, create_safetensors

_BATCH_BYTES = 1 << 20
_TORCH_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote."""

    path: Path  # a file or a folder
    bytes: int  # of the files of weights
    nonfinite: Mapping[str, int]  # key -> how many values computed or taken from B are NaN or Inf
    clipped: Mapping[str, int]  # key -> how many values were too large for A's fp8 scale
    left_out: tuple[str, ...] = ()  # files of A's folder that were not copied, by name


def plan_merge(a: Checkpoint, b: Checkpoint, recipe: Recipe, *, book: RuleBook | None = None) -> Plan:
    """What a recipe comes to on these two models, before anything is read or written.

    `book` are the architectures (default: those that ship). Raises PairingError if they share no
    key, RecipeError or SelectorError if the recipe does not fit them.
    """
    if a.format == "gguf" or any(shard.format == "gguf" for shard in a.shards):
        raise RecipeError(
            f"{a.path}: GGUF is read and not written, and a merge is written as A is; name the model's "
            "safetensors file or folder as A"
        )
    categorized, labels_b = categorize_both(a, b, book=book or shipped())
    plan = resolve(
        recipe,
        a=a.infos,
        b=b.infos,
        pairing=pair(side_of(a, categorized), side_of(b, labels_b)),
        categorized=categorized,
        labels_b=labels_b.labels,
        metadata=a.metadata,
    )
    if a.format == "diffusers":
        distribute(a, [action.key for action in plan.actions])  # refuses what has no place there
    return replace(plan, warnings=(*a.notes, *b.notes, *plan.warnings))


def check_output(out: Path, a: Checkpoint, b: Checkpoint, *, force: bool) -> None:
    """Refuse, before any work, an output that must not or cannot be written; raises OutputError.

    A model that was opened as a folder is written as one, unless `out` ends in .safetensors.
    """
    files = [*a.files, *b.files]
    if _writes_folder(a, out):
        check_folder(out, files=files, folders=[m.folder for m in (a, b) if m.folder], force=force)
        return
    if a.format == "diffusers":
        raise OutputError(
            f"{out}: a single file cannot hold the sub-models of {a.path} under names that others know; name "
            f"a folder, such as {out.stem or 'merged'}"
        )
    check_target(out, inputs=files, force=force)


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
    `out` is or holds an input, exists without `force`, or cannot be written; CheckpointError if an
    input ends early.
    """
    check_output(out, a, b, force=force)
    folder = _writes_folder(a, out)
    keys = [action.key for action in plan.actions]
    files = distribute(a, keys) if folder else [OutputFile(out.name, tuple(keys), plan.metadata)]
    steps = _steps(files, a, b, plan)
    # Before the output is opened: a merge that only copies needs no arithmetic, nor its start-up.
    blender = open_blender(device) if any(step.computes for step in steps) else None
    chunk = blender.chunk if blender else CPU_CHUNK
    spans = (span for step in steps for span in _spans(step, chunk))
    plain = bool(obsolete_scales(recipe, a.infos))
    weights = _weights(files, steps, _recipe_text(plan, a, b), plain=plain)
    beside = companions(a) if folder else Companions({}, ())
    if folder:
        texts = _texts(a, files, steps, recipe, plain=plain)
        copies = {name: path for name, path in beside.copies.items() if name not in texts}
        output = create_folder(out, Folder(weights, texts, copies), force=force)
    else:
        output = _one_file(out, weights[0])
    with output as writers:
        worker = _Worker(a, b, METHODS[recipe.method].function, blender, writers)
        run_batches(
            in_batches(spans, size=lambda span: span.nbytes, limit=_BATCH_BYTES),
            worker.run,
            state=lambda: (np.empty(chunk * 8, np.uint8), np.empty(chunk * 8, np.uint8)),
            threads=threads or (blender.threads if blender else None),
            total=sum(step.entry.nbytes for step in steps),
            progress=progress,
        )
    return MergeResult(
        out,
        sum((out / file.name if folder else out).stat().st_size for file in files),
        dict(sorted(worker.nonfinite.items())),
        dict(sorted(worker.clipped.items())),
        beside.left_out,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """How one tensor of the output comes about."""

    file: int  # which of the output's files it goes to
    index: int  # its place in that file
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
        writers: Sequence[SafetensorsWriter],
    ) -> None:
        self.nonfinite: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self._a, self._b = a, b
        self._method, self._blender, self._writers = method, blender, writers
        self._lock = threading.Lock()

    def run(self, batch: list[_Span], buffers: tuple[Bytes, Bytes]) -> int:
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
        dtype = "F64" if step.encoder else action.dtype
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


def _writes_folder(a: Checkpoint, out: Path) -> bool:
    return a.folder is not None and out.suffix.lower() != ".safetensors"


def _steps(files: Sequence[OutputFile], a: Checkpoint, b: Checkpoint, plan: Plan) -> list[_Step]:
    actions = {action.key: action for action in plan.actions}
    return [
        _step(actions[key], (place, index), file.inner(key), a, b, plan)
        for place, file in enumerate(files)
        for index, key in enumerate(file.keys)
    ]


def _step(
    action: Action, place: tuple[int, int], name: str, a: Checkpoint, b: Checkpoint, plan: Plan
) -> _Step:
    if action.verb == "reset":
        return _Step(*place, action, Entry(name, action.dtype, action.shape, prod(action.shape) * 8))
    source = b if action.verb == "add" else a
    info = source.infos[action.key]
    stored = info.encoded or info
    as_stored = action.dtype == stored.dtype
    if as_stored:
        entry = Entry(name, action.dtype, stored.shape, stored.nbytes)
    else:
        nbytes = prod(action.shape) * FLOATS[action.dtype].bits // 8
        entry = Entry(name, action.dtype, action.shape, nbytes)
    if action.verb in ("keep", "add", "cast"):
        return _Step(*place, action, entry, copied=(source, stored if as_stored else info))
    encoder = None
    if info.encoded and as_stored:
        found = a.sources[info.source]
        assert isinstance(found, AbstractEncodedSource)
        encoder = found
    return _Step(*place, action, entry, pair=plan.pairs[action.key], encoder=encoder)


def _spans(step: _Step, chunk: int) -> Iterator[_Span]:
    for run in step.pair.parts if step.pair else (None,):
        numel = run.a.numel if run else prod(step.entry.shape)
        for start in range(0, numel, chunk):
            yield _Span(step, run, start, min(chunk, numel - start))


@contextmanager
def _one_file(out: Path, file: WeightFile) -> Iterator[list[SafetensorsWriter]]:
    with create_safetensors(out, file.entries, file.metadata) as writer:
        yield [writer]


def _weights(
    files: Sequence[OutputFile], steps: Sequence[_Step], recipe: str, *, plain: bool
) -> list[WeightFile]:
    """The files as the writer wants them; each says what A's file says, and the recipe."""
    entries: list[list[Entry]] = [[] for _ in files]
    for step in steps:
        entries[step.file].append(step.entry)
    # Loaders of the transformers family refuse a file that does not say which framework wrote it.
    return [
        WeightFile(
            file.name,
            own,
            {"format": "pt"} | still_true(file.metadata, plain=plain) | {"mergescope.recipe": recipe},
        )
        for file, own in zip(files, entries, strict=True)
    ]


def _texts(
    a: Checkpoint, files: Sequence[OutputFile], steps: Sequence[_Step], recipe: Recipe, *, plain: bool
) -> dict[str, bytes]:
    """The small files that are written anew."""
    sizes = {step.action.key: step.entry.nbytes for step in steps}
    dtype = _TORCH_DTYPES.get(recipe.dtype)
    return indexes(a, files, sizes) | configs(a, files, dtype=dtype, plain=plain)


def _recipe_text(plan: Plan, a: Checkpoint, b: Checkpoint) -> str:
    """The recipe as JSON. No time and no folder: the same merge gives the same bytes."""
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
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
