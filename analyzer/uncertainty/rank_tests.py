"""Tests on ranks, as `scipy.stats` makes them: of whose import and checks of its input a report would wait.

Tests hold each of them against scipy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr

from analyzer.column_arithmetic import Floats

_EXACT = 8  # up to so many values in the smaller sample, p is exact, if no two values are alike
_MOST_WAYS = 2**62


def mann_whitney(this: Floats, other: Floats) -> tuple[float, float]:
    """(U of the first sample, two-sided p), exact for a small sample without ties, else normal.

    U is how many of all pairs (this, other) the first wins, ties counting half. The normal p has a
    correction for ties and for continuity. Mann & Whitney 1947; Hollander, Wolfe & Chicken, Nonparametric
    Statistical Methods, 2014, §4.1.
    """
    n, m = this.size, other.size
    ranks, ties = _ranks(np.concatenate([this, other]))
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    larger = max(u, n * m - u)
    if min(n, m) <= _EXACT and not ties:
        tails = _exact_tails(min(n, m), max(n, m))
        return u, min(2 * float(tails[round(n * m - larger)]), 1.0)
    count = n + m
    variance = n * m / 12 * (count + 1 - ties / (count * (count - 1)))
    return u, min(2 * float(ndtr((n * m / 2 + 0.5 - larger) / sqrt(variance))), 1.0)


def kruskal_wallis(samples: Sequence[Floats]) -> tuple[float, float]:
    """(H, p) of several samples that do not all hold one value, corrected for ties. Kruskal & Wallis 1952."""
    ranks, ties = _ranks(np.concatenate(samples))
    count = len(ranks)
    sums = np.add.reduceat(ranks, np.cumsum([0, *(sample.size for sample in samples[:-1])]))
    between = sum(float(total) ** 2 / sample.size for total, sample in zip(sums, samples, strict=True))
    h = 12 / (count * (count + 1)) * between - 3 * (count + 1)
    h /= 1 - ties / (count**3 - count)
    return h, float(chdtrc(len(samples) - 1, h))


def false_discovery_rates(p: Sequence[float]) -> list[float]:
    """Each p adjusted for all of them. Benjamini & Hochberg 1995."""
    values = np.array(p)
    order = np.argsort(-values, kind="stable")
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    found: list[float] = adjusted.tolist()
    return found


def _ranks(values: Floats) -> tuple[Floats, int]:
    """The rank of each value from 1, of those alike their mean; and Σ(t³ − t) over their numbers t."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[places]
    return ranks, sum(t**3 - t for t in counts[counts > 1].tolist())


@lru_cache(maxsize=256)
def _exact_tails(small: int, large: int) -> Floats:
    """The probability of a U of at most 0, 1, … half of all pairs, if no sample tends to larger values.

    In how many orders of all values U is such a number is a Gaussian binomial coefficient, whose generating
    function is ∏ (1 − q^(large + i)) / (1 − q^i), i = 1 … small: a polynomial after each factor. Beyond
    64 bits in Python's integers.
    """
    orders = comb(small + large, small)
    ways: NDArray[Any] = np.zeros(small * large // 2 + 1, np.int64 if orders < _MOST_WAYS else object)
    ways[0] = 1
    for i in range(1, small + 1):
        ways[large + i :] = ways[large + i :] - ways[: max(len(ways) - large - i, 0)]
        for first in range(i):
            ways[first::i] = np.cumsum(ways[first::i])
    return (np.cumsum(ways) / orders).astype(np.float64)
