"""Which elements of several models belong to the same elements of A. Knows shapes and places, no values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from analyzer.records import Pair, Run, TensorInfo


@dataclass(frozen=True, slots=True)
class Located:
    """Elements that follow one another in some model's tensor."""

    info: TensorInfo
    at: int  # the first one's place in the tensor, in elements


@dataclass(frozen=True, slots=True)
class Stretch:
    """Elements of A's tensor that follow one another in every model that has them."""

    a: Located
    others: tuple[Located | None, ...]  # None: the model has no such elements
    count: int
    word: str  # what the rows are inside a fused tensor: "q", "k", "v"; "" for a whole tensor


def align(whole: TensorInfo, pairs: Sequence[Pair | None]) -> list[Stretch]:
    """A's tensor cut where one of the others' tensors ends, in the order of its elements.

    `pairs` are A's tensor paired with each other model's; None where that has no such tensor. A tensor
    that is compared in part only, such as the first rows of a vocabulary, counts as one that is lacking:
    merges leave such tensors alone.
    """
    runs = [[] if pair is None or pair.partial else _runs(pair) for pair in pairs]
    cuts = {0, whole.numel}
    for each in runs:
        for run in each:
            cuts |= {run.start, run.start + run.a.numel}
    ordered = sorted(cuts)
    if len(ordered) == 1:  # no elements
        return []
    return [_stretch(whole, runs, first, last) for first, last in pairwise(ordered)]


def _runs(pair: Pair) -> list[Run]:
    return sorted(pair.parts, key=lambda run: run.start)


def _stretch(whole: TensorInfo, runs: Sequence[Sequence[Run]], first: int, last: int) -> Stretch:
    found = [_covering(each, first, last) for each in runs]
    word = next((run.word for run in found if run is not None and run.word), "")
    others = tuple(None if run is None else Located(run.b, first - run.start) for run in found)
    return Stretch(Located(whole, first), others, last - first, word)


def _covering(runs: Sequence[Run], first: int, last: int) -> Run | None:
    return next((run for run in runs if run.start <= first and last <= run.start + run.a.numel), None)
