"""What --dtype makes of quantized weights: codes and scales stay together, or values stand alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan

FP8 = torch.float8_e4m3fn
LAYERS = [f"model.layers.{n}.mlp.up_proj" for n in range(2)]
MARKERS = json.dumps(
    {"format_version": "1.0", "layers": {name: {"format": "float8_e4m3fn"} for name in LAYERS}}
)

Tensors = dict[str, torch.Tensor]


def scaled(seed: int, scale: float) -> Tensors:
    """Two layers in ComfyUI's scaled fp8, with a marker of the whole."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in LAYERS:
        codes = torch.randn(20, 30, generator=generator) * 60
        tensors[f"{name}.weight"] = codes.clamp(-448, 448).to(FP8)
        tensors[f"{name}.weight_scale"] = torch.tensor(scale)
        tensors[f"{name}.bias"] = torch.randn(20, generator=generator).half()
    return tensors | {"scaled_fp8": torch.zeros(2, dtype=FP8)}


def values(path: Path) -> dict[str, np.ndarray]:
    """All tensors as a reader sees them: codes times their scales."""
    found = {}
    with open_checkpoint(path) as model:
        for key, info in model.infos.items():
            raw = np.empty(info.nbytes, np.uint8)
            model.read_into(info, 0, raw)
            found[key] = raw.view({"F32": "<f4", "F16": "<f2"}.get(info.dtype, np.uint8))
    return found


def written(
    tmp_path: Path, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], recipe: Recipe
) -> Plan:
    """Merge two files with ComfyUI's metadata into o.safetensors."""
    for name, tensors in (("a", a), ("b", b)):
        save_file(dict(tensors), tmp_path / f"{name}.safetensors", {"_quantization_metadata": MARKERS})
    out = tmp_path / "o.safetensors"
    with (
        open_checkpoint(tmp_path / "a.safetensors") as one,
        open_checkpoint(tmp_path / "b.safetensors") as two,
    ):
        plan = plan_merge(Inputs(one, two), recipe)
        merge(Inputs(one, two), plan, recipe, out=out, force=True)
    return plan


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_dtype_that_the_codes_have_keeps_their_scales(tmp_path: Path, alpha: float) -> None:
    """--dtype fp8_e4m3 changes nothing about weights that are scaled e4m3 already; only the rest is cast."""
    a, b = scaled(0, 0.013), scaled(1, 0.004)
    written(tmp_path, a, b, Recipe(alpha=alpha))
    expected = values(tmp_path / "o.safetensors")
    written(tmp_path, a, b, Recipe(alpha=alpha, dtype="fp8_e4m3"))
    found = load_file(tmp_path / "o.safetensors")
    assert a.keys() == found.keys()
    got = values(tmp_path / "o.safetensors")
    for name in LAYERS:
        np.testing.assert_array_equal(expected[f"{name}.weight"], got[f"{name}.weight"])
        assert (torch.float32, FP8) == (found[f"{name}.weight_scale"].dtype, found[f"{name}.bias"].dtype)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(alpha=0.0, dtypes=(("kind:other", "fp16"),)),
        Recipe(alpha=0.0, dtypes=(("key:*scale*", "bf16"),)),
        Recipe(alpha=0.0, dtype="bf16", dtypes=(("up_proj,weight", "keep"),)),
    ],
)
def test_scales_that_are_applied_are_never_cast(tmp_path: Path, recipe: Recipe) -> None:
    """A scale in another dtype is another number: the weights that A keeps would not be A's."""
    a = scaled(0, 0.013)
    written(tmp_path, a, scaled(1, 0.004), recipe)
    before, after = values(tmp_path / "a.safetensors"), values(tmp_path / "o.safetensors")
    for name in LAYERS:
        np.testing.assert_array_equal(before[f"{name}.weight"], after[f"{name}.weight"])


@pytest.mark.parametrize(("plain", "left"), [LAYERS, LAYERS[::-1]])
def test_a_selection_becomes_plain_and_the_rest_stays_scaled(tmp_path: Path, plain: str, left: str) -> None:
    """The scales of the rest, its marker and its part of ComfyUI's metadata stay."""
    a = scaled(0, 0.013)
    plan = written(tmp_path, a, scaled(1, 0.004), Recipe(alpha=0.0, dtypes=((f"key:{plain}.*", "fp16"),)))
    found = load_file(tmp_path / "o.safetensors")
    assert a.keys() - {f"{plain}.weight_scale"} == found.keys()
    assert torch.float16 == found[f"{plain}.weight"].dtype
    before, after = values(tmp_path / "a.safetensors"), values(tmp_path / "o.safetensors")
    np.testing.assert_array_equal(before[f"{left}.weight"], after[f"{left}.weight"])
    np.testing.assert_array_equal(before[f"{plain}.weight"].astype(np.float16), after[f"{plain}.weight"])
    with safe_open(tmp_path / "o.safetensors", "np") as file:
        layers = json.loads(file.metadata()["_quantization_metadata"])["layers"]
    assert {left: {"format": "float8_e4m3fn"}} == layers
    assert ("--dtype writes plain values, so 1 scale keys of A are left out",) == plan.warnings


def test_codes_whose_scales_are_not_understood_are_left_alone(tmp_path: Path) -> None:
    """The mean of two codes of different scales is no mean of their values; nor is a cast one."""
    a, b = ({f"{LAYERS[0]}.bias": torch.ones(20)} for _ in "ab")
    for seed, tensors in enumerate((a, b)):
        generator = torch.Generator().manual_seed(seed)
        tensors[f"{LAYERS[0]}.weight"] = torch.randn(20, 30, generator=generator).to(FP8)
        tensors[f"{LAYERS[0]}.weight_scale"] = torch.rand(7, 3, generator=generator)
    plan = written(tmp_path, a, b, Recipe(alpha=0.5, dtype="fp16"))
    found = load_file(tmp_path / "o.safetensors")
    for key in (f"{LAYERS[0]}.weight", f"{LAYERS[0]}.weight_scale"):
        assert a[key].dtype == found[key].dtype
        assert torch.equal(a[key].view(torch.uint8), found[key].view(torch.uint8)), key
    reasons = {action.key: action.reason for action in plan.actions}
    reason = "quantized with scales that are not understood: kept as it is"
    assert reason == reasons[f"{LAYERS[0]}.weight"]
    plain = a | {f"{LAYERS[0]}.weight": torch.ones(20, 30)}
    del plain[f"{LAYERS[0]}.weight_scale"]
    plan = written(tmp_path, plain, b, Recipe(alpha=0.5))  # nor do B's codes get into plain values
    assert reason == {action.key: action.reason for action in plan.actions}[f"{LAYERS[0]}.weight"]


def test_scales_of_other_formats_are_never_cast(tmp_path: Path) -> None:
    """What 4-bit and 8-bit integers are multiplied with has the dtype that its readers expect."""
    layer = LAYERS[0]
    a = {
        f"{layer}.weight": torch.ones(20, 15, dtype=torch.uint8),
        f"{layer}.weight_scale": torch.ones(20, 2).to(FP8),
        f"{layer}.weight_scale_2": torch.tensor(0.1),
        f"{layer}.input_scale": torch.tensor(0.1),
        f"{LAYERS[1]}.weight": torch.ones(20, 15, dtype=torch.uint8),
        f"{LAYERS[1]}.weight.absmax": torch.ones(20),
        f"{LAYERS[1]}.weight.quant_map": torch.linspace(-1, 1, 16),
        "model.norm.weight": torch.ones(20),
    }
    written(tmp_path, a, a, Recipe(alpha=0.5, dtype="bf16"))
    found = load_file(tmp_path / "o.safetensors")
    expected = {key: tensor.dtype for key, tensor in a.items()} | {"model.norm.weight": torch.bfloat16}
    assert expected == {key: tensor.dtype for key, tensor in found.items()}


def test_a_folder_cannot_be_half_quantized(tmp_path: Path) -> None:
    """Its config.json says of all weights that they are quantized; that is refused before any work."""
    a = scaled(0, 0.013)
    paths = []
    for name in "ab":
        paths.append(tmp_path / name)
        paths[-1].mkdir()
        save_file(a, paths[-1] / "model.safetensors", {"format": "pt"})
        config = {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}
        (paths[-1] / "config.json").write_text(json.dumps(config))
        (paths[-1] / "hf_quant_config.json").write_text("{}")
    with open_checkpoint(paths[0]) as one, open_checkpoint(paths[1]) as two:
        inputs = Inputs(one, two)
        recipe = Recipe(alpha=0.0, dtypes=((f"key:{LAYERS[0]}.*", "fp16"),))
        with pytest.raises(RecipeError, match="1 weights would stay quantized"):
            merge(inputs, plan_merge(inputs, recipe), recipe, out=tmp_path / "half")
        assert not (tmp_path / "half").exists()
        whole = Recipe(alpha=0.0, dtype="fp16")
        merge(inputs, plan_merge(inputs, whole), whole, out=tmp_path / "o")
    assert ["config.json", "model.safetensors"] == sorted(path.name for path in (tmp_path / "o").iterdir())
    assert {"torch_dtype": "float16"} == json.loads((tmp_path / "o/config.json").read_text())
