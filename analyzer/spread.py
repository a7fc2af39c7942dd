"""What a histogram of |d| says about where a change sits: its densest share. Knows no files and no keys."""

from __future__ import annotations

from math import fsum, inf, isfinite

from analyzer.measures import Histogram, bin_edges


def top_energy(histogram: Histogram, count: float) -> float | None:
    """Σd² over the `count` elements that changed most; None where fp64 overflowed.

    Exact but for the bin in which the count ends. In there the squares are taken to lie between the bin's
    edges as (low² + (high² − low²)·u^p) for u in 0 … 1, with the p that gives the bin its measured mean.
    """
    energies = []
    left = count
    for place in range(len(histogram.counts) - 1, -1, -1):
        held, energy = histogram.counts[place], histogram.energies[place]
        if not isfinite(energy):
            return None
        if held > left:
            energies.append(energy * _share_of_top(left / held, energy / held, histogram.first + place))
            break
        energies.append(energy)
        left -= held
    return fsum(energies)


def _share_of_top(fraction: float, mean: float, index: int) -> float:
    """The share of a bin's Σd² that its largest elements hold, given the mean of d² in the bin."""
    low, high = (edge * edge for edge in bin_edges(index))
    if high == inf or not low < mean < high:  # on an edge all are equal, for as much as is known
        return fraction
    power = (high - low) / (mean - low) - 1
    top: float = low * fraction + (high - low) * (1 - (1 - fraction) ** (power + 1)) / (power + 1)
    return top / mean
