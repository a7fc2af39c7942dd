"""Keys that changed far more, or far less, than their like. Knows records and one formula, no sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, sqrt
from statistics import median

import numpy as np

from analyzer.columns import Floats, Places, SumColumns
from analyzer.formulas import relative_change
from analyzer.ranking import counted
from analyzer.records import KeyScan, Scan
from analyzer.verdicts import verdict

# A scan in which all keys of a category are alike lists an outlier with this probability.
CHANCE = 0.01
# The largest robust |z| of n normal values, which a share of 1e-2, 1e-3, 1e-4 of such samples exceeds.
# Simulated by tests/benchmarks/outlier_limits.py. A fixed limit, as the 3.5 of Iglewicz & Hoaglin, is
# exceeded in 13 % of samples of 8 and in 60 % of samples of 2000: the MAD of few values is itself uncertain,
# and of many values one is far out.
SHARES = (1e-2, 1e-3, 1e-4)
LIMITS: Mapping[int, tuple[float, float, float]] = {
    8: (8.23, 15.61, 29.09),
    10: (7.06, 12.06, 20.04),
    12: (6.39, 10.16, 15.51),
    16: (5.65, 8.26, 11.89),
    24: (5.02, 6.71, 8.69),
    32: (4.75, 6.13, 7.64),
    64: (4.41, 5.32, 6.24),
    128: (4.29, 4.99, 5.62),
    512: (4.38, 4.92, 5.39),
    2048: (4.60, 5.07, 5.50),
}
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


def outliers(scan: Scan, columns: SumColumns | None = None) -> list[Outlier]:
    """The counted weight keys whose relative change is out of line, the most extreme first, ties by key.

    A key is compared with the weights that changed in the same category of the same part (a fine-tune may
    move two text encoders differently), matrices with matrices and gains with gains. Changes spread by
    factors, so their logarithms are compared: z = (x − median) / (1.4826 · MAD), with the median
    absolute deviation MAD: the modified z-score of Iglewicz & Hoaglin, How to Detect and Handle Outliers,
    1993. The median and the MAD do not move with the outliers, as a mean and a standard deviation would.

    Beyond `limit` a key stands out, so that of normal logarithms all categories of a scan together hold an
    outlier in one scan of a hundred. The change of a key of few elements is large or small by chance too:
    ln‖d‖ of n independent normal elements has a standard deviation of 1/√(2n) (the delta method), and a key
    must be out of line by the limit of many values times that as well.

    None of a category of fewer than 8 such keys. None where the MAD is zero: more than half of the keys
    changed by the very same factor, so there is no spread to measure a deviation against, and any other key
    would be infinitely far out. None within a factor of 1.25 of the category's median, and no key that
    differs by a cast or by rounding alone: that has a verdict of its own. `columns` are those of the counted
    keys' sums, if they are known already.
    """
    rows = counted(scan.keys)
    columns = SumColumns.of(row.sums for row in rows) if columns is None else columns
    changes = columns.values(relative_change)
    large = [places for places in _categories(rows, changes) if len(places) >= FEWEST_KEYS]
    found = [outlier for places in large for outlier in _among(rows, changes, places, len(large))]
    return sorted(found, key=lambda outlier: (-abs(outlier.z), outlier.key))


def limit(count: int, samples: int = 1) -> float:
    """The robust |z| that chance exceeds in 1 % of all looks at `samples` samples of `count` normal values.

    Each sample has its share of the 1 % (Bonferroni). Between the sizes and shares of `LIMITS` its logarithm
    is linear in theirs; so it is for rarer shares, which makes the limit rather too high. Outside the sizes
    that of the nearest one.
    """
    share = log(CHANCE / samples)
    sizes = sorted(LIMITS)
    size = log(min(max(count - count % 2, sizes[0]), sizes[-1]))  # the table holds for the odd count above
    known = [
        (log(n), _line([(log(s), log(z)) for s, z in zip(SHARES, LIMITS[n], strict=True)], share))
        for n in sizes
    ]
    return exp(_line(known, size))


def _line(points: Sequence[tuple[float, float]], x: float) -> float:
    """The broken line through these points, from left to right or back; beyond the last its last piece."""
    pieces = list(pairwise(points))
    (x0, y0), (x1, y1) = next((p for p in pieces if (p[0][0] - x) * (x - p[1][0]) >= 0), pieces[-1])
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def robust_z(values: Sequence[float]) -> list[float] | None:
    """(x − median) / (1.4826 · MAD) of each value; None where the MAD is zero, and of no values."""
    if not values:
        return None
    middle = median(values)
    spread = MAD_TO_STD * median(abs(value - middle) for value in values)
    return [(value - middle) / spread for value in values] if spread > 0 else None


def _categories(rows: Sequence[KeyScan], changes: Floats) -> list[Places]:
    """Where the changed weights stand, each among its like: of one part, component, and matrix or not."""
    of_kinds: dict[tuple[str, str, bool], list[int]] = {}
    # log 0 is no number; an unchanged key is no outlier but a fact of its own
    for place in np.flatnonzero(changes > 0).tolist():
        row = rows[place]
        labels = row.labels
        if labels.kind == "weight":
            of_kinds.setdefault((labels.part, labels.group, len(row.shape) > 1), []).append(place)
    return [np.array(places, np.intp) for places in of_kinds.values()]


def _among(rows: Sequence[KeyScan], changes: Floats, places: Places, categories: int) -> list[Outlier]:
    """The outliers of one category, of as many that are looked at."""
    logs = [log(change) for change in changes[places].tolist()]
    scores, middle = robust_z(logs), median(logs)
    if scores is None:
        return []
    farthest, sure = limit(len(places), categories), limit(max(LIMITS), categories)
    far = [index for index, z in enumerate(scores) if abs(z) > farthest]
    members = [(rows[places[index]], changes[places[index]], logs[index], scores[index]) for index in far]
    return [
        Outlier(row.key, row.labels.group, float(change), z)
        for row, change, x, z in members
        if abs(x - middle) > max(log(LEAST_FACTOR), sure / sqrt(2 * max(row.sums.changed, 1)))
        and verdict(row.sums) == "changed"
    ]
