"""The summary of a scan in the terminal: who, what pairs, what was found. Knows records, no formulas."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.cli.rankings import print_ranking
from analyzer.cli.terminal import (
    OutputConsole,
    human_bytes,
    is_fancy,
    list_some,
    printable,
    spelled,
    wrapped,
)
from analyzer.ranking import RankRow
from analyzer.records import Finding, ModelId, Scan
from analyzer.verdicts import VERDICTS, verdict, worst

WARNED = {"nonfinite_a", "nonfinite_b"}  # findings that go to stderr, and so not into the summary
_LONGEST_SELECTOR = 160  # characters; longer ones are in the scan file and in the report


def print_scan(
    scan: Scan, findings: Sequence[Finding], ranking: Sequence[RankRow], *, unrelated: bool
) -> None:
    """The summary of a scan on stdout: who, what pairs, what was found, and the ranking."""
    console = OutputConsole()
    for name, model in (("A", scan.a), ("B", scan.b), ("C", scan.base)):
        if model is not None:
            console.print(Text.assemble((f"{name}  ", "bold"), model_line(model)), soft_wrap=True)
            for line in _digest_lines(model):
                console.print(Text(f"   {line}", "dim"), soft_wrap=True)
    console.print(Text(_pairing_line(scan)), soft_wrap=True)
    console.print()
    for finding in findings:
        if finding.statistic not in WARNED:
            _print_finding(finding, console, "bold yellow" if unrelated and finding is findings[0] else "")
    console.print()
    _print_ranking(ranking, console)


def _print_ranking(ranking: Sequence[RankRow], console: Console) -> None:
    """The table, without lines of zeros: categories that did not change are counted below it."""
    changed = [row for row in ranking if row.verdict != "identical"]
    same = len(ranking) - len(changed)
    moved = [row for row in changed if row.sums.changed]  # beside those that differ by NaN or Inf alone
    if worst(row.verdict for row in moved) == "changed":
        print_ranking(changed, by="relative_change", console=console)
        if same:
            console.print(
                Text(f"nothing changed in {same:,} other {'category' if same == 1 else 'categories'}")
            )
    elif ranking:
        noise = " by more than rounding" if moved else ""
        broken = ", beside values that are NaN or Inf" if len(moved) < len(changed) else ""
        console.print(Text(f"no ranking: nothing changed in any category{noise}{broken}"))


def _print_finding(finding: Finding, console: Console, style: str) -> None:
    """A sentence with a hanging indent, and behind it or below it how to act on it."""
    fancy = is_fancy(console.encoding)
    sentence = spelled(finding.text, console.encoding)
    text = wrapped(sentence, width=console.width, mark="•" if fancy else "-", style=style)
    if finding.selector and len(finding.selector) <= _LONGEST_SELECTOR:
        action = f"{'→' if fancy else '->'} --only {shlex.quote(printable(finding.selector))}"
        last = len(text.plain.rpartition("\n")[2])
        text.append("  " if last + 2 + len(action) <= console.width else "\n  ")
        text.append(action, "dim")
    # A selector that is longer than the line stays in one piece, to be copied.
    console.print(text, soft_wrap=True)


def model_line(model: ModelId) -> str:
    """Name, size, dtypes and title of a model in one line."""
    dtypes = sorted((model.dtypes or {}).items(), key=lambda item: -item[1])
    names = " + ".join(DTYPES[name].label if name in DTYPES else name for name, _ in dtypes[:3])
    return f"{printable(Path(model.path).name)}  {human_bytes(model.bytes)}  {names}  {model.title}"


def _digest_lines(model: ModelId) -> list[str]:
    """The SHA-256 of its files, as `sha256sum` prints them, if they were asked for."""
    if isinstance(model.sha256, str):
        return [f"sha256 {model.sha256}"]
    return [f"sha256 {digest}  {printable(name)}" for name, digest in (model.sha256 or {}).items()]


def _pairing_line(scan: Scan) -> str:
    lines = [f"{len(scan.keys):,} keys compared", _verdict_line(scan)]
    for what, keys in (
        ("only in A", scan.only_in_a),
        ("only in B", scan.only_in_b),
        ("of different shape", tuple(m.key for m in scan.shape_mismatch)),
    ):
        if keys:
            lines.append(f"{len(keys):,} {what}: {list_some(keys)}")
    return "\n".join(lines)


def _verdict_line(scan: Scan) -> str:
    """How many of the keys compared have which verdict."""
    counts = Counter(verdict(row.sums) for row in scan.keys)
    return "verdicts: " + ", ".join(f"{counts[name]:,} {name}" for name in VERDICTS)
