"""The compiled loop for rounding where a file holds codes times factors; see `analyzer.coded_rounding`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.compiled import BLOCK, bits_of_f64, compile_loop, f64_of_bits, widen
from analyzer.kernels.formats import EXPONENT, ROUND_TO_ULP, TIE
from analyzer.measures import LOWEST_STEP, STEP_BINS

# The places of what a storage is in the array that tells it.
SCALE, FLOOR, CODED, READ_AS_F32, STORAGE_WIDTH = range(5)

_BIN_SHIFT = np.int64(51)  # leaves the exponent and one bit of the significand: two bins to an octave
_FIRST_BIN = np.int64((1023 + LOWEST_STEP) << 1)


@compile_loop()
def coded_rounding(
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
    storage_a: NDArray[np.float64],
    factors_a: NDArray[np.float64],
    storage_b: NDArray[np.float64],
    factors_b: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add Σ ulp(a)² and the number of values that differ and are equal after a cast to `out`.

    `storage_*` (STORAGE_WIDTH places) have a scale of 0 where a storage is not the coarser one. `factors_*`
    are one for each element, or one for all.
    """
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    c = np.zeros(BLOCK, np.float64)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        widen(raw_a, code_a, table_a, start, n, a)
        widen(raw_b, code_b, table_b, start, n, b)
        if len(raw_c):
            widen(raw_c, code_c, table_c, start, n, c)
        for i in range(n):
            x = a[i]
            y = b[i]
            if not (abs(x) < np.inf and abs(y) < np.inf and abs(c[i]) < np.inf):
                continue
            ulp = 0.0
            equal = False
            if storage_a[SCALE] > 0.0:
                f = factors_a[start + i if len(factors_a) > 1 else 0]
                ulp = max(ulp, _spacing(x, f, storage_a))
                equal = equal or (x != y and _is_cast(y, x, f, storage_a))
            if storage_b[SCALE] > 0.0:
                f = factors_b[start + i if len(factors_b) > 1 else 0]
                ulp = max(ulp, _spacing(x, f, storage_b))
                equal = equal or (x != y and _is_cast(x, y, f, storage_b))
            if x != 0.0:
                out[0] += ulp * ulp
            out[1] += equal


@compile_loop()
def coded_steps(
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
    storage: NDArray[np.float64],
    factors: NDArray[np.float64],
    steps: NDArray[np.float64],
) -> None:
    """Add (count, Σd²) to `steps` (STEP_BINS, 2) by |d| / ulp(a), ulp = spacing in A's storage."""
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    c = np.zeros(BLOCK, np.float64)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        widen(raw_a, code_a, table_a, start, n, a)
        widen(raw_b, code_b, table_b, start, n, b)
        if len(raw_c):
            widen(raw_c, code_c, table_c, start, n, c)
        for i in range(n):
            d = b[i] - a[i]
            # of NaN and Inf neither comparison holds
            if not (0.0 < abs(d) < np.inf and abs(c[i]) < np.inf):
                continue
            ulp = _spacing(a[i], factors[start + i if len(factors) > 1 else 0], storage)
            ratio = abs(d) / ulp if ulp > 0.0 else 0.0
            place = (bits_of_f64(ratio) >> _BIN_SHIFT) - _FIRST_BIN
            place = min(max(place, np.int64(0)), np.int64(STEP_BINS - 1))
            steps[place, 0] += 1.0
            steps[place, 1] += d * d


@compile_loop()
def _spacing(value: Any, factor: Any, storage: Any) -> Any:
    """The spacing at a value; 0 where the factor gives no other numbers than zero."""
    if not 0.0 < factor < np.inf:
        return 0.0
    return _in_code(value / factor, storage) * factor


@compile_loop()
def _in_code(code: Any, storage: Any) -> Any:
    power = f64_of_bits(bits_of_f64(code) & EXPONENT)  # 2^⌊log2|x|⌋
    return max(power * storage[SCALE], storage[FLOOR])


@compile_loop()
def _is_cast(value: Any, stored: Any, factor: Any, storage: Any) -> Any:
    """Whether a cast of `value` leaves what is `stored`, as it is read back."""
    if not 0.0 < factor < np.inf:
        return False
    code = value / factor
    spacing = _in_code(code, storage)
    nearest = (code + spacing * ROUND_TO_ULP) - spacing * ROUND_TO_ULP
    product = nearest * factor
    if storage[READ_AS_F32] > 0.0:
        product = np.float64(np.float32(product))
    if product == stored:
        return True
    if storage[CODED] == 0.0 or nearest == code:
        return False
    return abs(abs(value - stored) / (spacing * factor / 2) - 1) < TIE
