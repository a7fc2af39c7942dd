"""Descriptions of alphas by few options, against what the options of a merge come to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.blocks import presets
from analyzer.categories import categorize
from analyzer.planning.alphas import Alphas, Row
from analyzer.recipes.recipe import Recipe
from analyzer.records import Categorized, TensorInfo
from analyzer.recovery.grams import Gram
from analyzer.recovery.reconstruction import Reconstruction, reconstruct
from analyzer.recovery.summing import KeyGram

Unet = Callable[[int], dict[str, np.ndarray]]

SELECTORS = [
    "attn1",
    "attn2",
    "attn2,weight",
    "IN02",
    "IN02,attn1",
    "OUT11,M00",
    "vae",
    "text_encoder",
    "bias",
]
NUMBERS = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.333, 0.5, 0.8, 1.0, 1.25])


@pytest.fixture
def labelled(unet: Unet) -> tuple[list[Row], Categorized]:
    """The keys of a miniature U-Net that count."""
    infos = [TensorInfo(k, "F16", v.shape, 0, v.nbytes) for k, v in unet(1).items() if v.dtype.kind == "f"]
    found = categorize(infos)
    rows = [Row(info.key, found.labels[info.key]) for info in infos]
    return [row for row in rows if row.labels.counted], found


def summed(rows: list[Row], alpha_of: Callable[[Row], float], *, width: float = 1e-6) -> list[KeyGram]:
    """What a merge with these alphas sums to, its bounds so far from each."""
    grams = []
    for row in rows:
        alpha = alpha_of(row)
        gram = Gram(numel=100, n=100, moved=100, not_taken=100, dd=1.0, ed=alpha, ee=alpha * alpha)
        bounded = Gram(**{**_fields(gram), "low": alpha - width, "high": alpha + width})
        grams.append(KeyGram(row.key, row.labels, bounded))
    return grams


def _fields(gram: Gram) -> dict[str, float]:
    return {name: getattr(gram, name) for name in Gram.__dataclass_fields__}


def recipe_of(made: Reconstruction) -> Recipe:
    """The options as a merge takes them."""
    weights = made.block_weights
    return Recipe(alpha=made.alpha, block_weights=weights, base_alpha=made.base_alpha, sets=made.sets)


@given(
    NUMBERS,
    st.none() | st.lists(NUMBERS, min_size=25, max_size=25),
    st.lists(st.tuples(st.sampled_from(SELECTORS), NUMBERS), max_size=3),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recipe_is_found_again(
    labelled: tuple[list[Row], Categorized],
    alpha: float,
    weights: list[float] | None,
    sets: list[tuple[str, float]],
) -> None:
    """Other words may say it, but every key gets its alpha, and the merge's own resolution agrees."""
    rows, found = labelled
    given_weights = tuple(weights) if weights else None
    recipe = Recipe(alpha=alpha, block_weights=given_weights, base_alpha=alpha, sets=tuple(sets))
    truth = Alphas(recipe, rows, found.blocks)
    made = reconstruct(summed(rows, lambda row: truth.of(row)[0]), found.blocks)
    assert made is not None
    if not made.exact:  # more selections than a description may have
        assert weights is not None
        return
    again = Alphas(recipe_of(made), rows, found.blocks)
    for row in rows:
        assert truth.of(row)[0] == pytest.approx(made.alphas[row.key], abs=2e-6)
        assert again.of(row)[0] == made.alphas[row.key]
    assert 0 == pytest.approx(made.left, abs=1e-9)


@pytest.mark.parametrize("name", ["GRAD_V", "COSINE", "TRUE_CUBIC_HERMITE"])
def test_presets_are_named(name: str, labelled: tuple[list[Row], Categorized]) -> None:
    """By their numbers in the blocks that there are; another preset with these may come first."""
    rows, found = labelled
    numbers = dict(zip(found.blocks, presets.weights(name, len(found.blocks)), strict=True))
    made = reconstruct(summed(rows, lambda row: numbers.get(row.labels.block, 0.0)), found.blocks)
    assert made is not None
    assert made.block_weights is not None
    known = {row.labels.block for row in rows} & set(found.blocks)
    if made.preset is None:
        assert len({numbers[block] for block in known}) < 4
    else:
        named = dict(zip(found.blocks, presets.weights(made.preset, len(found.blocks)), strict=True))
        assert all(named[block] == pytest.approx(numbers[block], abs=1e-6) for block in known)


def test_one_number_needs_no_blocks(labelled: tuple[list[Row], Categorized]) -> None:
    """Also where the blocks would fit a preset of one number."""
    rows, found = labelled
    made = reconstruct(summed(rows, lambda _: 0.5), found.blocks)
    assert made is not None
    assert (0.5, None, ()) == (made.alpha, made.block_weights, made.sets)


def test_an_alpha_for_each_key_is_no_description(labelled: tuple[list[Row], Categorized]) -> None:
    """Then the blocks' own, and what they leave is told."""
    rows, found = labelled
    rng = np.random.default_rng(1)
    alphas = {row.key: float(rng.random()) for row in rows}
    made = reconstruct(summed(rows, lambda row: alphas[row.key]), found.blocks)
    assert made is not None
    assert not made.exact
    expected = sum((alphas[row.key] - made.alphas[row.key]) ** 2 for row in rows)
    assert expected == pytest.approx(made.left)
