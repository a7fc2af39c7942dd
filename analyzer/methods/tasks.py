"""Tasks, what models learned since their base, and the ways of adding them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

import numpy as np

from analyzer.methods.method import Array, Operands, Parameter, Setting, difference, shifted

SCALING: Mapping[str, Parameter] = {
    "lambda": Parameter(1.0, -100.0, 100.0, "factor of the sum of all tasks"),
    "normalize": Parameter(0.0, 0.0, 1.0, "1: divide by the sum of the weights that take part", whole=True),
}
_NO_DIVISOR = 1e-8


def tasks_of(operands: Operands, setting: Setting) -> list[Array]:
    """The tasks x − c of A (if a base is given), B and the further models, in memory of their own."""
    models = [operands.a, operands.b] if setting.based else [operands.b]
    return [difference(model, operands.base) for model in (*models, *operands.models)]


def weights_of(setting: Setting) -> list[float]:
    """The weights of `tasks_of`: 1 of A, alpha of B, and the further models' own."""
    return [*([1.0] if setting.based else []), setting.alpha, *setting.weights]


def numbers_of(setting: Setting) -> range:
    """Which models `tasks_of` are: 0 is A, 1 is B, then the further ones."""
    return range(0 if setting.based else 1, 2 + len(setting.weights))


def sum_divisor(weights: Sequence[float]) -> float:
    """What `normalize` divides a plain sum by: Σ weights, or 1 if that is 0."""
    total = fsum(weights)
    return total if abs(total) >= _NO_DIVISOR else 1.0


def add_up(operands: Operands, setting: Setting, tasks: list[Array], *, elect: bool) -> Array:
    """The base and lambda·Σ weight·task, with `elect` of one side only. Overwrites `tasks`.

    The sides are elected element by element, as in TIES: of Σ of the positive and Σ of the negative
    weighted tasks the larger in size stays, the positive one where both are equal, as in mergekit.
    With normalize, the sum is divided by Σ of the weights that stay, unless that is 0.
    """
    weights = weights_of(setting)
    for task, weight in zip(tasks, weights, strict=True):
        if weight != 1:
            task *= weight
    normalize = setting.parameters["normalize"] != 0
    if elect:
        total = _elected(tasks, weights if normalize else None)
    else:
        total = tasks[0]
        for task in tasks[1:]:
            total += task
        if normalize:
            total /= sum_divisor(weights)
    if setting.parameters["lambda"] != 1:
        total *= setting.parameters["lambda"]
    return shifted(operands.base, total)


def _elected(tasks: Sequence[Array], weights: Sequence[float] | None) -> Array:
    """The larger side's sum, divided by its weights if they are given."""
    up, down = np.maximum(tasks[0], 0.0), np.minimum(tasks[0], 0.0)
    for task in tasks[1:]:
        up += np.maximum(task, 0.0)
        down += np.minimum(task, 0.0)
    positive = up + down >= 0
    if weights is not None:
        for side, has_sign in ((up, np.greater), (down, np.less)):
            divisor = np.zeros_like(side)
            for task, weight in zip(tasks, weights, strict=True):
                divisor += weight * has_sign(task, 0.0)
            divisor[np.abs(divisor) < _NO_DIVISOR] = 1.0
            side /= divisor
    # Products take a tenth of the time of a choice between two, whose branches nobody can predict.
    up *= positive
    down *= ~positive
    up += down
    return up
