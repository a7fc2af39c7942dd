"""Which elements of A, of B and of their base belong together. Knows shapes and places, never values."""

from __future__ import annotations

from analyzer.kernels.formats import FLOATS
from analyzer.measuring import Piece
from analyzer.records import Pair, Run


def pieces_of(run: Run, base: Pair | None) -> list[Piece]:
    """The run, cut where the base's tensors end; `base` is A's tensor paired with the base's.

    Without the base where that has no such elements: it lacks them, holds no floating-point numbers, or
    other rows or channels of the tensor are compared with it.
    """
    alone = [Piece(run.a, run.b, None, run.a.numel)]
    if base is None or any(part.b.dtype not in FLOATS for part in base.parts):
        return alone
    if base.a == run.a and not base.runs:
        return [Piece(run.a, run.b, base.b, run.a.numel)]
    if base.partial or run.a.view is not None:
        return alone
    pieces = []
    at, end = run.start, run.start + run.a.numel
    for part in sorted(base.parts, key=lambda part: part.start):
        last = min(part.start + part.a.numel, end)
        if part.start <= at < last:
            inside = at - run.start
            pieces.append(Piece(run.a, run.b, part.b, last - at, inside, inside, at - part.start))
            at = last
    return pieces if at == end else alone
