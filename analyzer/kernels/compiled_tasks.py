"""The sums that a base c adds, over one block of the tasks p = a − c and q = b − c."""

from __future__ import annotations

from typing import Any

from analyzer.kernels.compiled import compile_inner
from analyzer.kernels.compiled_views import REASSOCIATE

# The places of the sums in the array that `compiled_sums.measure_batch` fills.
(
    MOVED_A,
    MOVED_B,
    MOVED_BOTH,
    CONFLICTS,
    TASK_AA,
    TASK_BB,
    TASK_DD,
    ABS_A,
    ABS_B,
    ABS_SUM,
    ABS_CONFLICT,
    DOT_A,
    TASK_WIDTH,
) = range(13)


@compile_inner()
def add_tasks(a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    """Add the block's sums over p = a − c and q = b − c."""
    # Two loops: one would need more vector registers than there are.
    _add_task_counts(a, b, c, n, out)
    _add_task_sums(a, b, c, n, out)


@compile_inner(fastmath=REASSOCIATE)
def _add_task_counts(a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    moved_a = moved_b = moved_both = conflicts = abs_conflict = 0.0
    for i in range(n):
        p = a[i] - c[i]
        q = b[i] - c[i]
        has_p = 1.0 if p != 0.0 else 0.0
        has_q = 1.0 if q != 0.0 else 0.0
        opposed = 1.0 if (p < 0.0) & (q > 0.0) | (p > 0.0) & (q < 0.0) else 0.0
        moved_a += has_p
        moved_b += has_q
        moved_both += has_p * has_q
        conflicts += opposed
        abs_conflict += abs(p) + abs(q) if opposed > 0.0 else 0.0
    out[MOVED_A] += moved_a
    out[MOVED_B] += moved_b
    out[MOVED_BOTH] += moved_both
    out[CONFLICTS] += conflicts
    out[ABS_CONFLICT] += abs_conflict


@compile_inner(fastmath=REASSOCIATE)
def _add_task_sums(a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    aa = bb = dd = abs_a = abs_b = abs_sum = dot_a = 0.0
    for i in range(n):
        x = a[i]
        p = x - c[i]
        q = b[i] - c[i]
        d = b[i] - x
        dot_a += x * p
        aa += p * p
        bb += q * q
        dd += d * d
        abs_a += abs(p)
        abs_b += abs(q)
        abs_sum += abs(p + q)
    out[TASK_AA] += aa
    out[TASK_BB] += bb
    out[TASK_DD] += dd
    out[ABS_A] += abs_a
    out[ABS_B] += abs_b
    out[ABS_SUM] += abs_sum
    out[DOT_A] += dot_a
