"""The sums of a scan in torch: for CUDA, and for a CPU where the compiled loops are not at hand.

Slower than `analyzer.kernels.compiled_sums` on a CPU, and equal to it: counts and maxima exactly, sums to
the last bits of fp64. The same input gives the same bits on every run, so nothing here adds atomically.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.kernels.formats import ROUND_TO_ULP
from analyzer.kernels.on_torch import EXPONENT_BITS, widen
from analyzer.measures import BINS, LOWEST_EXPONENT

Operand = tuple[NDArray[np.uint8], str]  # bytes, and the dtype of the elements that they hold
Array = NDArray[np.float64]

_BIN_SHIFT = 51  # leaves the exponent and one bit of the significand: two bins to an octave
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
        ]
    )


def histogram(x: Usable) -> Array:
    """(count, Σd²) of every bin of |d|, shape (BINS, 2)."""
    places = ((x.d.abs().view(torch.int64) >> _BIN_SHIFT) - _FIRST_BIN).clamp(0, BINS - 1)
    places = torch.where(x.d != 0, places, BINS).to(torch.int16)
    ordered, order = torch.sort(places, stable=True)
    counts = torch.bincount(ordered, minlength=BINS + 1)[:BINS]
    squares = (x.d * x.d)[order]
    filled = counts.tolist()
    out = np.zeros((BINS, 2))
    out[:, 0] = filled
    parts = torch.split(squares[: sum(filled)], filled)
    held = [place for place, count in enumerate(filled) if count]
    if held:
        out[held, 1] = _on_host([parts[place].sum() for place in held])
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
