"""The merge methods: a literal table of pure functions on one chunk. To add one: a file, an entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyzer.blending import AbstractBlender
from analyzer.methods.weighted_sum import weighted_sum

Bytes = NDArray[np.uint8]
# (blender, bytes of a, dtype of a, bytes of b, dtype of b, alpha, dtype of the output)
# -> (bytes of the output, how many of its values are NaN or Inf)
Function = Callable[[AbstractBlender, Bytes, str, Bytes, str, float, str], tuple[Bytes, int]]


@dataclass(frozen=True, slots=True)
class Method:
    """One merge method and where it comes from."""

    function: Function
    formula: str
    source: str


METHODS: Mapping[str, Method] = {
    "weighted_sum": Method(
        weighted_sum,
        "a + alpha·(b − a)",
        "the weighted sum of the Stable Diffusion web UI's checkpoint merger; for fine-tunes of one base, "
        "Wortsman et al., Robust fine-tuning of zero-shot models, arXiv 2109.01903",
    ),
}
