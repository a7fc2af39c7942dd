"""Keys that changed far more, or far less, than their like. Knows records and one formula, no sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import TypeAlias

from analyzer.formulas import relative_change
from analyzer.ranking import counted
from analyzer.records import KeyScan, Scan
from analyzer.verdicts import verdict

# Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993: modified z-scores beyond 3.5 are outliers.
LIMIT = 3.5
MAD_TO_STD = 1.4826  # of a normal distribution: 1 / its third quartile
FEWEST_KEYS = 8  # of fewer, the median of the deviations is luck
# Where all keys of a category moved by nearly the same factor (a scaled task, a test), a hundredth more is
# many deviations, and still of no interest to anybody.
LEAST_FACTOR = 1.25


@dataclass(frozen=True, slots=True)
class Outlier:
    """One key that stands out among its like."""

    key: str  # A's raw name
    category: str  # the component at which rankings group: "transformer_blocks/attn2"
    value: float  # its relative change
    z: float  # robust z-score of log(value) in its category: above 0 it changed more than the others


def outliers(scan: Scan) -> list[Outlier]:
    """The counted weight keys whose relative change is out of line, the most extreme first, ties by key.

    A key is compared with the weights that changed in the same category of the same part (a fine-tune may
    move two text encoders differently), matrices with matrices and gains with gains. Changes spread by
    factors, so their logarithms are compared: z = (x − median) / (1.4826 · MAD), with the median
    absolute deviation MAD, and |z| > 3.5 stands out. The median and the MAD do not move with the outliers,
    as a mean and a standard deviation would.

    None of a category of fewer than 8 such keys. None where the MAD is zero: more than half of the keys
    changed by the very same factor, so there is no spread to measure a deviation against, and any other key
    would be infinitely far out. None within a factor of 1.25 of the category's median, and no key that
    differs by a cast or by rounding alone: that has a verdict of its own.
    """
    found = [outlier for rows in _categories(counted(scan.keys)).values() for outlier in _among(rows)]
    return sorted(found, key=lambda outlier: (-abs(outlier.z), outlier.key))


def robust_z(values: Sequence[float]) -> list[float] | None:
    """(x − median) / (1.4826 · MAD) of each value; None where the MAD is zero, and of no values."""
    if not values:
        return None
    middle = median(values)
    spread = MAD_TO_STD * median(abs(value - middle) for value in values)
    return [(value - middle) / spread for value in values] if spread > 0 else None


_Like: TypeAlias = tuple[str, str, bool]  # part, component, whether it is a matrix


def _categories(rows: Iterable[KeyScan]) -> Mapping[_Like, list[tuple[KeyScan, float]]]:
    """The changed weights with their relative change, each among its like."""
    categories: dict[_Like, list[tuple[KeyScan, float]]] = {}
    for row in rows:
        change = relative_change(row.sums) if row.labels.kind == "weight" else None
        if change:  # log 0 is no number; an unchanged key is no outlier but a fact of its own
            like = (row.labels.part, row.labels.group, len(row.shape) > 1)
            categories.setdefault(like, []).append((row, change))
    return categories


def _among(rows: Sequence[tuple[KeyScan, float]]) -> list[Outlier]:
    if len(rows) < FEWEST_KEYS:
        return []
    logs = [log(change) for _, change in rows]
    scores, middle = robust_z(logs), median(logs)
    return [
        Outlier(row.key, row.labels.group, change, z)
        for (row, change), x, z in zip(rows, logs, scores or [0.0] * len(logs), strict=True)
        if abs(z) > LIMIT and abs(x - middle) > log(LEAST_FACTOR) and verdict(row.sums) == "changed"
    ]
