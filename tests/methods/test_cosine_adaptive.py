"""The cosine-adaptive merges against SuperMerger's formulas, whole tensors in NumPy fp64."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from analyzer.methods import METHODS, Operands, Setting

MergeModel = Callable[..., dict[str, np.ndarray]]
Model = Mapping[str, tuple[np.ndarray, np.ndarray]]

SHAPES = {"linear": (12, 7), "conv": (5, 4, 3, 3), "bias": (9,), "row": (1, 6), "deep": (3, 2, 11)}


def model(seed: int = 5) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tensors that differ by more or less, from key to key and from column to column."""
    r = np.random.default_rng(seed)
    found = {}
    for place, (key, shape) in enumerate(SHAPES.items()):
        a = r.normal(size=shape)
        found[key] = a, a + r.normal(size=shape) * r.uniform(0.01, 0.3 + 0.2 * place, size=shape[1:])
    return found


def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines along the first axis; 0 for columns of zeros."""
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return np.where(lengths > 0, (a * b).sum(axis=0) / np.where(lengths > 0, lengths, 1), 0)


def normalized(a: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(a, axis=0)
    return a / np.where(length > 0, length, 1)


def oracle(tensors: Model, variant: str, alpha: float) -> dict[str, np.ndarray]:
    """What the source computes, key by key: sims of all, trimmed twice, then k."""
    combined, ranked = {}, []
    for key, (a, b) in tensors.items():
        one, two = (normalized(a), normalized(b)) if variant == "a" else (a, b)
        columns = similarities(one, two)
        whole = (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)
        combined[key] = (columns + whole) / 2
        ranked.append(np.ravel(columns if variant == "a" else combined[key]))
    sims = np.concatenate(ranked)
    sims = sims[sims >= np.percentile(sims, 1, method="midpoint")]
    sims = sims[sims <= np.percentile(sims, 99, method="midpoint")]
    found = {}
    for key, (a, b) in tensors.items():
        k = (combined[key] - sims.min()) / (sims.max() - sims.min())
        k = np.clip(k - (abs(alpha) if variant == "a" else alpha), 0, 1)
        found[key] = b * (1 - k) + a * k
    return found


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, -0.2])
def test_it_gives_the_published_formula(merge_model: MergeModel, variant: str, alpha: float) -> None:
    """Columns, whole tensors, and the scale over all keys, for tensors of one to four axes."""
    tensors = model()
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=alpha, cuts=[5, 8, 40], order=1)
    expected = oracle(tensors, variant, alpha)
    for key, values in result.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-12, atol=1e-13, err_msg=key)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_column_of_zeros_is_like_nothing(merge_model: MergeModel, variant: str) -> None:
    """Its similarity is 0, as torch has it, and it counts as the least."""
    tensors = model()
    tensors["linear"][0][:, 2] = 0
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=0.3)
    expected = oracle(tensors, variant, 0.3)
    for key, values in result.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-12, atol=1e-13, err_msg=key)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_tensor_of_zeros_is_merged_as_unlike(merge_model: MergeModel, variant: str) -> None:
    """Where the source divides 0 by 0 and writes NaN, A's zeros give way to B."""
    tensors = model() | {"zero": (np.zeros((4, 3)), np.ones((4, 3)))}
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=0.3)
    assert np.isfinite(np.concatenate([x.reshape(-1) for x in result.values()])).all()
    assert (result["zero"] > 0.3).all()


@pytest.mark.parametrize("variant", ["a", "b"])
def test_models_that_are_equally_alike_everywhere(merge_model: MergeModel, variant: str) -> None:
    """With no spread of similarities every column is as alike as any: k = 1 − alpha."""
    a = np.arange(1.0, 13.0).reshape(4, 3)
    result = merge_model(f"cosine_adaptive_{variant}", {"x": (a, 2 * a)}, alpha=0.25)
    # The similarities are 1 but for the last bit, which may tell them apart: A's share is 0.75 or clipped.
    assert (result["x"] >= a).all()
    assert (result["x"] <= 2 * a).all()
    same = merge_model(f"cosine_adaptive_{variant}", {"x": (a, a)}, alpha=0.25)
    assert np.array_equal(a, same["x"])


@pytest.mark.parametrize("variant", ["a", "b"])
def test_alpha_1_leaves_a_to_outliers(merge_model: MergeModel, variant: str) -> None:
    """No similarity is left above 0, but beyond the 99th percentile; a merge takes B and does not ask."""
    tensors = model()
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=1.0)
    expected = oracle(tensors, variant, 1.0)
    np.testing.assert_allclose(result["linear"], expected["linear"], rtol=1e-12)
    share = np.mean([np.isclose(result[k], tensors[k][1]).mean() for k in tensors])
    assert share > 0.9


@pytest.mark.parametrize("variant", ["a", "b"])
def test_what_is_not_finite_leaves_the_similarities(merge_model: MergeModel, variant: str) -> None:
    """A NaN stays one element's, and the rest is merged as if both had 0 there."""
    tensors = model()
    clean = {key: (a.copy(), b.copy()) for key, (a, b) in tensors.items()}
    tensors["linear"][0][3, 2] = np.nan
    clean["linear"][0][3, 2] = clean["linear"][1][3, 2] = 0
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=0.3)
    expected = oracle(clean, variant, 0.3)
    bad = np.isnan(result["linear"])
    assert [(3, 2)] == list(zip(*np.nonzero(bad), strict=True))
    np.testing.assert_allclose(result["linear"][~bad], expected["linear"][~bad], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_run_costs_what_it_holds(variant: str) -> None:
    """A run within a row of many columns does not touch the others: their number costs no memory."""
    columns, run = 4_000_000, 1000
    r = np.random.default_rng(0)
    known, a, b = np.zeros(columns), r.normal(size=run), r.normal(size=run)
    operands = Operands(a, b, a, (), "key", 5_000_000, (3, columns))
    combine = METHODS[f"cosine_adaptive_{variant}"].combine
    assert combine is not None
    tracemalloc.start()
    found = combine(operands, Setting(0.5), known)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(b, found, rtol=1e-12)
    assert most < columns


@pytest.mark.parametrize("variant", ["a", "b"])
def test_one_row_is_held_as_signs(variant: str) -> None:
    """A table of positions is one row of many elements: while it is measured, each takes a byte."""
    size, run = 1_000_000, 10_000
    r = np.random.default_rng(0)
    a, b = r.normal(size=run), r.normal(size=run)
    survey = METHODS[f"cosine_adaptive_{variant}"].survey
    assert survey is not None
    state = survey.begin(Setting(0.5), size)
    tracemalloc.start()
    for start in range(0, size - run, run):
        survey.observe(state, Operands(a, b, a, (), "key", start, (1, size)), 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * size


@pytest.mark.parametrize("variant", ["a", "b"])
def test_one_row_beside_others(merge_model: MergeModel, variant: str) -> None:
    """Signs, zeros among them, are what the published formula makes of columns of one element."""
    r = np.random.default_rng(1)
    a, b = r.normal(size=(1, 500)), r.normal(size=(1, 500))
    a[0, :9], b[0, 5:20] = 0, 0
    tensors = model() | {"positions": (a, b)}
    result = merge_model(f"cosine_adaptive_{variant}", tensors, alpha=0.2, cuts=(37,), order=3)
    for key, expected in oracle(tensors, variant, 0.2).items():
        np.testing.assert_allclose(result[key], expected, rtol=1e-12, atol=1e-13, err_msg=key)
