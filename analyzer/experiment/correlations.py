"""Do the weights' statistics foretell the effect? Spearman's ρ over the columns, and a test of the best.

Knows numbers only: no models, no pictures, no files. Undefined is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from math import atanh, factorial, sqrt, tanh

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Values = Sequence[float | None]  # one a column of the grid
Floats = NDArray[np.float64]

FEWEST = 4  # columns: the standard error divides by n − 3
_FEWEST_BESIDE = (
    6  # beside another value: of five, chance looked like more in 16 % of simulations, of six in 5 %
)
LEVEL = 0.05
_ALL_ORDERS = 8  # up to so many columns every order is tried: 8! = 40,320
_DRAWN_ORDERS = 40_000
_SEED = 0
_AT_ONCE = 2000  # orders, so that memory stays small
_ALIKE = 0.9  # |ρ| of two that rank almost alike
_ROUNDING = 1e-9  # of a correlation of ranks


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's ρ of a statistic with an effect, over the columns that have both."""

    statistic: str
    effect: str
    spearman: float | None  # −1 … 1; None: fewer than 4 columns, or one of the two is constant
    low: float | None  # 95 % interval; None as well where ρ = ±1, of which the formula makes no interval
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Best:
    """The pair with the largest |ρ|, and whether that is more than the best of so many would be by chance."""

    statistic: str
    effect: str
    spearman: float  # over the columns that the test could use
    p: float  # that the largest |ρ| of all pairs is as large, if effects fell on the columns at random
    critical: float  # the |ρ| that the largest of all pairs exceeds by chance in 5 % of orders
    n: int  # columns
    pairs: int  # that were tried

    @property
    def holds(self) -> bool:
        """Whether it is more than chance."""
        return self.p < LEVEL

    @property
    def reachable(self) -> bool:
        """Whether any ρ could have been more than chance with so few columns."""
        return self.critical < 1 - _ROUNDING


def correlate(statistics: Mapping[str, Values], effects: Mapping[str, Values]) -> tuple[Correlation, ...]:
    """Each statistic against each effect, in their order; all sequences as long as there are columns."""
    return tuple(
        _correlation(statistic, effect, values, shown)
        for statistic, values in statistics.items()
        for effect, shown in effects.items()
    )


def best_predictor(
    statistics: Mapping[str, Values], effects: Mapping[str, Values], *, beyond: Values | None = None
) -> Best | None:
    """The pair with the largest |ρ|, with its p for being the largest of all; ties: the first in order.

    Of the columns those count in which every effect is defined that is defined anywhere; of the statistics
    those that are defined in all these columns. The orders in which the effects, all together, could fall on
    the columns are tried out: all of them up to 8 columns, else 40,000 drawn with a fixed seed and the order
    that was seen. The largest |ρ| over all pairs is compared in each, so p holds for the choice as well:
    Westfall & Young, Resampling-Based Multiple Testing, 1993, §2.3 (single-step max T). None below 4
    columns, or if nothing varies.

    With `beyond`, a value a column, it is told what statistics foretell beside that one: ρ is the partial
    one, of what a line through the ranks of `beyond` leaves of the others' ranks; the orders are those of
    what it leaves of the effects (Freedman & Lane, A nonstochastic interpretation of reported significance
    levels, 1983). What ranks almost as `beyond` does (|ρ| > 0.9) is not tried: the little that is left is
    chance, which at times looks like more. None below 6 columns. A constant is as none at all.
    """
    seen = {name: _floats(values) for name, values in effects.items()}
    seen = {name: values for name, values in seen.items() if np.isfinite(values).any()}
    if not seen:
        return None
    usable = np.isfinite(np.array(list(seen.values()))).all(axis=0)
    n = int(usable.sum())
    tried = {name: _floats(values)[usable] for name, values in statistics.items()}
    tried = {name: values for name, values in tried.items() if np.isfinite(values).all() and _varies(values)}
    seen = {name: values[usable] for name, values in seen.items() if _varies(values[usable])}
    if n < FEWEST or not tried or not seen:
        return None
    given = _given(beyond, usable)
    if given is not None and n < _FEWEST_BESIDE:
        return None
    x, names = _left(tried, given)
    y, shown = _left(seen, given)
    if not names or not shown:
        return None
    rho = x @ y.T
    # Ranks alike give the same ρ but for the last digit: of those the first, not the luckiest.
    place = int(np.flatnonzero(np.abs(rho).ravel() >= np.abs(rho).max() - _ROUNDING)[0])
    row, column = divmod(place, len(shown))
    largest = float(abs(rho[row, column]))
    by_chance = np.concatenate([_largest(x, y, orders, given) for orders in _orders(n)])
    return Best(
        names[row],
        shown[column],
        float(np.clip(rho[row, column], -1, 1)),
        p=float((by_chance >= largest - _ROUNDING).mean()),
        critical=min(float(np.quantile(by_chance, 1 - LEVEL, method="higher")), 1.0),
        n=n,
        pairs=rho.size,
    )


def _correlation(statistic: str, effect: str, values: Values, shown: Values) -> Correlation:
    x, y = _floats(values), _floats(shown)
    both = np.isfinite(x) & np.isfinite(y)
    x, y, n = x[both], y[both], int(both.sum())
    if n < FEWEST or not _varies(x) or not _varies(y):
        return Correlation(statistic, effect, None, None, None, n)
    rho = float(np.clip(_unit_ranks(x) @ _unit_ranks(y), -1, 1))
    low, high = _interval(rho, n)
    return Correlation(statistic, effect, rho, low, high, n)


def _interval(rho: float, n: int) -> tuple[float | None, float | None]:
    """95 %: Fisher's z with the standard error √((1 + ρ²/2) / (n − 3)).

    Bonett & Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations, 2000.
    """
    if 1 - abs(rho) < _ROUNDING:
        return None, None
    reach = float(ndtri(0.975)) * sqrt((1 + rho * rho / 2) / (n - 3))
    return tanh(atanh(rho) - reach), tanh(atanh(rho) + reach)


def _floats(values: Values) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _varies(values: Floats) -> bool:
    return len(values) > 0 and bool((values != values[0]).any())


def _unit_ranks(values: Floats) -> Floats:
    """Ranks, those alike their mean, as a vector of mean 0 and length 1: of two, the product is ρ."""
    # As scipy.stats.rankdata, whose checks of its input take longer than all the rest.
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    ranks -= ranks.mean()
    unit: Floats = ranks / np.linalg.norm(ranks)
    return unit


def _orders(n: int) -> Iterator[NDArray[np.intp]]:
    """In which orders to try n columns, (some × n) at a time; the one that was seen is among them."""
    if n <= _ALL_ORDERS:
        every = permutations(range(n))
        for _ in range(0, factorial(n), _AT_ONCE):
            yield np.array(list(islice(every, _AT_ONCE)), np.intp)
        return
    yield np.arange(n)[None]
    rng = np.random.default_rng(_SEED)
    for _ in range(0, _DRAWN_ORDERS, _AT_ONCE):
        yield rng.permuted(np.tile(np.arange(n), (_AT_ONCE, 1)), axis=1)


def _given(beyond: Values | None, usable: NDArray[np.bool_]) -> Floats | None:
    """The unit ranks of what is held fixed; None if nothing is, or what is told in some column only."""
    if beyond is None:
        return None
    values = _floats(beyond)[usable]
    return _unit_ranks(values) if np.isfinite(values).all() and _varies(values) else None


def _left(values: Mapping[str, Floats], given: Floats | None) -> tuple[Floats, list[str]]:
    """What `given` leaves of the ranks of each, as vectors of length 1, and whose they are."""
    unit = {name: _unit_ranks(own) for name, own in values.items()}
    if given is not None:
        unit = {name: own for name, own in unit.items() if abs(own @ given) <= _ALIKE}
        rest = {name: own - (own @ given) * given for name, own in unit.items()}
        unit = {name: own / np.linalg.norm(own) for name, own in rest.items()}
    return np.array(list(unit.values())), list(unit)


def _largest(x: Floats, y: Floats, orders: NDArray[np.intp], given: Floats | None) -> Floats:
    """The largest |ρ| of all pairs of rows of x and y, in each of these orders of y's columns."""
    dealt = y[:, orders]
    products = np.abs(np.einsum("sc,eoc->ose", x, dealt, optimize=True))
    if given is not None:  # what it explains of y in another order is taken out again
        left = 1 - np.einsum("c,eoc->oe", given, dealt, optimize=True) ** 2
        products /= np.sqrt(np.maximum(left, _ROUNDING))[:, None]
    found: Floats = products.max(axis=(1, 2))
    return found
