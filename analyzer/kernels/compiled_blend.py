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
    compile_inner,
    compile_loop,
    f32_of_bits,
    f64_of_bits,
    half_to_double,
    single_to_half,
    widen_half,
)
from analyzer.kernels.compiled_views import bytes_at, f32_at, f64_at, u16_at
from analyzer.kernels.compiled_widening import widen_at


@compile_inner()
def _narrow_bits(values: Any, n: Any, out: Any, sign_bit: Any, rounding: Any) -> Any:
    """`_narrow` for the formats that the processor does not round to by itself."""
    # One by one: to take an array apart may fail, and a loop that may fail needs Python.
    drop, rebias, smallest_normal = rounding[0], rounding[1], rounding[2]
    magic, largest, nan = rounding[3], rounding[4], rounding[5]
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


@compile_inner()
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


@compile_inner()
def narrow_half_by_hardware(values: Any, n: Any, out: Any, _rounding: Any) -> Any:
    """Round n fp64 values to fp16; return how many are not finite."""
    bad = 0
    for i in range(n):
        code = _half_of(values[i])
        bad += not (code & np.int32(0x7FFF)) < np.int32(0x7C00)
        out[i] = code
    return bad


@compile_inner()
def narrow_half_by_bits(values: Any, n: Any, out: Any, rounding: Any) -> Any:
    """The same on any processor, in twice the time."""
    return _narrow_bits(values, n, out, np.int64(0x8000), rounding)


narrow_half = narrow_half_by_hardware if KNOWS_HALF else narrow_half_by_bits


@compile_inner()
def _narrow(values: Any, n: Any, raw: Any, code: Any, rounding: Any, start: Any) -> Any:
    """Round n fp64 values to a format, to nearest and ties to even; return how many are not finite."""
    bad = 0
    if code == 0:
        f64 = f64_at(raw, 8 * start, n)
        for i in range(n):
            f64[i] = values[i] if values[i] == values[i] else np.nan  # one code for every NaN
            bad += not abs(f64[i]) < np.inf
    elif code == 1:
        f32 = f32_at(raw, 4 * start, n)
        for i in range(n):
            f32[i] = np.float32(values[i]) if values[i] == values[i] else np.float32(np.nan)
            bad += not abs(f32[i]) < np.inf
    elif code == 2:
        bad = narrow_half(values, n, u16_at(raw, 2 * start, n), rounding)
    elif code == 3:
        bad = _narrow_bits(values, n, u16_at(raw, 2 * start, n), np.int64(0x8000), rounding)
    else:
        bad = _narrow_bits(values, n, bytes_at(raw, start, n), np.int64(0x80), rounding)
    return bad


@compile_inner()
def _move(a: Any, b: Any, n: Any, alpha: Any) -> Any:
    """Put a + alpha·(b − a) in the place of a."""
    for i in range(n):
        if a[i] != b[i]:  # what both sides share stays as it is: signed zeros, Inf
            a[i] += alpha * (b[i] - a[i])


@compile_inner()
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


@compile_inner()
def blend_half_by_bits(
    half_a: Any, half_b: Any, n: Any, alpha: Any, out: Any, a: Any, b: Any, rounding: Any
) -> Any:
    """The same on any processor, by way of a and b."""
    widen_half(half_a, n, a)
    widen_half(half_b, n, b)
    _move(a, b, n, alpha)
    return narrow_half(a, n, out, rounding)


blend_half = blend_half_by_hardware if KNOWS_HALF else blend_half_by_bits


@compile_loop(_nrt=False, error_model="numpy")
def blend(
    raw_a: NDArray[np.uint8],
    code_a: int,
    raw_b: NDArray[np.uint8],
    code_b: int,
    tables: NDArray[np.float64],
    count: int,
    alpha: float,
    raw_out: NDArray[np.uint8],
    code_out: int,
    rounding: NDArray[np.int64],
    scratch: NDArray[np.float64],
) -> int:
    """Write a + alpha·(b − a), formed in fp64 and rounded once; return how many are not finite.

    `tables` (codes, 256) has the values of the 8-bit formats; `scratch` is 2 · BLOCK elements of no content.
    """
    a, b = f64_at(scratch, 0, BLOCK), f64_at(scratch, 8 * BLOCK, BLOCK)
    bad = 0
    for start in range(0, count, BLOCK):
        n = min(np.int64(BLOCK), count - start)
        if code_a == 2 and code_b == 2 and code_out == 2:
            half_a, half_b = u16_at(raw_a, 2 * start, n), u16_at(raw_b, 2 * start, n)
            bad += blend_half(half_a, half_b, n, alpha, u16_at(raw_out, 2 * start, n), a, b, rounding)
        else:
            widen_at(raw_a, 0, code_a, tables, start, n, a)
            widen_at(raw_b, 0, code_b, tables, start, n, b)
            _move(a, b, n, alpha)
            bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad


@compile_loop(_nrt=False, error_model="numpy")
def convert(
    raw: NDArray[np.uint8],
    code: int,
    tables: NDArray[np.float64],
    count: int,
    raw_out: NDArray[np.uint8],
    code_out: int,
    rounding: NDArray[np.int64],
    scratch: NDArray[np.float64],
) -> int:
    """Write the same values in another format, rounded once; return how many are not finite."""
    a = f64_at(scratch, 0, BLOCK)
    bad = 0
    for start in range(0, count, BLOCK):
        n = min(np.int64(BLOCK), count - start)
        widen_at(raw, 0, code, tables, start, n, a)
        bad += _narrow(a, n, raw_out, code_out, rounding, start)
    return bad
