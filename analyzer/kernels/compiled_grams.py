"""The compiled loop of a recovery: bytes of a merge and of its parents in, sums of products out.

With e = m − a, d = b − a and g = c − a. Sums may be re-associated, as in `compiled_sums`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.compiled import BLOCK, bits_of_f64, compile_loop, f64_of_bits, widen
from analyzer.kernels.formats import EXPONENT

# The places of the sums in the array that `measure` fills; the last two join as maximum and minimum.
(
    N,
    MOVED,
    NOT_TAKEN,
    STILL,
    FOREIGN,
    EE,
    DD,
    ED,
    GG,
    DG,
    EG,
    FOREIGN_EE,
    ULP,
    ULP_DD,
    ULP_DG,
    ULP_GG,
    LOW,
    HIGH,
    WIDTH,
) = range(19)

_REASSOCIATE = {"reassoc", "nsz", "contract"}


@compile_loop()
def measure(
    raw_m: NDArray[np.uint8],
    code_m: int,
    table_m: NDArray[np.float64],
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
    limits: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Join the sums of `count` elements to `out` (WIDTH places, see above).

    `raw_c` is empty where there is no third parent; then g = 0. `limits` are six numbers: scale and floor
    of the spacing of the merge's dtype, as in `formats.ulp_parameters`, and four of
    `analyzer.recovery.grams`. A position that is not finite in some side is left out.
    """
    m = np.empty(BLOCK, np.float64)
    a = np.empty(BLOCK, np.float64)
    b = np.empty(BLOCK, np.float64)
    c = np.empty(BLOCK, np.float64)
    has_c = len(raw_c) > 0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        bad = widen(raw_m, code_m, table_m, start, n, m)
        bad += widen(raw_a, code_a, table_a, start, n, a)
        bad += widen(raw_b, code_b, table_b, start, n, b)
        if has_c:
            bad += widen(raw_c, code_c, table_c, start, n, c)
        else:
            c[:n] = a[:n]
        if bad > 0:
            n = _keep_finite(m, a, b, c, n)
        if _add_counts(m, a, b, c, n, out) > 0.0:
            _add_foreign(m, a, b, c, n, limits, out)
        _add_sums(m, a, b, n, limits, has_c, out)
        _add_bounds(m, a, b, n, limits, out)
        if has_c:
            _add_third(m, a, b, c, n, limits, out)
        out[N] += n


@compile_loop()
def _keep_finite(m: Any, a: Any, b: Any, c: Any, n: Any) -> Any:
    """Move the positions that are finite on all sides to the front; return how many there are."""
    kept = 0
    for i in range(n):
        largest = max(max(abs(m[i]), abs(a[i])), max(abs(b[i]), abs(c[i])))
        finite = m[i] == m[i] and a[i] == a[i] and b[i] == b[i] and c[i] == c[i]
        if finite and largest < np.inf:
            m[kept] = m[i]
            a[kept] = a[i]
            b[kept] = b[i]
            c[kept] = c[i]
            kept += 1
    return kept


@compile_loop()
def _spacing(x: Any, scale: Any, floor: Any) -> Any:
    """The distance of neighbouring numbers at |x|."""
    return max(f64_of_bits(bits_of_f64(x) & EXPONENT) * scale, floor)


@compile_loop(fastmath=_REASSOCIATE)
def _add_counts(m: Any, a: Any, b: Any, c: Any, n: Any, out: Any) -> Any:
    """How many positions moved; return how many moved where the parents hold one value."""
    moved = not_taken = still = strays = 0.0
    for i in range(n):
        has_e = 1.0 if m[i] != a[i] else 0.0
        stands = 1.0 if (b[i] == a[i]) & (c[i] == a[i]) else 0.0
        moved += has_e
        not_taken += 1.0 if m[i] != b[i] else 0.0
        still += stands
        strays += has_e * stands
    out[MOVED] += moved
    out[NOT_TAKEN] += not_taken
    out[STILL] += still
    return strays


@compile_loop()
def _add_foreign(m: Any, a: Any, b: Any, c: Any, n: Any, limits: Any, out: Any) -> Any:
    """Count what moved by more than rounding can where the parents hold one value."""
    scale, floor, thrice, arithmetic = limits[0], limits[1], limits[3], limits[4]
    for i in range(n):
        if m[i] != a[i] and b[i] == a[i] and c[i] == a[i]:
            e = m[i] - a[i]
            largest = max(abs(m[i]), abs(a[i]))
            if abs(e) > thrice * _spacing(largest, scale, floor) + arithmetic * largest:
                out[FOREIGN] += 1.0
                out[FOREIGN_EE] += e * e


@compile_loop(fastmath=_REASSOCIATE)
def _add_sums(m: Any, a: Any, b: Any, n: Any, limits: Any, has_c: Any, out: Any) -> Any:
    """The sums of e and d, and of the spacings at m; with a third parent Σulp² is `_add_third`'s."""
    scale, floor = limits[0], limits[1]
    ee = dd = ed = ulp = ulp_dd = 0.0
    for i in range(n):
        e = m[i] - a[i]
        d = b[i] - a[i]
        ee += e * e
        dd += d * d
        ed += e * d
        spacing = _spacing(m[i], scale, floor)
        # What no parent moved, and the merge neither, was not rounded.
        square = spacing * spacing if (e != 0.0) | (d != 0.0) else 0.0
        ulp += square
        ulp_dd += square * d * d
    out[EE] += ee
    out[DD] += dd
    out[ED] += ed
    out[ULP] += 0.0 if has_c else ulp
    out[ULP_DD] += ulp_dd


@compile_loop(fastmath=_REASSOCIATE)
def _add_third(m: Any, a: Any, b: Any, c: Any, n: Any, limits: Any, out: Any) -> Any:
    """The sums that a third parent adds."""
    scale, floor = limits[0], limits[1]
    gg = dg = eg = ulp = ulp_dg = ulp_gg = 0.0
    for i in range(n):
        e = m[i] - a[i]
        d = b[i] - a[i]
        g = c[i] - a[i]
        gg += g * g
        dg += d * g
        eg += e * g
        spacing = _spacing(m[i], scale, floor)
        square = spacing * spacing if (e != 0.0) | (d != 0.0) | (g != 0.0) else 0.0
        ulp += square
        ulp_dg += square * d * g
        ulp_gg += square * g * g
    out[GG] += gg
    out[DG] += dg
    out[EG] += eg
    out[ULP] += ulp
    out[ULP_DG] += ulp_dg
    out[ULP_GG] += ulp_gg


# No NaN can arise there, which lets minima and maxima run in vector registers.
@compile_loop(fastmath={"nnan", *_REASSOCIATE})
def _add_bounds(m: Any, a: Any, b: Any, n: Any, limits: Any, out: Any) -> Any:
    """Narrow the interval of alphas for which every a + alpha·d rounds to m."""
    scale, floor, half_ulp, arithmetic, least_d = limits[0], limits[1], limits[2], limits[4], limits[5]
    low, high = out[LOW], out[HIGH]
    for i in range(n):
        d = b[i] - a[i]
        differs = abs(d) > least_d
        inverse = 1.0 / (d if differs else 1.0)
        half = half_ulp * _spacing(m[i], scale, floor) + arithmetic * max(abs(a[i]), abs(b[i]))
        centre = (m[i] - a[i]) * inverse
        reach = half * abs(inverse)
        least = centre - reach if differs else -np.inf
        most = centre + reach if differs else np.inf
        low = least if least > low else low
        high = most if most < high else high
    out[LOW] = low
    out[HIGH] = high
