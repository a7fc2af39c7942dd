"""The fused CPU loops, compiled by numba: bytes of two tensors in, sums or merged bytes out.

Both loops work on blocks of 1024 elements that stay in the first-level cache: widen both sides to
fp64, exactly, then do all the arithmetic of the block in one pass. The interpreter lock is released
throughout, so threads scale. The first call on a machine compiles (a few seconds) and stores the
result beside the package, or in the user's cache folder.

Where a host program has told its threads to flush subnormal numbers to zero (no thread of ours is
told so), fp16 is still widened exactly; fp32 and bf16 values below 1.2e-38 then count as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 1024  # two fp64 blocks are 16 KiB: half of the smallest first-level cache in use

# The places of the sums in the array that `measure` fills.
(
    N,
    NONFINITE_A,
    NONFINITE_B,
    CHANGED,
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
) = range(17)

# Sums may be re-associated, which is what lets them run in vector registers; NaN and Inf keep their
# meaning. Merged values may not: the same bytes must come out on every machine.
_REASSOCIATE = {"reassoc", "nsz", "contract"}


def _compile(**options: Any) -> Callable[[Function], Function]:
    """`numba.njit`, cached on disk where some folder for the cache is writable."""

    def decorate(function: Function) -> Function:
        try:
            compiled = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # "no locator available": a read-only installation without a home
            compiled = njit(nogil=True, **options)(function)
        return compiled  # type: ignore[no-any-return]  # numba's decorators are untyped

    return decorate


def _bitcast(kind_in: Any, kind_out: Any, llvm_type: Any) -> Any:
    """A function for compiled code that reads a number's bits as another type of the same width."""

    @intrinsic
    def reinterpret(_context: Any, _value: Any) -> Any:
        return kind_out(kind_in), lambda _c, builder, _s, args: builder.bitcast(args[0], llvm_type)

    return reinterpret


_f32_of_bits = _bitcast(types.int32, types.float32, ir.FloatType())
_f64_of_bits = _bitcast(types.int64, types.float64, ir.DoubleType())
_bits_of_f64 = _bitcast(types.float64, types.int64, ir.IntType(64))


@_compile()
def measure(
    raw_a: NDArray[np.uint8],
    code_a: int,
    table_a: NDArray[np.float64],
    raw_b: NDArray[np.uint8],
    code_b: int,
    table_b: NDArray[np.float64],
    count: int,
    scale: float,
    floor: float,
    out: NDArray[np.float64],
) -> None:
    """Add the sums of `count` elements of two byte strings to `out` (WIDTH places, see above).

    `table_*` hold the 256 values of an 8-bit format and are ignored for the wider ones; `scale` and
    `floor` are `formats.ulp_parameters`.
    """
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        bad_a = _widen(raw_a, code_a, table_a, start, n, a)
        bad_b = _widen(raw_b, code_b, table_b, start, n, b)
        if bad_a + bad_b > 0:
            out[NONFINITE_A] += bad_a
            out[NONFINITE_B] += bad_b
            n = _keep_finite(a, b, n)
        if n:
            _accumulate(a, b, n, scale, floor, out)
            out[N] += n


@_compile()
def blend(
    raw_a: NDArray[np.uint8],
    code_a: int,
    table_a: NDArray[np.float64],
    raw_b: NDArray[np.uint8],
    code_b: int,
    table_b: NDArray[np.float64],
    count: int,
    alpha: float,
    raw_out: NDArray[np.uint8],
    code_out: int,
    rounding: NDArray[np.int64],
) -> int:
    """Write a + alpha·(b − a), formed in fp64 and rounded once; return how many are not finite."""
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    bad = 0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        _widen(raw_a, code_a, table_a, start, n, a)
        _widen(raw_b, code_b, table_b, start, n, b)
        for i in range(n):
            if a[i] != b[i]:  # what both sides share stays as it is: signed zeros, Inf
                a[i] += alpha * (b[i] - a[i])
        bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad


@_compile()
def convert(
    raw: NDArray[np.uint8],
    code: int,
    table: NDArray[np.float64],
    count: int,
    raw_out: NDArray[np.uint8],
    code_out: int,
    rounding: NDArray[np.int64],
) -> int:
    """Write the same values in another format, rounded once; return how many are not finite."""
    a = np.empty(BLOCK, np.float64)
    bad = 0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        _widen(raw, code, table, start, n, a)
        bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad


@_compile()
def _widen(raw: Any, code: Any, table: Any, start: Any, n: Any, out: Any) -> Any:
    """Elements start … start+n as fp64, exactly; return how many are NaN or Inf."""
    if code == 0:
        f64 = raw.view(np.float64)[start : start + n]
        for i in range(n):
            out[i] = f64[i]
    elif code == 1:
        f32 = raw.view(np.float32)[start : start + n]
        for i in range(n):
            out[i] = np.float64(f32[i])
    elif code == 2:
        half = raw.view(np.uint16)[start : start + n]
        # fp16's fields, moved to where fp32 has them, are the value divided by 2^112. Subnormals
        # are subnormal there too: a thread that flushes those to zero must take the slow road.
        if _f32_of_bits(np.int32(min(n, 1))) * np.float32(2.0**112) > 0:
            for i in range(n):
                h = np.int32(half[i])
                fields = (h & np.int32(0x7FFF)) << np.int32(13) | (h & np.int32(0x8000)) << np.int32(16)
                out[i] = np.float64(_f32_of_bits(np.int32(fields)) * np.float32(2.0**112))
        else:
            for i in range(n):
                h = np.int32(half[i])
                magnitude = h & np.int32(0x7FFF)
                normal = _f32_of_bits(np.int32((magnitude << np.int32(13)) + np.int32(112 << 23)))
                x = normal if magnitude >= np.int32(0x400) else np.float32(magnitude) * np.float32(2.0**-24)
                out[i] = np.float64(x if h == magnitude else -x)
        # Inf and NaN came out as 65536 and more, which fp16 does not have.
        if _count_at_least(out, n, 65536.0) > 0:
            for i in range(n):
                if abs(out[i]) == 65536.0:
                    out[i] *= np.inf
                elif abs(out[i]) > 65536.0:
                    out[i] = np.nan
    elif code == 3:
        brain = raw.view(np.uint16)[start : start + n]
        for i in range(n):
            out[i] = np.float64(_f32_of_bits(np.int32(np.int32(brain[i]) << np.int32(16))))
    else:
        for i in range(n):
            out[i] = table[raw[start + i]]
    return _count_at_least(out, n, np.inf)


@_compile()
def _count_at_least(values: Any, n: Any, limit: Any) -> Any:
    """How many magnitudes are `limit` or more, or NaN."""
    count = 0
    for i in range(n):
        count += not abs(values[i]) < limit
    return count


@_compile()
def _keep_finite(a: Any, b: Any, n: Any) -> Any:
    """Move the positions that are finite on both sides to the front; return how many there are."""
    kept = 0
    for i in range(n):
        if abs(a[i]) < np.inf and abs(b[i]) < np.inf:
            a[kept] = a[i]
            b[kept] = b[i]
            kept += 1
    return kept


@_compile(fastmath=_REASSOCIATE)
def _accumulate(a: Any, b: Any, n: Any, scale: Any, floor: Any, out: Any) -> Any:
    """Join the sums of one block of n > 0 finite fp64 values to `out`; `out[N]` is n's total so far."""
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
        largest = max(largest, _bits_of_f64(size))
        changed += 1.0 if x != y else 0.0
        flips += 1.0 if (x < 0.0) & (y > 0.0) | (x > 0.0) & (y < 0.0) else 0.0
        power = _f64_of_bits(_bits_of_f64(x) & np.int64(0x7FF0000000000000))  # 2^⌊log2|x|⌋
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
    out[MAX_ABS_D] = max(out[MAX_ABS_D], _f64_of_bits(largest))
    out[SUM_ULP_SQ] += sum_ulp


@_compile()
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


@_compile()
def _narrow(values: Any, n: Any, raw: Any, code: Any, rounding: Any, start: Any) -> Any:
    """Round n fp64 values to a format, to nearest and ties to even; return how many are not finite."""
    bad = 0
    if code == 0:
        f64 = raw.view(np.float64)[start : start + n]
        for i in range(n):
            f64[i] = values[i] if values[i] == values[i] else np.nan  # one code for every NaN
            bad += not abs(f64[i]) < np.inf
    elif code == 1:
        f32 = raw.view(np.float32)[start : start + n]
        for i in range(n):
            f32[i] = np.float32(values[i]) if values[i] == values[i] else np.float32(np.nan)
            bad += not abs(f32[i]) < np.inf
    elif code <= 3:
        bad = _narrow_bits(values, n, raw.view(np.uint16)[start : start + n], np.int64(0x8000), rounding)
    else:
        bad = _narrow_bits(values, n, raw[start : start + n], np.int64(0x80), rounding)
    return bad


@_compile()
def _narrow_bits(values: Any, n: Any, out: Any, sign_bit: Any, rounding: Any) -> Any:
    """`_narrow` for the formats that the processor does not round to by itself."""
    drop, rebias, smallest_normal, magic, largest, nan = rounding
    half_minus_one = (np.int64(1) << (drop - 1)) - 1
    magic_value = _f64_of_bits(magic)
    bad = 0
    for i in range(n):
        bits = _bits_of_f64(values[i])
        magnitude = bits & np.int64(0x7FFFFFFFFFFFFFFF)
        # Round to nearest even: add just under half, and the last kept bit breaks ties.
        normal = ((magnitude + half_minus_one + ((magnitude >> drop) & 1)) >> drop) - rebias
        # Below the normal range the spacing is fixed: the addition itself rounds to it.
        subnormal = _bits_of_f64(abs(values[i]) + magic_value) - magic
        code = normal if magnitude >= smallest_normal else subnormal
        code = min(code, largest)
        finite = magnitude < np.int64(0x7FF0000000000000)
        is_nan = magnitude > np.int64(0x7FF0000000000000)
        # e4m3fn has no Inf: what is infinite becomes NaN; finite values stop at its largest.
        no_infinity = nan == largest + 1
        code = nan if is_nan or (no_infinity and not finite) else code
        bad += not finite or (code == largest and not no_infinity)
        # One code for every NaN: its sign is an accident of the processor.
        out[i] = code | (sign_bit if bits < 0 and code != nan else np.int64(0))
    return bad
