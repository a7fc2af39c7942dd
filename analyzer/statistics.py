"""The statistics: one literal table of pure functions of `Sums`. Knows no files and no torch.

A statistic of a group is computed from the group's summed record, never from the statistics of its
keys. Undefined is None: a zero norm has no direction, no elements have no mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, sqrt

from analyzer.records import Sums

Formula = Callable[[Sums], float | None]


@dataclass(frozen=True, slots=True)
class Statistic:
    """One entry of the table: what is computed, in which unit, and how to read it."""

    formula: Formula | None
    symbol: str  # the formula as people write it
    unit: str
    range: str
    meaning: str  # one line, for readers who are not statisticians
    title: str  # a short column heading
    ascending: bool = False  # True where the smallest value is the largest difference


def evaluate(sums: Sums, *, total: Sums | None) -> dict[str, float | None]:
    """Every statistic of one record, by name; `total` is the record of the whole scan.

    `energy_share` is the group's Σd² over that of `total`; None if nothing changed at all, or for
    a group outside the total (EMA copies, schedules …), for which `total` is None.
    """
    values = {name: statistic.formula(sums) for name, statistic in STATISTICS.items() if statistic.formula}
    values["energy_share"] = None if total is None else energy_share(sums, total)
    # Sums of fp64 weights near 1e300 overflow: what they would give is not known, so it is undefined.
    return {name: v if v is not None and isfinite(v) else None for name, v in values.items()}


def energy_share(sums: Sums, total: Sums) -> float | None:
    """Σd² of the group / Σd² of the whole scan, in 0 … 1; None without elements or without change."""
    return sums.sum_dd / total.sum_dd if sums.numeric and _divides(total.sum_dd) else None


def norm_a(s: Sums) -> float | None:
    """‖a‖₂ = √Σa², in the unit of the weights; None without elements. Golub & Van Loan, §2.2."""
    return sqrt(s.sum_aa) if s.numeric else None


def norm_b(s: Sums) -> float | None:
    """‖b‖₂ = √Σb², in the unit of the weights; None without elements."""
    return sqrt(s.sum_bb) if s.numeric else None


def norm_ratio(s: Sums) -> float | None:
    """‖b‖ / ‖a‖, 1 = same length; None where ‖a‖ is zero."""
    return sqrt(s.sum_bb) / sqrt(s.sum_aa) if _divides(s.sum_aa) else None


def cosine_distance(s: Sums) -> float | None:
    """(Σd² − (‖b‖ − ‖a‖)²) / (2‖a‖‖b‖), in 0 … 2; None where a norm is 0 or not finite.

    Equal to 1 − Σab / (‖a‖‖b‖) by the law of cosines, but measured from d itself: it keeps its
    digits down to 1e-12, where the textbook form is noise.
    """
    if not (s.sum_aa > 0 and s.sum_bb > 0):
        return None
    length_a, length_b = sqrt(s.sum_aa), sqrt(s.sum_bb)
    distance = (s.sum_dd - (length_b - length_a) ** 2) / length_a / (2 * length_b)  # no overflow between
    return min(max(distance, 0.0), 2.0) if isfinite(distance) else None


def cosine(s: Sums) -> float | None:
    """1 − cosine_distance, in −1 … 1; None where a norm is zero."""
    distance = cosine_distance(s)
    return None if distance is None else 1.0 - distance


def norm_delta(s: Sums) -> float | None:
    """‖b − a‖₂ = √Σd², in the unit of the weights; None without elements."""
    return sqrt(s.sum_dd) if s.numeric else None


def relative_change(s: Sums) -> float | None:
    """‖b − a‖ / ‖a‖, 0 = unchanged; None where ‖a‖ is zero."""
    return sqrt(s.sum_dd) / sqrt(s.sum_aa) if _divides(s.sum_aa) else None


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
    return sqrt(s.sum_dd) / floor if floor is not None and _divides(floor) else None


def _divides(value: float) -> bool:
    """Whether something can be measured against it: neither zero nor beyond fp64."""
    return 0 < value < inf


STATISTICS: Mapping[str, Statistic] = {
    "numel": Statistic(lambda s: s.numel, "n", "elements", "0 …", "how many numbers there are", "elements"),
    "norm_a": Statistic(norm_a, "√Σa²", "weights", "0 …", "length of A's vector", "‖A‖"),
    "norm_b": Statistic(norm_b, "√Σb²", "weights", "0 …", "length of B's vector", "‖B‖"),
    "norm_ratio": Statistic(
        norm_ratio, "‖b‖ / ‖a‖", "", "0 …", "1 = same length; above 1, B is longer", "norm ratio"
    ),
    "cosine_distance": Statistic(
        cosine_distance,
        "(Σd² − (‖b‖ − ‖a‖)²) / (2·‖a‖·‖b‖)",
        "",
        "0 … 2",
        "0 = same direction, 1 = unrelated, 2 = opposite",
        "cosine distance",
    ),
    "cosine": Statistic(
        cosine,
        "1 − cosine_distance",
        "",
        "−1 … 1",
        "1 = same direction, 0 = unrelated, −1 = opposite",
        "cosine",
        ascending=True,
    ),
    "norm_delta": Statistic(norm_delta, "√Σd²", "weights", "0 …", "length of the change", "‖B − A‖"),
    "relative_change": Statistic(
        relative_change, "‖d‖ / ‖a‖", "", "0 …", "0.1 = moved by a tenth of its own length", "relative change"
    ),
    "rms_delta": Statistic(
        rms_delta,
        "√(Σd²/n)",
        "weights",
        "0 …",
        "typical change of one number, large ones weigh more",
        "rms Δ",
    ),
    "mean_abs_delta": Statistic(
        mean_abs_delta, "Σ|d|/n", "weights", "0 …", "mean change of one number", "mean |Δ|"
    ),
    "max_abs_delta": Statistic(
        max_abs_delta, "max|d|", "weights", "0 …", "largest change of one number", "max |Δ|"
    ),
    "mean_a": Statistic(mean_a, "Σa/n", "weights", "any", "mean of A's numbers", "mean A"),
    "mean_b": Statistic(mean_b, "Σb/n", "weights", "any", "mean of B's numbers", "mean B"),
    "std_a": Statistic(std_a, "√(Σ(a − mean)²/n)", "weights", "0 …", "spread of A's numbers", "std A"),
    "std_b": Statistic(std_b, "√(Σ(b − mean)²/n)", "weights", "0 …", "spread of B's numbers", "std B"),
    "changed_fraction": Statistic(
        changed_fraction, "#(a ≠ b) / n", "", "0 … 1", "share of the numbers that differ at all", "changed"
    ),
    "sign_flip_fraction": Statistic(
        sign_flip_fraction,
        "#(a·b < 0) / n",
        "",
        "0 … 1",
        "share of the numbers that changed sign",
        "sign flips",
    ),
    "nonfinite_a": Statistic(
        lambda s: s.nonfinite_a, "count", "elements", "0 …", "NaN and Inf in A", "non-finite A"
    ),
    "nonfinite_b": Statistic(
        lambda s: s.nonfinite_b, "count", "elements", "0 …", "NaN and Inf in B", "non-finite B"
    ),
    "rounding_floor": Statistic(
        rounding_floor,
        "√(Σulp(a)²/12)",
        "weights",
        "0 …",
        "the change that rounding alone would leave",
        "rounding",
    ),
    "change_to_rounding": Statistic(
        change_to_rounding,
        "‖d‖ / rounding_floor",
        "",
        "0 …",
        "about 1 or less: only rounding differs",
        "Δ / rounding",
    ),
    "energy_share": Statistic(
        None,  # the one that needs the whole scan beside the group: see `energy_share`
        "Σd² of the group / Σd² of the scan",
        "",
        "0 … 1",
        "share of all the change that lies here",
        "share of Δ²",
    ),
}
