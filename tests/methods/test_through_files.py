"""Every method through real files: several models, dtypes and layouts, and any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.merge import MergeResult, merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.methods import METHODS
from analyzer.recipes.recipe import Guide, Recipe
from analyzer.records import Plan
from analyzer.scan import scan

Arrays = dict[str, np.ndarray]
MergeModel = Callable[..., Mapping[str, np.ndarray]]

KEYS = {"x.weight": (700, 300), "x.bias": (300,), "y.weight": (40, 30), "z": ()}  # the first takes two runs
WEIGHTS = (0.25, -0.5)
PARAMETERS = {"density": 0.4, "gamma": 0.05, "seed": 3.0}


def tensors(seed: int, near: Arrays | None = None, dtype: str = "f4") -> Arrays:
    """Random weights, or some that lie near others'."""
    rng = np.random.default_rng(seed)
    drawn = {key: rng.standard_normal(shape) for key, shape in KEYS.items()}
    return {
        key: np.asarray(value if near is None else near[key] + 0.1 * value, dtype)
        for key, value in drawn.items()
    }


def merged(recipe: Recipe, paths: Mapping[str, Path], out: Path, **options: int) -> tuple[Plan, MergeResult]:
    """Plan and merge; `paths` are those of a, b, base, and of further models."""
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_checkpoint(path)) for name, path in paths.items()}
        models = tuple(opened[name] for name in sorted(opened) if name.startswith("m"))
        inputs = Inputs(opened["a"], opened["b"], opened.get("base"), models)
        plan = plan_merge(inputs, recipe)
        return plan, merge(inputs, plan, recipe, out=out, **options)


@pytest.fixture
def files(tmp_path: Path) -> tuple[dict[str, Arrays], dict[str, Path]]:
    """A base and four models near it, each in another dtype."""
    base = tensors(0)
    kinds = {"a": "f4", "b": "f2", "m1": "f4", "m2": "f8"}
    arrays = {name: tensors(seed, base, kind) for seed, (name, kind) in enumerate(kinds.items(), 1)}
    arrays["base"] = base
    for name, values in arrays.items():
        save_file(values, tmp_path / f"{name}.safetensors")
    return arrays, {name: tmp_path / f"{name}.safetensors" for name in arrays}


def recipe_for(name: str, *, models: bool) -> Recipe:
    known = METHODS[name].parameters
    parameters = tuple((key, value) for key, value in PARAMETERS.items() if key in known)
    return Recipe(name, alpha=0.75, parameters=parameters, weights=WEIGHTS if models else ())


@pytest.mark.parametrize("name", METHODS)
def test_a_merged_file_is_the_methods_tensors_rounded_once(
    name: str, files: tuple[dict[str, Arrays], dict[str, Path]], merge_model: MergeModel, tmp_path: Path
) -> None:
    """As computed on whole tensors in fp64 and rounded to A's dtype; the same bytes for 1 and 3 threads."""
    arrays, paths = files
    method = METHODS[name]
    models = method.models != "no"
    used = {"a", "b", *(("m1", "m2") if models else ()), *(("base",) if method.base != "no" else ())}
    recipe = recipe_for(name, models=models)
    outs = tmp_path / "o1.safetensors", tmp_path / "o3.safetensors"
    for out, threads in zip(outs, (1, 3), strict=True):
        merged(recipe, {key: paths[key] for key in used}, out, threads=threads)
    one, three = (load_file(out) for out in outs)
    expected = merge_model(
        name,
        {key: [arrays[side][key] for side in ("a", "b", "m1", "m2") if side in used] for key in KEYS},
        bases=arrays["base"] if "base" in used else None,
        alpha=0.75,
        weights=recipe.weights,
        parameters=dict(recipe.parameters),
    )
    for key in KEYS:
        np.testing.assert_array_equal(one[key], three[key], err_msg=key)
        np.testing.assert_allclose(
            one[key], np.asarray(expected[key]).reshape(KEYS[key]), rtol=6.1e-8, atol=1e-45, err_msg=key
        )


def test_models_that_split_a_tensor_differently(tmp_path: Path) -> None:
    """A fused in one tensor, B and the base in three: their rows meet A's."""
    rng = np.random.default_rng(0)
    fused = "double_blocks.0.img_attn.qkv.weight"
    split = [f"transformer_blocks.0.attn.to_{word}.weight" for word in "qkv"]
    a, b, base = (rng.standard_normal((12, 4)).astype(np.float32) for _ in range(3))
    rest = {"double_blocks.0.img_mod.lin.weight": np.zeros((24, 4), np.float32)}
    save_file({fused: a} | rest, tmp_path / "a.safetensors")
    for name, rows in (("b", b), ("base", base)):
        parts = {key: rows[4 * i : 4 * i + 4].copy() for i, key in enumerate(split)}
        norm = {"transformer_blocks.0.norm1.linear.weight": np.zeros((24, 4), np.float32)}
        save_file(parts | norm, tmp_path / f"{name}.safetensors")
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("a", "b", "base")}
    merged(Recipe("add_difference", alpha=0.5), paths, tmp_path / "o.safetensors")
    exact = a.astype(np.float64) + 0.5 * (b.astype(np.float64) - base)
    np.testing.assert_allclose(load_file(tmp_path / "o.safetensors")[fused], exact, rtol=6.1e-8)


def test_what_a_base_or_a_model_lacks(
    files: tuple[dict[str, Arrays], dict[str, Path]], tmp_path: Path
) -> None:
    """Without a base's tensor A is kept, and why is said; a model without the tensor takes no part there."""
    arrays, paths = files
    less = tmp_path / "less.safetensors"
    save_file({key: value for key, value in arrays["base"].items() if key != "y.weight"}, less)
    out = tmp_path / "o.safetensors"
    plan, _ = merged(Recipe("add_difference", alpha=0.5), {**without_models(paths), "base": less}, out)
    reasons = {x.key: (x.verb, x.reason) for x in plan.actions}
    assert ("keep", "the base has no such tensor of this shape") == reasons["y.weight"]
    np.testing.assert_array_equal(arrays["a"]["y.weight"], load_file(out)["y.weight"])

    both = {"a": paths["a"], "b": paths["b"], "m1": less}
    plan, _ = merged(Recipe("triple_sum", alpha=0.5, weights=(0.25,)), both, out, force=True)
    assert any("--model 1 has no such tensor for 1 of the merged keys" in text for text in plan.warnings)
    a, b = (arrays[side]["y.weight"].astype(np.float64) for side in "ab")
    np.testing.assert_allclose(load_file(out)["y.weight"], a + 0.5 * (b - a), rtol=6.1e-8)

    plan, _ = merged(Recipe("model_stock", alpha=1.0, weights=(1.0,)), both, out, force=True)
    assert {"keep"} == {x.verb for x in plan.actions if x.key == "y.weight"}


def test_a_model_that_holds_integers_takes_no_part(
    files: tuple[dict[str, Arrays], dict[str, Path]], tmp_path: Path
) -> None:
    """What is no floating point is never merged, whichever model it comes from."""
    arrays, paths = files
    whole = {key: np.ones_like(value, dtype=np.int32) for key, value in arrays["a"].items()}
    whole["x.bias"] = arrays["a"]["x.bias"]
    save_file(whole, tmp_path / "whole.safetensors")
    use = {"a": paths["a"], "b": paths["b"], "m1": tmp_path / "whole.safetensors"}
    out = tmp_path / "o.safetensors"
    plan, _ = merged(Recipe("triple_sum", alpha=0.5, weights=(0.25,)), use, out)
    assert any("for 3 of the merged keys" in text for text in plan.warnings)
    a, b = (arrays[side]["x.weight"].astype(np.float64) for side in "ab")
    np.testing.assert_allclose(load_file(out)["x.weight"], a + 0.5 * (b - a), rtol=6.1e-8)


def without_models(paths: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in paths.items() if not name.startswith("m")}


@pytest.mark.parametrize(
    ("recipe", "names", "words"),
    [
        (Recipe("ties", alpha=1.0), "ab", "leaves nothing out at a density of 1"),
        (Recipe("breadcrumbs", alpha=1.0), "ab", "leaves nothing out at a density of 1"),
        (Recipe("breadcrumbs", alpha=1.0, parameters=(("density", 0.9),)), "ab", None),
        (Recipe("model_stock", alpha=1.0, weights=(0.5,)), "abm", "model_stock counts all models alike"),
        (Recipe("model_stock", alpha=1.0, weights=(1.0,)), "abm", None),
        (Recipe("triple_sum", alpha=0.0, weights=(0.5,)), "abm", "no key is merged, so further models"),
        (Recipe("triple_sum", alpha=0.1, weights=(0.5,)), "abm", None),
    ],
)
def test_options_that_say_nothing_to_a_method_are_told(
    recipe: Recipe,
    names: str,
    words: str | None,
    files: tuple[dict[str, Arrays], dict[str, Path]],
    tmp_path: Path,
) -> None:
    """A density that leaves nothing out, weights that are not looked at, models that take no part."""
    _, paths = files
    used = {"m1" if name == "m" else name: paths["m1" if name == "m" else name] for name in names}
    plan, _ = merged(recipe, used, tmp_path / "o.safetensors")
    assert (words is not None) == bool(plan.warnings)
    assert words is None or words in plan.warnings[0]


def test_a_budget_is_one_of_weighted_sums(
    files: tuple[dict[str, Arrays], dict[str, Path]], tmp_path: Path
) -> None:
    """Where another method moves the groups, --budget does not bound it, and that is said."""
    _, paths = files
    with open_checkpoint(paths["a"]) as a, open_checkpoint(paths["b"]) as b:
        found = scan(a, b)
        for name, told in (("weighted_sum", False), ("train_difference", True)):
            base = open_checkpoint(paths["base"]) if told else None
            plan = plan_merge(Inputs(a, b, base), Recipe(name, guide=Guide(budget=0.1)), scan=found)
            assert told == any("--budget bounds what weighted_sum would move" in x for x in plan.warnings)
            if base is not None:
                base.close()


def test_nan_of_any_model_is_counted(
    files: tuple[dict[str, Arrays], dict[str, Path]], tmp_path: Path
) -> None:
    """A result that is not finite is named and counted, whichever model it comes from."""
    arrays, paths = files
    broken = {key: value.copy() for key, value in arrays["base"].items()}
    broken["y.weight"][0, :2] = np.nan, np.inf
    save_file(broken, tmp_path / "broken.safetensors")
    use = {**without_models(paths), "base": tmp_path / "broken.safetensors"}
    _, result = merged(Recipe("add_difference", alpha=0.5), use, tmp_path / "o.safetensors")
    assert {"y.weight": 2} == result.nonfinite


@pytest.mark.parametrize(
    ("recipe", "names", "words"),
    [
        (Recipe("add_difference", alpha=1.0), "ab", "needs the model that B was trained from"),
        (Recipe("triple_sum", alpha=1.0), "ab", "needs a third model"),
        (Recipe("weighted_sum", alpha=1.0), "abC", "takes no base"),
        (Recipe("slerp", alpha=1.0, weights=(1.0,)), "abm", "merges A and B alone"),
        (Recipe("model_stock", alpha=1.0), "ab", "combines at least 2 models"),
        (Recipe("ties", alpha=1.0, parameters=(("density", 2.0),)), "ab", "ties takes 0 … 1"),
        (
            Recipe("ties", alpha=1.0, parameters=(("denisty", 0.5),)),
            "ab",
            "no such parameter; it has: density",
        ),
        (Recipe("tiess", alpha=1.0), "ab", "did you mean ties"),
    ],
)
def test_what_a_method_lacks_is_said(
    recipe: Recipe,
    names: str,
    words: str,
    files: tuple[dict[str, Arrays], dict[str, Path]],
    tmp_path: Path,
) -> None:
    """A wrong request is one sentence, before anything is written."""
    _, paths = files
    sides = {"a": "a", "b": "b", "C": "base", "m": "m1"}
    with pytest.raises(RecipeError, match=words):
        merged(recipe, {sides[name]: paths[sides[name]] for name in names}, tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("name", ["weighted_sum", "slerp", "cosine_adaptive_a", "cosine_adaptive_b"])
def test_alpha_1_takes_bs_values(name: str, tmp_path: Path) -> None:
    """To the bit, also for columns that are more alike than the scale of the others reaches."""
    rng = np.random.default_rng(2)
    a = {"x.weight": rng.standard_normal((50, 400))}
    b = {"x.weight": a["x.weight"] + rng.standard_normal((50, 400)) * np.linspace(1e-3, 3, 400)}
    for side, values in (("a", a), ("b", b)):
        save_file(values, tmp_path / f"{side}.safetensors")
    paths = {side: tmp_path / f"{side}.safetensors" for side in "ab"}
    merged(Recipe(name, alpha=1.0), paths, tmp_path / "o.safetensors")
    np.testing.assert_array_equal(b["x.weight"], load_file(tmp_path / "o.safetensors")["x.weight"])


def test_alpha_0_keeps_as_bytes_whatever_the_method(
    files: tuple[dict[str, Arrays], dict[str, Path]], tmp_path: Path
) -> None:
    """The gate and an alpha of zero hold for every method."""
    arrays, paths = files
    out = tmp_path / "o.safetensors"
    for name, method in METHODS.items():
        recipe = recipe_for(name, models=method.models != "no")
        use = {k: p for k, p in paths.items() if (k != "base" or method.base != "no")}
        use = use if method.models != "no" else without_models(use)
        merged(replace(recipe, only="key:x.*", sets=(("key:x.bias", 0.0),)), use, out, force=True)
        result = load_file(out)
        for key in ("x.bias", "y.weight", "z"):
            np.testing.assert_array_equal(arrays["a"][key], result[key])
