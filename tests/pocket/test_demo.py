"""`mergescope demo` does the whole main job, and paints where it can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

import analyzer.pocket

WITHOUT = {"scan.json", "report.html", "merged.safetensors"}
PAINTED = WITHOUT | {"experiment.html", "experiment.png"}


@pytest.fixture(autouse=True)
def _quick_models(random_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the place of the trained ones, and as few steps as a sampler can do."""
    monkeypatch.setattr(analyzer.pocket, "base_path", lambda: random_pair[0])
    monkeypatch.setattr(analyzer.pocket, "fine_tune_path", lambda: random_pair[1])
    command = sys.modules["analyzer.cli.demo"]
    monkeypatch.setattr(command, "_STEPS", 1)
    monkeypatch.setattr(command, "_SEEDS", (1,))
    monkeypatch.setattr(command, "_COLUMNS", ("attn1",))


def test_demo_shows_the_whole_job(run: Any, random_pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Scan, report, merge, grid; within 80 columns; the merge is A with one category of B."""
    folder = tmp_path / "demo"
    result = run("demo", folder, "--threads", 1)
    assert 0 == result.code, result.err
    assert PAINTED == {path.name for path in folder.iterdir()}
    for part in ("1,143 keys compared", "Stable Diffusion 1.x", "toward B", "mergescope experiment A B"):
        assert part in result.out
    assert max(len(line) for line in result.out.splitlines() if not set("/→") & set(line)) <= 80
    assert (folder / "experiment.png").read_bytes().startswith(b"\x89PNG")
    a, b, merged = map(load_file, (*random_pair, folder / "merged.safetensors"))
    assert [] == [k for k in a if not torch.equal(merged[k], (b if ".attn1." in k else a)[k])]


def test_demo_without_the_libraries_says_how_to_get_pictures(
    run: Any, write: Any, unet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line; all the rest is there. Again in the same folder it replaces its own files."""
    a, b = (write(f"{seed}.safetensors", unet(seed)) for seed in (0, 1))  # smaller ones serve as well here
    monkeypatch.setattr(analyzer.pocket, "base_path", lambda: a)
    monkeypatch.setattr(analyzer.pocket, "fine_tune_path", lambda: b)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    folder = tmp_path / "demo"
    result = run("demo", folder, "--threads", 1)
    assert (0, "") == (result.code, result.err)
    assert WITHOUT == {path.name for path in folder.iterdir()}
    assert 1 == result.out.count("pip install 'mergescope[experiment]'")
    quiet = run("demo", folder, "--threads", 1, "--quiet")
    assert (0, "", "") == (quiet.code, quiet.out, quiet.err)


def test_demo_replaces_no_strangers_model(run: Any, tmp_path: Path) -> None:
    """A merged.safetensors that no demo wrote is left alone, and so is a file in the folder's place."""
    mine = tmp_path / "merged.safetensors"
    save_file({"w": np.zeros(3)}, mine)
    before = mine.read_bytes()
    result = run("demo", tmp_path, "--threads", 1)
    assert 1 == result.code
    assert "exists already, and no demo wrote it; name another folder" in result.err
    assert (before, [mine]) == (mine.read_bytes(), list(tmp_path.iterdir()))
    assert 2 == run("demo", mine).code
