"""From resamples to an interval, and how much wider than they say it must be. Knows no keys.

The standard error is taken where the statistic has neither an edge nor a long tail: on the logarithm of a
length, the log-odds of a share. There the interval is value ± t · standard error, and its ends are
taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri, stdtrit

from analyzer.column_arithmetic import Floats
from analyzer.uncertainty.sampling import Measured, Sample

CONFIDENCE = 0.95
# See the package's docstring for what was measured with these two.
FEWEST_KEYS = 5
FEWEST_EFFECTIVE = 2.2  # so many of equal weight
_MOST_UNDEFINED = 0.05  # of the resamples

_TAIL = (1 + CONFIDENCE) / 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a statistic's errors are even: a monotonic way there, and back."""

    forward: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]
    falling: bool = False  # larger values lie lower there


_LENGTH = Scale(np.log, np.exp)
_SHARE = Scale(logit, expit)
_DISTANCE = Scale(lambda x: logit(x / 2), lambda y: 2 * expit(y))
_COSINE = Scale(lambda x: logit((1 - x) / 2), lambda y: 1 - 2 * expit(y), falling=True)
_PLAIN = Scale(lambda x: x, lambda y: y)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the interval of a statistic is made."""

    scale: Scale
    weights: tuple[str, ...] = ()  # the sums by which a key weighs in it; none: all keys weigh the same


_CHANGE = ("sum_aa", "sum_dd")
_TASKS = ("task.aa", "task.bb")

# What is missing has no interval: counts are exact, and maxima cannot be resampled.
KINDS: Mapping[str, Kind] = {
    "norm_a": Kind(_LENGTH, ("sum_aa",)),
    "norm_b": Kind(_LENGTH, ("sum_bb",)),
    "norm_ratio": Kind(_LENGTH, ("sum_aa", "sum_bb")),
    "cosine_distance": Kind(_DISTANCE, _CHANGE),
    "cosine": Kind(_COSINE, _CHANGE),
    "norm_delta": Kind(_LENGTH, ("sum_dd",)),
    "relative_change": Kind(_LENGTH, _CHANGE),
    "rms_delta": Kind(_LENGTH, ("numeric", "sum_dd")),
    "mean_abs_delta": Kind(_LENGTH, ("numeric", "sum_abs_d")),
    "mean_a": Kind(_PLAIN, ("numeric",)),
    "mean_b": Kind(_PLAIN, ("numeric",)),
    "std_a": Kind(_LENGTH, ("numeric", "m2_a")),
    "std_b": Kind(_LENGTH, ("numeric", "m2_b")),
    "changed_fraction": Kind(_SHARE, ("n",)),
    "sign_flip_fraction": Kind(_SHARE, ("numeric",)),
    "rounding_floor": Kind(_LENGTH, ("sum_ulp_sq",)),
    "change_to_rounding": Kind(_LENGTH, ("sum_ulp_sq", "sum_dd")),
    "radial_share": Kind(_SHARE, _CHANGE),
    "directional_share": Kind(_SHARE, _CHANGE),
    "top_energy_share": Kind(_SHARE, ("numeric", "sum_dd")),
    "row_cosine_p05": Kind(_COSINE),
    "row_cosine_median": Kind(_COSINE),
    "energy_share": Kind(_SHARE, ("sum_dd",)),
    "norm_task_a": Kind(_LENGTH, ("task.aa",)),
    "norm_task_b": Kind(_LENGTH, ("task.bb",)),
    "task_cosine": Kind(_COSINE, _TASKS),
    "sign_conflict_fraction": Kind(_SHARE, ("task.moved_both",)),
    "sign_conflict_expected": Kind(_SHARE, _TASKS),
    "conflict_mass": Kind(_SHARE, ("task.abs_a", "task.abs_b")),
    "cancellation": Kind(_SHARE, ("task.abs_a", "task.abs_b")),
    "dominance": Kind(_SHARE, _TASKS),
    "support_overlap": Kind(_SHARE, ("task.moved_a", "task.moved_b")),
    "stable_rank": Kind(_LENGTH),
    "rank_90": Kind(_LENGTH),
    "top_singular_share": Kind(_SHARE),
    "lora_rank": Kind(_LENGTH),
}


@dataclass(frozen=True, slots=True)
class Band:
    """What is known of a group's statistic from its own keys."""

    keys: int  # that have a value of their own
    interval: tuple[float, float] | None  # None: undefined, or not to be had; then `note` may say why
    note: str = ""  # "nothing changed", "1 key", "too few keys", "rests on few keys"
    levels: Floats | None = None  # of the interval's resamples: their place on the scale, spread as it is


def band(sample: Sample, measured: Measured, kind: Kind, *, neutral: float | None = None) -> Band:
    """The 95 % interval of a statistic, or why there is none.

    `neutral` is its value where nothing differs. A group that has it, because none of its keys changed, gets
    no interval: that the keys of this model are alike does not say that others like them would be.
    """
    defined = np.isfinite(measured.own)
    keys = int(defined.sum())
    if not np.isfinite(measured.value) or not keys:
        return Band(keys, None)
    if measured.value == neutral and not sample.field("changed").any():
        return Band(keys, None, "nothing changed")
    if keys < FEWEST_KEYS:
        return Band(keys, None, "1 key" if keys == 1 else "too few keys")
    drawn = measured.drawn[~np.isnan(measured.drawn)]
    if drawn.size < (1 - _MOST_UNDEFINED) * measured.drawn.size:
        return Band(keys, None, "rests on few keys")
    level, levels = (_forward(kind.scale, values) for values in (np.array(measured.value), measured.drawn))
    if (drawn == measured.value).all():  # all keys are alike: nothing changed, or everything
        return Band(keys, (measured.value, measured.value), levels=np.full(levels.size, level))
    effective = _effective(sample, kind, defined)
    if effective < FEWEST_EFFECTIVE or not np.isfinite(level):
        return Band(keys, None, "rests on few keys")
    finite = np.isfinite(levels)
    # A resample may hold none of the keys that changed: as far away as the farthest of the others.
    levels = np.where(finite, levels, levels[finite].min() if finite.any() else level)
    wide = widening(effective)
    reach = wide * float(ndtri(_TAIL)) * float(levels.std())
    ends = sorted(float(kind.scale.back(level + way * reach)) for way in (-1, 1))
    return Band(keys, (ends[0], ends[1]), levels=level + wide * (levels - level))


def effective_keys(weights: Floats) -> float:
    """(Σw)² / Σw², in 1 … keys: how many keys of one weight say as much as these. Kish, 1965, §8.2."""
    total = weights.sum()
    return float(total * total / (weights @ weights)) if total > 0 else 0.0


def widening(effective: float) -> float:
    """By how much a bootstrap's standard error of so few keys is too small.

    √(m/(m − 1)), as it divides by m; times t/z with m − 1 degrees of freedom, as it is itself an estimate.
    Hesterberg, What Teachers Should Know about the Bootstrap, 2015, §4.3.
    """
    student = float(stdtrit(effective - 1, _TAIL))
    return student / float(ndtri(_TAIL)) * sqrt(effective / (effective - 1))


def _forward(scale: Scale, values: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(scale.forward(values), np.float64)


def _effective(sample: Sample, kind: Kind, defined: NDArray[np.bool_]) -> float:
    """The fewest effective keys of those sums that the statistic rests on, zero ones left out."""
    columns = [np.nan_to_num(sample.field(name), posinf=0.0) for name in kind.weights]
    found = [effective_keys(column / column.max()) for column in columns if column.any()]
    return min(found, default=float(defined.sum()))
