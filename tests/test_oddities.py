"""What is odd about a model is said, in a sentence each, and what is not odd is not mentioned."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.inspection import Inspection, inspect_model

sys.path.append(str(Path(__file__).resolve().parent / "layouts"))
import layouts

POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
UNET = "model.diffusion_model"
WAY_OUT = "merge with --position-ids reset puts them right"

Tensors = Mapping[str, torch.Tensor]


def sd15(dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """A Stable Diffusion 1.5 without its encoder's sizes: real names, and nothing odd about it."""
    infos = layouts.infos("sd15-ldm", scale=True)
    tensors = {
        i.key: torch.zeros(i.shape, dtype=torch.int64 if i.dtype == "I64" else dtype)
        for i in infos
        if i.key.startswith((UNET, "cond_stage_model.transformer.text_model.embeddings"))
    }
    return tensors | {POSITIONS: torch.arange(77)[None]}


def llama(*, head: bool) -> dict[str, torch.Tensor]:
    infos = layouts.infos("llama31-8b", scale=True)
    return {
        i.key: torch.zeros(i.shape, dtype=torch.bfloat16) for i in infos if head or i.key != "lm_head.weight"
    }


def inspected(folder: Path, tensors: Tensors, *, deep: bool = False) -> Inspection:
    path = folder / "m.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    with open_checkpoint(path) as checkpoint:
        return inspect_model(checkpoint, deep=deep)


def odd(folder: Path, tensors: Tensors, *, deep: bool = False) -> list[str]:
    return list(inspected(folder, tensors, deep=deep).oddities)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_model_is_not_odd(tmp_path: Path, deep: bool) -> None:
    """Nothing to say of it, whether its values are read or not."""
    assert [] == odd(tmp_path, sd15(), deep=deep)
    assert [] == odd(tmp_path, llama(head=True), deep=deep)


def test_types_that_stand_side_by_side(tmp_path: Path) -> None:
    """By part, the commonest first; integers and schedules do not count."""
    model = sd15() | {"betas": torch.zeros(3), "alphas_cumprod": torch.zeros(3, dtype=torch.float64)}
    for number in (0, 2):
        model[f"{UNET}.time_embed.{number}.bias"] = torch.zeros(4)
    model[f"{UNET}.out.0.bias"] = torch.zeros(4, dtype=torch.bfloat16)
    count = sum(tensor.dtype == torch.float16 and key.startswith(UNET) for key, tensor in model.items())
    assert [f"unet mixes fp16 ({count} keys), fp32 (2 keys), bf16 (1 key)"] == odd(tmp_path, model)


def test_parts_of_different_types_are_no_mixture(tmp_path: Path) -> None:
    """An fp32 VAE beside an fp16 U-Net is how models are published."""
    model = sd15() | {"first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)}
    assert [] == odd(tmp_path, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_positions_that_are_no_integers(tmp_path: Path, dtype: torch.dtype) -> None:
    """A careless cast leaves them so; the numbers themselves are still right in every one of these types."""
    names = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}
    model = sd15() | {POSITIONS: torch.arange(77, dtype=dtype)[None]}
    expected = f"{POSITIONS} is {names[dtype]} and not int64, as a careless cast leaves it; {WAY_OUT}"
    assert [expected] == odd(tmp_path, model) == odd(tmp_path, model, deep=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float16, torch.bfloat16, torch.float32])
def test_positions_that_are_wrong(tmp_path: Path, dtype: torch.dtype) -> None:
    """What averaging does to them is counted, when values are read: some round to their neighbours."""
    positions = (torch.arange(77, dtype=torch.float32) * 0.9 + torch.arange(77) * 0.1).to(dtype)
    positions[[3, 76]] = torch.tensor([5, 0], dtype=dtype)
    wrong = int(np.count_nonzero(positions.to(torch.float64).numpy() != np.arange(77)))
    assert wrong >= 2
    model = sd15() | {POSITIONS: positions[None]}
    expected = f"{wrong} of the 77 values of {POSITIONS} are wrong; {WAY_OUT}"
    assert [expected] == odd(tmp_path, model, deep=True)
    assert expected not in odd(tmp_path, model)


def test_other_tables_of_positions_are_left_alone(tmp_path: Path) -> None:
    """BERT has 512 of them, and they are none of CLIP's."""
    assert [] == odd(tmp_path, sd15() | {"bert.embeddings.position_ids": torch.zeros(1, 512)}, deep=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_broken_values_are_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    """NaN and Inf of either sign, wherever they stand, against a count by NumPy; the gravest comes first."""
    make = torch.Generator().manual_seed(3)
    model = sd15(dtype)
    keys = [
        f"{UNET}.out.2.weight",
        f"{UNET}.time_embed.0.weight",
        f"{UNET}.time_embed.2.bias",
        f"{UNET}.out.0.bias",
    ]
    for key in keys:
        flat = torch.randn(model[key].numel(), generator=make).to(dtype)
        for value in (float("nan"), float("inf"), -float("inf")):
            flat[torch.randint(len(flat), (2,), generator=make)] = value
        model[key] = flat.reshape(model[key].shape)
    expected = {
        key: int(np.count_nonzero(~np.isfinite(tensor.to(torch.float64).numpy())))
        for key, tensor in model.items()
    }
    expected = {key: count for key, count in expected.items() if count}
    found = inspected(tmp_path, model, deep=True)
    assert expected == found.nonfinite
    said = found.oddities[0]
    assert said.startswith(f"{sum(expected.values())} values are NaN or Inf, in {UNET}.out.")
    assert said.endswith(" and 1 more")
    assert inspected(tmp_path, model).nonfinite is None


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_broken_fp8_is_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    """NaN in both, Inf only where the type has it: every code once, against torch's own table."""
    codes = torch.arange(256, dtype=torch.uint8)
    broken = int((~torch.isfinite(codes.view(dtype).float())).sum())
    found = inspected(
        tmp_path, sd15() | {f"{UNET}.out.2.weight": codes.view(dtype).reshape(16, 16)}, deep=True
    )
    assert {f"{UNET}.out.2.weight": broken} == found.nonfinite


def test_values_beyond_one_chunk_are_read(tmp_path: Path) -> None:
    """The last element of a tensor that is read in pieces."""
    large = torch.zeros(1_500_001)
    large[[0, 700_000, -1]] = float("nan")
    found = inspected(tmp_path, {"a.weight": large}, deep=True)
    assert {"a.weight": 3} == found.nonfinite
    assert ("3 values are NaN or Inf, in a.weight",) == found.oddities


def test_fp64_is_a_leftover(tmp_path: Path) -> None:
    """Of weights, not of schedules, which are often fp64."""
    model = sd15(torch.float64) | {"betas": torch.zeros(3, dtype=torch.float64)}
    only = {
        key: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for key, tensor in model.items()
    }
    one = only | {f"{UNET}.out.0.bias": torch.zeros(4, dtype=torch.float64)}
    assert "1 key is fp64, twice the size of fp32 without any use" in odd(tmp_path, one)
    counted = sum(tensor.is_floating_point() for key, tensor in model.items() if key != "betas")
    assert [f"{counted} keys are fp64, twice the size of fp32 without any use"] == odd(tmp_path, model)
    assert [] == odd(tmp_path, only | {"betas": torch.zeros(3, dtype=torch.float64)})


def test_averages_are_ignored_when_generating(tmp_path: Path) -> None:
    """How many, and how much a file without them would be smaller."""
    model = sd15()
    copies = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": tensor.float()
        for key, tensor in model.items()
        if key.startswith(UNET)
    }
    size = sum(tensor.numel() * 4 for tensor in copies.values()) / 1e6
    expected = f"{len(copies)} keys are EMA copies ({size:,.1f} MB), which generating does not need"
    assert [expected] == odd(tmp_path, model | copies)
    key = next(iter(copies))
    assert any(s.startswith("1 key is an EMA copy (") for s in odd(tmp_path, model | {key: copies[key]}))


@pytest.mark.parametrize(
    ("markers", "expected"),
    [
        (["v_pred"], ["is marked for v-prediction (v_pred)"]),
        (["v_pred", "ztsnr"], ["is marked for v-prediction (v_pred) and zero terminal SNR (ztsnr)"]),
        (["ztsnr"], []),
    ],
)
def test_markers_say_how_a_model_predicts(tmp_path: Path, markers: list[str], expected: list[str]) -> None:
    """Empty keys, which most tools take no notice of."""
    assert expected == odd(tmp_path, sd15() | {name: torch.zeros(0) for name in markers})


@pytest.mark.parametrize(("channels", "kind"), [(9, "inpainting"), (8, "pix2pix"), (4, ""), (5, "")])
@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_more_input_channels_are_another_kind_of_model(
    tmp_path: Path, channels: int, kind: str, layout: str
) -> None:
    """Told by the first layer, in either layout of Stable Diffusion; the VAE's first layer is none of it."""
    expected = [f"takes {channels} input channels, as {kind} models do"] if kind else []
    if layout == "ldm":
        model = sd15() | {f"{UNET}.input_blocks.0.0.weight": torch.zeros(4, channels, 3, 3).half()}
        model["first_stage_model.encoder.conv_in.weight"] = torch.zeros(4, 8, 3, 3)
    else:
        infos = layouts.infos("sd15-unet-diffusers", scale=True)
        model = {info.key: torch.zeros(info.shape) for info in infos}
        model["conv_in.weight"] = torch.zeros(4, channels, 3, 3)
    assert expected == odd(tmp_path, model)


@pytest.mark.parametrize("name", ["sd15-inpainting-ldm", "sd15-pix2pix-ldm"])
def test_published_models_of_these_kinds(tmp_path: Path, name: str) -> None:
    """As Runway and Tim Brooks published them."""
    with open_checkpoint(layouts.write(name, tmp_path / "m.safetensors")) as checkpoint:
        said = inspect_model(checkpoint).oddities
    kind = name.split("-")[1]
    assert [kind] == [kind for sentence in said if f" input channels, as {kind} models do" in sentence]


def test_scaled_fp8_is_read_as_what_it_stands_for(tmp_path: Path) -> None:
    """One key or several; the scales are no weights, and unknown to nobody."""
    model = llama(head=True)
    for number, said in enumerate(("1 key is", "2 keys are"), 1):
        key = f"model.layers.{number}.mlp.down_proj.weight"
        model[key] = torch.zeros(model[key].shape, dtype=torch.float8_e4m3fn)
        model[f"{key}_scale"] = torch.ones(1)
        found = odd(tmp_path, model)
        assert f"{said} scaled fp8, compared as the values of code × scale" in found
        assert any(s.startswith("transformer mixes bf16 (") for s in found)
        assert 2 == len(found)


def test_a_head_that_is_not_there_is_tied(tmp_path: Path) -> None:
    """Llama 3.2 and Gemma have none; encoders and image models do not miss one."""
    assert ["stores no output head: it is tied to the token embedding"] == odd(tmp_path, llama(head=False))
    for name in ("t5-xxl-encoder", "bert-base", "clip-l-transformers", "flux-schnell-bfl"):
        with open_checkpoint(layouts.write(name, tmp_path / "m.safetensors")) as checkpoint:
            assert not any("output head" in sentence for sentence in inspect_model(checkpoint).oddities)


def test_keys_that_no_rule_knows(tmp_path: Path) -> None:
    """Counted by network; a model of an unknown kind is not told off for every key."""
    model = sd15() | {f"{UNET}.strange.thing": torch.zeros(2).half()}
    expected = "{} of the Stable Diffusion 1.x {} known to no rule, and labelled by name alone"
    assert [expected.format("1 key", "is")] == odd(tmp_path, model)
    found = inspected(tmp_path, model | {f"{UNET}.stranger": torch.zeros(2).half()})
    assert [expected.format("2 keys", "are")] == list(found.oddities)
    assert [2] == [part.unknown for part in found.parts if part.tally.name == "unet"]
    assert [] == odd(tmp_path, {"some.thing.weight": torch.zeros(2)})


def test_markers_and_schedules_are_known_everywhere(tmp_path: Path) -> None:
    """They stand inside networks too, as ComfyUI's `scaled_fp8` does."""
    model = {i.key: torch.zeros(i.shape).bfloat16() for i in layouts.infos("flux-schnell-bfl", scale=True)}
    model = {f"model.diffusion_model.{key}": tensor for key, tensor in model.items()}
    found = inspected(tmp_path, model | {"model.diffusion_model.scaled_fp8": torch.zeros(2)})
    assert ((), 0) == (found.oddities, sum(part.unknown for part in found.parts))


def test_notes_of_the_container_are_passed_on(tmp_path: Path) -> None:
    """A shard that was named by itself."""
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"a.weight": torch.zeros(2)}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.notes == inspect_model(checkpoint).oddities
        assert 1 == len(checkpoint.notes)


def test_everything_at_once_has_an_order(tmp_path: Path) -> None:
    """Broken values, broken tables, mixtures, leftovers, the kind of model, unknown keys."""
    model = sd15() | {
        POSITIONS: torch.zeros(1, 77),
        f"{UNET}.out.2.bias": torch.full((4,), float("nan"), dtype=torch.float64),
        "model_ema.diffusion_modelout2bias": torch.zeros(4),
        "v_pred": torch.zeros(0),
        f"{UNET}.strange": torch.zeros(3).half(),
    }
    said = odd(tmp_path, model, deep=True)
    signs = ["NaN or Inf", "76 of the 77", "mixes", " fp64, ", "EMA", "v-prediction", "known to no rule"]
    assert len(signs) == len(said)
    assert all(sign in sentence for sign, sentence in zip(signs, said, strict=True))
