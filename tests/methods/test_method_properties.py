"""What must hold of merge methods whatever the numbers: cuts, identities, the share that DARE drops."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.methods import METHODS

Merge = Callable[..., np.ndarray]
MergeModel = Callable[..., dict[str, np.ndarray]]

SOME = {"density": 0.4, "gamma": 0.1, "seed": 3.0, "dot_threshold": 1.0}
VALUES = st.floats(-4, 4, width=16) | st.sampled_from([0.0, -0.0, 1.0, 1e-30, 1e30, np.inf, -np.inf, np.nan])


def own(name: str, **values: float) -> dict[str, float]:
    """Those of the values that the method has."""
    return {key: value for key, value in (SOME | values).items() if key in METHODS[name].parameters}


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_cut_and_order_gives_the_same_bytes(
    merge_model: MergeModel, name: str, data: st.DataObject
) -> None:
    """However a tensor is cut into runs, and in whatever order they come, NaN and Inf included."""
    method = METHODS[name]
    further = 2 if method.models != "no" else 0
    shapes = [(7, 5), (11,)]
    elements = data.draw(st.lists(VALUES, min_size=8, max_size=8))
    r = np.random.default_rng(data.draw(st.integers(0, 99)))
    tensors = {
        str(i): [r.choice(elements, s) * r.choice([1, 0.1], s) for _ in range(2 + further)]
        for i, s in enumerate(shapes)
    }
    bases = {str(i): r.choice(elements, shape) for i, shape in enumerate(shapes)}
    based = method.base == "must" or (method.base == "may" and data.draw(st.booleans()))
    options = {
        "bases": bases if based else None,
        "alpha": data.draw(st.sampled_from([0.3, 1.0, -0.5])),
        "weights": (0.5, 0.25)[:further],
        "parameters": own(name, normalize=data.draw(st.sampled_from([0.0, 1.0]))),
    }
    whole = merge_model(name, tensors, **options)
    cuts = data.draw(st.lists(st.integers(1, 13), min_size=1, max_size=4))
    pieces = merge_model(name, tensors, **options, cuts=cuts, order=data.draw(st.integers(0, 9)))
    for key in tensors:
        np.testing.assert_array_equal(whole[key], pieces[key])
        assert np.array_equal(np.signbit(whole[key]), np.signbit(pieces[key])) or np.isnan(whole[key]).any()


def pair(seed: int = 1, shape: tuple[int, ...] = (16, 9)) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(seed)
    a = r.normal(size=shape)
    return a, a + 0.1 * r.normal(size=shape)


@pytest.mark.parametrize(
    "name", ["ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "task_arithmetic"]
)
def test_one_whole_task_is_a_weighted_sum(merge_tensor: Merge, name: str) -> None:
    """At density 1, without a base and with one B, to the bit."""
    a, b = pair()
    expected = merge_tensor("weighted_sum", a, b, alpha=0.3)
    assert np.array_equal(expected, merge_tensor(name, a, b, alpha=0.3))


def test_add_difference_from_a_is_a_weighted_sum(merge_tensor: Merge) -> None:
    """What B learned since A, added to A."""
    a, b = pair()
    expected = merge_tensor("weighted_sum", a, b, alpha=0.3)
    np.testing.assert_allclose(
        merge_tensor("add_difference", a, b, base=a.copy(), alpha=0.3), expected, rtol=1e-14
    )


def test_add_difference_of_equal_models_is_a(merge_tensor: Merge) -> None:
    """Where B and C agree A stays to the bit, however large they are."""
    a, b = pair()
    b[0] = 1e30
    b[1] = np.inf
    assert np.array_equal(a, merge_tensor("add_difference", a, b, base=b.copy(), alpha=0.3))
    assert np.array_equal(a, merge_tensor("train_difference", a, b, base=b.copy(), alpha=0.3))


def test_task_arithmetic_of_models_at_the_base_is_a(merge_tensor: Merge) -> None:
    """Nothing large cancels where only A moved away from the base."""
    a, c = pair()
    c *= 1e12
    result = merge_tensor(
        "task_arithmetic", a, c, c, c, base=c, alpha=0.3, weights=(0.1, 0.7), parameters={"lambda": 1}
    )
    assert np.array_equal(a, result)


@pytest.mark.parametrize("name", ["triple_sum", "sum_twice"])
def test_a_third_model_of_weight_0_is_not_there(merge_tensor: Merge, name: str) -> None:
    """Beta 0 leaves the weighted sum of A and B."""
    a, b = pair()
    expected = merge_tensor("weighted_sum", a, b, alpha=0.3)
    assert np.array_equal(expected, merge_tensor(name, a, b, a * 7, alpha=0.3, weights=(0.0,)))


def test_slerp_at_its_ends_is_one_of_the_models(merge_tensor: Merge) -> None:
    """Alpha 0 gives A, alpha 1 gives B."""
    r = np.random.default_rng(4)
    a, b = r.normal(size=(2, 30))
    np.testing.assert_allclose(merge_tensor("slerp", a, b, alpha=0.0), a, rtol=1e-14)
    np.testing.assert_allclose(merge_tensor("slerp", a, b, alpha=1.0), b, rtol=1e-12, atol=1e-14)


def test_slerp_keeps_the_length_on_the_way(merge_tensor: Merge) -> None:
    """Between two tensors of one length lie tensors of that length."""
    r = np.random.default_rng(4)
    a, b = r.normal(size=(2, 30))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    for alpha in (0.1, 0.5, 0.8):
        length = np.linalg.norm(merge_tensor("slerp", a, b, alpha=alpha))
        assert np.linalg.norm(a) == pytest.approx(length, rel=1e-13)


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, -3.0, 0.0])
@pytest.mark.parametrize("threshold", [0.9995, 1.0])
def test_slerp_of_parallel_tensors_is_a_straight_line(
    merge_tensor: Merge, factor: float, threshold: float
) -> None:
    """Parallel, opposite, and where one has no direction at all."""
    a, _ = pair()
    result = merge_tensor("slerp", a, factor * a, alpha=0.3, parameters={"dot_threshold": threshold})
    np.testing.assert_allclose(result, (0.7 + 0.3 * factor) * a, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 0.02, 0.04, 1.0, 3.1])
def test_slerp_turns_by_the_angle_however_small(merge_tensor: Merge, angle: float) -> None:
    """Below 0.0316, where |cos| is over 0.9995, on a straight line unless the threshold is raised."""
    r = np.random.default_rng(4)
    a = np.linalg.qr(r.normal(size=(40, 2)))[0].T
    b = np.cos(angle) * a[0] + np.sin(angle) * a[1]
    turned = merge_tensor("slerp", a[0], b, alpha=0.25, parameters={"dot_threshold": 1.0})
    np.testing.assert_allclose(
        turned, np.cos(angle / 4) * a[0] + np.sin(angle / 4) * a[1], rtol=1e-9, atol=1e-12
    )
    line = abs(np.cos(angle)) > 0.9995
    result = merge_tensor("slerp", a[0], b, alpha=0.25)
    np.testing.assert_allclose(result, 0.75 * a[0] + 0.25 * b if line else turned, rtol=1e-12, atol=1e-15)


def test_model_stock_of_equal_fine_tunes_is_the_fine_tune(merge_tensor: Merge) -> None:
    """Tasks that agree leave nothing to average away; alpha 0.5 goes half the way from A."""
    a, b = pair()
    np.testing.assert_allclose(merge_tensor("model_stock", a, b, b, alpha=1.0, weights=(1.0,)), b, rtol=1e-12)
    half = merge_tensor("model_stock", a, b, b, alpha=0.5, weights=(1.0,))
    np.testing.assert_allclose(half, (a + b) / 2, rtol=1e-12)


def test_model_stock_of_opposing_fine_tunes_is_the_base(merge_tensor: Merge) -> None:
    """1 + cos θ = 0 has no stock; mergekit keeps the base, and so does this."""
    a, b = pair()
    result = merge_tensor("model_stock", a, b, 2 * a - b, alpha=1.0, weights=(1.0,))
    np.testing.assert_allclose(result, a, rtol=1e-12)


def test_a_task_of_zeros_has_a_cosine_of_0(merge_tensor: Merge) -> None:
    """A fine-tune that left a tensor alone pulls its stock all the way to the base."""
    a, b = pair()
    assert np.array_equal(a, merge_tensor("model_stock", a, b, a.copy(), alpha=1.0, weights=(1.0,)))


def test_train_difference_stays_where_a_is_b(merge_tensor: Merge) -> None:
    """A that already has what B learned takes nothing more."""
    a, c = pair()
    assert np.array_equal(a, merge_tensor("train_difference", a, a.copy(), base=c, alpha=1.0))


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_drops_its_share(merge_tensor: Merge, density: float) -> None:
    """Within four standard deviations of 1 − density."""
    n = 40_000
    result = merge_tensor("dare_linear", np.zeros(n), np.ones(n), alpha=1.0, parameters={"density": density})
    assert set(np.unique(result)) == {0.0, 1 / density}
    dropped = np.mean(result == 0)
    assert abs(dropped - (1 - density)) < 4 * sqrt(density * (1 - density) / n)


def test_dare_expects_the_task(merge_tensor: Merge) -> None:
    """The mean over seeds comes to the whole task, as what is kept is scaled up."""
    a, b = pair(shape=(50,))
    density, seeds = 0.5, 400
    mean = np.mean(
        [
            merge_tensor("dare_linear", a, b, alpha=1.0, parameters={"density": density, "seed": seed})
            for seed in range(seeds)
        ],
        axis=0,
    )
    deviation = np.abs(b - a) * sqrt((1 - density) / density / seeds)
    assert (np.abs(mean - b) < 4.5 * deviation).all()


def test_dare_draws_anew_for_every_key_model_and_seed(merge_model: MergeModel) -> None:
    """Two of one kind agree on about half of their elements, no more; the same draws the same."""
    zero, one = np.zeros(4000), np.ones(4000)

    def mask(key: str = "k", seed: int = 0, second: bool = False) -> np.ndarray:
        tensors = [zero, zero, one] if second else [zero, one, zero]
        options = {"density": 0.5, "seed": seed}
        return (
            merge_model("dare_linear", {key: tensors}, alpha=1.0, weights=(1.0,), parameters=options)[key] > 0
        )

    assert np.array_equal(mask(), mask())
    for other in (mask("l"), mask(seed=1), mask(second=True)):
        assert 0.45 < np.mean(mask() == other) < 0.55


def test_density_0_leaves_the_base(merge_tensor: Merge) -> None:
    """Nothing of any task is kept, and nothing is divided by zero."""
    a, b = pair()
    for name in ("ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties"):
        assert np.array_equal(a, merge_tensor(name, a, b, alpha=0.5, parameters={"density": 0.0}))


def test_all_sizes_that_equal_the_smallest_stay(merge_tensor: Merge) -> None:
    """Where the density cuts through equal sizes, none is picked: all of them stay."""
    b = np.array([1.0, -2.0, 2.0, 2.0, 3.0])
    result = merge_tensor("ties", np.zeros(5), b, alpha=1.0, parameters={"density": 0.4})
    assert [0.0, -2.0, 2.0, 2.0, 3.0] == result.tolist()
    result = merge_tensor("breadcrumbs", np.zeros(5), b, alpha=1.0, parameters={"density": 0.2, "gamma": 0.2})
    assert [0.0, -2.0, 2.0, 2.0, 0.0] == result.tolist()


@pytest.mark.parametrize("name", ["ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties"])
def test_what_is_not_finite_is_never_trimmed_away(merge_tensor: Merge, name: str) -> None:
    """NaN and Inf of one model come out as NaN or Inf, whatever is kept of the rest."""
    a, b = pair(shape=(40,))
    b[[3, 7]] = np.nan, np.inf
    result = merge_tensor(name, a, b, alpha=0.5, parameters=own(name, density=0.2))
    assert [3, 7] == np.flatnonzero(~np.isfinite(result)).tolist()


def test_signed_zeros_that_all_share_stay(merge_tensor: Merge) -> None:
    """−0 in every model comes out as −0."""
    zero = np.array([-0.0, 0.0])
    for name, method in METHODS.items():
        if name in ("slerp", "cosine_adaptive_a", "cosine_adaptive_b"):
            continue
        further = [zero] if method.models != "no" else []
        base = zero if method.base == "must" else None
        result = merge_tensor(name, zero, zero, *further, base=base, alpha=0.5, weights=(0.5,) * len(further))
        assert [True, False] == np.signbit(result).tolist(), name
