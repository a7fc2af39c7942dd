"""The sums of a scan in torch: for CUDA, and for a CPU where the compiled loops are not at hand.

Slower than `analyzer.kernels.compiled_sums` on a CPU, and equal to it: counts and maxima exactly, sums to
the last bits of fp64. The same input gives the same bits on every run, so nothing here adds atomically.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.kernels.formats import FLOATS, ROUND_TO_ULP
from analyzer.kernels.on_torch import EXPONENT_BITS, widen
from analyzer.measures import BINS, LOWEST_EXPONENT, LOWEST_STEP, STEP_BINS, STEP_OCTAVES

# Bytes, in memory or on the device already, and the dtype of the elements that they hold.
Operand = tuple[NDArray[np.uint8] | torch.Tensor, str]
Array = NDArray[np.float64]

_BIN_SHIFT = 51  # leaves the exponent and one bit of the significand: two bins to an octave
_EXPONENT_SHIFT = 52
_PLACES = BINS * STEP_OCTAVES  # of the table; below 2^15
_E4M3 = FLOATS["F8_E4M3"]
_FIRST_BIN = (1023 + LOWEST_EXPONENT) << 1


class Usable:
    """Two tensors, or three, with zeros at the positions that are not finite in each of them."""

    def __init__(
        self, a: Operand, b: Operand, base: Operand | None, device: str, spacing: Sequence[float]
    ) -> None:
        sides = [widen(*side, device) for side in (a, b, *([base] if base else []))]
        finite = [torch.isfinite(side) for side in sides]
        self.kept = torch.stack(finite).all(dim=0)
        different = (sides[0] != sides[1]) & ~(sides[0].isnan() & sides[1].isnan())
        in_both = finite[0] & finite[1]
        if base:  # where only the base is not finite, a cast is no difference
            finite_a, finite_b = (torch.where(in_both, side, 0.0) for side in sides[:2])
            different &= ~(in_both & _cast(finite_a, finite_b, spacing))
        self.nonfinite = [
            (~finite[0]).sum(),
            (~finite[1]).sum(),
            (different & ~self.kept).sum(),
        ]
        # Zeros add nothing to any sum or count, and keep the shapes fixed: no element is moved.
        self.a, self.b, *rest = [torch.where(self.kept, side, 0.0) for side in sides]
        self.c = rest[0] if rest else None
        self.d = self.b - self.a


def pair_sums(x: Usable, spacing: Sequence[float]) -> Array:
    """The sums over a and b, in the order of `compiled_sums.N` … WIDTH; `spacing` as it is there."""
    a, b, d = x.a, x.b, x.d
    size = d.abs()
    ulp = torch.where(a != 0, _spacing(a, *spacing[:2]), 0.0)
    changed = a != b
    cast = _cast(a, b, spacing)
    largest = size.max() if size.numel() else size.sum()
    counts = [x.kept.sum(), *x.nonfinite, changed.sum(), (cast & changed).sum(), _opposed(a, b).sum()]
    sums = [a.sum(), b.sum(), a @ a, b @ b, d @ d, a @ b, size.sum(), largest, ulp @ ulp]
    return _on_host([*counts, *sums, *(_spread(side, x.kept) for side in (a, b))])


def task_sums(x: Usable) -> Array:
    """The sums over p = a − c and q = b − c, in the order of `compiled_sums.MOVED_A` … TASK_WIDTH."""
    assert x.c is not None
    p, q = x.a - x.c, x.b - x.c
    moved_p, moved_q, conflict = p != 0, q != 0, _opposed(p, q)
    size_p, size_q = p.abs(), q.abs()
    return _on_host(
        [
            moved_p.sum(),
            moved_q.sum(),
            (moved_p & moved_q).sum(),
            conflict.sum(),
            p @ p,
            q @ q,
            x.d @ x.d,
            size_p.sum(),
            size_q.sum(),
            (p + q).abs().sum(),
            torch.where(conflict, size_p + size_q, 0.0).sum(),
            x.a @ p,
        ]
    )


def histograms(x: Usable, spacing: Sequence[float]) -> list[Array]:
    """(count, Σd²) of every bin of all histograms, in the order of `measures.HISTOGRAMS`.

    By way of the table that `compiled_sums` has: bins of |d| × octaves of |d| / ulp(a).
    """
    size = x.d.abs().view(torch.int64)
    rows = ((size >> _BIN_SHIFT) - _FIRST_BIN).clamp(0, BINS - 1)
    digits, floor = (_exponent(value) for value in spacing[6:8])
    ulp = ((x.a.abs().view(torch.int64) >> _EXPONENT_SHIFT) + (digits - 1023)).clamp(min=floor)
    octaves = ((size >> _EXPONENT_SHIFT) - ulp - LOWEST_STEP).clamp(0, STEP_OCTAVES - 1)
    table = _summed(x.d, rows * STEP_OCTAVES + octaves).reshape(BINS, STEP_OCTAVES, 2)
    bins = table.sum(axis=1)
    row, octave = np.nonzero(table[:, :, 0])
    lacking = _exponent(_E4M3.scale) - digits  # digits that e4m3 has less than A's format
    spacings = (row >> 1) + LOWEST_EXPONENT - (octave + LOWEST_STEP) + lacking
    spacings = np.maximum(spacings, _exponent(_E4M3.smallest_spacing) - 1023)
    narrow = np.clip((row >> 1) + LOWEST_EXPONENT - spacings - LOWEST_STEP, 0, STEP_OCTAVES - 1)
    found = [bins]
    for places in (octave, narrow):
        steps = np.zeros((STEP_BINS, 2))
        # a spacing is a power of two, so |d| in units of it lies in the same half of its octave as |d|
        np.add.at(steps, 2 * places + (row & 1), table[row, octave])
        found.append(steps)
    return found


def _exponent(value: float) -> int:
    """Of a power of two, as fp64 stores it."""
    return int(np.float64(value).view(np.int64)) >> _EXPONENT_SHIFT


def _summed(d: torch.Tensor, places: torch.Tensor) -> Array:
    """(count, Σd²) of every place in the table; positions with d = 0 count nowhere."""
    ordered, order = torch.sort(torch.where(d != 0, places, _PLACES).to(torch.int16), stable=True)
    counts = torch.bincount(ordered, minlength=_PLACES + 1)[:_PLACES]
    out = np.zeros((_PLACES, 2))
    out[:, 0] = counts.cpu().numpy()
    held = np.flatnonzero(out[:, 0])
    if len(held):
        lengths = counts[torch.from_numpy(held).to(counts.device)]
        squares = (d * d)[order][: int(out[:, 0].sum())]
        out[held, 1] = torch.segment_reduce(squares, "sum", lengths=lengths, unsafe=True).cpu().numpy()
    return out


def row_sums(x: Usable, first: int, width: int, rows: int) -> Array:
    """(Σa², Σb², Σd²) of every row of `width` elements, of which the first one here is element `first`."""
    behind = rows * width - first - x.a.numel()
    sides = [torch.nn.functional.pad(side, (first, behind)).view(rows, width) for side in (x.a, x.b, x.d)]
    sums: Array = torch.stack([(side * side).sum(dim=1) for side in sides], dim=1).cpu().numpy()
    return sums


def _spacing(values: torch.Tensor, scale: float, floor: float) -> torch.Tensor:
    power = (values.view(torch.int64) & EXPONENT_BITS).view(torch.float64)  # 2^⌊log2|x|⌋
    return torch.clamp(power * scale, min=floor)


def _cast(a: torch.Tensor, b: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """Where a rounded to b's format is b, or b rounded to a's is a; torch rounds fp64 twice."""
    found = torch.zeros_like(a, dtype=torch.bool)
    for x, y, (scale, floor) in ((a, b, spacing[2:4]), (b, a, spacing[4:6])):
        if scale:
            found |= _rounded(x, scale, floor) == y
            found |= _rounded(x.to(torch.float32).to(torch.float64), scale, floor) == y
    return found


def _rounded(values: torch.Tensor, scale: float, floor: float) -> torch.Tensor:
    """The nearest multiple of each value's spacing, ties to even."""
    shift = _spacing(values, scale, floor) * ROUND_TO_ULP
    return (values + shift) - shift


def _opposed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x < 0) & (y > 0) | (x > 0) & (y < 0)


def _spread(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Σ(x − mean)² over the positions that are kept; 0 of none."""
    mean = values.sum() / kept.sum().clamp(min=1)
    centred = torch.where(kept, values - mean, 0.0)
    return centred @ centred


def _on_host(values: Sequence[torch.Tensor]) -> Array:
    stacked: Array = torch.stack([value.to(torch.float64) for value in values]).cpu().numpy()
    return stacked
