"""The n-th smallest sizes of each tensor's tasks, exactly and in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.methods.method import AbstractSurvey, Array, Operands, Setting
from analyzer.methods.tasks import tasks_of, weights_of

Bits = NDArray[np.uint32]
Counts = NDArray[np.int64]
# (parameters, elements) -> which sizes are wanted, counted from 0 for the smallest; None: none
Ranks = Callable[[Mapping[str, float], int], tuple[int, ...]]
Sizes = tuple[np.float32, ...]  # those of one task, in the order of the ranks

_HIGH, _LOW = 1 << 15, 1 << 16  # values of the upper 15 and of the lower 16 bits
_FEW = 1 << 14  # elements that are sorted sooner than counted


def sizes_of(task: Array) -> NDArray[np.float32]:
    """|task|, rounded to fp32: the precision in which sizes are compared, as in mergekit."""
    return np.abs(task.astype(np.float32))


class OrderStatistics(AbstractSurvey):
    """For each tensor a tuple over its tasks, of the sizes that have the wanted ranks.

    A radix search over the bits of |task| in fp32, which sort as the values do, NaN last: the first turn
    counts the upper 15 bits, the second the lower 16 of what lies where the ranks fall. A small tensor is
    held and sorted in the first.
    """

    turns = 2

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def needed(self, setting: Setting) -> bool:
        """Unless all of every task is kept anyway."""
        return setting.parameters["density"] < 1

    def begin(self, setting: Setting, count: int) -> _Tensor:
        """One search for each task."""
        ranks = self._ranks(setting.parameters, count)
        found = None if count else ()
        return _Tensor(setting, [_Search(count, ranks, found=found) for _ in weights_of(setting)])

    def observe(self, state: _Tensor, operands: Operands, turn: int) -> None:
        """Count the run's sizes."""
        for search, task in zip(state.searches, tasks_of(operands, state.setting), strict=True):
            search.observe(sizes_of(task).view(np.uint32), turn)

    def conclude(self, states: Mapping[str, Any]) -> Mapping[str, tuple[Sizes, ...]]:
        """The sizes, by key."""
        return {key: tuple(search.sizes() for search in state.searches) for key, state in states.items()}


@dataclass(frozen=True, slots=True)
class _Tensor:
    setting: Setting
    searches: list[_Search]


@dataclass(slots=True)
class _Search:
    """The search in one task. Lets go of its counts as soon as all elements were counted."""

    count: int  # elements
    ranks: tuple[int, ...]
    seen: int = 0  # in this turn
    few: list[Bits] = field(default_factory=list)
    high: Counts | None = None
    low: dict[int, Counts] = field(default_factory=dict)  # by the upper bits
    places: list[tuple[int, int]] = field(default_factory=list)  # (upper bits, rank among their elements)
    found: Sizes | None = None
    lock: Lock = field(default_factory=Lock)

    def observe(self, bits: Bits, turn: int) -> None:
        if self.count <= _FEW:
            if turn == 0:
                self._hold(bits)
            return
        upper = bits >> 16
        if turn == 0:
            counts = np.bincount(upper)
            with self.lock:
                if self.high is None:
                    self.high = np.zeros(_HIGH, np.int64)
                self.high[: len(counts)] += counts
                if self._all_seen(len(bits)):
                    self._locate()
            return
        parts = {
            place: np.bincount(bits[upper == place] & (_LOW - 1)) for place in {p for p, _ in self.places}
        }
        with self.lock:
            for place, counts in parts.items():
                own = self.low.setdefault(place, np.zeros(_LOW, np.int64))
                own[: len(counts)] += counts
            if self._all_seen(len(bits)):
                self._settle()

    def _hold(self, bits: Bits) -> None:
        with self.lock:
            self.few.append(bits)
            if self._all_seen(len(bits)):
                ordered = np.sort(np.concatenate(self.few))
                self.found = tuple(ordered[list(self.ranks)].view(np.float32))
                self.few = []

    def sizes(self) -> Sizes:
        assert self.found is not None, "not all elements were seen"
        return self.found

    def _all_seen(self, more: int) -> bool:
        self.seen = (self.seen + more) % self.count
        return self.seen == 0

    def _locate(self) -> None:
        assert self.high is not None
        self.places = [_find(self.high, rank) for rank in self.ranks]
        self.high = None

    def _settle(self) -> None:
        bits = [(place << 16) + _find(self.low[place], rank)[0] for place, rank in self.places]
        self.found = tuple(np.array(bits, np.uint32).view(np.float32))
        self.low = {}


def _find(counts: Counts, rank: int) -> tuple[int, int]:
    """Where the element of a rank lies, and its rank there."""
    ends = np.cumsum(counts)
    place = int(np.searchsorted(ends, rank, side="right"))
    return place, rank - (int(ends[place - 1]) if place else 0)
