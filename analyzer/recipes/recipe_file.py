"""Recipes as files: TOML in and out, and the recipe that a merged model carries in its metadata.

A recipe file is flat. Its keys are the options of `mergescope merge`, with dashes or underscores alike:

    # comments are welcome
    version = 1                        # of the format; may be left out, and so may `format`
    method = "weighted_sum"
    alpha = 0.5
    only = "U-Net,OUT03..OUT08"
    block-weights = "GRAD_V"           # a preset's name, an array of numbers, or a file of them
    base-alpha = 0
    set = ["attn2=0.3", "VAE=0"]       # the later wins; a table {attn2 = 0.3, VAE = 0} is read in its order
    dtype = "fp16"                     # or, as on the command line, ["fp16", "vae=fp32"]
    dtypes = ["vae=fp32"]
    param = {density = 0.2}
    scan = "scans/a-b.json"            # for where, top, by, axis, budget, match, alpha-from, per
    match = "cosine=0.98"
    base = "../models/c.safetensors"   # paths start at the recipe's own folder
    model = ["d.safetensors=0.3"]      # PATH=WEIGHT
    vae = "vae.safetensors"

    [alphas]                           # by key, as a scan chose them in a merge that this repeats
    "0.3" = ["first.weight", "second.weight"]

`presets`, `position-ids`, `only-in-b`, `text-encoder` and `prune-ema` are the other options; `a` and `b` may
name the inputs, for readers only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from analyzer import toml_reading
from analyzer.blocks.presets import find as find_preset
from analyzer.checkpoints import FORMATS, open_checkpoint
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError, RecipeError
from analyzer.fields import FieldError, brief, listed
from analyzer.recipes.document import FORMAT, METADATA_NAME, VERSION, check_heading, parse_document
from analyzer.recipes.options import OPTIONS, plain_values, read_text, read_values, recipe_of, write_text
from analyzer.recipes.toml_text import to_toml
from analyzer.recipes.wish import Wish

MAX_BYTES = 1 << 20  # of a recipe that somebody wrote
MAX_DOCUMENT_BYTES = 1 << 26  # of metadata, which may hold an alpha for each of 100,000 keys

_HEAD_BYTES = 4096
_NAMES = [name for name in OPTIONS if name != "weights"]
_FILES = ("base", "vae", "scan", "presets")
_INFORMATIVE = ("a", "b")


def read_recipe(path: Path) -> Wish:
    """The recipe in a TOML file, in the metadata of a merged file or folder, or in a JSON file of it.

    Which of them it is, its content tells. Raises RecipeError, with all problems of the file.
    """
    try:
        if path.is_dir():
            return _from_model(path)
        with closing(FileSource(path)) as source:
            head = source.read(0, min(source.size, _HEAD_BYTES))
            if any(known.recognises(head) for known in FORMATS):
                return _from_model(path)
            document = head.lstrip().startswith(b"{")
            limit = MAX_DOCUMENT_BYTES if document else MAX_BYTES
            if source.size > limit:
                raise RecipeError(f"{path}: has {source.size} bytes, and {limit} is the most for a recipe")
            content = source.read(0, source.size)
    except CheckpointError as error:
        raise RecipeError(f"--recipe {error}") from error
    if document:
        return parse_document(content, source=path)
    try:
        # The mark that some editors of Windows write before everything else is no TOML.
        return parse_toml(content.decode("utf-8-sig"), source=path)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is no text; name a recipe in TOML, or a model that mergescope has merged"
        ) from error


def parse_toml(text: str, *, source: Path) -> Wish:
    """The recipe in a TOML text; `source` names it in messages, and paths start at its folder."""
    try:
        table = toml_reading.parse_toml(text)
    except FieldError as error:
        raise RecipeError(f"{source}: is not valid TOML: {error}") from error
    problems = check_heading(table)
    table = {name: value for name, value in table.items() if name not in ("format", "version")}
    for name in _INFORMATIVE:
        try:
            read_text(table.pop(name, "-"))
        except FieldError as error:
            problems.append(f"{name} {brief(str(error))}")
    values, more = read_values(table, _NAMES)
    problems += more
    paths = {name: _path(values.get(name), name, source, problems) for name in _FILES}
    if isinstance(weights := values.get("block-weights"), str):
        values["block-weights"] = _weights(weights, source)
    models = values.pop("model", ())
    further = [_path(text, "model", source, problems) for text, _ in models]
    if problems:
        raise RecipeError(f"{source}: {listed(problems)}")
    recipe = recipe_of(values | ({"weights": tuple(weight for _, weight in models)} if models else {}))
    given = {OPTIONS[name].field for name in values} | ({"models"} if models else set())
    return Wish(
        recipe,
        base=paths["base"],
        models=tuple(path for path in further if path),
        vae=paths["vae"],
        scan=paths["scan"],
        presets=paths["presets"],
        given=frozenset(given),
    )


def write_recipe(wish: Wish, *, folder: Path, comments: Sequence[str] = ()) -> str:
    """The wish as TOML, to be saved in `folder`: every option that is not at its default.

    Relative paths, which start at the current folder, are rewritten to start at `folder`; absolute ones
    stay. Raises RecipeError for what no file can hold: a number that is not finite, a name that is no text,
    more than MAX_BYTES.
    """
    try:
        values = _written(wish, folder)
    except FieldError as error:
        raise RecipeError(f"the recipe cannot be written: {brief(str(error))}") from error
    text = to_toml({"format": FORMAT, "version": VERSION} | values, comments=comments)
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(
            f"the recipe cannot be written: with its alphas by key it has more than {MAX_BYTES} bytes; "
            "repeat the merge from the model that holds it, with --recipe MODEL"
        )
    return text


def _written(wish: Wish, folder: Path) -> dict[str, Any]:
    values = plain_values(wish.recipe)
    values.pop("weights", None)
    for name in _FILES:
        if (path := getattr(wish, name)) is not None:
            values[name] = _portable(path, folder)
    if wish.models:
        pairs = zip(wish.models, wish.recipe.weights, strict=True)
        values["model"] = OPTIONS["model"].write([(_portable(path, folder), w) for path, w in pairs])
    return {name: values[name] for name in OPTIONS if name in values}


def _portable(path: Path, folder: Path) -> str:
    """A path as it is to be written: with forward slashes, and from `folder` on unless it is absolute."""
    if not path.is_absolute():
        # Resolved, since ".." behind a link leads elsewhere; the name stays, even if it is a link's.
        there = os.path.realpath(path.parent)
        try:
            path = Path(os.path.relpath(there, os.path.realpath(folder))) / path.name
        except ValueError:  # on another drive of Windows
            path = Path(there) / path.name
    return write_text(path.as_posix())


def _path(text: str | None, name: str, source: Path, problems: list[str]) -> Path | None:
    if text is None:
        return None
    if "\0" in text:
        problems.append(f"{name} {brief(repr(text))} is no path")
    return source.parent / text


def _weights(text: str, source: Path) -> str:
    """The name of a preset as it is; that of a file of numbers, which starts at the recipe's folder too."""
    try:
        is_file = find_preset(text) is None and (source.parent / text).is_file()
    except (OSError, ValueError):  # too long a name, a null byte
        return text
    return str(source.parent / text) if is_file else text


def _from_model(path: Path) -> Wish:
    """The recipe in a model's metadata."""
    with open_checkpoint(path) as model:
        text = _find(model.metadata, path)
    return parse_document(text.encode(errors="replace"), source=path)


def _find(metadata: Mapping[str, str], path: Path) -> str:
    text = metadata.get(METADATA_NAME)
    if text is None:
        raise RecipeError(
            f"{path}: holds no recipe: its metadata has no entry {METADATA_NAME}, as every file has that "
            "mergescope merge writes; look at it with mergescope inspect"
        )
    return text
