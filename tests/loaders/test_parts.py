"""Parts that are exchanged or cast, as loaders get them: a baked VAE, B's text encoder, fp8 for the U-Net."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

Folders = tuple[Path, Path]
Run = Callable[..., Any]
Tensors = dict[str, torch.Tensor]

ALPHA = 0.3
LDM_VAE = "first_stage_model."


@pytest.fixture(scope="module")
def load(narrow: Any) -> Callable[..., dict[str, Tensors]]:
    """The networks that diffusers gets from a folder, or from a file with a folder's configuration.

    Each is loaded once: no test changes A or B, and what tests write has a path of its own.
    """
    import diffusers

    @cache
    def networks(path: Path, config: Path | None = None, **options: Any) -> dict[str, Tensors]:
        kind, local = diffusers.StableDiffusionPipeline, {"local_files_only": True}
        if config is None:
            pipe = kind.from_pretrained(str(path), **local, **options)
        else:
            pipe = kind.from_single_file(str(path), config=str(config), **local, **options)
        found: dict[str, Tensors] = narrow.networks(pipe)
        return found

    return networks


def vae_file(narrow: Any, folder: Path, out: Path, layout: str) -> Path:
    """B's VAE as it is passed on by itself: under LDM's names, with or without a prefix, or diffusers'."""
    if layout == "diffusers":
        return narrow.write(out, narrow.saved(folder)["vae"])
    tensors = {k: t for k, t in narrow.single_sd1(folder).items() if k.startswith(LDM_VAE)}
    if layout == "bare":
        tensors = {key.removeprefix(LDM_VAE): tensor for key, tensor in tensors.items()}
    return narrow.write(out, tensors)


@pytest.mark.parametrize("layout", ["bare", "whole", "diffusers"])
@pytest.mark.parametrize("single", [True, False])
def test_a_baked_vae_is_the_file_s(
    narrow: Any, narrow_sd1: Folders, load: Any, tmp_path: Path, run: Run, layout: str, single: bool
) -> None:
    """--vae FILE: whatever FILE calls its tensors, the output has A's names, and the loader gets its VAE."""
    a, b = narrow_sd1
    vae = vae_file(narrow, b, tmp_path / "vae.safetensors", layout)
    sides = [narrow.write(tmp_path / f"{s.name}.safetensors", narrow.single_sd1(s)) for s in (a, b)]
    one, two = sides if single else (a, b)
    out = tmp_path / ("merged.safetensors" if single else "merged")
    assert 0 == run("merge", one, two, "-o", out, "--only", "attn2", "--alpha", ALPHA, "--vae", vae).code
    if single:
        before, after = load_file(one), load_file(out)
        assert {k: (t.dtype, t.shape) for k, t in before.items()} == {
            k: (t.dtype, t.shape) for k, t in after.items()
        }
    found, wanted = load(out, a if single else None), load(b)
    for key, tensor in wanted["vae"].items():
        assert torch.equal(tensor, found["vae"][key]), key
    for key, tensor in load(a)["text_encoder"].items():
        assert torch.equal(tensor, found["text_encoder"][key]), key


def test_the_text_encoder_of_b(narrow: Any, narrow_sd1: Folders, load: Any, tmp_path: Path, run: Run) -> None:
    """--text-encoder keep-b: the loader gets B's, beside a merged U-Net and VAE."""
    a, b = narrow_sd1
    out = tmp_path / "merged"
    assert 0 == run("merge", a, b, "-o", out, "--alpha", ALPHA, "--text-encoder", "keep-b").code
    found, one, two = load(out), load(a), load(b)
    for key, tensor in two["text_encoder"].items():
        assert torch.equal(tensor, found["text_encoder"][key]), key
    for key in one["vae"]:
        x, y = (side["vae"][key].double().numpy() for side in (one, two))
        np.testing.assert_allclose(
            found["vae"][key].double().numpy(), x + ALPHA * (y - x), rtol=2.0**-23, atol=1e-12
        )


@pytest.mark.parametrize("single", [True, False])
def test_a_dtype_for_every_part(
    narrow: Any, narrow_sd1: Folders, load: Any, tmp_path: Path, run: Run, single: bool
) -> None:
    """The U-Net in fp8, the VAE in fp32, the rest in fp16: stored so, and loaded with these values."""
    a, b = narrow_sd1
    sides = [narrow.write(tmp_path / f"{s.name}.safetensors", narrow.single_sd1(s)) for s in (a, b)]
    one, two = sides if single else (a, b)
    out = tmp_path / ("merged.safetensors" if single else "merged")
    dtypes = ("--dtype", "fp16", "--dtype", "unet=fp8_e4m3", "--dtype", "vae=fp32")
    assert 0 == run("merge", one, two, "-o", out, "--alpha", ALPHA, *dtypes).code
    if single:
        merged = load_file(out)
        parts = {
            "unet": {k: t for k, t in merged.items() if k.startswith("model.diffusion_model.")},
            "vae": {k: t for k, t in merged.items() if k.startswith(LDM_VAE)},
            "text_encoder": {k: t for k, t in merged.items() if k.startswith("cond_stage_model.")},
        }
    else:
        parts = narrow.saved(out)
    wanted = {"unet": torch.float8_e4m3fn, "vae": torch.float32, "text_encoder": torch.float16}
    assert {part: {dtype} for part, dtype in wanted.items()} == {
        part: {t.dtype for t in tensors.values() if t.is_floating_point()} for part, tensors in parts.items()
    }
    found = load(out, a if single else None, dtype=torch.float32)
    x, y = (load(side)["unet"] for side in (a, b))
    for key, tensor in found["unet"].items():
        exact = x[key].double() + ALPHA * (y[key].double() - x[key].double())
        spacing = torch.maximum(exact.abs() * 2.0**-4, torch.tensor(2.0**-10).double())
        assert ((tensor.double() - exact).abs() <= spacing * 1.001).all(), key


def test_a_whole_vae_folder(narrow: Any, narrow_sd1: Folders, load: Any, tmp_path: Path, run: Run) -> None:
    """Two sub-models by themselves, with their config.json, merge into one that from_pretrained loads."""
    import diffusers

    a, b = narrow_sd1
    out = tmp_path / "vae"
    assert 0 == run("merge", a / "vae", b / "vae", "-o", out, "--alpha", "1").code
    found = diffusers.AutoencoderKL.from_pretrained(str(out)).state_dict()
    for key, tensor in load(b)["vae"].items():
        assert torch.equal(tensor, found[key]), key
