"""The sums over one block of two tensors a and b, widened to fp64: the inner loops of a scan."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.kernels.compiled import bits_of_f64, compile_inner, f64_of_bits
from analyzer.kernels.compiled_views import REASSOCIATE
from analyzer.kernels.formats import EXPONENT, ROUND_TO_ULP

# The places of the sums in the array that `compiled_sums.measure_batch` fills.
(
    N,
    NONFINITE_A,
    NONFINITE_B,
    NONFINITE_DIFFERS,
    CHANGED,
    CAST_ONLY,
    SIGN_FLIPS,
    SUM_A,
    SUM_B,
    SUM_AA,
    SUM_BB,
    SUM_DD,
    SUM_AB,
    SUM_ABS_D,
    MAX_ABS_D,
    SUM_ULP_SQ,
    M2_A,
    M2_B,
    WIDTH,
) = range(19)


@compile_inner(fastmath=REASSOCIATE)
def accumulate(a: Any, b: Any, n: Any, scale: Any, floor: Any, out: Any) -> Any:
    """Join the sums of one block of n > 0 finite fp64 values to `out`; return how many differ.

    `out[N]` is n's total so far.
    """
    sum_a = sum_b = sum_aa = sum_bb = sum_dd = sum_ab = sum_abs = sum_ulp = 0.0
    changed = flips = 0.0
    largest = np.int64(0)  # |d| as bits: magnitudes order as integers, and integers vectorise
    lowest = floor / scale  # the power of two from which on a spacing is the smallest
    for i in range(n):
        x = a[i]
        y = b[i]
        d = y - x
        product = x * y
        sum_a += x
        sum_b += y
        sum_aa += x * x
        sum_bb += y * y
        sum_dd += d * d
        sum_ab += product
        size = abs(d)
        sum_abs += size
        largest = max(largest, bits_of_f64(size))
        changed += 1.0 if x != y else 0.0
        flips += 1.0 if product < 0.0 else 0.0
        power = f64_of_bits(bits_of_f64(x) & EXPONENT)  # 2^⌊log2|x|⌋
        power = max(power, lowest) if x != 0.0 else 0.0
        sum_ulp += power * power
    out[M2_A] += _spread(a, n, sum_a, sum_aa, out[N], out[SUM_A])
    out[M2_B] += _spread(b, n, sum_b, sum_bb, out[N], out[SUM_B])
    out[SUM_A] += sum_a
    out[SUM_B] += sum_b
    out[CHANGED] += changed
    out[SIGN_FLIPS] += flips
    out[SUM_AA] += sum_aa
    out[SUM_BB] += sum_bb
    out[SUM_DD] += sum_dd
    out[SUM_AB] += sum_ab
    out[SUM_ABS_D] += sum_abs
    out[MAX_ABS_D] = max(out[MAX_ABS_D], f64_of_bits(largest))
    out[SUM_ULP_SQ] += sum_ulp * scale * scale
    return changed


@compile_inner(fastmath=REASSOCIATE)
def accumulate_same(a: Any, n: Any, scale: Any, floor: Any, out: Any) -> Any:
    """`accumulate` where B's block is A's."""
    total = squares = sum_ulp = 0.0
    lowest = floor / scale
    for i in range(n):
        x = a[i]
        total += x
        squares += x * x
        power = f64_of_bits(bits_of_f64(x) & EXPONENT)
        power = max(power, lowest) if x != 0.0 else 0.0
        sum_ulp += power * power
    out[M2_A] += _spread(a, n, total, squares, out[N], out[SUM_A])
    out[M2_B] += _spread(a, n, total, squares, out[N], out[SUM_B])
    out[SUM_A] += total
    out[SUM_B] += total
    out[SUM_AA] += squares
    out[SUM_BB] += squares
    out[SUM_AB] += squares
    out[SUM_ULP_SQ] += sum_ulp * scale * scale


@compile_inner()
def _spread(values: Any, n: Any, total: Any, squares: Any, so_far: Any, total_so_far: Any) -> Any:
    """What a block adds to Σ(x − mean)², from its Σx and Σx² and from Σx of the `so_far` elements before it.

    Chan, Golub & LeVeque, 1979; `analyzer.records.add_sums` does the same between chunks.
    """
    mean = total / n
    within = squares - total * mean
    if not within >= 0.5 * squares:  # a small difference of large numbers
        within = _spread_about(values, n, mean)
    if so_far > 0:
        between = mean - total_so_far / so_far
        within += between * between * (so_far * n / (so_far + n))
    return within


@compile_inner(fastmath=REASSOCIATE)
def _spread_about(values: Any, n: Any, mean: Any) -> Any:
    """Σ(x − mean)², in a second pass; what the mean lost by rounding is taken off."""
    squares = left = 0.0
    for i in range(n):
        x = values[i] - mean
        squares += x * x
        left += x
    return max(squares - left * (left / n), 0.0)


@compile_inner(fastmath=REASSOCIATE)
def count_flips(a: Any, b: Any, n: Any) -> Any:
    """How many signs are opposed, where a product may be too small for fp64."""
    flips = 0.0
    for i in range(n):
        flips += 1.0 if (a[i] < 0.0) & (b[i] > 0.0) | (a[i] > 0.0) & (b[i] < 0.0) else 0.0
    return flips


@compile_inner()
def count_casts(a: Any, b: Any, n: Any, spacing: Any) -> Any:
    """How many positions differ, and are equal once one side is rounded to the other side's format."""
    equal = 0
    for i in range(n):
        x = a[i]
        y = b[i]
        # Without a cast the scale is 0, which leaves a side as it is or as fp32 has it: never the other one.
        to_b = _rounds_to(x, y, spacing[2], spacing[3])
        to_a = _rounds_to(y, x, spacing[4], spacing[5])
        equal += 1 if (x != y) & (to_b | to_a) else 0
    return equal


@compile_inner()
def is_cast(x: Any, y: Any, spacing: Any) -> Any:
    """Whether x rounded to b's format is y, or y rounded to a's is x."""
    if spacing[2] > 0.0 and _rounds_to(x, y, spacing[2], spacing[3]):
        return True
    return spacing[4] > 0.0 and _rounds_to(y, x, spacing[4], spacing[5])


@compile_inner()
def _rounds_to(x: Any, y: Any, scale: Any, floor: Any) -> Any:
    # torch casts fp64 by way of fp32, and so rounds twice
    by_fp32 = _rounded(np.float64(np.float32(x)), scale, floor)
    return (_rounded(x, scale, floor) == y) | (by_fp32 == y)


@compile_inner()
def _rounded(x: Any, scale: Any, floor: Any) -> Any:
    """The nearest multiple of x's spacing in a format, ties to even; its range has no end here."""
    power = f64_of_bits(bits_of_f64(x) & EXPONENT)
    shift = max(power * scale, floor) * ROUND_TO_ULP
    return (x + shift) - shift
