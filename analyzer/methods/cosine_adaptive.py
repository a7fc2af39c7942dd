"""A's columns where the two models are alike, B's where they are not: SuperMerger's cosineA and cosineB.

SuperMerger measures all keys but the VAE's, and leaves the VAE as it is in A. Here the scale is that of the
keys that are merged: an alpha of 0 leaves a key out of both, and so does one of 1, which takes B. What
SuperMerger makes of alpha 0 itself is had with one that is next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import fsum, prod, sqrt
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.methods.exact_sums import LIMIT, ExactSums, Whole, largest, split
from analyzer.methods.method import AbstractSurvey, Array, Method, Operands, Setting, difference, shifted

_TRIMMED = (1, 99)  # percentiles of the similarities between which least and most are looked for


def cosine_adaptive_a(operands: Operands, setting: Setting, known: Any) -> Array:
    """k·a + (1 − k)·b, with k = clip(s − |alpha|, 0, 1) for the likeness s of the element's column.

    A column is what shares all indices but the first. `known` holds s of each: its similarity, the mean
    of that of the column and that of the tensor, on a scale of 0 for the least to 1 for the most of all
    columns of the model, within the 1st and 99th percentile. What is alike stays A's. Few s are above 1.
    """
    return _blend(operands, known, abs(setting.alpha))


def cosine_adaptive_b(operands: Operands, setting: Setting, known: Any) -> Array:
    """The same with k = clip(s − alpha, 0, 1), and the similarities of the columns as they are."""
    return _blend(operands, known, setting.alpha)


def _blend(operands: Operands, likeness: Array, less: float) -> Array:
    """A's share is each column's likeness less a number, beyond 0 … 1 clipped."""
    moved = 1 - np.clip(_of_elements(likeness, operands.start, len(operands.a)) - less, 0.0, 1.0)
    moved *= difference(operands.b, operands.a)
    return shifted(operands.a, moved)


def _of_elements(columns: Array, start: int, count: int) -> Array:
    """What stands for the columns of `count` elements from `start` on.

    Of a run within one row only these are touched: a table of positions may be one row of 50 million.
    """
    first = start % len(columns)
    if first + count <= len(columns):
        return columns[first : first + count]
    return np.resize(np.roll(columns, -first), count)


class _Similarities(AbstractSurvey):
    """Each column's similarity, on the scale of all; three sums for every column while it is measured.

    Positions that are not finite in a model leave them. A column of zeros is like nothing: 0, as in torch.
    """

    def __init__(self, *, normalized: bool) -> None:
        self._normalized = normalized  # whether columns have length 1 before tensors are compared: cosineA

    def begin(self, setting: Setting, count: int) -> _Columns:  # noqa: ARG002 - the same for any
        """No products yet."""
        return _Columns(count, normalized=self._normalized)

    def observe(self, state: _Columns, operands: Operands, turn: int) -> None:  # noqa: ARG002 - has one
        """Add the run's products."""
        state.observe(operands)

    def conclude(self, states: Mapping[str, Any]) -> Mapping[str, Array]:
        """The likeness of each tensor's columns, by key."""
        if not states:
            return {}
        ranked = np.concatenate([state.ranked for state in states.values()])
        if not len(ranked):
            return {key: np.zeros_like(state.combined) for key, state in states.items()}
        for percentile, outside in zip(_TRIMMED, (np.less, np.greater), strict=True):
            ranked = ranked[~outside(ranked, np.percentile(ranked, percentile, method="midpoint"))]
        least, most = ranked.min(), ranked.max()
        if least == most:  # nothing to tell columns apart by
            return {key: (state.combined >= most) * 1.0 for key, state in states.items()}
        return {key: (state.combined - least) / (most - least) for key, state in states.items()}


class _Columns:
    """The sums of one tensor, and when all of it was seen, what follows of them.

    Of a single row every element is a column, whose similarity is a sign: sums are held of all together,
    since a table of positions may have 50 million.
    """

    def __init__(self, count: int, *, normalized: bool) -> None:
        self.combined: Array = np.empty(0)  # each column's similarity
        self.ranked: Array = np.empty(0)  # what the scale is made of
        self._left, self._normalized = count, normalized
        self._lock = Lock()
        self._sizes = (0.0, 0.0)
        self._sums: tuple[ExactSums, ...] = ()  # Σab, Σa², Σb²
        self._signs: NDArray[np.int8] | None = None  # of a single row
        self._nonzero = (0, 0)

    def observe(self, operands: Operands) -> None:
        a, b = operands.a, operands.b
        sizes = largest(a), largest(b)
        if not all(size < LIMIT for size in sizes):
            usable = (np.abs(a) < LIMIT) & (np.abs(b) < LIMIT)
            a, b = np.where(usable, a, 0.0), np.where(usable, b, 0.0)
            sizes = largest(a), largest(b)
        row = operands.shape[:1] == (1,)
        columns = 1 if row else prod(operands.shape[1:])
        signs = np.sign(a).astype(np.int8) * np.sign(b).astype(np.int8) if row else None
        nonzero = int(np.count_nonzero(a)), int(np.count_nonzero(b))
        parts = [
            (which, column, split((one[run] * two[run]).reshape(-1, width), bound))
            for which, (one, two, bound) in enumerate(_factors(a, b, sizes))
            for run, column, width in _rectangles(operands.start, len(a), columns)
        ]
        with self._lock:
            self._add(parts, sizes, columns)
            if signs is not None:
                if self._signs is None:
                    self._signs = np.zeros(prod(operands.shape), np.int8)
                self._signs[operands.start : operands.start + len(signs)] = signs
                self._nonzero = self._nonzero[0] + nonzero[0], self._nonzero[1] + nonzero[1]
            self._left -= len(operands.a)
            if not self._left:
                self._finish()

    def _add(
        self, parts: list[tuple[int, int, dict[int, Whole]]], sizes: tuple[float, float], columns: int
    ) -> None:
        if not self._sums:
            self._sums = tuple(ExactSums(columns) for _ in range(3))
        self._sizes = max(self._sizes[0], sizes[0]), max(self._sizes[1], sizes[1])
        for which, column, part in parts:
            self._sums[which].add(part, column)

    def _finish(self) -> None:
        one, two = self._sizes
        ab, aa, bb = (
            sums.totals(bound)
            for sums, bound in zip(self._sums, (one * two, one * one, two * two), strict=True)
        )
        self._sums = ()
        if self._signs is None:
            lengths = np.sqrt(aa) * np.sqrt(bb)
            columns = np.divide(ab, lengths, out=np.zeros_like(ab), where=lengths > 0).clip(-1.0, 1.0)
            total, self._nonzero = fsum(columns), (int(np.count_nonzero(aa)), int(np.count_nonzero(bb)))
        else:
            columns, total = self._signs.astype(np.float64), float(self._signs.sum(dtype=np.int64))
            self._signs = None
        if self._normalized:
            whole = _cosine(total, float(self._nonzero[0]), float(self._nonzero[1]))
        else:
            whole = _cosine(fsum(ab), fsum(aa), fsum(bb))
        self.combined = (columns + (whole or 0.0)) / 2
        if self._normalized:
            self.ranked = columns
        elif whole is not None:
            self.ranked = self.combined


def _factors(a: Array, b: Array, sizes: tuple[float, float]) -> Iterator[tuple[Array, Array, float]]:
    one, two = sizes
    yield a, b, one * two
    yield a, a, one * one
    yield b, b, two * two


def _rectangles(start: int, count: int, columns: int) -> Iterator[tuple[slice, int, int]]:
    """A run as up to three blocks of rows × neighbouring columns: (elements, first column, columns)."""
    place = 0
    while place < count:
        column = (start + place) % columns
        width = min(columns - column, count - place)
        rows = (count - place) // columns if width == columns else 1
        yield slice(place, place + rows * width), column, width
        place += rows * width


def _cosine(product: float, size_a: float, size_b: float) -> float | None:
    """⟨a, b⟩ / (‖a‖·‖b‖) from the squares of the sizes; None if one is 0."""
    if size_a <= 0 or size_b <= 0:
        return None
    return product / (sqrt(size_a) * sqrt(size_b))


_SOURCE = "SuperMerger (hako-mikan/sd-webui-supermerger), scripts/mergers/mergers.py, calcmode"
_FORMULA = "k·a + (1 − k)·b, k = clip(likeness of the column − alpha, 0, 1)"

COSINE_ADAPTIVE_A = Method(
    formula=f"{_FORMULA}; of columns scaled to length 1",
    source=f'{_SOURCE} "cosineA"',
    combine=cosine_adaptive_a,
    survey=_Similarities(normalized=True),
)
COSINE_ADAPTIVE_B = Method(
    formula=_FORMULA,
    source=f'{_SOURCE} "cosineB"',
    combine=cosine_adaptive_b,
    survey=_Similarities(normalized=False),
)
