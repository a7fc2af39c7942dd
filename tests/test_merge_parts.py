"""The options on parts: a baked VAE, text encoders, EMA copies, dtypes of a selection, fp8."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.merge import MergeResult, merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan

Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]
Arrays = dict[str, np.ndarray]

VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
EMA = "model_ema.diffusion_modelinput_blocks10in_layers2weight"


def run(
    recipe: Recipe, *paths: Path, base: Path | None = None, vae: Path | None = None, out: Path
) -> tuple[Plan, MergeResult]:
    """Plan and merge two files, with a base and a VAE's if there are any."""
    with ExitStack() as stack:
        a, b = (stack.enter_context(open_checkpoint(path)) for path in paths)
        c, d = (None if path is None else stack.enter_context(open_checkpoint(path)) for path in (base, vae))
        inputs = Inputs(a, b, base=c, vae=d)
        plan = plan_merge(inputs, recipe)
        return plan, merge(inputs, plan, recipe, out=out)


@pytest.fixture
def models(unet: Build, write: Write) -> tuple[Path, Path]:
    """A mini SD 1.5 pair on disk."""
    return write("a.safetensors", unet(0)), write("b.safetensors", unet(1))


@pytest.mark.parametrize("prefix", ["", VAE, "vae."])
def test_a_vae_is_baked_in(
    prefix: str, models: tuple[Path, Path], unet: Build, write: Write, tmp_path: Path
) -> None:
    """The file's VAE replaces A's, in A's dtype, under whatever prefix it stands; --only does not gate it."""
    a, b, other = unet(0), unet(1), unet(2)
    own = {k.removeprefix(VAE): v.astype(np.float32) for k, v in other.items() if k.startswith(VAE)}
    vae = write("vae.safetensors", {f"{prefix}{k}": v for k, v in own.items()})
    plan, _ = run(Recipe(only="attn2"), *models, vae=vae, out=tmp_path / "o.safetensors")
    merged = load_file(tmp_path / "o.safetensors")
    for key, values in merged.items():
        source = other if key.startswith(VAE) else b if ".attn2." in key else a
        np.testing.assert_array_equal(source[key], values, err_msg=key)
    assert {"bake"} == {x.verb for x in plan.actions if x.key.startswith(VAE)}


def test_a_vae_that_lacks_keys_or_is_none(
    models: tuple[Path, Path], unet: Build, write: Write, tmp_path: Path
) -> None:
    """What the file lacks stays and is told; a file without any VAE is refused."""
    key = f"{VAE}encoder.conv_in.weight"
    vae = write("vae.safetensors", {key: unet(2)[key]})
    plan, _ = run(Recipe(alpha=0.0), *models, vae=vae, out=tmp_path / "o.safetensors")
    assert any(
        f"nothing for 1 keys of A's VAE, such as {VAE}decoder.conv_out.bias" in w for w in plan.warnings
    )
    none = write("none.safetensors", {k: v for k, v in unet(2).items() if not k.startswith(VAE)})
    with pytest.raises(RecipeError, match="nothing that could replace a VAE"):
        run(Recipe(alpha=0.0), *models, vae=none, out=tmp_path / "p.safetensors")


@pytest.mark.parametrize(("choice", "side"), [("keep-a", 0), ("keep-b", 1)])
def test_text_encoders_are_kept_from_one_side(
    choice: str, side: int, models: tuple[Path, Path], unet: Build, tmp_path: Path
) -> None:
    """Over --alpha, under --set, and behind the gate."""
    recipe = Recipe(alpha=0.5, text_encoder=choice, sets=(("mlp", 0.25),))
    plan, _ = run(recipe, *models, out=tmp_path / "o.safetensors")
    alphas = {x.key: x.alpha for x in plan.actions}
    assert side == alphas[f"{CLIP}encoder.layers.0.self_attn.q_proj.weight"]
    assert 0.25 == alphas[f"{CLIP}encoder.layers.0.mlp.fc1.bias"]
    assert 0.5 == alphas[f"{VAE}encoder.conv_in.weight"]
    key = f"{CLIP}encoder.layers.1.self_attn.q_proj.weight"
    np.testing.assert_array_equal(unet(side)[key], load_file(tmp_path / "o.safetensors")[key])
    gated, _ = run(Recipe(only="attn2", text_encoder="keep-b"), *models, out=tmp_path / "p.safetensors")
    assert any("--text-encoder keep-b" in warning for warning in gated.warnings)


@pytest.mark.parametrize("method", ["add_difference", "ties", "train_difference", "model_stock"])
def test_text_encoders_of_b_are_bs_by_every_method(
    method: str, models: tuple[Path, Path], unet: Build, write: Write, tmp_path: Path
) -> None:
    """keep-b is no alpha of 1, which adds a difference to A's, and needs nothing of the base."""
    base = write("c.safetensors", {k: v for k, v in unet(2).items() if not k.startswith(CLIP)})
    recipe = Recipe(method, alpha=0.5, text_encoder="keep-b", sets=(("mlp", 0.25),))
    run(recipe, *models, base=base, out=tmp_path / "o.safetensors")
    merged, a, b = load_file(tmp_path / "o.safetensors"), unet(0), unet(1)
    for key in (key for key in merged if key.startswith(CLIP) and not key.endswith("position_ids")):
        side = a if ".mlp." in key else b  # the base has no such key, so --set can do nothing
        np.testing.assert_array_equal(side[key], merged[key], err_msg=key)


def test_text_encoders_that_are_not_all_bs(unet: Build, write: Write, tmp_path: Path) -> None:
    """keep-b says what of A's text encoder it has to leave."""
    key = f"{CLIP}encoder.layers.0.mlp.fc1.bias"
    a = write("a.safetensors", unet(0))
    b = write("b.safetensors", unet(1) | {key: np.ones(3, np.float16)})
    plan, _ = run(Recipe(text_encoder="keep-b"), a, b, out=tmp_path / "o.safetensors")
    expected = f"--text-encoder keep-b: 1 keys of A's text encoders stay, such as {key}, since B has nothing"
    assert any(warning.startswith(expected) for warning in plan.warnings)


def test_a_model_without_a_text_encoder(tmp_path: Path, write: Write) -> None:
    """An option on a part that A has not is an error."""
    a = write("a.safetensors", {"w": np.ones(3, np.float32)})
    with pytest.raises(RecipeError, match="holds no text encoder"):
        run(Recipe(text_encoder="keep-a"), a, a, out=tmp_path / "o.safetensors")


def test_ema_copies_are_left_out(unet: Build, write: Write, tmp_path: Path) -> None:
    """--prune-ema: no EMA copy is in the output, each is listed; without any there is a warning."""
    ema = {EMA: np.ones((4, 4, 3, 3), np.float32), "model_ema.decay": np.float32([0.9])}
    a, b = write("a.safetensors", unet(0) | ema), write("b.safetensors", unet(1))
    plan, _ = run(Recipe(alpha=0.0, prune_ema=True), a, b, out=tmp_path / "o.safetensors")
    assert {EMA, "model_ema.decay"} == set(plan.pruned)
    assert unet(0).keys() == load_file(tmp_path / "o.safetensors").keys()
    plan, _ = run(Recipe(alpha=0.0, prune_ema=True), b, b, out=tmp_path / "p.safetensors")
    assert "--prune-ema: A has no EMA copies" in plan.warnings


def test_ema_copies_of_b_are_left_out_too(unet: Build, write: Write, tmp_path: Path) -> None:
    """--prune-ema with --only-in-b add: the output has none, whoever has them."""
    ema = {EMA: np.ones((4, 4, 3, 3), np.float32), "model_ema.decay": np.float32([0.9])}
    vae = {f"{VAE}extra.weight": np.ones(3, np.float32)}
    a, b = write("a.safetensors", unet(0)), write("b.safetensors", unet(1) | ema | vae)
    recipe = Recipe(alpha=0.0, prune_ema=True, only_in_b="add")
    plan, _ = run(recipe, a, b, out=tmp_path / "o.safetensors")
    assert unet(0).keys() | vae.keys() == load_file(tmp_path / "o.safetensors").keys()
    assert ema.keys() == set(plan.dropped)


def test_a_part_that_only_b_has_can_be_named(unet: Build, write: Write, tmp_path: Path) -> None:
    """--only vae and --dtype vae=… speak of B's VAE too where --only-in-b adds it to a model without one."""
    bare = {key: value for key, value in unet(0).items() if not key.startswith(VAE)}
    a, b = write("a.safetensors", bare), write("b.safetensors", unet(1))
    recipe = Recipe(only="vae", only_in_b="add", dtypes=(("vae", "fp32"),))
    run(recipe, a, b, out=tmp_path / "o.safetensors")
    merged = load_file(tmp_path / "o.safetensors")
    assert unet(1).keys() == merged.keys()
    for key, values in merged.items():
        side = unet(1) if key.startswith(VAE) else unet(0)
        np.testing.assert_array_equal(side[key], values, err_msg=key)
        assert (np.float32 if key.startswith(VAE) else side[key].dtype) == values.dtype


def test_dtypes_by_part(models: tuple[Path, Path], unet: Build, tmp_path: Path) -> None:
    """The last selection that names a key says its dtype, else the recipe's; integers stay."""
    recipe = Recipe(alpha=0.5, dtype="fp32", dtypes=(("vae", "bf16"), ("vae,bias", "keep")))
    run(recipe, *models, out=tmp_path / "o.safetensors")
    for key, values in load_torch(tmp_path / "o.safetensors").items():
        if key.endswith("position_ids"):
            assert torch.int64 == values.dtype
        elif key.startswith(VAE):
            assert (torch.float16 if key.endswith("bias") else torch.bfloat16) == values.dtype
        else:
            assert torch.float32 == values.dtype
            if not key.endswith("betas"):
                a, b = (unet(seed)[key].astype(np.float64) for seed in (0, 1))
                np.testing.assert_array_equal((a + 0.5 * (b - a)).astype(np.float32), values.numpy())


def test_what_is_infinite_is_not_clipped(tmp_path: Path, write: Write) -> None:
    """e4m3 has no Inf: it becomes NaN, and is counted as that."""
    a = np.array([1.0, np.inf, np.nan, 500.0], np.float32)
    paths = write("a.safetensors", {"w": a}), write("b.safetensors", {"w": a + 1})
    _, result = run(Recipe(alpha=0.5, dtype="fp8_e4m3"), *paths, out=tmp_path / "o.safetensors")
    assert ({"w": 1}, {"w": 2}) == (result.clipped, result.nonfinite)
    got = load_torch(tmp_path / "o.safetensors")["w"].double().numpy()
    np.testing.assert_array_equal([1.5, np.nan, np.nan, 448.0], got)


@pytest.mark.parametrize(
    ("dtype", "kind", "largest"),
    [("fp8_e4m3", torch.float8_e4m3fn, 448.0), ("fp8_e5m2", torch.float8_e5m2, 57344.0)],
)
def test_fp8(dtype: str, kind: torch.dtype, largest: float, tmp_path: Path, write: Write) -> None:
    """Rounded once to nearest; what fp8 cannot hold is clipped and counted, or Inf and counted."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(5000).astype(np.float32), rng.standard_normal(5000).astype(np.float32)
    a[:3], b[:3] = 2 * largest, 2 * largest
    b[:1] = -6 * largest
    paths = write("a.safetensors", {"w": a}), write("b.safetensors", {"w": b})
    _, result = run(Recipe(alpha=0.5, dtype=dtype), *paths, out=tmp_path / "o.safetensors")
    got = load_torch(tmp_path / "o.safetensors")["w"]
    assert kind == got.dtype
    exact = torch.from_numpy(0.5 * a[3:].astype(np.float64) + 0.5 * b[3:])
    np.testing.assert_array_equal(exact.float().to(kind).double().numpy(), got[3:].double().numpy())
    if dtype == "fp8_e4m3":
        assert ({"w": 3}, {}) == (result.clipped, result.nonfinite)
        assert [-448.0, 448.0, 448.0] == got[:3].double().tolist()
    else:
        assert ({}, {"w": 3}) == (result.clipped, result.nonfinite)
        assert [-np.inf, np.inf, np.inf] == got[:3].double().tolist()


def test_a_selection_of_dtypes_that_hits_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Wrong names and empty selections are errors, as everywhere."""
    with pytest.raises(RecipeError, match="fp17: choose one of"):
        run(Recipe(alpha=0.5, dtypes=(("vae", "fp17"),)), *models, out=tmp_path / "o.safetensors")
    with pytest.raises(RecipeError, match="--dtype OUT11,attn2 selects no key"):
        run(Recipe(alpha=0.5, dtypes=(("OUT11,attn2", "fp16"),)), *models, out=tmp_path / "o.safetensors")
