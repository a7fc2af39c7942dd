"""What B learned since C, added to A as if A had been trained on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.methods.method import Array, Method, Operands, Setting, difference, shifted

_GAIN = 1.8
_TINY = 2.0**-1022  # makes 0/0 a 0, and nothing else


def train_difference(operands: Operands, setting: Setting, _known: Any = None) -> Array:
    """The elements of a + 1.8·alpha·(b − c)·|b − a| / (|b − c| + |b − a|); a where b = c.

    The step shrinks where A is already as close to B as C was.
    """
    learned = difference(operands.b, operands.base)
    missing = np.abs(operands.b - operands.a)
    step = np.abs(learned)
    step += missing
    step += _TINY
    np.divide(missing, step, out=step)
    step *= learned
    step *= _GAIN * setting.alpha
    if not np.isfinite(step.sum()):
        step[operands.b == operands.base] = 0.0  # equal elements are no step, Inf too
    return shifted(operands.a, step)


TRAIN_DIFFERENCE = Method(
    formula="a + 1.8·alpha·(b − c)·|b − a| / (|b − c| + |b − a|)",
    source="SuperMerger (hako-mikan/sd-webui-supermerger), scripts/mergers/mergers.py, calcmode "
    '"trainDifference"',
    combine=train_difference,
    base="must",
)
