"""The compiled loop of a scan: bytes of two tensors (and of their base) in, sums out.

Sums may be re-associated, which is what lets them run in vector registers; NaN and Inf keep their
meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.backends import aligned_zeros
from analyzer.kernels.compiled import BLOCK, compile_inner, compile_loop
from analyzer.kernels.compiled_histograms import CHANGED_PLACES, TABLE, WORK, add_to_table, write_histograms
from analyzer.kernels.compiled_pairs import (
    CAST_ONLY,
    CHANGED,
    MAX_ABS_D,
    NONFINITE_A,
    NONFINITE_B,
    NONFINITE_DIFFERS,
    SIGN_FLIPS,
    N,
    accumulate,
    accumulate_same,
    count_casts,
    count_flips,
    is_cast,
)
from analyzer.kernels.compiled_pairs import (
    WIDTH as WIDTH,
)
from analyzer.kernels.compiled_tasks import TASK_WIDTH as TASK_WIDTH
from analyzer.kernels.compiled_tasks import add_tasks
from analyzer.kernels.compiled_views import REASSOCIATE, bytes_at, f64_at, i32_at, i64_at
from analyzer.kernels.compiled_widening import itemsize, same_bytes, widen_at

# The places of a thread's scratch memory: in lines of the cache, so that no vector lies across two.
_TABLE = WORK
CLEAN = _TABLE + CHANGED_PLACES  # so many of them are zero between two tensors
_A = _TABLE + TABLE
_B = _A + BLOCK
_C = _B + BLOCK
_SQUARES = _C + BLOCK
_SLOTS = _SQUARES + BLOCK
_UNUSABLE = _SLOTS + BLOCK // 2
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


@compile_loop(_nrt=False, error_model="numpy")
def scratch_size(models: int) -> int:
    """How many elements of scratch memory one thread needs for two or three models: of fp64, all zero."""
    return SCRATCH if models >= 0 else 0


def new_scratch() -> NDArray[np.float64]:
    """Memory for the loop, which belongs to one thread."""
    return aligned_zeros(SCRATCH)


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
    written = np.int64(0)  # a plain 0 is a type of its own: all would be compiled once more
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
    return written  # type: ignore[return-value]  # one of numba's own


@compile_inner()
def _measure_span(
    raw_a: Any, raw_b: Any, raw_c: Any, span: Any, tables: Any, spacing: Any, out: Any, tasks: Any,
    rows: Any, scratch: Any,
) -> Any:  # fmt: skip
    """Add the sums of one span to `out`, `tasks`, `rows` and the histograms' table."""
    a, b, c = f64_at(scratch, 8 * _A, BLOCK), f64_at(scratch, 8 * _B, BLOCK), f64_at(scratch, 8 * _C, BLOCK)
    unusable = bytes_at(scratch, 8 * _UNUSABLE, BLOCK)
    has_base = span[AT_C] >= 0
    flips = 0.0
    comparable = span[CODE_A] == span[CODE_B]
    bytes_each = itemsize(span[CODE_A])
    for start in range(0, span[COUNT], BLOCK):
        n = min(np.int64(BLOCK), span[COUNT] - start)
        at = start * bytes_each
        bad_a = widen_at(raw_a, span[AT_A], span[CODE_A], tables, start, n, a)
        bad_c = np.int64(0)
        if has_base:
            bad_c = widen_at(raw_c, span[AT_C], span[CODE_C], tables, start, n, c)
        same = False
        if comparable and bad_a + bad_c == 0:
            same = same_bytes(raw_a, span[AT_A] + at, raw_b, span[AT_B] + at, n * bytes_each)
        if same:
            if span[ROW_WIDTH] > 0:
                _add_rows(a, a, n, span[FIRST] + start, span[ROW_WIDTH], rows, span[ROW])
            accumulate_same(a, n, spacing[0], spacing[1], out)
            if has_base:
                add_tasks(a, a, c, n, tasks)
            out[N] += n
            continue
        bad_b = widen_at(raw_b, span[AT_B], span[CODE_B], tables, start, n, b)
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
            changed = accumulate(a, b, n, spacing[0], spacing[1], out)
            if span[CODE_A] == 0 or span[CODE_B] == 0:
                flips += count_flips(a, b, n)
            if changed > 0:
                squares = f64_at(scratch, 8 * _SQUARES, BLOCK)
                slots = i32_at(scratch, 8 * _SLOTS, BLOCK)
                add_to_table(a, b, n, spacing, squares, slots, f64_at(scratch, 8 * _TABLE, TABLE))
                if spacing[2] > 0 or spacing[4] > 0:
                    out[CAST_ONLY] += count_casts(a, b, n, spacing)
            if has_base:
                add_tasks(a, b, c, n, tasks)
            out[N] += n
    if span[CODE_A] == 0 or span[CODE_B] == 0:
        out[SIGN_FLIPS] = flips


@compile_inner()
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
            same = x == y or (x != x and y != y) or (in_both and is_cast(x, y, spacing))
            out[NONFINITE_DIFFERS] += not same
            a[i] = b[i] = 0.0
    return left


@compile_inner()
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


@compile_inner()
def _add_rows(a: Any, b: Any, n: Any, place: Any, width: Any, rows: Any, row: Any) -> Any:
    """Add the block to the sums of its rows; its first element is number `place` from row `row` on."""
    row += place // width
    done = 0
    left = width - place % width
    while done < n:
        end = min(done + left, n)
        _add_row(f64_at(a, 8 * done, end - done), f64_at(b, 8 * done, end - done), rows, row)
        done = end
        left = width
        row += 1


@compile_inner(fastmath=REASSOCIATE)
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
