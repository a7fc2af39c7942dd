"""The compiled loops of a merge: bytes of two tensors in, merged or converted bytes out.

Nothing may be re-associated here: the same bytes must come out on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.compiled import (
    BLOCK,
    KNOWS_HALF,
    bits_of_f32,
    bits_of_f64,
    compile_loop,
    f32_of_bits,
    f64_of_bits,
    half_to_double,
    single_to_half,
    widen,
    widen_half,
)


@compile_loop()
def _narrow_bits(values: Any, n: Any, out: Any, sign_bit: Any, rounding: Any) -> Any:
    """`_narrow` for the formats that the processor does not round to by itself."""
    drop, rebias, smallest_normal, magic, largest, nan = rounding
    half_minus_one = (np.int64(1) << (drop - 1)) - 1
    magic_value = f64_of_bits(magic)
    bad = 0
    for i in range(n):
        bits = bits_of_f64(values[i])
        magnitude = bits & np.int64(0x7FFFFFFFFFFFFFFF)
        # Round to nearest even: add just under half, and the last kept bit breaks ties.
        normal = ((magnitude + half_minus_one + ((magnitude >> drop) & 1)) >> drop) - rebias
        # Below the normal range the spacing is fixed: the addition itself rounds to it.
        subnormal = bits_of_f64(abs(values[i]) + magic_value) - magic
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


@compile_loop()
def _half_of(x: Any) -> Any:
    """The fp16 code of an fp64 value, by the processor's own instructions.

    On the way to fp32 it is rounded to odd: towards zero, with the last bit set if anything is lost.
    That bit lies below fp16's last one and its half, so the second rounding is that of the value itself
    (Boldo & Melquiond, Emulation of FMA and correctly rounded sums, 2008).
    """
    single = np.float32(x)
    back = np.float64(single)
    bits = bits_of_f32(single)
    odd = (bits - np.int32(abs(back) > abs(x))) | np.int32(1)
    code = np.int32(single_to_half(f32_of_bits(np.int32(bits if back == x else odd))))
    return code if x == x else np.int32(0x7E00)  # one code for every NaN


@compile_loop()
def narrow_half_by_hardware(values: Any, n: Any, out: Any, _rounding: Any) -> Any:
    """Round n fp64 values to fp16; return how many are not finite."""
    bad = 0
    for i in range(n):
        code = _half_of(values[i])
        bad += not (code & np.int32(0x7FFF)) < np.int32(0x7C00)
        out[i] = code
    return bad


@compile_loop()
def narrow_half_by_bits(values: Any, n: Any, out: Any, rounding: Any) -> Any:
    """The same on any processor, in twice the time."""
    return _narrow_bits(values, n, out, np.int64(0x8000), rounding)


narrow_half = narrow_half_by_hardware if KNOWS_HALF else narrow_half_by_bits


@compile_loop()
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
    elif code == 2:
        bad = narrow_half(values, n, raw.view(np.uint16)[start : start + n], rounding)
    elif code == 3:
        bad = _narrow_bits(values, n, raw.view(np.uint16)[start : start + n], np.int64(0x8000), rounding)
    else:
        bad = _narrow_bits(values, n, raw[start : start + n], np.int64(0x80), rounding)
    return bad


@compile_loop()
def _move(a: Any, b: Any, n: Any, alpha: Any) -> Any:
    """Put a + alpha·(b − a) in the place of a."""
    for i in range(n):
        if a[i] != b[i]:  # what both sides share stays as it is: signed zeros, Inf
            a[i] += alpha * (b[i] - a[i])


@compile_loop()
def blend_half_by_hardware(
    half_a: Any, half_b: Any, n: Any, alpha: Any, out: Any, _a: Any, _b: Any, _rounding: Any
) -> Any:
    """`blend` of n fp16 numbers into fp16, in one loop: two thirds of the time of four."""
    bad = 0
    for i in range(n):
        a, b = half_to_double(half_a[i]), half_to_double(half_b[i])
        code = _half_of(a + alpha * (b - a) if a != b else a)
        bad += not (code & np.int32(0x7FFF)) < np.int32(0x7C00)
        out[i] = code
    return bad


@compile_loop()
def blend_half_by_bits(
    half_a: Any, half_b: Any, n: Any, alpha: Any, out: Any, a: Any, b: Any, rounding: Any
) -> Any:
    """The same on any processor, by way of a and b."""
    widen_half(half_a, n, a)
    widen_half(half_b, n, b)
    _move(a, b, n, alpha)
    return narrow_half(a, n, out, rounding)


blend_half = blend_half_by_hardware if KNOWS_HALF else blend_half_by_bits


@compile_loop()
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
        if code_a == 2 and code_b == 2 and code_out == 2:
            half_a = raw_a.view(np.uint16)[start : start + n]
            half_b = raw_b.view(np.uint16)[start : start + n]
            out = raw_out.view(np.uint16)[start : start + n]
            bad += blend_half(half_a, half_b, n, alpha, out, a, b, rounding)
        else:
            widen(raw_a, code_a, table_a, start, n, a)
            widen(raw_b, code_b, table_b, start, n, b)
            _move(a, b, n, alpha)
            bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad


@compile_loop()
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
        widen(raw, code, table, start, n, a)
        bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad
