"""What one streaming pass measures of two tensors, and how such records add. Knows no formulas.

Everything here is additive: the record of two chunks, two keys or two shards is the sum of theirs, and
so is that of any group of keys. Counts add exactly. Sums are rounded once a join (fsum), so the result
depends neither on the order of the records nor on how they are grouped, beyond the rounding of the
parts themselves.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# Two bins to an octave of |d|, from 2^-64 to 2^64: the edges are 2^e and 1.5·2^e. What lies beyond the
# first or the last edge is counted in the first or the last bin.
BINS = 256
LOWEST_EXPONENT = -64


def bin_edges(index: int) -> tuple[float, float]:
    """(low, high) of a histogram's bin: low ≤ |d| < high. The first begins at 0, the last has no end."""
    low, high = (
        math.ldexp(1.5 if place % 2 else 1.0, LOWEST_EXPONENT + place // 2) for place in (index, index + 1)
    )
    return (low if index > 0 else 0.0), (high if index < BINS - 1 else math.inf)


# Two bins to an octave of |d| / ulp(a) as well, from 2^-32 to 2^64.
STEP_OCTAVES = 96
STEP_BINS = 2 * STEP_OCTAVES
LOWEST_STEP = -32


def step_edges(index: int) -> tuple[float, float]:
    """(low, high) of a bin of steps: low ≤ |d| / ulp(a) < high.

    What lies beyond the ends is counted in the first or the last octave, so in one of two bins.
    """
    low, high = (
        math.ldexp(1.5 if place % 2 else 1.0, LOWEST_STEP + place // 2) for place in (index, index + 1)
    )
    return low, high


_NO_COUNTS = array("q")
_NO_ENERGIES = array("d")


class Histogram:
    """How a change is spread: count and Σd² of the positions with d ≠ 0, by |d| or by |d| / ulp(a).

    Holds the bins from the first to the last that is not empty; see `bin_edges` and `step_edges` for what
    they span. Not to be changed. Many may share two arrays, of which each is a part: arrays of their own
    would take twice the memory of what is in them. Counts may be held as any unsigned or 64-bit integers.
    """

    __slots__ = ("_counts", "_end", "_energies", "_start", "first")

    def __init__(
        self,
        first: int = 0,
        counts: array[int] = _NO_COUNTS,
        energies: array[float] = _NO_ENERGIES,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        """The bins from index `first` on are elements `start` … `end` − 1 of the two arrays."""
        self.first = first  # index of the first bin that is held
        self._counts, self._energies = counts, energies
        self._start, self._end = start, len(counts) if end is None else end

    def __len__(self) -> int:
        """How many bins are held."""
        return self._end - self._start

    @property
    def counts(self) -> array[int]:
        """Positions in each bin, as 64-bit integers."""
        return array("q", self.packed_counts)

    @property
    def packed_counts(self) -> array[int]:
        """The same, as they are held."""
        return self._counts[self._start : self._end]

    @property
    def energies(self) -> array[float]:
        """Σd² of each bin."""
        return self._energies[self._start : self._end]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (self.first, self.counts, self.energies) == (other.first, other.counts, other.energies)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __repr__(self) -> str:
        return f"Histogram(first={self.first}, counts={self.counts}, energies={self.energies})"


@dataclass(frozen=True, slots=True)
class TaskSums:
    """What a third model, the base c, adds: sums over the tasks p = a − c and q = b − c.

    Over the positions that are finite in a, b and c, of tensors that all three models have.
    """

    n: int = 0
    moved_a: int = 0  # positions with p ≠ 0
    moved_b: int = 0  # with q ≠ 0
    moved_both: int = 0  # with both
    conflicts: int = 0  # with p·q < 0
    aa: float = 0.0  # Σp²
    bb: float = 0.0  # Σq²
    dd: float = 0.0  # Σ(q − p)², which is Σ(b − a)² over these positions
    abs_a: float = 0.0  # Σ|p|
    abs_b: float = 0.0  # Σ|q|
    abs_sum: float = 0.0  # Σ|p + q|
    abs_conflict: float = 0.0  # Σ(|p| + |q|) where p·q < 0
    dot_a: float = 0.0  # Σa·p; inf in scan files of earlier releases, which lack it


@dataclass(frozen=True, slots=True)
class Sums:
    """What one streaming pass measures of a pair of tensors a and b, with d = b − a.

    Sums add: the record of two chunks, keys or models together is the sum of their records, in
    fp64. `numel` and `nonfinite_*` count every element. `n` counts the positions that are finite
    on both sides (with a base: on all three), and `numeric` those of them that are stored as floating
    point on both sides: every sum from `sum_a` on runs over these alone. Integers and booleans are
    compared for equality (`changed`) and enter no sum. Squares of fp64 values beyond about 1e±154 leave
    the range of fp64, and with it what is made of them is undefined.
    """

    numel: int = 0
    n: int = 0
    numeric: int = 0
    nonfinite_a: int = 0
    nonfinite_b: int = 0
    # positions that leave the sums and hold different values; NaN equals NaN, and where only the base is not
    # finite, a value equals its cast
    nonfinite_differs: int = 0
    changed: int = 0  # positions with a ≠ b
    cast_only: int = 0  # those of them that are equal after a cast to the coarser of the storage dtypes
    sign_flips: int = 0  # positions with a·b < 0
    sum_a: float = 0.0
    sum_b: float = 0.0
    sum_aa: float = 0.0
    sum_bb: float = 0.0
    sum_dd: float = 0.0
    sum_ab: float = 0.0
    sum_abs_d: float = 0.0
    max_abs_d: float = 0.0  # joins as a maximum
    # Σ ulp(a)², ulp = spacing in the coarser of the two storage dtypes; inf where a storage has no fixed
    # spacing (GGUF's blocks)
    sum_ulp_sq: float = 0.0
    m2_a: float = 0.0  # Σ(a − mean of a)²; joins by Chan's formula, see `add_sums`
    m2_b: float = 0.0
    histogram: Histogram = field(default_factory=Histogram)  # of |d|
    # of |d| / ulp(a), ulp = spacing at |a| in A's storage dtype, its smallest where a = 0; empty where that
    # is not known (GGUF's blocks), and in scan files of earlier releases
    steps: Histogram = field(default_factory=Histogram)
    # of |d| / ulp(a) in fp8 e4m3, whatever A's dtype: half of a network's weights are subnormal in it, and
    # there its spacing does not follow from A's
    e4m3_steps: Histogram = field(default_factory=Histogram)
    task: TaskSums | None = None  # None: there is no base, or it has no such tensor

    def __add__(self, other: Sums) -> Sums:
        """The record of both samples together."""
        return add_sums([self, other])


COUNTS = frozenset(
    {"numel", "n", "numeric", "nonfinite_a", "nonfinite_b", "nonfinite_differs", "changed", "cast_only"}
    | {"sign_flips"}
)
TASK_COUNTS = frozenset({"n", "moved_a", "moved_b", "moved_both", "conflicts"})
HISTOGRAMS = ("histogram", "steps", "e4m3_steps")
# The plain numbers
SUM_FIELDS = tuple(f.name for f in fields(Sums) if f.name not in (*HISTOGRAMS, "task"))
TASK_FIELDS = tuple(f.name for f in fields(TaskSums))
_JOINED = {"max_abs_d", "m2_a", "m2_b"}  # the numbers that do not simply add


def add_sums(records: Iterable[Sums]) -> Sums:
    """The record of all samples together; the empty record of none."""
    rows = list(records)
    if len(rows) == 1:
        return rows[0]
    if not rows:
        return Sums()
    values: dict[str, Any] = {
        name: add([getattr(row, name) for row in rows]) for name in SUM_FIELDS if name not in _JOINED
    }
    values["max_abs_d"] = max(row.max_abs_d for row in rows)
    numeric = values["numeric"]
    values["m2_a"] = _join_squares([(r.numeric, r.sum_a, r.m2_a) for r in rows], numeric, values["sum_a"])
    values["m2_b"] = _join_squares([(r.numeric, r.sum_b, r.m2_b) for r in rows], numeric, values["sum_b"])
    values |= {name: _join_histograms([getattr(row, name) for row in rows]) for name in HISTOGRAMS}
    values["task"] = _join_tasks([row.task for row in rows if row.task is not None])
    return Sums(**values)


def _join_squares(parts: Sequence[tuple[int, float, float]], count: int, total: float) -> Any:
    """Σ(x − mean)² of all parts, given (n, Σx, Σ(x − mean)²) of each.

    Within the parts, and between their means and the common one: no difference of large squares,
    so a spread of a millionth of the mean keeps its digits. Chan, Golub & LeVeque, Updating
    formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    if not count:
        return 0.0
    mean = total / count
    between = [n * (part / n - mean) * (part / n - mean) for n, part, _ in parts if n]
    return add([*(m2 for _, _, m2 in parts), *between])


def _join_histograms(parts: Sequence[Histogram]) -> Histogram:
    held = [part for part in parts if len(part)]
    if len(held) <= 1:
        return held[0] if held else Histogram()
    first = min(part.first for part in held)
    end = max(part.first + len(part) for part in held)
    counts, energies = [0] * (end - first), [array("d") for _ in range(first, end)]
    alike: dict[tuple[int, int], list[Histogram]] = {}
    for part in held:
        alike.setdefault((part.first - first, len(part)), []).append(part)
    # All that hold the same bins at a time: of 100,000 keys there are few hundred kinds.
    for (start, length), kind in alike.items():
        held_counts = array("q", b"".join(part.counts for part in kind))
        held_energies = array("d", b"".join(part.energies for part in kind))
        for column in range(length):
            counts[start + column] += sum(held_counts[column::length])
            energies[start + column] += held_energies[column::length]
    return Histogram(first, array("q", counts), array("d", map(add, energies)))


def _join_tasks(parts: Sequence[TaskSums]) -> TaskSums | None:
    if len(parts) <= 1:
        return parts[0] if parts else None
    return TaskSums(**{name: add([getattr(part, name) for part in parts]) for name in TASK_FIELDS})


def add(column: Sequence[Any]) -> Any:
    """The sum, exact for counts; ±inf or NaN where fp64 overflows, which fsum refuses to return."""
    if not column:
        return 0.0
    if isinstance(column[0], int):
        return sum(column)
    try:
        return math.fsum(column)
    except (OverflowError, ValueError):
        return sum(column)
