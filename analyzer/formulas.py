"""The formulas of two models: pure functions of one record of sums. Undefined is None, never 0 or NaN.

n elements, d = b − a; every sum runs over the elements of the group, whatever keys it is made of. `m` is
the arithmetic of the record's fields, see `analyzer.arithmetic`: there undefined is NaN.
"""

from __future__ import annotations

from math import inf

from analyzer.arithmetic import FLOATS, AbstractArithmetic, Formula, Record, Value
from analyzer.measures import Sums
from analyzer.spread import top_energy

TOP_SHARE = 0.01  # of the elements, for `top_energy_share`


@Formula
def norm_a(s: Record, m: AbstractArithmetic) -> Value:
    """‖a‖₂ = √Σa², in the unit of the weights; None without elements. Golub & Van Loan, §2.2."""
    return m.where(s.numeric > 0, m.sqrt(s.sum_aa))


@Formula
def norm_b(s: Record, m: AbstractArithmetic) -> Value:
    """‖b‖₂ = √Σb², in the unit of the weights; None without elements."""
    return m.where(s.numeric > 0, m.sqrt(s.sum_bb))


@Formula
def norm_ratio(s: Record, m: AbstractArithmetic) -> Value:
    """‖b‖ / ‖a‖, 1 = same length; None where ‖a‖ is zero."""
    return m.ratio(m.sqrt(s.sum_bb), m.sqrt(s.sum_aa))


@Formula
def cosine_distance(s: Record, m: AbstractArithmetic) -> Value:
    """(Σd² − (‖b‖ − ‖a‖)²) / (2‖a‖‖b‖), in 0 … 2; None where a norm is 0 or not finite.

    Equal to 1 − Σab / (‖a‖‖b‖) by the law of cosines, but measured from d itself: of vectors of one
    length it keeps its digits down to 1e-12, where the textbook form is noise. Of others
    the rounding of the sums leaves about 2e-16 · |‖b‖/‖a‖ − 1|.
    """
    return distance_of(s.sum_aa, s.sum_bb, s.sum_dd, m)


@Formula
def cosine(s: Record, m: AbstractArithmetic) -> Value:
    """1 − cosine_distance, in −1 … 1; None where a norm is zero."""
    return 1.0 - distance_of(s.sum_aa, s.sum_bb, s.sum_dd, m)


@Formula
def norm_delta(s: Record, m: AbstractArithmetic) -> Value:
    """‖b − a‖₂ = √Σd², in the unit of the weights; None without elements."""
    return m.where(s.numeric > 0, m.sqrt(s.sum_dd))


@Formula
def relative_change(s: Record, m: AbstractArithmetic) -> Value:
    """‖b − a‖ / ‖a‖, 0 = unchanged; None where ‖a‖ is zero."""
    return m.ratio(m.sqrt(s.sum_dd), m.sqrt(s.sum_aa))


@Formula
def rms_delta(s: Record, m: AbstractArithmetic) -> Value:
    """√(Σd²/n): the root mean square of the change of one element; None without elements."""
    return m.sqrt(m.ratio(s.sum_dd, s.numeric))


@Formula
def mean_abs_delta(s: Record, m: AbstractArithmetic) -> Value:
    """Σ|d|/n: the mean change of one element; None without elements."""
    return m.ratio(s.sum_abs_d, s.numeric)


@Formula
def max_abs_delta(s: Record, m: AbstractArithmetic) -> Value:
    """max|d|: the largest change of one element; None without elements."""
    return m.where(s.numeric > 0, s.max_abs_d)


@Formula
def mean_a(s: Record, m: AbstractArithmetic) -> Value:
    """Σa/n; None without elements."""
    return m.ratio(s.sum_a, s.numeric)


@Formula
def mean_b(s: Record, m: AbstractArithmetic) -> Value:
    """Σb/n; None without elements."""
    return m.ratio(s.sum_b, s.numeric)


@Formula
def std_a(s: Record, m: AbstractArithmetic) -> Value:
    """√(Σ(a − mean)²/n), the population's standard deviation; None without elements."""
    return m.sqrt(m.ratio(s.m2_a, s.numeric))


@Formula
def std_b(s: Record, m: AbstractArithmetic) -> Value:
    """√(Σ(b − mean)²/n), the population's standard deviation; None without elements."""
    return m.sqrt(m.ratio(s.m2_b, s.numeric))


@Formula
def changed_fraction(s: Record, m: AbstractArithmetic) -> Value:
    """#(a ≠ b) / n, in 0 … 1; None without elements. Integers count too."""
    return m.ratio(s.changed, s.n)


@Formula
def sign_flip_fraction(s: Record, m: AbstractArithmetic) -> Value:
    """#(a·b < 0) / n, in 0 … 1; None without elements."""
    return m.ratio(s.sign_flips, s.numeric)


@Formula
def rounding_floor(s: Record, m: AbstractArithmetic) -> Value:
    """√(Σulp(a)²/12): the norm of d that rounding alone would leave; None without elements.

    Rounding errors spread evenly over one spacing (ulp) have variance ulp²/12.
    Widrow & Kollár, Quantization Noise, §4.
    """
    return m.where(s.numeric > 0, m.sqrt(s.sum_ulp_sq / 12))


@Formula
def change_to_rounding(s: Record, m: AbstractArithmetic) -> Value:
    """norm_delta / rounding_floor; about 1 or less: only rounding differs. None where a is all zeros."""
    return m.ratio(m.sqrt(s.sum_dd), rounding_floor.body(s, m))


@Formula
def radial_share(s: Record, m: AbstractArithmetic) -> Value:
    """(‖b‖ − ‖a‖)² / ‖d‖², in 0 … 1: the share of Σd² that a change of length explains.

    By the law of cosines Σd² = (‖b‖ − ‖a‖)² + 2‖a‖‖b‖(1 − cos). None where nothing changed or a norm is
    not finite.
    """
    difference = _difference(s.sum_aa, s.sum_bb, m)
    return m.clip(m.ratio(difference * difference, s.sum_dd), 0.0, 1.0)


@Formula
def directional_share(s: Record, m: AbstractArithmetic) -> Value:
    """1 − radial_share, in 0 … 1: the share of Σd² that a change of direction explains."""
    return 1.0 - radial_share.body(s, m)


@Formula
def top_energy_share(s: Record, m: AbstractArithmetic) -> Value:
    """The share of Σd² that the 1 % of elements with the largest |d| hold, in 0.01 … 1.

    About 0.085 of Gaussian changes, 1 where at most 1 % changed. From the histogram, see
    `analyzer.spread`: within 1 % of itself for smooth spreads between 2^-64 and 2^64. Where |d| has few
    values, two of them in the bin of the 1 %, it may be off by half. None where nothing changed, and of
    fewer than 100 elements.
    """
    count = s.numeric * TOP_SHARE
    energy = top_energy(s.histogram, count, largest=s.max_abs_d, m=m)
    return m.where(count >= 1, m.clip(m.ratio(energy, s.sum_dd), 0.0, 1.0))


def energy_share(sums: Sums, total: Sums) -> float | None:
    """Σd² of the group / Σd² of the whole scan, in 0 … 1; None without elements or without change."""
    value: float = share_of(sums, total.sum_dd, FLOATS)
    return value if value == value else None


def share_of(s: Record, whole: float, m: AbstractArithmetic) -> Value:
    """`energy_share` of a whole whose Σd² is given; NaN where it is undefined."""
    return m.where(s.numeric > 0, m.ratio(s.sum_dd, whole))


def angular_distance(aa: float, bb: float, dd: float) -> float | None:
    """1 − cos of the angle between two vectors, from Σa², Σb² and Σ(b − a)²; None where it has none."""
    distance: float = distance_of(aa, bb, dd, FLOATS)
    return distance if distance == distance else None


def distance_of(aa: Value, bb: Value, dd: Value, m: AbstractArithmetic) -> Value:
    """The same in any arithmetic; NaN where a norm is 0 or not finite."""
    difference = _difference(aa, bb, m)
    # no overflow between
    distance = m.ratio(m.ratio(dd - difference * difference, m.sqrt(aa)), 2 * m.sqrt(bb))
    return m.clip(m.finite(distance), 0.0, 2.0)


def divides(value: float) -> bool:
    """Whether something can be measured against it: neither zero nor beyond fp64."""
    return 0 < value < inf


def _difference(aa: Value, bb: Value, m: AbstractArithmetic) -> Value:
    """‖b‖ − ‖a‖, as the difference of the squares over the sum of the roots: no cancellation of two roots.

    0 of two zeros; NaN where one is not finite.
    """
    lengths = m.sqrt(aa) + m.sqrt(bb)
    return m.where(lengths == 0, 0.0, m.ratio(bb - aa, lengths))
