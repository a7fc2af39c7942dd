"""The sums of a recovery in torch: for CUDA, and for a CPU where the compiled loops are not at hand.

Equal to `analyzer.kernels.compiled_grams`: counts and bounds exactly, sums to the last bits of fp64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.kernels.on_torch import EXPONENT_BITS, widen

Operand = tuple[NDArray[np.uint8], str]  # bytes, and the dtype of the elements that they hold


def measure(sides: Sequence[Operand], limits: Sequence[float], device: str) -> NDArray[np.float64]:
    """The sums of m, a, b and, if there is one, c, in the order of `compiled_grams.N` … WIDTH.

    `limits` are six numbers as they are there.
    """
    scale, floor, half, thrice, arithmetic, least = limits
    spacing = (scale, floor)
    values = [widen(*side, device) for side in sides]
    kept = torch.stack([torch.isfinite(side) for side in values]).all(dim=0)
    m, a, b, *rest = [torch.where(kept, side, 0.0) for side in values]
    c = rest[0] if rest else a
    e, d, g = m - a, b - a, c - a
    stands = kept & (b == a) & (c == a)
    largest = torch.maximum(m.abs(), a.abs())
    strange = stands & (e.abs() > thrice * _spacing(largest, *spacing) + arithmetic * largest)
    at_m = _spacing(m, *spacing)
    square = torch.where((e != 0) | (d != 0) | (g != 0), at_m * at_m, 0.0)
    low, high = -torch.inf, torch.inf
    differs = d.abs() > least
    if bool(differs.any()):
        inverse = 1.0 / torch.where(differs, d, 1.0)
        reach = (half * at_m + arithmetic * torch.maximum(a.abs(), b.abs())) * inverse.abs()
        low = float(torch.where(differs, e * inverse - reach, -torch.inf).max())
        high = float(torch.where(differs, e * inverse + reach, torch.inf).min())
    foreign_e = torch.where(strange, e, 0.0)
    sums = torch.stack(
        [
            *(mask.sum().double() for mask in (kept, m != a, m != b, stands, strange)),
            *(x @ y for x, y in ((e, e), (d, d), (e, d), (g, g), (d, g), (e, g), (foreign_e, foreign_e))),
            square.sum(),
            square @ (d * d),
            square @ (d * g),
            square @ (g * g),
        ]
    )
    return np.array([*sums.tolist(), low, high])


def _spacing(values: torch.Tensor, scale: float, floor: float) -> torch.Tensor:
    power = (values.view(torch.int64) & EXPONENT_BITS).view(torch.float64)  # 2^⌊log2|x|⌋
    return torch.clamp(power * scale, min=floor)
