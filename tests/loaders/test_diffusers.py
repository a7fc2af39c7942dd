"""Merges of Stable Diffusion models load in diffusers, with the weights that arithmetic says.

The models are built, saved and loaded again by diffusers itself; the expected weights are computed here, in
fp64. No part of mergescope reads what it has written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from real_shapes import build
from safetensors import safe_open
from safetensors.torch import load_file

Folders = tuple[Path, Path]
Run = Callable[..., Any]
Tensors = dict[str, torch.Tensor]

ALPHA = 0.3


def pipeline(kind: str) -> Any:
    import diffusers

    return {"sd1": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}[kind]


def from_file(kind: str, file: Path, config: Path, **options: Any) -> Any:
    """A single file, its configuration taken from a folder on the disk."""
    return pipeline(kind).from_single_file(str(file), config=str(config), local_files_only=True, **options)


def from_folder(kind: str, folder: Path, **options: Any) -> Any:
    return pipeline(kind).from_pretrained(str(folder), local_files_only=True, **options)


@cache
def networks(narrow: Any, kind: str, folder: Path) -> Mapping[str, Tensors]:
    """What diffusers gets from a folder that no test changes."""
    found: Mapping[str, Tensors] = narrow.networks(from_folder(kind, folder))
    return found


def blended(a: torch.Tensor, b: torch.Tensor, alpha: float = ALPHA) -> NDArray[np.float64]:
    one, two = (tensor.to(torch.float64).numpy() for tensor in (a, b))
    return np.asarray(one + alpha * (two - one))


def check(
    found: Mapping[str, Tensors],
    a: Mapping[str, Tensors],
    b: Mapping[str, Tensors],
    chosen: Callable[[str], bool] = lambda _: True,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Every tensor that a loader got is the blend of A's and B's where chosen, and else A's."""
    limits = torch.finfo(dtype)
    assert {part: sorted(tensors) for part, tensors in a.items()} == {
        part: sorted(tensors) for part, tensors in found.items()
    }
    for part, tensors in a.items():
        for key, tensor in tensors.items():
            got = found[part][key].to(torch.float64).numpy()
            if not tensor.is_floating_point() or not chosen(f"{part}.{key}"):
                np.testing.assert_array_equal(tensor.to(torch.float64).numpy(), got, err_msg=key)
            else:
                wanted = blended(tensor, b[part][key])
                np.testing.assert_allclose(
                    got, wanted, rtol=limits.eps, atol=limits.smallest_normal * limits.eps, err_msg=key
                )


def picture(pipe: Any) -> NDArray[np.float32]:
    """What the pipeline makes of a prompt in two steps: 1 × height × width × 3, in 0…1."""
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        "a cat",
        num_inference_steps=2,
        height=64,
        width=64,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    )
    return np.asarray(made.images)


def test_a_folder_loads_as_a_pipeline(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """The whole of two folders at one alpha: what from_pretrained gets is the blend, and it draws."""
    a, b = narrow_sd1
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--alpha", ALPHA).code
    pipe = from_folder("sd1", out)
    sides = [networks(narrow, "sd1", side) for side in (a, b)]
    check(narrow.networks(pipe), *sides)
    assert (1, 64, 64, 3) == picture(pipe).shape


def test_only_attn2_of_a_folder(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """A gate reaches the loader: cross-attention is B's share, everything else is A's bit by bit."""
    a, b = narrow_sd1
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--only", "attn2", "--alpha", ALPHA).code
    sides = [networks(narrow, "sd1", side) for side in (a, b)]
    check(narrow.networks(from_folder("sd1", out)), *sides, chosen=lambda key: ".attn2." in key)


def test_a_folder_in_fp16(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """--dtype fp16 gives a folder that loads as fp16 without a word, and as fp32 too."""
    a, b = narrow_sd1
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--alpha", ALPHA, "--dtype", "fp16").code
    pipe = from_folder("sd1", out, dtype=torch.float16)
    assert {torch.float16} == {
        t.dtype for part in narrow.networks(pipe).values() for t in part.values() if t.is_floating_point()
    }
    sides = [networks(narrow, "sd1", side) for side in (a, b)]
    check(narrow.networks(pipe), *sides, dtype=torch.float16)


def test_sharded_unets(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """A U-Net in several files with an index comes out so, and loads."""
    import diffusers

    sides = []
    for side in narrow_sd1:
        folder = tmp_path / side.name
        unet = diffusers.UNet2DConditionModel.from_pretrained(str(side / "unet"))
        unet.save_pretrained(folder, max_shard_size="3MB")
        sides.append(folder)
    assert 1 < len(list(sides[0].glob("*.safetensors")))
    out = tmp_path / "merged"
    assert 0 == run("merge", *sides, "-o", out, "--alpha", ALPHA).code
    assert sorted(path.name for path in sides[0].iterdir()) == sorted(path.name for path in out.iterdir())
    load = diffusers.UNet2DConditionModel.from_pretrained
    found, a, b = ({"unet": dict(load(str(side)).state_dict())} for side in (out, *sides))
    check(found, a, b)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Euler's scheduler
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_single_file_loads(
    narrow: Any, kind: str, request: pytest.FixtureRequest, tmp_path: Path, run: Run
) -> None:
    """Two files in the original layout at one alpha: the single-file loader gets the blend, and it draws."""
    a, b, files = single_files(narrow, kind, request, tmp_path)
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", ALPHA).code
    pipe = from_file(kind, out, a)
    check(narrow.networks(pipe), networks(narrow, kind, a), networks(narrow, kind, b))
    assert (1, 64, 64, 3) == picture(pipe).shape


def test_a_file_and_a_folder_draw_the_same(
    narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run
) -> None:
    """The merge of two folders and that of the same weights in single files are one model."""
    a, b = narrow_sd1
    files = [narrow.write(tmp_path / f"{s.name}.safetensors", narrow.single_sd1(s)) for s in (a, b)]
    options = ("--block-weights", ",".join(f"{i / 24:g}" for i in range(25)), "--base-alpha", "0.5")
    assert 0 == run("merge", a, b, "-o", tmp_path / "merged", *options).code
    assert 0 == run("merge", *files, "-o", tmp_path / "merged.safetensors", *options).code
    one = from_folder("sd1", tmp_path / "merged")
    two = from_file("sd1", tmp_path / "merged.safetensors", a)
    other = narrow.networks(two)  # once: the pipeline makes it anew at every call
    for part, tensors in narrow.networks(one).items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, other[part][key]), f"{part}.{key}"
    np.testing.assert_allclose(picture(one), picture(two), atol=1e-4)  # memory is laid out otherwise


def test_a_file_with_a_folder(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """A in one layout and B in the other: the output is as A is, and loads with the blend."""
    a, b = narrow_sd1
    one = narrow.write(tmp_path / "a.safetensors", narrow.single_sd1(a))
    sides = [networks(narrow, "sd1", side) for side in (a, b)]
    assert 0 == run("merge", one, b, "-o", tmp_path / "1.safetensors", "--alpha", ALPHA).code
    check(narrow.networks(from_file("sd1", tmp_path / "1.safetensors", a)), *sides)
    assert 0 == run("merge", b, one, "-o", tmp_path / "2", "--alpha", ALPHA).code
    check(narrow.networks(from_folder("sd1", tmp_path / "2")), *sides[::-1])


def test_text_encoders_of_before_and_after(
    narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run
) -> None:
    """Newer transformers leave out `text_model.` (since 5.6); older and newer folders merge."""
    a, b = narrow_sd1
    older = tmp_path / "older"
    shutil.copytree(b, older)
    weights = older / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(weights).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    narrow.write(weights, tensors)
    sides = [narrow.networks(from_folder("sd1", side)) for side in (a, older)]
    assert 0 == run("merge", a, older, "-o", tmp_path / "1", "--alpha", ALPHA).code
    check(narrow.networks(from_folder("sd1", tmp_path / "1")), *sides)
    assert 0 == run("merge", older, a, "-o", tmp_path / "2", "--alpha", ALPHA).code
    check(narrow.networks(from_folder("sd1", tmp_path / "2")), *sides[::-1])
    names = set(load_file(tmp_path / "2" / "text_encoder" / "model.safetensors"))
    assert names == set(tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_file(
    narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run, dtype: torch.dtype
) -> None:
    """Files in fp16 and bf16 stay so, are rounded once, and load; integers and schedules stay as they are."""
    a, b = narrow_sd1
    halves = [narrow.cast(narrow.single_sd1(side), lambda _: dtype) for side in (a, b)]
    files = [narrow.write(tmp_path / f"{i}.safetensors", half) for i, half in enumerate(halves)]
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--only", "attn2", "--alpha", "0.5").code
    merged = load_file(out)
    assert {k: t.dtype for k, t in halves[0].items()} == {k: t.dtype for k, t in merged.items()}
    for key, tensor in halves[0].items():
        if ".attn2." in key:
            wanted = torch.from_numpy(blended(tensor, halves[1][key], 0.5)).to(dtype)
            assert torch.equal(wanted, merged[key]), key
        else:
            assert torch.equal(tensor, merged[key]), key
    unet = narrow.networks(from_file("sd1", out, a, dtype=dtype))["unet"]
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(
        merged["model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"], unet[key]
    )


def test_fp8_of_one_part(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """A U-Net in fp8 beside the rest in fp32, as ComfyUI's users store it: dtypes stay, and it loads."""
    a, b = narrow_sd1
    eight = torch.float8_e4m3fn

    def dtype_of(key: str) -> torch.dtype:
        return (
            eight if key.startswith("model.diffusion_model.") and key.endswith(".weight") else torch.float32
        )

    sides = [narrow.cast(narrow.single_sd1(side), dtype_of) for side in (a, b)]
    files = [narrow.write(tmp_path / f"{i}.safetensors", side) for i, side in enumerate(sides)]
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", ALPHA).code
    merged = load_file(out)
    assert {k: t.dtype for k, t in sides[0].items()} == {k: t.dtype for k, t in merged.items()}
    for key, tensor in sides[0].items():
        if tensor.dtype == eight:
            wanted = torch.from_numpy(blended(tensor, sides[1][key])).to(eight)
            differ = (wanted.float() != merged[key].float()).sum()
            assert 0 == differ, key
    pipe = from_file("sd1", out, a, dtype=torch.float32)
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    found = narrow.networks(pipe)["unet"][key]
    stored = merged["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"]
    assert torch.equal(stored.float(), found.float())


KINDS = {
    "sd15-inpainting-ldm": "inpainting",
    "sd15-ldm": "v1",
    "sd21-ldm": "v2",
    "sdxl-refiner-sgm": "xl_refiner",
    "sdxl-vpred": "xl_base",
    "flux-dev-bfl": "flux-dev",
}


@pytest.mark.parametrize("name", KINDS)
def test_the_loader_knows_the_kind(narrow: Any, name: str, tmp_path: Path, run: Run) -> None:
    """Without a configuration beside it, the single-file loader tells from the keys which one to fetch."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    looked_at = ["model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"]
    files = [build(name, tmp_path / f"{seed}.safetensors", seed=seed, keep=looked_at) for seed in range(2)]
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", ALPHA).code
    assert KINDS[name] == infer_diffusers_model_type(load_file(out))


def test_what_a_file_says_of_itself(narrow: Any, narrow_sd1: Folders, tmp_path: Path, run: Run) -> None:
    """Loaders of transformers want `format: pt`; a hash of the old weights does not survive them."""
    a, b = narrow_sd1
    files = [
        narrow.write(
            tmp_path / f"{s.name}.safetensors",
            narrow.single_sd1(s),
            **{"modelspec.title": "one", "modelspec.hash_sha256": "0x00", "sshs_model_hash": "11"},
        )
        for s in (a, b)
    ]
    out = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *files, "-o", out, "--alpha", ALPHA).code
    with safe_open(out, "pt") as opened:
        metadata = opened.metadata()
    assert ("pt", "one") == (metadata["format"], metadata["modelspec.title"])
    assert not {"modelspec.hash_sha256", "sshs_model_hash"} & metadata.keys()
    assert isinstance(json.loads(metadata["mergescope.recipe"]), dict)


def single_files(
    narrow: Any, kind: str, request: pytest.FixtureRequest, folder: Path
) -> tuple[Path, Path, list[Path]]:
    """Two folders and the files of the same weights."""
    a, b = request.getfixturevalue(f"narrow_{kind}")
    convert = {"sd1": narrow.single_sd1, "sdxl": narrow.single_sdxl}[kind]
    return a, b, [narrow.write(folder / f"{s.name}.safetensors", convert(s)) for s in (a, b)]
