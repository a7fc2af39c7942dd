"""What a merge comes to in memory is what it writes, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from analyzer.checkpoints import open_checkpoint
from analyzer.merge import merge, plan_merge
from analyzer.merging.in_memory import merged_tensors
from analyzer.merging.inputs import Inputs
from analyzer.methods import METHODS
from analyzer.recipes.recipe import Recipe

Build = Callable[[int], dict[str, np.ndarray]]
Models = tuple[Path, Path, Path]


@pytest.fixture
def pair(tmp_path: Path, unet: Build) -> Models:
    """A miniature SD 1.5, a relative of another dtype in places, and a base."""
    paths = []
    for seed, name in enumerate(("a", "b", "base")):
        tensors = unet(seed)
        if name == "b":
            wide = [key for key in tensors if key.endswith(".bias")]
            tensors |= {key: tensors[key].astype(np.float32) for key in wide}
        save_file(tensors, tmp_path / f"{name}.safetensors")
        paths.append(tmp_path / f"{name}.safetensors")
    return paths[0], paths[1], paths[2]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(only="attn2", alpha=1.0),
        Recipe(alpha=0.3),
        Recipe(alpha=0.5, dtype="fp32"),
        Recipe(only="bias", alpha=1.0, position_ids="reset"),
        *(Recipe(method=name, alpha=0.4, only="unet") for name in METHODS),
    ],
    ids=lambda recipe: f"{recipe.method}-{recipe.only}-{recipe.dtype}-{recipe.alpha}",
)
def test_the_bytes_are_those_of_the_file(pair: Models, tmp_path: Path, recipe: Recipe) -> None:
    """Every key, dtype and shape, for every method, those that first look at whole tensors among them."""
    out = tmp_path / "out.safetensors"
    with open_checkpoint(pair[0]) as a, open_checkpoint(pair[1]) as b, open_checkpoint(pair[2]) as c:
        method = METHODS[recipe.method]
        base = c if method.base == "must" or method.tasks > 1 else None
        models = (c,) if method.models == "must" or method.tasks > 2 else ()
        recipe = replace(recipe, weights=(0.5,) * len(models))
        inputs = Inputs(a, b, base, models)
        plan = plan_merge(inputs, recipe)
        found = {key: row for key, *row in merged_tensors(inputs, plan, recipe, threads=2)}
        merge(inputs, plan, recipe, out=out)
        some = [key for key in found if ".attn2." in key]
        again = {key: row for key, *row in merged_tensors(inputs, plan, recipe, keys=some)}
    expected = load_file(out)
    with safe_open(out, "np") as file:
        dtypes = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    assert expected.keys() == found.keys()
    for key, (dtype, shape, data) in found.items():
        assert (dtypes[key], expected[key].shape) == (dtype, shape)
        assert expected[key].tobytes() == data.tobytes(), key
    assert some == list(again)
    for key, (_, _, data) in again.items():
        np.testing.assert_array_equal(found[key][2], data)


def test_tensors_of_several_batches_come_whole(tmp_path: Path) -> None:
    """A tensor larger than a batch, an empty one and a scalar, and each has memory of its own."""
    rng = np.random.default_rng(5)
    shapes = {"large": (1300, 1000), "none": (0, 3), "one": (), "small": (7,)}
    for name in "ab":
        tensors = {key: rng.standard_normal(shape).astype(np.float16) for key, shape in shapes.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    recipe = Recipe(alpha=0.25)
    with (
        open_checkpoint(tmp_path / "a.safetensors") as a,
        open_checkpoint(tmp_path / "b.safetensors") as b,
    ):
        inputs = Inputs(a, b)
        found = {key: row for key, *row in merged_tensors(inputs, plan_merge(inputs, recipe), recipe)}
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert one.keys() == found.keys()
    for key, (_, shape, data) in found.items():
        x, y = one[key].astype(np.float64), other[key].astype(np.float64)
        np.testing.assert_array_equal(
            (x + 0.25 * (y - x)).astype(np.float16), data.view("<f2").reshape(shape)
        )
    assert not any(
        np.shares_memory(found["large"][2], row[2]) for key, row in found.items() if key != "large"
    )


def test_codes_of_scaled_fp8_are_those_of_the_file(tmp_path: Path) -> None:
    """A layer in codes and a scale: what is blended comes as codes in A's scale."""
    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        codes = (torch.randn(40, 50, generator=generator) * 60).to(torch.float8_e4m3fn)
        scale = torch.tensor(0.01 / (1 + seed))
        save_torch({"l.0.mlp.weight": codes, "l.0.mlp.weight_scale": scale}, tmp_path / f"{name}.safetensors")
    recipe, out = Recipe(alpha=0.5), tmp_path / "o.safetensors"
    with (
        open_checkpoint(tmp_path / "a.safetensors") as a,
        open_checkpoint(tmp_path / "b.safetensors") as b,
    ):
        inputs = Inputs(a, b)
        assert a.infos["l.0.mlp.weight"].encoded
        plan = plan_merge(inputs, recipe)
        found = {key: row for key, *row in merged_tensors(inputs, plan, recipe)}
        merge(inputs, plan, recipe, out=out)
    for key, value in load_torch(out).items():
        dtype, shape, data = found[key]
        assert ("F8_E4M3" if key.endswith("weight") else "F32", tuple(value.shape)) == (dtype, shape)
        assert value.reshape(-1).view(torch.uint8).numpy().tobytes() == data.tobytes()
    assert found["l.0.mlp.weight"][2].any()
