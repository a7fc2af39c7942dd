"""Each task without its smallest elements and without its few largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.methods.method import Array, Method, Operands, Parameter, Setting
from analyzer.methods.order_statistics import OrderStatistics, sizes_of
from analyzer.methods.tasks import SCALING, add_up, tasks_of
from analyzer.methods.ties import DENSITY


def breadcrumbs(operands: Operands, setting: Setting, known: Any) -> Array:
    """The base and lambda·Σ weight·masked task."""
    return add_up(operands, setting, _masked(operands, setting, known), elect=False)


def breadcrumbs_ties(operands: Operands, setting: Setting, known: Any) -> Array:
    """The same of the tasks with the sign that TIES elects."""
    return add_up(operands, setting, _masked(operands, setting, known), elect=True)


def _masked(operands: Operands, setting: Setting, known: Any) -> list[Array]:
    """The tasks between the two sizes that are `known`; as in mergekit, density 1 leaves nothing out.

    All that equal one of the two stay, and what is not finite stays not finite.
    """
    tasks = tasks_of(operands, setting)
    if setting.parameters["density"] >= 1:
        return tasks
    for task, sizes in zip(tasks, known, strict=True):
        size = sizes_of(task)
        smallest, largest = sizes or (np.float32(np.inf), np.float32(np.inf))
        task *= (size >= smallest) & (size <= largest)
    return tasks


def _ranks(parameters: Mapping[str, float], count: int) -> tuple[int, ...]:
    """⌊density·n⌋ elements below the ⌊gamma·n⌋ largest, or as many of these as density asks for."""
    kept, top = int(parameters["density"] * count), int(parameters["gamma"] * count)
    first = max(0, count - kept - top)
    return (first, first + kept - 1) if kept else ()


_SOURCE = "Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795; density and gamma as in mergekit"
_PARAMETERS = {
    "density": DENSITY,
    "gamma": Parameter(0.01, 0.0, 1.0, "share of each task's largest elements that is left out"),
    **SCALING,
}

BREADCRUMBS = Method(
    formula="c + lambda·Σ weight·(task without its smallest and its largest)",
    source=_SOURCE,
    combine=breadcrumbs,
    survey=OrderStatistics(_ranks),
    base="may",
    models="may",
    parameters=_PARAMETERS,
)
BREADCRUMBS_TIES = Method(
    formula="c + lambda·Σ weight·(task without its smallest and its largest), of those with the elected sign",
    source=f"{_SOURCE}; the election of Yadav et al., arXiv 2306.01708",
    combine=breadcrumbs_ties,
    survey=OrderStatistics(_ranks),
    base="may",
    models="may",
    parameters=_PARAMETERS,
)
