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
from analyzer.errors import AnalyzerError, OutputError

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


@pytest.fixture
def smaller(write: Any, unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller models yet, for what paints nothing."""
    a, b = (write(f"{seed}.safetensors", unet(seed)) for seed in (0, 1))
    monkeypatch.setattr(analyzer.pocket, "base_path", lambda: a)
    monkeypatch.setattr(analyzer.pocket, "fine_tune_path", lambda: b)


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
    run: Any, smaller: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 80 columns; all the rest is there. Again in the same folder it replaces its own files."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    folder = tmp_path / "demo"
    result = run("demo", folder, "--threads", 1)
    assert (0, "") == (result.code, result.err)
    assert WITHOUT == {path.name for path in folder.iterdir()}
    assert 1 == result.out.count("pip install 'mergescope[experiment]'")
    (line,) = [line for line in result.out.splitlines() if "diffusers is missing" in line]
    assert len(line) <= 80
    quiet = run("demo", folder, "--threads", 1, "--quiet")
    assert (0, "", "") == (quiet.code, quiet.out, quiet.err)


def test_demo_replaces_no_strangers_model(run: Any, tmp_path: Path) -> None:
    """A merged.safetensors that no demo wrote is left alone, be it broken; so is a file in DIR's place."""
    mine = tmp_path / "merged.safetensors"
    save_file({"w": np.zeros(3)}, mine)
    before = mine.read_bytes()
    for content in (before, before[:-1], b""):
        mine.write_bytes(content)
        result = run("demo", tmp_path, "--threads", 1)
        assert (1, "") == (result.code, result.out)
        assert f"{mine}: exists already, and no demo wrote it; name another folder" in result.err
        assert (content, [mine]) == (mine.read_bytes(), list(tmp_path.iterdir()))
    for place in (mine, mine / "demo"):
        result = run("demo", place)
        assert 1 == result.code
        assert f"{place}: cannot be created" in result.err


def test_a_demo_that_fails_leaves_nothing_behind(
    run: Any, smaller: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the folders that it made nor what it wrote before; what was there before stays."""

    def fails(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr("analyzer.merge.merge", fails)
    before = sorted(tmp_path.iterdir())
    result = run("demo", tmp_path / "some" / "demo", "--threads", 1)
    assert (1, "Error: the disk is full\n") == (result.code, result.err)
    assert before == sorted(tmp_path.iterdir())


def test_a_broken_library_is_no_failure_of_the_demo(
    run: Any, smaller: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed, and at odds with what it needs: all but the pictures is there."""

    def fails() -> None:
        raise AnalyzerError("painting needs diffusers")

    monkeypatch.setattr("analyzer.quiet.diffusers_library", fails)
    result = run("demo", tmp_path / "demo", "--threads", 1)
    assert (0, "") == (result.code, result.err)
    assert "diffusers cannot be imported" in result.out
    assert WITHOUT == {path.name for path in (tmp_path / "demo").iterdir()}
