"""Elements of a byte string as fp64, from any offset; tells whether all of them are finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.kernels.compiled import compile_loop, count_at_least, f32_of_bits, widen_half
from analyzer.kernels.compiled_views import bytes_at, f32_at, f64_at, u16_at


@compile_loop(_nrt=False, error_model="numpy")
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
    elif code == 2:
        widen_half(u16_at(raw, at + 2 * start, n), n, out)
    elif code == 3:
        brain = u16_at(raw, at + 2 * start, n)
        for i in range(n):
            out[i] = np.float64(f32_of_bits(np.int32(np.int32(brain[i]) << np.int32(16))))
    else:
        codes = bytes_at(raw, at + start, n)
        values = f64_at(tables, 2048 * code, 256)
        for i in range(n):
            out[i] = values[codes[i]]
    return count_at_least(out, n, np.inf)
