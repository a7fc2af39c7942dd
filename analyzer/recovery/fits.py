"""From sums of a merge and its parents to alphas, and how sure they are. Pure functions of `Gram`.

With e = m − a, d = b − a, g = c − a the merge is e ≈ alpha·d + gamma·g, by least squares over all
elements of a group: the normal equations need nothing but the group's summed products (Björck, Numerical
Methods for Least Squares Problems, 1996, §2.2). What that leaves, Σ(e − alpha·d − gamma·g)², is Σe² less
what was fitted; it has lost the digits below about 1e-14 of Σe².
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum, inf, sqrt

from analyzer.recovery.grams import Gram

NO_ALPHA = 0.5  # an alpha that is off by as much may be A's 0 as well as B's 1
_SIGMAS = 2.0  # standard errors on either side: 95 % of a normal distribution
_COARSE = 0.1  # rounding against ‖d‖ from which on its error may go along with d, on one grid as both are
_PARALLEL = 1e-9  # 1 − cos² of d and g below which they are one direction
_NOISE = 4.0  # times what rounding leaves: a residual below that is rounding's
_STRANGE = 0.01  # of ‖m − a‖²: no rounding and no other order of operations leaves as much
_EPSILON = 1e-14  # of the largest term: what fp64 leaves of a residual that is zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How the merge of one group of keys came about."""

    moved: float  # ‖m − a‖²
    left: float  # ‖m − a − alpha·d − gamma·g‖² at the best numbers: what is in neither parent, and rounding
    rounding: float  # what of it rounding to the merge's dtype accounts for; inf where that is unknown
    size: float  # ‖d‖²
    alpha: float | None = None  # None: the parents' difference does not tell, as where they are equal
    gamma: float | None = None  # of the third parent; None without one, and where it does not tell
    # One alpha between them, with gamma = 0, explains every element by rounding alone; None: none does, or
    # it cannot be told
    low: float | None = None
    high: float | None = None
    error: float | None = None  # alpha is this sure: ±
    gamma_error: float | None = None
    together: float | None = None  # alpha + gamma, where only that can be told: B and C are equal there

    @property
    def unexplained(self) -> float | None:
        """‖rest‖² / ‖m − a‖², in 0 … 1, with what rounding accounts for left out; None if nothing moved."""
        if self.moved == 0 or self.only_rounded:
            return None
        return beyond_rounding(self.left, self.rounding, self.moved)

    @property
    def is_strange(self) -> bool:
        """Whether so much is in neither parent that alpha says little; no where rounding is not known."""
        return self.unexplained is not None and self.unexplained > _STRANGE and self.rounding < inf

    @property
    def residual(self) -> float | None:
        """‖m − a − alpha·d − gamma·g‖ / ‖d‖, rounding included; None where the parents are equal."""
        return sqrt(self.left / self.size) if self.size > 0 else None

    @property
    def only_rounded(self) -> bool:
        """Whether the merge differs from A by no more than rounding does, and not in B's direction."""
        if self.moved > _NOISE * self.rounding or self.rounding == inf:
            return False
        return all(
            value is None or error is None or abs(value) <= error
            for value, error in ((self.alpha, self.error), (self.gamma, self.gamma_error))
        )


def beyond_rounding(left: float, rounding: float, moved: float) -> float:
    """The share of ‖m − a‖² that is left, in 0 … 1; 0 where rounding accounts for what is left.

    All of it counts where rounding is not known.
    """
    return 0.0 if left <= _NOISE * rounding < inf else min(left / moved, 1.0)


def fit(gram: Gram, *, three: bool = False) -> Fit:
    """The alphas of one group; `three`: with a third parent."""
    return _fit_two(gram) if three else _fit_one(gram)


def of_difference(gram: Gram) -> Gram:
    """The sums with b − c in the place of b − a and nothing in that of c: for a + alpha·(b − c)."""
    return replace(
        gram,
        dd=max(gram.dd - 2 * gram.dg + gram.gg, 0.0),
        ed=gram.ed - gram.eg,
        ulp_dd=_ulp_along(gram, 1.0, -1.0),
        gg=0.0, dg=0.0, eg=0.0, ulp_gg=0.0, low=-inf, high=inf,
    )  # fmt: skip


def without_third(gram: Gram, gamma: float) -> Gram:
    """The sums with gamma·(c − a) taken out of the merge, and nothing in the place of c − a."""
    return replace(
        gram,
        ee=max(gram.ee - 2 * gamma * gram.eg + gamma * gamma * gram.gg, 0.0),
        ed=gram.ed - gamma * gram.dg,
        gg=0.0, dg=0.0, eg=0.0, ulp_dg=0.0, ulp_gg=0.0, low=-inf, high=inf,
    )  # fmt: skip


def _fit_one(gram: Gram) -> Fit:
    if gram.dd == 0:
        return Fit(moved=gram.ee, left=gram.ee, rounding=_rounding(gram), size=0.0)
    alpha = gram.ed / gram.dd
    low, high = (gram.low, gram.high) if -inf < gram.low <= gram.high < inf else (None, None)
    if low is not None and high is not None:
        # Where d is no larger than rounding the least squares are biased, and the bounds are not.
        alpha = min(max(alpha, low), high)
        error = max(high - alpha, alpha - low)
    else:
        error = _error(gram, gram.dd, gram.ulp_dd, _left(gram, alpha, 0.0))
    return Fit(
        moved=gram.ee,
        left=_left(gram, alpha, 0.0),
        rounding=_rounding(gram),
        size=gram.dd,
        alpha=_known(alpha, error),
        low=low,
        high=high,
        error=error,
    )


def _fit_two(gram: Gram) -> Fit:
    """The 2 × 2 least squares; where one parent equals A, the other alone."""
    if gram.gg == 0:
        return _fit_one(gram)
    if gram.dd == 0:
        gamma = gram.eg / gram.gg
        left = _left(gram, 0.0, gamma)
        error = _error(gram, gram.gg, gram.ulp_gg, left)
        found = Fit(moved=gram.ee, left=left, rounding=_rounding(gram), size=0.0)
        return replace(found, gamma=_known(gamma, error), gamma_error=error)
    apart = 1 - (gram.dg / gram.dd) * (gram.dg / gram.gg)  # 1 − cos² of d and g
    if apart < _PARALLEL:
        total = gram.ed / gram.dd
        found = Fit(
            moved=gram.ee, left=_left(gram, total, 0.0), rounding=_rounding(gram), size=gram.dd
        )  # fmt: skip
        equal = abs(gram.dg - gram.dd) <= sqrt(_PARALLEL) * gram.dd
        return replace(found, together=total) if equal else found
    determinant = gram.dd * gram.gg * apart
    alpha = (gram.ed * gram.gg - gram.eg * gram.dg) / determinant
    gamma = (gram.eg * gram.dd - gram.ed * gram.dg) / determinant
    left = _left(gram, alpha, gamma)
    # Of d without its share along g, and the other way round
    error = _error(gram, gram.dd * apart, _ulp_along(gram, 1.0, -gram.dg / gram.gg), left)
    gamma_error = _error(gram, gram.gg * apart, _ulp_along(gram, -gram.dg / gram.dd, 1.0), left)
    return Fit(
        moved=gram.ee,
        left=left,
        rounding=_rounding(gram),
        size=gram.dd,
        alpha=_known(alpha, error),
        gamma=_known(gamma, gamma_error),
        error=error,
        gamma_error=gamma_error,
    )


def _known(value: float, error: float) -> float | None:
    return value if error < NO_ALPHA else None


def _left(gram: Gram, alpha: float, gamma: float) -> float:
    """Σ(e − alpha·d − gamma·g)²; 0 where fp64 left nothing of it."""
    terms = (
        gram.ee, -2 * alpha * gram.ed, -2 * gamma * gram.eg,
        alpha * alpha * gram.dd, 2 * alpha * gamma * gram.dg, gamma * gamma * gram.gg,
    )  # fmt: skip
    left = fsum(terms)
    return left if left > _EPSILON * max(map(abs, terms)) else 0.0


def left_by(gram: Gram, alpha: float, gamma: float = 0.0) -> float:
    """Σ(e − alpha·d − gamma·g)²: what a merge with these numbers differs from this one by, squared."""
    return _left(gram, alpha, gamma)


def _ulp_along(gram: Gram, x: float, y: float) -> float:
    """Σulp²·(x·d + y·g)²."""
    if gram.ulp == inf:
        return inf
    return max(x * x * gram.ulp_dd + 2 * x * y * gram.ulp_dg + y * y * gram.ulp_gg, 0.0)


def _rounding(gram: Gram) -> float:
    """Σulp²/12: the expected square of rounding to nearest."""
    return gram.ulp / 12


def _error(gram: Gram, size: float, ulp_size: float, left: float) -> float:
    """How sure a coefficient is, ±, given the square of its direction and what the fit leaves.

    Two standard errors √(Σσ²·d²)/Σd², σ² being ulp²/12 of each element, or the residual's mean square
    where that is larger. Where rounding is as coarse as the direction is short, and so may go along with
    it, at least ‖rounding‖ / ‖d‖.
    """
    by_rest = sqrt(left / max(gram.n - gram.still - 1, 1) / size)
    if ulp_size == inf:
        return _SIGMAS * by_rest
    by_rounding = sqrt(ulp_size / 12) / size
    coarse = sqrt(_rounding(gram) / size)
    return max(_SIGMAS * max(by_rest, by_rounding), coarse if coarse > _COARSE else 0.0)
