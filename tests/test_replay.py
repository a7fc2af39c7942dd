"""A merge is repeated from a file: the same bytes from a saved recipe, and from the merged model itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

Run = Callable[..., Any]
Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]


@pytest.fixture
def family(write: Write, unet: Build) -> dict[str, Path]:
    """A, and three models trained from it, each block by another amount."""
    a = unet(0)
    paths = {"a": write("a.safetensors", a)}
    for seed, name in enumerate(("b", "c", "d"), start=1):
        rng = np.random.default_rng(seed)
        tensors = {
            key: value + (rng.uniform(0.01, 0.3) * rng.standard_normal(value.shape)).astype(value.dtype)
            if value.dtype == np.float16
            else value
            for key, value in a.items()
        }
        paths[name] = write(f"{name}.safetensors", tensors)
    return paths


def done(result: Any) -> Any:
    assert 0 == result.code, result.err
    return result


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "np") as file:
        found: dict[str, Any] = json.loads(file.metadata()["mergescope.recipe"])
    return found


def test_a_guided_merge_is_repeated_without_its_scan(
    run: Run, family: dict[str, Path], tmp_path: Path
) -> None:
    """From its own metadata, which holds the alphas; and from the saved recipe, which names the scan."""
    a, b, scan, recipe = family["a"], family["b"], tmp_path / "scan.json", tmp_path / "sub" / "r.toml"
    recipe.parent.mkdir()
    done(run("scan", a, b, "-o", scan))
    first, second, third = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "third"))
    options = ("--scan", scan, "--budget", "0.05", "--set", "VAE=0", "--save-recipe", recipe)
    done(run("merge", a, b, "-o", first, *options))
    assert len(metadata(first)["recipe"]["alphas"]) > 3
    done(run("merge", a, b, "-o", second, "--recipe", recipe))
    scan.unlink()
    done(run("merge", a, b, "-o", third, "--recipe", first))
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_a_merge_of_many_models_is_repeated_beside_them(
    run: Run, family: dict[str, Path], tmp_path: Path
) -> None:
    """Base and further models are found by name beside A, also from another folder."""
    out, again = tmp_path / "out.safetensors", tmp_path / "again.safetensors"
    options = ("--method", "task_arithmetic", "--base", family["c"], "--model", f"{family['d']}=0.3")
    done(run("merge", family["a"], family["b"], "-o", out, "--alpha", "0.5", *options))
    far = tmp_path / "far"
    far.mkdir()
    moved = Path(shutil.move(out, far / "merged.safetensors"))
    done(run("merge", family["a"], family["b"], "-o", again, "--recipe", moved))
    assert moved.read_bytes() == again.read_bytes()
    family["d"].unlink()
    result = run("merge", family["a"], family["b"], "-o", again, "--recipe", moved, "--force")
    assert 1 == result.code
    assert "'d.safetensors' as --model" in result.err


def test_the_command_line_wins_over_the_recipe(run: Run, family: dict[str, Path], tmp_path: Path) -> None:
    """Option by option, and what is recorded is what was done."""
    recipe, out = tmp_path / "r.toml", tmp_path / "out.safetensors"
    recipe.write_text("alpha = 0.25\nset = ['attn2=0.5', 'VAE=0']\nonly = 'weight'\n", encoding="utf-8")
    done(
        run(
            "merge",
            family["a"],
            family["b"],
            "-o",
            out,
            "--recipe",
            recipe,
            "--alpha",
            "0.5",
            "--set",
            "attn2=1",
        )
    )
    found = metadata(out)["recipe"]
    assert (0.5, "weight", ["VAE=0.0", "attn2=1.0"]) == (found["alpha"], found["only"], found["set"])


@pytest.mark.parametrize(
    ("text", "options", "name", "expected"),
    [
        ("prune-ema = true", ["--no-prune-ema"], "prune_ema", None),
        (
            "method = 'ties'\nbase = 'c.safetensors'\nparam = {density = 0.2}",
            ["--method=slerp"],
            "param",
            None,
        ),
        ("top = 3\nby = 'cosine'\nscan = 's.json'", ["--where=cosine < 0.9999"], "by", None),
        ("where = 'cosine < 0.9999'\nscan = 's.json'", ["--top=2"], "where", None),
        ("position-ids = 'reset'", ["--position-ids=keep"], "position_ids", "keep"),
        ("only-in-b = 'add'", ["--only-in-b=drop"], "only_in_b", None),
        ("dtype = 'fp32'", ["--dtype=keep"], "dtype", None),
        ("text-encoder = 'keep-a'", ["--text-encoder=keep-b"], "text_encoder", "keep-b"),
        ("base-alpha = 1", ["--base-alpha=0"], "base_alpha", 0.0),
        ("block-weights = 'GRAD_V'", ["--block-weights=ALL_B"], "block_weights", "ALL_B"),
        ("only = 'attn2'", ["--only=attn1"], "only", "attn1"),
    ],
)
def test_every_option_can_be_taken_back(
    run: Run,
    family: dict[str, Path],
    tmp_path: Path,
    text: str,
    options: list[str],
    name: str,
    expected: object,
) -> None:
    """Also one that has no place beside another, or no use without it: no recipe needs to be edited."""
    recipe, out, scan = (tmp_path / each for each in ("r.toml", "out.safetensors", "s.json"))
    recipe.write_text(f"alpha = 0.5\n{text}\n", encoding="utf-8")
    if "scan" in text:
        done(run("scan", family["a"], family["b"], "-o", scan))
    done(run("merge", family["a"], family["b"], "-o", out, "--recipe", recipe, *options))
    assert expected == metadata(out)["recipe"].get(name)


def test_three_generations_on_disk(run: Run, family: dict[str, Path], tmp_path: Path) -> None:
    """Each file carries the recipes of those that it came from, and inspect tells of all."""
    one, two, three = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "three"))
    done(run("merge", family["a"], family["b"], "-o", one, "--alpha", "0.3"))
    done(run("merge", one, family["c"], "-o", two, "--only", "attn2"))
    done(run("merge", two, family["d"], "-o", three, "--alpha", "0.5"))
    found = metadata(three)
    assert "attn2" == found["inputs"]["a"]["recipe"]["recipe"]["only"]
    assert metadata(one) == found["inputs"]["a"]["recipe"]["inputs"]["a"]["recipe"]
    lines = done(run("inspect", three)).out.splitlines()
    assert "merged from two.safetensors (0.5) and d.safetensors (0.5) by weighted_sum" in lines
    assert (
        "    one.safetensors: merged from a.safetensors (0.7) and b.safetensors (0.3) by weighted_sum"
        in lines
    )


def test_a_strangers_recipe_breaks_no_merge(run: Run, write: Write, unet: Build, tmp_path: Path) -> None:
    """It is left out of the history, with a warning."""
    a = write("a.safetensors", unet(0), {"mergescope.recipe": "[" * 10_000})
    b, out = write("b.safetensors", unet(1)), tmp_path / "out.safetensors"
    result = done(run("merge", a, b, "-o", out, "--alpha", "0.5"))
    assert "a.safetensors: its recipe is left out of the history" in result.err
    assert {"name", "bytes", "fingerprint"} == metadata(out)["inputs"]["a"].keys()


def test_another_model_is_warned_of(run: Run, family: dict[str, Path], tmp_path: Path) -> None:
    """A recipe may be applied to other models: knowingly."""
    out, again = tmp_path / "out.safetensors", tmp_path / "again.safetensors"
    done(run("merge", family["a"], family["b"], "-o", out, "--alpha", "0.5"))
    result = done(run("merge", family["a"], family["c"], "-o", again, "--recipe", out))
    assert "B " in result.err
    assert "c.safetensors is not the model that the recipe was made with, b.safetensors" in result.err
