"""Rows of fused tensors, and what shapes have in common. Knows no names."""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.layouts import Facet
from analyzer.records import TensorInfo
from analyzer.views import rows_of

Shape = tuple[int, ...]


def extent(info: TensorInfo, facet: Facet) -> Shape:
    """The shape of the canonical tensor that a facet means."""
    shape = squeezed(info.shape)
    if is_slice(facet) and shape:
        shape = (shape[0] * (facet.last - facet.first) // facet.of, *shape[1:])
    return shape[::-1] if facet.transposed else shape


def rows(info: TensorInfo, facet: Facet) -> TensorInfo | None:
    """The rows that a facet means; None where the tensor does not divide so."""
    if not is_slice(facet):
        return info
    if 0 in (info.shape or (0,)) or info.shape[0] % facet.of or facet.transposed:
        return None
    unit = info.shape[0] // facet.of
    return rows_of(info, facet.first * unit, facet.last * unit)


def start(info: TensorInfo, facet: Facet) -> int:
    """How many elements stand before the rows."""
    return info.numel // facet.of * facet.first


def is_slice(facet: Facet) -> bool:
    """Whether a facet is less than a whole tensor."""
    return facet.last - facet.first != facet.of


def stacked(pieces: Sequence[TensorInfo]) -> Shape:
    """The shape of all pieces on top of each other; () where they do not fit."""
    if len({piece.shape[1:] for piece in pieces}) != 1 or not all(piece.shape for piece in pieces):
        return ()
    return (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])


def squeezed(shape: Shape) -> Shape:
    """A shape without the ones behind its second axis: a 1×1 convolution is a linear layer."""
    end = len(shape)
    while end > 2 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]
