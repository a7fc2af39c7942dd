"""Values that many intervals share, and the simplest number among them. Knows only numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers low … high, and how much they count for."""

    low: float
    high: float
    weight: float = 1.0

    def holds(self, value: float) -> bool:
        """Whether a number is among them."""
        return self.low <= value <= self.high


def most_shared(intervals: Iterable[Interval]) -> Interval | None:
    """The numbers that lie in the heaviest set of intervals, with that set's weight; None of none.

    Of several such ranges the lowest. A sweep over the ends, in O(n log n).
    """
    ends: list[tuple[float, int, float]] = []
    for each in intervals:
        ends += [(each.low, 0, each.weight), (each.high, 1, each.weight)]  # at one number starts come first
    best: Interval | None = None
    held, start, open_since = 0.0, 0.0, False
    for place, is_end, weight in sorted(ends):
        if not is_end:
            held += weight
            start, open_since = place, True
            continue
        if open_since and (best is None or held > best.weight * (1 + 1e-12)):
            best = Interval(start, place, held)
        open_since = False
        held -= weight
    return best


def simplest(low: float, high: float, *, digits: int = 8) -> float:
    """The number of the fewest decimals in low … high; the middle, rounded, if that needs more digits.

    Of several with as few the one nearest to the middle.
    """
    middle = (low + high) / 2
    for count in range(digits):
        value = round(middle, count)
        if low <= value <= high:
            return value + 0.0  # no −0
    return round(middle, digits) + 0.0
