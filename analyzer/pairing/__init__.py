"""Pair the tensors of two models that stand for the same weights. Knows names and shapes, never values.

By raw name where both have it; else by what the names mean: without the words around a network, in the
layout that all layouts translate to (`analyzer.layouts`), rows of a fused tensor against the tensors that
they are elsewhere. Tensors of different shape are compared where that makes sense, and listed always.
"""

from analyzer.pairing.pairs import Side, pair
from analyzer.pairing.ties import repeated

__all__ = ["Side", "pair", "repeated"]
