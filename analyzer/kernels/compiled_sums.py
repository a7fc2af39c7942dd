"""The compiled loop of a scan: bytes of two tensors (and of their base) in, sums out.

Sums may be re-associated, which is what lets them run in vector registers; NaN and Inf keep their
meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.compiled import BLOCK, bits_of_f64, compile_loop, f64_of_bits, widen
from analyzer.kernels.compiled_histograms import TABLE, add_marginals, add_to_table
from analyzer.kernels.formats import EXPONENT, ROUND_TO_ULP
from analyzer.measures import BINS

# The places of the sums in the array that `measure` fills.
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

# The places of the sums over the tasks p = a − c and q = b − c.
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

_REASSOCIATE = {"reassoc", "nsz", "contract"}


@compile_loop()
def measure(
    raw_a: NDArray[np.uint8],
    code_a: int,
    table_a: NDArray[np.float64],
    raw_b: NDArray[np.uint8],
    code_b: int,
    table_b: NDArray[np.float64],
    raw_c: NDArray[np.uint8],
    code_c: int,
    table_c: NDArray[np.float64],
    count: int,
    spacing: NDArray[np.float64],
    first: int,
    width: int,
    out: NDArray[np.float64],
    tasks: NDArray[np.float64],
    bins: NDArray[np.float64],
    steps: NDArray[np.float64],
    e4m3_steps: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> None:
    """Add the sums of `count` elements of two byte strings to `out` (WIDTH places, see above).

    `table_*` hold the 256 values of an 8-bit format and are ignored for the wider ones. `raw_c` is the
    base's, or empty; `tasks` (TASK_WIDTH places) is filled only with a base. `spacing` is
    `formats.spacing`. `bins`, `steps` and `e4m3_steps` have (count, Σd²) for every bin of the histograms.
    `rows` has (Σa², Σb², Σd²) for every row of `width` elements, of which the first one here is element
    `first` of its row; it may be empty.
    """
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    c = np.empty(BLOCK, np.float64)
    unusable = np.empty(BLOCK, np.bool_)
    squares = np.empty(BLOCK, np.float64)
    slots = np.empty(BLOCK, np.int64)
    table = np.empty(TABLE, np.float64)
    low, high = BINS, -1  # the rows of the table that are in use
    has_base = len(raw_c) > 0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        bad_a = widen(raw_a, code_a, table_a, start, n, a)
        bad_b = widen(raw_b, code_b, table_b, start, n, b)
        bad_c = widen(raw_c, code_c, table_c, start, n, c) if has_base else 0
        usable = n
        if bad_a + bad_b + bad_c > 0:
            out[NONFINITE_A] += bad_a
            out[NONFINITE_B] += bad_b
            usable = _clear_unusable(a, b, c, n, has_base, unusable, spacing, out)
        if len(rows):
            _add_rows(a, b, n, first + start, width, rows)
        if usable < n:
            _keep_usable(a, b, c, n, has_base, unusable)
            n = usable
        if n:
            changed = _accumulate(a, b, n, spacing[0], spacing[1], out)
            if changed > 0:
                low, high = add_to_table(a, b, n, spacing, squares, slots, table, low, high)
                if spacing[2] > 0 or spacing[4] > 0:
                    out[CAST_ONLY] += _count_casts(a, b, n, spacing)
            if has_base:
                _add_tasks(a, b, c, n, tasks)
            out[N] += n
    add_marginals(table, low, high, spacing, bins, steps, e4m3_steps)


@compile_loop()
def _clear_unusable(
    a: Any, b: Any, c: Any, n: Any, has_base: Any, unusable: Any, spacing: Any, out: Any
) -> Any:
    """Mark what is not finite on some side, and make it zero; return how many positions are left.

    Counts what of it differs, a NaN being the same as any other NaN. Where only the base is not finite a
    cast is no difference: else a NaN there would make a change of a cast.
    """
    left = 0
    for i in range(n):
        x = a[i]
        y = b[i]
        in_both = abs(x) < np.inf and abs(y) < np.inf
        usable = in_both and (not has_base or abs(c[i]) < np.inf)
        left += usable
        unusable[i] = not usable
        if not usable:
            same = x == y or (x != x and y != y) or (in_both and _is_cast(x, y, spacing))
            out[NONFINITE_DIFFERS] += not same
            a[i] = b[i] = 0.0
    return left


@compile_loop()
def _keep_usable(a: Any, b: Any, c: Any, n: Any, has_base: Any, unusable: Any) -> Any:
    """Move the positions that are not marked to the front."""
    kept = 0
    for i in range(n):
        if not unusable[i]:
            a[kept] = a[i]
            b[kept] = b[i]
            if has_base:
                c[kept] = c[i]
            kept += 1


@compile_loop()
def _add_rows(a: Any, b: Any, n: Any, place: Any, width: Any, rows: Any) -> Any:
    """Add the block to the sums of its rows; its first element is element `place` of all rows."""
    row = place // width
    done = 0
    left = width - place % width
    while done < n:
        end = min(done + left, n)
        _add_row(a[done:end], b[done:end], rows, row)
        done = end
        left = width
        row += 1


@compile_loop(fastmath=_REASSOCIATE)
def _add_row(a: Any, b: Any, rows: Any, row: Any) -> Any:
    """Add a piece of one row to its (Σa², Σb², Σd²)."""
    aa = bb = dd = 0.0
    for i in range(len(a)):
        x = a[i]
        y = b[i]
        d = y - x
        aa += x * x
        bb += y * y
        dd += d * d
    rows[row, 0] += aa
    rows[row, 1] += bb
    rows[row, 2] += dd


@compile_loop(fastmath=_REASSOCIATE)
def _accumulate(a: Any, b: Any, n: Any, scale: Any, floor: Any, out: Any) -> Any:
    """Join the sums of one block of n > 0 finite fp64 values to `out`; return how many differ.

    `out[N]` is n's total so far.
    """
    sum_a = sum_b = sum_aa = sum_bb = sum_dd = sum_ab = sum_abs = sum_ulp = 0.0
    spread_a = spread_b = 0.0
    changed = flips = 0.0
    largest = np.int64(0)  # |d| as bits: magnitudes order as integers, and integers vectorise
    # Squares about a value of the block and not about zero, so that a small spread is no small
    # difference of large numbers.
    shift_a, shift_b = a[0], b[0]
    for i in range(n):
        x = a[i]
        y = b[i]
        d = y - x
        from_a = x - shift_a
        from_b = y - shift_b
        sum_a += from_a
        sum_b += from_b
        spread_a += from_a * from_a
        spread_b += from_b * from_b
        sum_aa += x * x
        sum_bb += y * y
        sum_dd += d * d
        sum_ab += x * y
        size = abs(d)
        sum_abs += size
        largest = max(largest, bits_of_f64(size))
        changed += 1.0 if x != y else 0.0
        flips += 1.0 if (x < 0.0) & (y > 0.0) | (x > 0.0) & (y < 0.0) else 0.0
        power = f64_of_bits(bits_of_f64(x) & EXPONENT)  # 2^⌊log2|x|⌋
        ulp = max(power * scale, floor) if x != 0.0 else 0.0
        sum_ulp += ulp * ulp
    _join_spread(out, M2_A, SUM_A, spread_a, sum_a, shift_a, n)
    _join_spread(out, M2_B, SUM_B, spread_b, sum_b, shift_b, n)
    out[CHANGED] += changed
    out[SIGN_FLIPS] += flips
    out[SUM_AA] += sum_aa
    out[SUM_BB] += sum_bb
    out[SUM_DD] += sum_dd
    out[SUM_AB] += sum_ab
    out[SUM_ABS_D] += sum_abs
    out[MAX_ABS_D] = max(out[MAX_ABS_D], f64_of_bits(largest))
    out[SUM_ULP_SQ] += sum_ulp
    return changed


@compile_loop()
def _join_spread(out: Any, m2: Any, total: Any, squares: Any, shifted: Any, shift: Any, n: Any) -> Any:
    """Join Σ(x − mean)² and Σx of a block to those so far, from its sums about `shift`.

    Chan, Golub & LeVeque, 1979; `analyzer.records.add_sums` does the same between chunks.
    """
    so_far = out[N]
    mean = shift + shifted / n
    within = max(squares - shifted * (shifted / n), 0.0)
    if so_far > 0:
        between = mean - out[total] / so_far
        within += between * between * (so_far * n / (so_far + n))
    out[m2] += within
    out[total] += shift * n + shifted


@compile_loop()
def _count_casts(a: Any, b: Any, n: Any, spacing: Any) -> Any:
    """How many positions differ, and are equal once one side is rounded to the other side's format."""
    equal = 0
    for i in range(n):
        if a[i] != b[i]:
            equal += _is_cast(a[i], b[i], spacing)
    return equal


@compile_loop()
def _is_cast(x: Any, y: Any, spacing: Any) -> Any:
    """Whether x rounded to b's format is y, or y rounded to a's is x."""
    if spacing[2] > 0.0 and _rounds_to(x, y, spacing[2], spacing[3]):
        return True
    return spacing[4] > 0.0 and _rounds_to(y, x, spacing[4], spacing[5])


@compile_loop()
def _rounds_to(x: Any, y: Any, scale: Any, floor: Any) -> Any:
    # torch casts fp64 by way of fp32, and so rounds twice
    return _rounded(x, scale, floor) == y or _rounded(np.float64(np.float32(x)), scale, floor) == y


@compile_loop()
def _rounded(x: Any, scale: Any, floor: Any) -> Any:
    """The nearest multiple of x's spacing in a format, ties to even; its range has no end here."""
    power = f64_of_bits(bits_of_f64(x) & EXPONENT)
    shift = max(power * scale, floor) * ROUND_TO_ULP
    return (x + shift) - shift


@compile_loop()
def _add_tasks(a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    """Add the block's sums over p = a − c and q = b − c."""
    # Two loops: one would need more vector registers than there are.
    _add_task_counts(a, b, c, n, out)
    _add_task_sums(a, b, c, n, out)


@compile_loop(fastmath=_REASSOCIATE)
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


@compile_loop(fastmath=_REASSOCIATE)
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
