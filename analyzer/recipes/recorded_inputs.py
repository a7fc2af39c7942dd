"""Find the inputs of a merge that is repeated, and tell whether they are those that it had.

A merged file records its inputs by name, size and fingerprint, and no folder. So a file that was only found
by its name must be the one that is meant, while what the user names himself may be another: a recipe may be
applied to other models.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import CheckpointError, RecipeError
from analyzer.fields import brief, listed
from analyzer.recipes.wish import RecordedModel, Wish

_SEPARATORS = ("/", "\\", "\0")


def find_inputs(wish: Wish, folders: Iterable[Path]) -> Wish:
    """The wish with its base, further models and VAE, where the recorded merge had them and none are named.

    They are looked for under their recorded names in `folders`, in that order: give those of the merged file,
    of A and of B. Raises RecipeError, for all that are missing at once, where there is none of such a name,
    or only with other contents.
    """
    recorded = wish.recorded
    if recorded is None:
        return wish
    places = list(dict.fromkeys(folders))
    problems: list[str] = []
    base, vae, models = wish.base, wish.vae, wish.models
    if recorded.base is not None and base is None:
        base = _find(recorded.base, "--base", places, problems)
    if recorded.vae is not None and vae is None:
        vae = _find(recorded.vae, "--vae", places, problems)
    if recorded.models and not models:
        weights = wish.recipe.weights
        found = [
            _find(model, "--model", places, problems, weight=weight)
            for model, weight in zip(recorded.models, weights, strict=True)
        ]
        models = tuple(path for path in found if path is not None)
    if problems:
        raise RecipeError(listed(problems))
    return replace(wish, base=base, vae=vae, models=models)


def input_warnings(
    wish: Wish,
    *,
    a: Checkpoint,
    b: Checkpoint,
    base: Checkpoint | None = None,
    models: Sequence[Checkpoint] = (),
    vae: Checkpoint | None = None,
) -> tuple[str, ...]:
    """A sentence for each input that is another than that of the recorded merge."""
    recorded = wish.recorded
    if recorded is None:
        return ()
    if not _is(a, recorded.a) and _is(a, recorded.b) and _is(b, recorded.a):
        found = ["A and B stand the other way round than in the merge that the recipe is of"]
        pairs: list[tuple[str, Checkpoint, RecordedModel]] = []
    else:
        found, pairs = [], [("A", a, recorded.a), ("B", b, recorded.b)]
    pairs += [("--base", base, recorded.base)] if base and recorded.base else []
    pairs += [("--vae", vae, recorded.vae)] if vae and recorded.vae else []
    pairs += [("--model", *pair) for pair in zip(models, recorded.models, strict=False)]
    found += [
        f"{which} {model.path} is not the model that the recipe was made with, {brief(was.name)}"
        for which, model, was in pairs
        if not _is(model, was)
    ]
    return tuple(found)


def _is(model: Checkpoint, recorded: RecordedModel) -> bool:
    return model.bytes == recorded.bytes and model.fingerprint() == recorded.fingerprint


def _find(
    model: RecordedModel,
    option: str,
    places: Sequence[Path],
    problems: list[str],
    *,
    weight: float | None = None,
) -> Path | None:
    """The file or folder of this name whose fingerprint is the recorded one."""
    name, others = model.name, []
    # A name from a stranger's file must lead nowhere else.
    plain = name not in ("", ".", "..") and not any(sign in name for sign in _SEPARATORS) and ":" not in name
    for folder in places if plain else ():
        path = folder / name
        if not os.path.lexists(path) and "@" not in name:  # FOLDER@VARIANT is no file's name
            continue
        with suppress(CheckpointError), open_checkpoint(path) as found:
            if _is(found, model):
                return path
            others.append(str(path))
    way_out = f"name it with {option} PATH" + ("" if weight is None else f"={weight:g}, and all others")
    if others:
        problems.append(
            f"the recipe needs {brief(repr(name))} as {option}, and {brief(', '.join(others))} has other "
            f"contents; {way_out}"
        )
    else:
        where = ", ".join(str(place) for place in places) if plain else "any folder"
        problems.append(
            f"the recipe needs {brief(repr(name))} as {option}, which is not in {brief(where)}; {way_out}"
        )
    return None
