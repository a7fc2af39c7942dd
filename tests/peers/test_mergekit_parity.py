"""The same tensors through mergekit's own methods. Runs where mergekit is installed: `tox -e peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.methods.dare import random_bits

pytest.importorskip("mergekit", reason="mergekit is not installed: tox -e peers", exc_type=ImportError)
api = pytest.importorskip("mergekit.merge_methods.api", exc_type=ImportError)

Merge = Callable[..., np.ndarray]

TOLERANCE = {"rtol": 1e-12, "atol": 1e-14}  # mergekit works in the tensors' dtype, fp64 here
SPARSE = {"rtol": 1e-6, "atol": 1e-9}  # but drops at random in fp32
ALPHA, WEIGHTS = 0.7, (0.4, 0.9)


def models(shape: tuple[int, ...] = (40, 25), seed: int = 8) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    c = r.normal(size=shape) * 0.05
    return {"c": c, **{name: c + r.normal(size=shape) * 0.01 for name in "abmn"}}


def theirs(method: str, x: dict[str, np.ndarray], base: str, names: str, **parameters: Any) -> np.ndarray:
    """The result of mergekit, with weights and densities by the models' names."""
    merged = api.merge_tensors(
        [torch.from_numpy(x[name].copy()) for name in (base, *names)],
        method,
        ids=[base, *names],
        base_index=0,
        parameters=parameters,
    )
    return merged.numpy()


def weights(based: bool) -> dict[str, float]:
    """Those that ours come to: A has a task, of weight 1, only beside a base."""
    named = {"b": ALPHA, "m": WEIGHTS[0], "n": WEIGHTS[1]}
    return {"a": 1.0, **named} if based else named


def ours(merge: Merge, name: str, x: dict[str, np.ndarray], based: bool, **parameters: float) -> np.ndarray:
    base = x["c"] if based else None
    tensors = [x[n] for n in "abmn"]
    return merge(name, *tensors, base=base, alpha=ALPHA, weights=WEIGHTS, parameters=parameters)


@pytest.mark.parametrize("alpha", [0.25, 1.0, 1.5])
def test_weighted_sum_is_linear(merge_tensor: Merge, alpha: float) -> None:
    """The linear method with the weights 1 − alpha and alpha."""
    x = models()
    expected = api.merge_tensors(
        [torch.from_numpy(x[n]) for n in "ab"], "linear", parameters={"weight": [1 - alpha, alpha]}
    )
    np.testing.assert_allclose(
        merge_tensor("weighted_sum", x["a"], x["b"], alpha=alpha), expected, **TOLERANCE
    )


def test_triple_sum_is_linear(merge_tensor: Merge) -> None:
    """Weights that sum to 1, over four models."""
    x = models()
    shares = [1 - ALPHA - sum(WEIGHTS), ALPHA, *WEIGHTS]
    expected = api.merge_tensors(
        [torch.from_numpy(x[n]) for n in "abmn"], "linear", parameters={"weight": shares}
    )
    np.testing.assert_allclose(ours(merge_tensor, "triple_sum", x, False), expected, **TOLERANCE)


def test_sum_twice_is_linear_of_linear(merge_tensor: Merge) -> None:
    """One merge after another."""
    x = models()
    merged = torch.from_numpy(x["a"])
    for name, share in zip("bmn", (ALPHA, *WEIGHTS), strict=True):
        both = [merged, torch.from_numpy(x[name])]
        merged = api.merge_tensors(both, "linear", parameters={"weight": [1 - share, share]})
    np.testing.assert_allclose(ours(merge_tensor, "sum_twice", x, False), merged, **TOLERANCE)


def test_add_difference_is_task_arithmetic(merge_tensor: Merge) -> None:
    """C + (A − C) + alpha·(B − C) is A + alpha·(B − C)."""
    x = models()
    expected = theirs("task_arithmetic", x, "c", "ab", weight={"a": 1.0, "b": ALPHA})
    result = merge_tensor("add_difference", x["a"], x["b"], base=x["c"], alpha=ALPHA)
    np.testing.assert_allclose(result, expected, **TOLERANCE)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.001, 0.05, 1.0])
def test_slerp(merge_tensor: Merge, alpha: float, spread: float) -> None:
    """Nearly parallel tensors, where mergekit takes the straight line, and others."""
    r = np.random.default_rng(2)
    a = r.normal(size=(30, 20))
    x = {"a": a, "b": 1.2 * a + spread * r.normal(size=a.shape)}
    expected = theirs("slerp", x, "a", "b", t=alpha)
    np.testing.assert_allclose(merge_tensor("slerp", x["a"], x["b"], alpha=alpha), expected, **TOLERANCE)


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_model_stock(merge_tensor: Merge, based: bool, alpha: float) -> None:
    """Layer-wise; alpha goes from A to mergekit's result."""
    x = models()
    expected = theirs("model_stock", x, *(("c", "abmn") if based else ("a", "bmn")))
    tensors = [x[n] for n in "abmn"]
    base = x["c"] if based else None
    result = merge_tensor("model_stock", *tensors, base=base, alpha=alpha, weights=WEIGHTS)
    np.testing.assert_allclose(result, x["a"] + alpha * (expected - x["a"]), **TOLERANCE)


GENERAL = [
    ("task_arithmetic", {}),
    ("ties", {"density": 1.0}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": 0.0001}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.1}),
    ("breadcrumbs", {"density": 0.95, "gamma": 0.1}),
    ("breadcrumbs_ties", {"density": 0.5, "gamma": 0.01}),
    ("dare_linear", {"density": 1.0}),
    ("dare_ties", {"density": 1.0}),
]


@pytest.mark.parametrize(("name", "sparse"), GENERAL)
@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize(("normalize", "factor"), [(0, 1.0), (1, 1.0), (0, 0.6)])
def test_task_arithmetic_and_its_kin(
    merge_tensor: Merge, name: str, sparse: dict[str, float], based: bool, normalize: int, factor: float
) -> None:
    """A is mergekit's base, or a model of weight 1 beside one."""
    x = models()
    named = weights(based)
    expected = theirs(
        name,
        x,
        *(("c", "abmn") if based else ("a", "bmn")),
        weight=named,
        **{key: dict.fromkeys(named, value) for key, value in sparse.items()},
        **{"normalize": bool(normalize), "lambda": factor},
    )
    result = ours(merge_tensor, name, x, based, **sparse, normalize=normalize, **{"lambda": factor})
    np.testing.assert_allclose(result, expected, **TOLERANCE)


@pytest.fixture
def our_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torch.bernoulli draw what ours draw, model after model."""
    numbers: Iterator[int] = iter(range(100))

    def draw(probabilities: torch.Tensor, **_: Any) -> torch.Tensor:
        bits = random_bits(0, "key", next(numbers), 0, probabilities.numel())
        kept = bits < np.uint64(int(float(probabilities.reshape(-1)[0]) * 2.0**64))
        return torch.from_numpy(kept).reshape(probabilities.shape).to(probabilities.dtype)

    monkeypatch.setattr(torch, "bernoulli", draw)


@pytest.mark.usefixtures("our_masks")
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("normalize", [0, 1])
def test_dare_with_the_same_masks(merge_tensor: Merge, name: str, normalize: int) -> None:
    """Without scaling up. With it mergekit keeps each task's L1 norm, where ours divide by the density."""
    x = models()
    named = weights(True)
    density = dict.fromkeys(named, 0.25)
    options = {"weight": named, "density": density, "rescale": False, "normalize": bool(normalize)}
    expected = theirs(name, x, "c", "abmn", **options)
    result = ours(merge_tensor, name, x, True, density=0.25, rescale=0, normalize=normalize)
    np.testing.assert_allclose(result, expected, **SPARSE)


@pytest.mark.usefixtures("our_masks")
def test_dare_scales_up_by_about_as_much(merge_tensor: Merge) -> None:
    """One task: the factor is 1/density, and mergekit's comes near it for many elements."""
    x = models((300, 200))
    expected = theirs("dare_linear", x, "c", "a", weight={"a": 1.0}, density={"a": 0.25}, rescale=True)
    result = merge_tensor("dare_linear", x["a"], x["b"], base=x["c"], alpha=0.0, parameters={"density": 0.25})
    kept = result != x["c"]
    ratio = (result - x["c"])[kept] / (expected - x["c"])[kept]
    assert np.ptp(ratio) < 1e-4  # one factor for all
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_equal_sizes_all_stay(merge_tensor: Merge) -> None:
    """The one known difference of trimming: mergekit keeps two of three equal sizes, ours keep all."""
    x = {"a": np.zeros(5), "b": np.array([1.0, -2.0, 2.0, 2.0, 3.0])}
    expected = theirs("ties", x, "a", "b", weight={"b": 1.0}, density={"b": 0.6}, normalize=False)
    result = merge_tensor("ties", x["a"], x["b"], alpha=1.0, parameters={"density": 0.6})
    assert 3 == np.count_nonzero(expected)
    assert [0.0, -2.0, 2.0, 2.0, 3.0] == result.tolist()
