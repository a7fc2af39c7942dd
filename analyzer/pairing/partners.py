"""Which networks of two models are the same one. Knows names and shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from analyzer.pairing.meanings import Meaning
from analyzer.pairing.rows import extent
from analyzer.records import TensorInfo

Infos = Mapping[str, TensorInfo]


def partners(
    a: Infos, ones: Collection[Meaning], b: Infos, twos: Collection[Meaning]
) -> list[tuple[Meaning, Meaning]]:
    """Which network of B each network of A is: the one that shares most tensors, in name and shape."""
    merits = []
    for one in ones:
        for two in (each for each in twos if each.average == one.average):
            if shared := [name for name in one.places if name in two.places]:
                alike = _alike(a, one, b, two, shared)
                same_part = one.part == two.part
                # Networks of two kinds may have some names in common without being the same one.
                most = 2 * len(shared) > min(len(one.places), len(two.places))
                if (same_part and one.kind == two.kind) or (alike > 0.5 and most):
                    merits.append((alike * len(shared), same_part, len(shared), one, two))
    chosen: dict[Meaning, Meaning] = {}
    for *_, one, two in sorted(merits, key=lambda merit: merit[:3], reverse=True):
        if one not in chosen and two not in chosen.values():
            chosen[one] = two
    return [(one, chosen[one]) for one in ones if one in chosen]


def _alike(a: Infos, one: Meaning, b: Infos, two: Meaning, shared: Sequence[str]) -> float:
    """The share of their common tensors that are of the same shape, told by some of them."""
    sample = [(one.places[name], two.places[name]) for name in shared[:: len(shared) // _SAMPLE + 1]]
    extents = [(extent(a[x.key], x.facet), extent(b[y.key], y.facet)) for x, y in sample]
    return sum(x == y for x, y in extents) / len(extents)


_SAMPLE = 200  # tensors whose shapes tell whether two networks are the same one
