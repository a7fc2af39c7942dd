"""`mergescope experiment`, mostly against a subject that counts what it is asked; once with real pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.experiment.choosing import ARTICLE
from analyzer.experiment.keeping import file_name
from analyzer.experiment.records import Column, Conditions, Shown

Tensors = dict[str, np.ndarray]
Run = Callable[..., Any]


@dataclass
class Fake:
    """A subject that moves from A to B by the share of B's keys that a column takes."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    fails: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    conditions: Conditions | None = None
    share: float = 0.0
    held: str = ""
    open: bool = False

    def take(self, column: Column) -> None:
        """Hold a column."""
        self.held, self.share = column.label, len(column.keys) / 60

    def show(self, seed: int) -> Shown:
        """Noise of the seed, moved."""
        self.asked.append((self.held, seed))
        if (self.held, seed) in self.fails:
            raise self.fails[self.held, seed]
        assert self.conditions is not None
        rng = np.random.default_rng(seed)
        start, end = rng.standard_normal((2, 4, 2, 2))
        output = (start + self.share * (end - start)).astype(np.float32)
        shape = (self.conditions.height, self.conditions.width, 3)
        pixels = np.clip(rng.random(shape) * 128 + self.share * 127, 0, 255).astype(np.uint8)
        return Shown(output, pixels, 0.5)

    def close(self) -> None:
        """Let go."""
        self.open = False


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """In the place of a pipeline; the cache is in the test's folder."""
    subject = Fake()

    def open_painter(_inputs: object, conditions: Conditions, **_more: object) -> Fake:
        subject.conditions, subject.open = conditions, True
        return subject

    monkeypatch.setattr("analyzer.experiment.pipelines.load_pipeline", lambda *_, **__: object())
    monkeypatch.setattr("analyzer.experiment.pipelines.native_size", lambda _: (16, 24))
    monkeypatch.setattr("analyzer.experiment.samplers.default_sampler", lambda _: "euler_a")
    monkeypatch.setattr("analyzer.experiment.painting.open_painter", open_painter)
    monkeypatch.setattr("analyzer.experiment.cells.cache_folder", lambda: tmp_path / "cache" / "cells")
    return subject


@pytest.fixture
def models(write: Callable[..., Path], unet: Callable[[int], Tensors]) -> tuple[Path, Path]:
    """Two miniatures of which `ff` is the same."""
    a, b = unet(0), unet(1)
    b |= {key: value for key, value in a.items() if ".ff." in key}
    return write("a.safetensors", a), write("b.safetensors", b)


def left(folder: Path) -> set[str]:
    """What lies in a folder, but for the models and the cache."""
    ours = ("a.safetensors", "b.safetensors", "cache")
    return {path.name for path in folder.iterdir()} - set(ours)


def cells(folder: Path) -> int:
    """How many finished cells are kept."""
    return len(list((folder / "cache").rglob("*.cell")))


def test_the_articles_experiment_is_the_default(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its columns, prompts and seeds; page, numbers and sheet are written, and nothing else is left."""
    page, data, sheet = (tmp_path / name for name in ("e.html", "d.json", "s.png"))
    result = run("experiment", *models, "-o", page, "--data", data, "--sheet", sheet)
    assert 0 == result.code, result.err
    found = json.loads(data.read_text())
    assert ("mergescope.experiment", 1) == (found["format"], found["version"])
    assert list(ARTICLE) == [column["selector"] for column in found["columns"]]
    assert [f"unet,{label}" for label in ARTICLE] == [column["merged"] for column in found["columns"]]
    assert (16, 24, 40, "euler_a", [1, 2, 3, 4]) == tuple(
        found["conditions"][name] for name in ("width", "height", "steps", "sampler", "seeds")
    )
    assert "a.safetensors" == Path(found["models"]["a"]["path"]).name
    assert {"selector", "seed", "toward_b", "neither", "ssim_a", "ssim_b"} <= found["rows"][0].keys()
    assert {"statistic", "effect", "spearman", "low", "high", "n"} <= found["correlations"][0].keys()
    assert 4 * len(ARTICLE) == len(found["rows"])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert {"e.html", "d.json", "s.png"} == left(tmp_path)
    assert 0 == cells(tmp_path)
    assert not fake.open
    lines = result.out.splitlines()
    assert all(len(line) <= 80 or line.startswith("wrote ") for line in lines)
    for label in ARTICLE:
        assert any(line.startswith(f"{label} ") for line in lines)
    assert any("foretell" in line for line in lines)


def test_toward_b_is_of_the_final_latents(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The subject moves along a straight line, so nothing is neither."""
    data = tmp_path / "d.json"
    assert 0 == run("experiment", *models, "--data", data, "--each", "attn1", "--seeds", "1-2").code
    found = json.loads(data.read_text())
    (column,) = found["columns"]
    expected = pytest.approx(column["keys"] / _taken_by_b(models), rel=1e-5)
    for row in found["rows"]:
        assert expected == row["toward_b"]
        assert pytest.approx(0, abs=1e-5) == row["neither"]


def _taken_by_b(models: tuple[Path, Path]) -> int:
    from safetensors.numpy import load_file

    return sum(value.dtype == np.float16 for value in load_file(models[0]).values())


def test_a_category_in_which_nothing_changed_is_not_painted(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is shown all the same, and is still A."""
    data = tmp_path / "d.json"
    assert 0 == run("experiment", *models, "--data", data, "--seeds", "5").code
    assert "ff" not in {label for label, _ in fake.asked}
    (row,) = [row for row in json.loads(data.read_text())["rows"] if row["selector"] == "ff"]
    assert (0.0, 0.0, 1.0, 0.0) == (row["toward_b"], row["neither"], row["ssim_a"], row["seconds"])


def test_an_interrupted_run_goes_on(run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path) -> None:
    """130, how many cells are kept, no output; the same command then paints what is missing."""
    page = tmp_path / "e.html"
    command = ("experiment", *models, "-o", page, "--each", "attn1", "--seeds", "1,2")
    fake.fails["B", 2] = KeyboardInterrupt()
    result = run(*command)
    assert 130 == result.code
    assert "Interrupted; 3 of 6 cells are kept, and the same command goes on from them." in result.err
    assert set() == left(tmp_path)
    assert 3 == cells(tmp_path)
    assert not fake.open
    fake.fails.clear()
    fake.asked.clear()
    assert 0 == run(*command).code
    assert [("B", 2), ("attn1", 1), ("attn1", 2)] == fake.asked
    assert {"e.html"} == left(tmp_path)
    assert 0 == cells(tmp_path)


def test_another_prompt_is_another_picture(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """What was painted under other conditions is no help, and stays for who goes on with it."""
    command = ("experiment", *models, "--json", "--each", "attn1", "--seeds", "1")
    fake.fails["attn1", 1] = KeyboardInterrupt()
    assert 130 == run(*command).code
    fake.fails.clear()
    fake.asked.clear()
    assert 0 == run(*command, "--prompt", "a cat").code
    assert 3 == len(fake.asked)
    assert 2 == cells(tmp_path)


def test_interrupted_before_the_first_cell(run: Run, fake: Fake, models: tuple[Path, Path]) -> None:
    """Nothing to go on from."""
    fake.fails["A", 1] = KeyboardInterrupt()
    assert "Interrupted; nothing was kept." in run("experiment", *models, "--json").err


def test_a_damaged_cell_is_painted_again(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """And not believed."""
    command = ("experiment", *models, "--json", "--each", "attn1", "--seeds", "1")
    fake.fails["attn1", 1] = KeyboardInterrupt()
    run(*command)
    for path in (tmp_path / "cache").rglob("*.cell"):
        path.write_bytes(path.read_bytes()[:-1])
    fake.fails.clear()
    fake.asked.clear()
    assert 0 == run(*command).code
    assert [("A", 1), ("B", 1), ("attn1", 1)] == fake.asked


def test_a_crash_in_one_cell_leaves_the_others(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is in the numbers, on the page and in the terminal, and is tried again the next time."""
    page, data = tmp_path / "e.html", tmp_path / "d.json"
    command = ("experiment", *models, "-o", page, "--data", data, "--each", "attn1", "--seeds", "1,2")
    fake.fails["attn1", 2] = RuntimeError("the sky fell")
    result = run(*command)
    assert 0 == result.code
    rows = {row["seed"]: row for row in json.loads(data.read_text())["rows"]}
    assert (None, "RuntimeError: the sky fell") == (rows[1]["error"], rows[2]["error"])
    assert rows[1]["toward_b"] is not None
    assert rows[2]["toward_b"] is None
    assert "the sky fell" in page.read_text(encoding="utf-8")
    assert "warning: attn1, seed 2: RuntimeError: the sky fell" in result.err
    fake.fails.clear()
    fake.asked.clear()
    assert 0 == run(*command).code
    assert [("attn1", 2)] == fake.asked
    assert 0 == cells(tmp_path)


def test_without_a_there_is_no_experiment(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Said at once; no output is there."""
    fake.fails |= {("A", seed): MemoryError("no room") for seed in (1, 2, 3, 4)}
    result = run("experiment", *models, "-o", tmp_path / "e.html")
    assert 1 == result.code
    assert "Error: nothing of A can be seen: MemoryError: no room" in result.err
    assert 4 == len(fake.asked)
    assert set() == left(tmp_path)


def test_limits_of_b_are_said_once(
    run: Run, fake: Fake, write: Callable[..., Path], unet: Callable[[int], Tensors], tmp_path: Path
) -> None:
    """Before the work, as a warning; the summary does not repeat them, and the numbers have them."""
    a, b = unet(0), unet(1)
    pair = write("a.safetensors", a), write("b.safetensors", {k: v for k, v in b.items() if "attn2" not in k})
    said = ("column B is A with all of B that fits", "no column for attn2")
    result = run("experiment", *pair, "--seeds", 1, "--data", tmp_path / "data.json")
    assert [1, 1] == [result.err.count(text) for text in said]
    assert [] == [text for text in said if text in " ".join(result.out.split())]
    notes = json.loads((tmp_path / "data.json").read_text())["notes"]
    assert list(said) == [text for text in said if any(note.startswith(text) for note in notes)]


def test_the_pair_that_the_verdict_names_leads_the_correlations(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of several statistics that rank the categories alike, both name the same."""
    result = run("experiment", *models, "--seeds", 1, "--data", tmp_path / "data.json")
    verdict = json.loads((tmp_path / "data.json").read_text())["notes"][0]
    statistic, effect = re.findall(r"(\w+) with (toward_b|neither)", verdict)[0]
    lines = [line for line in result.out.splitlines() if " and " in line and "n = " in line]
    named = {"toward_b": "toward B", "neither": "neither"}[effect]
    leads = next(line for line in lines if line.startswith(f"  {named} and "))
    assert f"  {named} and {statistic}:" == leads[: leads.index(":") + 1]


def test_json_is_all_that_stands_on_stdout(run: Run, fake: Fake, models: tuple[Path, Path]) -> None:
    """And --quiet leaves stderr empty."""
    result = run("experiment", *models, "--json", "--each", "attn1", "--quiet")
    assert "attn1" == json.loads(result.out)["columns"][0]["selector"]
    assert "" == result.err
    assert fake.asked


def test_quiet_prints_nothing(run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path) -> None:
    """The files are the result."""
    result = run("experiment", *models, "-o", tmp_path / "e.html", "--each", "attn1", "-q")
    assert (0, "", "") == (result.code, result.out, result.err)
    assert fake.asked


def test_a_scan_that_is_there_is_not_made_again(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statistics stand beside the effects; it may be of no other models."""
    scan = tmp_path / "scan.json"
    assert 0 == run("scan", *models, "-o", scan, "-q").code
    models = (models[0].rename(tmp_path / "moved.safetensors"), models[1])
    with monkeypatch.context() as patched:
        patched.setattr("analyzer.scan.scan", None)
        result = run("experiment", *models, "--json", "--each", "attn1", "--scan", scan, "-q")
    assert 0 == result.code, result.err
    found = json.loads(result.out)
    assert found["columns"][0]["statistics"]["relative_change"] > 0
    assert str(models[0]) == found["models"]["a"]["path"]
    swapped = run("experiment", *reversed(models), "--json", "--scan", scan)
    assert 1 == swapped.code
    assert "the other way round" in swapped.err
    assert fake.asked


def test_an_axis_takes_the_groups_of_a_ranking(run: Run, fake: Fake, models: tuple[Path, Path]) -> None:
    """The one that differs most first, the unchanged last."""
    result = run("experiment", *models, "--json", "--axis", "component", "--seeds", "1", "-q")
    labels = [column["selector"] for column in json.loads(result.out)["columns"]]
    assert {"attn1", "attn2", "ff", "skip_connection"} <= set(labels)
    assert "ff" == labels[-1]
    assert fake.asked


def test_keep_leaves_pictures_models_and_cells(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """The models are those of `mergescope merge`; a later run paints new columns only."""
    from PIL import Image

    keep = tmp_path / "kept"
    command = ("experiment", *models, "--keep", keep, "--seeds", "3", "--alpha", "0.5")
    result = run(*command, "--each", "attn1", "--each", "attn2,weight")
    assert 0 == result.code, result.err
    assert "2 merged models of" in result.err
    assert "and 4 pictures" in result.err
    pictures = {path.name for path in (keep / "pictures").iterdir()}
    assert {f"{name}-seed-3.png" for name in ("A", "B", "attn1", "attn2,weight")} == pictures
    with Image.open(keep / "pictures" / "attn1-seed-3.png") as picture:
        assert (16, 24) == picture.size
    merged = tmp_path / "merged.safetensors"
    assert 0 == run("merge", *models, "-o", merged, "--only", "unet,attn1", "--alpha", "0.5").code
    assert merged.read_bytes() == (keep / "models" / "attn1.safetensors").read_bytes()
    assert 4 == len(list((keep / "cells").iterdir()))
    fake.asked.clear()
    assert 0 == run(*command, "--each", "attn1", "--each", "bias").code
    assert [("bias", 3)] == fake.asked


def test_keep_replaces_no_model_of_somebody_else(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nor does it lie in an input, and what it made of folders goes when nothing comes of them."""
    keep = tmp_path / "kept"
    (keep / "models").mkdir(parents=True)
    (keep / "models" / "attn1.safetensors").write_bytes(models[0].read_bytes())
    result = run("experiment", *models, "--keep", keep, "--each", "attn1")
    assert 1 == result.code
    assert "exists already" in result.err
    assert ["models"] == [path.name for path in keep.iterdir()]
    assert [] == fake.asked
    fake.fails["A", 1] = ValueError()
    assert 1 == run("experiment", *models, "--keep", tmp_path / "new", "--each", "bias", "--seeds", "1").code
    assert not (tmp_path / "new").exists()


def test_keep_may_lie_beside_a_model_and_not_in_one(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path, write: Callable[..., Path]
) -> None:
    """What opens an input's folder would take what lies there for a part of it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(models[0].read_bytes())
    result = run("experiment", folder, models[1], "--keep", folder / "kept", "--each", "attn1")
    assert 1 == result.code
    assert "which is an input" in result.err
    assert ["model.safetensors"] == [path.name for path in folder.iterdir()]
    result = run("experiment", folder, models[1], "--keep", tmp_path, "--each", "attn1", "--seeds", "1")
    assert 0 == result.code, result.err
    assert (tmp_path / "models" / "attn1" / "model.safetensors").is_file()
    assert fake.asked


def test_labels_as_file_names() -> None:
    """No two that a file system takes for one."""
    labels = [
        "A",
        "a",
        "B",
        "b",
        "attn1",
        "Attn1",
        "attn1,attn2",
        "key:*.weight",
        "key:?.weight",
        "!bias",
        "x" * 300,
    ]
    names = [file_name(label) for label in labels]
    assert len(labels) == len({name.casefold() for name in names})
    assert ["A", "B", "attn1", "attn1,attn2"] == [names[place] for place in (0, 2, 4, 6)]
    assert all(name.isascii() and len(name) < 100 and not set(name) & set('*?:/\\"<>|') for name in names)


def test_cells_that_cannot_be_kept_are_no_reason_to_stop(
    run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is said once."""
    (tmp_path / "cache").write_text("a file")
    result = run("experiment", *models, "--json", "--each", "attn1")
    assert 0 == result.code
    assert 1 == result.err.count("finished cells are not kept")
    assert fake.asked


PROBE = """
import numpy as np
calls = []
def norms(state_dict{seed}):
    return np.array([float(value.float().square().sum()) for value in state_dict.values()])
"""


@pytest.mark.parametrize("seeded", [True, False])
def test_a_probe_takes_the_place_of_pictures(
    run: Run, models: tuple[Path, Path], tmp_path: Path, fake: Fake, seeded: bool
) -> None:
    """Its rows have the seeds that it asks for; there is a page, and no picture."""
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE.format(seed=", seed" if seeded else ""))
    page, data = tmp_path / "e.html", tmp_path / "d.json"
    result = run(
        "experiment", *models, "-o", page, "--data", data, "--probe", f"{probe}:norms",
        "--each", "attn1", "--each", "!attn1", "--seeds", "1,2",
    )  # fmt: skip
    assert 0 == result.code, result.err
    found = json.loads(data.read_text())
    assert (
        [1, 2] if seeded else [None] == [row["seed"] for row in found["rows"] if row["selector"] == "attn1"]
    )
    assert f"{probe}:norms" == found["conditions"]["probe"]
    assert all(row["ssim_a"] is None for row in found["rows"])
    assert all(row["toward_b"] is not None for row in found["rows"])
    assert "SSIM" not in result.out
    assert 0 == cells(tmp_path)
    assert [] == fake.asked


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seeds", "1,x"], "--seeds '1,x': write whole numbers"),
        (["--size", "100"], "--size '100': both sides must be multiples of 8"),
        (["--steps", "0"], "--steps 0: write a number from 1"),
        (["--cfg", "-1"], "--cfg -1: write a number of 0 or more"),
        (["--dtype", "int8"], "--dtype int8: choose one of auto, fp32"),
        (["--sampler", "eulr_a"], "--sampler eulr_a: is not known (did you mean euler_a?)"),
        (["--alpha", "0"], "--alpha 0: a column takes"),
        (["--each", "atn1"], "unknown selector term 'atn1'"),
        (["--axis", "colour"], "unknown axis 'colour'"),
        (["--axis", "block", "--each", "attn1"], "--each and --axis both say"),
        (["--only", "nothing"], "unknown selector term 'nothing'"),
        (["--prompt", "a", "--prompt", "b"], "--prompt was given 2 times"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--scan", "none.json"], "none.json"),
        (["--rules", "none.toml"], "none.toml"),
        (["--features", "nowhere"], "has no config.json"),
        (["--probe", "nothing"], "--probe nothing: write MODULE:FUNCTION"),
        (["--probe", "m:f", "--steps", "3", "--sheet", "s.png"], "--steps, --sheet: --probe paints no"),
        (["--data", "no/such/d.json"], "the folder no/such does not exist"),
        (["--keep", "a.safetensors"], "a.safetensors: cannot be made (Not a directory)"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    run: Run,
    fake: Fake,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    words: str,
) -> None:
    """With exit code 1, before anything is painted, and with nothing left behind."""
    monkeypatch.chdir(tmp_path)
    result = run("experiment", *models, "-o", "e.html", *more)
    assert 1 == result.code
    assert words in result.err
    assert 1 == len(result.err.strip().splitlines())
    assert [] == fake.asked
    assert set() == left(tmp_path)
    assert not fake.open


@pytest.mark.parametrize("option", ["-o", "--data", "--sheet"])
def test_an_input_is_never_written_to(run: Run, fake: Fake, models: tuple[Path, Path], option: str) -> None:
    """Whatever the option."""
    before = models[1].read_bytes()
    result = run("experiment", *models, option, models[1])
    assert 1 == result.code
    assert "is the input" in result.err
    assert before == models[1].read_bytes()
    assert [] == fake.asked


def test_something_is_to_be_written(run: Run, models: tuple[Path, Path]) -> None:
    """Or the work would be for nothing: wrong usage."""
    result = run("experiment", *models)
    assert 2 == result.code
    assert "Missing option '-o'" in result.err


def test_models_that_are_one_model(run: Run, fake: Fake, models: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing is painted but A, every measure is undefined, and the page says so."""
    data = tmp_path / "d.json"
    result = run("experiment", models[0], models[0], "-o", tmp_path / "e.html", "--data", data)
    assert 0 == result.code, result.err
    assert {"A"} == {label for label, _ in fake.asked}
    assert {None} == {row["toward_b"] for row in json.loads(data.read_text())["rows"]}


def test_two_pocket_models(
    run: Run, pocket_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to the page, with diffusers: all of B is B, and a category is between."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page, data, sheet = (tmp_path / name for name in ("e.html", "d.json", "s.png"))
    result = run(
        "experiment", pocket_pair.a, pocket_pair.b, "-o", page, "--data", data, "--sheet", sheet,
        "--each", "attn1", "--each", "CLIP,U-Net,VAE", "--seeds", "1", "--steps", "2", "--threads", "1",
    )  # fmt: skip
    assert 0 == result.code, result.err
    found = json.loads(data.read_text())
    rows = {row["selector"]: row for row in found["rows"]}
    assert 1.0 == pytest.approx(rows["CLIP,U-Net,VAE"]["toward_b"])
    assert 0.0 == pytest.approx(rows["CLIP,U-Net,VAE"]["neither"])
    assert 0 < rows["attn1"]["moved"] != 1
    assert "best quality, a woman, school uniform" == found["conditions"]["prompt"]
    assert (64, 64) == (found["conditions"]["width"], found["conditions"]["height"])
    assert {"e.html", "d.json", "s.png"} == {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert 3 <= page.read_text(encoding="utf-8").count("data:image/png;base64,")
