"""A whole Stable Diffusion 1.5 in small, scanned, ranked and merged by the command itself.

All 1143 names of the real model with narrow layers. What moved is known by construction, as shares of
each tensor's own length: attn2 0.30, attn1 and self_attn 0.15, ff and mlp 0.10, the VAE nothing, the
rest 0.02. Files are written and read here without the project's own code.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

SD15 = runpy.run_path(str(Path(__file__).with_name("layouts") / "test_sd15.py"))["sd15"]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]


@dataclass(frozen=True)
class Models:
    """A pair on disk, and the scan of it."""

    a: Path
    b: Path
    scan: Path


def share(key: str) -> float:
    """By how much of its own length B's tensor differs from A's."""
    if key.startswith(VAE):
        return 0.0
    names = {".attn2.": 0.30, ".attn1.": 0.15, ".self_attn.": 0.15, ".ff.": 0.10, ".mlp.": 0.10}
    return next((value for name, value in names.items() if name in key), 0.02)


def mergescope(*arguments: object) -> str:
    """Run the installed command, which must do well and say nothing; return what it prints."""
    command = [sys.executable, "-I", "-m", "analyzer", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def tensors(path: Path) -> Tensors:
    """Every tensor's dtype, shape and bytes in header order, parsed here."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        key: (row["dtype"], tuple(row["shape"]), data[slice(*(start + n for n in row["data_offsets"]))])
        for key, row in header.items()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The pair, below 3 MB each, with one wrong number in A's position_ids; and its scan."""
    folder = tmp_path_factory.mktemp("sd15")
    rng = np.random.default_rng(0)
    a: dict[str, np.ndarray] = {}
    b: dict[str, np.ndarray] = {}
    for key, shape in SD15(unet=8, clip=16, vae=4, vocabulary=64).items():
        if key == POSITION_IDS:
            a[key], b[key] = np.arange(77)[None], np.arange(77)[None]
            a[key][0, 13] = 12
            continue
        base = rng.standard_normal(shape) * 0.03
        delta = rng.standard_normal(shape) * 0.03 * share(key)
        a[key], b[key] = base.astype(np.float16), (base + delta).astype(np.float16)
    result = Models(folder / "a.safetensors", folder / "b.safetensors", folder / "scan.json")
    save_file(a, result.a, {"format": "pt"})
    save_file(b, result.b, {"format": "pt"})
    assert result.a.stat().st_size < 3_000_000
    mergescope("scan", result.a, result.b, "-o", result.scan, "--quiet")
    return result


def test_scan_compares_every_key_and_finds_the_vae_unchanged(models: Models) -> None:
    """One row per tensor; every change is its own share, and the VAE's is zero exactly."""
    document = json.loads(models.scan.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = document["keys"]
    assert tensors(models.a).keys() == {row["key"] for row in rows}
    assert (1143, "sd1") == (len(rows), document["models"]["a"]["architecture"])
    assert [[], [], []] == [document[name] for name in ("only_in_a", "only_in_b", "shape_mismatch")]
    vae = [row for row in rows if row["key"].startswith(VAE)]
    assert 248 == len(vae)
    for name in ("relative_change", "cosine_distance", "max_abs_delta", "changed_fraction"):
        assert {0.0} == {row["statistics"][name] for row in vae}, name
    assert {"vae"} == {row["part"] for row in vae}
    large = [row for row in rows if np.prod(row["shape"]) >= 1000 and row["part"] in ("unet", "text_encoder")]
    assert len(large) > 100
    for row in large:
        assert share(row["key"]) == pytest.approx(row["statistics"]["relative_change"], rel=0.1), row["key"]


def test_rank_puts_the_attentions_of_the_unet_first(models: Models) -> None:
    """attn2, attn1 and ff lead in this order, by what was put into them; the rest is far behind."""
    printed = mergescope("rank", models.scan, "--only", "unet", "--format", "json")
    rows = json.loads(printed)["rows"]
    expected = [("attn2", 80), ("attn1", 80), ("ff", 64)]
    assert expected == [(row["name"].rsplit("/", 1)[-1], row["keys"]) for row in rows[:3]]
    changes = [row["relative_change"] for row in rows]
    assert [0.30, 0.15, 0.10] == pytest.approx(changes[:3], rel=0.03)
    assert max(changes[3:]) < 0.03


def test_merge_of_attn2_changes_nothing_else(models: Models, tmp_path: Path) -> None:
    """Exactly the 80 keys of attn2 hold B's bytes; all else is A's: bytes, order, dtypes, shapes."""
    out = tmp_path / "attn2.safetensors"
    mergescope("merge", models.a, models.b, "-o", out, "--only", "attn2", "--quiet")
    was_a, was_b, now = tensors(models.a), tensors(models.b), tensors(out)
    assert list(was_a) == list(now)
    assert {key: (was_b if ".attn2." in key else was_a)[key] for key in was_a} == now
    assert 80 == sum(now[key] != was_a[key] for key in now)


def test_the_articles_experiment(models: Models, tmp_path: Path) -> None:
    """ALL_B, base alpha 0, position_ids reset, and only attn1, attn2 and weight ticked."""
    out = tmp_path / "article.safetensors"
    mergescope(
        *("merge", models.a, models.b, "-o", out, "--quiet"),
        *("--block-weights", ",".join(["1"] * 25), "--base-alpha", 0),
        *("--position-ids", "reset", "--only", "attn1,attn2,weight"),
    )
    was_a, was_b, now = tensors(models.a), tensors(models.b), tensors(out)
    expected = {
        key: (was_b if key.endswith(".weight") and (".attn1." in key or ".attn2." in key) else was_a)[key]
        for key in was_a
    }
    expected[POSITION_IDS] = ("I64", (1, 77), np.arange(77, dtype="<i8").tobytes())
    assert list(was_a) == list(now)
    assert expected == now
    assert 16 * 2 * 4 + 1 == sum(now[key] != was_a[key] for key in now)
