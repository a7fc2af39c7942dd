"""The compiled loop of a scan: bytes of two tensors (and of their base) in, sums out.

Sums may be re-associated, which is what lets them run in vector registers; NaN and Inf keep their
meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.compiled import BLOCK, bits_of_f64, compile_loop, f64_of_bits
from analyzer.kernels.compiled_histograms import CHANGED_PLACES, TABLE, WORK, add_to_table, write_histograms
from analyzer.kernels.compiled_views import bytes_at, f64_at, i64_at
from analyzer.kernels.compiled_widening import widen_at
from analyzer.kernels.formats import EXPONENT, ROUND_TO_ULP

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


# The places of a thread's scratch memory: in lines of the cache, so that no vector lies across two.
_TABLE = WORK
CLEAN = _TABLE + CHANGED_PLACES  # so many of them are zero between two tensors
_A = _TABLE + TABLE
_B = _A + BLOCK
_C = _B + BLOCK
_SQUARES = _C + BLOCK
_SLOTS = _SQUARES + BLOCK
_UNUSABLE = _SLOTS + BLOCK
SCRATCH = _UNUSABLE + BLOCK // 8

# The places of what `measure_batch` is told of a span.
(
    AT_A,
    AT_B,
    AT_C,
    COUNT,
    CODE_A,
    CODE_B,
    CODE_C,
    FIRST,
    ROW_WIDTH,
    ROW,
    BINS_AT,
    RESERVED,
    SPAN_WIDTH,
) = range(13)


def new_scratch() -> NDArray[np.float64]:
    """Memory for the loop, which belongs to one thread."""
    memory = np.zeros(SCRATCH + 8)
    start = -(memory.ctypes.data // 8) % 8
    return memory[start : start + SCRATCH]


@compile_loop(_nrt=False, error_model="numpy")
def measure_batch(
    raw_a: NDArray[np.uint8],
    raw_b: NDArray[np.uint8],
    raw_c: NDArray[np.uint8],
    spans: NDArray[np.int64],
    tables: NDArray[np.float64],
    spacing: NDArray[np.float64],
    out: NDArray[np.float64],
    tasks: NDArray[np.float64],
    edges: NDArray[np.int64],
    bins: NDArray[np.float64],
    rows: NDArray[np.float64],
    scratch: NDArray[np.float64],
) -> int:
    """Measure n spans of elements of two byte strings, each for itself; returns how many bins are written.

    All arrays are C-contiguous, and what is added to is zero at first.

    `raw_a`, `raw_b` and the base's `raw_c`, which may be empty, hold the elements of all spans.
    `spans` (n, SPAN_WIDTH) says for each: AT_A, AT_B, AT_C, the offsets of its bytes, AT_C = −1 without a
    base; COUNT, its elements; CODE_A … CODE_C, `formats.FLOATS`' codes; ROW_WIDTH, the elements of a row, or
    0: rows are not told apart; FIRST, which element of its row its first element is; ROW, the place of that
    row in `rows`.
    `tables` (codes, 256) has the values of the 8-bit formats; the rows of wider ones are ignored.
    `spacing` (n, 8) is `formats.spacing` of each span.
    `out` (n, WIDTH) gets the sums, and `tasks` (n, TASK_WIDTH) those with a base, see above.
    `edges` (n, 3, 2) gets the index of the first bin and the number of bins of each of `measures.HISTOGRAMS`,
    without the empty ones at both ends, and `bins` (640 n at most, 2) gets (count, Σd²) of each, span by
    span and histogram by histogram.
    `rows` (r, 3) gets (Σa², Σb², Σd²) of every row.
    `scratch` is of `new_scratch`, and left as it was found.
    """
    written = 0
    for k in range(len(spans)):
        span = i64_at(spans, 8 * SPAN_WIDTH * k, SPAN_WIDTH)
        scales = f64_at(spacing, 64 * k, 8)
        sums = f64_at(out, 8 * WIDTH * k, WIDTH)
        task_sums = f64_at(tasks, 8 * TASK_WIDTH * k, TASK_WIDTH)
        _measure_span(raw_a, raw_b, raw_c, span, tables, scales, sums, task_sums, rows, scratch)
        written = write_histograms(
            f64_at(scratch, 8 * _TABLE, TABLE),
            f64_at(scratch, 0, WORK),
            sums[CHANGED],
            sums[MAX_ABS_D],
            scales,
            i64_at(edges, 48 * k, 6),
            f64_at(bins, 0, bins.size),
            written,
        )
    return written


def measure(
    raw_a: Any, code_a: Any, table_a: Any, raw_b: Any, code_b: Any, table_b: Any, raw_c: Any, code_c: Any,
    table_c: Any, count: Any, spacing: Any, first: Any, width: Any, out: Any, tasks: Any, bins: Any,
    steps: Any, e4m3_steps: Any, rows: Any,
) -> None:  # fmt: skip
    """One span, as long as its caller wants every bin of the histograms."""
    tables = np.zeros((6, 256))
    for code, table in ((code_a, table_a), (code_b, table_b), (code_c, table_c)):
        if len(table):
            tables[code] = table
    span = [
        0,
        0,
        0 if len(raw_c) else -1,
        count,
        code_a,
        code_b,
        code_c,
        first,
        width * (len(rows) > 0),
        0,
        0,
        0,
    ]
    edges, held = np.zeros((1, 3, 2), np.int64), np.empty((640, 2))
    measure_batch(
        raw_a, raw_b, raw_c, np.array([span], np.int64), tables, spacing.reshape(1, 8), out.reshape(1, -1),
        tasks.reshape(1, -1), edges, held, rows, new_scratch(),
    )  # fmt: skip
    at = 0
    for target, (low, number) in zip((bins, steps, e4m3_steps), edges[0].tolist(), strict=True):
        target[low : low + number] += held[at : at + number]
        at += number


@compile_loop(_nrt=False, error_model="numpy")
def _measure_span(
    raw_a: Any, raw_b: Any, raw_c: Any, span: Any, tables: Any, spacing: Any, out: Any, tasks: Any,
    rows: Any, scratch: Any,
) -> Any:  # fmt: skip
    """Add the sums of one span to `out`, `tasks`, `rows` and the histograms' table."""
    a, b, c = f64_at(scratch, 8 * _A, BLOCK), f64_at(scratch, 8 * _B, BLOCK), f64_at(scratch, 8 * _C, BLOCK)
    unusable = bytes_at(scratch, 8 * _UNUSABLE, BLOCK)
    has_base = span[AT_C] >= 0
    for start in range(0, span[COUNT], BLOCK):
        n = min(np.int64(BLOCK), span[COUNT] - start)
        bad_a = widen_at(raw_a, span[AT_A], span[CODE_A], tables, start, n, a)
        bad_b = widen_at(raw_b, span[AT_B], span[CODE_B], tables, start, n, b)
        bad_c = np.int64(0)
        if has_base:
            bad_c = widen_at(raw_c, span[AT_C], span[CODE_C], tables, start, n, c)
        usable = n
        if bad_a + bad_b + bad_c > 0:
            out[NONFINITE_A] += bad_a
            out[NONFINITE_B] += bad_b
            usable = _clear_unusable(a, b, c, n, has_base, unusable, spacing, out)
        if span[ROW_WIDTH] > 0:
            _add_rows(a, b, n, span[FIRST] + start, span[ROW_WIDTH], rows, span[ROW])
        if usable < n:
            _keep_usable(a, b, c, n, has_base, unusable)
            n = usable
        if n:
            changed = _accumulate(a, b, n, spacing[0], spacing[1], out)
            if changed > 0:
                squares = f64_at(scratch, 8 * _SQUARES, BLOCK)
                slots = i64_at(scratch, 8 * _SLOTS, BLOCK)
                add_to_table(a, b, n, spacing, squares, slots, f64_at(scratch, 8 * _TABLE, TABLE))
                if spacing[2] > 0 or spacing[4] > 0:
                    out[CAST_ONLY] += _count_casts(a, b, n, spacing)
            if has_base:
                _add_tasks(a, b, c, n, tasks)
            out[N] += n


@compile_loop(_nrt=False, error_model="numpy")
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


@compile_loop(_nrt=False, error_model="numpy")
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


@compile_loop(_nrt=False, error_model="numpy")
def _add_rows(a: Any, b: Any, n: Any, place: Any, width: Any, rows: Any, row: Any) -> Any:
    """Add the block to the sums of its rows; its first element is number `place` from row `row` on."""
    row += place // width
    done = 0
    left = width - place % width
    while done < n:
        end = min(done + left, n)
        _add_row(a, b, done, end, rows, row)
        done = end
        left = width
        row += 1


@compile_loop(_nrt=False, error_model="numpy", fastmath=_REASSOCIATE)
def _add_row(a: Any, b: Any, start: Any, end: Any, rows: Any, row: Any) -> Any:
    """Add a piece of one row to its (Σa², Σb², Σd²)."""
    aa = bb = dd = 0.0
    for i in range(start, end):
        x = a[i]
        y = b[i]
        d = y - x
        aa += x * x
        bb += y * y
        dd += d * d
    rows[row, 0] += aa
    rows[row, 1] += bb
    rows[row, 2] += dd


@compile_loop(_nrt=False, error_model="numpy", fastmath=_REASSOCIATE)
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


@compile_loop(_nrt=False, error_model="numpy")
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


@compile_loop(_nrt=False, error_model="numpy")
def _count_casts(a: Any, b: Any, n: Any, spacing: Any) -> Any:
    """How many positions differ, and are equal once one side is rounded to the other side's format."""
    equal = 0
    for i in range(n):
        if a[i] != b[i]:
            equal += _is_cast(a[i], b[i], spacing)
    return equal


@compile_loop(_nrt=False, error_model="numpy")
def _is_cast(x: Any, y: Any, spacing: Any) -> Any:
    """Whether x rounded to b's format is y, or y rounded to a's is x."""
    if spacing[2] > 0.0 and _rounds_to(x, y, spacing[2], spacing[3]):
        return True
    return spacing[4] > 0.0 and _rounds_to(y, x, spacing[4], spacing[5])


@compile_loop(_nrt=False, error_model="numpy")
def _rounds_to(x: Any, y: Any, scale: Any, floor: Any) -> Any:
    # torch casts fp64 by way of fp32, and so rounds twice
    return _rounded(x, scale, floor) == y or _rounded(np.float64(np.float32(x)), scale, floor) == y


@compile_loop(_nrt=False, error_model="numpy")
def _rounded(x: Any, scale: Any, floor: Any) -> Any:
    """The nearest multiple of x's spacing in a format, ties to even; its range has no end here."""
    power = f64_of_bits(bits_of_f64(x) & EXPONENT)
    shift = max(power * scale, floor) * ROUND_TO_ULP
    return (x + shift) - shift


@compile_loop(_nrt=False, error_model="numpy")
def _add_tasks(a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    """Add the block's sums over p = a − c and q = b − c."""
    # Two loops: one would need more vector registers than there are.
    _add_task_counts(a, b, c, n, out)
    _add_task_sums(a, b, c, n, out)


@compile_loop(_nrt=False, error_model="numpy", fastmath=_REASSOCIATE)
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


@compile_loop(_nrt=False, error_model="numpy", fastmath=_REASSOCIATE)
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
