"""`mergescope merge` on the command line: guided, predicted, verified, and written as a recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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


def test_a_dry_run_goes_through_the_network_in_order(run: Run, unet: Build, write: Write) -> None:
    """Text encoder, blocks as block weights name them, VAE, the rest: whatever the order in the file."""
    tensors = unet(0)
    clip = "cond_stage_model.transformer.text_model.encoder.layers."
    tensors[f"{clip}10.mlp.fc1.bias"] = tensors[f"{clip}0.mlp.fc1.bias"]
    path = write("a.safetensors", tensors)
    text = run("merge", path, path, "--dry-run", "--block-weights", "GRAD_V").out
    listed = text[: text.index("alpha by")].splitlines()
    titles = [line for line in listed if line and "  " not in line]
    blocks = ["IN00", "IN01", "IN02", "IN03", "M00", "OUT11"]
    assert ["text_encoder", *(f"unet {block}" for block in blocks), "vae", "other"] == titles
    keys = [line.split()[2] for line in listed if "  " in line]
    assert sorted(tensors) == sorted(keys)
    layers = [key.removeprefix(clip).split(".")[0] for key in keys if key.startswith(clip)]
    assert ["0", "0", "1", "1", "2", "2", "10"] == layers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--block-weights", "GRAD_V"),
            [
                "alpha by block",
                "IN00  1        IN01  0.9167   IN02  0.8333   IN03  0.75     OUT11 1",
                "0 in text_encoder, M00, vae",
            ],
        ),
        (("--only", "attn2", "--alpha", "0.5"), ["alpha by category", "attn2 0.5", "0 in mlp, self_attn, "]),
        (
            ("--alpha", "0.3", "--set", "VAE=0", "--set", "text_encoder=0.7"),
            ["alpha by part", "text_encoder 0.7   unet         0.3", "0 in vae"],
        ),
        (
            ("--block-weights", "ALL_B", "--set", "attn2=0.25"),
            [
                "alpha by block",
                "IN00  1          IN01  0.25 … 1   IN02  0.25 … 1   IN03  0.25 … 1",
                "M00   1          OUT11 1",
                "0 in text_encoder, vae",
            ],
        ),
        (("--alpha", "0.3"), []),
    ],
)
def test_a_dry_run_sums_up_the_alphas(
    run: Run, models: tuple[Path, Path], options: tuple[str, ...], said: list[str]
) -> None:
    """By the axis that tells them best; nothing where one alpha holds for all."""
    lines = run("merge", *models, "--dry-run", *options).out.splitlines()
    start = next((place for place, line in enumerate(lines) if line.startswith("alpha by")), len(lines))
    found = lines[start : lines.index("", start)] if said else lines[start:]
    assert len(said) == len(found)
    assert all(line.startswith(wanted) for line, wanted in zip(found, said, strict=True)), found


def test_a_language_model_is_told_by_layers(run: Run, write: Write) -> None:
    """What lies in no layer is called BASE there: embeddings and head are of the same part as the layers."""
    keys = [f"model.layers.{n}.self_attn.q_proj.weight" for n in range(3)]
    tensors = {key: np.ones((4, 4), np.float16) for key in [*keys, "model.embed_tokens.weight"]}
    path = write("llm.safetensors", tensors)
    text = run("merge", path, path, "--dry-run", "--block-weights", "0.1,0.2,0.3", "--base-alpha", "1").out
    assert "BASE 1     L00  0.1   L01  0.2   L02  0.3" in text.splitlines()
    titles = [line for line in text.splitlines() if line.startswith("transformer")]
    assert ["transformer BASE", *(f"transformer L{n:02}" for n in range(3))] == titles


def test_json_of_a_merge_tells_what_was_verified(run: Run, models: tuple[Path, Path], tmp_path: Path) -> None:
    """One document, after the model is there; a merge that fails prints none."""
    out = tmp_path / "o.safetensors"
    options = ("merge", *models, "-o", out, "--alpha", "0.5", "--json")
    plan = json.loads(run(*options, "--verify").out)
    whole = {value["statistic"]: value for value in plan["verification"]["whole"]["values"]}
    assert plan["prediction"]["distance_a"] == whole["distance_a"]["predicted"]
    assert whole["distance_a"]["predicted"] == pytest.approx(whole["distance_a"]["measured"], rel=1e-2)
    assert json.loads(run(*options, "--force").out)["verification"] is None
    assert (1, "") == ((again := run(*options)).code, again.out)


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


def test_values_that_fp8_clips_are_told_and_not_verified(run: Run, write: Write, tmp_path: Path) -> None:
    """A key with clipped values is not what was predicted, and the merge said so itself."""
    rng = np.random.default_rng(0)
    a = {"x": rng.standard_normal(500).astype(np.float32), "y": rng.standard_normal(500).astype(np.float32)}
    a["x"][:5] = 5000
    paths = write("a.safetensors", a), write("b.safetensors", {k: v + 1 for k, v in a.items()})
    options = ("--alpha", "0.5", "--dtype", "fp8_e4m3", "--verify")
    result = run("merge", *paths, "-o", tmp_path / "o.safetensors", *options)
    assert 0 == result.code, result.err
    assert "5 values of 'x' are clipped" in result.err
    assert "verified: 1 key" in result.out


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


def test_what_has_no_prediction_is_not_called_verified(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of TIES nothing is known beforehand: only what was copied is compared."""
    ties = ("--method", "ties", "--param", "density=0.5", "--alpha", "0.5", "--verify")
    only = ("--only", "attn2", "--force")
    some = run("merge", *models, "-o", tmp_path / "o.safetensors", *ties, *only)
    assert "; 9 keys have no prediction and were not compared" in some.out
    a, b = models
    tensors = {"w.weight": load_file(a)["first_stage_model.encoder.conv_in.weight"]}
    for path in models:
        save_file(tensors, path)
    none = run("merge", a, b, "-o", tmp_path / "p.safetensors", *ties)
    assert "nothing was verified; 1 key has no prediction and was not compared" in none.out
    assert "verified:" not in none.out


@pytest.mark.parametrize(("problem", "code"), [(KeyboardInterrupt, 130), (OSError, 1)])
def test_a_model_that_could_not_be_verified_is_removed(
    run: Run,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: type[BaseException],
    code: int,
) -> None:
    """Interrupted, or unreadable: what the command was to vouch for does not stay behind."""

    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(verified_merge, "verify", fail)
    out, recipe = tmp_path / "o.safetensors", tmp_path / "r.toml"
    options = ("--alpha", "0.5", "--verify", "--save-recipe", recipe)
    assert code == run("merge", *models, "-o", out, *options).code
    assert not out.exists()
    assert not recipe.exists()


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


def verbs(run: Run, *options: object) -> dict[str, str]:
    """What a dry run does with each key."""
    plan = json.loads(run("merge", *options, "--dry-run", "--json").out)
    return {action["key"]: action["verb"] for action in plan["actions"]}


def test_a_choice_is_what_the_scan_says(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    """--where and --top take the keys that the statistics name, and leave all others."""
    rows = [row for row in json.loads(scan.read_text())["keys"] if row["dtype_a"] == "F16"]
    change = {row["key"]: row["statistics"]["relative_change"] for row in rows}
    middle = sorted(value for value in change.values() if value)[len(change) // 2]
    found = verbs(run, *models, "--scan", scan, "--where", f"relative_change > {middle!r}")
    assert {key for key, value in change.items() if value and value > middle} == {
        key for key, verb in found.items() if verb == "take"
    }
    ranked = json.loads(run("rank", scan, "--axis", "block", "--top", "2", "--format", "json").out)
    blocks = {row["name"] for row in ranked["rows"]}
    found = verbs(run, *models, "--scan", scan, "--top", "2", "--axis", "block", "--alpha", "0.5")
    assert {row["key"] for row in rows if row["block"] in blocks} == {
        key for key, verb in found.items() if verb == "merge"
    }


def test_what_the_scan_did_not_measure_is_left_alone(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """A scan of a selection gives its keys alphas, and no others."""
    scan = tmp_path / "part.json"
    assert 0 == run("scan", *models, "--only", "attn2", "-o", scan, "-q").code
    found = verbs(run, *models, "--scan", scan, "--budget", "10")
    assert {"take"} == {verb for key, verb in found.items() if ".attn2." in key}
    assert {"keep"} == {verb for key, verb in found.items() if ".attn2." not in key}


def test_keys_that_are_taken_from_b_are_predicted(run: Run, models: tuple[Path, Path], scan: Path) -> None:
    """All of B is at no distance from B."""
    plan = json.loads(run("merge", *models, "--alpha", "1", "--scan", scan, "--dry-run", "--json").out)
    assert (0.0, 1.0) == (plan["prediction"]["distance_b"], plan["prediction"]["cosine_b"])


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
        (("--alpha", "1", "--presets", "none.tsv"), "--presets says nothing without --block-weights"),
        (("--match", "cosine"), "write a statistic and a number"),
        (
            ("--method", "ties", "--alpha", "1", "--param", "density"),
            "--param 'density': write a parameter and a number",
        ),
        (
            ("--method", "triple_sum", "--alpha", "1", "--model", "c.safetensors"),
            "--model 'c.safetensors': write a model and a number, as in --model 'c.safetensors=0.3'",
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


def test_a_recipe_is_never_written_over_what_is_no_recipe(
    run: Run, models: tuple[Path, Path], scan: Path, tmp_path: Path
) -> None:
    """Neither an input nor another model, nor the scan that the merge does not go by."""
    model = tmp_path / "other.safetensors"
    model.write_bytes(models[0].read_bytes())
    for path in (models[0], model, scan):
        before = path.read_bytes()
        assert str(path) in refused(run, *models, "--dry-run", "--alpha", "1", "--save-recipe", path)
        assert before == path.read_bytes()


def test_a_recipe_of_a_dry_run_is_written_and_told(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is asked for by name; no model is written."""
    recipe = tmp_path / "r.toml"
    for _ in range(2):  # an earlier one is replaced
        options = ("--alpha", "0.25", "-o", tmp_path / "o.safetensors", "--save-recipe", recipe)
        text = run("merge", *models, "--dry-run", *options)
        assert f"wrote {recipe}" == text.out.splitlines()[-1]
    assert 0.25 == tomllib.loads(recipe.read_text())["alpha"]
    assert not (tmp_path / "o.safetensors").exists()


def test_the_methods_are_listed(run: Run) -> None:
    """All of them in 80 columns, one by name, and as JSON."""
    result = run("methods")
    assert 0 == result.code
    assert max(map(len, result.out.splitlines())) <= 80
    assert "needs --base C" in run("methods", "add_difference").out
    assert json.loads(run("methods", "--json").out)["ties"]["parameters"]["density"]["default"] == 1.0
    assert [] == [line for line in result.out.splitlines() if line != line.rstrip()]
    assert 1 == run("methods", "tys").code


@pytest.mark.parametrize("command", [("methods",), ("presets",), ("presets", "GRAD_V")])
def test_formulas_without_their_signs(command: tuple[str, ...]) -> None:
    """Where the terminal knows ASCII alone they are spelled: a question mark says nothing."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "analyzer", *command],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"?" not in done.stdout


@pytest.mark.parametrize(("columns", "told"), [(36, False), (60, False), (80, True)])
def test_presets_fit_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, told: bool
) -> None:
    """A line each with the whole curve; what a preset does only where there is room for it."""
    run("presets")
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("presets").out.splitlines()
    assert 38 == len(lines)
    assert max(map(len, lines)) <= columns
    assert told == ("B at the ends" in lines[0])
    assert all(re.search(r"[▁-█]{25}", line) for line in lines)
