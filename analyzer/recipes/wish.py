"""A merge as it is asked for: the recipe, the files that it names, and what a merged file recorded of them.

Knows how the options of the command line go over those of a recipe. Opens no file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from analyzer.methods import METHODS
from analyzer.recipes.recipe import Guide, Recipe


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """One input of a merge, as the merged file's metadata names it."""

    name: str  # of the file or folder, without where it lay
    bytes: int
    fingerprint: str  # "sha256:…", see `Checkpoint.fingerprint`


@dataclass(frozen=True, slots=True)
class Recorded:
    """The inputs of the merge that is to be repeated."""

    a: RecordedModel
    b: RecordedModel
    base: RecordedModel | None = None
    models: tuple[RecordedModel, ...] = ()
    vae: RecordedModel | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A recipe and the files that it names."""

    recipe: Recipe
    base: Path | None = None
    models: tuple[Path, ...] = ()  # the further ones, in the order of the recipe's `weights`
    vae: Path | None = None
    scan: Path | None = None
    presets: Path | None = None
    given: frozenset[str] = frozenset()  # the fields of Recipe, Guide and Wish that are said and not defaults
    recorded: Recorded | None = None  # where a merge is repeated from the metadata of its result


_GUIDE = frozenset(field.name for field in fields(Guide))
_RECIPE = frozenset(field.name for field in fields(Recipe)) - {"guide", "weights", "alphas"}
_FILES = frozenset({"base", "vae", "scan", "presets"})
_JOINED = ("sets", "dtypes", "parameters")  # of (name, value), the later wins
_INSTEAD = (  # an option, and those that have no place beside it
    ("budget", ("match", "alpha_from")),  # each says the alpha of a group
    ("match", ("budget", "alpha_from")),
    ("alpha_from", ("budget", "match")),
    ("where", ("top", "by", "axis")),
    ("top", ("where",)),
)
_BEFORE_ALPHAS = _GUIDE | {"alpha", "base_alpha", "block_weights", "scan", "presets"}


def override(wish: Wish, given: Mapping[str, Any]) -> Wish:
    """The wish with what the command line says, option by option; None and () mean: not said.

    The names are the fields of Recipe, Guide and Wish, and `models` is ((path, weight), …) there. An option
    takes the place of the recipe's, with these rules:

    - `sets`, `dtypes` and `parameters` are joined, the command line's behind: the later wins, so each has
      its way with what it selects, and what it does not speak of stays as the recipe says;
    - `models` are taken as a whole, with their weights;
    - `budget`, `match` and `alpha_from` exclude each other, so one of them drops the recipe's others; so do
      `where` and `top`, which goes with its `by` and `axis`;
    - with another `method` the recipe's parameters, base and further models go where it has no use for them;
    - in a merge that is repeated, alphas that a scan chose give way to every option that comes before them
      or asks a scan: they were chosen by other ones. So does the base alpha, resolved from the block weights
      of then, to other block weights.
    """
    said = {name: value for name, value in given.items() if value is not None and value != ()}
    assert said.keys() <= _GUIDE | _RECIPE | _FILES | {"models"}, sorted(said)
    wish = _for_method(_without_others(wish, said.keys()), said)
    recipe = wish.recipe
    guide = replace(recipe.guide, **{name: said[name] for name in said.keys() & _GUIDE})
    changes = {name: said[name] for name in said.keys() & _RECIPE}
    for name in said.keys() & set(_JOINED):
        changes[name] = _joined(getattr(recipe, name), said[name])
    if said.keys() & _BEFORE_ALPHAS:
        changes["alphas"] = ()
    if wish.recorded is not None and "block_weights" in said and "base_alpha" not in said:
        changes["base_alpha"] = None
    files = {name: said[name] for name in said.keys() & _FILES}
    if "models" in said:
        files["models"] = tuple(path for path, _ in said["models"])
        changes["weights"] = tuple(weight for _, weight in said["models"])
    return replace(
        wish, recipe=replace(recipe, guide=guide, **changes), given=wish.given | said.keys(), **files
    )


def _without_others(wish: Wish, said: Collection[str]) -> Wish:
    """The wish without what the options that are said now take the place of."""
    gone = {other for name, others in _INSTEAD if name in said for other in others}
    plain = Guide()
    guide = replace(wish.recipe.guide, **{name: getattr(plain, name) for name in gone})
    return replace(wish, recipe=replace(wish.recipe, guide=guide), given=wish.given - gone)


def _for_method(wish: Wish, said: Mapping[str, Any]) -> Wish:
    """The wish without what the method that is said now has no use for."""
    method = METHODS.get(said.get("method", ""))
    if method is None:  # not said, or unknown, which is complained about where methods are looked up
        return wish
    used = tuple(pair for pair in wish.recipe.parameters if pair[0] in method.parameters)
    wish = replace(wish, recipe=replace(wish.recipe, parameters=used))
    if method.base == "no":
        recorded = wish.recorded and replace(wish.recorded, base=None)
        wish = replace(wish, base=None, recorded=recorded, given=wish.given - {"base"})
    if method.models == "no":
        recorded = wish.recorded and replace(wish.recorded, models=())
        recipe = replace(wish.recipe, weights=())
        wish = replace(wish, recipe=recipe, models=(), recorded=recorded, given=wish.given - {"models"})
    return wish


def _joined(file: tuple[tuple[str, Any], ...], given: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    """Both, the given ones last, without those of the file that are named again."""
    again = {name for name, _ in given}
    return (*(pair for pair in file if pair[0] not in again), *given)
