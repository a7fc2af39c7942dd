"""Merged files, byte by byte and value by value, against numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.merge import MergeResult, merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]


def run_merge(a: Path, b: Path, out: Path, recipe: Recipe, **options: object) -> MergeResult:
    """Open, plan and merge."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        plan = plan_merge(Inputs(model_a, model_b), recipe)
        return merge(Inputs(model_a, model_b), plan, recipe, out=out, **options)  # type: ignore[arg-type]


def raw_tensors(path: Path) -> Mapping[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor's dtype, shape and bytes, in header order, parsed here from the file itself."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size :]
    return {
        key: (row["dtype"], tuple(row["shape"]), body[slice(*row["data_offsets"])])
        for key, row in header.items()
    }


@pytest.fixture
def models(unet: Build, write: Write) -> tuple[Path, Path]:
    """A mini SD 1.5 pair on disk."""
    return write("a.safetensors", unet(0), {"format": "pt", "k": "v"}), write("b.safetensors", unet(1))


def test_only_attn2_holds_bs_bytes_there_and_as_elsewhere(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The issue's example: exactly attn2 from B, all other bytes, the order and the dtypes from A."""
    a, b = models
    out = tmp_path / "out.safetensors"
    run_merge(a, b, out, Recipe(only="attn2"))
    was_a, was_b, is_out = raw_tensors(a), raw_tensors(b), raw_tensors(out)
    assert list(was_a) == list(is_out)
    for key, tensor in is_out.items():
        assert (was_b if ".attn2." in key else was_a)[key] == tensor, key
    assert sum(".attn2." in key for key in is_out) == 9


@pytest.mark.parametrize("alpha", [0.5, 0.3, -0.5, 1.7])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_weighted_sum_is_rounded_once(tmp_path: Path, dtype: str, alpha: float) -> None:
    """A + alpha·(b − a) in fp64, then one rounding, for a tensor of several chunks."""
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}[dtype]
    generator = torch.Generator().manual_seed(1)
    sides = [torch.randn(300_001, generator=generator).to(kind) for _ in range(2)]
    for name, side in zip("ab", sides, strict=True):
        save_torch({"w": side}, tmp_path / f"{name}.safetensors")
    run_merge(
        tmp_path / "a.safetensors",
        tmp_path / "b.safetensors",
        tmp_path / "o.safetensors",
        Recipe(alpha=alpha),
    )
    a, b = (side.to(torch.float64).numpy() for side in sides)
    exact = a + alpha * (b - a)
    got = load_torch(tmp_path / "o.safetensors")["w"]
    assert kind == got.dtype
    if dtype == "F16":
        np.testing.assert_array_equal(exact.astype(np.float16), got.numpy())
    elif dtype == "BF16":
        spacing = 2.0 ** (np.floor(np.log2(np.where(exact == 0, 1, np.abs(exact)))) - 7)
        np.testing.assert_array_equal(np.rint(exact / spacing) * spacing, got.to(torch.float64).numpy())
    else:
        np.testing.assert_array_equal(exact.astype(f"f{got.itemsize}"), got.numpy())


def test_alpha_zero_is_a_and_alpha_one_is_b(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Bytes of A at 0; bytes of B at 1, but for what is never merged."""
    a, b = models
    run_merge(a, b, tmp_path / "zero.safetensors", Recipe(alpha=0.0))
    run_merge(a, b, tmp_path / "one.safetensors", Recipe(alpha=1.0))
    assert raw_tensors(a) == raw_tensors(tmp_path / "zero.safetensors")
    was_a, was_b = raw_tensors(a), raw_tensors(b)
    for key, tensor in raw_tensors(tmp_path / "one.safetensors").items():
        assert (was_a if key == "betas" or key.endswith("position_ids") else was_b)[key] == tensor


def test_alpha_one_takes_nan_of_b_and_leaves_nan_of_a(tmp_path: Path, write: Write) -> None:
    """At 1 A's NaN is gone and B's stays; at 0 the other way; in between both are counted."""
    a = write("a.safetensors", {"w": np.array([np.nan, 1, 2], np.float32)})
    b = write("b.safetensors", {"w": np.array([5, 6, np.inf], np.float32)})
    out = tmp_path / "o.safetensors"
    run_merge(a, b, out, Recipe(alpha=1.0))
    np.testing.assert_array_equal([5, 6, np.inf], load_file(out)["w"])
    run_merge(a, b, out, Recipe(alpha=0.0), force=True)
    np.testing.assert_array_equal([np.nan, 1, 2], load_file(out)["w"])
    result = run_merge(a, b, out, Recipe(alpha=0.5), force=True)
    assert {"w": 2} == result.nonfinite


def test_position_ids_reset_whatever_they_were(tmp_path: Path, unet: Build, write: Write) -> None:
    """Broken float position_ids become 0..76 as int64 of shape 1×77, whatever --only says."""
    key = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    broken = unet(0) | {key: np.full((1, 77), 0.5, np.float16)}
    a, b = write("a.safetensors", broken), write("b.safetensors", unet(1))
    out = tmp_path / "o.safetensors"
    run_merge(a, b, out, Recipe(only="attn2", position_ids="reset"))
    tensor = load_file(out)[key]
    assert np.int64 == tensor.dtype
    np.testing.assert_array_equal(np.arange(77)[None], tensor)
    run_merge(a, b, out, Recipe(only="attn2", position_ids="keep"), force=True)
    np.testing.assert_array_equal(broken[key], load_file(out)[key])


@pytest.mark.parametrize(
    ("name", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_dtype_of_every_float_key(
    models: tuple[Path, Path], tmp_path: Path, name: str, kind: torch.dtype
) -> None:
    """All floats are cast, kept ones too; integers are not."""
    out = tmp_path / "o.safetensors"
    run_merge(*models, out, Recipe(only="attn2", dtype=name))
    a, b = (load_torch(m) for m in models)
    for key, tensor in load_torch(out).items():
        source = (b if ".attn2." in key else a)[key]
        assert torch.equal(source.to(kind) if source.is_floating_point() else source, tensor), key


def test_mixed_dtypes_keep_as(tmp_path: Path, write: Write) -> None:
    """An fp32 fine-tune of an fp16 model merges into fp16."""
    values = np.linspace(-1, 1, 50, dtype=np.float32)
    a = write("a.safetensors", {"w": values.astype(np.float16)})
    b = write("b.safetensors", {"w": values * 1.1})
    out = tmp_path / "o.safetensors"
    run_merge(a, b, out, Recipe(alpha=1.0))
    np.testing.assert_array_equal((values * np.float32(1.1)).astype(np.float16), load_file(out)["w"])


def test_a_torch_pickle_merges_into_safetensors(tmp_path: Path, unet: Build, write: Write) -> None:
    """A .ckpt with a state_dict wrapper as A, a safetensors file as B."""
    a = {k: torch.from_numpy(v) for k, v in unet(0).items()}
    torch.save({"state_dict": a, "global_step": 7}, tmp_path / "a.ckpt")
    b = write("b.safetensors", unet(1))
    run_merge(tmp_path / "a.ckpt", b, tmp_path / "o.safetensors", Recipe(only="attn2"))
    got, other = load_torch(tmp_path / "o.safetensors"), load_torch(b)
    for key, tensor in a.items():
        assert torch.equal(other[key] if ".attn2." in key else tensor, got[key]), key


def test_the_recipe_is_in_the_metadata(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A's metadata, and a recipe that names the options, the tool and both inputs."""
    out = tmp_path / "o.safetensors"
    run_merge(*models, out, Recipe(only="attn2", alpha=0.25))
    with safe_open(out, "np") as file:
        metadata = file.metadata()
    recipe = json.loads(metadata.pop("mergescope.recipe"))
    assert {"format": "pt", "k": "v"} == metadata
    assert ("attn2", 0.25) == (recipe["recipe"]["only"], recipe["recipe"]["alpha"])
    for side, path in zip("ab", models, strict=True):
        with open_checkpoint(path) as model:
            expected = {"name": path.name, "bytes": path.stat().st_size, "fingerprint": model.fingerprint()}
        assert expected == recipe["inputs"][side]


def test_threads_do_not_change_the_bytes(models: tuple[Path, Path], tmp_path: Path) -> None:
    """Same inputs, same recipe, same file."""
    files = []
    for threads in (1, 2, 5):
        out = tmp_path / f"{threads}.safetensors"
        run_merge(*models, out, Recipe(alpha=0.3), threads=threads)
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_keys_only_in_b_are_dropped_or_added(tmp_path: Path, write: Write) -> None:
    """Dropped by default; added at the end with B's bytes."""
    a = write("a.safetensors", {"x.weight": np.ones((2, 2), np.float32)})
    b = write("b.safetensors", {"x.weight": np.zeros((2, 2), np.float32), "y.weight": np.arange(3.0)})
    out = tmp_path / "o.safetensors"
    run_merge(a, b, out, Recipe(alpha=0.5))
    assert ["x.weight"] == list(raw_tensors(out))
    run_merge(a, b, out, Recipe(alpha=0.5, only_in_b="add"), force=True)
    assert ["x.weight", "y.weight"] == list(raw_tensors(out))
    np.testing.assert_array_equal(np.arange(3.0), load_file(out)["y.weight"])


def test_keys_of_b_are_added_beside_a_tied_head(tmp_path: Path, write: Write) -> None:
    """That B has its head in the embedding does not mean that its other names differ from A's."""
    rng = np.random.default_rng(5)
    layers = [f"model.layers.0.{name}" for name in ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj")]
    shared = {f"{name}.weight": rng.standard_normal((4, 4)).astype(np.float32) for name in layers}
    shared["model.embed_tokens.weight"] = rng.standard_normal((9, 4)).astype(np.float32)
    a = write("a.safetensors", shared | {"lm_head.weight": np.zeros((9, 4), np.float32)})
    b = write("b.safetensors", shared | {"model.extra.weight": np.ones(3, np.float32)})
    run_merge(a, b, tmp_path / "o.safetensors", Recipe(alpha=1.0, only_in_b="add"))
    got = load_file(tmp_path / "o.safetensors")
    np.testing.assert_array_equal(shared["model.embed_tokens.weight"], got["lm_head.weight"])
    np.testing.assert_array_equal(np.ones(3, np.float32), got["model.extra.weight"])


def test_keys_of_b_under_other_names_are_not_added(tmp_path: Path, write: Write) -> None:
    """They would stand in A's file under names that nobody looks for."""
    keys = [f"layers.{n}.self_attn.q_proj.weight" for n in range(3)]
    one = {key: np.ones((2, 2), np.float32) for key in keys}
    a = write("a.safetensors", one)
    b = write(
        "b.safetensors",
        {f"model.{key}": value for key, value in one.items()} | {"model.x.weight": one[keys[0]]},
    )
    with pytest.raises(RecipeError, match="--only-in-b add: B has other names than A"):
        run_merge(a, b, tmp_path / "o.safetensors", Recipe(alpha=1.0, only_in_b="add"))


def test_empty_and_scalar_tensors_survive(tmp_path: Path, write: Write) -> None:
    """Markers without elements and scalars are written as they are."""
    tensors = {
        "w.weight": np.ones((3, 3), np.float32),
        "logit_scale": np.array(2.0, np.float32),
        "v_pred": np.empty(0, np.float32),
    }
    a, b = (
        write("a.safetensors", tensors),
        write("b.safetensors", {k: np.asarray(v * 3) for k, v in tensors.items()}),
    )
    run_merge(a, b, tmp_path / "o.safetensors", Recipe(alpha=0.5))
    got = load_file(tmp_path / "o.safetensors")
    assert ((), (0,)) == (got["logit_scale"].shape, got["v_pred"].shape)
    np.testing.assert_array_equal(np.float32(4.0), got["logit_scale"])
