"""Rounding where a file holds numbers in a code of its own: fp8 times a scale, GGUF's blocks.

The values of such a tensor are read as fp32, but it is its code that tells how far apart they can lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.batches import trimmed
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.kernels.backends import cache_errors, has_numba
from analyzer.kernels.formats import EXPONENT, FLOATS, ROUND_TO_ULP, TIE, value_tables, values_of
from analyzer.measures import LOWEST_STEP, STEP_BINS, Histogram
from analyzer.records import TensorInfo

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Coded: TypeAlias = tuple[Checkpoint, TensorInfo, int, Bytes]  # the place of the first element, and the values

_TABLES = value_tables()
_NO_BYTES = np.empty(0, np.uint8)


def coded_rounding(
    a: Coded, b: Coded, base: tuple[Bytes, str] | None, *, compiled: bool | None = None
) -> tuple[float, int]:
    """Σ ulp(a)² in the coarser of two storages, and how many values that differ are equal after a cast.

    Over the positions that are finite on all sides. The coarser storage is the one with fewer significand
    bits; of two with as many, the larger spacing counts. (inf, 0) where the spacing is not known: GGUF's
    blocks, whose scales follow from the values, and fp8 with scales that is read transposed or in part.

    Who quantises divides by the scale, or multiplies with its reciprocal, in fp32 or less: where a value
    lies close to the middle between two codes, either counts as the cast. A value beyond the largest code
    was not cast but cut off, which is a change. `compiled` defaults to whether that can be.
    """
    storages = [_Storage.of(side) for side in (a, b)]
    known = [storage for storage in storages if storage is not None]
    if len(known) < len(storages):
        return np.inf, 0
    coarsest = min(storage.precision for storage in known)
    by = _compiled if (has_numba() if compiled is None else compiled) else _in_numpy
    raw = [(a[3], a[1].dtype), (b[3], b[1].dtype), base or (_NO_BYTES, "F32")]
    return by(raw, [storage if storage.precision == coarsest else None for storage in known])


def coded_steps(
    a: Coded, b: Coded, base: tuple[Bytes, str] | None, *, compiled: bool | None = None
) -> Histogram:
    """Count and Σd² by |d| / ulp(a), ulp = spacing of A's codes at a, over the same positions.

    Empty where the spacing is not known. Where a factor is zero, A can hold no other number than zero: its
    steps count as the smallest.
    """
    storage = _Storage.of(a)
    if storage is None:
        return Histogram()
    by = _compiled_steps if (has_numba() if compiled is None else compiled) else _steps_in_numpy
    raw = [(a[3], a[1].dtype), (b[3], b[1].dtype), base or (_NO_BYTES, "F32")]
    return trimmed(by(raw, storage))


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """Which numbers a storage can hold: those of a float format, times a factor for each element."""

    dtype: str
    factors: Array  # above 0 but for what is broken; of every element, or one for all
    read_as: str
    coded: bool

    @classmethod
    def of(cls, side: Coded) -> _Storage | None:
        """Of a run of a tensor; None if it is not known."""
        checkpoint, info, start, raw = side
        if info.encoded is None:
            return cls(info.dtype, np.ones(1), info.dtype, coded=False)
        source = checkpoint.sources[info.source]
        if info.view is not None or not isinstance(source, AbstractEncodedSource):
            return None
        factors = source.factors(info.offset // info.itemsize + start, len(raw) // info.itemsize)
        return cls(info.encoded.dtype, np.abs(np.atleast_1d(factors)), info.dtype, coded=True)

    @property
    def precision(self) -> int:
        return FLOATS[self.dtype].precision


def _compiled(raw: list[tuple[Bytes, str]], coarse: list[_Storage | None]) -> tuple[float, int]:
    """By the compiled loop, in blocks that stay in the first-level cache."""
    from analyzer.kernels import compiled_coded

    a, b, c = _sides(raw)
    out = np.zeros(2)
    with cache_errors():
        compiled_coded.coded_rounding(
            *a, *b, *c, _count(raw), *_numbers(coarse[0]), *_numbers(coarse[1]), out
        )
    return float(out[0]), int(out[1])


def _compiled_steps(raw: list[tuple[Bytes, str]], storage: _Storage) -> Array:
    """(count, Σd²) of every bin, by the compiled loop."""
    from analyzer.kernels import compiled_coded

    a, b, c = _sides(raw)
    steps = np.zeros((STEP_BINS, 2))
    with cache_errors():
        compiled_coded.coded_steps(*a, *b, *c, _count(raw), *_numbers(storage), steps)
    return steps


def _sides(raw: list[tuple[Bytes, str]]) -> list[tuple[Bytes, int, Array]]:
    return [(data, FLOATS[dtype].code, _TABLES[dtype]) for data, dtype in raw]


def _count(raw: list[tuple[Bytes, str]]) -> int:
    return len(raw[0][0]) * 8 // FLOATS[raw[0][1]].bits


def _numbers(storage: _Storage | None) -> tuple[Array, Array]:
    """What a storage is as the compiled loops take it; a scale of 0 stands for none."""
    from analyzer.kernels import compiled_coded

    numbers = np.zeros(compiled_coded.STORAGE_WIDTH)
    if storage is None:
        return numbers, np.ones(1)
    f = FLOATS[storage.dtype]
    numbers[:] = f.scale, f.smallest_spacing, storage.coded, storage.read_as == "F32"
    return numbers, storage.factors


def _in_numpy(raw: list[tuple[Bytes, str]], coarse: list[_Storage | None]) -> tuple[float, int]:
    """The same, slowly, where nothing can be compiled."""
    x, y = _usable(raw)
    ulp, equal = np.zeros(len(x)), np.zeros(len(x), np.bool_)
    with np.errstate(all="ignore"):  # a factor of zero has no quotient, and gives no equal value
        for storage, values, stored in zip(coarse, (y, x), (x, y), strict=True):
            if storage is not None:
                usable = (storage.factors > 0) & np.isfinite(storage.factors)
                ulp = np.maximum(ulp, np.where(usable, _spacing(x, storage), 0.0))
                equal |= usable & _is_cast(values, stored, storage)
    ulp[x == 0] = 0.0
    return float(ulp @ ulp), int(np.count_nonzero(equal & (x != y)))


def _steps_in_numpy(raw: list[tuple[Bytes, str]], storage: _Storage) -> Array:
    """(count, Σd²) of every bin, slowly."""
    x, y = _usable(raw)
    d = np.abs(y - x)
    with np.errstate(all="ignore"):
        ulp = np.where((storage.factors > 0) & np.isfinite(storage.factors), _spacing(x, storage), 0.0)
        ratio = np.where(ulp > 0, d / ulp, 0.0)
    places = (ratio.view(np.int64) >> 51) - ((1023 + LOWEST_STEP) << 1)
    places, d = np.clip(places, 0, STEP_BINS - 1)[d > 0], d[d > 0]
    columns = [np.bincount(places, weights, STEP_BINS) for weights in (np.ones(len(d)), d * d)]
    return np.stack(columns, axis=1)


def _usable(raw: list[tuple[Bytes, str]]) -> tuple[Array, Array]:
    """The values of both sides, with zeros where some side is not finite."""
    x, y = (_widened(*side) for side in raw[:2])
    kept = np.isfinite(x) & np.isfinite(y)
    if len(raw[2][0]):
        kept &= np.isfinite(_widened(*raw[2]))
    return np.where(kept, x, 0.0), np.where(kept, y, 0.0)


def _spacing(values: Array, storage: _Storage) -> Array:
    """The spacing at these values."""
    f = FLOATS[storage.dtype]
    codes = values / storage.factors
    power = (codes.view(np.int64) & EXPONENT).view(np.float64)  # 2^⌊log2|x|⌋
    spacing: Array = np.maximum(power * f.scale, f.smallest_spacing) * storage.factors
    return spacing


def _is_cast(values: Array, stored: Array, storage: _Storage) -> NDArray[np.bool_]:
    """Where a cast of `values` leaves what is `stored`, as it is read back."""
    codes = values / storage.factors
    spacing = _spacing(values, storage)
    shift = spacing / storage.factors * ROUND_TO_ULP
    nearest = (codes + shift) - shift
    products = nearest * storage.factors
    if storage.read_as == "F32":
        products = products.astype(np.float32).astype(np.float64)
    close = (np.abs(np.abs(values - stored) / (spacing / 2) - 1) < TIE) & (nearest != codes)
    equal: NDArray[np.bool_] = (products == stored) | (close if storage.coded else False)
    return equal


def _widened(raw: Bytes, dtype: str) -> Array:
    values = values_of(raw, dtype)
    assert values is not None
    return values.astype(np.float64)
