"""The summary in the terminal: 80 columns, findings with what to type, counts of the verdicts."""

from __future__ import annotations

import io
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from analyzer.cli import summaries
from analyzer.findings import findings
from analyzer.ranking import rank
from analyzer.records import Scan
from analyzer.selectors import select

sys.path.append(str(Path(__file__).parent))
from measured import moved, rounded, row, scan_of, still, turned

TUNED = scan_of(
    row("t/attn2", moved(0.3, 2000)),
    row("t/ff", moved(0.1, 8000)),
    row("t/norm", rounded()),
    row("v", still(), part="vae", block="VAE"),
)


def printed(scan: Scan, monkeypatch: pytest.MonkeyPatch, *, encoding: str = "utf-8") -> str:
    """What a terminal of 80 columns shows."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    monkeypatch.setattr(summaries, "OutputConsole", lambda: Console(width=80, file=file, highlight=False))
    summaries.print_scan(scan, findings(scan), rank(scan), unrelated=False)
    file.seek(0)
    return file.read()


def test_every_line_of_a_summary_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, for findings and for the ranking; only a selector may be longer, to stay in one piece."""
    text = printed(TUNED, monkeypatch)
    assert [] == [line for line in text.splitlines() if len(line) > 80 and "--only" not in line]


def test_every_finding_stands_in_the_summary_with_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence whole, in the order of importance, and an option that a shell can read back."""
    text = printed(TUNED, monkeypatch)
    flat = " ".join(text.split())
    places = [flat.index(" ".join(finding.text.split())) for finding in findings(TUNED)]
    assert sorted(places) == places
    assert re.search(r"^• relatives: ", text, re.MULTILINE)
    options = [shlex.split(option)[0] for option in re.findall(r"→ --only (.*)", text)]
    assert [finding.selector for finding in findings(TUNED) if finding.selector] == options
    for option in options:
        assert select(option, rows=TUNED.keys, blocks=TUNED.blocks)


def test_the_verdicts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All four, of all keys."""
    assert "verdicts: 1 identical, 1 cast, 0 rounding, 2 changed\n" in printed(TUNED, monkeypatch)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_an_old_terminal_shows_it_too(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the signs that its encoding lacks."""
    text = printed(
        scan_of(row("x", turned(0.0)), row("v", still(), part="vae")), monkeypatch, encoding=encoding
    )
    assert "- trained apart: " in text
    assert "0 +/- 0.03" in text
    assert "-> --only vae" in text


def test_control_characters_of_a_key_are_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's name comes from a stranger's file, and cannot clear the screen."""
    scan = scan_of(*(row("x", moved(0.1)) for _ in range(9)), row("y", moved(0.1)))
    keys = [replace(k, sums=moved(0.1 + 0.001 * n), key=f"k\x1b[2J{n}") for n, k in enumerate(scan.keys[:9])]
    odd = replace(keys[0], sums=moved(0.9), key="odd\x1b[2J")
    text = printed(replace(scan, keys=(*keys, odd)), monkeypatch)
    assert "\x1b[2J" not in text
    assert r"odd\x1b[2J stands out" in text


def test_what_is_no_number_is_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One NaN and no other difference make no table; a change beside it does."""
    broken = row("nan", replace(still(999), numel=1000, nonfinite_b=1, nonfinite_differs=1))
    text = printed(scan_of(broken, row("x", still())), monkeypatch)
    assert "no ranking: nothing changed in any category, beside values that are NaN or Inf\n" in text
    assert "no ranking" not in printed(scan_of(broken, row("x", moved(0.1))), monkeypatch)


def test_nothing_is_ranked_where_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence instead of a table of zeros; the same where only rounding differs."""
    assert "no ranking: nothing changed in any category\n" in printed(scan_of(row("x", still())), monkeypatch)
    text = printed(scan_of(row("x", rounded())), monkeypatch)
    assert "no ranking: nothing changed in any category by more than rounding\n" in text
