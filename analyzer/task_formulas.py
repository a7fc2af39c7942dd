"""The formulas of two models and their base c: pure functions of the sums over p = a − c and q = b − c.

p and q are the tasks of A and B, what each learned beyond the base (Ilharco et al., Editing Models with
Task Arithmetic, 2023, https://arxiv.org/abs/2212.04089). Every formula is None without a base. `t` are the
tasks of a record, `m` the arithmetic of their fields, see `analyzer.arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import pi

from analyzer.arithmetic import AbstractArithmetic, Formula, Record, Value
from analyzer.formulas import distance_of
from analyzer.measures import TaskSums

_NO_TASK = TaskSums()  # in which everything is undefined


def _of_tasks(body: Callable[[Record, AbstractArithmetic], Value]) -> Formula:
    """The formula that looks at a record's tasks alone."""

    @wraps(body)
    def of_record(s: Record, m: AbstractArithmetic) -> Value:
        return body(_NO_TASK if s.task is None else s.task, m)

    return Formula(of_record)


@_of_tasks
def norm_task_a(t: Record, m: AbstractArithmetic) -> Value:
    """‖a − c‖, in the unit of the weights; None without elements."""
    return m.where(t.n > 0, m.sqrt(t.aa))


@_of_tasks
def norm_task_b(t: Record, m: AbstractArithmetic) -> Value:
    """‖b − c‖, in the unit of the weights; None without elements."""
    return m.where(t.n > 0, m.sqrt(t.bb))


@_of_tasks
def task_cosine(t: Record, m: AbstractArithmetic) -> Value:
    """The cosine of p and q, in −1 … 1: 1 = they learned the same, 0 = unrelated things, below 0 opposites.

    Measured as `cosine_distance` is, with q − p = b − a. None where a model is its base.
    """
    return 1.0 - distance_of(t.aa, t.bb, t.dd, m)


@_of_tasks
def sign_conflict_fraction(t: Record, m: AbstractArithmetic) -> Value:
    """#(p·q < 0) / #(p·q ≠ 0), in 0 … 1: of the positions that both changed, where they disagree."""
    return m.ratio(t.conflicts, t.moved_both)


@_of_tasks
def sign_conflict_expected(t: Record, m: AbstractArithmetic) -> Value:
    """arccos(task_cosine) / π, in 0 … 1: the `sign_conflict_fraction` of Gaussian tasks of this cosine.

    0.5 for unrelated ones. Sheppard, On the application of the theory of error, 1899.
    """
    # arccos(1 − x), without the digits that 1 − x would lose
    return 2 * m.asin(m.sqrt(distance_of(t.aa, t.bb, t.dd, m) / 2)) / pi


@_of_tasks
def conflict_mass(t: Record, m: AbstractArithmetic) -> Value:
    """Σ(|p| + |q|) where p·q < 0, over Σ(|p| + |q|), in 0 … 1: how much of both tasks is in dispute.

    Mass as in TIES merging: the sum of magnitudes (Yadav et al., 2023, https://arxiv.org/abs/2306.01708).
    """
    return m.clip(m.ratio(t.abs_conflict, t.abs_a + t.abs_b), 0.0, 1.0)


@_of_tasks
def cancellation(t: Record, m: AbstractArithmetic) -> Value:
    """1 − Σ|p + q| / Σ(|p| + |q|), in 0 … 1: how much of both tasks is lost where they are added."""
    return m.clip(1.0 - m.ratio(t.abs_sum, t.abs_a + t.abs_b), 0.0, 1.0)


@_of_tasks
def dominance(t: Record, m: AbstractArithmetic) -> Value:
    """‖q‖² / (‖p‖² + ‖q‖²), in 0 … 1: 0.5 = both changed as much, 1 = only B changed anything."""
    return m.ratio(t.bb, t.aa + t.bb)


@_of_tasks
def support_overlap(t: Record, m: AbstractArithmetic) -> Value:
    """#(p ≠ 0 and q ≠ 0) / #(p ≠ 0 or q ≠ 0), in 0 … 1: how much they changed the same elements (Jaccard)."""
    return m.ratio(t.moved_both, t.moved_a + t.moved_b - t.moved_both)
