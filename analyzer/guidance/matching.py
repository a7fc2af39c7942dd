"""How far to go from A towards B until a statistic has a wanted value. Closed forms of one record of sums.

M = A + alpha·(B − A), before it is rounded to a dtype, is compared with A as a scan compares B with A.
With d = b − a, q the length of d's part along a and p of its part across it, ‖m − a‖ is alpha·‖d‖ and
‖m‖² is (‖a‖ + alpha·q)² + (alpha·p)². Nothing here takes 1 − cos of an angle: p and q come from the law
of cosines, so that a cosine distance of 1e-12 keeps its digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, isclose, isfinite, sqrt

from analyzer import formulas
from analyzer.errors import RecipeError
from analyzer.measures import Histogram, Sums

_REACHED = 1e-9  # by how much a solution may lie beyond 1: the rounding of sums that came to the target
_OPPOSITE = 1e-14  # how near to 2 a cosine distance is that of opposites


@dataclass(frozen=True, slots=True)
class Matched:
    """An alpha, and what the merged model has there."""

    alpha: float  # 0 … 1
    value: float  # of the statistic, of M against A
    reached: bool  # whether that is the wanted value


@dataclass(frozen=True, slots=True)
class _Line:
    """The way from A to B, as lengths in the unit of the weights."""

    a: float  # ‖a‖
    along: float  # of d in the direction of a; negative where it points back
    across: float  # of d at a right angle to a
    d: float  # ‖d‖, above 0


_Solve = Callable[[_Line, float], float | None]  # (way, wanted value) -> the smallest alpha ≥ 0 that has it


@dataclass(frozen=True, slots=True)
class _Target:
    """A statistic that can be aimed at."""

    formula: Callable[[Sums], float | None]
    low: float = 0.0  # the values that it can have
    high: float = inf
    solve: _Solve | None = None  # None: the statistic is alpha times what B has
    turns: bool = False  # whether it may fall first and grow then


def match_alpha(sums: Sums, statistic: str, value: float) -> Matched | None:
    """The smallest alpha in 0 … 1 at which M has this value of the statistic against A.

    `sums` is the record of A and B. Where no alpha in 0 … 1 has the value, the one that comes nearest to
    it, of several the largest: so 1, if even B does not differ as much from A as is wanted. 1 also
    where A and B are equal. None where the statistic is undefined for A and B. All but norm_ratio and norm_b
    grow with alpha (cosine falls), and so have one solution or none.
    """
    target = TARGETS[statistic]
    at_b, line = target.formula(sums), _line(sums)
    if at_b is None or line is None or not isfinite(at_b):
        return None
    if line.d == 0:
        return Matched(1.0, at_b, reached=at_b == value)
    alpha = target.solve(line, value) if target.solve else (value / at_b if at_b else None)
    if alpha is not None and alpha <= 1 + _REACHED:
        return Matched(min(alpha, 1.0), value, reached=True)
    turn = _turning_point(line) if target.turns else 0.0
    values = {each: _value_at(sums, target, line, alpha=each) for each in (1.0, turn, 0.0)}
    nearest = min(values, key=lambda each: abs(values[each] - value))
    # A cosine of 1 − 1e-8 has lost its last digits before it is asked for.
    return Matched(nearest, values[nearest], reached=isclose(values[nearest], value, rel_tol=1e-15))


def require_target(statistic: str, value: float) -> None:
    """RecipeError if no model can be asked to have this value of this statistic against A."""
    if statistic not in TARGETS:
        raise RecipeError(
            f"--match {statistic}: no alpha can be computed for it; choose one of {', '.join(TARGETS)}"
        )
    target = TARGETS[statistic]
    if not (isfinite(value) and target.low <= value <= target.high):
        limits = "0 or more" if target.high == inf else f"{target.low:g} … {target.high:g}"
        raise RecipeError(f"--match {statistic}={value:.12g}: the value must be a number in {limits}")


def unmoved(sums: Sums) -> Sums:
    """The record of a tensor that stays as A has it."""
    return replace(
        sums,
        changed=0,
        cast_only=0,
        sign_flips=0,
        sum_b=sums.sum_a,
        sum_bb=sums.sum_aa,
        sum_ab=sums.sum_aa,
        m2_b=sums.m2_a,
        sum_dd=0.0,
        sum_abs_d=0.0,
        max_abs_d=0.0,
        histogram=Histogram(),
        task=None,
    )


def _line(s: Sums) -> _Line | None:
    """The lengths that a record tells of; None where they lie beyond fp64."""
    if not (isfinite(s.sum_aa) and isfinite(s.sum_bb) and isfinite(s.sum_dd)):
        return None
    a, b, d = sqrt(s.sum_aa), sqrt(s.sum_bb), sqrt(s.sum_dd)
    angular = formulas.angular_distance(s.sum_aa, s.sum_bb, s.sum_dd)
    if angular is None:  # one of both is zero
        return _Line(a, -a if b == 0 else 0.0, d if a == 0 else 0.0, d)
    # the difference of the squares over the sum of the roots: no cancellation of two rounded roots
    along = (s.sum_bb - s.sum_aa) / (a + b) - b * angular
    # Opposites look as if they were not quite, by the rounding of the sums; then M would pass beside zero.
    across = 0.0 if 2 - angular < _OPPOSITE else b * sqrt(angular * (2 - angular))
    return _Line(a, along, min(across, d), d)


def _solve_distance(line: _Line, distance: float) -> float | None:
    """Where M has this cosine distance to A: the angle between them grows with alpha, from 0 on.

    Its tangent is alpha·p / (‖a‖ + alpha·q). None where no alpha turns M so far.
    """
    sine, cosine = sqrt(distance * (2 - distance)), 1 - distance
    rest = line.across * cosine - line.along * sine
    return line.a * sine / rest if rest > 0 and line.across > 0 else None


def _solve_cosine(line: _Line, cosine: float) -> float | None:
    return _solve_distance(line, 1 - cosine)


def _solve_norm(line: _Line, norm: float) -> float | None:
    """The smaller root of ‖m‖² = norm² that is not negative. None where M is always longer or shorter."""
    # in units of ‖d‖, alpha² + 2·half·alpha + rest = 0; no difference of two squares
    a, wanted = line.a / line.d, norm / line.d
    half, rest = line.along / line.d * a, (a - wanted) * (a + wanted)
    shortest = a * (line.across / line.d)  # M's length where the line is nearest to zero
    if rest == 0:
        return 0.0
    if wanted < shortest or (rest > 0 and half >= 0):
        return None
    root = sqrt((wanted - shortest) * (wanted + shortest))
    if rest > 0:
        return rest / (root - half)
    return -rest / (root + half) if half >= 0 else root - half


def _solve_ratio(line: _Line, ratio: float) -> float | None:
    return _solve_norm(line, ratio * line.a)


def _turning_point(line: _Line) -> float:
    """The alpha in 0 … 1 at which M is shortest."""
    nearest = -line.along / line.d * (line.a / line.d)
    return min(max(0.0, nearest), 1.0)  # in this order NaN, which overflow may leave, is 0


def _value_at(sums: Sums, target: _Target, line: _Line, *, alpha: float) -> float:
    """What the merged model has at an alpha; at 1, to the digit what B has. Undefined is infinitely far."""
    if alpha == 1:
        value = target.formula(sums)
    else:
        length, side = line.a + alpha * line.along, alpha * line.across
        value = target.formula(
            replace(
                sums,
                sum_bb=length * length + side * side,
                sum_dd=alpha * alpha * sums.sum_dd,
                sum_abs_d=alpha * sums.sum_abs_d,
                max_abs_d=alpha * sums.max_abs_d,
            )
        )
    return value if value is not None and isfinite(value) else inf


TARGETS: Mapping[str, _Target] = {
    "cosine": _Target(formulas.cosine, -1.0, 1.0, _solve_cosine),
    "cosine_distance": _Target(formulas.cosine_distance, 0.0, 2.0, _solve_distance),
    "relative_change": _Target(formulas.relative_change),
    "norm_delta": _Target(formulas.norm_delta),
    "rms_delta": _Target(formulas.rms_delta),
    "mean_abs_delta": _Target(formulas.mean_abs_delta),
    "max_abs_delta": _Target(formulas.max_abs_delta),
    "norm_ratio": _Target(formulas.norm_ratio, solve=_solve_ratio, turns=True),
    "norm_b": _Target(
        formulas.norm_b, solve=_solve_norm, turns=True
    ),  # M's own length, as the second of the two
}
