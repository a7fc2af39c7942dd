"""The formulas of `analyzer.formulas` and `analyzer.task_formulas` over many records at once.

A record is one place in equally long arrays, one array a field of `Sums` (and of `TaskSums`, under "task.").
Undefined is NaN here, and None again wherever a value leaves the package. Tests hold each of them against
the formula for one record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.formulas import TOP_SHARE
from analyzer.measures import BINS, bin_edges
from analyzer.spread import FLATTEST, HALVINGS, STEEPEST

Floats: TypeAlias = NDArray[np.float64]


class Records:
    """Many records: fields by name, shape (records,), and their histograms on a common range of bins."""

    def __init__(self, fields: Mapping[str, Floats], counts: Floats, energies: Floats, first: int) -> None:
        self._fields = fields
        self.counts = counts  # shape (records, bins)
        self.energies = energies  # of the same shape: Σd² of each bin
        self.first = first  # which bin the first column is

    def __getitem__(self, name: str) -> Floats:
        """One field of all records."""
        return self._fields[name]


ArrayFormula: TypeAlias = Callable[[Records], Floats]


def _where(condition: NDArray[np.bool_], value: Floats) -> Floats:
    """The value where it is defined, NaN elsewhere."""
    return np.where(condition, value, np.nan)


def _divides(value: Floats) -> NDArray[np.bool_]:
    return (value > 0) & np.isfinite(value)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Where the bottom divides."""
    return _where(_divides(bottom), top / bottom)


def _norm(name: str, count: str = "numeric") -> ArrayFormula:
    return lambda r: _where(r[count] > 0, np.sqrt(r[name]))


def _mean(name: str, count: str = "numeric") -> ArrayFormula:
    return lambda r: _ratio(r[name], r[count])


def _root_mean(name: str) -> ArrayFormula:
    return lambda r: np.sqrt(_ratio(r[name], r["numeric"]))


def _root_ratio(top: str, bottom: str) -> ArrayFormula:
    return lambda r: _where(_divides(r[bottom]), np.sqrt(r[top]) / np.sqrt(r[bottom]))


def _angular_distance(aa: Floats, bb: Floats, dd: Floats) -> Floats:
    length_a, length_b = np.sqrt(aa), np.sqrt(bb)
    difference = (bb - aa) / (length_a + length_b)
    distance = (dd - difference * difference) / length_a / (2 * length_b)
    return _where((aa > 0) & (bb > 0) & np.isfinite(distance), np.clip(distance, 0.0, 2.0))


def _cosine_distance(r: Records) -> Floats:
    return _angular_distance(r["sum_aa"], r["sum_bb"], r["sum_dd"])


def task_distance(r: Records) -> Floats:
    """1 − task_cosine, in 0 … 2."""
    return _angular_distance(r["task.aa"], r["task.bb"], r["task.dd"])


def _rounding_floor(r: Records) -> Floats:
    return _where(r["numeric"] > 0, np.sqrt(r["sum_ulp_sq"] / 12))


def _change_to_rounding(r: Records) -> Floats:
    return _ratio(np.sqrt(r["sum_dd"]), _rounding_floor(r))


def _radial_share(r: Records) -> Floats:
    lengths = np.sqrt(r["sum_aa"]) + np.sqrt(r["sum_bb"])
    difference = np.where(lengths > 0, (r["sum_bb"] - r["sum_aa"]) / lengths, 0.0)
    defined = _divides(r["sum_dd"]) & np.isfinite(r["sum_aa"]) & np.isfinite(r["sum_bb"])
    return _where(defined, np.minimum(difference * difference / r["sum_dd"], 1.0))


def _top_energy_share(r: Records) -> Floats:
    """As `analyzer.spread.top_energy`: whole bins from above, and a part of the one where the count ends."""
    count = r["numeric"] * TOP_SHARE
    if not r.counts.shape[1]:
        return np.full(len(count), np.nan)
    # From the largest |d| down: how many elements, and how much energy, lie in this bin or above it.
    passed = np.cumsum(r.counts[:, ::-1], axis=1)
    energy = np.cumsum(r.energies[:, ::-1], axis=1)
    ends = passed > count[:, None]
    place = np.argmax(ends, axis=1)[:, None]
    held, inside = (np.take_along_axis(x[:, ::-1], place, 1)[:, 0] for x in (r.counts, r.energies))
    above = np.take_along_axis(energy, place, 1)[:, 0] - inside
    left = count - (np.take_along_axis(passed, place, 1)[:, 0] - held)
    bins = r.first + r.counts.shape[1] - 1 - place[:, 0]
    low, high = (edges[bins] for edges in _SQUARED_EDGES)
    share = _share_of_top(left / held, inside / held, low, np.minimum(high, r["largest"] ** 2))
    part = np.where(left > 0, inside * share, 0.0)
    top = np.where(ends.any(axis=1), above + part, energy[:, -1])
    defined = (count >= 1) & _divides(r["sum_dd"]) & np.isfinite(energy[:, -1])
    return _where(defined, np.minimum(top / r["sum_dd"], 1.0))


def _share_of_top(fraction: Floats, mean: Floats, low: Floats, high: Floats) -> Floats:
    k = _steepness((mean - low) / (high - low))
    whole = np.expm1(k)
    begin = np.log1p((1 - fraction) * whole) / k
    partial = (np.exp(k) * (1 - 1 / k) - np.exp(k * begin) * (begin - 1 / k)) / whole
    partial = np.where(np.abs(k) < FLATTEST, fraction - fraction * fraction / 2, partial)
    inside = np.isfinite(high) & (low < mean) & (mean < high) & (np.abs(k) < STEEPEST * (1 - 1e-9))
    return np.where(inside, (low * fraction + (high - low) * partial) / mean, fraction)


def _steepness(mean: Floats) -> Floats:
    low, high = np.full(mean.shape, -STEEPEST), np.full(mean.shape, STEEPEST)
    for _ in range(HALVINGS):
        k = (low + high) / 2
        found = np.where(np.abs(k) < FLATTEST, 0.5 + k / 12, 1 / -np.expm1(-k) - 1 / k)
        low, high = np.where(found < mean, k, low), np.where(found < mean, high, k)
    return low


_SQUARED_EDGES = tuple(np.array([bin_edges(i)[side] for i in range(BINS)]) ** 2 for side in (0, 1))


def _mass(r: Records) -> Floats:
    return r["task.abs_a"] + r["task.abs_b"]


def _sign_conflict_expected(r: Records) -> Floats:
    cosine = 1.0 - task_distance(r)
    return np.arccos(np.clip(cosine, -1.0, 1.0)) / pi


def _dominance(r: Records) -> Floats:
    return _ratio(r["task.bb"], r["task.aa"] + r["task.bb"])


def _support_overlap(r: Records) -> Floats:
    return _ratio(r["task.moved_both"], r["task.moved_a"] + r["task.moved_b"] - r["task.moved_both"])


ARRAY_FORMULAS: Mapping[str, ArrayFormula] = {
    "numel": lambda r: r["numel"],
    "norm_a": _norm("sum_aa"),
    "norm_b": _norm("sum_bb"),
    "norm_ratio": _root_ratio("sum_bb", "sum_aa"),
    "cosine_distance": _cosine_distance,
    "cosine": lambda r: 1.0 - _cosine_distance(r),
    "norm_delta": _norm("sum_dd"),
    "relative_change": _root_ratio("sum_dd", "sum_aa"),
    "rms_delta": _root_mean("sum_dd"),
    "mean_abs_delta": _mean("sum_abs_d"),
    "max_abs_delta": lambda r: _where(r["numeric"] > 0, r["max_abs_d"]),
    "mean_a": _mean("sum_a"),
    "mean_b": _mean("sum_b"),
    "std_a": _root_mean("m2_a"),
    "std_b": _root_mean("m2_b"),
    "changed_fraction": _mean("changed", "n"),
    "sign_flip_fraction": _mean("sign_flips"),
    "nonfinite_a": lambda r: r["nonfinite_a"],
    "nonfinite_b": lambda r: r["nonfinite_b"],
    "rounding_floor": _rounding_floor,
    "change_to_rounding": _change_to_rounding,
    "radial_share": _radial_share,
    "directional_share": lambda r: 1.0 - _radial_share(r),
    "top_energy_share": _top_energy_share,
    "norm_task_a": _norm("task.aa", "task.n"),
    "norm_task_b": _norm("task.bb", "task.n"),
    "task_cosine": lambda r: 1.0 - task_distance(r),
    "sign_conflict_fraction": lambda r: _ratio(r["task.conflicts"], r["task.moved_both"]),
    "sign_conflict_expected": _sign_conflict_expected,
    "conflict_mass": lambda r: np.minimum(_ratio(r["task.abs_conflict"], _mass(r)), 1.0),
    "cancellation": lambda r: np.clip(1.0 - _ratio(r["task.abs_sum"], _mass(r)), 0.0, 1.0),
    "dominance": _dominance,
    "support_overlap": _support_overlap,
}
