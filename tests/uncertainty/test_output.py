"""`rank --uncertainty`: readable at 80 columns, complete as JSON and CSV, and silent without the flag."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import group, moved, scan_of

from analyzer import scanfile
from analyzer.statistics import STATISTICS
from analyzer.tables import UNCERTAINTY

Run = Callable[..., Any]


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """Groups far apart, two alike, one of few keys, one that rests on one key and one of one key."""
    rows = [
        *group("attn2", 20, 0.5), *group("ff", 20, 0.1), *group("mlp", 20, 0.1, seed=3),
        *group("a_name_that_is_far_too_long_for_a_terminal", 2, 0.2),
        moved("big", 0.05, norm=99.0, group="t/norm", component="t/norm"),
        *(moved(f"small{i}", 0.04 + i / 999, group="t/norm", component="t/norm") for i in range(9)),
        moved("lone", 0.3, group="t/conv", component="t/conv"),
    ]  # fmt: skip
    path = tmp_path / "scan.json"
    path.write_bytes(scanfile.dumps(scan_of(rows)))
    return path


def test_a_table_with_error_bars(run: Run, scan_file: Path) -> None:
    """Every line fits 80 columns; each group has an interval or the reason why not."""
    result = run("rank", scan_file, "--uncertainty")
    assert (0, "") == (result.code, result.err)
    lines = result.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert ["keys", "change", "95", "%", "interval", "at", "rank", "tier"] == lines[0].split()
    table = {line.split()[0]: line for line in lines[1:7]}
    assert "1 key" in table["conv"]
    assert "too few keys" in next(line for name, line in table.items() if "…" in name)
    assert "rests on few keys" in table["norm"]
    assert "█▓" in table["attn2"]
    assert "▓░" in table["attn2"]
    assert ["100%", "1"] == table["attn2"].split()[-2:]
    assert table["ff"].split()[-1] == table["mlp"].split()[-1] == "2"
    assert "–  –" in " ".join(table["conv"].split("key")[-1].split()).replace(" ", "  ")


def test_the_tests_are_told_below_the_table(run: Run, scan_file: Path) -> None:
    """What tells tiers apart, whether the groups differ at all, and what the columns mean."""
    text = " ".join(run("rank", scan_file, "--uncertainty").out.split())
    assert "tier 1 | 2: attn2 before" in text
    assert "• the groups differ: Kruskal–Wallis over 4 groups and 70 keys, H = " in text
    assert "from 1,000 bootstrap resamples of the keys" in text
    assert "p < 0.05 after Benjamini–Hochberg over 4 tests" in text
    assert "too few keys: an interval or a test needs 5" in text
    assert "rests on few keys: one or two large ones" in text


def test_only_what_applies_is_explained(run: Run, scan_file: Path) -> None:
    """Counts and extremes have no intervals and say so; few groups have no tests."""
    counts = run("rank", scan_file, "--uncertainty", "--by", "numel").out
    assert "numel is counted, not estimated" in counts
    assert "interval:" not in counts
    extremes = run("rank", scan_file, "--uncertainty", "--by", "max_abs_delta").out
    assert "max_abs_delta is an extreme of all keys" in " ".join(extremes.split())
    assert "tier 1 | 2: attn2" in extremes
    alone = run("rank", scan_file, "--uncertainty", "--only", "conv").out
    assert "Kruskal" not in alone
    assert "tier:" not in alone
    assert "too few keys" not in alone


def test_groups_that_do_not_differ_are_said_to(run: Run, scan_file: Path) -> None:
    """A test that finds nothing is told as that."""
    text = " ".join(run("rank", scan_file, "--uncertainty", "--only", "ff,mlp").out.split())
    assert "it cannot be told whether the groups differ: Kruskal–Wallis over 2 groups and 40 keys" in text
    assert "over 1 test;" in text


def test_top_cuts_what_was_assessed_as_a_whole(run: Run, scan_file: Path) -> None:
    """The first groups, with the numbers that they have in the whole ranking."""
    full = json.loads(run("rank", scan_file, "--uncertainty", "--format", "json").out)
    cut = json.loads(run("rank", scan_file, "--uncertainty", "--format", "json", "--top", 2).out)
    assert full["rows"][:2] == cut["rows"]
    assert full["uncertainty"] == cut["uncertainty"]
    assert "attn2" in run("rank", scan_file, "--uncertainty", "--top", 1).out


def test_json_has_everything(run: Run, scan_file: Path) -> None:
    """Per row what is documented, undefined as null; beside the rows what holds for all."""
    document = json.loads(run("rank", scan_file, "--uncertainty", "--format", "json").out)
    rows = {row["name"]: row["uncertainty"] for row in document["rows"]}
    assert all(list(UNCERTAINTY) == list(row) for row in rows.values())
    first = rows["attn2"]
    assert (20, None, 1, 1.0, 20) == tuple(
        first[name] for name in ("sample_keys", "note", "tier", "rank_probability", "next_keys")
    )
    assert first["low"] < document["rows"][0]["relative_change"] < first["high"]
    assert 0 < first["p"] <= first["p_adjusted"] < 1e-4
    assert first["next"] in ("ff", "mlp")
    assert first["effect"] > 0.9
    lone = {name: value for name, value in rows["conv"].items() if value is not None}
    assert {"sample_keys": 1, "note": "1 key"} == lone
    ends = ("border", "border_p_adjusted", "border_effect")
    borders = {name: [row[end] for end in ends] for name, row in rows.items() if row["border"]}
    assert [2, 3] == [rows[name]["tier"] for name in borders]
    (group, p_adjusted, effect), (other, _, _) = borders.values()
    assert ("attn2", True, True) == (group, 0 < p_adjusted < 1e-4, effect > 0.9)
    assert 2 == rows[other]["tier"]
    whole = document["uncertainty"]
    assert (0.95, 1000, True) == (whole["confidence"], whole["resamples"], whole["tests"] >= 3)
    assert {"groups", "keys", "h", "p", "effect"} == set(whole["kruskal_wallis"])


def test_csv_has_the_same_columns(run: Run, scan_file: Path) -> None:
    """Behind the statistics, in the documented order; full precision, undefined empty."""
    head, *lines = csv.reader(io.StringIO(run("rank", scan_file, "--uncertainty", "--format", "csv").out))
    assert ["name", "selector", "keys", "verdict", *STATISTICS, *UNCERTAINTY] == head
    document = json.loads(run("rank", scan_file, "--uncertainty", "--format", "json").out)
    for line, row in zip(lines, document["rows"], strict=True):
        cells = dict(zip(head, line, strict=True))
        assert row["verdict"] == cells["verdict"]
        for name, value in row["uncertainty"].items():
            assert cells[name] == ("" if value is None else str(value))


def test_without_the_flag_nothing_is_added(run: Run, scan_file: Path) -> None:
    """The ranking as it was: no further columns, entries or sentences."""
    document = json.loads(run("rank", scan_file, "--format", "json").out)
    assert "uncertainty" not in document
    assert all("uncertainty" not in row for row in document["rows"])
    head, *_ = csv.reader(io.StringIO(run("rank", scan_file, "--format", "csv").out))
    assert ["name", "selector", "keys", "verdict", *STATISTICS] == head
    assert "interval" not in run("rank", scan_file).out


def test_crossed_axes_on_the_command_line(run: Run, scan_file: Path) -> None:
    """A group for each pair of labels; what is no axis is wrong usage."""
    result = run("rank", scan_file, "--axis", "block*component", "--uncertainty")
    assert (0, True) == (result.code, "IN01 × attn2" in result.out)
    assert (
        "block*kind"
        == json.loads(run("rank", scan_file, "--axis", "block * kind", "--format", "json").out)["axis"]
    )
    wrong = run("rank", scan_file, "--axis", "layer")
    assert (2, True) == (wrong.code, "unknown axis 'layer'" in wrong.err)


def test_scipy_is_imported_only_when_it_is_needed(scan_file: Path) -> None:
    """It takes half a second, which `rank` and `--help` do without."""
    program = (
        "import sys; sys.argv = ['mergescope', 'rank', sys.argv[1]]; import analyzer.cli; "
        "code = analyzer.cli.run(); assert code == 0 and 'scipy' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program, scan_file], check=True, cwd=root, capture_output=True)


def test_keys_that_are_out_of_line_are_listed(run: Run, tmp_path: Path) -> None:
    """In the table's notes, in the JSON and in the scan file; only those that a selection leaves."""
    rows = [*group("attn2", 20, 0.1), moved("odd.weight", 0.9, group="t/attn2", component="t/attn2")]
    rows += group("ff", 20, 0.1, seed=3)
    path = tmp_path / "scan.json"
    path.write_bytes(scanfile.dumps(scan_of(rows)))
    out = run("rank", path, "--uncertainty").out
    assert "• out of line with their category (robust z-score, relative change):\n" in out
    assert re.search(r"^ +\+\d+\.\d +0\.9000  odd\.weight$", out, re.MULTILINE)
    for other in (("--by", "cosine"), ("--axis", "part")):  # which they explain nothing of
        assert "out of line" not in run("rank", path, "--uncertainty", *other).out
    listed = json.loads(run("rank", path, "--uncertainty", "--format", "json").out)["outliers"]
    assert ("odd.weight", True) == (listed[0]["key"], listed[0]["z"] > 3.5)
    assert listed == json.loads(path.read_bytes())["outliers"]
    rest = json.loads(run("rank", path, "--uncertainty", "--format", "json", "--only", "ff").out)
    assert "odd.weight" not in [outlier["key"] for outlier in rest["outliers"]]


def test_a_score_beyond_all_measure_is_not_told_in_digits(run: Run, tmp_path: Path) -> None:
    """Where a category hardly spreads, "above +100" says as much; a long key stays in one piece."""
    key = f"a.{'very.' * 20}long.weight"
    rows = [*group("attn2", 20, 0.1, spread=1e-4), moved(key, 0.9, group="t/attn2", component="t/attn2")]
    rows.append(moved("slow.weight", 0.001, group="t/attn2", component="t/attn2"))
    path = tmp_path / "scan.json"
    path.write_bytes(scanfile.dumps(scan_of(rows)))
    lines = run("rank", path, "--uncertainty").out.splitlines()
    assert f"  above +100   0.9000  {key}" in lines
    assert "  below -100   0.0010  slow.weight" in lines


@pytest.fixture
def still_file(tmp_path: Path) -> Path:
    """Two groups that changed, one of which only rounding is left, and two that stayed."""
    rows = [*group("attn2", 9, 0.5), *group("ff", 9, 0.1)]
    rows += [moved(f"still{name}{i}", 0.0, group=name, component=name) for name in "xy" for i in range(6)]
    near = [moved(f"near{i}", 1e-4, group="near", component="near") for i in range(6)]
    rows += [replace(row, sums=replace(row.sums, cast_only=row.sums.changed)) for row in near]
    path = tmp_path / "still.json"
    path.write_bytes(scanfile.dumps(scan_of(rows)))
    return path


@pytest.mark.parametrize("more", [(), ("--uncertainty",)])
def test_what_did_not_change_is_counted_below_the_table(
    run: Run, still_file: Path, more: tuple[str, ...]
) -> None:
    """Two sentences instead of lines of zeros, in the words of the axis; not where all are such."""
    out = run("rank", still_file, *more).out
    names = {line.split()[0] for line in out.splitlines() if line and line[0].isalpha()}
    assert {"attn2", "ff"} <= names
    assert not {"near", "x", "y"} & names
    assert "only rounding differs in 1 other category\n" in out
    assert "nothing changed in 2 other categories\n" in out
    assert "nothing changed in 1 other part" not in run("rank", still_file, "--axis", "part", *more).out
    alike = run("rank", still_file, "--only", "near,x", *more).out
    assert {"near", "x"} <= {line.split()[0] for line in alike.splitlines() if line}
    sentence = "only rounding differs in all of these categories; nothing at all changed in 1 of them"
    assert sentence in " ".join(alike.split())
    assert "nothing changed in any category\n" in run("rank", still_file, "--only", "x,y", *more).out


def test_sizes_are_told_of_what_did_not_change_too(run: Run, still_file: Path) -> None:
    """A length says nothing of a difference: every group has one."""
    out = run("rank", still_file, "--by", "norm_a").out
    assert ["attn2", "ff", "near", "x", "y"] == sorted(line.split()[0] for line in out.splitlines()[1:])
    assert "other categor" not in out


def test_the_first_n_groups_are_those_that_are_shown(run: Run, still_file: Path) -> None:
    """`--top` cuts what a table shows; below it stands only what can be seen in it."""
    out = run("rank", still_file, "--top", 1, "--uncertainty").out
    assert ["attn2"] == [line.split()[0] for line in out.splitlines() if line and line[0].isalpha()]
    assert "tier 1 | 2" not in out
    assert "tier 1 | 2: attn2 before ff" in run("rank", still_file, "--top", 2, "--uncertainty").out
    assert 3 == len(run("rank", still_file, "--top", 2).out.splitlines())
    assert "nothing changed in 2 other categories" in run("rank", still_file, "--top", 3).out


def test_a_group_that_stayed_has_a_note(run: Run, still_file: Path) -> None:
    """Instead of an interval from 0 to 0."""
    document = json.loads(run("rank", still_file, "--uncertainty", "--format", "json").out)
    notes = {row["name"]: row["uncertainty"]["note"] for row in document["rows"]}
    assert {"attn2": None, "ff": None, "near": None, "x": "nothing changed", "y": "nothing changed"} == notes
    verdicts = {row["name"]: row["verdict"] for row in document["rows"]}
    expected = {"attn2": "changed", "ff": "changed", "near": "cast", "x": "identical", "y": "identical"}
    assert expected == verdicts
    assert "nothing changed: no interval" in run("rank", still_file, "--uncertainty", "--only", "x,y").out


@pytest.mark.parametrize(
    ("columns", "gone"), [(60, [""]), (55, ["", "at rank"]), (48, ["", "at rank", "keys"])]
)
def test_a_narrow_terminal_keeps_the_numbers(
    run: Run, scan_file: Path, monkeypatch: pytest.MonkeyPatch, columns: int, gone: list[str]
) -> None:
    """The bars go first, then the probabilities, then the counts; no number is cut, and no name below 16."""
    lines = run_at(run, columns, monkeypatch, "rank", scan_file, "--uncertainty")
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("•"))]
    assert all(len(line) <= columns for line in table)
    for word in ("keys", "at rank"):
        assert (word in gone) == (word not in table[0])
    assert not any(block in line for line in table for block in "█▓░")
    assert any(re.match(r"a_name_\S*…\S+nal ", line) and line.index(" ") >= 16 for line in table)
    assert any(re.search(r"attn2 .*0\.5582 .*0\.4707 – 0\.6620 ", line) for line in table)


def run_at(run: Run, columns: int, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[str]:
    """The lines of a command's output on a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out: str = run(*arguments).out
    return out.splitlines()


@pytest.mark.parametrize("by", ["relative_change", "energy_share", "max_abs_delta", "mean_a"])
def test_a_terminal_without_signs(scan_file: Path, by: str) -> None:
    """ASCII alone, in headings, tables and sentences, and nothing that became a question mark."""
    root = Path(__file__).resolve().parents[2]
    for more in ([], ["--uncertainty"]):
        done = subprocess.run(
            [sys.executable, "-m", "analyzer", "rank", scan_file, "--by", by, *more],
            check=True, cwd=root, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii:replace"},
        )  # fmt: skip
        assert b"?" not in done.stdout
        assert done.stdout.isascii()


def test_a_misspelt_statistic_is_told_the_nearest(run: Run, scan_file: Path) -> None:
    """Not the whole list, unless nothing is near."""
    wrong = run("rank", scan_file, "--by", "relative_chang")
    assert (1, True) == (
        wrong.code,
        "unknown statistic 'relative_chang': nearest are relative_change" in wrong.err,
    )
    assert "choose one of numel, " in run("rank", scan_file, "--by", "zzz").err


@pytest.mark.parametrize(("spread", "told"), [(0.3, False), (0.9, True)])
def test_groups_whose_keys_spread_widely_are_told(
    spread: float, told: bool, run: Run, tmp_path: Path
) -> None:
    """There an interval is too narrow: said below the table, and as a number in the JSON."""
    logs = spread * np.random.default_rng(1).standard_normal(40)
    rows = [
        moved(f"k{i}", 0.01 * float(np.exp(x)), group="t/attn2", component="t/attn2")
        for i, x in enumerate(logs)
    ]
    path = tmp_path / "scan.json"
    path.write_bytes(scanfile.dumps(scan_of(rows)))
    text = " ".join(run("rank", path, "--uncertainty").out.split())
    assert told == ("in 1 of these groups the changes of the keys spread by more than a factor" in text)
    (row,) = json.loads(run("rank", path, "--uncertainty", "--format", "json").out)["rows"]
    assert row["uncertainty"]["spread"] == pytest.approx(logs.std(ddof=1), rel=1e-2)
