"""The few operations that formulas are written in, and the formulas' own form. Knows no statistics.

A formula is written once and serves two: one record, whose fields are numbers (`FLOATS`, here), and many
records, whose fields are columns (`analyzer.column_arithmetic`). Undefined is NaN while a formula is
computed: it goes through every operation, so that no step has to ask. NumPy stays out of here, since the
reports read the table of statistics without it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any, TypeAlias, final

from analyzer.measures import Histogram, Sums, add, bin_edges

Value: TypeAlias = Any  # a number, or a column of them, shape (records,)
Record: TypeAlias = Any  # `Sums` or `TaskSums`, or the same with a column in the place of each number


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the elements that changed most end in a histogram, counted from the largest |d| down."""

    above: Value  # Σd² of the bins that belong to them as a whole
    left: Value  # elements of the next bin that belong to them too
    held: Value  # elements of that bin; 1 where there is none
    energy: Value  # Σd² of that bin; 0 where there is none
    low: Value  # that bin's edges, squared
    high: Value


class AbstractArithmetic(ABC):
    """Operations on numbers, or on columns of numbers. NaN in, NaN out."""

    sqrt: Callable[[Value], Value]  # of x ≥ 0
    asin: Callable[[Value], Value]  # of −1 … 1
    exp: Callable[[Value], Value]
    expm1: Callable[[Value], Value]  # eˣ − 1, exact near 0

    @abstractmethod
    def log1p(self, x: Value) -> Value:
        """ln(1 + x), exact near 0; −inf at −1."""

    @abstractmethod
    def ratio(self, top: Value, bottom: Value) -> Value:
        """The quotient; NaN where the bottom is zero or not finite."""

    @abstractmethod
    def finite(self, x: Value) -> Value:
        """The value, NaN where it is not finite."""

    @abstractmethod
    def where(self, condition: Any, value: Value, otherwise: Value = nan) -> Value:
        """The value where the condition holds, else the other one."""

    @abstractmethod
    def clip(self, x: Value, low: float, high: float) -> Value:
        """The nearest value in low … high."""

    @abstractmethod
    def cut(self, histogram: Any, count: Value) -> Cut:
        """Where the `count` elements end that changed most."""


@final
class _Floats(AbstractArithmetic):
    sqrt = staticmethod(math.sqrt)
    asin = staticmethod(math.asin)
    exp = staticmethod(math.exp)
    expm1 = staticmethod(math.expm1)

    def log1p(self, x: float) -> float:
        return math.log1p(x) if x > -1 else -inf if x == -1 else nan

    def ratio(self, top: float, bottom: float) -> float:
        return top / bottom if bottom and isfinite(bottom) else nan

    def finite(self, x: float) -> float:
        return x if isfinite(x) else nan

    def where(self, condition: bool, value: float, otherwise: float = nan) -> float:
        return value if condition else otherwise

    def clip(self, x: float, low: float, high: float) -> float:
        return low if x < low else high if x > high else x

    def cut(self, histogram: Histogram, count: float) -> Cut:
        passed = 0
        energies: list[float] = []
        counts, squares = histogram.counts, histogram.energies
        for place in range(len(histogram) - 1, -1, -1):
            held, energy = counts[place], squares[place]
            if passed + held > count:
                low, high = bin_edges(histogram.first + place)
                return Cut(add(energies), count - passed, held, energy, low * low, high * high)
            passed += held
            energies.append(energy)
        return Cut(add(energies), 0.0, 1, 0.0, 0.0, inf)


FLOATS = _Floats()


@final
class Formula:
    """A statistic as a pure function of a record: called with one, it gives a number, or None for undefined.

    `body` takes a record and the arithmetic of its fields, and gives NaN for undefined.
    """

    def __init__(self, body: Callable[[Record, AbstractArithmetic], Value]) -> None:
        self.body = body
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__

    def __call__(self, sums: Sums) -> float | None:
        """Its value for one record."""
        value: float = self.body(sums, FLOATS)
        return value if value == value else None  # NaN alone is not itself
