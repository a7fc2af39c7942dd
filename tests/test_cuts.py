"""Which elements of several models meet, whatever tensors they lie in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyzer.checkpoints import Checkpoint
from analyzer.merging.cuts import Cut, aligned
from analyzer.records import Pair, Run, TensorInfo
from analyzer.views import rows_of

NOBODY: Checkpoint = None  # type: ignore[assignment]  # nothing is read here
ROWS, WIDTH = 12, 5


def tensor(key: str, rows: int = ROWS) -> TensorInfo:
    """A matrix that starts at byte 0."""
    return TensorInfo(key, "F32", (rows, WIDTH), 0, rows * WIDTH * 4)


def split(name: str, borders: list[int]) -> Pair:
    """A's tensor, in another model split into several at these rows."""
    a = tensor("a")
    runs = []
    for place, (first, last) in enumerate(zip([0, *borders], [*borders, ROWS], strict=True)):
        part = tensor(f"{name}{place}", last - first)
        runs.append(Run(rows_of(a, first, last), part, first * WIDTH))
    return Pair(a, runs[0].b, tuple(runs) if borders else ())


def elements(cuts: list[Cut], place: int) -> list[tuple[str, int]]:
    """(tensor, element) of one model for every element of A's tensor, in A's order."""
    return [
        (cut.places[place].info.key, cut.places[place].start + offset)
        for cut in cuts
        for offset in range(cut.count)
    ]


BORDERS = st.lists(st.integers(1, ROWS - 1), unique=True, max_size=4).map(sorted)


@given(BORDERS, BORDERS)
def test_every_element_meets_its_counterpart(one: list[int], two: list[int]) -> None:
    """Cut at the ends of all tensors: A's elements in order, and of each other model those that belong."""
    cuts = aligned((NOBODY, tensor("a")), [(NOBODY, split("b", one)), (NOBODY, split("c", two))])
    assert [("a", i) for i in range(ROWS * WIDTH)] == elements(cuts, 0)
    assert list(np.cumsum([0, *(cut.count for cut in cuts)][:-1])) == [cut.start for cut in cuts]
    for place, name, borders in ((1, "b", one), (2, "c", two)):
        ends = [0, *borders, ROWS]
        expected = [
            (f"{name}{i}", element)
            for i, (first, last) in enumerate(pairwise(ends))
            for element in range((last - first) * WIDTH)
        ]
        assert expected == elements(cuts, place)


def test_without_a_only_the_others_are_read() -> None:
    """What is taken whole from B needs nothing of A."""
    cuts = aligned(None, [(NOBODY, split("b", [4]))])
    assert [[0], [0]] == [[place.start for place in cut.places] for cut in cuts]
    assert [(0, 20), (20, 40)] == [(cut.start, cut.count) for cut in cuts]
