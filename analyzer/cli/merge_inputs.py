"""From the options of a merge to what the library takes: a wish, the open models, a scan of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import RecipeError

if TYPE_CHECKING:
    from analyzer.merging.inputs import Inputs
    from analyzer.recipes.wish import Wish
    from analyzer.records import Scan

# What an option is of no use without. `--axis` and `--by` rank for `--top`.
_BELONGS_TO = {
    "by": ("top",),
    "axis": ("top",),
    "per": ("budget", "match", "alpha_from"),
}


def wish_of(recipe: Path | None, said: Mapping[str, Any]) -> Wish:
    """What is asked for: the recipe's options, and those of the command line over them."""
    from analyzer.recipes.recipe import Recipe
    from analyzer.recipes.recipe_file import read_recipe
    from analyzer.recipes.wish import Wish, override

    given = {name: value for name, value in said.items() if value is not None}
    everywhere, parts = given.pop("dtypes", (None, ()))
    given |= {"dtype": everywhere, "dtypes": parts}
    given["models"] = tuple((Path(path), weight) for path, weight in given.get("models", ()))
    wish = override(read_recipe(recipe) if recipe else Wish(Recipe()), given)
    _check_together(wish)
    return _with_weights(wish)


def _check_together(wish: Wish) -> None:
    """Refuse options that only speak of others which are not there."""
    for option, owners in _BELONGS_TO.items():
        guide = wish.recipe.guide
        if option in wish.given and all(getattr(guide, owner) is None for owner in owners):
            raise RecipeError(f"--{option} says nothing without {' or '.join(map(_spelled, owners))}: add it")
    if "presets" in wish.given and wish.recipe.block_weights is None:
        raise RecipeError("--presets says nothing without --block-weights: name one of them there")
    if wish.scan is None and not wish.recipe.alphas and (needed := wish.recipe.guide.asked):
        recorded = " (the alphas that the recipe records do not hold with other options)"
        raise RecipeError(
            f"{_spelled(needed[0])} needs a scan of the two models{recorded if wish.recorded else ''}: make "
            "one with mergescope scan A B -o scan.json, and name it with --scan scan.json"
        )


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _with_weights(wish: Wish) -> Wish:
    """The wish with block weights as a preset that ships or as numbers, whatever they were named by."""
    from analyzer.blocks.preset_files import read_presets
    from analyzer.blocks.weights import parse

    weights = wish.recipe.block_weights
    if not isinstance(weights, str):
        return wish
    user = {} if wish.presets is None else read_presets(wish.presets)
    return replace(wish, recipe=replace(wish.recipe, block_weights=parse(weights, user=user)))


@contextmanager
def opened(a: Path, b: Path, wish: Wish, recipe: Path | None) -> Iterator[tuple[Inputs, Wish]]:
    """All models of a merge, and the wish with those that its recipe only names; closed at the end."""
    from analyzer.checkpoints import open_checkpoint
    from analyzer.merging.inputs import Inputs
    from analyzer.recipes.recorded_inputs import find_inputs

    folders = [Path(os.path.realpath(path)).parent for path in (recipe, a, b) if path is not None]
    wish = find_inputs(wish, folders)
    with ExitStack() as stack:

        def enter(path: Path | None) -> Any:
            return None if path is None else stack.enter_context(open_checkpoint(path))

        models = tuple(map(enter, wish.models))
        yield Inputs(enter(a), enter(b), enter(wish.base), models, enter(wish.vae)), wish


def scan_of(wish: Wish, inputs: Inputs) -> Scan | None:
    """The scan that the wish names, if it is one of these models."""
    from analyzer.guidance.scan_identity import require_same_models
    from analyzer.scanfile import load

    if wish.scan is None:
        return None
    scan = load(wish.scan)
    require_same_models(scan, a=inputs.a, b=inputs.b, base=inputs.base)
    return scan
