"""The straight line from A to B."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.blending import AbstractBlender

Bytes = NDArray[np.uint8]


def weighted_sum(
    blender: AbstractBlender, raw_a: Bytes, dtype_a: str, raw_b: Bytes, dtype_b: str, alpha: float, dtype: str
) -> tuple[Bytes, int]:
    """A + alpha·(b − a): 0 keeps A, 1 takes B, what lies outside extrapolates.

    Written this way and not as (1 − alpha)·a + alpha·b, so that elements that A and B share come
    out unchanged to the bit. A plan takes B's own values at alpha 1, and calls no method.
    """
    return blender.blend(raw_a, dtype_a, raw_b, dtype_b, alpha=alpha, dtype=dtype)
