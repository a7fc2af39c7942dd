"""`rank --uncertainty`: readable at 80 columns, complete as JSON and CSV, and silent without the flag."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert "p < 0.05 after Benjamini–Hochberg over 3 tests" in text
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
    whole = document["uncertainty"]
    assert (0.95, 1000) == (whole["confidence"], whole["resamples"])
    assert {"groups", "keys", "h", "p", "effect"} == set(whole["kruskal_wallis"])


def test_csv_has_the_same_columns(run: Run, scan_file: Path) -> None:
    """Behind the statistics, in the documented order; full precision, undefined empty."""
    head, *lines = csv.reader(io.StringIO(run("rank", scan_file, "--uncertainty", "--format", "csv").out))
    assert ["name", "selector", "keys", *STATISTICS, *UNCERTAINTY] == head
    document = json.loads(run("rank", scan_file, "--uncertainty", "--format", "json").out)
    for line, row in zip(lines, document["rows"], strict=True):
        cells = dict(zip(head, line, strict=True))
        for name, value in row["uncertainty"].items():
            assert cells[name] == ("" if value is None else str(value))


def test_without_the_flag_nothing_is_added(run: Run, scan_file: Path) -> None:
    """The ranking as it was: no further columns, entries or sentences."""
    document = json.loads(run("rank", scan_file, "--format", "json").out)
    assert "uncertainty" not in document
    assert all("uncertainty" not in row for row in document["rows"])
    head, *_ = csv.reader(io.StringIO(run("rank", scan_file, "--format", "csv").out))
    assert ["name", "selector", "keys", *STATISTICS] == head
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
    text = " ".join(run("rank", path, "--uncertainty").out.split())
    assert "out of line with the other weights of attn2: odd.weight, relative change 0.9" in text
    listed = json.loads(run("rank", path, "--uncertainty", "--format", "json").out)["outliers"]
    assert ("odd.weight", True) == (listed[0]["key"], listed[0]["z"] > 3.5)
    assert listed == json.loads(path.read_bytes())["outliers"]
    rest = json.loads(run("rank", path, "--uncertainty", "--format", "json", "--only", "ff").out)
    assert "odd.weight" not in [outlier["key"] for outlier in rest["outliers"]]
