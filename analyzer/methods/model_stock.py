"""The point between the base and the mean of its fine-tunes that lies closest to the centre of all."""

from __future__ import annotations

from itertools import combinations
from math import fsum, sqrt

from analyzer.methods.method import Array, Method, Setting

_SINGULAR = 1e-6


def coefficients(setting: Setting, gram: Array | None) -> tuple[float, ...]:
    """A + alpha·(S − A), with the stock S = C + t·(mean − C), t = N·cos θ / (1 + (N − 1)·cos θ).

    The N fine-tunes are A (if a base is given), B and the further models; without one A is the base C.
    cos θ is the mean over all pairs of the cosine between their tasks, over the whole tensor; 0 for a task
    that is all zero. Where 1 + (N − 1)·cos θ vanishes, the tasks contradict each other and t is 0, as in
    mergekit. alpha 1 gives S itself.
    """
    assert gram is not None
    tuned = [0, 1, *range(3, len(gram))] if setting.based else [1, *range(3, len(gram))]
    t = _ratio(_task_gram(gram), tuned)
    share = setting.alpha * t / len(tuned)
    weights = [share if place in tuned else 0.0 for place in range(len(gram))]
    of_base = setting.alpha * (1 - t) if setting.based else 0.0
    return (1.0, weights[1], of_base, *weights[3:])


def _task_gram(gram: Array) -> Array:
    """⟨xᵢ − c, xⱼ − c⟩ of a, b and the further models x, from the products of x − a and c − a."""
    moved = gram.copy()
    moved[0, :] = moved[:, 0] = 0.0  # a − a
    to_base = moved[2]
    result: Array = moved - to_base[:, None] - to_base[None, :] + gram[2, 2]
    return result


def _ratio(products: Array, tuned: list[int]) -> float:
    cosines = []
    for i, j in combinations(tuned, 2):
        size = sqrt(max(products[i, i], 0.0)) * sqrt(max(products[j, j], 0.0))
        cosines.append(min(max(float(products[i, j]) / size, -1.0), 1.0) if size else 0.0)
    count, cosine = len(tuned), fsum(cosines) / len(cosines)
    below = 1 + (count - 1) * cosine
    return count * cosine / below if abs(below) >= _SINGULAR else 0.0


MODEL_STOCK = Method(
    formula="a + alpha·(c + t·(mean − c) − a), t = N·cos θ / (1 + (N − 1)·cos θ)",
    source="Jang, Yun and Han, Model Stock: all we need is just a few fine-tuned models, arXiv 2403.19522; "
    "layer-wise as in mergekit",
    coefficients=coefficients,
    needs_gram=True,
    base="may",
    models="may",
    tasks=2,
)
