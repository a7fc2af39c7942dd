"""`mergescope recover` on what `mergescope merge` wrote: the alphas, and a command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]
Unet = Callable[[int], Arrays]
Run = Callable[..., Any]

WEIGHTS = [round(0.04 * i, 2) for i in range(25)]


def near(a: Arrays, seed: int) -> Arrays:
    """A model trained on from `a`."""
    rng = np.random.default_rng(seed)
    return {
        k: v if v.dtype.kind == "i" else (v + 0.05 * rng.standard_normal(v.shape)).astype(v.dtype)
        for k, v in a.items()
    }


@pytest.fixture
def parents(unet: Unet, write: Write) -> tuple[Path, Path]:
    """Two models, the one trained on from the other."""
    a = unet(1)
    return write("a.safetensors", a), write("b.safetensors", near(a, 2))


MERGES = {
    "one alpha": ["--alpha", "0.35"],
    "block weights": ["--block-weights", ",".join(map(str, WEIGHTS)), "--base-alpha", "0.25"],
    "a preset": ["--block-weights", "GRAD_V", "--base-alpha", "0.5"],
    "a category": ["--only", "attn2"],
    "weights of a category": ["--only", "attn1,weight", "--alpha", "0.4"],
    "two selections": ["--alpha", "0.2", "--set", "attn2=0.8", "--set", "text_encoder=0.5"],
    "a block": ["--alpha", "0.2", "--set", "IN02,attn1=0.9", "--set", "VAE=0"],
    "blocks and a category": ["--block-weights", ",".join(map(str, WEIGHTS)), "--set", "attn2=0.9"],
    "beyond": ["--alpha", "1.5"],
}


@pytest.mark.parametrize("dtype", ["keep", "bf16", "fp32"])
@pytest.mark.parametrize("options", MERGES.values(), ids=MERGES)
def test_a_merge_is_found_and_made_again(
    options: list[str], dtype: str, parents: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    """The command that is printed gives the same tensors, to the bit, from what only numbers told."""
    merged = tmp_path / "m.safetensors"
    assert 0 == run("merge", *parents, "-o", merged, "--dtype", dtype, "--quiet", *options).code
    found = json.loads(run("recover", merged, *parents, "--json").out)
    assert found["recipe"]["exact"]
    assert 0.0 == found["whole"]["unexplained"]
    program, *words = shlex.split(found["command"])
    assert "mergescope" == program
    again = tmp_path / "again.safetensors"
    words[words.index("-o") + 1] = str(again)
    assert 0 == run(*words, "--quiet").code
    expected, got = data(merged), data(again)
    assert expected.keys() == got.keys()
    assert [key for key in expected if expected[key] != got[key]] == []


def data(path: Path) -> dict[str, Any]:
    """The bytes of every tensor with its dtype and shape; numpy knows no bf16."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header.pop("__metadata__", None)
    return {
        key: (v["dtype"], v["shape"], raw[end + v["data_offsets"][0] : end + v["data_offsets"][1]])
        for key, v in header.items()
    }


def test_block_weights_are_found_to_a_thousandth(
    parents: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    """Block by block, as JSON has them, with the sums that they come from."""
    merged = tmp_path / "m.safetensors"
    run("merge", *parents, "-o", merged, *MERGES["block weights"])
    found = json.loads(run("recover", merged, *parents, "--json").out)
    assert ("mergescope.recovery", 1) == (found["format"], found["version"])
    alphas = {group["name"]: group for group in found["groups"]["block"]}
    names = [f"IN{i:02}" for i in range(12)] + ["M00"] + [f"OUT{i:02}" for i in range(12)]
    seen = 0
    for name, expected in zip(names, WEIGHTS, strict=True):
        if name in alphas:
            seen += 1
            assert expected == pytest.approx(alphas[name]["alpha"], abs=1e-3)
            sums = alphas[name]["sums"]
            assert expected == pytest.approx(sums["ed"] / sums["dd"], abs=1e-2)
    assert seen > 5
    assert 0.25 == pytest.approx(alphas["BASE"]["alpha"], abs=1e-3)
    rows = {row["key"]: row for row in found["keys"]}
    assert set(rows) == {k for k, v in load_file(parents[0]).items() if v.dtype.kind == "f"}


def test_the_table_fits_its_terminal(parents: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    """80 columns, both axes, what it was made of in words, and the command."""
    merged = tmp_path / "m.safetensors"
    run("merge", *parents, "-o", merged, "--alpha", "0.35", "--set", "attn2=0.9")
    result = run("recover", merged, *parents)
    assert 0 == result.code
    lines = result.out.splitlines()
    assert all(
        len(line) <= 80 for line in lines if not line.startswith(("mergescope merge", "M ", "A ", "B "))
    )
    assert "• A + alpha·(B − A) with alpha 0.35, and 0.9 in attn2" in lines
    assert any(line.startswith("IN01") for line in lines)
    (row,) = [line for line in lines if line.startswith("attn2")]
    assert ["attn2", "9", "0.9"] == row.split()[:3]
    assert "made again by:" in lines
    assert lines[-1].startswith("mergescope merge ")
    only = run("recover", merged, *parents, "--axis", "kind", "--only", "attn1").out
    assert "IN01" not in only
    assert any(line.startswith("weight") for line in only.splitlines())


def test_axes_can_be_crossed(parents: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    """As rankings can."""
    merged = tmp_path / "m.safetensors"
    run("merge", *parents, "-o", merged, "--alpha", "0", "--set", "IN02,attn1=0.5")
    found = json.loads(run("recover", merged, *parents, "--json", "--axis", "block*component").out)
    alphas = {group["name"]: group["alpha"] for group in found["groups"]["block*component"]}
    assert (0.5, 0.0) == (alphas["IN02 × attn1"], alphas["IN02 × attn2"])


def test_parents_that_are_the_merge(parents: tuple[Path, Path], run: Run) -> None:
    """A merge that is A, and one that is B."""
    a, b = parents
    assert "• The merge is A: nothing of B is in it" in run("recover", a, a, b).out
    assert "• The merge is B, to the last value" in run("recover", b, a, b).out
    assert "• A and B hold the same values" in run("recover", b, a, a).out


def test_a_third_model_by_methods_of_merge(
    parents: tuple[Path, Path], unet: Unet, write: Write, tmp_path: Path, run: Run
) -> None:
    """Add difference and triple sum as `merge` writes them, found and made again."""
    c = write("c.safetensors", near(unet(1), 5))
    methods = {
        "difference": ["--method", "add_difference", "--base", c, "--alpha", "0.7"],
        "sum": ["--method", "triple_sum", "--model", f"{c}=0.25", "--alpha", "0.4"],
    }
    for form, options in methods.items():
        merged, again = tmp_path / f"{form}.safetensors", tmp_path / f"{form}-again.safetensors"
        written = run("merge", *parents, "-o", merged, "--dtype", "fp32", *options)
        assert 0 == written.code, written.err
        found = json.loads(run("recover", merged, *parents, c, "--json").out)
        assert form == found["form"]
        words = shlex.split(found["command"])[1:]
        words[words.index("-o") + 1] = str(again)
        assert 0 == run(*words, "--quiet").code
        assert data(merged) == data(again)
        assert "made again by:" in run("recover", merged, *parents, c).out.splitlines()


def test_what_cannot_be_done_is_one_sentence(
    parents: tuple[Path, Path], write: Write, tmp_path: Path, run: Run
) -> None:
    """Exit code 1 and no traceback; 2 for wrong usage."""
    other = write("other.safetensors", {"w": np.ones(3, np.float32)})
    a, b = parents
    for arguments, part in (
        ((other, a, b), "no key in common"),
        ((a, a, other), "no key in common"),
        ((a, a, tmp_path / "none.safetensors"), "none.safetensors"),
        ((a, a, b, "--only", "attn7"), "attn7"),
        ((a, a, b, "--device", "tpu"), "tpu"),
    ):
        result = run("recover", *arguments)
        assert (1, "") == (result.code, result.out)
        assert result.err.startswith("Error: ")
        assert part in result.err
        assert 1 == len(result.err.splitlines())
    assert 2 == run("recover", a, b).code
    assert 2 == run("recover", a, a, b, "--axis", "colour").code


def test_quiet_holds_warnings_back(unet: Unet, parents: tuple[Path, Path], write: Write, run: Run) -> None:
    """What the merge lacks is told on stderr, unless it is quiet."""
    m = unet(1)
    del m["model.diffusion_model.out.2.weight"]
    merged = write("m.safetensors", m)
    assert "not in the merge" in run("recover", merged, *parents).err
    assert "" == run("recover", merged, *parents, "--quiet").err
