"""The metadata of a merged file: readers need to know which framework wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.checkpoints import open_checkpoint
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]
RECIPE = Recipe(only="attn2")


def merged_metadata(a: Path, b: Path, out: Path) -> dict[str, Any]:
    """Merge, and parse the metadata from the file's header here."""
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        merge(Inputs(model_a, model_b), plan_merge(Inputs(model_a, model_b), RECIPE), RECIPE, out=out)
    data = out.read_bytes()
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"]


def check_recipe(text: str) -> None:
    document = json.loads(text)
    assert ("mergescope.recipe", 1) == (document["format"], document["version"])
    assert "attn2" == document["recipe"]["only"]


def test_a_without_metadata_yields_format_and_recipe(tmp_path: Path, unet: Build, write: Write) -> None:
    """`format` is `pt`, and nothing else is made up; B's metadata is not A's."""
    a, b = write("a.safetensors", unet(0)), write("b.safetensors", unet(1), {"format": "np", "title": "B"})
    assert b"__metadata__" not in a.read_bytes()
    metadata = merged_metadata(a, b, tmp_path / "o.safetensors")
    check_recipe(metadata.pop("mergescope.recipe"))
    assert {"format": "pt"} == metadata


def test_a_torch_pickle_has_no_metadata_either(tmp_path: Path, unet: Build, write: Write) -> None:
    """A .ckpt as A comes out the same way."""
    a = tmp_path / "a.ckpt"
    torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in unet(0).items()}, "epoch": 3}, a)
    metadata = merged_metadata(a, write("b.safetensors", unet(1)), tmp_path / "o.safetensors")
    check_recipe(metadata.pop("mergescope.recipe"))
    assert {"format": "pt"} == metadata


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"title": "A"}, {"format": "pt", "title": "A"}),
        ({"format": "np", "title": "A"}, {"format": "np", "title": "A"}),
        ({"mergescope.recipe": "an earlier merge"}, {"format": "pt"}),
        ({"prompt": "{}", "workflow": "{}", "sd_merge_recipe": "{}", "mecha_recipe": ""}, {"format": "pt"}),
    ],
)
def test_what_a_says_stays(
    tmp_path: Path, unet: Build, write: Write, given: dict[str, str], expected: dict[str, str]
) -> None:
    """`format` is added only where A has none; an earlier recipe gives way to this merge's."""
    a, b = write("a.safetensors", unet(0), given), write("b.safetensors", unet(1))
    metadata = merged_metadata(a, b, tmp_path / "o.safetensors")
    check_recipe(metadata.pop("mergescope.recipe"))
    assert expected == metadata
