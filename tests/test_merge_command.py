"""`mergescope merge` on the command line: guided, predicted, verified, and written as a recipe."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from analyzer.errors import VerificationError
from analyzer.prediction import verified_merge

Run = Callable[..., object]
Write = Callable[..., Path]
Build = Callable[[int], dict[str, np.ndarray]]


@pytest.fixture
def models(unet: Build, write: Write) -> tuple[Path, Path]:
    """A mini SD 1.5 pair on disk, B near A."""
    a, noise = unet(0), unet(1)
    near = {
        key: (value + np.float16(0.1) * noise[key]).astype(value.dtype) if value.dtype.kind == "f" else value
        for key, value in a.items()
    }
    return write("a.safetensors", a), write("b.safetensors", near)


@pytest.fixture
def scan(run: Run, models: tuple[Path, Path], tmp_path: Path) -> Path:
    """The scan of the pair."""
    path = tmp_path / "scan.json"
    assert 0 == run("scan", *models, "-o", path, "--quiet").code
    return path


def refused(run: Run, *arguments: object) -> str:
    """The one sentence with which a command is refused."""
    result = run("merge", *arguments)
    assert (1, "", 1) == (result.code, result.out, len(result.err.splitlines())), result.err
    return result.err


def test_a_dry_run_says_what_would_be_and_predicts(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    """Every key's action, alpha and reason, and the prediction, as text and as JSON; nothing is written."""
    before = sorted(tmp_path.iterdir())
    common = ("merge", *models, "-o", tmp_path / "o.safetensors", "--dry-run", "--scan", scan)
    text = run(*common, "--only", "attn2", "--alpha", "0.5")
    assert 0 == text.code
    assert re.search(
        r"^merge +0\.5  model\.diffusion_model\.\S+attn2\.to_k\.weight  \(--alpha 0\.5\)", text.out, re.M
    )
    assert "predicted, before rounding" in text.out
    assert max(map(len, text.out.split("predicted")[1].splitlines())) <= 80
    plan = json.loads(run(*common, "--only", "attn2", "--alpha", "0.5", "--json").out)
    merged = [action for action in plan["actions"] if action["verb"] == "merge"]
    assert {0.5} == {action["alpha"] for action in merged}
    assert all(action["reason"] == "--alpha 0.5" for action in merged)
    (attn2,) = (group for group in plan["prediction"]["groups"] if group["name"] == "attn2")
    assert 0.05 == pytest.approx(attn2["distance_a"], rel=0.3)
    assert attn2["distance_a"] == pytest.approx(attn2["distance_b"] * attn2_ratio(models), rel=1e-9)
    assert before == sorted(tmp_path.iterdir())


def attn2_ratio(models: tuple[Path, Path]) -> float:
    """‖B‖ / ‖A‖ of attn2: half way between both, distances differ by it alone."""
    a, b = (load_file(path) for path in models)
    norms = [sum(float((x[k].astype(float) ** 2).sum()) for k in a if "attn2" in k) ** 0.5 for x in (a, b)]
    return norms[1] / norms[0]


@pytest.mark.parametrize("dtype", ["keep", "fp32", "bf16", "fp8_e4m3"])
@pytest.mark.parametrize("options", [("--alpha", "0.3"), ("--budget", "0.02"), ("--method", "slerp")])
def test_what_is_written_is_what_was_predicted(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path, options: tuple[str, ...], dtype: str
) -> None:
    """--verify measures and compares; the real numbers are numpy's too."""
    out = tmp_path / "o.safetensors"
    guided = ("--scan", scan) if "--budget" in options else ()
    common = (*options, "--dtype", dtype, *(() if "--budget" in options else ("--alpha", "0.3")))
    result = run("merge", *models, "-o", out, *common, *guided, "--verify")
    assert 0 == result.code, result.err
    assert "verified:" in result.out
    shown = run("merge", *models, "--dry-run", *common, "--scan", scan, "--json")
    plan = json.loads(shown.out)
    if dtype in ("keep", "fp32"):
        a, merged = load_file(models[0]), load_file(out)
        counted = [k for k in a if k not in ("betas",) and a[k].dtype.kind == "f"]
        moved, norm = (
            sum(float((x.astype(np.float64) ** 2).sum()) for x in values) ** 0.5
            for values in (
                [merged[k].astype(np.float64) - a[k].astype(np.float64) for k in counted],
                [a[k] for k in counted],
            )
        )
        assert plan["prediction"]["distance_a"] == pytest.approx(moved / norm, rel=1e-2)


def test_a_model_that_is_not_as_predicted_is_removed(
    run: Run, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed verification is an error, and leaves no output behind."""

    def fail(*_: object, **__: object) -> None:
        raise VerificationError("o.safetensors: it lies")

    monkeypatch.setattr(verified_merge, "verify", fail)
    out = tmp_path / "o.safetensors"
    assert "it lies (it was removed)" in refused(run, *models, "-o", out, "--alpha", "0.5", "--verify", "-q")
    assert not out.exists()


def test_a_recipe_is_saved_and_repeats_the_merge(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    """From TOML and from the metadata: the same bytes; what the command line says wins."""
    first, second, third = (tmp_path / f"{name}.safetensors" for name in ("x", "y", "z"))
    recipe = tmp_path / "recipe.toml"
    options = ("--scan", scan, "--top", "2", "--budget", "0.05", "--set", "VAE=0.25", "--dtype", "vae=fp32")
    assert 0 == run("merge", *models, "-o", first, *options, "--save-recipe", recipe).code
    assert {"top": 2, "budget": 0.05, "set": ["VAE=0.25"]}.items() <= tomllib.loads(
        recipe.read_text()
    ).items()
    assert 0 == run("merge", *models, "-o", second, "--recipe", recipe).code
    assert 0 == run("merge", *models, "-o", third, "--recipe", first).code
    assert first.read_bytes() == second.read_bytes()
    assert load_file(first).keys() == load_file(third).keys()
    assert first.read_bytes() == third.read_bytes()
    assert 0 == run("merge", *models, "-o", third, "--recipe", first, "--only", "attn2", "--force").code
    key = "first_stage_model.encoder.conv_in.weight"
    np.testing.assert_array_equal(
        load_file(models[0])[key].astype(np.float32), load_file(third)[key].astype(np.float32)
    )


def test_presets_of_a_user(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """A name from --presets, one that ships, and one that is none."""
    table = tmp_path / "mine.tsv"
    table.write_text("MINE\t" + ",".join(["0.25"] * 25) + "\n")
    dry = ("merge", *models, "--dry-run", "--json")
    plan = json.loads(run(*dry, "--block-weights", "mine", "--presets", table).out)
    assert {0.25} == {x["alpha"] for x in plan["actions"] if x["alpha"]}
    plan = json.loads(run(*dry, "--block-weights", "out07").out)
    assert {1.0} == {x["alpha"] for x in plan["actions"] if ".out.2." in x["key"]}
    assert "neither a preset" in refused(run, *models, "--dry-run", "--block-weights", "GRAD_X")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--where", "cosine < 1"), "--where needs a scan"),
        (("--alpha", "1", "--by", "cosine"), "--by says nothing without --top"),
        (
            ("--alpha", "1", "--per", "block"),
            "--per says nothing without --budget or --match",
        ),
        (("--match", "cosine"), "write a statistic and a number"),
        (("--method", "ties", "--alpha", "1", "--param", "density"), "write a parameter and a number"),
        (
            ("--method", "triple_sum", "--alpha", "1", "--model", "c.safetensors"),
            "write a model and a num",
        ),
        (("--alpha", "1", "--vae", "none.safetensors"), "none.safetensors"),
        (("--recipe", "none.toml"), "none.toml"),
    ],
)
def test_bad_requests(
    run: Run, models: tuple[Path, Path], options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    """One sentence each, exit code 1, and nothing written."""
    assert words in refused(run, *models, "-o", tmp_path / "o.safetensors", *options)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_scan_of_other_files_is_refused(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    """Swapped, or changed since."""
    a, b = models
    assert "the other way round" in refused(run, b, a, "--dry-run", "--scan", scan, "--budget", "0.1")
    data = bytearray(b.read_bytes())
    data[-1] ^= 1
    b.write_bytes(data)
    assert "scan again" in refused(run, a, b, "--dry-run", "--scan", scan, "--budget", "0.1")


def test_a_recipe_is_never_written_over_an_input(run: Run, models: tuple[Path, Path]) -> None:
    """As every output."""
    assert "is the input" in refused(run, *models, "--dry-run", "--alpha", "1", "--save-recipe", models[0])


def test_the_methods_are_listed(run: Run) -> None:
    """All of them in 80 columns, one by name, and as JSON."""
    result = run("methods")
    assert 0 == result.code
    assert max(map(len, result.out.splitlines())) <= 80
    assert "needs --base C" in run("methods", "add_difference").out
    assert json.loads(run("methods", "--json").out)["ties"]["parameters"]["density"]["default"] == 1.0
    assert 1 == run("methods", "tys").code
