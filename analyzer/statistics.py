"""The statistics: one literal table of pure functions of `Sums`. Knows no files and no torch.

A statistic of a group is computed from the group's summed record, never from the statistics of its
keys; the few that do not add say how a group gets them. Undefined is None: a zero norm has no
direction, no elements have no mean. `analyzer.evaluation` evaluates all at once. The README's table is
made from this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Literal

from analyzer import formulas, task_formulas
from analyzer.arithmetic import Formula
from analyzer.records import KeyScan, RowCosines, Spectrum

Join = Callable[[Sequence[float]], float]
Need = Literal["", "base", "spectrum"]
Format = Literal["number", "share", "count"]


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
    source: str = ""  # of the formula, where it has one beyond its definition
    needs: Need = ""  # what a scan must have been asked for beside A and B
    of_key: Callable[[KeyScan], float | None] | None = None  # of the few that do not add
    join: Join = median  # of a group, from those of its keys
    format: Format = "number"  # how a value is written
    # The value where A and B do not differ: bars grow from there. None of what tells nothing of a difference.
    neutral: float | None = 0.0


def _count(formula: Formula, symbol: str, meaning: str, title: str) -> Statistic:
    return Statistic(formula, symbol, "elements", "0 …", meaning, title, format="count", neutral=None)


def _row_cosine(
    read: Callable[[RowCosines], float], symbol: str, meaning: str, title: str, join: Join = median
) -> Statistic:
    return Statistic(
        None, symbol, "", "−1 … 1", meaning, title, ascending=True, join=join, neutral=1.0,
        of_key=lambda row: read(row.row_cosines) if row.row_cosines else None,
    )  # fmt: skip


def _of_spectrum(read: Callable[[Spectrum], float | None]) -> Callable[[KeyScan], float | None]:
    return lambda row: read(row.spectrum) if row.spectrum else None


_BASE: Need = "base"
_SPECTRUM: Need = "spectrum"
_TASKS = "Ilharco et al. 2023, arXiv 2212.04089"
_HALKO = "Halko, Martinsson & Tropp 2011, arXiv 0909.4061"

STATISTICS: Mapping[str, Statistic] = {
    "numel": _count(Formula(lambda s, _: s.numel), "n", "how many numbers there are", "elements"),
    "norm_a": Statistic(
        formulas.norm_a, "√Σa²", "weights", "0 …", "length of A's vector", "‖A‖", neutral=None
    ),
    "norm_b": Statistic(
        formulas.norm_b, "√Σb²", "weights", "0 …", "length of B's vector", "‖B‖", neutral=None
    ),
    "norm_ratio": Statistic(
        formulas.norm_ratio,
        "‖b‖ / ‖a‖",
        "",
        "0 …",
        "1 = same length; above 1, B is longer",
        "norm ratio",
        neutral=1.0,
    ),
    "cosine_distance": Statistic(
        formulas.cosine_distance,
        "(Σd² − (‖b‖ − ‖a‖)²) / (2·‖a‖·‖b‖)",
        "",
        "0 … 2",
        "0 = same direction, 1 = unrelated, 2 = opposite",
        "cosine distance",
        source="law of cosines",
    ),
    "cosine": Statistic(
        formulas.cosine,
        "1 − cosine_distance",
        "",
        "−1 … 1",
        "1 = same direction, 0 = unrelated, −1 = opposite",
        "cosine",
        ascending=True,
        neutral=1.0,
    ),
    "norm_delta": Statistic(formulas.norm_delta, "√Σd²", "weights", "0 …", "length of the change", "‖B − A‖"),
    "relative_change": Statistic(
        formulas.relative_change,
        "‖d‖ / ‖a‖",
        "",
        "0 …",
        "0.1 = moved by a tenth of its own length",
        "relative change",
    ),
    "rms_delta": Statistic(
        formulas.rms_delta,
        "√(Σd²/n)",
        "weights",
        "0 …",
        "typical change of one number, large ones weigh more",
        "rms Δ",
    ),
    "mean_abs_delta": Statistic(
        formulas.mean_abs_delta, "Σ|d|/n", "weights", "0 …", "mean change of one number", "mean |Δ|"
    ),
    "max_abs_delta": Statistic(
        formulas.max_abs_delta, "max|d|", "weights", "0 …", "largest change of one number", "max |Δ|"
    ),
    "mean_a": Statistic(
        formulas.mean_a, "Σa/n", "weights", "any", "mean of A's numbers", "mean A", neutral=None
    ),
    "mean_b": Statistic(
        formulas.mean_b, "Σb/n", "weights", "any", "mean of B's numbers", "mean B", neutral=None
    ),
    "std_a": Statistic(
        formulas.std_a, "√(Σ(a − mean)²/n)", "weights", "0 …", "spread of A's numbers", "std A", neutral=None
    ),
    "std_b": Statistic(
        formulas.std_b, "√(Σ(b − mean)²/n)", "weights", "0 …", "spread of B's numbers", "std B", neutral=None
    ),
    "changed_fraction": Statistic(
        formulas.changed_fraction,
        "#(a ≠ b) / n",
        "",
        "0 … 1",
        "share of the numbers that differ at all",
        "changed",
        format="share",
    ),
    "sign_flip_fraction": Statistic(
        formulas.sign_flip_fraction,
        "#(a·b < 0) / n",
        "",
        "0 … 1",
        "share of the numbers that changed sign",
        "sign flips",
        format="share",
    ),
    "nonfinite_a": _count(Formula(lambda s, _: s.nonfinite_a), "count", "NaN and Inf in A", "non-finite A"),
    "nonfinite_b": _count(Formula(lambda s, _: s.nonfinite_b), "count", "NaN and Inf in B", "non-finite B"),
    "rounding_floor": Statistic(
        formulas.rounding_floor,
        "√(Σulp(a)²/12)",
        "weights",
        "0 …",
        "the change that rounding alone would leave; none where a storage has no fixed spacing (GGUF)",
        "rounding",
        source="Widrow & Kollár 2008, §4",
        neutral=None,
    ),
    "change_to_rounding": Statistic(
        formulas.change_to_rounding,
        "‖d‖ / rounding_floor",
        "",
        "0 …",
        "about 1 or less: only rounding differs",
        "Δ / rounding",
        source="Widrow & Kollár 2008, §4",
    ),
    "radial_share": Statistic(
        formulas.radial_share,
        "(‖b‖ − ‖a‖)² / ‖d‖²",
        "",
        "0 … 1",
        "share of the change that only makes the vector longer or shorter",
        "rescaled",
        source="law of cosines",
        format="share",
    ),
    "directional_share": Statistic(
        formulas.directional_share,
        "1 − radial_share",
        "",
        "0 … 1",
        "share of the change that turns the vector",
        "re-aimed",
        source="law of cosines",
        format="share",
    ),
    "top_energy_share": Statistic(
        formulas.top_energy_share,
        "Σd² of the 1 % with the largest |d| / Σd²",
        "",
        "0.01 … 1",
        "0.08 = spread evenly, as noise is; 1 = few numbers hold all; from bins, within about 1 %",
        "top 1 %",
        format="share",
    ),
    "row_cosine_min": _row_cosine(
        lambda rows: rows.minimum,
        "min over rows of cos(aᵢ, bᵢ)",
        "the output row that turned most (of tensors of at most 2^20 rows); of a group, of all its keys",
        "min row cosine",
        join=min,
    ),
    "row_cosine_p05": _row_cosine(
        lambda rows: rows.p05,
        "5th percentile over rows of cos(aᵢ, bᵢ)",
        "one output row in twenty turned more; of a group, the median of its keys",
        "5 % row cosine",
    ),
    "row_cosine_median": _row_cosine(
        lambda rows: rows.median,
        "median over rows of cos(aᵢ, bᵢ)",
        "how far an output row turned; of a group, the median of its keys",
        "median row cosine",
    ),
    "energy_share": Statistic(
        None,  # the one that needs the whole scan beside the group: see `energy_share`
        "Σd² of the group / Σd² of the scan",
        "",
        "0 … 1",
        "share of all the change that lies here",
        "share of Δ²",
        format="share",
    ),
    "norm_task_a": Statistic(
        task_formulas.norm_task_a,
        "‖a − c‖",
        "weights",
        "0 …",
        "length of what A learned beyond the base",
        "‖A − C‖",
        source=_TASKS,
        needs=_BASE,
        neutral=None,
    ),
    "norm_task_b": Statistic(
        task_formulas.norm_task_b,
        "‖b − c‖",
        "weights",
        "0 …",
        "length of what B learned beyond the base",
        "‖B − C‖",
        source=_TASKS,
        needs=_BASE,
        neutral=None,
    ),
    "task_cosine": Statistic(
        task_formulas.task_cosine,
        "cos(a − c, b − c)",
        "",
        "−1 … 1",
        "1 = both learned the same, 0 = unrelated things, −1 = opposites",
        "task cosine",
        ascending=True,
        source=_TASKS,
        needs=_BASE,
        neutral=1.0,
    ),
    "sign_conflict_fraction": Statistic(
        task_formulas.sign_conflict_fraction,
        "#((a−c)(b−c) < 0) / #((a−c)(b−c) ≠ 0)",
        "",
        "0 … 1",
        "of the numbers that both changed, the share on which they disagree",
        "sign conflicts",
        source="Yadav et al. 2023, arXiv 2306.01708",
        needs=_BASE,
        format="share",
    ),
    "sign_conflict_expected": Statistic(
        task_formulas.sign_conflict_expected,
        "arccos(task_cosine) / π",
        "",
        "0 … 1",
        "the sign conflicts that Gaussian changes of this cosine have; 0.5 = unrelated",
        "expected conflicts",
        source="Sheppard 1899",
        needs=_BASE,
        format="share",
    ),
    "conflict_mass": Statistic(
        task_formulas.conflict_mass,
        "Σ(|a−c| + |b−c|) where they disagree / Σ(|a−c| + |b−c|)",
        "",
        "0 … 1",
        "share of all that both learned which is in dispute",
        "conflict mass",
        source="Yadav et al. 2023, arXiv 2306.01708",
        needs=_BASE,
        format="share",
    ),
    "cancellation": Statistic(
        task_formulas.cancellation,
        "1 − Σ|(a−c) + (b−c)| / Σ(|a−c| + |b−c|)",
        "",
        "0 … 1",
        "share of what both learned that is lost where they are added",
        "cancellation",
        needs=_BASE,
        format="share",
    ),
    "dominance": Statistic(
        task_formulas.dominance,
        "‖b−c‖² / (‖a−c‖² + ‖b−c‖²)",
        "",
        "0 … 1",
        "0.5 = both changed as much, 1 = only B changed, 0 = only A",
        "dominance of B",
        needs=_BASE,
        format="share",
        neutral=None,
    ),
    "support_overlap": Statistic(
        task_formulas.support_overlap,
        "#(a ≠ c and b ≠ c) / #(a ≠ c or b ≠ c)",
        "",
        "0 … 1",
        "how much they changed the same numbers",
        "overlap",
        source="Jaccard 1901",
        needs=_BASE,
        format="share",
        neutral=None,
    ),
    "stable_rank": Statistic(
        None,
        "Σσ² / max σ²",
        "",
        "1 …",
        "how many directions the change has, large ones weigh more; of a group, the median of its keys",
        "stable rank",
        ascending=True,
        source="Rudelson & Vershynin 2007, arXiv math/0503442",
        needs=_SPECTRUM,
        of_key=_of_spectrum(lambda spectrum: spectrum.stable_rank),
        neutral=inf,
    ),
    "rank_90": Statistic(
        None,
        "fewest σ with Σσ² ≥ 90 %",
        "",
        "1 …",
        "how many directions hold 90 % of the change; of a group, the median of its keys",
        "rank for 90 %",
        ascending=True,
        source=_HALKO,
        needs=_SPECTRUM,
        of_key=_of_spectrum(lambda spectrum: spectrum.rank_90),
        format="count",
        neutral=inf,
    ),
    "top_singular_share": Statistic(
        None,
        "max σ² / Σσ²",
        "",
        "0 … 1",
        "share of the change in its strongest direction; of a group, the median of its keys",
        "top direction",
        source=_HALKO,
        needs=_SPECTRUM,
        of_key=_of_spectrum(lambda spectrum: spectrum.top_singular_share),
        format="share",
    ),
    "lora_rank": Statistic(
        None,
        "fewest σ that leave only rounding",
        "",
        "1 …",
        "rank of the LoRA that this change looks like; of a group, the median of its keys",
        "LoRA rank",
        ascending=True,
        source=_HALKO,
        needs=_SPECTRUM,
        of_key=_of_spectrum(lambda spectrum: spectrum.lora_rank),
        format="count",
        neutral=inf,
    ),
}
