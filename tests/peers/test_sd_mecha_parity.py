"""The same tensors through sd-mecha's own functions. Runs where sd-mecha is installed: `tox -e peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.methods.dare import random_bits

sd_mecha = pytest.importorskip(
    "sd_mecha", reason="sd-mecha is not installed: tox -e peers", exc_type=ImportError
)

Merge = Callable[..., np.ndarray]

TOLERANCE = {"rtol": 1e-12, "atol": 1e-14}
ALPHA = 0.7


def models(shape: tuple[int, ...] = (40, 25), seed: int = 8) -> dict[str, torch.Tensor]:
    r = np.random.default_rng(seed)
    c = r.normal(size=shape) * 0.05
    found = {"c": c, **{name: c + r.normal(size=shape) * 0.01 for name in "abmn"}}
    return {name: torch.from_numpy(tensor) for name, tensor in found.items()}


def call(method: Any, *tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    """The function behind a method, on tensors."""
    return method.__wrapped__(*(t.clone() for t in tensors), **options)


def keyed(method: Any, *tensors: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    """The same of those that take state dicts."""
    return method.__wrapped__(
        *({"key": t.clone()} for t in tensors), torch.as_tensor(alpha, dtype=torch.float64), key="key"
    )


def run(
    merge: Merge, name: str, *tensors: torch.Tensor, base: torch.Tensor | None = None, **options: Any
) -> np.ndarray:
    own = None if base is None else base.numpy()
    return merge(name, *(t.numpy() for t in tensors), base=own, **options)


def test_weighted_sum(merge_tensor: Merge) -> None:
    """torch.lerp."""
    x = models()
    expected = keyed(sd_mecha.weighted_sum, x["a"], x["b"], alpha=ALPHA)
    np.testing.assert_allclose(
        run(merge_tensor, "weighted_sum", x["a"], x["b"], alpha=ALPHA), expected, **TOLERANCE
    )


def test_sum_twice(merge_tensor: Merge) -> None:
    """One weighted sum after another."""
    x = models()
    expected = keyed(sd_mecha.weighted_sum, x["a"], x["b"], alpha=ALPHA)
    expected = keyed(sd_mecha.weighted_sum, expected, x["m"], alpha=0.4)
    result = run(merge_tensor, "sum_twice", x["a"], x["b"], x["m"], alpha=ALPHA, weights=(0.4,))
    np.testing.assert_allclose(result, expected, **TOLERANCE)


def test_add_difference(merge_tensor: Merge) -> None:
    """A plus alpha times what `subtract` leaves."""
    x = models()
    add = sd_mecha.extensions.builtin.merge_methods.linear.add_difference
    expected = keyed(add, x["a"], call(sd_mecha.subtract, x["b"], x["c"]), alpha=ALPHA)
    result = run(merge_tensor, "add_difference", x["a"], x["b"], base=x["c"], alpha=ALPHA)
    np.testing.assert_allclose(result, expected, **TOLERANCE)


def test_train_difference(merge_tensor: Merge) -> None:
    """The difference under sd-mecha's mask for it."""
    x = models()
    add = sd_mecha.extensions.builtin.merge_methods.linear.add_difference
    mask = call(sd_mecha.train_difference_mask, x["a"], x["b"], x["c"], alpha=ALPHA)
    expected = keyed(add, x["a"], x["b"] - x["c"], alpha=mask)
    result = run(merge_tensor, "train_difference", x["a"], x["b"], base=x["c"], alpha=ALPHA)
    np.testing.assert_allclose(result, expected, **TOLERANCE)


def test_slerp_of_one_length(merge_tensor: Merge) -> None:
    """sd-mecha turns unit vectors and interpolates the length: the same where both lengths are one."""
    r = np.random.default_rng(2)
    a, b = (torch.from_numpy(r.normal(size=(30, 20))) for _ in "ab")
    b *= a.norm() / b.norm()
    expected = call(sd_mecha.slerp, a, b, alpha=ALPHA)
    np.testing.assert_allclose(run(merge_tensor, "slerp", a, b, alpha=ALPHA), expected, **TOLERANCE)


def test_slerp_of_two_lengths_differs_by_a_factor(merge_tensor: Merge) -> None:
    """The same direction only if the lengths are equal: mergekit's, and ours, weigh tensors as they are."""
    a, b = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 3.0], dtype=torch.float64)
    result = run(merge_tensor, "slerp", a, b, alpha=0.5)
    np.testing.assert_allclose(result, np.sqrt(0.5) * np.array([1, 3]), **TOLERANCE)
    np.testing.assert_allclose(
        call(sd_mecha.slerp, a, b, alpha=0.5), 2 * np.sqrt(0.5) * np.ones(2), **TOLERANCE
    )


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_ties(merge_tensor: Merge, density: float) -> None:
    """Voting by size, and the mean of who agrees; sd-mecha keeps one element more below density 1."""
    x = models()
    size = x["a"].numel()
    k = 1.0 if density == 1 else density - 1 / size - 1e-12
    total = call(sd_mecha.ties_sum, *(x[n] - x["c"] for n in "abm"), k=k, vote_sgn=True)
    parameters = {"density": density, "normalize": 1}
    result = run(
        merge_tensor,
        "ties",
        x["a"],
        x["b"],
        x["m"],
        base=x["c"],
        alpha=1.0,
        weights=(1.0,),
        parameters=parameters,
    )
    np.testing.assert_allclose(result, x["c"] + total, **TOLERANCE)


def test_dare_ties_with_the_same_masks(merge_tensor: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping first, then the election, then the mean of who agrees, divided by the density."""
    x = models()
    numbers: Iterator[int] = iter(range(100))

    def draw(probabilities: torch.Tensor, **_: Any) -> torch.Tensor:
        bits = random_bits(0, "key", next(numbers), 0, probabilities.numel())
        kept = bits < np.uint64(int(float(probabilities.reshape(-1)[0]) * 2.0**64))
        return torch.from_numpy(kept).reshape(probabilities.shape).to(probabilities.dtype)

    monkeypatch.setattr(torch, "bernoulli", draw)
    total = call(
        sd_mecha.ties_sum_with_dropout,
        *(x[n] - x["c"] for n in "abm"),
        probability=torch.tensor(0.75),
        k=1.0,
        vote_sgn=True,
        apply_stock=True,
    )
    parameters = {"density": 0.25, "normalize": 1}
    result = run(
        merge_tensor,
        "dare_ties",
        x["a"],
        x["b"],
        x["m"],
        base=x["c"],
        alpha=1.0,
        weights=(1.0,),
        parameters=parameters,
    )
    np.testing.assert_allclose(result, x["c"] + total, rtol=1e-6, atol=1e-9)


def test_model_stock_of_two_vectors(merge_tensor: Merge) -> None:
    """sd-mecha measures angles row by row, and between neighbours only: the same for two flat tensors."""
    x = models((60,))
    expected = x["c"] + call(sd_mecha.model_stock, x["a"] - x["c"], x["b"] - x["c"])
    result = run(merge_tensor, "model_stock", x["a"], x["b"], base=x["c"], alpha=1.0)
    np.testing.assert_allclose(result, expected, **TOLERANCE)


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_cosine_adaptive_on_a_scale_of_0_to_1(
    merge_model: Callable[..., dict[str, np.ndarray]], variant: str, alpha: float
) -> None:
    """sd-mecha leaves out the scale over all keys; beside tensors at 0 and at 1, it is none.

    Its variant A also leaves out the tensor's own similarity, which is the column's where there is one.
    """
    r = np.random.default_rng(3)
    shape = (50,) if variant == "a" else (50, 6)
    a = torch.from_numpy(r.normal(size=shape))
    b = a + 0.7 * torch.from_numpy(r.normal(size=shape))
    expected = call(
        getattr(sd_mecha, f"add_cosine_{variant}"), a, b, alpha=torch.tensor(alpha, dtype=torch.float64)
    )
    one, other = np.tile([[1.0], [0.0]], 100), np.tile([[0.0], [1.0]], 100)
    tensors = {"like": (one, one), "unlike": (one, other), "key": (a.numpy(), b.numpy())}
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=alpha)["key"]
    np.testing.assert_allclose(result, expected, rtol=1e-7)
