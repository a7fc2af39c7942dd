"""Merges of scaled fp8 and of GGUF, against numpy: codes of A's dtype in A's scales, or plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.merge import MergeResult, merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.scan import scan

FP8 = torch.float8_e4m3fn
Tensors = Mapping[str, torch.Tensor]


def run_merge(a: Path, b: Path, out: Path, recipe: Recipe) -> MergeResult:
    """Open, plan and merge."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        return merge(Inputs(model_a, model_b), plan_merge(Inputs(model_a, model_b), recipe), recipe, out=out)


def save(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(dict(tensors), path, metadata)
    return path


def scaled(seed: int, *, scale: float) -> dict[str, torch.Tensor]:
    """A layer in ComfyUI's scaled fp8, and a plain one."""
    generator = torch.Generator().manual_seed(seed)
    codes = (torch.randn(40, 50, generator=generator) * 60).clamp(-448, 448).to(FP8)
    return {
        "layers.0.mlp.weight": codes,
        "layers.0.mlp.weight_scale": torch.tensor(scale, dtype=torch.float32),
        "layers.0.mlp.bias": torch.randn(40, generator=generator, dtype=torch.float16),
    }


def values(tensors: Tensors) -> NDArray[np.float32]:
    """What the layer's codes stand for: the product with the scale, rounded to fp32."""
    codes = tensors["layers.0.mlp.weight"].to(torch.float32).numpy().astype(np.float64)
    return (codes * float(tensors["layers.0.mlp.weight_scale"])).astype(np.float32)


def nearest_codes(numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The nearest finite e4m3 numbers by trying them all; of two that are as near, the even code."""
    table = torch.arange(127, dtype=torch.uint8).view(FP8).to(torch.float64).numpy()
    distance = np.abs(np.abs(numbers)[..., None] - table)
    order = np.arange(127) * 1e-300 + (np.arange(127) % 2) * 1e-200  # below any distance that is not a tie
    best = np.argmin(np.where(distance == distance.min(-1, keepdims=True), order, 1.0), axis=-1)
    return (best | np.where(np.signbit(numbers), 0x80, 0)).astype(np.uint8)


@pytest.mark.parametrize("alpha", [0.5, 0.1, 1.0])
def test_a_blend_is_written_in_as_codes_and_scales(tmp_path: Path, alpha: float) -> None:
    """B, scaled otherwise, is dequantised, blended in fp64 and stored as A is; A's scale stays."""
    a, b = scaled(0, scale=0.01), scaled(1, scale=0.004)
    out = tmp_path / "o.safetensors"
    result = run_merge(
        save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b), out, Recipe(alpha=alpha)
    )
    one, two = values(a).astype(np.float64), values(b).astype(np.float64)
    blend = two if alpha == 1 else one + alpha * (two - one)
    expected = nearest_codes(blend / np.float64(np.float32(0.01)))
    got = load_file(out)
    np.testing.assert_array_equal(expected, got["layers.0.mlp.weight"].view(torch.uint8).numpy())
    assert torch.equal(a["layers.0.mlp.weight_scale"], got["layers.0.mlp.weight_scale"])
    assert a.keys() == got.keys()
    assert {} == result.clipped


def test_alpha_zero_keeps_the_codes(tmp_path: Path) -> None:
    """Nothing is dequantised and quantised again where A is kept."""
    a, b = scaled(0, scale=0.01), scaled(1, scale=0.004)
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)
    run_merge(*paths, out, Recipe(alpha=0.0))
    for key, tensor in load_file(out).items():
        assert torch.equal(a[key].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), key


def test_values_beyond_as_scale_are_clipped_and_counted(tmp_path: Path) -> None:
    """B is a thousand times larger: what A's codes cannot say becomes the largest of them."""
    a, b = scaled(0, scale=0.01), scaled(1, scale=10.0)
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)
    result = run_merge(*paths, out, Recipe(alpha=1.0))
    ratio = np.abs(values(b).astype(np.float64) / np.float64(np.float32(0.01)))
    beyond = int(np.count_nonzero(ratio >= 464))  # half way from 448 to the number after it, an odd code
    assert beyond > 1000
    assert {"layers.0.mlp.weight": beyond} == dict(result.clipped)
    got = load_file(out)["layers.0.mlp.weight"].to(torch.float32).numpy()
    np.testing.assert_array_equal(448, np.abs(got[ratio >= 464]))


@pytest.mark.parametrize(("name", "numpy"), [("fp16", np.float16), ("fp32", np.float32)])
def test_a_plain_dtype_leaves_the_scales_out(tmp_path: Path, name: str, numpy: type[np.floating]) -> None:
    """--dtype writes dequantised values; scales and markers, which would be applied again, are gone."""
    a, b = scaled(0, scale=0.01), scaled(1, scale=0.004)
    a["scaled_fp8"] = torch.zeros(2, dtype=FP8)
    metadata = {"title": "A", "_quantization_metadata": "{}"}
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a, metadata), save(tmp_path / "b.safetensors", b)
    run_merge(*paths, out, Recipe(alpha=0.5, dtype=name))
    got = load_file(out)
    assert ["layers.0.mlp.bias", "layers.0.mlp.weight"] == sorted(got)
    one, two = values(a).astype(np.float64), values(b).astype(np.float64)
    np.testing.assert_array_equal((one + 0.5 * (two - one)).astype(numpy), got["layers.0.mlp.weight"].numpy())
    with safe_open(out, "np") as file:
        assert {"format", "title", "mergescope.recipe"} == set(file.metadata())
    run_merge(*paths, tmp_path / "kept.safetensors", Recipe(alpha=0.0, dtype=name))
    kept = load_file(tmp_path / "kept.safetensors")
    np.testing.assert_array_equal(values(a).astype(numpy), kept["layers.0.mlp.weight"].numpy())


def test_scales_of_weights_that_stay_quantized_stay(tmp_path: Path) -> None:
    """With two scales a weight is not understood, and cast as it is stored: its scales are not lost."""
    a = scaled(0, scale=0.01) | {
        "layers.1.mlp.weight": torch.ones(40, 25, dtype=torch.uint8),
        "layers.1.mlp.weight_scale": torch.ones(40, 4).to(FP8),
        "layers.1.mlp.weight_scale_2": torch.tensor(3.0),
    }
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", a)
    run_merge(*paths, out, Recipe(alpha=0.5, dtype="fp16"))
    assert set(a) - {"layers.0.mlp.weight_scale"} == set(load_file(out))


def test_a_plain_dtype_keeps_what_is_only_called_a_scale(tmp_path: Path) -> None:
    """Learned scales of a QK norm are no scales of codes: merged in A's model, and added from B's."""
    a, b = scaled(0, scale=0.01), scaled(1, scale=0.004)
    learned = {f"blocks.{i}.attn.{x}_scale": torch.full((8,), float(i + 1)) for i in range(2) for x in "qk"}
    learned["layers.0.mlp.k_scale"] = torch.ones(8)  # beside a weight in fp8
    own = [key for key in learned if ".0." in key]
    a |= {key: learned[key] for key in own}
    a |= {"layers.0.mlp.input_scale": torch.tensor(2.0), "layers.0.mlp.output_scale": torch.tensor([2.0])}
    a["layers.0.mlp.comfy_quant"] = torch.ones(9, dtype=torch.uint8)
    b |= {key: 3 * tensor for key, tensor in learned.items()}
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)
    run_merge(*paths, out, Recipe(alpha=0.5, dtype="fp16", only_in_b="add"))
    got = load_file(out)
    assert {"layers.0.mlp.weight", "layers.0.mlp.bias", *learned} == set(got)
    for key, tensor in learned.items():
        assert torch.equal((tensor * (2 if key in own else 3)).half(), got[key]), key


def test_a_network_with_other_codes_keeps_its_marker(tmp_path: Path) -> None:
    """A marker is for all weights of its network; one of another network goes with its own."""
    layer = scaled(0, scale=0.01)
    a = {f"{net}.{key}": tensor.clone() for net in ("one", "two", "three") for key, tensor in layer.items()}
    a |= {f"{net}.scaled_fp8": torch.zeros(2, dtype=FP8) for net in ("one", "two", "four")}
    a |= {
        "two.layers.1.mlp.weight": torch.ones(40, 25, dtype=torch.uint8),
        "two.layers.1.mlp.weight_scale": torch.ones(40, 4).to(FP8),
    }
    out = tmp_path / "o.safetensors"
    path = save(tmp_path / "a.safetensors", a)
    run_merge(path, path, out, Recipe(alpha=0.5, dtype="fp16"))
    gone = {f"{net}.layers.0.mlp.weight_scale" for net in ("one", "two", "three")}
    assert {*gone, "one.scaled_fp8"} == a.keys() - load_file(out).keys()


def test_scales_of_stacked_experts_stay(tmp_path: Path) -> None:
    """Their names are the tensors' with `_scale` behind, whatever the tensors are called."""
    keys = [f"model.layers.{i}.mlp.experts.{name}" for i in range(2) for name in ("down_proj", "w1", "wo")]
    rng = np.random.default_rng(0)
    codes = {
        side: {key: torch.from_numpy(rng.normal(0, 40, (2, 8, 16))).clamp(-448, 448).to(FP8) for key in keys}
        for side in "ab"
    }
    scales = {
        side: torch.tensor([one, 2 * one], dtype=torch.float32).reshape(2, 1, 1).repeat(1, 1, 16)
        for side, one in (("a", 0.01), ("b", 0.04))
    }
    models = {
        side: own | {f"{key}_scale": scales[side].clone() for key in own} for side, own in codes.items()
    }
    paths = [save(tmp_path / f"{side}.safetensors", models[side]) for side in "ab"]
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        plan = plan_merge(Inputs(a, b), Recipe(alpha=0.5))
        result = merge(Inputs(a, b), plan, Recipe(alpha=0.5), out=tmp_path / "o.safetensors")
    reasons = {x.key: x.reason for x in plan.actions}
    got = load_file(tmp_path / "o.safetensors")
    assert models["a"].keys() == got.keys()
    clipped = {}
    for key in keys:
        one, two = (
            (codes[side][key].to(torch.float64) * scales[side].double()).float().double().numpy()
            for side in "ab"
        )
        quotients = (one + 0.5 * (two - one)) / scales["a"].double().numpy()
        clipped[key] = int(np.count_nonzero(np.abs(quotients) >= 464))
        np.testing.assert_array_equal(nearest_codes(quotients), got[key].view(torch.uint8).numpy())
        assert torch.equal(scales["a"], got[f"{key}_scale"])
        assert f"scale of {key}: kept, since its codes are written for it" == reasons[f"{key}_scale"]
    assert {key: count for key, count in clipped.items() if count} == dict(result.clipped)
    run_merge(*paths, tmp_path / "plain.safetensors", Recipe(alpha=0.5, dtype="fp16"))
    assert set(keys) == set(load_file(tmp_path / "plain.safetensors"))


@pytest.mark.parametrize("shape", [(48, 1), (48,), (6, 4)], ids=["rows", "rows, one axis", "blocks"])
def test_rows_of_a_fused_tensor_keep_their_own_scales(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A's query, key and value lie in one tensor whose rows have scales of their own; B has them apart."""
    rng = np.random.default_rng(0)
    a: dict[str, torch.Tensor] = {}
    b: dict[str, torch.Tensor] = {}
    words = {"img": ("to_q", "to_k", "to_v"), "txt": ("add_q_proj", "add_k_proj", "add_v_proj")}
    for side, names in words.items():
        key = f"double_blocks.0.{side}_attn.qkv.weight"
        a[key] = torch.from_numpy(rng.normal(0, 60, (48, 16))).clamp(-448, 448).to(FP8)
        a[f"{key}_scale"] = torch.from_numpy(rng.uniform(0.001, 0.1, shape).astype(np.float32))
        for name in names:
            values = rng.normal(0, 1, (16, 16)).astype(np.float32)
            b[f"transformer_blocks.0.attn.{name}.weight"] = torch.from_numpy(values)
    a["final_layer.adaLN_modulation.1.weight"] = torch.ones(32, 16)
    b["norm_out.linear.weight"] = torch.ones(32, 16)
    out = tmp_path / "o.safetensors"
    run_merge(
        save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b), out, Recipe(alpha=0.5)
    )
    got = load_file(out)
    assert a.keys() == got.keys()
    for side, names in words.items():
        key = f"double_blocks.0.{side}_attn.qkv.weight"
        scale = a[f"{key}_scale"].double().numpy()
        grid = scale.reshape(48, 1) if 48 in shape else scale.repeat(8, 0).repeat(4, 1)
        one = (a[key].double().numpy() * grid).astype(np.float32).astype(np.float64)
        two = np.concatenate([b[f"transformer_blocks.0.attn.{name}.weight"].double() for name in names])
        blend = one + 0.5 * (two - one)
        np.testing.assert_array_equal(nearest_codes(blend / grid), got[key].view(torch.uint8).numpy())
        assert torch.equal(a[f"{key}_scale"], got[f"{key}_scale"])


def test_keys_added_from_scaled_fp8_are_plain(tmp_path: Path) -> None:
    """A has no fp8: B's layer comes as fp32 without its scale, and B's other scales are left out."""
    b = scaled(1, scale=0.004)
    b |= {key.replace("0", "1"): tensor.clone() for key, tensor in b.items()}
    a = {"layers.0.mlp.weight": torch.ones(40, 50), "layers.0.mlp.bias": torch.ones(40)}
    out = tmp_path / "o.safetensors"
    paths = save(tmp_path / "a.safetensors", a), save(tmp_path / "b.safetensors", b)
    run_merge(*paths, out, Recipe(alpha=1.0, only_in_b="add"))
    got = load_file(out)
    assert {*a, "layers.1.mlp.weight", "layers.1.mlp.bias"} == set(got)
    np.testing.assert_array_equal(values(b), got["layers.0.mlp.weight"].numpy())
    np.testing.assert_array_equal(values(b), got["layers.1.mlp.weight"].numpy())


def write_gguf(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> Path:
    """A GGUF of Q8_0 blocks, by the reference package."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "flux")
    kind = gguf.GGMLQuantizationType.Q8_0
    for key, tensor in tensors.items():
        writer.add_tensor(key, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_b_may_be_gguf(tmp_path: Path) -> None:
    """Its values are dequantised and blended; an added key is written as these values."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    key, other = "double_blocks.0.img_mlp.0.weight", "double_blocks.1.img_mlp.0.weight"
    tensors = {name: rng.standard_normal((8, 64)).astype(np.float32) for name in (key, other)}
    b = write_gguf(tmp_path / "b.gguf", tensors)
    a = {key: torch.from_numpy(rng.standard_normal((8, 64)).astype(np.float16))}
    kind = gguf.GGMLQuantizationType.Q8_0
    two = {k: gguf.quants.dequantize(gguf.quants.quantize(t, kind), kind) for k, t in tensors.items()}
    out = tmp_path / "o.safetensors"
    run_merge(save(tmp_path / "a.safetensors", a), b, out, Recipe(alpha=0.5, only_in_b="add"))
    got = load_file(out)
    one = a[key].numpy().astype(np.float64)
    np.testing.assert_array_equal((one + 0.5 * (two[key] - one)).astype(np.float16), got[key].numpy())
    np.testing.assert_array_equal(two[other], got[other].numpy())


def test_a_may_not_be_gguf(tmp_path: Path) -> None:
    """A merge is written as A is, and GGUF is not written: by itself or as a shard of a folder."""
    tensors = {"blocks.0.weight": np.ones((8, 64), np.float32)}
    a = write_gguf(tmp_path / "a.gguf", tensors)
    b = save(tmp_path / "b.safetensors", {k: torch.from_numpy(v) for k, v in tensors.items()})
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (1, 2):
        write_gguf(
            folder / f"m-0000{number}-of-00002.gguf",
            {f"blocks.{number - 1}.weight": np.ones((8, 64), np.float32)},
        )
    for model in (a, folder):
        with pytest.raises(RecipeError, match="GGUF is read and not written"):
            run_merge(model, b, tmp_path / "o.safetensors", Recipe(alpha=0.5))


def test_the_recipe_of_an_fp8_merge_is_written(tmp_path: Path) -> None:
    """The fingerprints of scaled models are in the metadata like all others."""
    paths = [save(tmp_path / f"{n}.safetensors", scaled(i, scale=0.01)) for i, n in enumerate("ab")]
    run_merge(*paths, tmp_path / "o.safetensors", Recipe(alpha=0.5))
    with safe_open(tmp_path / "o.safetensors", "np") as file:
        recipe = json.loads(file.metadata()["mergescope.recipe"])
    with open_checkpoint(paths[1]) as model:
        assert model.fingerprint() == recipe["inputs"]["b"]["fingerprint"]


def test_scales_that_make_up_a_value_are_in_no_list(tmp_path: Path) -> None:
    """Scaled fp8 against a plain copy of its values: nothing is missing on either side."""
    one = scaled(0, scale=0.01)
    plain = {
        "layers.0.mlp.weight": torch.from_numpy(values(one)),
        "layers.0.mlp.bias": one["layers.0.mlp.bias"],
    }
    paths = save(tmp_path / "a.safetensors", one), save(tmp_path / "b.safetensors", plain)
    for first, second in (paths, paths[::-1]):
        with open_checkpoint(first) as a, open_checkpoint(second) as b:
            result = scan(a, b)
        assert ((), ()) == (result.only_in_a, result.only_in_b)
        assert 0 == sum(row.sums.changed for row in result.keys)


def test_what_was_odd_about_the_files_is_said_before_a_merge(tmp_path: Path) -> None:
    """One shard of a model, named by itself, is a third of a model: the plan says so."""
    shard = save(tmp_path / "model-00001-of-00003.safetensors", scaled(0, scale=0.01))
    with open_checkpoint(shard) as a, open_checkpoint(shard) as b:
        assert a.notes
        assert set(a.notes) <= set(plan_merge(Inputs(a, b), Recipe(alpha=0.5)).warnings)
