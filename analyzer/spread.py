"""What a histogram of |d| says about where a change sits: its densest share. Knows no files and no keys."""

from __future__ import annotations

from math import exp, expm1, fsum, inf, isfinite, log1p

from analyzer.measures import Histogram, bin_edges

STEEPEST = 500.0  # beyond it, all of a bin lies at one edge
FLATTEST = 1e-4  # below it, the density is even; the closed forms would lose their digits
HALVINGS = 60


def top_energy(histogram: Histogram, count: float, *, largest: float) -> float | None:
    """Σd² over the `count` elements that changed most; None where fp64 overflowed.

    Exact but for the bin in which the count ends. There the squares are taken to have the density of
    largest entropy of all that lie between the bin's edges and have its measured mean: e^(k·d²), cut
    off at the edges and at the `largest` |d| (Jaynes, Information Theory and Statistical Mechanics, 1957).
    Of Gaussian, uniform, Laplace and Student changes that is within 1 % of what sorting finds.
    """
    energies = []
    left = count
    for place in range(len(histogram.counts) - 1, -1, -1):
        held, energy = histogram.counts[place], histogram.energies[place]
        if not isfinite(energy):
            return None
        if left <= 0:
            break
        if held > left:
            low, high = bin_edges(histogram.first + place)
            squares = low * low, min(high, largest) ** 2
            energies.append(energy * _share_of_top(left / held, energy / held, *squares))
            break
        energies.append(energy)
        left -= held
    return fsum(energies)


def _share_of_top(fraction: float, mean: float, low: float, high: float) -> float:
    """The share of a bin's Σd² that its largest elements hold, given the mean of d² and its limits."""
    if high == inf or not low < mean < high:  # on an edge all are equal, for as much as is known
        return fraction
    k = _steepness((mean - low) / (high - low))
    if abs(k) >= STEEPEST * (1 - 1e-9):  # the end of the search
        return fraction
    if abs(k) < FLATTEST:
        partial = fraction - fraction * fraction / 2
    else:
        whole = expm1(k)
        begin = log1p((1 - fraction) * whole) / k  # where the largest elements begin, from 0 to 1
        partial = (exp(k) * (1 - 1 / k) - exp(k * begin) * (begin - 1 / k)) / whole
    top: float = low * fraction + (high - low) * partial
    return top / mean


def _steepness(mean: float) -> float:
    """The k for which the density e^(kt) on 0 … 1 has this mean; it grows with it, so halving finds it."""
    low, high = -STEEPEST, STEEPEST
    for _ in range(HALVINGS):
        k = (low + high) / 2
        found = 0.5 + k / 12 if abs(k) < FLATTEST else 1 / -expm1(-k) - 1 / k
        low, high = (k, high) if found < mean else (low, k)
    return low
