"""Rounding where a file holds numbers in a code of its own: fp8 times a scale, GGUF's blocks.

The values of such a tensor are read as fp32, but it is its code that tells how far apart they can lie.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.kernels.formats import FLOATS, eight_bit_values, values_of
from analyzer.records import TensorInfo

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Coded: TypeAlias = tuple[Checkpoint, TensorInfo, int, Bytes]  # the place of the first element, and the values

_EXPONENT = np.int64(0x7FF0000000000000)
_ROUND_TO_ULP = 1.5 * 2.0**52
_TIE = 2.0**-7  # how far from the middle between two codes a quotient in bf16 may put a value


def coded_rounding(a: Coded, b: Coded, base: tuple[Bytes, str] | None) -> tuple[float, int]:
    """Σ ulp(a)² in the coarser of two storages, and how many values that differ are equal after a cast.

    Over the positions that are finite on all sides. The coarser storage is the one with fewer significand
    bits; of two with as many, the larger spacing counts. (inf, 0) where the spacing is not known: GGUF's
    blocks, whose scales follow from the values, and fp8 with scales that is read transposed or in part.
    """
    values_a, values_b = (_values(raw, info.dtype) for _, info, _, raw in (a, b))
    kept = np.isfinite(values_a) & np.isfinite(values_b)
    if base is not None:
        kept &= np.isfinite(_values(*base))
    x, y = np.where(kept, values_a, 0.0), np.where(kept, values_b, 0.0)
    spacings = [_Spacing.of(side) for side in (a, b)]
    if any(spacing is None for spacing in spacings):
        return np.inf, 0
    precisions = [spacing.precision for spacing in spacings if spacing is not None]
    ulp = np.zeros(len(x))
    equal = np.zeros(len(x), np.bool_)
    for spacing, values, other in zip(spacings, (y, x), (x, y), strict=True):
        # `values` is the other side's, which a cast to this storage would round to what this side holds
        if spacing is not None and spacing.precision == min(precisions):
            np.maximum(ulp, spacing.at(x), out=ulp)
            equal |= spacing.casts(values, other)
    ulp[x == 0] = 0.0
    return float(ulp @ ulp), int(np.count_nonzero(equal & (x != y)))


class _Spacing:
    """How far apart the numbers of a storage lie: a float format's, times a factor for each element."""

    def __init__(self, dtype: str, factors: Array | float, *, read_as: str, coded: bool) -> None:
        self._coded = coded
        self._format = FLOATS[dtype]
        self._factors = np.abs(factors)
        self._largest = _largest(dtype)
        self._read_as = read_as

    @classmethod
    def of(cls, side: Coded) -> _Spacing | None:
        """Of a run of a tensor; None if it is not known."""
        checkpoint, info, start, raw = side
        if info.encoded is None:
            return cls(info.dtype, 1.0, read_as=info.dtype, coded=False)
        source = checkpoint.sources[info.source]
        if info.view is not None or not isinstance(source, AbstractEncodedSource):
            return None
        factors = source.factors(info.offset // info.itemsize + start, len(raw) // info.itemsize)
        return cls(info.encoded.dtype, factors, read_as=info.dtype, coded=True)

    @property
    def precision(self) -> int:
        return self._format.precision

    def at(self, values: Array) -> Array:
        """The spacing at these values."""
        return self._in_code(values / self._factors) * self._factors

    def casts(self, values: Array, stored: Array) -> NDArray[np.bool_]:
        """Where a cast of `values` to this storage leaves what is `stored` there, as it is read back.

        Who quantises divides by the scale, or multiplies with its reciprocal, in fp32 or less: close to the
        middle between two codes either may come out.
        """
        with np.errstate(all="ignore"):  # a factor of zero has no quotient, and gives no equal value
            codes = values / self._factors
            shift = self._in_code(codes) * _ROUND_TO_ULP
            nearest = np.clip((codes + shift) - shift, -self._largest, self._largest)
            products = nearest * self._factors
            if self._read_as == "F32":
                products = products.astype(np.float32).astype(np.float64)
            halfway = np.abs(values - stored) / (self._in_code(codes) * self._factors / 2)
            close = (np.abs(halfway - 1) < _TIE) & (nearest != codes)
        equal: NDArray[np.bool_] = (products == stored) | close if self._coded else products == stored
        return equal

    def _in_code(self, codes: Array) -> Array:
        power = (codes.view(np.int64) & _EXPONENT).view(np.float64)  # 2^⌊log2|x|⌋
        spacing: Array = np.maximum(power * self._format.scale, self._format.smallest_spacing)
        return spacing


def _largest(dtype: str) -> float:
    """Where a cast stops; only codes with scales stop there, the others become Inf."""
    if FLOATS[dtype].bits > 8:
        return np.inf
    values = eight_bit_values(dtype)
    return float(values[np.isfinite(values)].max())


def _values(raw: Bytes, dtype: str) -> Array:
    values = values_of(raw, dtype)
    assert values is not None
    return values.astype(np.float64)
