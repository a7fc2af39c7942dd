"""What a plan comes to, from a scan of its models: the prediction of every linear merge. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analyzer.methods import Setting
from analyzer.prediction.closed_form import (
    GroupPrediction,
    Prediction,
    Steps,
    gram_of,
    predict,
    predict_groups,
    survival_warning,
)
from analyzer.recipes.recipe import Recipe, method_of, parameters_of
from analyzer.records import Plan, Scan

_FROM_B = ("merge", "take")


@dataclass(frozen=True, slots=True)
class Forecast:
    """A merged model before it is written, as a scan of it would measure it; before rounding."""

    whole: Prediction
    groups: Sequence[GroupPrediction]  # by component, the one that differs most between A and B first
    steps: Steps  # the method's coefficients by A's key
    dtypes: Mapping[str, str]  # of the output, by A's key
    without: frozenset[str]  # keys of which nothing can be said: those of a baked VAE
    warning: str | None  # where rounding leaves little of the step


def forecast(plan: Plan, recipe: Recipe, scan: Scan) -> Forecast | None:
    """The closed form of a merge; None for methods that are not linear, which have none.

    Keys that the scan did not measure are not in it. Values are None where further models take part, of
    which the scan knows nothing.
    """
    method = method_of(recipe)
    if method.coefficients is None:
        return None
    rows = {row.key: row for row in scan.keys}
    parameters = parameters_of(recipe)
    based = plan.partners.base is not None
    steps: dict[str, Sequence[float]] = {}
    for action in plan.actions:
        if action.key not in rows or action.verb not in _FROM_B or action.alpha is None:
            continue
        if action.verb == "take":
            steps[action.key] = (1.0, 1.0, 0.0)
            continue
        weights = [
            weight
            for weight, pairs in zip(recipe.weights, plan.partners.models, strict=True)
            if action.key in pairs
        ]
        setting = Setting(action.alpha, tuple(weights), parameters, based=based)
        gram = gram_of(rows[action.key], based=based) if method.needs_gram else None
        if method.needs_gram and (gram is None or weights):
            steps[action.key] = (1.0, 0.0, 0.0, 1.0)  # depends on what the scan did not measure
        else:
            steps[action.key] = method.coefficients(setting, gram)
    dtypes = {action.key: action.dtype for action in plan.actions if action.key in rows}
    without = frozenset(action.key for action in plan.actions if action.verb == "bake")
    return Forecast(
        predict(scan, steps, dtypes=dtypes, without=without),
        predict_groups(scan, steps, dtypes=dtypes, without=without),
        steps,
        dtypes,
        without,
        survival_warning(scan, steps, dtypes=dtypes, without=without),
    )
