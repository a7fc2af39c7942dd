"""What the singular values of a change say: many directions or few, a LoRA or none. Knows no files.

All numbers are in the unit of the matrix whose σ are given; σ² come from the largest on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import Sums
from analyzer.records import Spectrum
from analyzer.verdicts import verdict

if TYPE_CHECKING:  # torch takes seconds to import
    from analyzer.kernels.range_finder import Noise

Array = NDArray[np.float64]

RANK_CAP = 256  # of `lora_rank`, and of `rank_90` where not all singular values are known
ENERGY_SHARE = 0.9

# So many values of a first look are close: in the spectrum of noise, the flattest, at most 10 % too small.
CLOSE = 40
_CLOSENESS = 1.25

# A matrix of independent noise has no singular value much above √(largest row of Σs²) + √(largest column
# of Σs²), with s the standard deviations of its elements (Bandeira & van Handel 2016, arXiv 1408.6185);
# s√m + s√n if they are equal. One rounding has s = ulp/√12, two have √2 of it; and a little more for chance.
NOISE_MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What rounding and arithmetic may leave of a change that is a LoRA."""

    edge: float  # the largest σ²
    energy: float  # Σσ²


def limits_of(sums: Sums, noise: Noise, *, exponent: int, floor: float, slack: float) -> Limits | None:
    """The limits for a change whose matrix is in units of 2^exponent.

    `floor` is what arithmetic leaves of a σ, as a share of ‖D‖_F; `slack` what of ‖D‖_F². None where the
    key did not change beyond rounding, or its storage has no known spacing.
    """
    if not math.isfinite(sums.sum_ulp_sq) or verdict(sums) != "changed":
        return None
    energy = math.ldexp(sums.sum_dd, -2 * exponent)
    # A code with scales has larger spacings than the fp32 values that are read of it, in about the same
    # proportions.
    stored = math.ldexp(sums.sum_ulp_sq, -2 * exponent)
    variance = NOISE_MARGIN**2 * (max(stored / noise.total, 1.0) / 12 if noise.total else 0.0)
    edge = math.sqrt(noise.largest_row) + math.sqrt(noise.largest_column)
    return Limits(
        edge=max(edge * edge * variance, floor * floor * energy),
        energy=max(noise.total * variance, slack * energy),
    )


def may_be_low(squares: Array, energy: float, limits: Limits | None, size: int) -> bool:
    """Whether a second look may find a rank that the first look cannot: up to the cap, and not close.

    `squares` are the σ² of the first look, `size` is how many the matrix has. Value number `CLOSE` bounds
    those that come after it. It is no bound where many values are equal, of which a narrow block finds a
    few: then it does not account for what is left.
    """
    first, last = float(squares[:CLOSE].sum()), _CLOSENESS * float(squares[CLOSE - 1])
    needed = [ENERGY_SHARE * energy, *([energy - limits.energy] if limits else [])]
    if all(first >= share for share in needed):
        return limits is not None and int(np.count_nonzero(squares > limits.edge)) > CLOSE
    if energy - first > (size - CLOSE) * last:
        return True
    reach = first + (RANK_CAP - CLOSE) * last
    return any(first < share <= reach for share in needed)


def summarize(squares: Array, energy: float, limits: Limits | None, *, size: int, close: int) -> Spectrum:
    """The statistics of the σ², of which the first `close` are known well enough to be counted.

    `size` is how many the matrix has: a LoRA has at most half as many.
    """
    top = float(squares[0])
    within = np.cumsum(squares[:close])
    enough = int(np.searchsorted(within, ENERGY_SHARE * energy))
    return Spectrum(
        stable_rank=energy / top,
        rank_90=enough + 1 if enough < len(within) else None,
        top_singular_share=top / energy,
        lora_rank=_lora_rank(squares, energy, limits, min(RANK_CAP, size // 2, close)) if limits else None,
    )


def without_few_rows(spectrum: Spectrum, sums: Sums, shape: tuple[int, int]) -> Spectrum:
    """The spectrum without a `lora_rank` if as many rows, or columns, can hold all that changed.

    New tokens in a vocabulary, a few numbers that were set: of low rank, and no product of two matrices.
    """
    rank = spectrum.lora_rank
    few = rank is not None and sums.changed <= rank * max(shape)
    return replace(spectrum, lora_rank=None) if few else spectrum


def _lora_rank(squares: Array, energy: float, limits: Limits, largest: int) -> int | None:
    """How many σ are more than rounding; None if they are many, or leave more than rounding."""
    rank = int(np.count_nonzero(squares > limits.edge))
    if not 1 <= rank <= largest:
        return None
    return rank if energy - float(squares[:rank].sum()) <= limits.energy else None
