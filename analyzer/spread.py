"""What a histogram of |d| says about where a change sits: its densest share. Knows no files and no keys."""

from __future__ import annotations

from typing import Any

from analyzer.arithmetic import FLOATS, AbstractArithmetic, Value

STEEPEST = 500.0  # beyond it, all of a bin lies at one edge
FLATTEST = 1e-4  # below it, the density is even; the closed forms would lose their digits
STEPS = 5  # of Newton's method; from 5 % off, each squares the error


def top_energy(histogram: Any, count: Value, *, largest: Value, m: AbstractArithmetic = FLOATS) -> Value:
    """Σd² over the `count` elements that changed most; NaN where fp64 overflowed.

    Exact but for the bin in which the count ends. There the squares are taken to have the density of
    largest entropy of all that lie between the bin's edges and have its measured mean: e^(k·d²), cut
    off at the edges and at the `largest` |d| (Jaynes, Information Theory and Statistical Mechanics, 1957).
    Of Gaussian, uniform, Laplace and Student changes that is within 1 % of what sorting finds.
    """
    cut = m.cut(histogram, count)
    high = m.where(largest * largest < cut.high, largest * largest, cut.high)
    fraction, mean = m.ratio(cut.left, cut.held), m.ratio(cut.energy, cut.held)
    return m.finite(cut.above + cut.energy * _share_of_top(fraction, mean, cut.low, high, m))


def _share_of_top(fraction: Value, mean: Value, low: Value, high: Value, m: AbstractArithmetic) -> Value:
    """The share of a bin's Σd² that its largest elements hold, given the mean of d² and its limits."""
    k = _steepness(m.ratio(mean - low, high - low), m)
    whole, slope = m.expm1(k), m.ratio(1.0, k)
    # where the largest elements begin, from 0 to 1
    begin = m.clip(m.log1p((1 - fraction) * whole) * slope, 0.0, 1.0)
    partial = m.ratio(m.exp(k) * (1 - slope) - m.exp(k * begin) * (begin - slope), whole)
    partial = m.where(abs(k) < FLATTEST, fraction - fraction * fraction / 2, partial)
    top = m.ratio(low * fraction + (high - low) * partial, mean)
    # On an edge all are equal, for as much as is known; and so they are where the search for k ended.
    inside = (low < mean) & (mean < high) & (abs(k) < STEEPEST * (1 - 1e-9))
    return m.where(inside, top, fraction)


def _steepness(mean: Value, m: AbstractArithmetic) -> Value:
    """The k for which the density e^(kt) on 0 … 1 has this mean, within ±`STEEPEST`.

    By Newton's method on mean = 1/(1 − e^−k) − 1/k, which is the Langevin function of k/2 but for shift and
    scale; it begins at that one's approximate inverse of Cohen, A Padé approximant to the inverse Langevin
    function, 1991.
    """
    x = 2 * mean - 1
    k = m.clip(m.ratio(2 * x * (3 - x * x), 1 - x * x), -STEEPEST, STEEPEST)
    for _ in range(STEPS):
        p, q = m.ratio(1.0, -m.expm1(-k)), m.ratio(1.0, k)
        flat = abs(k) < FLATTEST
        found, slope = m.where(flat, 0.5 + k / 12, p - q), m.where(flat, 1 / 12, q * q - p * (p - 1))
        k = m.clip(k - m.ratio(found - mean, slope), -STEEPEST, STEEPEST)
    return k
