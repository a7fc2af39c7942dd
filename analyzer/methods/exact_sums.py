"""Sums that come out the same to the bit, in whatever order and cut their terms arrive.

Each term is rounded, exactly and by itself, to multiples of fixed powers of two, whose sums are whole
numbers. Source: Demmel and Nguyen, Fast reproducible floating-point summation, ARITH 2013; the rounding
by adding and subtracting one large number is that of Rump, Ogita and Oishi's AccSum.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import frexp

import numpy as np
from numpy.typing import NDArray

from analyzer.methods.method import Array

Whole = NDArray[np.int64]

LIMIT = 2.0**480  # factors below it have products whose multiples have room
_WIDTH = 30  # bits of one multiple: 2^33 terms fit an int64
_DEPTH = 3  # multiples that are kept: at least 60 bits below the largest term
_LOWEST = -32  # terms below 2^(30·_LOWEST) are lost
_ROWS = 1 << 20  # that one fp64 sum of multiples holds exactly


def largest(values: Array) -> float:
    """max|x|; NaN if one is NaN, 0 if there are none."""
    return max(values.max(initial=0.0), -values.min(initial=0.0)) if len(values) else 0.0


class ExactSums:
    """A running sum for each of `count` columns. Not locked."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._top = _LOWEST
        self._multiples: dict[int, Whole] = {}

    def add(self, parts: dict[int, Whole], first: int = 0) -> None:
        """Take `split` terms into account, in the columns from `first` on."""
        if not parts:
            return
        self._top = max(self._top, *parts)
        for place, sums in parts.items():
            if place > self._top - _DEPTH:
                own = self._multiples.setdefault(place, np.zeros(self._count, np.int64))
                own[first : first + len(sums)] += sums
        for place in [place for place in self._multiples if place <= self._top - _DEPTH]:
            del self._multiples[place]

    def totals(self, bound: float) -> Array:
        """The sums, to about 2^-60 of `bound`: that of `split`, for all terms together."""
        top = _top(bound)
        lowest = max(top - _DEPTH + 1, _LOWEST)
        carry = np.zeros(self._count, np.int64)
        digits = []
        for place in range(lowest, top):
            own = carry + self._multiples.get(place, 0)
            digits.append(own & ((1 << _WIDTH) - 1))
            carry = own >> _WIDTH
        # Carried over, the digits are those of one number, whatever they were summed of.
        total = (carry + self._multiples.get(top, 0)).astype(np.float64)
        for digit in reversed(digits):
            total = total * 2.0**_WIDTH + digit
        result: Array = np.ldexp(total, _WIDTH * lowest)
        return result


def split(terms: Array, bound: float) -> dict[int, Whole]:
    """The sums over rows × columns, by power of two: `ExactSums.add` wants them. Overwrites `terms`.

    `bound` is at least the largest term and below `LIMIT`²; of products a·b, max|a|·max|b|. The multiples
    begin there.
    """
    parts: dict[int, Whole] = {}
    if not terms.size or not bound:
        return parts
    top = _top(bound)
    scratch = np.empty_like(terms[:_ROWS])
    for start in range(0, len(terms), _ROWS):
        block = terms[start : start + _ROWS]
        for place, sums in _sums(block, top, scratch[: len(block)]):
            parts[place] = parts[place] + sums if place in parts else sums
    return parts


def _top(bound: float) -> int:
    """Which power of 2^30 is at or below a number."""
    return max((frexp(bound)[1] - 1) // _WIDTH, _LOWEST)


def _sums(block: Array, top: int, multiple: Array) -> Iterator[tuple[int, Whole]]:
    for place in range(top, max(top - _DEPTH, _LOWEST - 1), -1):
        magic = 1.5 * 2.0 ** (52 + _WIDTH * place)
        np.add(block, magic, out=multiple)
        multiple -= magic
        yield place, (multiple.sum(axis=0) * 2.0 ** (-_WIDTH * place)).astype(np.int64)
        block -= multiple
