"""Are two models, or two parts of them, relatives at all? Knows records and cosines, no sentences.

The cosine of two vectors that have nothing to do with each other is not exactly 0: of n independent
values with mean zero it is spread around 0 with standard deviation 1/√n (Cai, Fan & Jiang, Distributions
of angles in random packing on spheres, 2013). Norm gains and many biases do not have mean zero: the cosine
of two such vectors is near 1 whatever they come from, and tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.arithmetic import AbstractArithmetic, Formula, Record, Value
from analyzer.columns import Places, SumColumns
from analyzer.formulas import cosine
from analyzer.ranking import counted
from analyzer.records import KeyScan, Scan

# With fewer elements chance alone gives cosines beyond ±0.1 now and then: at 1000 that is three standard
# deviations. It also leaves out most norm gains and biases.
SAMPLE_ELEMENTS = 1000
FINE_TUNE_COSINE = 0.9
DISTANT_COSINE = 0.1
OPPOSED_COSINE = -0.1  # down from here two models are no strangers: one is nearly the other's negative
MATRIX_AXES = 2  # fewer axes have gains, biases and scales


@dataclass(frozen=True, slots=True)
class Relation:
    """What some weights of two models are to each other, and the evidence for it."""

    name: str | None  # "same", "fine-tune", "distant", "unrelated"; None: cannot be told
    cosine: float | None = None  # the element-weighted median; None if `name` is "same" or None
    keys: int = 0  # how many keys changed and are large enough to have a say
    chance: float | None = None  # standard deviation of the cosine of unrelated weights; None: none can tell

    @property
    def opposed(self) -> bool:
        """Whether one points away from the other, as −A does from A; `name` is then "unrelated" too."""
        return self.cosine is not None and self.cosine <= OPPOSED_COSINE


def kinship(scan: Scan, columns: SumColumns | None = None) -> tuple[str | None, float | None]:
    """What the two models are to each other, and the cosine that says so.

    The element-weighted median of the cosines of all keys that changed and have 1000 elements or
    more: from 0.9 on "fine-tune", from 0.1 on "distant", below "unrelated", which means trained
    apart. "same" if weights were compared and none changed. (None, None) where none could be
    compared, or where no key that changed is large enough or has a direction. `columns` are those of the
    counted keys' sums, if they are known already.
    """
    found = Kinships(counted(scan.keys), columns).relation()
    return found.name, found.cosine


def relation(rows: Iterable[KeyScan]) -> Relation:
    """The `kinship` of these rows alone, whatever they are: a part, a component, those that changed."""
    return Kinships(tuple(rows)).relation()


class Kinships:
    """Many rows, and what any of them are to each other."""

    def __init__(self, rows: Sequence[KeyScan], columns: SumColumns | None = None) -> None:
        """`columns` are those of the rows' sums, if they are known already."""
        columns = SumColumns.of(row.sums for row in rows) if columns is None else columns
        self._sizes = columns.column("numel").astype(np.int64)
        self._compared = columns.column("n") > 0
        self._changed = self._compared & (columns.column("changed") > 0)
        self._large = self._changed & (self._sizes >= SAMPLE_ELEMENTS)
        self._cosines = columns.values(cosine)
        matrices = np.fromiter((len(row.shape) >= MATRIX_AXES for row in rows), np.bool_, len(rows))
        self.telling: NDArray[np.bool_] = matrices & _tells(columns)  # which rows `can_tell`

    def relation(self, places: Places | None = None) -> Relation:
        """The `relation` of the rows at these places, or of all."""
        chosen = np.arange(len(self._sizes)) if places is None else places
        if not self._changed[chosen].any():
            return Relation("same" if self._compared[chosen].any() else None)
        large = chosen[self._large[chosen]]
        voters = large[~np.isnan(self._cosines[large])]
        if not len(voters):
            return Relation(None)
        median = float(_weighted_median(self._cosines[voters], self._sizes[voters]))
        return Relation(_name(median), median, len(voters), self.chance(large))

    def chance(self, places: Places) -> float | None:
        """1/√n: the standard deviation of the cosine of two unrelated tensors like these; 0 is its mean.

        n is the size of the typical matrix, the element-weighted median. None where no row `can_tell`.
        """
        sizes = self._sizes[places[self.telling[places]]]
        return 1 / sqrt(_weighted_median(sizes, sizes)) if len(sizes) else None


def can_tell(row: KeyScan) -> bool:
    """Whether the row's cosine is evidence: two axes or more, elements enough, and means that are near zero.

    So that the cosine of an unrelated tensor like this would be below the mark for distant relatives.
    """
    if len(row.shape) < MATRIX_AXES or row.sums.numel < SAMPLE_ELEMENTS:
        return False
    unrelated = cosine_of_means(row.sums)
    return unrelated is not None and unrelated < DISTANT_COSINE


@Formula
def cosine_of_means(s: Record, m: AbstractArithmetic) -> Value:
    """Σa·Σb / (n·‖a‖·‖b‖), in −1 … 1: the cosine to expect of independent values with these means.

    Near 1 for norm gains, near 0 for weights; None where a norm is zero.
    """
    return m.ratio(s.sum_a, s.numeric) * m.ratio(s.sum_b, m.sqrt(s.sum_aa) * m.sqrt(s.sum_bb))


def _tells(columns: SumColumns) -> NDArray[np.bool_]:
    """Whether the cosine of every record is evidence, as far as its sums say; see `can_tell`."""
    unrelated = columns.values(cosine_of_means)
    tells: NDArray[np.bool_] = (unrelated < DISTANT_COSINE) & (columns.column("numel") >= SAMPLE_ELEMENTS)
    return tells


def _name(median: float) -> str:
    if median >= FINE_TUNE_COSINE:
        return "fine-tune"
    return "distant" if median >= DISTANT_COSINE else "unrelated"


def _weighted_median(values: NDArray[Any], weights: NDArray[np.int64]) -> Any:
    """The value at which half of the weight lies at or below it, of one value or more."""
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order])
    return values[order][np.searchsorted(passed, passed[-1] / 2)]
