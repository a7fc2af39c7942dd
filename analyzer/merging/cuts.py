"""Which elements of several models belong together. Knows shapes and places, never values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.alignment import align
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
    if not any(pair.runs or pair.partial for _, pair in others):  # almost always: whole tensors meet
        count = others[0][1].a.numel
        first = () if a is None else (Place(*a, 0),)
        rest = [Place(checkpoint, pair.b, 0) for checkpoint, pair in others]
        return [Cut(0, count, (*first, *rest))] if count else []
    cuts = []
    for stretch in align(others[0][1].a, [pair for _, pair in others]):
        places = [] if a is None else [Place(*a, stretch.a.at)]
        for (checkpoint, _), found in zip(others, stretch.others, strict=True):
            assert found is not None, "a merge leaves tensors alone that a model has in part"
            places.append(Place(checkpoint, found.info, found.at))
        cuts.append(Cut(stretch.a.at, stretch.count, tuple(places)))
    return cuts
