"""`mergescope report --compare`: what it writes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.measures import Sums
from analyzer.records import KeyScan, Labels, ModelId, Scan
from reports.compare import SCRIPTS, STYLES, common, distinct_names, render

Write = Callable[..., Path]
Run = Callable[..., Any]


@pytest.fixture
def scans(run: Run, write: Write, unet: Callable[[int], dict[str, np.ndarray]], tmp_path: Path) -> list[Path]:
    """Two fine-tunes of one model, scanned against it: one moved attn2, the other the VAE."""
    a = unet(0)
    model = write("a.safetensors", a)
    paths = []
    for name, part in (("portrait", "attn2"), ("night", "first_stage_model")):
        b = {
            key: value + np.float16(0.25) if part in key and value.dtype == np.float16 else value
            for key, value in a.items()
        }
        scan = tmp_path / f"{name}.json"
        assert 0 == run("scan", model, write(f"{name}.safetensors", b), "-o", scan, "--quiet").code
        paths.append(scan)
    return paths


def scan_of(path: str, **changes: Any) -> Scan:
    """A scan of one key."""
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_aa=1 / 3, sum_bb=0.4, sum_dd=0.1)
    key = KeyScan(
        "x", "x", (2, 2), "F16", "F16", Labels("unet", "IN01", "attn2/to_k", "weight", "attn2"), sums
    )
    a, b = (ModelId(its, 10, f"sha256:{its}", "sd1") for its in ("/m/a.safetensors", path))
    return replace(Scan("mergescope 0", "now", a, b, ("IN01",), (key,), (), (), ()), **changes)


def page_of(*scans: Scan, **options: Any) -> str:
    return render(scans, kinships=["fine-tune"] * len(scans), **options)


# The command


def test_several_scans_make_one_page(run: Run, scans: list[Path], tmp_path: Path) -> None:
    """The page names A once and every B; the file's name is all that is printed."""
    page = tmp_path / "several.html"
    result = run("report", "--compare", *scans, "-o", page)
    assert (0, "") == (result.code, result.err)
    assert "several.html" in result.out
    html = page.read_text(encoding="utf-8")
    assert [
        "head",
        "findings",
        "touched",
        "ranking",
        "map",
        "profile",
        "histogram",
        "scatter",
        "treemap",
        "keys",
    ] == (re.findall(r'<(?:header|section)[^>]* data-section="(\w+)"', html))
    assert ["portrait.safetensors", "night.safetensors"] == re.findall(r'data-name="([^"]+)"', html)
    assert ["B1", "B2"] == re.findall(r'data-letter="([^"]+)"', html)


def test_options_may_stand_anywhere_and_a_copy_of_a_is_the_same_a(
    run: Run, scans: list[Path], tmp_path: Path, write: Write, unet: Callable[[int], dict[str, np.ndarray]]
) -> None:
    """A is known by its content: under another name it is the same; quiet says nothing."""
    copy = write("renamed.safetensors", unet(0))
    third = tmp_path / "third.json"
    b = write("third.safetensors", {key: -value for key, value in unet(0).items()})
    assert 0 == run("scan", copy, b, "-o", third, "--only", "attn1", "--quiet").code
    page = tmp_path / "page.html"
    result = run("report", scans[0], "-o", page, "--plotlyjs", "cdn", third, "--compare", "--quiet")
    assert (0, "", "") == (result.code, result.out, result.err)
    assert page.stat().st_size < 400_000


def test_scans_of_different_models_are_refused(
    run: Run, scans: list[Path], tmp_path: Path, write: Write, unet: Callable[[int], dict[str, np.ndarray]]
) -> None:
    """One sentence names both files and both models and the way out; an earlier page stays as it was."""
    other = tmp_path / "other.json"
    models = write("other-a.safetensors", unet(1)), write("other-b.safetensors", unet(2))
    assert 0 == run("scan", *models, "-o", other, "--quiet").code
    page = tmp_path / "page.html"
    page.write_text("earlier")
    result = run("report", "--compare", *scans, other, "-o", page)
    assert (1, "") == (result.code, result.out)
    sentence = " ".join(result.err.split())
    assert f"{other}: its A is other-a.safetensors, and that of {scans[0]} is a.safetensors" in sentence
    assert "scan other-b.safetensors against a.safetensors" in sentence
    assert "earlier" == page.read_text()
    assert [] == [path.name for path in tmp_path.iterdir() if "page.html" in path.name and path != page]


def test_a_scan_the_other_way_round_is_told_so(run: Run, scans: list[Path], tmp_path: Path) -> None:
    """Its B is the A of the others: there is nothing to scan anew but the order."""
    swapped = tmp_path / "swapped.json"
    models = tmp_path / "night.safetensors", tmp_path / "a.safetensors"
    assert 0 == run("scan", *models, "-o", swapped, "--quiet").code
    result = run("report", "--compare", scans[0], swapped, "-o", tmp_path / "page.html")
    assert 1 == result.code
    assert "the other way round, with a.safetensors first" in " ".join(result.err.split())
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", 0], "two scans or more"),
        ([0, 1], "put --compare before"),
        (["--compare"], "Missing argument"),
    ],
)
def test_a_wrong_number_of_scans_is_wrong_usage(
    run: Run, scans: list[Path], tmp_path: Path, arguments: list[Any], words: str
) -> None:
    """One with --compare, several without, none: click's own exit code and one sentence."""
    named = [scans[argument] if isinstance(argument, int) else argument for argument in arguments]
    result = run("report", *named, "-o", tmp_path / "page.html")
    assert 2 == result.code
    assert words in " ".join(result.err.split())
    assert not (tmp_path / "page.html").exists()


def test_a_broken_scan_leaves_nothing_behind(run: Run, scans: list[Path], tmp_path: Path) -> None:
    """A damaged second file is named, and no page is written."""
    broken = tmp_path / "broken.json"
    broken.write_bytes(scans[1].read_bytes()[:500])
    before = sorted(tmp_path.iterdir())
    result = run("report", "--compare", scans[0], broken, "-o", tmp_path / "page.html")
    assert 1 == result.code
    assert "broken.json" in result.err
    assert before == sorted(tmp_path.iterdir())


def test_a_page_is_never_written_over_a_scan(run: Run, scans: list[Path]) -> None:
    """None of the inputs, also not the last one."""
    before = scans[1].read_bytes()
    result = run("report", "--compare", *scans, "-o", scans[1])
    assert 1 == result.code
    assert "inputs are never written to" in " ".join(result.err.split())
    assert before == scans[1].read_bytes()


def test_one_scan_alone_makes_the_page_that_it_always_made(
    run: Run, scans: list[Path], tmp_path: Path
) -> None:
    """Without --compare nothing is another."""
    page = tmp_path / "page.html"
    assert 0 == run("report", scans[0], "-o", page).code
    assert 'id="ranking-title"' in page.read_text(encoding="utf-8")
    assert 'id="touched-title"' not in page.read_text(encoding="utf-8")


# The page as text


def test_names_are_told_apart_by_their_paths() -> None:
    """By as many of the last segments as it takes, of paths of any system; equal paths have nothing more."""
    assert ["one.st", "two.st"] == distinct_names(["/m/one.st", "/m/two.st"])
    assert ["x/m.st", "y/m.st", "n.st"] == distinct_names(["/a/x/m.st", "C:\\a\\y\\m.st", "/b/n.st"])
    assert ["p/x/m.st", "q/x/m.st"] == distinct_names(["/p/x/m.st", "/q/x/m.st"])
    assert ["m.st", "m.st"] == distinct_names(["/p/m.st", "/p/m.st"])
    assert ["m.st", "/m.st"] == [distinct_names(["m.st", "/m.st"])[0], distinct_names(["m.st", "/m.st"])[1]]


def test_only_statistics_that_all_scans_have_are_offered() -> None:
    """One with a base and one without: no statistic of the base can be compared."""
    plain = scan_of("/m/one.st")
    with_base = replace(scan_of("/m/two.st"), base=ModelId("/m/base.st", 1, "sha256:c", "sd1"))
    assert "task_cosine" in common([with_base])
    assert "task_cosine" not in common([plain, with_base])
    assert list(common([plain])) == list(common([with_base, plain]))


@pytest.mark.parametrize("kinship", ["opposed", "unrelated", "undefined", "same"])
def test_every_kinship_has_its_word(kinship: str) -> None:
    """As in the report of one scan."""
    assert "kinship" in render([scan_of("/m/one.st")] * 2, kinships=[kinship] * 2, plotlyjs="cdn")


def test_the_policy_allows_the_page_s_own_scripts_and_nothing_else() -> None:
    """Every script that the page runs is named by its hash; no origin, nothing unsafe."""
    html = page_of(scan_of("/m/one.st"), scan_of("/m/two.st"))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert scripts
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"&#39;sha256-{digest}&#39;" in policy
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_same_scans_give_the_same_bytes() -> None:
    """Nothing depends on the clock or on the order of a set; the scans' order is that of the columns."""
    one, two = scan_of("/m/one.st"), scan_of("/m/two.st")
    assert page_of(one, two, plotlyjs="cdn") == page_of(one, two, plotlyjs="cdn")
    assert page_of(one, two, plotlyjs="cdn") != page_of(two, one, plotlyjs="cdn")


def test_a_lone_surrogate_in_a_name_does_not_break_the_file() -> None:
    """Legal in a JSON header, illegal in UTF-8."""
    assert page_of(scan_of("/m/\ud800.st"), scan_of("/m/two.st"), plotlyjs="cdn").encode("utf-8")


def test_every_script_and_style_of_the_page_is_there() -> None:
    """And every file of the folder is in the page: one that nobody lists would silently be missing."""
    folder = files("reports")
    for name in SCRIPTS:
        assert folder.joinpath("js", *name.split("/")).is_file(), name
    own = {f"compare/{file.name}" for file in folder.joinpath("js", "compare").iterdir()}
    assert own == {name for name in SCRIPTS if name.startswith("compare/")}
    assert all(folder.joinpath("styles", name).is_file() for name in STYLES)


def test_the_help_names_the_option(run: Run) -> None:
    """With what it does in a line."""
    assert "--compare" in run("report", "--help").out


def test_scan_files_are_only_read(run: Run, scans: list[Path], tmp_path: Path) -> None:
    """They are the same bytes, still JSON."""
    before = [path.read_bytes() for path in scans]
    run("report", "--compare", *scans, "-o", tmp_path / "page.html")
    assert before == [path.read_bytes() for path in scans]
    assert all(json.loads(text)["format"] == "mergescope.scan" for text in before)
