"""The cosines between the rows of two matrices, and how they are spread. Knows no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.records import RowCosines

Array = NDArray[np.float64]

_ROWS_AT_ONCE = 1 << 14  # for what is computed on the way: 1 MiB
_AT_ONCE = 1 << 18  # cosines of matrices with as many rows, of which quantiles are found together


def cosines_of(rows: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The cosine of every row (Σa², Σb², Σd²), −1 … 1, and which rows have one.

    See `analyzer.formulas.angular_distance`. A row of zeros has none, and one whose squares fp64 cannot hold.
    """
    distances = np.empty(len(rows))
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        distances[at : at + _ROWS_AT_ONCE] = _distances(rows[at : at + _ROWS_AT_ONCE])
    known = np.isfinite(distances)
    np.clip(distances, 0.0, 2.0, out=distances)
    return np.subtract(1.0, distances, out=distances), known


def _distances(rows: Array) -> Array:
    norms = np.sqrt(rows)
    with np.errstate(all="ignore"):  # beyond fp64, which leaves the row out
        difference = (rows[:, 1] - rows[:, 0]) / (norms[:, 0] + norms[:, 1])
        distances: Array = (rows[:, 2] - difference * difference) / (2 * norms[:, 0] * norms[:, 1])
    return distances


def describe_rows(cosines: Sequence[Array | None]) -> list[RowCosines | None]:
    """The smallest, the 5th percentile and the median of every matrix's cosines; None of none.

    Matrices with as many rows are dealt with together: numpy takes 50 µs for a percentile, of one or of a
    thousand.
    """
    alike: dict[int, list[int]] = {}
    for place, known in enumerate(cosines):
        if known is not None and len(known):
            alike.setdefault(len(known), []).append(place)
    found: list[RowCosines | None] = [None] * len(cosines)
    for rows, places in alike.items():
        step = max(_AT_ONCE // rows, 1)
        for at in range(0, len(places), step):
            group = places[at : at + step]
            table = np.array([cosines[place] for place in group])
            p05, median = np.percentile(table, [5, 50], axis=1).tolist()
            for place, *numbers in zip(group, table.min(axis=1).tolist(), p05, median, strict=True):
                found[place] = RowCosines(*numbers)
    return found
