"""Spearman's ρ and the test of the best of many: against scipy, closed forms and simulation."""

from __future__ import annotations

from itertools import permutations
from math import atanh, sqrt, tanh

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from analyzer.experiment.correlations import best_predictor, correlate

examples = settings(max_examples=60)
samples = st.lists(st.integers(-5, 5), min_size=8, max_size=8).filter(lambda values: len(set(values)) > 1)


@examples
@given(samples, samples)
def test_spearman_is_scipys(x: list[int], y: list[int]) -> None:
    """With ties, of which these have many."""
    (found,) = correlate({"s": x}, {"e": y})
    assert ("s", "e", 8) == (found.statistic, found.effect, found.n)
    assert found.spearman == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_every_statistic_meets_every_effect_in_order() -> None:
    found = correlate({"s": [1, 2], "t": [1, 2]}, {"e": [1, 2], "f": [1, 2]})
    assert [("s", "e"), ("s", "f"), ("t", "e"), ("t", "f")] == [(c.statistic, c.effect) for c in found]


def test_the_interval_is_fishers_with_the_error_of_bonett_and_wright() -> None:
    x, y = range(10), [2, 1, 4, 3, 6, 5, 8, 7, 10, 9]
    (found,) = correlate({"s": x}, {"e": y})
    rho = 1 - 6 * 10 / (10 * 99)  # ten differences of 1
    reach = 1.959963984540054 * sqrt((1 + rho**2 / 2) / 7)
    assert found.spearman == pytest.approx(rho)
    assert found.low == pytest.approx(tanh(atanh(rho) - reach))
    assert found.high == pytest.approx(tanh(atanh(rho) + reach))


@examples
@given(samples, samples)
def test_the_interval_holds_rho_and_stays_within_its_range(x: list[int], y: list[int]) -> None:
    (found,) = correlate({"s": x}, {"e": y})
    assert found.spearman is not None
    if found.low is None or found.high is None:
        assert abs(found.spearman) == pytest.approx(1)
    else:
        assert -1 <= found.low < found.spearman < found.high <= 1


def test_the_interval_covers_the_truth_in_about_95_percent() -> None:
    """Normal pairs of correlation r have Spearman's ρ = 6/π · arcsin(r/2) (Pearson 1907)."""
    r, n, often = 0.6, 12, 400
    rng = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(r / 2)
    x = rng.standard_normal((often, n))
    y = r * x + sqrt(1 - r * r) * rng.standard_normal((often, n))
    found = [correlate({"s": list(u)}, {"e": list(v)})[0] for u, v in zip(x, y, strict=True)]
    covered = np.mean([c.low is not None and c.high is not None and c.low <= truth <= c.high for c in found])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize(
    ("x", "n"),
    [
        ([1, 2, 3], 3),
        ([1, 2, 3, None], 3),
        ([1, 2, 3, float("nan")], 3),
        ([7, 7, 7, 7], 4),
        ([], 0),
    ],
)
def test_few_or_constant_columns_have_no_correlation(x: list[float | None], n: int) -> None:
    (found,) = correlate({"s": x}, {"e": list(range(len(x)))})
    assert (None, None, None, n) == (found.spearman, found.low, found.high, found.n)
    assert None is best_predictor({"s": x}, {"e": list(range(len(x)))})


def test_undefined_columns_are_left_out_in_pairs() -> None:
    (found,) = correlate({"s": [1, None, 2, 3, 4, 9]}, {"e": [5, 0, 6, 8, 7, None]})
    assert 4 == found.n
    assert found.spearman == pytest.approx(spearmanr([1, 2, 3, 4], [5, 6, 8, 7]).statistic)


def test_p_is_the_share_of_all_orders_with_as_large_a_best() -> None:
    """By hand: every order of the columns, scipy's ρ of every pair, the largest of each order."""
    statistics = {"s": [3.0, 1, 4, 1, 5], "t": [2.0, 7, 1, 8, 3]}
    effects = {"e": [1.0, 0, 2, 5, 4], "f": [0.5, 0, 0.25, 1, 1]}
    found = best_predictor(statistics, effects)
    assert found is not None

    def largest(order: tuple[int, ...]) -> float:
        return max(
            abs(spearmanr(values, [shown[i] for i in order]).statistic)
            for values in statistics.values()
            for shown in effects.values()
        )

    by_chance = [largest(order) for order in permutations(range(5))]
    seen = largest((0, 1, 2, 3, 4))
    assert abs(found.spearman) == pytest.approx(seen)
    assert found.p == pytest.approx(np.mean(np.array(by_chance) >= seen - 1e-9))
    assert (5, 4) == (found.n, found.pairs)
    assert np.mean(np.array(by_chance) > found.critical + 1e-9) <= 0.05


def test_a_perfect_predictor_among_noise_is_found() -> None:
    """Of 8 columns and few statistics; its sign is told."""
    rng = np.random.default_rng(2)
    effect = rng.standard_normal(8)
    noise = {f"noise {i}": list(rng.standard_normal(8)) for i in range(4)}
    found = best_predictor({**noise, "good": list(-(effect**3))}, {"moved": list(effect)})
    assert found is not None
    assert found.holds
    assert ("good", "moved") == (found.statistic, found.effect)
    assert found.spearman == pytest.approx(-1)
    assert 1 / 40320 <= found.p <= 0.01


def test_beside_another_value_rho_is_partial_and_p_of_all_orders_of_what_is_left() -> None:
    """Least squares on the ranks, with ties, and every order of the residuals refitted, by the book."""
    given = [1, 2, 2, 4, 5, 6]
    x = {"s": [2, 1, 4, 3, 6, 5], "t": [6, 1, 1, 3, 2, 5]}
    y = {"e": [1, 3, 2, 6, 4, 5], "f": [3, 3, 1, 2, 6, 5]}
    z = np.c_[np.ones(6), rankdata(given)]

    def residuals(values: np.ndarray) -> np.ndarray:
        return values - z @ np.linalg.lstsq(z, values, rcond=None)[0]

    def partial(s: list[int], e: np.ndarray) -> float:
        left = residuals(rankdata(s)), residuals(e)
        return float(np.corrcoef(*left)[0, 1])

    def largest(order: tuple[int, ...]) -> float:
        refitted = [residuals(rankdata(e))[list(order)] for e in y.values()]
        return max(abs(partial(s, e)) for s in x.values() for e in refitted)

    seen = {(s, e): partial(x[s], rankdata(y[e])) for s in x for e in y}
    chance = np.array([largest(order) for order in permutations(range(6))])
    place = max(seen, key=lambda pair: abs(seen[pair]))
    found = best_predictor(x, y, beyond=given)
    assert found is not None
    assert place == (found.statistic, found.effect)
    assert seen[place] == pytest.approx(found.spearman)
    assert (chance >= abs(seen[place]) - 1e-9).mean() == pytest.approx(found.p)
    assert np.quantile(chance, 0.95, method="higher") == pytest.approx(found.critical)


def test_beside_its_like_a_statistic_tells_nothing_and_a_constant_changes_nothing() -> None:
    """What ranks almost as the size does is left out; an effect that does so leaves nothing to tell."""
    x, y = {"s": [1, 2, 3, 4, 5, 6]}, {"e": [2, 1, 4, 3, 6, 5]}
    assert None is best_predictor(x, y, beyond=[2, 1, 3, 4, 5, 6])  # ρ = 0.94 with the statistic
    assert None is best_predictor(x, y, beyond=[1, 2, 4, 3, 6, 5])  # and with the effect
    assert best_predictor(x, y, beyond=[3, 1, 2, 5, 4, 6]) is not None
    assert best_predictor(x, y) == best_predictor(x, y, beyond=[7] * 6)
    five = [3, 1, 2, 5, 4]
    assert None is best_predictor({"s": [1, 2, 3, 4, 5]}, {"e": [2, 1, 4, 3, 5]}, beyond=five)  # too few


@pytest.mark.parametrize(
    ("n", "of_statistics", "of_effect"), [(6, 0.5, 0.5), (7, 0.3, 0.5), (7, 0.5, 0.5), (7, 1.0, 1.0)]
)
def test_beside_a_size_the_test_keeps_its_level(n: int, of_statistics: float, of_effect: float) -> None:
    """Of statistics and effects that follow a size, but for noise, about one in 20 seems to tell more."""
    rng = np.random.default_rng(3)
    often, told = 200, 0
    for _ in range(often):
        size = rng.standard_normal(n)
        x = {f"s{i}": (size + of_statistics * rng.standard_normal(n)).tolist() for i in range(3)}
        y = {"e": (size + of_effect * rng.standard_normal(n)).tolist()}
        found = best_predictor(x, y, beyond=size.tolist())
        told += found is not None and found.holds
    assert told / often < 0.1


def test_of_statistics_that_rank_alike_the_first_is_named() -> None:
    x = [3.0, 1, 4, 1.5, 5, 9]
    found = best_predictor({"square": [v * v for v in x], "plain": x, "root": [v**0.5 for v in x]}, {"e": x})
    assert found is not None
    assert "square" == found.statistic


def test_four_columns_can_prove_nothing() -> None:
    """Of 24 orders two have |ρ| = 1, so even a perfect order has p = 1/12."""
    found = best_predictor({"s": [1, 2, 3, 4]}, {"e": [1, 2, 3, 4]})
    assert found is not None
    assert found.p == pytest.approx(2 / 24)
    assert not found.holds
    assert not found.reachable


@pytest.mark.parametrize(("columns", "experiments", "most"), [(7, 60, 8), (12, 20, 4)])
def test_the_test_keeps_its_level(columns: int, experiments: int, most: int) -> None:
    """Where nothing foretells anything, one experiment in twenty at most names a best predictor.

    The statistics and the effects are correlated among themselves, as the real ones are; both where all
    orders are tried and where they are drawn. More than so many have a probability below 0.5 %.
    """
    rng = np.random.default_rng(columns)
    named = 0
    for _ in range(experiments):
        common, shared = rng.standard_normal((2, columns))
        x = {f"s{i}": list(common + rng.standard_normal(columns)) for i in range(4)}
        y = {f"e{i}": list(shared + 0.5 * rng.standard_normal(columns)) for i in range(2)}
        found = best_predictor(x, y)
        assert found is not None
        named += found.holds
    assert named <= most


def test_columns_without_every_effect_and_statistics_without_every_column_are_left_out() -> None:
    """Effects that no column has do not count: a probe has no pixels."""
    effects = {"moved": [1, 2, 3, None, 5, 6], "pixels": [None] * 6}
    statistics = {"gap": [None, 1, 2, 3, 4, 5], "whole": [1, 2, 3, None, 5, 6], "flat": [1] * 6}
    found = best_predictor(statistics, effects)
    assert found is not None
    assert ("whole", "moved", 5, 1) == (found.statistic, found.effect, found.n, found.pairs)


def test_the_same_numbers_give_the_same_p() -> None:
    """Though orders are drawn: the seed is fixed."""
    rng = np.random.default_rng(4)
    x, y = {"s": list(rng.standard_normal(11))}, {"e": list(rng.standard_normal(11))}
    assert best_predictor(x, y) == best_predictor(x, y)
