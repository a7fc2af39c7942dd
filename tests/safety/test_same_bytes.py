"""The same inputs and recipe give the same bytes; and until they are all there, the earlier ones stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crashing import tree
from safetensors.numpy import save_file

from analyzer.blending import open_blender
from analyzer.methods import METHODS
from analyzer.writing import unfinished


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Four models whose tensors are of several batches, of one element, and of none."""
    paths = {}
    for seed, name in enumerate(("a", "b", "base", "more")):
        rng = np.random.default_rng(seed)
        sizes = {"big": (1000, 1001), "scalar": (), "empty": (0, 3), "odd": (777,), "wide": (3, 200_001)}
        paths[name] = tmp_path / "in" / f"{name}.safetensors"
        paths[name].parent.mkdir(exist_ok=True)
        tensors = {k: np.asarray(rng.standard_normal(shape), np.float16) for k, shape in sizes.items()}
        save_file(tensors, paths[name])
    return paths


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_pieces_do_not_matter(
    run: Callable[..., Any],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """1, 2 or 7 threads, and tensors cut into small, odd or large pieces; wherever the output lies."""
    options = ["--method", method, "--alpha=0.3"]
    if METHODS[method].base != "no":
        options += ["--base", str(models["base"])]
    if METHODS[method].models != "no":
        options += ["--model", f"{models['more']}=0.25"]
    found = set()
    blender = type(open_blender("cpu"))
    usual = open_blender("cpu").chunk
    for threads, chunk in ((1, usual), (2, usual), (7, usual), (7, 4096), (2, 50_001)):
        monkeypatch.setattr(blender, "chunk", chunk)
        monkeypatch.setattr(blender, "fused_chunk", chunk)
        out = tmp_path / f"{threads}-{chunk}" / "o.safetensors"
        out.parent.mkdir()
        result = run("merge", models["a"], models["b"], "-o", out, *options, "--threads", threads)
        assert 0 == result.code, result.err
        found.add(out.read_bytes())
    assert 1 == len(found)


@pytest.mark.parametrize("unnamed", [True, False])
def test_the_earlier_output_stays_until_the_new_one_is_complete(
    run: Callable[..., Any],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    unnamed: bool,
) -> None:
    """Whoever opens it at any moment has one of the two, whole; even who has had it open."""
    if not hasattr(os, "pwrite"):
        pytest.skip("no pwrite to watch")
    out, call = tmp_path / "o.safetensors", os.pwrite
    out.write_bytes(b"earlier")
    seen = []

    def pwrite(descriptor: int, data: memoryview, position: int) -> int:
        seen.append(out.read_bytes())
        return call(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    if not unnamed:
        monkeypatch.setattr(unfinished, "_open_unnamed", lambda _folder: None)
    with out.open("rb") as reader:
        merge = ("merge", models["a"], models["b"], "-o", out, "--alpha=0.5", "--force")
        assert 0 == run(*merge).code
        assert (b"earlier", {b"earlier"}) == (reader.read(), set(seen))
    assert len(seen) > 5
    assert {"o.safetensors"} == tree(tmp_path, but=["in"]).keys()


@pytest.mark.parametrize("unnamed", [True, False])
def test_an_output_that_appears_meanwhile_is_not_replaced(
    run: Callable[..., Any],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    unnamed: bool,
) -> None:
    """Another program, or another merge, was faster: its file stays, if --force was not given."""
    if not hasattr(os, "pwrite"):
        pytest.skip("no pwrite to watch")
    out, call = tmp_path / "o.safetensors", os.pwrite

    def pwrite(descriptor: int, data: memoryview, position: int) -> int:
        out.write_bytes(b"theirs")
        return call(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    if not unnamed:
        monkeypatch.setattr(unfinished, "_open_unnamed", lambda _folder: None)
    found = run("merge", models["a"], models["b"], "-o", out, "--alpha=0.5")
    assert (1, True) == (found.code, "appeared meanwhile" in found.err)
    assert {"o.safetensors": b"theirs"} == tree(tmp_path, but=["in"])
