"""Carry out a plan: stream the models into a new file, or a folder like A's, in constant memory.

Decides nothing about values; what the output consists of follows from A and from the output's name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analyzer.blending import AbstractBlender, open_blender
from analyzer.categories import RuleBook, categorize, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.compatibility.disagreements import baking_warnings, warnings_between
from analyzer.errors import OutputError, RecipeError
from analyzer.kernels.formats import FLOATS
from analyzer.merging.carrying_out import blender_threads, carry_out
from analyzer.merging.inputs import Inputs
from analyzer.merging.steps import Step, steps_of
from analyzer.merging.surveying import survey_for, survey_steps
from analyzer.merging.worker import Worker
from analyzer.methods import METHODS
from analyzer.model_folder import Companions, OutputFile, companions, configs, distribute, indexes
from analyzer.pairing import pair
from analyzer.planning.metadata import still_true
from analyzer.planning.resolving import resolve
from analyzer.recipes.document import METADATA_NAME
from analyzer.recipes.history import Parents, parent_of, recipe_text
from analyzer.recipes.recipe import Recipe
from analyzer.records import Categorized, Pair, Partners, Plan, Scan
from analyzer.scan import categorize_both, side_of
from analyzer.streaming import Progress
from analyzer.writing.folder_writer import Folder, WeightFile, check_folder, create_folder
from analyzer.writing.writer import Entry, SafetensorsWriter, check_target, create_safetensors

_TORCH_DTYPES = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a finished merge wrote."""

    path: Path  # a file or a folder
    bytes: int  # of the files of weights
    nonfinite: Mapping[str, int]  # key -> how many values computed or taken from B are NaN or Inf
    clipped: Mapping[str, int]  # key -> how many values were too large for fp8
    left_out: tuple[str, ...] = ()  # files of A's folder that were not copied, by name
    warnings: tuple[str, ...] = ()  # a sentence each, on what the file's history leaves out


def plan_merge(
    inputs: Inputs,
    recipe: Recipe,
    *,
    scan: Scan | None = None,
    book: RuleBook | None = None,
) -> Plan:
    """What a recipe comes to on these models, before anything is read or written.

    `scan` is one of A and B, for what the recipe asks of it; `book` are the architectures (default:
    those that ship). Raises PairingError if two models share no key, RecipeError or SelectorError if the
    recipe does not fit.
    """
    a, b = inputs.a, inputs.b
    if a.format == "gguf" or any(shard.format == "gguf" for shard in a.shards):
        raise RecipeError(
            f"{a.path}: GGUF is read and not written, and a merge is written as A is; name the model's "
            "safetensors file or folder as A"
        )
    labels = _labels(inputs, book or shipped())
    plan = resolve(
        recipe,
        a=a.infos,
        b=b.infos,
        pairing=pair(side_of(a, labels["a"]), side_of(b, labels["b"])),
        categorized=labels["a"],
        labels_b=labels["b"].labels,
        metadata=a.metadata,
        partners=_partners(inputs, labels),
        scan=scan,
    )
    if a.format == "diffusers":
        distribute(a, [action.key for action in plan.actions])  # refuses what has no place there
    notes = dict.fromkeys(note for _, checkpoint in inputs.named() for note in checkpoint.notes)
    return replace(plan, warnings=(*notes, *plan.warnings, *_disagreements(inputs, plan, labels)))


def _labels(inputs: Inputs, book: RuleBook) -> dict[str, Categorized]:
    """The labels of every model, by what it is here."""
    found_a, found_b = categorize_both(inputs.a, inputs.b, book=book)
    others = (each for each in inputs.named() if each[0] not in ("a", "b"))
    return {"a": found_a, "b": found_b} | {
        role: categorize(checkpoint.infos.values(), book=book) for role, checkpoint in others
    }


def _disagreements(inputs: Inputs, plan: Plan, labels: Mapping[str, Categorized]) -> tuple[str, ...]:
    """What the models say of themselves that does not go together, as far as the merge mixes them."""
    mixed = {x.key for x in plan.actions if x.verb in ("merge", "take")}
    touched = {labels["a"].labels[key].part for key in mixed}
    added = [x.key for x in plan.actions if x.verb == "add"]
    found: list[str] = []
    for role, model in inputs.named():
        if role == "vae":
            found += baking_warnings(inputs.a, model, found_a=labels["a"], found_vae=labels[role])
        elif role not in ("a", "base"):  # of the base only differences enter
            found += warnings_between(
                inputs.a,
                model,
                found_a=labels["a"],
                found_b=labels[role],
                touched=touched,
                added=added if role == "b" else (),
                name="B" if role == "b" else model.path.name,
            )
    return tuple(dict.fromkeys(found))


def _partners(inputs: Inputs, labels: Mapping[str, Categorized]) -> Partners:
    """The tensors of the further models that stand for A's."""
    found = {}
    for role, checkpoint in inputs.named():
        if role not in ("a", "b"):
            pairing = pair(side_of(inputs.a, labels["a"]), side_of(checkpoint, labels[role]))
            found[role] = {p.a.key: p for p in pairing.pairs if not p.partial}
    vae = None
    if inputs.vae is not None:
        parts = labels["a"].labels
        vae = {key: p for key, p in _numeric(found["vae"]).items() if parts[key].part == "vae"}
        if not vae:
            raise RecipeError(
                f"--vae {inputs.vae.path}: has nothing that could replace a VAE of {inputs.a.path}; name a "
                "file with a VAE like A's"
            )
    models = tuple(_numeric(pairs) for role, pairs in found.items() if role not in ("base", "vae"))
    return Partners(found.get("base"), models, vae)


def _numeric(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """Those pairs that hold floating-point numbers on both sides."""
    return {
        key: p
        for key, p in pairs.items()
        if p.a.dtype in FLOATS and all(run.b.dtype in FLOATS for run in p.parts)
    }


def check_output(out: Path, inputs: Inputs, *, force: bool) -> None:
    """Refuse, before any work, an output that must not or cannot be written; raises OutputError.

    A model that was opened as a folder is written as one, unless `out` ends in .safetensors.
    """
    a = inputs.a
    if _writes_folder(a, out):
        check_folder(out, files=inputs.files, folders=inputs.folders, force=force)
        return
    if a.format == "diffusers":
        raise OutputError(
            f"{out}: a single file cannot hold the sub-models of {a.path} under names that others know; name "
            f"a folder, such as {out.stem or 'merged'}"
        )
    check_target(out, inputs=inputs.files, folders=inputs.folders, force=force)


def merge(
    inputs: Inputs,
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
    a = inputs.a
    check_output(out, inputs, force=force)
    folder = _writes_folder(a, out)
    keys = [action.key for action in plan.actions]
    files = distribute(a, keys) if folder else [OutputFile(out.name, tuple(keys), plan.metadata)]
    steps = steps_of(files, inputs, plan, recipe)
    texts = _texts(a, files, steps, recipe, plan.plain) if folder else {}
    # Before the output is opened: a merge that only copies needs no arithmetic, nor its start-up.
    blender = open_blender(device) if not all(step.copies for step in steps) else None
    run = _Run(steps, blender, blender_threads(blender, threads), progress)
    known = run.survey(recipe)
    text, warnings = recipe_text(plan.recipe, _parents(inputs, recipe))
    weights = _weights(files, steps, text, plain=plan.plain)
    beside = companions(a, plain=bool(plan.plain)) if folder else Companions({}, ())
    output: AbstractContextManager[Sequence[SafetensorsWriter]]
    if folder:
        copies = {name: path for name, path in beside.copies.items() if name not in texts}
        output = create_folder(out, Folder(weights, texts, copies), force=force)
    else:
        output = _one_file(out, weights[0], force=force)
    with output as writers:
        worker = Worker(METHODS[recipe.method], known, blender, writers)
        run.write(worker)
    return MergeResult(
        out,
        sum((out / file.name if folder else out).stat().st_size for file in files),
        dict(sorted(worker.nonfinite.items())),
        dict(sorted(worker.clipped.items())),
        beside.left_out,
        warnings,
    )


class _Run:
    """One pass over the models to write them, and before it those that the method needs."""

    def __init__(
        self, steps: Sequence[Step], blender: AbstractBlender | None, threads: int | None, progress: Progress
    ) -> None:
        self._steps, self._blender, self._threads, self._progress = steps, blender, threads, progress
        self._total = sum(step.entry.nbytes for step in steps)
        self._before = 0  # bytes' worth of the passes before

    def survey(self, recipe: Recipe) -> Mapping[str, Any]:
        """What the method must know of whole tensors, by key."""
        survey, merged = survey_for(recipe, self._steps)
        if survey is None or not merged:
            return {}
        assert self._blender is not None
        extra = survey.turns * sum(step.entry.nbytes for step in merged)
        self._total += extra

        def more(nbytes: int) -> None:
            self._before += nbytes
            self._progress(self._before, self._total)

        return survey_steps(survey, merged, self._blender, threads=self._threads, progress=more)

    def write(self, worker: Worker) -> None:
        """Compute and write everything."""
        carry_out(
            self._steps,
            worker,
            self._blender,
            threads=self._threads,
            progress=lambda done, _total: self._progress(self._before + done, self._total),
        )


def _writes_folder(a: Checkpoint, out: Path) -> bool:
    return a.folder is not None and out.suffix.lower() != ".safetensors"


@contextmanager
def _one_file(out: Path, file: WeightFile, *, force: bool) -> Iterator[list[SafetensorsWriter]]:
    with create_safetensors(out, file.entries, file.metadata, force=force) as writer:
        yield [writer]


def _weights(
    files: Sequence[OutputFile], steps: Sequence[Step], recipe: str, *, plain: Collection[str]
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
            {"format": "pt"}
            | still_true(file.metadata, plain=[file.inner(key) for key in plain])
            | {METADATA_NAME: recipe},
        )
        for file, own in zip(files, entries, strict=True)
    ]


def _parents(inputs: Inputs, recipe: Recipe) -> Parents:
    """What the models say of themselves, for the history."""
    base, vae = (None if c is None else parent_of(c) for c in (inputs.base, inputs.vae))
    models = tuple(zip(map(parent_of, inputs.models), recipe.weights, strict=True))
    return Parents(parent_of(inputs.a), parent_of(inputs.b), base, models, vae)


def _texts(
    a: Checkpoint, files: Sequence[OutputFile], steps: Sequence[Step], recipe: Recipe, plain: frozenset[str]
) -> dict[str, bytes]:
    """The small files that are written anew."""
    sizes = {step.action.key: step.entry.nbytes for step in steps}
    dtype = _TORCH_DTYPES.get(recipe.dtype)
    return indexes(a, files, sizes) | configs(a, files, dtype=dtype, plain=plain)
