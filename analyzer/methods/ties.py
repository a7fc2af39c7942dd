"""The largest parts of each task, where the models agree on their sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.methods.method import Array, Method, Operands, Parameter, Setting
from analyzer.methods.order_statistics import OrderStatistics, sizes_of
from analyzer.methods.tasks import SCALING, add_up, tasks_of

DENSITY = Parameter(1.0, 0.0, 1.0, "share of each task's elements that is kept")


def ties(operands: Operands, setting: Setting, known: Any) -> Array:
    """Trim each task to its largest elements, elect a sign for each element, add up who agrees.

    `known` are the smallest sizes that stay, or None at density 1. Sizes are compared in fp32, and all
    that equal the smallest stay, where mergekit takes some of them. What is not finite stays not finite.
    """
    tasks = tasks_of(operands, setting)
    density = setting.parameters["density"]
    if density < 1:
        for task, sizes in zip(tasks, known, strict=True):
            smallest = sizes[0] if density > 0 else np.float32(np.inf)
            task *= sizes_of(task) >= smallest
    return add_up(operands, setting, tasks, elect=True)


def _ranks(parameters: Mapping[str, float], count: int) -> tuple[int, ...]:
    """max(1, ⌊density·n⌋) elements stay."""
    return (count - min(count, max(1, int(parameters["density"] * count))),)


TIES = Method(
    formula="c + lambda·Σ weight·trimmed task, of those with the elected sign",
    source="Yadav et al., TIES-Merging: resolving interference when merging models, arXiv 2306.01708",
    combine=ties,
    survey=OrderStatistics(_ranks),
    base="may",
    models="may",
    parameters={"density": DENSITY, **SCALING},
)
