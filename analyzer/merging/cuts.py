"""Which elements of several models belong together. Knows shapes and places, never values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from analyzer.checkpoints import Checkpoint
from analyzer.records import Pair, TensorInfo


@dataclass(frozen=True, slots=True)
class Place:
    """Where one model has elements that follow one another."""

    checkpoint: Checkpoint
    info: TensorInfo
    start: int  # the first one's place in `info`, in elements


@dataclass(frozen=True, slots=True)
class Cut:
    """Elements that follow one another in every model that takes part."""

    start: int  # the first one's place in the output's tensor
    count: int
    places: tuple[Place, ...]


def whole(checkpoint: Checkpoint, info: TensorInfo) -> Cut:
    """All of one tensor, from one model."""
    return Cut(0, info.numel, (Place(checkpoint, info, 0),))


def aligned(a: tuple[Checkpoint, TensorInfo] | None, others: Sequence[tuple[Checkpoint, Pair]]) -> list[Cut]:
    """A's tensor cut where one of the others' tensors ends; places are in the order given, A's first.

    All pairs are of this tensor of A, and cover it. Without `a` only the others are read.
    """
    numel = sum(run.a.numel for run in others[0][1].parts)
    borders = sorted({numel} | {run.start for _, pair in others for run in pair.parts})
    cuts = []
    for start, end in pairwise(borders):
        places = [] if a is None else [Place(*a, start)]
        places += [_place(checkpoint, pair, start) for checkpoint, pair in others]
        cuts.append(Cut(start, end - start, tuple(places)))
    return cuts


def _place(checkpoint: Checkpoint, pair: Pair, start: int) -> Place:
    run = next(run for run in pair.parts if run.start <= start < run.start + run.a.numel)
    return Place(checkpoint, run.b, start - run.start)
