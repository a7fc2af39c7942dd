"""Every merge method against its paper's formula, written over whole tensors in NumPy fp64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest

from analyzer.methods import METHODS

Merge = Callable[..., np.ndarray]
Models = Mapping[str, np.ndarray]

PRECISE = {"rtol": 1e-12, "atol": 1e-15}
ALPHA, WEIGHTS = 0.7, (0.4, -0.3)


def models(shape: tuple[int, ...] = (24, 7), seed: int = 3) -> dict[str, np.ndarray]:
    """A base c, fine-tunes of it a, b, m, n; every tenth element is shared by all."""
    r = np.random.default_rng(seed)
    c = r.normal(size=shape) * 0.02
    found = {
        name: c + r.normal(size=shape) * size
        for name, size in zip("abmn", (3e-3, 2e-3, 4e-3, 1e-3), strict=True)
    }
    for tensor in found.values():
        tensor.reshape(-1)[::10] = c.reshape(-1)[::10]
    return {"c": c, **found}


# The oracles take the models, with "c" being a where no base is given, and whether A is a task.


def oracle_add_difference(x: Models, **_: object) -> np.ndarray:
    return x["a"] + ALPHA * (x["b"] - x["c"])


def oracle_train_difference(x: Models, **_: object) -> np.ndarray:
    to_c, to_a = np.abs(x["b"] - x["c"]), np.abs(x["b"] - x["a"])
    total = to_c + to_a
    scale = np.where(total != 0, to_a / np.where(total != 0, total, 1), 0)
    return x["a"] + 1.8 * ALPHA * np.sign(x["b"] - x["c"]) * scale * to_c


def oracle_slerp(x: Models, **_: object) -> np.ndarray:
    a, b = x["a"].reshape(-1), x["b"].reshape(-1)
    theta = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - ALPHA) * theta) * x["a"] + np.sin(ALPHA * theta) * x["b"]) / np.sin(theta)


def oracle_model_stock(x: Models, *, based: bool) -> np.ndarray:
    names = "abmn" if based else "bmn"
    tasks = [(x[name] - x["c"]).reshape(-1) for name in names]
    cosines = [s @ t / np.linalg.norm(s) / np.linalg.norm(t) for s, t in combinations(tasks, 2)]
    n, cosine = len(names), np.mean(cosines)
    t = n * cosine / (1 + (n - 1) * cosine)
    stock = t * np.mean([x[name] for name in names], axis=0) + (1 - t) * x["c"]
    return x["a"] + ALPHA * (stock - x["a"])


def weighted_tasks(x: Models, based: bool) -> tuple[list[np.ndarray], list[float]]:
    names, weights = ("abmn", (1.0, ALPHA, *WEIGHTS)) if based else ("bmn", (ALPHA, *WEIGHTS))
    return [x[name] - x["c"] for name in names], list(weights)


def oracle_task_arithmetic(x: Models, *, based: bool) -> np.ndarray:
    tasks, weights = weighted_tasks(x, based)
    return x["c"] + sum(w * t for w, t in zip(weights, tasks, strict=True))


def oracle_triple_sum(x: Models, **_: object) -> np.ndarray:
    p, q = WEIGHTS
    return (1 - ALPHA - p - q) * x["a"] + ALPHA * x["b"] + p * x["m"] + q * x["n"]


def oracle_sum_twice(x: Models, **_: object) -> np.ndarray:
    merged = (1 - ALPHA) * x["a"] + ALPHA * x["b"]
    for weight, name in zip(WEIGHTS, "mn", strict=True):
        merged = (1 - weight) * merged + weight * x[name]
    return merged


def oracle_ties(x: Models, *, based: bool, density: float = 0.3) -> np.ndarray:
    tasks, weights = weighted_tasks(x, based)
    k = max(1, int(density * tasks[0].size))
    trimmed = []
    for w, task in zip(weights, tasks, strict=True):
        smallest = np.sort(np.abs(task).astype(np.float32).reshape(-1))[-k]
        trimmed.append(w * np.where(np.abs(task).astype(np.float32) >= smallest, task, 0))
    return x["c"] + elected(np.array(trimmed))


def elected(tasks: np.ndarray) -> np.ndarray:
    sign = np.where(tasks.sum(axis=0) >= 0, 1, -1)
    return np.where(np.sign(tasks) == sign, tasks, 0).sum(axis=0)


def crumbs(x: Models, based: bool, density: float = 0.5, gamma: float = 0.1) -> np.ndarray:
    tasks, weights = weighted_tasks(x, based)
    n = tasks[0].size
    kept = []
    for w, task in zip(weights, tasks, strict=True):
        order = np.argsort(np.abs(task).reshape(-1), kind="stable")
        first = n - int(density * n) - int(gamma * n)
        mask = np.zeros(n)
        mask[order[first : first + int(density * n)]] = 1
        kept.append(w * task * mask.reshape(task.shape))
    return np.array(kept)


def oracle_breadcrumbs(x: Models, *, based: bool) -> np.ndarray:
    return x["c"] + crumbs(x, based).sum(axis=0)


def oracle_breadcrumbs_ties(x: Models, *, based: bool) -> np.ndarray:
    return x["c"] + elected(crumbs(x, based))


SPLIT = (1 << 64) - 1


def splitmix(state: int) -> int:
    """The output function of SplitMix64, as its authors publish it, on Python's integers."""
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & SPLIT
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & SPLIT
    return z ^ (z >> 31)


def thinned(x: Models, based: bool, density: float = 0.25, seed: int = 11) -> np.ndarray:
    from hashlib import blake2b

    tasks, weights = weighted_tasks(x, based)
    found = []
    for number, (w, task) in enumerate(zip(weights, tasks, strict=True), start=0 if based else 1):
        digest = blake2b(f"{seed}\n{number}\nkey".encode(), digest_size=8).digest()
        start = int.from_bytes(digest, "little")
        bits = [splitmix((start + (i + 1) * 0x9E3779B97F4A7C15) & SPLIT) for i in range(task.size)]
        mask = np.array([b / 2**64 < density for b in bits]).reshape(task.shape)
        found.append(w * task * mask / density)
    return np.array(found)


def oracle_dare_linear(x: Models, *, based: bool) -> np.ndarray:
    return x["c"] + thinned(x, based).sum(axis=0)


def oracle_dare_ties(x: Models, *, based: bool) -> np.ndarray:
    return x["c"] + elected(thinned(x, based))


def oracle_weighted_sum(x: Models, **_: object) -> np.ndarray:
    return (1 - ALPHA) * x["a"] + ALPHA * x["b"]


PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "slerp": {"dot_threshold": 1.0},
    "ties": {"density": 0.3},
    "dare_linear": {"density": 0.25, "seed": 11},
    "dare_ties": {"density": 0.25, "seed": 11},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.1},
}
ORACLES: Mapping[str, Callable[..., np.ndarray]] = {
    name.removeprefix("oracle_"): oracle
    for name, oracle in list(globals().items())
    if name.startswith("oracle_")
}
# Cosine-adaptive merges see the whole model: tests/methods/test_cosine_adaptive.py.
SEPARATELY = {"cosine_adaptive_a", "cosine_adaptive_b"}


def test_every_method_has_an_oracle() -> None:
    """No method is in the table without a test against its formula."""
    assert set(METHODS) == set(ORACLES) | SEPARATELY


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name: str) -> None:
    """Each has a formula, a source, one way to be computed, and defaults within their ranges."""
    method = METHODS[name]
    assert method.formula
    assert "arXiv" in method.source or any(
        tool in method.source for tool in ("SuperMerger", "web UI", "mergekit")
    )
    assert (method.combine is None) != (method.coefficients is None)
    assert not method.needs_gram or method.coefficients
    assert all(p.low <= p.default <= p.high and p.meaning for p in method.parameters.values())


def cases() -> Sequence[tuple[str, bool]]:
    found = []
    for name in ORACLES:
        if METHODS[name].base != "must":
            found.append((name, False))
        if METHODS[name].base != "no":
            found.append((name, True))
    return found


@pytest.mark.parametrize(("name", "based"), cases())
def test_a_method_gives_its_formula(merge_tensor: Merge, name: str, based: bool) -> None:
    """With further models where the method takes them, with a base and without."""
    x = models()
    further = [x["m"], x["n"]] if METHODS[name].models != "no" else []
    result = merge_tensor(
        name,
        x["a"],
        x["b"],
        *further,
        base=x["c"] if based else None,
        alpha=ALPHA,
        weights=WEIGHTS if further else (),
        parameters=PARAMETERS.get(name),
        cuts=[29],
    )
    expected = ORACLES[name](x if based else x | {"c": x["a"]}, based=based)
    np.testing.assert_allclose(result, expected, **PRECISE)
    if not based and name != "slerp":  # what all models share stays, to the bit; an arc bulges
        assert np.array_equal(result.reshape(-1)[::10], x["a"].reshape(-1)[::10])


@pytest.mark.parametrize("name", ["task_arithmetic", "dare_linear", "breadcrumbs"])
def test_normalize_divides_a_plain_sum_by_its_weights(merge_tensor: Merge, name: str) -> None:
    """A's weight of 1 counts only where a base gives it a task."""
    x = models()
    for base, total in ((None, ALPHA + sum(WEIGHTS)), (x["c"], 1 + ALPHA + sum(WEIGHTS))):
        options = {"base": base, "alpha": ALPHA, "weights": WEIGHTS}
        own = PARAMETERS.get(name, {})
        plain = merge_tensor(name, *(x[n] for n in "abmn"), **options, parameters=own)
        scaled = merge_tensor(
            name, *(x[n] for n in "abmn"), **options, parameters={**own, "normalize": 1, "lambda": 2}
        )
        origin = x["a"] if base is None else base
        np.testing.assert_allclose(scaled - origin, 2 * (plain - origin) / total, rtol=1e-9, atol=1e-15)


def test_weights_that_cancel_are_not_divided_by(merge_tensor: Merge) -> None:
    """With weights of +1 and −1 normalize has nothing to divide by, and does not."""
    x = models()
    result = merge_tensor(
        "task_arithmetic", x["a"], x["b"], x["m"], alpha=1.0, weights=(-1.0,), parameters={"normalize": 1}
    )
    np.testing.assert_allclose(result, x["a"] + x["b"] - x["m"], **PRECISE)


def test_normalize_divides_the_elected_by_the_weights_that_agree(merge_tensor: Merge) -> None:
    """TIES' disjoint mean: zeros and the outvoted do not count, by their weights."""
    a = np.zeros(4)
    b, m, n = (
        np.array([1.0, 1.0, 0.0, 2.0]),
        np.array([3.0, -4.0, 0.0, 0.0]),
        np.array([5.0, -6.0, 0.0, -2.0]),
    )
    options = {"normalize": 1.0}
    result = merge_tensor("ties", a, b, m, n, alpha=1.0, weights=(1.0, 2.0), parameters=options)
    # Votes of weighted tasks: 1 + 3 + 10; 1 − 4 − 12; none; 2 − 4.
    assert [14 / 4, -16 / 3, 0.0, -4 / 2] == result.tolist()


def test_weights_of_the_elected_that_cancel_are_not_divided_by(merge_tensor: Merge) -> None:
    """0.3 − 0.1 − 0.2 is no divisor, though it is not 0 in binary."""
    a, b, m, n = np.zeros(1), np.array([3.0]), np.array([-1.0]), np.array([-1.0])
    options = {"normalize": 1.0}
    (found,) = merge_tensor("ties", a, b, m, n, alpha=0.3, weights=(-0.1, -0.2), parameters=options)
    assert found == pytest.approx(0.9 + 0.1 + 0.2)


def test_two_equal_sides_elect_the_positive_one(merge_tensor: Merge) -> None:
    """As in mergekit, where 0 counts as positive."""
    a, b, m = np.zeros(1), np.array([-3.0]), np.array([3.0])
    assert [3.0] == merge_tensor("ties", a, b, m, alpha=1.0, weights=(1.0,)).tolist()
