"""What ComfyUI and the WebUI look at in a file is in our outputs as it is in A.

Models have all keys of published files. Those whose shapes the two look at have their real shapes, and the
rest are small. `detection` says what is looked at, and where that stands in their sources.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from detection import Tensor, comfyui, webui
from real_shapes import build, layouts
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Pair = Callable[[str], list[Path]]
Run = Callable[..., Any]

# What the published files are: ComfyUI's class, input channels, prediction, and the WebUI's configuration.
KINDS = {
    "sd15-ldm": ("SD15", 4, "noise", "v1"),
    "sd15-ldm-ema": ("SD15", 4, "noise", "v1"),
    "sd15-inpainting-ldm": ("SD15", 9, "noise", "v1-inpainting"),
    "sd15-pix2pix-ldm": ("SD15_instructpix2pix", 8, "noise", "instruct-pix2pix"),
    "sd21-ldm": ("SD20", 4, "by a bias", "v2"),
    "sdxl-base-sgm": ("SDXL", 4, "noise", "sd_xl_base"),
    "sdxl-vpred": ("SDXL", 4, "velocity, zero snr", "sd_xl_v"),
    "sdxl-refiner-sgm": ("SDXLRefiner", 4, "noise", "sd_xl_refiner"),
    "sd3-medium-comfy": ("SD3", 16, "flow", "sd3"),
    "flux-dev-bfl": ("Flux", 16, "flow", None),
    "flux-schnell-bfl": ("FluxSchnell", 16, "flow", None),
    "flux-dev-comfy-fp8": ("Flux", 16, "flow", None),
    "flux-dev-scaled-fp8-comfy": ("Flux", 16, "flow", None),
}
CAST = (
    "sd15-ldm",
    "sd21-ldm",
    "sdxl-vpred",
    "sdxl-refiner-sgm",
    "sd3-medium-comfy",
    "flux-dev-scaled-fp8-comfy",
)
MARKS = ("v_pred", "ztsnr")
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def header(path: Path) -> dict[str, Tensor]:
    """Dtype and shape by key, as the file says."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return {key: (entry["dtype"], tuple(entry["shape"])) for key, entry in entries.items()}


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Two files of a layout, made when they are first asked for; no test changes them."""

    @cache
    def pair(name: str) -> list[Path]:
        root = tmp_path_factory.mktemp(name)
        return [build(name, root / f"{i}.safetensors", seed=i) for i in range(2)]

    return pair


@pytest.fixture(params=sorted(KINDS))
def published(request: pytest.FixtureRequest, pair_of: Pair) -> tuple[str, list[Path]]:
    """The name of a layout, and two files of it."""
    return request.param, pair_of(request.param)


def test_the_conditions_tell_the_published_files_apart() -> None:
    """On the real shapes, the conditions as we have written them down give what the files are known to be."""
    for name, (kind, channels, predicts, config) in KINDS.items():
        found = comfyui(layouts.load(name))
        assert (kind, channels, predicts) == (found["kind"], found["channels"], found["predicts"]), name
        if config:
            assert config == webui(layouts.load(name)), name


def test_a_merge_is_taken_for_what_a_is(published: tuple[str, list[Path]], tmp_path: Path, run: Run) -> None:
    """Kind, prediction, fp8, parts and configuration are those of the published file; so are all dtypes."""
    name, files = published
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", "0.3").code
    merged = header(out)
    assert header(files[0]) == merged
    assert list(header(files[0])) == list(merged)
    assert comfyui(layouts.load(name)) == comfyui(merged)
    assert webui(layouts.load(name)) == webui(merged)


@pytest.mark.parametrize("published", CAST, indirect=True)
def test_a_cast_merge_is_taken_for_what_a_is(
    published: tuple[str, list[Path]], tmp_path: Path, run: Run
) -> None:
    """With --dtype fp16 the kind stays, integers stay, and scaled fp8 is announced no longer."""
    name, files = published
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", "0.3", "--dtype", "fp16").code
    merged = header(out)
    wanted = comfyui(layouts.load(name))
    wanted.pop("fp8", None)
    assert wanted == comfyui(merged)
    assert webui(layouts.load(name)) == webui(merged)
    assert not [key for key in merged if key.endswith(("scaled_fp8", "scale_weight", "scale_input"))]
    before = header(files[0])
    for key, (dtype, shape) in merged.items():
        floating = before[key][0].startswith(("F", "BF"))
        assert ("F16" if floating else before[key][0], before[key][1]) == (dtype, shape), key


def test_marks_are_empty_tensors_and_stay_so(pair_of: Pair, tmp_path: Path, run: Run) -> None:
    """`v_pred` and `ztsnr` are marks by their presence: A's stay byte for byte, B's do not come over."""
    velocity, noise = pair_of("sdxl-vpred")[0], pair_of("sdxl-base-sgm")[1]
    for name, a, b, marks in (("v", velocity, noise, {"v_pred", "ztsnr"}), ("e", noise, velocity, set())):
        out = tmp_path / f"{name}-merged.safetensors"
        assert 0 == run("merge", a, b, "-o", out, "--alpha", "0.5").code
        assert marks == header(out).keys() & {"v_pred", "ztsnr"}
    assert {(0,)} == {header(tmp_path / "v-merged.safetensors")[mark][1] for mark in ("v_pred", "ztsnr")}


def test_positions_are_whole_numbers(pair_of: Pair, tmp_path: Path, run: Run) -> None:
    """Both want 0 … 76 as int64; what an older merge has spoiled is put right when asked."""
    a, b = pair_of("sd15-ldm")
    tensors = load_file(a)
    tensors[POSITIONS] = (torch.arange(77)[None] - 0.3).to(torch.float32)
    spoilt = tmp_path / "spoilt.safetensors"
    save_file(tensors, spoilt)
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", spoilt, b, "-o", out, "--only", "attn2", "--position-ids", "reset").code
    with safe_open(out, "pt") as merged:
        assert torch.equal(torch.arange(77)[None], merged.get_tensor(POSITIONS))


def test_the_header_begins_as_the_webui_wants_it(pair_of: Pair, tmp_path: Path, run: Run) -> None:
    """Its reader of metadata demands `{"` right after the length, and parses values that begin with `{`."""
    files = pair_of("sd15-ldm")
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--only", "attn2").code
    data = out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert b'{"' == data[8:10]
    assert 0 == length % 8  # as the reference library aligns tensors
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert "pt" == metadata["format"]
    assert all(isinstance(value, str) for value in metadata.values())
    assert isinstance(json.loads(metadata["mergescope.recipe"]), dict)


def test_averages_are_pruned(pair_of: Pair, tmp_path: Path, run: Run) -> None:
    """--prune-ema leaves out what neither looks at, and nothing else."""
    files = pair_of("sd15-ldm-ema")
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", "0.5", "--prune-ema").code
    before, after = header(files[0]), header(out)
    assert {key for key in before if key.startswith("model_ema.")} == before.keys() - after.keys()
    assert comfyui(before) == comfyui(after)
    assert webui(before) == webui(after)


SCALES = ("scaled_fp8", "scale_weight", "scale_input")


@pytest.mark.parametrize(
    ("name", "dtype", "scaled"),
    [
        ("sdxl-vpred", "fp8_e5m2", False),
        ("sdxl-vpred", "unet=fp8_e4m3", False),
        ("flux-dev-scaled-fp8-comfy", "fp8_e4m3", True),  # its codes are that already
        ("flux-dev-scaled-fp8-comfy", "fp8_e5m2", False),
        ("flux-dev-scaled-fp8-comfy", "transformer=bf16", False),
    ],
)
def test_fp8_without_scales_is_not_announced_as_scaled(
    pair_of: Pair, tmp_path: Path, run: Run, name: str, dtype: str, *, scaled: bool
) -> None:
    """ComfyUI multiplies by `scale_weight` where `scaled_fp8` stands: both are there, or neither is."""
    word = dtype.rpartition("=")[2]
    files = pair_of(name)
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", "0.5", "--dtype", dtype).code
    before, after = header(files[0]), header(out)
    found, wanted = comfyui(after), comfyui(before)
    assert {**wanted, "fp8": None} == {**found, "fp8": None}
    marks = {key: value for key, value in before.items() if key.endswith(SCALES)} if scaled else {}
    assert marks == {key: value for key, value in after.items() if key.endswith(SCALES)}
    assert scaled == ("fp8" in found)
    written = {"fp8_e4m3": "F8_E4M3", "fp8_e5m2": "F8_E5M2", "bf16": "BF16"}[word]
    key = next(k for k in after if k.endswith(("attn2.to_k.weight", "double_blocks.0.img_attn.qkv.weight")))
    assert written == after[key][0]
    assert {k: before[k] for k in before if k in MARKS} == {k: after[k] for k in after if k in MARKS}


def test_a_schedule_does_not_become_fp8(pair_of: Pair, tmp_path: Path, run: Run) -> None:
    """The WebUI loads `alphas_cumprod` from the file into the model: in three bits it would be another."""
    files = pair_of("sd15-ldm")
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", "0.5", "--dtype", "fp8_e4m3").code
    before, after = load_file(files[0]), load_file(out)
    for key in ("alphas_cumprod", "betas"):
        assert torch.equal(before[key], after[key])
    assert {"F8_E4M3"} == {
        dtype for key, (dtype, _) in header(out).items() if key.endswith((".weight", ".bias"))
    }
