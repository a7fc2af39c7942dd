"""What surveys measure of whole tensors, in any order and cut: sums, Gram matrices, order statistics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.methods import METHODS, GramSurvey, Operands, Setting, order_statistics
from analyzer.methods.exact_sums import LIMIT, ExactSums, largest, split
from analyzer.methods.order_statistics import OrderStatistics, sizes_of

SIZES = st.floats(-1e3, 1e3) | st.floats(-1e-12, 1e-12) | st.sampled_from([0.0, 2.0**400, -(2.0**-500), 1.0])


def exact_sum(terms: np.ndarray, cuts: list[int]) -> float:
    """The sum of one column, taken run by run."""
    sums, bound = ExactSums(1), 0.0
    for start, end in pairwise([0, *sorted(min(cut, len(terms)) for cut in cuts), len(terms)]):
        run = terms[start:end]
        bound = max(bound, largest(run))
        sums.add(split(run.reshape(-1, 1).copy(), largest(run)))
    return float(sums.totals(bound)[0])


@settings(max_examples=200)
@given(st.lists(SIZES, max_size=30), st.lists(st.integers(0, 30), max_size=4), st.randoms())
def test_a_sum_does_not_depend_on_order_or_cut(terms: list[float], cuts: list[int], shuffler: Random) -> None:
    """To the bit, and to 2^-60 of the largest term for each of them beside the exact sum."""
    whole = exact_sum(np.array(terms), [])
    shuffled = list(terms)
    shuffler.shuffle(shuffled)
    assert whole == exact_sum(np.array(shuffled), cuts)
    exact = sum(map(Fraction, terms), Fraction(0))
    error = abs(Fraction(whole) - exact)
    most = max(map(abs, terms), default=0.0)
    # What is below 2^-960 is lost; the last conversion rounds once or twice to fp64.
    assert error <= len(terms) * (Fraction(most) / 2**60 + Fraction(2) ** -960) + abs(exact) / 2**52


def test_a_long_sum_carries() -> None:
    """More rows than one fp64 sum of multiples can hold are taken in parts, and carried over."""
    n = (1 << 20) + 5
    terms = np.full((n, 1), 1.0 - 2.0**-53)
    sums = ExactSums(1)
    for _ in range(3):
        sums.add(split(terms.copy(), 1.0))
    assert 3 * n * (1.0 - 2.0**-53) == pytest.approx(sums.totals(1.0)[0], rel=1e-16)


def operands(tensors: list[np.ndarray], run: slice, shape: tuple[int, ...]) -> Operands:
    a, b, base, *models = (x[run] for x in tensors)
    return Operands(a, b, base, tuple(models), "k", run.start, shape)


def test_a_gram_matrix_is_that_of_the_vectors() -> None:
    """⟨vᵢ, vⱼ⟩ of a, b − a, c − a, m − a, symmetric."""
    r = np.random.default_rng(0)
    tensors = [r.normal(size=500) for _ in "abcm"]
    survey = GramSurvey()
    state = survey.begin(Setting(0.5, (1.0,), {}, based=True), 500)
    for start in range(0, 500, 120):
        survey.observe(state, operands(tensors, slice(start, min(start + 120, 500)), (500,)), 0)
    found = survey.conclude({"k": state})["k"]
    a = tensors[0]
    rows = np.array([a, *(x - a for x in tensors[1:])])
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-12, atol=1e-10)
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize("bad", [np.nan, np.inf, LIMIT])
def test_positions_that_are_not_finite_leave_the_gram_matrix(bad: float) -> None:
    """In whichever model, and with all their products."""
    r = np.random.default_rng(0)
    tensors = [r.normal(size=60) for _ in "abc"]
    clean = [np.delete(x, 7) for x in tensors]
    tensors[1][7] = bad
    survey, found = GramSurvey(), []
    for own in (tensors, clean):
        state = survey.begin(Setting(0.5, based=True), len(own[0]))
        survey.observe(state, operands(own, slice(0, len(own[0])), (len(own[0]),)), 0)
        found.append(survey.conclude({"k": state})["k"])
    assert np.array_equal(found[0], found[1])


ODD = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, 1e300, np.nan, np.inf])


@pytest.mark.parametrize("few", [0, order_statistics._FEW])
@settings(max_examples=100)
@given(terms=st.lists(ODD, min_size=1, max_size=60), cut=st.integers(1, 20), data=st.data())
def test_order_statistics_are_those_of_a_sort(
    few: int, terms: list[float], cut: int, data: st.DataObject
) -> None:
    """By size in fp32, NaN last, for any ranks, whether they are counted or sorted."""
    with patch.object(order_statistics, "_FEW", few):
        check_order_statistics(terms, cut, data)


def check_order_statistics(terms: list[float], cut: int, data: st.DataObject) -> None:
    """Against numpy's sort."""
    b = np.array(terms)
    ranks = tuple(data.draw(st.lists(st.integers(0, len(b) - 1), min_size=1, max_size=3)))
    survey = OrderStatistics(lambda _parameters, _count: ranks)
    state = survey.begin(Setting(0.5), len(b))
    zero = np.zeros(len(b))
    with np.errstate(all="ignore"):
        for turn in range(survey.turns):
            for start in range(0, len(b), cut):
                run = slice(start, min(start + cut, len(b)))
                survey.observe(state, operands([zero, b, zero], run, b.shape), turn)
        (found,) = survey.conclude({"k": state})["k"]
        expected = np.sort(sizes_of(b))[list(ranks)]
    np.testing.assert_array_equal(np.array(found), expected)


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.survey or method.needs_gram]
)
def test_runs_may_come_from_many_threads(name: str) -> None:
    """Nothing is lost when runs of one tensor are observed at once."""
    method = METHODS[name]
    survey = GramSurvey() if method.needs_gram else method.survey
    assert survey is not None
    r = np.random.default_rng(0)
    size, piece = 1 << 16, 1 << 9
    tensors = [r.normal(size=size) for _ in "abc"]
    setting = Setting(
        0.5, (), {**{k: p.default for k, p in method.parameters.items()}, "density": 0.3}, based=True
    )
    runs = [slice(start, start + piece) for start in range(0, size, piece)]
    found = []
    for threads in (1, 8):
        state = survey.begin(setting, size)
        for turn in range(survey.turns):
            with ThreadPoolExecutor(threads) as pool:
                list(
                    pool.map(
                        lambda run, state=state, turn=turn: survey.observe(
                            state, operands(tensors, run, (size // 64, 64)), turn
                        ),
                        runs,
                    )
                )
        found.append(survey.conclude({"k": state})["k"])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "density" in method.parameters])
def test_density_1_needs_no_survey(name: str) -> None:
    """Nothing is trimmed, so nothing need be measured."""
    survey = METHODS[name].survey
    for density in (0.5, 1.0):
        wanted = survey is not None and survey.needed(Setting(0.5, parameters={"density": density}))
        assert (survey is not None and density < 1) == wanted
