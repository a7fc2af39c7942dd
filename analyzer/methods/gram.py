"""The Gram matrix of the vectors that linear methods combine, for those whose coefficients follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from threading import Lock
from typing import Any

import numpy as np

from analyzer.methods.exact_sums import LIMIT, ExactSums, Whole, largest, split
from analyzer.methods.method import AbstractSurvey, Array, Operands, Setting, vectors


class GramSurvey(AbstractSurvey):
    """⟨vᵢ, vⱼ⟩ over each tensor, of its `vectors`: symmetric, of 3 + (further models) rows.

    Positions that are not finite in some model leave it, as do those beyond 2^480. The bits do not depend
    on the order or the cut of the runs.
    """

    def begin(self, setting: Setting, count: int) -> _Products:
        """No products yet."""
        return _Products(3 + len(setting.weights), count)

    def observe(self, state: _Products, operands: Operands, turn: int) -> None:  # noqa: ARG002 - has one
        """Add the run's products."""
        found = vectors(operands)
        sizes = [largest(vector) for vector in found]
        if not all(size < LIMIT for size in sizes):
            usable = np.logical_and.reduce([np.abs(vector) < LIMIT for vector in found])
            found = [vector[usable] for vector in found]
            sizes = [largest(vector) for vector in found]
        state.add(found, sizes, len(operands.a))

    def conclude(self, states: Mapping[str, Any]) -> Mapping[str, Array]:
        """The matrices, by key."""
        return {key: state.matrix for key, state in states.items()}


class _Products:
    """The sums of one tensor. Keeps nothing but their matrix as soon as all elements were seen."""

    def __init__(self, rows: int, count: int) -> None:
        self.matrix = np.zeros((rows, rows))
        self._left = count
        self._lock = Lock()
        self._sizes = [0.0] * rows  # max|vᵢ|
        self._sums: dict[tuple[int, int], ExactSums] = {}

    def add(self, found: list[Array], sizes: list[float], seen: int) -> None:
        parts: dict[tuple[int, int], dict[int, Whole]] = {}
        for i, j in combinations_with_replacement(range(len(found)), 2):
            bound = sizes[i] * sizes[j]
            if bound:
                parts[i, j] = split((found[i] * found[j]).reshape(-1, 1), bound)
        with self._lock:
            self._sizes = list(map(max, self._sizes, sizes))
            for pair, part in parts.items():
                self._sums.setdefault(pair, ExactSums(1)).add(part)
            self._left -= seen
            if not self._left:
                self._finish()

    def _finish(self) -> None:
        for (i, j), sums in self._sums.items():
            self.matrix[i, j] = self.matrix[j, i] = sums.totals(self._sizes[i] * self._sizes[j])[0]
        self._sums = {}
