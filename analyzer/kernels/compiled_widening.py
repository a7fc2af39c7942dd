"""Elements of a byte string as fp64, from any offset; tells whether all of them are finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.kernels.compiled import compile_inner, count_at_least, f32_of_bits, widen_half
from analyzer.kernels.compiled_views import bytes_at, f32_at, f64_at, i32_at, i64_at, u16_at


@compile_inner()
def widen_at(raw: Any, at: Any, code: Any, tables: Any, start: Any, n: Any, out: Any) -> Any:
    """Elements start … start+n of those at byte `at` as fp64, exactly; return how many are NaN or Inf."""
    if code == 0:
        f64 = f64_at(raw, at + 8 * start, n)
        for i in range(n):
            out[i] = f64[i]
    elif code == 1:
        f32 = f32_at(raw, at + 4 * start, n)
        for i in range(n):
            out[i] = np.float64(f32[i])
        if _largest(i32_at(raw, at + 4 * start, n), np.int32(0x7FFFFFFF)) < 0x7F800000:
            return 0
    elif code == 2:
        half = u16_at(raw, at + 2 * start, n)
        widen_half(half, n, out)
        if _largest(half, np.int32(0x7FFF)) < 0x7C00:
            return 0
    elif code == 3:
        brain = u16_at(raw, at + 2 * start, n)
        for i in range(n):
            out[i] = np.float64(f32_of_bits(np.int32(np.int32(brain[i]) << np.int32(16))))
        if _largest(brain, np.int32(0x7FFF)) < 0x7F80:
            return 0
    else:
        codes = bytes_at(raw, at + start, n)
        values = f64_at(tables, 2048 * code, 256)
        for i in range(n):
            out[i] = values[codes[i]]
    return count_at_least(out, n, np.inf)


@compile_inner()
def _largest(bits: Any, mask: Any) -> Any:
    """The largest of all magnitudes as an integer, four times as many to a register as there are of fp64."""
    largest = np.int32(0)
    for i in range(len(bits)):
        largest = max(largest, np.int32(np.int32(bits[i]) & mask))
    return largest


@compile_inner()
def same_bytes(raw_a: Any, at_a: Any, raw_b: Any, at_b: Any, size: Any) -> Any:
    """Whether `size` bytes are equal; told at once where the first eight are not."""
    a, b = i64_at(raw_a, at_a, size >> 3), i64_at(raw_b, at_b, size >> 3)
    if size >= 8 and a[0] != b[0]:
        return False
    different = np.int64(0)
    for i in range(size >> 3):
        different |= a[i] ^ b[i]
    first, second = bytes_at(raw_a, at_a, size), bytes_at(raw_b, at_b, size)
    for i in range(size & ~7, size):
        different |= np.int64(first[i] != second[i])
    return different == 0


@compile_inner()
def itemsize(code: Any) -> Any:
    """The bytes of an element, by the code of its format."""
    if code == 0:
        return np.int64(8)
    if code == 1:
        return np.int64(4)
    return np.int64(2) if code < 4 else np.int64(1)
