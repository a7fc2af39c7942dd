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

from analyzer.formulas import cosine, divides
from analyzer.measures import Sums
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


def kinship(scan: Scan) -> tuple[str | None, float | None]:
    """What the two models are to each other, and the cosine that says so.

    The element-weighted median of the cosines of all keys that changed and have 1000 elements or
    more: from 0.9 on "fine-tune", from 0.1 on "distant", below "unrelated", which means trained
    apart. "same" if weights were compared and none changed. (None, None) where none could be
    compared, or where no key that changed is large enough or has a direction.
    """
    found = relation(counted(scan.keys))
    return found.name, found.cosine


def relation(rows: Iterable[KeyScan]) -> Relation:
    """The `kinship` of these rows alone, whatever they are: a part, a component, those that changed."""
    compared = [row for row in rows if row.sums.n]
    changed = [row for row in compared if row.sums.changed]
    if not changed:
        return Relation("same" if compared else None)
    large = [row for row in changed if row.sums.numel >= SAMPLE_ELEMENTS]
    voters = [(c, row.sums.numel) for row in large if (c := cosine(row.sums)) is not None]
    if not voters:
        return Relation(None)
    median = _weighted_median(voters)
    return Relation(_name(median), median, len(voters), chance(large))


def can_tell(row: KeyScan) -> bool:
    """Whether the row's cosine is evidence: two axes or more, elements enough, and means that are near zero.

    So that the cosine of an unrelated tensor like this would be below the mark for distant relatives.
    """
    if len(row.shape) < MATRIX_AXES or row.sums.numel < SAMPLE_ELEMENTS:
        return False
    unrelated = cosine_of_means(row.sums)
    return unrelated is not None and unrelated < DISTANT_COSINE


def cosine_of_means(s: Sums) -> float | None:
    """Σa·Σb / (n·‖a‖·‖b‖), in −1 … 1: the cosine to expect of independent values with these means.

    Near 1 for norm gains, near 0 for weights; None where a norm is zero.
    """
    lengths = sqrt(s.sum_aa) * sqrt(s.sum_bb)
    return s.sum_a / s.numeric * (s.sum_b / lengths) if s.numeric and divides(lengths) else None


def chance(rows: Iterable[KeyScan]) -> float | None:
    """1/√n: the standard deviation of the cosine of two unrelated tensors like these; 0 is its mean.

    n is the size of the typical matrix, the element-weighted median. None where no row `can_tell`.
    """
    sizes = [(row.sums.numel, row.sums.numel) for row in rows if can_tell(row)]
    return 1 / sqrt(_weighted_median(sizes)) if sizes else None


def _name(median: float) -> str:
    if median >= FINE_TUNE_COSINE:
        return "fine-tune"
    return "distant" if median >= DISTANT_COSINE else "unrelated"


def _weighted_median(pairs: Sequence[tuple[float, int]]) -> float:
    """The value at which half of the weight lies at or below it, of one pair (value, weight) or more."""
    half, passed = sum(weight for _, weight in pairs) / 2, 0
    for value, weight in sorted(pairs):
        passed += weight
        if passed >= half:
            return value
    raise AssertionError("no values")
