"""Merges as the command writes them, held against their plans: right ones pass, damaged ones do not."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import VerificationError
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.prediction.verified_merge import verify_merge
from analyzer.recipes.recipe import Recipe
from analyzer.scan import scan

Arrays = dict[str, np.ndarray]
Unet = Callable[[int], Arrays]
Run = Callable[..., object]
Write = Callable[..., Path]

TO_Q = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
VAE = "first_stage_model.encoder.conv_in.weight"


def near(a: Arrays, seed: int, size: float = 0.05) -> Arrays:
    """A model trained on from `a`."""
    rng = np.random.default_rng(seed)
    return {
        k: v if v.dtype.kind == "i" else (v + size * rng.standard_normal(v.shape)).astype(v.dtype)
        for k, v in a.items()
    }


def flip_last_bit(path: Path, key: str) -> None:
    """Change the lowest bit of a tensor's first value: less than rounding once might."""
    with open_checkpoint(path) as model:
        offset = model.infos[key].offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("key", "with_vae"), [(TO_Q, False), (VAE, True)], ids=["taken from B", "baked from --vae"]
)
def test_what_is_copied_from_another_model_is_compared_byte_by_byte(
    key: str, with_vae: bool, unet: Unet, write: Write, tmp_path: Path
) -> None:
    """One bit of one value is found in what came from B or a VAE as it is, as in what came from A."""
    a = unet(1)
    files = [write(f"{n}.safetensors", x) for n, x in (("a", a), ("b", near(a, 2)), ("vae", near(a, 3)))]
    recipe, out = Recipe(alpha=0.5 if with_vae else 1.0), tmp_path / "out.safetensors"
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(path)) for path in files]
        inputs = Inputs(opened[0], opened[1], vae=opened[2] if with_vae else None)
        plan, measured = plan_merge(inputs, recipe), scan(*opened[:2])
        result = merge(inputs, plan, recipe, out=out)
        found = verify_merge(inputs, plan, result, found=None, scan=measured)
        assert key in {
            action.key for action in plan.actions if action.verb == ("bake" if with_vae else "take")
        }
        assert (2 if with_vae else len(a) - 2) <= found.copied
        flip_last_bit(out, key)
        with pytest.raises(VerificationError, match=r"should hold the bytes of .*(b|vae)"):
            verify_merge(inputs, plan, result, found=None, scan=measured)


def test_a_file_that_is_cut_short_is_an_error(unet: Unet, write: Write, tmp_path: Path) -> None:
    """As any other fault of the output, which is then removed."""
    files = [write(f"{n}.safetensors", x) for n, x in (("a", unet(1)), ("b", near(unet(1), 2)))]
    out = tmp_path / "out.safetensors"
    with ExitStack() as stack:
        inputs = Inputs(*(stack.enter_context(open_checkpoint(path)) for path in files))
        recipe = Recipe(alpha=0.5)
        plan = plan_merge(inputs, recipe)
        result = merge(inputs, plan, recipe, out=out)
        out.write_bytes(out.read_bytes()[:-1])
        with pytest.raises(VerificationError, match=r"out\.safetensors: .*; write it again"):
            verify_merge(inputs, plan, result, found=None, scan=scan(inputs.a, inputs.b))


def test_keys_that_the_scan_did_not_measure_are_counted(
    unet: Unet, write: Write, tmp_path: Path, run: Run
) -> None:
    """A scan of attn2 predicts attn2: the prediction says of how many keys it is, --verify what is left."""
    a = unet(1)
    models = write("a.safetensors", a), write("b.safetensors", near(a, 2))
    seen = sum("attn2" in key for key in a)
    assert 0 == run("scan", *models, "--only", "attn2", "-o", tmp_path / "s.json").code
    options = (*models, "--alpha", "0.5", "--scan", tmp_path / "s.json")
    plan = run("merge", *options, "--dry-run")
    assert f"predicted, before rounding, of {seen} of {len(a)} keys" in plan.out.splitlines()
    done = run("merge", *options, "-o", tmp_path / "out.safetensors", "--verify")
    assert 0 == done.code, done.err
    kept = sum(v.dtype.kind == "i" for v in a.values()) + 1  # position_ids, and betas
    rest = len(a) - seen - kept
    expected = f"verified: {seen} keys measured, {kept} copied byte for byte; {rest} keys have no prediction"
    assert expected in done.out


METHODS = {
    "weighted_sum": [], "slerp": [], "cosine_adaptive_a": [],
    "add_difference": ["--base"], "train_difference": ["--base"], "model_stock": ["--base"],
    "task_arithmetic": ["--base", "--model"], "ties": ["--base"], "dare_linear": ["--base"],
    "triple_sum": ["--model"],
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_right_merges_pass(method: str, unet: Unet, write: Write, tmp_path: Path, run: Run) -> None:
    """Any method, dtype, alpha and part, with a scan and without, near models and far ones."""
    rng = random.Random(method)
    for turn in range(3):
        stored = rng.choice([np.float16, np.float32])
        a = {k: v.astype(stored) if v.dtype == np.float16 else v for k, v in unet(1).items()}
        size = rng.choice([1e-4, 0.05, 2.0])
        models = [write(f"{n}.safetensors", x) for n, x in zip("ab", (a, near(a, 2, size)), strict=True)]
        third = write("c.safetensors", near(a, 3, size))
        options = ["--method", method, "--alpha", rng.choice([0.01, 0.3, 1.0, 1.4])]
        options += ["--dtype", rng.choice(["keep", "fp16", "bf16", "fp32", "fp8_e4m3", "fp8_e5m2"])]
        for name in METHODS[method]:
            options += [name, f"{third}=0.3" if name == "--model" else third]
        options += rng.choice([[], ["--set", "attn2=0"], ["--only", "attn1,attn2"], ["--vae", third]])
        if rng.random() < 0.5:
            base = ["--base", third] if "--base" in METHODS[method] else []
            assert 0 == run("scan", *models, *base, "-o", tmp_path / "s.json").code
            options += ["--scan", tmp_path / "s.json"]
        done = run("merge", *models, *options, "-o", tmp_path / f"{turn}.safetensors", "--verify")
        assert 0 == done.code, (options, done.err)
        assert "verified: " in done.out


def test_a_lossy_step_is_named_by_its_alpha(unet: Unet, write: Write, tmp_path: Path, run: Run) -> None:
    """By the alpha that was asked for, not by the factor of b − a that a method makes of it."""
    a = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in unet(1).items()}
    models = write("a.safetensors", a), write("b.safetensors", near(a, 2))
    assert 0 == run("scan", *models, "-o", tmp_path / "s.json").code
    lambda_ = ("--method", "task_arithmetic", "--param", "lambda=0.5")
    plan = run(
        "merge", *models, "--alpha", "0.04", *lambda_, "--scan", tmp_path / "s.json", "--dtype", "fp8_e4m3",
        "--dry-run",
    )  # fmt: skip
    assert "an fp8_e4m3 save at alpha 0.04 leaves " in plan.err
    assert "of the step above rounding: write --dtype fp32" in plan.err
