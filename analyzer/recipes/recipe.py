"""A merge as its author wrote it: the options, and whether they go together. Knows no keys and no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from analyzer.errors import RecipeError
from analyzer.methods import METHODS, Method

DTYPES: Mapping[str, str | None] = {
    "keep": None,
    "fp16": "F16",
    "bf16": "BF16",
    "fp32": "F32",
    "fp8_e4m3": "F8_E4M3",
    "fp8_e5m2": "F8_E5M2",
}


@dataclass(frozen=True, slots=True)
class Guide:
    """What is asked of a scan. None means: not asked."""

    where: str | None = None  # a condition, per key: alpha 0 where it does not hold
    top: int | None = None  # alpha 0 outside the so many groups that differ most
    by: str = "relative_change"  # the statistic of `top`
    axis: str = "component"  # of `top`
    budget: float | None = None  # alpha = min(1, budget / relative_change) of a group
    match: tuple[str, float] | None = None  # (statistic, value): the alpha at which a group has it against A
    alpha_from: str | None = None  # a formula over statistics, clamped to 0 … 1; undefined gives 0
    per: str | None = None  # the axis of the last three; None: component, and of `alpha_from` each key

    @property
    def asked(self) -> tuple[str, ...]:
        """What a scan has to answer: the names of the fields that are set."""
        names = ("where", "top", "budget", "match", "alpha_from")
        return tuple(name for name in names if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options of a merge. None means: not said."""

    method: str = "weighted_sum"
    only: str | None = None
    alpha: float | None = None
    block_weights: tuple[float, ...] | str | None = None  # numbers, or the name of a preset
    base_alpha: float | None = None
    sets: tuple[tuple[str, float], ...] = ()  # (selector, alpha), the later wins
    position_ids: str | None = None  # "keep", "reset"
    only_in_b: str = "drop"  # "drop", "add"
    dtype: str = "keep"  # a name of DTYPES
    dtypes: tuple[tuple[str, str], ...] = ()  # (selector, name of DTYPES), the later wins
    parameters: tuple[tuple[str, float], ...] = ()  # of the method, by name
    weights: tuple[float, ...] = ()  # of the further models, in their order
    guide: Guide = Guide()
    alphas: tuple[tuple[str, float], ...] = ()  # (key, alpha), as a scan once chose them
    text_encoder: str | None = None  # "keep-a", "keep-b"
    prune_ema: bool = False


def method_of(recipe: Recipe) -> Method:
    """The recipe's method; RecipeError for a name that is none."""
    method = METHODS.get(recipe.method)
    if method is None:
        near = get_close_matches(recipe.method, METHODS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecipeError(f"unknown method {recipe.method!r}{hint}: choose one of {', '.join(METHODS)}")
    return method


def parameters_of(recipe: Recipe) -> dict[str, float]:
    """Every parameter of the recipe's method; RecipeError for one that it has not, or out of its range."""
    method = method_of(recipe)
    values = {name: parameter.default for name, parameter in method.parameters.items()}
    for name, value in recipe.parameters:
        parameter = method.parameters.get(name)
        if parameter is None:
            known = ", ".join(method.parameters) or "none"
            raise RecipeError(f"--param {name}: {recipe.method} has no such parameter; it has: {known}")
        if not parameter.low <= value <= parameter.high:
            raise RecipeError(
                f"--param {name}={value:g}: {recipe.method} takes {parameter.low:g} … {parameter.high:g} "
                f"({parameter.meaning})"
            )
        if parameter.whole and value != int(value):
            raise RecipeError(f"--param {name}={value:g}: {recipe.method} takes a whole number")
        values[name] = float(value)
    return values


def check(recipe: Recipe, *, base: bool, models: int) -> None:
    """Refuse options that contradict each other or say nothing; raises RecipeError.

    `base` and `models` say whether there is a base, and how many further models.
    """
    _check_something_said(recipe)
    for name in (recipe.dtype, *(name for _, name in recipe.dtypes)):
        if name not in DTYPES:
            raise RecipeError(f"--dtype {name}: choose one of {', '.join(DTYPES)}")
    weights = () if isinstance(recipe.block_weights, str) else recipe.block_weights or ()
    numbers = [recipe.alpha, recipe.base_alpha, *weights, *recipe.weights]
    numbers += [number for _, number in (*recipe.sets, *recipe.alphas)]
    for number in numbers:
        if number is not None and not math.isfinite(number):
            raise RecipeError(f"an alpha of {number} is not a finite number: write for example 0.5")
    parameters_of(recipe)
    _check_models(recipe, method_of(recipe), base=base, models=models)


def _check_something_said(recipe: Recipe) -> None:
    said = (
        recipe.only, recipe.alpha, recipe.block_weights, recipe.sets or None, recipe.alphas or None,
        recipe.text_encoder, recipe.guide.asked or None,
    )  # fmt: skip
    if all(option is None for option in said):
        raise RecipeError(
            "nothing says what to take from B: give --alpha, --only, --block-weights or --set "
            "(--alpha 1 takes all of B, --only attn2 that category, --alpha 0 nothing)"
        )


def _check_models(recipe: Recipe, method: Method, *, base: bool, models: int) -> None:
    name = recipe.method
    if method.base == "must" and not base:
        raise RecipeError(f"--method {name} needs the model that B was trained from: name it with --base C")
    if method.base == "no" and base:
        takers = ", ".join(other for other, entry in METHODS.items() if entry.base != "no")
        raise RecipeError(f"--base: {name} takes no base; leave it out, or choose one of {takers}")
    if method.models == "must" and not models:
        raise RecipeError(f"--method {name} needs a third model: name it with --model PATH=WEIGHT")
    if 1 + base + models < method.tasks:
        raise RecipeError(
            f"--method {name} combines at least {method.tasks} models with their base: add one with --model "
            "PATH=WEIGHT, or name what A and B were trained from with --base C"
        )
    if recipe.guide.match is not None and not method.fused:
        raise RecipeError(
            f"--match holds for weighted_sum only: leave out --method {name}, or use --alpha-from"
        )
    if method.models == "no" and models:
        takers = ", ".join(other for other, entry in METHODS.items() if entry.models != "no")
        raise RecipeError(f"--model: {name} merges A and B alone; choose one of {takers}")
