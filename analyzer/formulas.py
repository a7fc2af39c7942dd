"""The formulas of two models: pure functions of one record of sums. Undefined is None, never 0 or NaN.

n elements, d = b − a; every sum runs over the elements of the group, whatever keys it is made of.
"""

from __future__ import annotations

from math import inf, isfinite, sqrt

from analyzer.measures import Sums
from analyzer.spread import top_energy

TOP_SHARE = 0.01  # of the elements, for `top_energy_share`


def norm_a(s: Sums) -> float | None:
    """‖a‖₂ = √Σa², in the unit of the weights; None without elements. Golub & Van Loan, §2.2."""
    return sqrt(s.sum_aa) if s.numeric else None


def norm_b(s: Sums) -> float | None:
    """‖b‖₂ = √Σb², in the unit of the weights; None without elements."""
    return sqrt(s.sum_bb) if s.numeric else None


def norm_ratio(s: Sums) -> float | None:
    """‖b‖ / ‖a‖, 1 = same length; None where ‖a‖ is zero."""
    return sqrt(s.sum_bb) / sqrt(s.sum_aa) if divides(s.sum_aa) else None


def cosine_distance(s: Sums) -> float | None:
    """(Σd² − (‖b‖ − ‖a‖)²) / (2‖a‖‖b‖), in 0 … 2; None where a norm is 0 or not finite.

    Equal to 1 − Σab / (‖a‖‖b‖) by the law of cosines, but measured from d itself: of vectors of one
    length it keeps its digits down to 1e-12, where the textbook form is noise. Of others
    the rounding of the sums leaves about 2e-16 · |‖b‖/‖a‖ − 1|.
    """
    return angular_distance(s.sum_aa, s.sum_bb, s.sum_dd)


def cosine(s: Sums) -> float | None:
    """1 − cosine_distance, in −1 … 1; None where a norm is zero."""
    distance = cosine_distance(s)
    return None if distance is None else 1.0 - distance


def norm_delta(s: Sums) -> float | None:
    """‖b − a‖₂ = √Σd², in the unit of the weights; None without elements."""
    return sqrt(s.sum_dd) if s.numeric else None


def relative_change(s: Sums) -> float | None:
    """‖b − a‖ / ‖a‖, 0 = unchanged; None where ‖a‖ is zero."""
    return sqrt(s.sum_dd) / sqrt(s.sum_aa) if divides(s.sum_aa) else None


def rms_delta(s: Sums) -> float | None:
    """√(Σd²/n): the root mean square of the change of one element; None without elements."""
    return sqrt(s.sum_dd / s.numeric) if s.numeric else None


def mean_abs_delta(s: Sums) -> float | None:
    """Σ|d|/n: the mean change of one element; None without elements."""
    return s.sum_abs_d / s.numeric if s.numeric else None


def max_abs_delta(s: Sums) -> float | None:
    """max|d|: the largest change of one element; None without elements."""
    return s.max_abs_d if s.numeric else None


def mean_a(s: Sums) -> float | None:
    """Σa/n; None without elements."""
    return s.sum_a / s.numeric if s.numeric else None


def mean_b(s: Sums) -> float | None:
    """Σb/n; None without elements."""
    return s.sum_b / s.numeric if s.numeric else None


def std_a(s: Sums) -> float | None:
    """√(Σ(a − mean)²/n), the population's standard deviation; None without elements."""
    return sqrt(s.m2_a / s.numeric) if s.numeric else None


def std_b(s: Sums) -> float | None:
    """√(Σ(b − mean)²/n), the population's standard deviation; None without elements."""
    return sqrt(s.m2_b / s.numeric) if s.numeric else None


def changed_fraction(s: Sums) -> float | None:
    """#(a ≠ b) / n, in 0 … 1; None without elements. Integers count too."""
    return s.changed / s.n if s.n else None


def sign_flip_fraction(s: Sums) -> float | None:
    """#(a·b < 0) / n, in 0 … 1; None without elements."""
    return s.sign_flips / s.numeric if s.numeric else None


def rounding_floor(s: Sums) -> float | None:
    """√(Σulp(a)²/12): the norm of d that rounding alone would leave; None without elements.

    Rounding errors spread evenly over one spacing (ulp) have variance ulp²/12.
    Widrow & Kollár, Quantization Noise, §4.
    """
    return sqrt(s.sum_ulp_sq / 12) if s.numeric else None


def change_to_rounding(s: Sums) -> float | None:
    """norm_delta / rounding_floor; about 1 or less: only rounding differs. None where a is all zeros."""
    floor = rounding_floor(s)
    return sqrt(s.sum_dd) / floor if floor is not None and divides(floor) else None


def radial_share(s: Sums) -> float | None:
    """(‖b‖ − ‖a‖)² / ‖d‖², in 0 … 1: the share of Σd² that a change of length explains.

    By the law of cosines Σd² = (‖b‖ − ‖a‖)² + 2‖a‖‖b‖(1 − cos). None where nothing changed or a norm is
    not finite.
    """
    if not (divides(s.sum_dd) and isfinite(s.sum_aa) and isfinite(s.sum_bb)):
        return None
    # the difference of the squares over the sum of the roots: no cancellation of two rounded roots
    lengths = sqrt(s.sum_aa) + sqrt(s.sum_bb)
    difference = (s.sum_bb - s.sum_aa) / lengths if lengths else 0.0
    return min(difference * difference / s.sum_dd, 1.0)


def directional_share(s: Sums) -> float | None:
    """1 − radial_share, in 0 … 1: the share of Σd² that a change of direction explains."""
    radial = radial_share(s)
    return None if radial is None else 1.0 - radial


def top_energy_share(s: Sums) -> float | None:
    """The share of Σd² that the 1 % of elements with the largest |d| hold, in 0.01 … 1.

    About 0.085 of Gaussian changes, 1 where at most 1 % changed. From the histogram, see
    `analyzer.spread`: within 1 % of itself for smooth spreads between 2^-64 and 2^64. Where |d| has few
    values, two of them in the bin of the 1 %, it may be off by half. None where nothing changed, and of
    fewer than 100 elements.
    """
    count = s.numeric * TOP_SHARE
    if count < 1 or not divides(s.sum_dd):
        return None
    energy = top_energy(s.histogram, count, largest=s.max_abs_d)
    return None if energy is None else min(energy / s.sum_dd, 1.0)


def energy_share(sums: Sums, total: Sums) -> float | None:
    """Σd² of the group / Σd² of the whole scan, in 0 … 1; None without elements or without change."""
    return sums.sum_dd / total.sum_dd if sums.numeric and divides(total.sum_dd) else None


def angular_distance(aa: float, bb: float, dd: float) -> float | None:
    """1 − cos of the angle between two vectors, from Σa², Σb² and Σ(b − a)²; None where it has none."""
    if not (aa > 0 and bb > 0):
        return None
    length_a, length_b = sqrt(aa), sqrt(bb)
    # the difference of the squares over the sum of the roots: no cancellation of two rounded roots
    difference = (bb - aa) / (length_a + length_b)
    distance = (dd - difference * difference) / length_a / (2 * length_b)  # no overflow between
    return min(max(distance, 0.0), 2.0) if isfinite(distance) else None


def divides(value: float) -> bool:
    """Whether something can be measured against it: neither zero nor beyond fp64."""
    return 0 < value < inf
