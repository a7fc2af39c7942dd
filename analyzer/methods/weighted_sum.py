"""The straight line from A to B."""

from __future__ import annotations

from analyzer.methods.method import Array, Method, Setting


def coefficients(setting: Setting, _gram: Array | None = None) -> tuple[float, ...]:
    """A + alpha·(b − a): 0 keeps A, 1 takes B, what lies outside extrapolates.

    Written this way and not as (1 − alpha)·a + alpha·b, so that elements that A and B share come
    out unchanged to the bit. A plan takes B's own values at alpha 1, and calls no method.
    """
    return (1.0, setting.alpha, 0.0, *(0.0 for _ in setting.weights))


WEIGHTED_SUM = Method(
    formula="a + alpha·(b − a)",
    source="the weighted sum of the Stable Diffusion web UI's checkpoint merger; for fine-tunes of one base, "
    "Wortsman et al., Robust fine-tuning of zero-shot models, arXiv 2109.01903",
    coefficients=coefficients,
    fused=True,
)
