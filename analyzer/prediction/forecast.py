"""What a plan comes to, from a scan of its models: the prediction of every linear merge. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analyzer.methods import Array, Setting
from analyzer.prediction.closed_form import (
    TAKEN,
    GroupPrediction,
    Outlook,
    Prediction,
    Squares,
    Steps,
    gram_of,
    squares_from,
)
from analyzer.recipes.recipe import Recipe, method_of, parameters_of
from analyzer.records import Plan, Scan

_FROM_B = ("merge", "take")


@dataclass(frozen=True, slots=True)
class Forecast:
    """A merged model before it is written, as a scan of it would measure it; before rounding."""

    whole: Prediction
    groups: Sequence[GroupPrediction]  # by component, the one that differs most between A and B first
    keys: int  # of the output, whether predicted or not
    steps: Steps  # the method's coefficients by A's key
    dtypes: Mapping[str, str]  # of the output, by A's key
    without: frozenset[str]  # keys of which nothing can be said: those of a baked VAE
    warning: str | None  # where rounding leaves little of the step
    measured: Mapping[str, Squares]  # of the keys that are merged with further models


def forecast(
    plan: Plan, recipe: Recipe, scan: Scan, *, grams: Mapping[str, Array] | None = None
) -> Forecast | None:
    """The closed form of a merge; None for methods that are not linear, which have none.

    Keys that the scan did not measure are not in it. Of further models the scan knows nothing: where they
    take part, values follow from `grams` (see `further_models`), and without these are None.
    """
    grams = grams or {}
    method = method_of(recipe)
    if method.coefficients is None:
        return None
    rows = {row.key: row for row in scan.keys}
    parameters = parameters_of(recipe)
    based = plan.partners.base is not None
    steps: dict[str, Sequence[float]] = {}
    measured: dict[str, Squares] = {}
    for action in plan.actions:
        if action.key not in rows or action.verb not in _FROM_B or action.alpha is None:
            continue
        if action.verb == "take":
            steps[action.key] = TAKEN
            continue
        weights = [
            weight
            for weight, pairs in zip(recipe.weights, plan.partners.models, strict=True)
            if action.key in pairs
        ]
        setting = Setting(action.alpha, tuple(weights), parameters, based=based)
        gram = grams.get(action.key)
        if gram is None and not weights and method.needs_gram:
            gram = gram_of(rows[action.key], based=based)
        if gram is None and method.needs_gram:
            steps[action.key] = (1.0, 0.0, 0.0, 1.0)  # depends on what was not measured
            continue
        step = method.coefficients(setting, gram)
        steps[action.key] = step
        if weights and gram is not None:
            measured[action.key] = squares_from(gram, step)
    dtypes = {action.key: action.dtype for action in plan.actions if action.key in rows}
    without = frozenset(action.key for action in plan.actions if action.verb == "bake")
    alphas = {x.key: x.alpha for x in plan.actions if x.key in steps and x.alpha is not None}
    outlook = Outlook(scan, steps, dtypes=dtypes, without=without, alphas=alphas, measured=measured)
    return Forecast(
        outlook.whole(),
        outlook.groups(),
        len(plan.actions),
        steps,
        dtypes,
        without,
        outlook.warning(),
        measured,
    )
