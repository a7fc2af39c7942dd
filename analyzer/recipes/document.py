"""The metadata entry of a merged file, `mergescope.recipe`, as a recipe that can be repeated. Opens no file.

    {"format": "mergescope.recipe", "version": 1, "tool": "mergescope …",
     "recipe": {"method": "weighted_sum", "alpha": 0.3, …},
     "inputs": {"a": {"name", "bytes", "fingerprint"}, "b": {…}, "base": {…}, "models": [{…}], "vae": {…}}}

`recipe` holds the options as a recipe file does, with underscores in their names. The inputs may hold more,
see `analyzer.recipes.history`; base, models and vae are there where the merge had them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.blocks.presets import find as find_preset
from analyzer.checkpoints.json_file import parse_object
from analyzer.errors import CheckpointError, RecipeError
from analyzer.fields import FieldError, brief, listed
from analyzer.recipes.options import OPTIONS, plain_values, read_text, read_values, recipe_of
from analyzer.recipes.recipe import Recipe
from analyzer.recipes.wish import Recorded, RecordedModel, Wish

METADATA_NAME = "mergescope.recipe"
FORMAT = "mergescope.recipe"
VERSION = 1

_NAMES = [name for name, option in OPTIONS.items() if option.home != "path"]
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


def document(recipe: Recipe) -> dict[str, Any]:
    """The options of a recipe as plain JSON values; those at their defaults are left out.

    Raises RecipeError for what no file can hold: a number that is not finite, a name that is no text.
    """
    try:
        return {name.replace("-", "_"): value for name, value in plain_values(recipe).items()}
    except FieldError as error:
        raise RecipeError(f"the recipe cannot be written: {brief(str(error))}") from error


def parse_document(text: bytes, *, source: Path) -> Wish:
    """The merge that a metadata entry describes; `source` names it in messages.

    Raises RecipeError, with all problems, where it is not what `document` and the history write.
    """
    try:
        found = parse_object(source, text, what="the recipe in it ")
    except CheckpointError as error:
        raise RecipeError(str(error)) from error
    problems = check_heading(found)
    values: dict[str, Any] = {}
    options = found.get("recipe")
    if isinstance(options, dict):
        values, more = read_values(options, _NAMES)
        problems += more
        weights = values.get("block-weights")
        if isinstance(weights, str) and find_preset(weights) is None:
            # Numbers from a file are recorded as numbers: a stranger's file names none of the user's files.
            problems.append(f"block_weights {brief(repr(weights))} is no preset that ships")
    else:
        problems.append(f"recipe must be an object, it is {brief(repr(options))}")
    recorded = None
    try:
        recorded = _recorded(found.get("inputs"))
        if len(recorded.models) != len(values.get("weights", ())):
            problems.append("weights must be as many numbers as there are further models")
    except FieldError as error:
        problems.append(brief(str(error)))
    if problems:
        raise RecipeError(f"{source}: its recipe cannot be read: {listed(problems)}")
    if "block-weights" not in values and values.get("base-alpha") == values.get("alpha"):
        # What a merge resolved, and nobody said: another --alpha is meant for all keys.
        values.pop("base-alpha", None)
    given = frozenset(OPTIONS[name].field for name in values)
    return Wish(recipe_of(values), given=given, recorded=recorded)


def check_heading(table: Mapping[str, Any]) -> list[str]:
    """What is wrong with `format` and `version`, where they are said."""
    form, version = table.get("format", FORMAT), table.get("version", VERSION)
    if form != FORMAT:
        return [f"format must be {FORMAT!r}, it is {brief(repr(form))}"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return [f"version must be {VERSION}, it is {brief(repr(version))}"]
    if version > VERSION:
        return [f"is of version {brief(str(version))}, which is newer than this mergescope; update it"]
    return []


def read_model(value: Any, where: str) -> RecordedModel:
    """One input; FieldError says what of it is not as it must be."""
    if not isinstance(value, dict):
        raise FieldError(f"{where} must be an object, it is {value!r}")
    name, size, fingerprint = (value.get(field) for field in ("name", "bytes", "fingerprint"))
    try:
        name = read_text(name)
    except FieldError as error:
        raise FieldError(f"the name of {where} {error}") from error
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise FieldError(f"the bytes of {where} must be a number of bytes, it is {size!r}")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise FieldError(f"the fingerprint of {where} must be 'sha256:' and 64 digits, it is {fingerprint!r}")
    return RecordedModel(name, size, fingerprint)


def _recorded(inputs: Any) -> Recorded:
    if not isinstance(inputs, dict):
        raise FieldError(f"inputs must be an object, it is {inputs!r}")
    models = inputs.get("models", [])
    if not isinstance(models, list):
        raise FieldError(f"models must be a list, it is {models!r}")
    base, vae = inputs.get("base"), inputs.get("vae")
    return Recorded(
        a=read_model(inputs.get("a"), "input a"),
        b=read_model(inputs.get("b"), "input b"),
        base=None if base is None else read_model(base, "the base"),
        models=tuple(read_model(m, f"model {number}") for number, m in enumerate(models, 1)),
        vae=None if vae is None else read_model(vae, "the VAE"),
    )
