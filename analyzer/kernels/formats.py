"""How floating-point formats are laid out, as numbers that a compiled loop can use.

The only place that knows the bits of exponents and significands; how many there are, `float_formats` says.
Names are those of safetensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.float_formats import FLOATS as FLOATS

EXPONENT = np.int64(0x7FF0000000000000)  # the bits of an fp64 number that hold its exponent: 2^⌊log2|x|⌋
ROUND_TO_ULP = 1.5 * 2.0**52  # adding and subtracting that many spacings leaves a multiple of one

# Of codes with scales: how far from the middle between two codes, as a share of half their distance, the
# quotient of who quantised in bf16 may have put a value.
TIE = 2.0**-7


def ulp_parameters(dtype_a: str, dtype_b: str) -> tuple[float, float]:
    """(scale, floor) with ulp(x) = max(2^⌊log2|x|⌋ · scale, floor) in the coarser of two formats.

    Coarser is the one with fewer significand bits. fp16 against bf16 has no single coarser one
    (bf16 has fewer bits, fp16 the larger spacing near zero), so the larger spacing counts, which is
    the maximum of both scales and of both floors.
    """
    a, b = FLOATS[dtype_a], FLOATS[dtype_b]
    incomparable = {dtype_a, dtype_b} == {"F16", "BF16"}
    formats = [a, b] if incomparable else [min(a, b, key=lambda f: f.precision)]
    return max(f.scale for f in formats), max(f.smallest_spacing for f in formats)


def casts(dtype_a: str, dtype_b: str) -> tuple[bool, bool]:
    """Whether a cast of a to b's format can lose digits, and whether one of b to a's can.

    Of two formats of one width each has digits or a range that the other lacks.
    """
    a, b = FLOATS[dtype_a], FLOATS[dtype_b]
    if dtype_a == dtype_b:
        return False, False
    if a.bits == b.bits:
        return True, True
    return b.precision < a.precision, a.precision < b.precision


def spacing(dtype_a: str, dtype_b: str) -> NDArray[np.float64]:
    """What the kernels need of two formats: four pairs (scale, floor) as in `ulp_parameters`.

    Of the ulp; of the format to which a cast of a is tried; of the one for b; and of a's own format. A scale
    of 0: no cast.
    """
    to_b, to_a = casts(dtype_a, dtype_b)
    pairs = [ulp_parameters(dtype_a, dtype_b)]
    pairs += [
        (FLOATS[name].scale, FLOATS[name].smallest_spacing) if tried else (0.0, 0.0)
        for name, tried in ((dtype_b, to_b), (dtype_a, to_a), (dtype_a, True))
    ]
    return np.array(pairs).reshape(-1)


def rounding_parameters(dtype: str) -> NDArray[np.int64]:
    """What `narrow` needs to round fp64 to a format of 16 or 8 bits, as six integers.

    [bits to drop, exponent offset in units of the result, bits of the smallest normal as fp64,
    bits of the fp64 number whose ulp is the format's smallest spacing, largest code, NaN's code].
    """
    f = FLOATS[dtype]
    mantissa = f.precision - 1
    bias = 1 - f.emin
    top = (1 << (f.bits - 1)) - 1  # all bits but the sign
    infinity = (top >> mantissa) << mantissa
    largest, nan = (infinity, infinity | (1 << (mantissa - 1))) if f.infinite else (top - 1, top)
    return np.array(
        [
            52 - mantissa,
            (1023 - bias) << mantissa,
            (1023 + f.emin) << 52,
            (1023 + f.emin - mantissa + 52) << 52,
            largest,
            nan,
        ],
        dtype=np.int64,
    )


def eight_bit_values(dtype: str) -> NDArray[np.float64]:
    """The values of all 256 codes of an 8-bit format; Inf and NaN where a code is not finite."""
    f = FLOATS[dtype]
    mantissa = f.precision - 1
    codes = np.arange(256)
    exponent, fraction = (codes & 0x7F) >> mantissa, codes & ((1 << mantissa) - 1)
    normal = np.ldexp(1.0 + fraction / (1 << mantissa), exponent - 1 + f.emin)
    magnitude = np.where(exponent > 0, normal, fraction * f.smallest_spacing)
    if f.infinite:
        special = exponent == (0x7F >> mantissa)
        magnitude = np.where(special, np.where(fraction == 0, np.inf, np.nan), magnitude)
    else:
        magnitude = np.where((codes & 0x7F) == 0x7F, np.nan, magnitude)
    return np.where(codes >= 128, -magnitude, magnitude)


def largest_finite(dtype: str) -> float:
    """The largest number that a format has."""
    f = FLOATS[dtype]
    if f.infinite:
        return float(np.ldexp(2.0 - f.scale, 1 - f.emin))
    # Without Inf the highest exponent holds numbers too, and only its last code is NaN.
    return float(np.ldexp(2.0 - 2 * f.scale, 2 - f.emin))


def count_nonfinite(raw: NDArray[np.uint8], dtype: str) -> int:
    """How many elements of a byte string are NaN or Inf; 0 for dtypes that have neither."""
    f = FLOATS.get(dtype)
    if f is None:
        return 0
    mantissa = f.precision - 1
    top = (1 << (f.bits - 1)) - 1  # all bits but the sign
    special = (top >> mantissa) << mantissa if f.infinite else top
    bits = raw.view(f"<u{f.bits // 8}")
    return int(np.count_nonzero((bits & special) == special))


def value_tables() -> dict[str, NDArray[np.float64]]:
    """For every format what the compiled loops look values up in: empty where they compute them."""
    return {name: eight_bit_values(name) if f.bits == 8 else np.empty(0) for name, f in FLOATS.items()}


def tables_by_code() -> NDArray[np.float64]:
    """The 256 values of the 8-bit formats in rows, by code; zeros for the wider ones. Shape (codes, 256)."""
    tables = np.zeros((len(FLOATS), 256))
    for name, table in value_tables().items():
        tables[FLOATS[name].code, : len(table)] = table
    return tables


_NUMPY_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4",
    "U64": "u8", "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8", "C64": "c8",
}  # fmt: skip


def values_of(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.generic] | None:
    """The elements as numpy knows them, little-endian as files are; None for a dtype it lacks."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return eight_bit_values(dtype)[raw]
    name = _NUMPY_DTYPES.get(dtype)
    return raw.view(np.dtype(name).newbyteorder("<")) if name else None
