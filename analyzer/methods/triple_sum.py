"""Weighted sums of A, B and further models: SuperMerger's Triple and Twice, for any number of models."""

from __future__ import annotations

from analyzer.methods.method import Array, Method, Setting


def triple(setting: Setting, _gram: Array | None = None) -> tuple[float, ...]:
    """(1 − alpha − Σβᵢ)·A + alpha·B + Σ βᵢ·Mᵢ; SuperMerger has one M."""
    return (1.0, setting.alpha, 0.0, *setting.weights)


def twice(setting: Setting, _gram: Array | None = None) -> tuple[float, ...]:
    """((1 − alpha)·A + alpha·B)·(1 − β₁) + β₁·M₁, and that again for every further model, in order."""
    shares = [setting.alpha]
    for beta in setting.weights:
        shares = [*(share * (1 - beta) for share in shares), beta]
    return (1.0, shares[0], 0.0, *shares[1:])


_SOURCE = "SuperMerger (hako-mikan/sd-webui-supermerger), scripts/mergers/mergers.py, mode"

TRIPLE_SUM = Method(
    formula="a·(1 − alpha − Σβ) + alpha·b + Σ β·m",
    source=f'{_SOURCE} "Triple"',
    coefficients=triple,
    models="must",
)
SUM_TWICE = Method(
    formula="(a·(1 − alpha) + alpha·b)·(1 − β) + β·m, and so on for every model",
    source=f'{_SOURCE} "Twice"',
    coefficients=twice,
    models="must",
)
