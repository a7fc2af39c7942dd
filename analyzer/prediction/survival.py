"""How much of a merge's step outlives rounding to the output's dtype. Knows no files and no keys.

With M = A + k·d, an element whose step |k·d| is below half a spacing of the output is rounded back to A,
where A lies on the output's grid. A share of the step's energy is what the elements hold whose step is at
least half a spacing. Where A does not lie on that grid (fp32 saved as bf16), rounding is dithered instead:
such an element moves by a whole spacing, and does so in |k·d| / spacing of all cases. On average nothing
is lost then, but what the smaller steps leave is noise with little of the step in it; the share says how
much is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, fsum, inf, isfinite, log

from analyzer.kernels.formats import FLOATS
from analyzer.measures import BINS, STEP_BINS, Histogram, Sums, add, bin_edges, step_edges

Edges = Callable[[int], tuple[float, float]]

# How much less than a power of two's bin all bins below it hold, if the steps are its multiples. Of any
# smooth density they hold at least a third as much.
_GRID = 0.1
_MOST_MULTIPLES = 64  # beyond them a grid is as good as continuous
_STEEPEST = 12.0  # power by which energy grows with the step's size
_FLAT = 1e-6


def surviving_share(sums: Sums, factor: float, *, stored: str, written: str) -> float | None:
    """The share of Σ(k·d)² that is held by elements with |k·d| ≥ half a spacing of `written`, in 0 … 1.

    `factor` is k, and the dtypes are named as safetensors names them: A's as stored, and the output's. A
    spacing is taken at |a|: that of A, times 2 to the bits that the output lacks; where the output's smallest
    spacing is the larger one, the step has to reach half of it as well. That of fp8 e4m3, in which many
    weights are subnormal, is measured. None without a step, and where the steps were not measured (GGUF's
    blocks, scan files of earlier releases).

    Within 0.01 of what counting finds for smooth changes, and within 0.07 for those of a few spacings between
    two models of one dtype, which are whole numbers of them.
    """
    if not (factor and isfinite(factor)) or stored not in FLOATS or written not in FLOATS:
        return None
    if written == "F8_E4M3":
        return share_above(sums.e4m3_steps, 0.5 / abs(factor), step_edges)
    a, out = FLOATS[stored], FLOATS[written]
    share = share_above(sums.steps, 2.0 ** (a.precision - out.precision - 1) / abs(factor), step_edges)
    if share is None or out.smallest_spacing <= a.smallest_spacing:
        return share
    reached = share_above(sums.histogram, out.smallest_spacing / 2 / abs(factor), bin_edges)
    return None if reached is None else min(share, reached)


def share_above(histogram: Histogram, threshold: float, edges: Edges) -> float | None:
    """The share of a histogram's energy that lies at `threshold` or above it, in 0 … 1; None of none.

    In the bin where the threshold lies the energy is taken to grow by the power that the bins beside it
    show. Where all steps are multiples of a power of two, as between two models of one dtype, a bin holds
    only the multiples that lie in it, and each as often.
    """
    energies, first = histogram.energies, histogram.first
    total: float = add(energies)
    if not 0 < total < inf:
        return None
    lows, highs = _all_edges(edges)
    place = bisect_left(lows, threshold, first, first + len(energies))
    above = fsum(energies[place - first :])
    cut = place - 1
    if cut >= first and lows[cut] < threshold < highs[cut]:
        bins = [_Bin(lows[i], highs[i], energies[i - first]) for i in _around(cut, histogram)]
        above += energies[cut - first] * _share_of_bin(
            bins, _Bin(lows[cut], highs[cut], energies[cut - first]), _unit(histogram, lows), threshold
        )
    return min(above / total, 1.0)


@cache
def _all_edges(edges: Edges) -> tuple[Sequence[float], Sequence[float]]:
    """The low and the high edges of all bins that a histogram may have, by index."""
    low, high = zip(*(edges(index) for index in range(max(BINS, STEP_BINS))), strict=True)
    return low, high


def _around(cut: int, histogram: Histogram) -> range:
    """The bin and those beside it that the histogram holds."""
    return range(max(cut - 1, histogram.first), min(cut + 2, histogram.first + len(histogram.energies)))


@dataclass(frozen=True, slots=True)
class _Bin:
    low: float
    high: float
    energy: float


def _share_of_bin(around: Sequence[_Bin], part: _Bin, unit: float, threshold: float) -> float:
    if unit and part.high / unit <= _MOST_MULTIPLES:
        squares = [
            (m * m, m * unit >= threshold) for m in range(ceil(part.low / unit), ceil(part.high / unit))
        ]
        whole = sum(square for square, _ in squares)
        return sum(square for square, beyond in squares if beyond) / whole if whole else 0.0
    if part.low == 0 or part.high == inf:
        return 0.5
    power = _power(around)
    if abs(power) < _FLAT:
        return log(part.high / threshold) / log(part.high / part.low)
    # relative to the bin's end, so that no power overflows
    at, low = (float((edge / part.high) ** power) for edge in (threshold, part.low))
    return (1 - at) / (1 - low)


def _unit(histogram: Histogram, lows: Sequence[float]) -> float:
    """The power of two of which all steps are multiples, but for few; 0 if there is none."""
    below, unit = 0.0, 0.0
    for index, energy in enumerate(histogram.energies, histogram.first):
        # a power of two begins the longer half of its octave, the even bin
        if not index % 2 and below < _GRID * energy:
            unit = lows[index]
        below += energy
    return unit


def _power(around: Sequence[_Bin]) -> float:
    """The power of the size by which Σd² grows about a bin, from the densities of it and its neighbours."""
    around = [part for part in around if part.energy > 0 and part.low > 0 and part.high < inf]
    if len(around) < 2:
        return 0.0
    first, last = around[0], around[-1]
    width = {part: log(part.high / part.low) for part in (first, last)}
    density = log(last.energy / width[last]) - log(first.energy / width[first])
    distance = log(last.high * last.low / (first.high * first.low)) / 2
    return min(max(density / distance, -_STEEPEST), _STEEPEST)
