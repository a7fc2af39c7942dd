"""Spearman's ρ and the test of the best of many: against scipy, closed forms and simulation."""

from __future__ import annotations

from itertools import permutations
from math import atanh, sqrt, tanh

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

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


def test_statistics_beyond_chance_are_those_whose_own_best_is() -> None:
    """Counted out over all 5,040 orders, with the largest of all pairs in each, as for the best itself."""
    rng = np.random.default_rng(8)
    y = {"e": [1, 2, 3, 4, 5, 6, 7], "f": rng.random(7).tolist()}
    x = {"noise": rng.random(7).tolist(), "down": [7, 6, 5, 4, 3, 2, 1], "up": [1, 2, 3, 4, 5, 7, 6]}
    found = best_predictor(x, y)
    assert found is not None
    rho = {(s, e): spearmanr(x[s], y[e]).statistic for s in x for e in y}
    orders = [list(order) for order in permutations(range(7))]
    ranks = [np.argsort(np.argsort(values)) for values in (*x.values(), *y.values())]
    unit = np.array([(r - r.mean()) / np.linalg.norm(r - r.mean()) for r in ranks])
    chance = np.array([np.abs(unit[:3] @ unit[3:, order].T).max() for order in orders])
    expected = []
    for s in x:
        effect = max(y, key=lambda e: abs(rho[s, e]))
        if (chance >= abs(rho[s, effect]) - 1e-9).mean() < 0.05:
            expected.append((s, effect, pytest.approx(rho[s, effect])))
    assert ["down", "up"] == [name for name, _, _ in expected]
    assert expected == [(b.statistic, b.effect, b.spearman) for b in found.beyond]
    assert (found.statistic, found.effect, found.spearman) == ("down", "e", pytest.approx(-1))


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
