"""Alphas from closed forms, against merged vectors that numpy and mpmath measure again."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analyzer.errors import RecipeError
from analyzer.guidance.matching import TARGETS, Matched, match_alpha, require_target, unmoved
from analyzer.measures import Histogram, Sums, add_sums

Vector = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def record(a: Vector, b: Vector) -> Sums:
    """The record of two vectors; every sum is rounded once, as the scan's chunks nearly are."""
    d = b - a
    return Sums(
        numel=a.size, n=a.size, numeric=a.size, changed=int((a != b).sum()), sum_a=math.fsum(a),
        sum_b=math.fsum(b), sum_aa=math.fsum(a * a), sum_bb=math.fsum(b * b), sum_dd=math.fsum(d * d),
        sum_ab=math.fsum(a * b), sum_abs_d=math.fsum(abs(d)), max_abs_d=float(abs(d).max(initial=0.0)),
        m2_a=float(a.var() * a.size), m2_b=float(b.var() * b.size),
        histogram=Histogram(128, array("q", [a.size]), array("d", [float(d @ d)])),
    )  # fmt: skip


def exact_distance(a: Vector, m: Vector) -> float:
    """1 − cos by its textbook formula, in 60 digits."""
    with mpmath.workdps(60):
        x, y = [mpmath.mpf(float(v)) for v in a], [mpmath.mpf(float(v)) for v in m]
        return float(1 - mpmath.fdot(x, y) / mpmath.sqrt(mpmath.fdot(x, x) * mpmath.fdot(y, y)))


MEASURED: dict[str, Callable[[Vector, Vector], float]] = {
    "cosine": lambda a, m: float(a @ m / np.linalg.norm(a) / np.linalg.norm(m)),
    "cosine_distance": exact_distance,
    "relative_change": lambda a, m: float(np.linalg.norm(m - a) / np.linalg.norm(a)),
    "norm_delta": lambda a, m: float(np.linalg.norm(m - a)),
    "rms_delta": lambda a, m: float(np.sqrt(np.mean((m - a) ** 2))),
    "mean_abs_delta": lambda a, m: float(np.abs(m - a).mean()),
    "max_abs_delta": lambda a, m: float(np.abs(m - a).max()),
    "norm_ratio": lambda a, m: float(np.linalg.norm(m) / np.linalg.norm(a)),
    "norm_b": lambda a, m: float(np.linalg.norm(m)),
}


def vectors(seed: int, *, change: float = 1.0, bend: float = 0.0) -> tuple[Vector, Vector]:
    """Two random vectors; `bend` of the change lies along A."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(50) * 3
    return a, a + change * (rng.standard_normal(50) + bend * a)


def merged(a: Vector, b: Vector, alpha: float) -> Vector:
    """The weighted sum in numpy."""
    return a + alpha * (b - a)


def found(a: Vector, b: Vector, statistic: str, value: float) -> Matched:
    """What is found for two vectors, for which the statistic is defined."""
    match = match_alpha(record(a, b), statistic, value)
    assert match is not None
    return match


def test_every_target_is_measured_here() -> None:
    """The oracle knows all statistics that can be aimed at."""
    assert MEASURED.keys() == TARGETS.keys()


@given(
    seed=SEEDS,
    statistic=st.sampled_from(sorted(TARGETS)),
    part=st.floats(0.001, 1.0),
    change=st.floats(1e-3, 3.0),
    bend=st.floats(-2.0, 2.0),
)
def test_the_merged_vector_has_what_was_wanted(
    seed: int, statistic: str, part: float, change: float, bend: float
) -> None:
    """A value that the line from A to B passes at some alpha is met, at that alpha or an earlier one."""
    a, b = vectors(seed, change=change, bend=bend)
    value = MEASURED[statistic](a, merged(a, b, part))
    match = found(a, b, statistic, value)
    assert match.reached
    digits = 1e-2 if statistic == "cosine" else 1e-6  # 1 − 1e-12 has four digits left of its distance
    assert 0 <= match.alpha <= part * (1 + digits)
    assert value == pytest.approx(MEASURED[statistic](a, merged(a, b, match.alpha)), rel=1e-9)


@given(
    seed=SEEDS,
    statistic=st.sampled_from(["norm_ratio", "norm_b"]),
    part=st.floats(0.0, 1.0),
    bend=st.floats(-2.0, 0.0),
)
def test_of_two_solutions_it_is_the_smaller_one(seed: int, statistic: str, part: float, bend: float) -> None:
    """The length of M falls before it grows: no alpha below the one that is found has the value."""
    a, b = vectors(seed, bend=bend)
    value = MEASURED[statistic](a, merged(a, b, part))
    match = found(a, b, statistic, value)
    before = np.linspace(0, match.alpha, 50)[:-1]
    lengths = np.array([MEASURED[statistic](a, merged(a, b, alpha)) for alpha in before])
    assert ((lengths > value * (1 - 1e-9)).all() or (lengths < value * (1 + 1e-9)).all()) or len(before) == 0


@pytest.mark.parametrize("target", [1e-12, 1e-9, 1e-7, 1e-5, 0.02, 0.5])
@pytest.mark.parametrize("change", [1e-4, 1.0, 100.0])
def test_a_tiny_cosine_distance_keeps_its_digits(target: float, change: float) -> None:
    """A cosine distance of 1e-12 is met to 1e-6 of itself, far below the last digit of a cosine."""
    a, b = vectors(7, change=change)
    match = found(a, b, "cosine_distance", target)
    if match.reached:
        with mpmath.workdps(60):
            x = [mpmath.mpf(v) for v in a]
            alpha = mpmath.mpf(match.alpha)
            m = [v + alpha * (mpmath.mpf(w) - v) for v, w in zip(x, b, strict=True)]
            distance = 1 - mpmath.fdot(x, m) / mpmath.sqrt(mpmath.fdot(x, x) * mpmath.fdot(m, m))
        assert target == pytest.approx(float(distance), rel=1e-6)
    else:
        assert exact_distance(a, b) < target


@given(seed=SEEDS, change=st.floats(1e-6, 10.0), share=st.floats(0.01, 1.0))
def test_a_cosine_distance_that_b_has_is_met(seed: int, change: float, share: float) -> None:
    """Any share of B's own cosine distance has a solution that is right to 1e-6."""
    a, b = vectors(seed, change=change)
    value = share * exact_distance(a, b)
    match = found(a, b, "cosine_distance", value)
    assert match.reached
    assert value == pytest.approx(exact_distance(a, merged(a, b, match.alpha)), rel=1e-6)


@pytest.mark.parametrize("statistic", sorted(set(TARGETS) - {"cosine", "norm_ratio", "norm_b"}))
def test_more_than_b_has_takes_all_of_b(statistic: str) -> None:
    """Where even B differs less from A than is wanted, alpha is 1, and the value is B's."""
    a, b = vectors(3, change=0.1)
    at_b = MEASURED[statistic](a, b)
    match = found(a, b, statistic, min(at_b * 1.5, 2.0))
    assert (1.0, False) == (match.alpha, match.reached)
    assert at_b == pytest.approx(match.value, rel=1e-9)


def test_a_cosine_below_that_of_b_takes_all_of_b() -> None:
    """A cosine falls with alpha: 0.5 is not reached where B has 0.99."""
    a, b = vectors(3, change=0.1)
    assert (1.0, False) == (found(a, b, "cosine", 0.5).alpha, found(a, b, "cosine", 0.5).reached)


@pytest.mark.parametrize("statistic", sorted(TARGETS))
def test_what_b_has_itself_is_reached_at_one(statistic: str) -> None:
    """B's own value gives alpha 1, and counts as reached although sums round."""
    a, b = vectors(5, bend=0.5)  # longer than A, so that the length grows all the way
    match = found(a, b, statistic, MEASURED[statistic](a, b))
    assert match.reached
    assert 1.0 == pytest.approx(match.alpha, rel=1e-12)
    assert match.alpha <= 1


@pytest.mark.parametrize("statistic", ["cosine_distance", "relative_change", "norm_delta", "max_abs_delta"])
def test_no_difference_wanted_is_alpha_zero(statistic: str) -> None:
    """A itself has 0, at alpha 0."""
    a, b = vectors(5)
    assert Matched(0.0, 0.0, reached=True) == found(a, b, statistic, 0.0)


def test_the_length_of_a_is_reached_at_zero() -> None:
    """Of the two places where M is as long as A, A itself comes first."""
    a, b = vectors(5, bend=-1.0)
    assert Matched(0.0, 1.0, reached=True) == found(a, b, "norm_ratio", 1.0)


def test_a_length_below_all_takes_the_shortest() -> None:
    """A length that no M has gives the alpha at which M is shortest."""
    a, b = vectors(5, bend=-1.0)
    match = found(a, b, "norm_ratio", 1e-3)
    grid = np.linspace(0, 1, 100_001)
    lengths = [float(np.linalg.norm(merged(a, b, alpha)) / np.linalg.norm(a)) for alpha in grid[::100]]
    assert grid[::100][int(np.argmin(lengths))] == pytest.approx(match.alpha, abs=1e-3)
    assert min(lengths) == pytest.approx(match.value, rel=1e-4)
    assert not match.reached


def test_a_length_above_all_takes_the_longer_end() -> None:
    """A length beyond both ends gives the end that comes nearer: A, where B is shorter."""
    a, _ = vectors(5)
    assert 0.0 == found(a, 0.5 * a, "norm_ratio", 2.0).alpha
    assert 1.0 == found(a, 1.5 * a, "norm_ratio", 2.0).alpha


@pytest.mark.parametrize("statistic", sorted(TARGETS))
def test_equal_vectors_take_all_of_b(statistic: str) -> None:
    """Without a change there is nothing to hold back: alpha 1, as with a budget."""
    a, _ = vectors(1)
    assert 1.0 == found(a, a, statistic, 0.25).alpha


@pytest.mark.parametrize("statistic", ["cosine", "cosine_distance", "relative_change", "norm_ratio"])
def test_a_zero_vector_has_no_such_statistic(statistic: str) -> None:
    """Nothing can be measured against a zero norm."""
    _, b = vectors(1)
    assert match_alpha(record(np.zeros(50), b), statistic, 0.5) is None


def test_no_elements_have_no_alpha() -> None:
    """An empty record is undefined, whatever is wanted."""
    assert [None] * len(TARGETS) == [match_alpha(Sums(), statistic, 0.5) for statistic in TARGETS]


def test_sums_beyond_fp64_have_no_alpha() -> None:
    """Squares that overflow say nothing."""
    broken = Sums(numel=1, n=1, numeric=1, sum_aa=math.inf, sum_bb=1.0, sum_dd=math.inf, sum_abs_d=1.0)
    assert [None] * len(TARGETS) == [match_alpha(broken, statistic, 0.5) for statistic in TARGETS]


@pytest.mark.parametrize(("statistic", "value"), [("norm_b", 0.3), ("norm_delta", 0.3)])
def test_lengths_are_met_from_a_zero_vector(statistic: str, value: float) -> None:
    """What is no ratio to A needs no A."""
    _, b = vectors(1)
    b = b / np.linalg.norm(b)
    assert value == pytest.approx(found(np.zeros(50), b, statistic, value).alpha, rel=1e-12)


def test_the_way_to_a_zero_vector_only_gets_shorter() -> None:
    """Towards B = 0 the norm falls in proportion, and the cosine is undefined."""
    a, _ = vectors(1)
    nothing = np.zeros_like(a)
    assert 0.25 == pytest.approx(found(a, nothing, "norm_ratio", 0.75).alpha, rel=1e-12)
    assert match_alpha(record(a, nothing), "cosine", 0.98) is None


def test_the_opposite_of_a_is_not_walked_to() -> None:
    """Towards −A/2 the cosine jumps from 1 to −1 and is 0.98 nowhere: A comes nearer to it."""
    a, _ = vectors(1)
    match = found(a, -0.5 * a, "cosine", 0.98)
    assert Matched(0.0, 1.0, reached=False) == match


def test_a_mere_rescaling_has_no_angle() -> None:
    """Where B is a multiple of A, no alpha turns anything, and all of B is taken."""
    a, _ = vectors(1)
    match = found(a, 2.0 * a, "cosine", 0.98)
    assert (1.0, False) == (match.alpha, match.reached)


@given(seed=SEEDS, scale=st.sampled_from([1e-60, 1e-30, 1.0, 1e30, 1e60]))
def test_the_unit_of_the_weights_does_not_matter(seed: int, scale: float) -> None:
    """Weights near 1e±60, whose fourth powers leave fp64, give the alphas of weights near 1."""
    a, b = vectors(seed)
    assume(found(a, b, "norm_ratio", 1.1).reached)
    for statistic in ("cosine", "relative_change", "norm_ratio"):
        value = {"cosine": 0.99, "relative_change": 0.1, "norm_ratio": 1.01}[statistic]
        here = found(a * scale, b * scale, statistic, value)
        assert found(a, b, statistic, value).alpha == pytest.approx(here.alpha, rel=1e-6)


@given(
    sums=st.tuples(*[st.one_of(st.just(0.0), st.floats(0.0), st.floats(1e-300, 1e300))] * 3),
    sizes=st.tuples(*[st.floats(0.0, 1e300)] * 2),
    statistic=st.sampled_from(sorted(TARGETS)),
    value=st.floats(0.0, 2.0),
)
def test_sums_that_no_vectors_have_do_no_harm(
    sums: tuple[float, float, float], sizes: tuple[float, float], statistic: str, value: float
) -> None:
    """A scan file that was tampered with gives an alpha in 0 … 1 or none, and no traceback."""
    aa, bb, dd = sums
    total, largest = sizes
    broken = Sums(
        numel=4, n=4, numeric=4, sum_aa=aa, sum_bb=bb, sum_dd=dd, sum_abs_d=total, max_abs_d=largest
    )
    match = match_alpha(broken, statistic, min(value, TARGETS[statistic].high))
    assert match is None or (0 <= match.alpha <= 1 and math.isfinite(match.value))


def test_an_unmoved_part_counts_as_it_stands() -> None:
    """A group of which a part stays is met by moving the other part."""
    (a1, b1), (a2, b2) = vectors(1), vectors(2)
    sums = add_sums([record(a1, b1), unmoved(record(a2, b2))])
    match = match_alpha(sums, "cosine", 0.99)
    assert match is not None
    assert match.reached
    a, m = np.concatenate([a1, a2]), np.concatenate([merged(a1, b1, match.alpha), a2])
    assert 0.99 == pytest.approx(MEASURED["cosine"](a, m), rel=1e-9)


def test_an_unmoved_record_is_that_of_a_with_itself() -> None:
    """Every sum of B becomes A's, and no change is left."""
    a, b = vectors(1)
    kept, same = unmoved(record(a, b)), record(a, a)
    assert (same.sum_aa, same.sum_bb, same.sum_dd, same.sum_ab, same.sum_b, same.m2_b, same.changed) == (
        kept.sum_aa, kept.sum_bb, kept.sum_dd, kept.sum_ab, kept.sum_b, kept.m2_b, kept.changed
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        ("cosine", 1.01),
        ("cosine", -1.5),
        ("cosine_distance", -0.1),
        ("cosine_distance", 2.1),
        ("relative_change", -0.1),
        ("norm_ratio", math.inf),
        ("norm_delta", math.nan),
    ],
)
def test_a_value_that_nothing_has_is_refused(statistic: str, value: float) -> None:
    """A cosine of 1.01 or a negative change is a mistake, and the message gives the limits."""
    with pytest.raises(RecipeError, match=f"--match {statistic}=.*the value must be a number"):
        require_target(statistic, value)


@pytest.mark.parametrize("statistic", ["stable_rank", "task_cosine", "energy_share", "cosin"])
def test_a_statistic_without_closed_form_is_refused_with_the_list(statistic: str) -> None:
    """What cannot be solved for alpha is refused by name, and what can is listed."""
    with pytest.raises(RecipeError, match=f"--match {statistic}: .*choose one of cosine, cosine_distance"):
        require_target(statistic, 0.5)
