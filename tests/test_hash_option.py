"""`scan --hash`: the digests of the inputs, from the same pass."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer import scanfile
from analyzer.checkpoints.sources import FileSource

Run = Callable[..., Any]
Write = Callable[..., Path]

SHAPES = {f"model.layers.{i}.self_attn.q_proj.weight": (40, 50 + i) for i in range(30)}


def digest(path: Path) -> str:
    """What `sha256sum` prints."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def models(write: Write) -> list[Path]:
    """Three models of the same keys; A's and B's headers have lengths of their own, and each a key more."""
    paths = []
    for seed, name in enumerate(("a", "b", "base")):
        rng = np.random.default_rng(seed)
        tensors = {key: rng.standard_normal(shape).astype(np.float16) for key, shape in SHAPES.items()}
        tensors[f"only_in_{name}.weight"] = np.ones((7, seed + 3), np.float32)
        paths.append(write(f"{name}.safetensors", tensors, {"name": name * seed}))
    return paths


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_digests_stand_in_the_scan_file_and_in_the_summary(
    threads: int, run: Run, models: list[Path], tmp_path: Path
) -> None:
    """Those of A, B and the base, as another tool has them, however many threads read."""
    a, b, base = models
    done = run("scan", a, b, "--base", base, "--hash", "--threads", threads, "-o", tmp_path / "scan.json")
    assert 0 == done.code
    document = json.loads((tmp_path / "scan.json").read_bytes())
    assert [digest(path) for path in models] == [
        document["models"][name]["sha256"] for name in ("a", "b", "base")
    ]
    assert [f"sha256 {digest(path)}" for path in models] == [
        line.strip() for line in done.out.splitlines() if "sha256" in line
    ]
    assert digest(a) == scanfile.load(tmp_path / "scan.json").a.sha256


def test_with_a_selection_the_digest_is_still_of_the_whole_file(
    run: Run, models: list[Path], tmp_path: Path
) -> None:
    """What the selection leaves out is read for the digest."""
    a, b, _ = models
    done = run("scan", a, b, "--hash", "--only", "L03", "-o", tmp_path / "scan.json")
    assert 0 == done.code
    assert digest(b) == scanfile.load(tmp_path / "scan.json").b.sha256


def test_without_the_option_there_is_no_digest(run: Run, models: list[Path], tmp_path: Path) -> None:
    """None, and nothing in the summary; an older scan file, which lacks the field, is read."""
    file = tmp_path / "scan.json"
    done = run("scan", *models[:2], "-o", file)
    assert "sha256" not in done.out
    assert scanfile.load(file).a.sha256 is None
    document = json.loads(file.read_bytes())
    del document["models"]["a"]["sha256"]
    file.write_text(json.dumps(document))
    assert scanfile.load(file).a.sha256 is None


def test_hashing_reads_the_headers_again_and_nothing_else_twice(
    run: Run, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass is shared. The tensors without a partner are so small that the fingerprint has all of them."""
    read: list[int] = []
    fill = FileSource.fill

    def count(source: FileSource, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        fill(source, offset, buffer)

    monkeypatch.setattr(FileSource, "fill", count)
    assert 0 == run("scan", *models[:2], "-q").code
    without = sum(read)
    read.clear()
    assert 0 == run("scan", *models[:2], "-q", "--hash").code
    headers = sum(int.from_bytes(path.read_bytes()[:8], "little") + 8 for path in models[:2])
    assert without + headers == sum(read)


def test_a_folder_has_a_digest_a_file(run: Run, models: list[Path], tmp_path: Path) -> None:
    """By the names in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    models[1].rename(folder / "model.safetensors")
    done = run("scan", models[0], folder, "--hash", "-o", tmp_path / "scan.json")
    assert 0 == done.code
    expected = {"model.safetensors": digest(folder / "model.safetensors")}
    assert expected == scanfile.load(tmp_path / "scan.json").b.sha256
    assert f"sha256 {expected['model.safetensors']}  model.safetensors" in done.out


def test_a_file_whose_name_is_no_text_is_named_in_the_scan_file(
    run: Run, models: list[Path], tmp_path: Path
) -> None:
    """Linux takes any bytes for a name, and JSON none but UTF-8."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / os.fsdecode(b"a\xff.safetensors")
    try:
        models[1].rename(file)
    except (OSError, UnicodeError):
        pytest.skip("the file system takes text alone")
    done = run("scan", models[0], folder, "--hash", "-o", tmp_path / "scan.json")
    assert 0 == done.code
    assert {r"a\udcff.safetensors": digest(file)} == scanfile.load(tmp_path / "scan.json").b.sha256
