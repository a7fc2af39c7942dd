"""The sum of what models learned since their base."""

from __future__ import annotations

from math import fsum

from analyzer.methods.method import Array, Method, Setting
from analyzer.methods.tasks import SCALING, sum_divisor, weights_of


def coefficients(setting: Setting, _gram: Array | None = None) -> tuple[float, ...]:
    """C + lambda·((A − C) + alpha·(B − C) + Σ wᵢ·(Mᵢ − C)); without a base A + lambda·(alpha·(B − A) + …).

    With normalize, the sum is divided by Σ of the weights, 1 for A if it has a task.
    """
    weights = weights_of(setting)
    scale = setting.parameters["lambda"]
    if setting.parameters["normalize"]:
        scale /= sum_divisor(weights)
    of_base = 1 - scale * fsum(weights) if setting.based else 0.0
    return (1.0, scale * setting.alpha, of_base, *(scale * weight for weight in setting.weights))


TASK_ARITHMETIC = Method(
    formula="c + lambda·((a − c) + alpha·(b − c) + Σ w·(m − c))",
    source="Ilharco et al., Editing models with task arithmetic, arXiv 2212.04089",
    coefficients=coefficients,
    base="may",
    models="may",
    parameters=SCALING,
)
