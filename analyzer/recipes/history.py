"""The history that a merged file carries: its recipe, and those of its inputs, nested.

Metadata entry `mergescope.recipe`, as `analyzer.recipes.document` has it, and more in each of the inputs:

    "recipe": {…}            the input's own entry, if it was merged by this tool: a whole document
    "foreign": {name: text}  recipes that other tools left in it
    "history": "above"       it is told of an input with this fingerprint in a younger merge, or before
    "history": "left out"    there was more, and it took too much room
    "weight": 0.3            of a further model

What strangers' files say of themselves is checked before it is taken over: what is no sound recipe is dropped
with a warning, and breaks no merge. No time and no folder: the same merge gives the same text.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer import __version__
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.json_file import parse_object
from analyzer.errors import CheckpointError
from analyzer.fields import FieldError, brief
from analyzer.recipes.document import FORMAT, METADATA_NAME, VERSION, check_heading, read_model
from analyzer.recipes.wish import RecordedModel

MAX_BYTES = 1 << 18  # of the JSON text of all ancestors together
MAX_GENERATIONS = 64
MAX_TEXT = 1 << 23  # characters of an entry that is read at all; 100,000 keys with their alphas take as much
MAX_FOREIGN = 1 << 15  # of a recipe of another tool
MAX_NESTING = 8  # of the values of a recipe

_LARGEST = 1 << 63  # more than any number of bytes

# Where other tools leave their recipes: the Stable Diffusion web UI's checkpoint merger (modules/extras.py),
# sd-mecha (streaming.py) and ComfyUI, whose graph of nodes is the recipe (save_checkpoint in comfy_extras/
# nodes_model_merging.py), all in the metadata; mergekit in a file of the merged folder (merge.py).
FOREIGN: Mapping[str, str] = {
    "sd_merge_recipe": "the Stable Diffusion web UI",
    "sd_merge_models": "the Stable Diffusion web UI",
    "mecha_recipe": "sd-mecha",
    "prompt": "ComfyUI",
    "workflow": "ComfyUI",
    "mergekit_config.yml": "mergekit",
}
_MERGEKIT = "mergekit_config.yml"
_SIDES = ("a", "b", "base", "models", "vae")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parent:
    """One input of a merge: what identifies it, and what it says of its own making."""

    model: RecordedModel
    own: str | None = None  # its entry of this tool, unchecked
    foreign: Mapping[str, str] = field(default_factory=dict)  # name in FOREIGN -> text


@dataclass(frozen=True, slots=True)
class Parents:
    """All inputs of a merge."""

    a: Parent
    b: Parent
    base: Parent | None = None
    models: tuple[tuple[Parent, float], ...] = ()  # with their weights
    vae: Parent | None = None


def parent_of(checkpoint: Checkpoint) -> Parent:
    """What an open model says of itself. Its fingerprint takes reading some megabytes."""
    name = checkpoint.path.name
    if name in ("", ".."):
        name = Path(os.path.realpath(checkpoint.path)).name
    name = name.encode(errors="replace").decode() or "model"
    model = RecordedModel(name, checkpoint.bytes, checkpoint.fingerprint())
    return Parent(model, checkpoint.metadata.get(METADATA_NAME), foreign_of(checkpoint))


def foreign_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The recipes that other tools left in an open model, by names of FOREIGN; their texts are unchecked."""
    found = {name: checkpoint.metadata[name] for name in FOREIGN if name in checkpoint.metadata}
    if checkpoint.folder is not None and (text := _small_file(checkpoint.folder / _MERGEKIT)):
        found[_MERGEKIT] = text
    return found


def recipe_text(recipe: Mapping[str, Any], parents: Parents) -> tuple[str, tuple[str, ...]]:
    """(the metadata entry of a merge, a sentence for each thing of its inputs' histories that is dropped).

    `recipe` is what `recipe_document.document` gives. It is kept whole; all ancestors together take at most
    MAX_BYTES, and where they would take more, the oldest are cut down to name, size and fingerprint: first
    the lists of alphas by key, then everything.
    """
    warnings: list[str] = []
    inputs: Document = {"a": _input(parents.a, warnings), "b": _input(parents.b, warnings)}
    if parents.base is not None:
        inputs["base"] = _input(parents.base, warnings)
    if parents.models:
        inputs["models"] = [_input(p, warnings) | {"weight": weight} for p, weight in parents.models]
    if parents.vae is not None:
        inputs["vae"] = _input(parents.vae, warnings)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "tool": f"mergescope {__version__}",
        "recipe": dict(recipe),
        "inputs": inputs,
    }
    _tell_once(document)
    if _cut(document):
        warnings.append("the recipes of the inputs take too much room: those of the oldest are left out")
    return _dump(document), tuple(warnings)


def read_history(text: str) -> Document | None:
    """A metadata entry as a document that is sound all the way down; None if it is none."""
    try:
        return _document(text)
    except FieldError:
        return None


def inputs_of(document: Document) -> Iterator[tuple[str, Document]]:
    """(what it was, the input) of every input of a document, in the order of the merge."""
    for side in _SIDES:
        found = document["inputs"].get(side)
        for item in found if isinstance(found, list) else [found] if found else []:
            yield side, item


def _small_file(path: Path) -> str | None:
    """The text of a file beside the weights, if there is one of a size that is kept."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FOREIGN:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # ValueError: not UTF-8
        return None


def _input(parent: Parent, warnings: list[str]) -> Document:
    """An input as it stands in the document, with its own history where that is sound."""
    name = brief(parent.model.name)
    entry = _identity(parent.model)
    if parent.own is not None:
        try:
            entry["recipe"] = _document(parent.own)
        except FieldError as error:
            warnings.append(f"{name}: its recipe is left out of the history: {brief(str(error))}")
    kept = _foreign(parent.foreign)
    warnings += [
        f"{name}: its entry {other} is left out of the history: it is too long or no text"
        for other in sorted(parent.foreign.keys() - kept.keys())
    ]
    return entry | ({"foreign": kept} if kept else {})


def _identity(model: RecordedModel) -> Document:
    return {"name": model.name, "bytes": model.bytes, "fingerprint": model.fingerprint}


def _foreign(texts: Any) -> dict[str, str]:
    """The recipes of other tools that are texts of a size that is kept."""
    if not isinstance(texts, Mapping):
        return {}
    return {name: texts[name] for name in FOREIGN if name in texts and _is_short(texts[name])}


def _is_short(text: Any) -> bool:
    return isinstance(text, str) and _is_unicode(text) and len(text.encode()) <= MAX_FOREIGN


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _document(text: str) -> Document:
    """The entry, rebuilt from what is known of its fields; FieldError if it is no recipe of this tool."""
    if len(text) > MAX_TEXT:
        raise FieldError(f"it has {len(text)} characters, more than {MAX_TEXT}")
    try:
        return _rebuilt(parse_object(Path(METADATA_NAME), text.encode(errors="replace")), 0)
    except CheckpointError as error:
        raise FieldError("it is not the JSON of a recipe") from error


def _rebuilt(found: Any, generation: int) -> Document:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FieldError(f"it does not say that it is a {FORMAT}")
    if problems := check_heading(found):
        raise FieldError(f"its {problems[0]}")
    recipe, tool, inputs = found.get("recipe"), found.get("tool", ""), found.get("inputs")
    if not isinstance(recipe, dict) or not isinstance(inputs, dict) or not isinstance(tool, str):
        raise FieldError("its recipe, inputs or tool are not what they must be")
    _check_plain({"recipe": recipe, "tool": tool}, MAX_NESTING)
    rebuilt: Document = {}
    for side in _SIDES:
        value = inputs.get(side)
        if side == "models" and value is not None:
            if not isinstance(value, list):
                raise FieldError("its models are no list")
            rebuilt[side] = [_rebuilt_input(item, side, generation) for item in value]
        elif value is not None or side in ("a", "b"):
            rebuilt[side] = _rebuilt_input(value, side, generation)
    heading = {"format": FORMAT, "version": VERSION, "tool": tool}
    return heading | {"recipe": recipe, "inputs": rebuilt}


def _rebuilt_input(found: Any, side: str, generation: int) -> Document:
    entry = _identity(read_model(found, f"input {side}"))
    _check_plain(entry, 1)
    weight = found.get("weight")
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        _check_plain(weight, 0)
        entry["weight"] = weight
    if (recipe := found.get("recipe")) is not None:
        if generation < MAX_GENERATIONS:
            entry["recipe"] = _rebuilt(recipe, generation + 1)
        else:
            entry["history"] = "left out"
    elif found.get("history") in ("above", "left out"):
        entry["history"] = found["history"]
    if kept := _foreign(found.get("foreign")):
        entry["foreign"] = kept
    return entry


def _check_plain(value: Any, depth: int) -> None:
    """FieldError for what no header can hold, or nobody can read: lone surrogates, and deep nesting."""
    if isinstance(value, str) and not _is_unicode(value):
        raise FieldError("it holds a text that is not Unicode")
    if isinstance(value, dict | list):
        if depth == 0:
            raise FieldError("its values are nested too deeply")
        for name in value if isinstance(value, dict) else ():
            _check_plain(name, depth)
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, depth - 1)
    # JSON has no number beyond fp64, but its text may: 1e999 is read as Inf, and written as no JSON; an
    # integer of 400 digits is read as it is, and nothing can be computed with it.
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError("it holds a number that is not finite")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise FieldError("it holds a number that is too large")


@dataclass(frozen=True, slots=True)
class _Ancestor:
    """An input somewhere in the tree."""

    depth: int  # 1 for those of the merge itself
    entry: Document

    @property
    def size(self) -> int:
        """What it says of itself, without its own ancestors, in bytes."""
        own = self.entry["recipe"]["recipe"] if "recipe" in self.entry else {}
        return _size(own) + _size(self.entry.get("foreign", {}))


def _ancestors(document: Document) -> list[_Ancestor]:
    """All inputs, generation by generation, in each in the order of the merges."""
    found: list[_Ancestor] = []
    layer, depth = [document], 1
    while layer:
        entries = [entry for each in layer for _, entry in inputs_of(each)]
        found += [_Ancestor(depth, entry) for entry in entries]
        layer, depth = [entry["recipe"] for entry in entries if "recipe" in entry], depth + 1
    return found


def _tell_once(document: Document) -> None:
    """Replace what was told of a model before, so that lines that meet again and again stay linear."""
    layer, told = [document], set()
    while layer:
        following = []
        for _, entry in (pair for each in layer for pair in inputs_of(each)):
            if "recipe" not in entry:
                continue
            if entry["fingerprint"] in told:
                del entry["recipe"]
                entry["history"] = "above"
            else:
                told.add(entry["fingerprint"])
                following.append(entry["recipe"])
        layer = following


def _cut(document: Document) -> bool:
    """Take away from the oldest ancestors, and of one age from the largest, until the rest has room.

    A name, a size and a fingerprint are left of each whose child is not cut itself.
    """
    excess = _size(document["inputs"]) - MAX_BYTES
    if excess <= 0:
        return False
    ordered = sorted(_ancestors(document), key=lambda each: (-each.depth, -each.size))
    for entry in (each.entry for each in ordered):
        options = entry["recipe"]["recipe"] if "recipe" in entry else {}
        if excess > 0 and isinstance(options.get("alphas"), dict):
            excess -= _size(options["alphas"])
            options["alphas"] = "left out"
    for entry in (each.entry for each in ordered):
        if excess > 0 and ("recipe" in entry or "foreign" in entry):
            excess += len('"history":"left out"')
            for name in entry.keys() & {"recipe", "foreign"}:
                excess -= _size(entry.pop(name))
            entry["history"] = "left out"
    return True


def _size(value: Any) -> int:
    return len(_dump(value).encode())


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
