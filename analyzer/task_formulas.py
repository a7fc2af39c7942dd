"""The formulas of two models and their base c: pure functions of the sums over p = a − c and q = b − c.

p and q are the tasks of A and B, what each learned beyond the base (Ilharco et al., Editing Models with
Task Arithmetic, 2023, https://arxiv.org/abs/2212.04089). Every formula is None without a base.
"""

from __future__ import annotations

from math import asin, inf, pi, sqrt

from analyzer.formulas import angular_distance
from analyzer.measures import Sums


def norm_task_a(s: Sums) -> float | None:
    """‖a − c‖, in the unit of the weights; None without elements."""
    return sqrt(s.task.aa) if s.task and s.task.n else None


def norm_task_b(s: Sums) -> float | None:
    """‖b − c‖, in the unit of the weights; None without elements."""
    return sqrt(s.task.bb) if s.task and s.task.n else None


def task_cosine(s: Sums) -> float | None:
    """The cosine of p and q, in −1 … 1: 1 = they learned the same, 0 = unrelated things, below 0 opposites.

    Measured as `cosine_distance` is, with q − p = b − a. None where a model is its base.
    """
    distance = angular_distance(s.task.aa, s.task.bb, s.task.dd) if s.task else None
    return None if distance is None else 1.0 - distance


def sign_conflict_fraction(s: Sums) -> float | None:
    """#(p·q < 0) / #(p·q ≠ 0), in 0 … 1: of the positions that both changed, where they disagree."""
    return s.task.conflicts / s.task.moved_both if s.task and s.task.moved_both else None


def sign_conflict_expected(s: Sums) -> float | None:
    """arccos(task_cosine) / π, in 0 … 1: the `sign_conflict_fraction` of Gaussian tasks of this cosine.

    0.5 for unrelated ones. Sheppard, On the application of the theory of error, 1899.
    """
    distance = angular_distance(s.task.aa, s.task.bb, s.task.dd) if s.task else None
    # arccos(1 − x), without the digits that 1 − x would lose
    return None if distance is None else 2 * asin(sqrt(min(distance, 2.0) / 2)) / pi


def conflict_mass(s: Sums) -> float | None:
    """Σ(|p| + |q|) where p·q < 0, over Σ(|p| + |q|), in 0 … 1: how much of both tasks is in dispute.

    Mass as in TIES merging: the sum of magnitudes (Yadav et al., 2023, https://arxiv.org/abs/2306.01708).
    """
    mass = _mass(s)
    return None if s.task is None or mass is None else min(s.task.abs_conflict / mass, 1.0)


def cancellation(s: Sums) -> float | None:
    """1 − Σ|p + q| / Σ(|p| + |q|), in 0 … 1: how much of both tasks is lost where they are added."""
    mass = _mass(s)
    return None if s.task is None or mass is None else min(max(1.0 - s.task.abs_sum / mass, 0.0), 1.0)


def dominance(s: Sums) -> float | None:
    """‖q‖² / (‖p‖² + ‖q‖²), in 0 … 1: 0.5 = both changed as much, 1 = only B changed anything."""
    if s.task is None:
        return None
    both = s.task.aa + s.task.bb
    return s.task.bb / both if 0 < both < inf else None


def support_overlap(s: Sums) -> float | None:
    """#(p ≠ 0 and q ≠ 0) / #(p ≠ 0 or q ≠ 0), in 0 … 1: how much they changed the same elements (Jaccard)."""
    if s.task is None:
        return None
    either = s.task.moved_a + s.task.moved_b - s.task.moved_both
    return s.task.moved_both / either if either else None


def _mass(s: Sums) -> float | None:
    mass = s.task.abs_a + s.task.abs_b if s.task else 0.0
    return mass if 0 < mass < inf else None
