"""Which elements of A, of B and of their base belong together. Knows shapes and places, never values."""

from __future__ import annotations

from analyzer.kernels.formats import FLOATS
from analyzer.measuring import Piece
from analyzer.records import Pair, Run


def pieces_of(run: Run, base: Pair | None) -> list[Piece]:
    """The run, cut where the base's tensors end; `base` is A's tensor paired with the base's.

    Without the base where that has no such elements: it lacks the tensor or some rows of it, holds no
    floating-point numbers, or has other channels than are compared.
    """
    alone = [Piece(run.a, run.b, None, run.a.numel)]
    if base is None or any(part.b.dtype not in FLOATS for part in base.parts):
        return alone
    if base.a == run.a and not base.runs:
        return [Piece(run.a, run.b, base.b, run.a.numel)]
    if run.a.view is not None or base.a.view is not None:  # channels: other elements lie between
        return alone
    pieces = []
    at, end = run.start, run.start + run.a.numel
    for part in sorted(base.parts, key=lambda part: part.start):
        first, last = max(part.start, at), min(part.start + part.a.numel, end)
        if first < last:
            pieces += _piece(run, None, at, first)
            pieces += _piece(run, part, first, last)
            at = last
    return [*pieces, *_piece(run, None, at, end)]


def _piece(run: Run, part: Run | None, first: int, last: int) -> list[Piece]:
    """Elements first … last of A's tensor; none if there are none."""
    if first == last:
        return []
    inside = first - run.start
    base, at_c = (None, 0) if part is None else (part.b, first - part.start)
    return [Piece(run.a, run.b, base, last - first, inside, inside, at_c)]
