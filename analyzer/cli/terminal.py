"""What a person sees in the terminal: tables, progress, warnings. Knows records, no formulas."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.errors import OutputError
from analyzer.ranking import RankRow
from analyzer.records import Finding, ModelId, Scan
from analyzer.statistics import STATISTICS

_BAR_CELLS = 8
_BAR_PLACE = 3  # of the columns behind the name
_SHORTEST_NAME = 8
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_COLUMNS = ("relative_change", "cosine", "norm_ratio", "changed_fraction", "energy_share")
_SHARES = {"changed_fraction", "energy_share", "sign_flip_fraction"}
_COUNTS = {"numel", "nonfinite_a", "nonfinite_b"}
WARNED = {"nonfinite_a", "nonfinite_b"}  # findings that go to stderr, and so not into the summary
_LISTED = 3  # how many keys a summary names before it says "and N more"


def printable(text: str) -> str:
    """The text with control characters spelled out: names come from strangers' files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def warn(text: str) -> None:
    """One warning on stderr."""
    console = Console(stderr=True, highlight=False)
    console.print(Text(f"warning: {printable(text)}", style="yellow"), soft_wrap=True)


class OutputConsole(Console):
    """Standard output; who reads it may close it early, and `pipe_may_close` deals with that."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Say so, where rich itself would end the process with an exit code of its own."""
        raise BrokenPipeError


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """For printing results: `… | head` has seen enough when it has, which is no error of the command."""
    try:
        yield
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror}); redirect it") from error


@contextlib.contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback (bytes done, bytes in all) that draws a bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what), BarColumn(bar_width=None), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_scan(
    scan: Scan, findings: Sequence[Finding], ranking: Sequence[RankRow], *, unrelated: bool
) -> None:
    """The summary of a scan on stdout: who, what pairs, what was found, and the ranking."""
    console = OutputConsole()
    for name, model in (("A", scan.a), ("B", scan.b)):
        console.print(Text.assemble((f"{name}  ", "bold"), _model_line(model)), soft_wrap=True)
    console.print(Text(_pairing_line(scan)), soft_wrap=True)
    console.print()
    fancy = console.encoding.startswith("utf")
    for finding in findings:
        if finding.statistic not in WARNED:
            style = "bold yellow" if unrelated and finding is findings[0] else ""
            mark = "•" if fancy else "-"
            console.print(wrapped(finding.text, width=console.width, mark=mark, style=style))
    console.print()
    print_ranking(ranking, by="relative_change", console=console)


def wrapped(text: str, *, width: int, mark: str, style: str = "") -> Text:
    """A sentence behind a mark, with a hanging indent."""
    lines = textwrap.wrap(printable(text), max(width - 2, _SHORTEST_NAME))
    return Text("\n".join([f"{mark} {lines[0]}", *(f"  {line}" for line in lines[1:])]), style)


def print_written(files: Sequence[Path]) -> None:
    """Where the results are."""
    console = OutputConsole()
    for file in files:
        console.print(Text(f"wrote {printable(str(file))}"), soft_wrap=True)


def print_ranking(ranking: Sequence[RankRow], *, by: str, console: Console | None = None) -> None:
    """Groups as a table that fits the terminal, with a bar for the statistic that orders it."""
    console = console or OutputConsole()
    columns = [by, *(c for c in _COLUMNS if c != by)]
    largest = max((_difference(by, row.statistics[by]) for row in ranking), default=0.0)
    rows = [
        _ranking_cells(row, columns, largest, fancy=console.encoding.startswith("utf")) for row in ranking
    ]
    headings = ["keys", "size", _heading(by), "", *map(_heading, columns[1:])]
    widths = [
        max(_BAR_CELLS if place == _BAR_PLACE else len(word) for word in [*heading.split("\n"), *column])
        for place, (heading, *column) in enumerate(zip(headings, *(cells[1:] for cells in rows), strict=True))
    ]
    # A narrow terminal shows fewer statistics, whole ones; the name makes do with what is left.
    shown = len(widths)
    while shown > _BAR_PLACE + 1 and sum(widths[:shown]) + shown + _SHORTEST_NAME > console.width:
        shown -= 1
    room = max(console.width - sum(widths[:shown]) - shown - 1, _SHORTEST_NAME)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for place, heading in enumerate(headings[:shown]):
        table.add_column(heading, justify="left" if place == _BAR_PLACE else "right", no_wrap=True)
    for name, *cells in rows:
        styles = ["cyan" if place == _BAR_PLACE else "" for place in range(shown)]
        table.add_row(shorten(name, room), *(Text(*cell) for cell in zip(cells, styles, strict=False)))
    console.print(table)


def format_value(statistic: str, value: float | None) -> str:
    """A value with the digits that a reader can use; a dash where it is undefined."""
    if value is None:
        return "–"
    if statistic in _COUNTS:
        return human_count(int(value))
    if statistic in _SHARES:
        return "0" if value == 0 else f"{value:.1%}" if value >= 0.001 else "<0.1%"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.1e}"


def human_count(count: int) -> str:
    """1234567 as "1.2M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def human_bytes(count: int) -> str:
    """Decimal units, as disks and download pages count."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def list_some(keys: Sequence[str]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    return ", ".join(printable(key) for key in keys[:_LISTED]) + more


def _model_line(model: ModelId) -> str:
    dtypes = sorted((model.dtypes or {}).items(), key=lambda item: -item[1])
    names = " + ".join(DTYPES[name].label if name in DTYPES else name for name, _ in dtypes[:3])
    return f"{printable(Path(model.path).name)}  {human_bytes(model.bytes)}  {names}  {model.title}"


def _pairing_line(scan: Scan) -> str:
    lines = [f"{len(scan.keys):,} keys compared"]
    for what, keys in (
        ("only in A", scan.only_in_a),
        ("only in B", scan.only_in_b),
        ("of different shape", tuple(m.key for m in scan.shape_mismatch)),
    ):
        if keys:
            lines.append(f"{len(keys):,} {what}: {list_some(keys)}")
    return "\n".join(lines)


def _ranking_cells(row: RankRow, columns: Sequence[str], largest: float, *, fancy: bool) -> list[str]:
    """One line of the ranking: name, keys, size, the ordering statistic, its bar, the others."""
    values = [format_value(column, row.statistics[column]) for column in columns]
    share = _difference(columns[0], row.statistics[columns[0]]) / largest if largest else 0.0
    bar = _bar(share, fancy=fancy)
    return [printable(row.name), f"{row.keys:,}", human_count(row.sums.numel), values[0], bar, *values[1:]]


def _difference(statistic: str, value: float | None) -> float:
    """How much of a difference a value means, for the length of its bar: none at cosine 1 or ratio 1."""
    if value is None:
        return 0.0
    if statistic == "cosine":
        return 1 - value
    if statistic == "norm_ratio":
        return abs(math.log(value)) if value > 0 else 0.0
    return abs(value)


def shorten(name: str, width: int) -> Text:
    """The name, with its middle left out where it is too long: both ends tell names apart."""
    if len(name) > width:
        tail = (width - 1) // 2
        name = f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
    return Text(name)


def _heading(statistic: str) -> str:
    """A heading of few columns: two lines where the name is long."""
    short = {"relative_change": "change", "norm_ratio": "|B|/|A|", "energy_share": "Δ² share"}
    return short.get(statistic) or STATISTICS[statistic].title.replace(" ", "\n")


def _bar(share: float, *, fancy: bool) -> str:
    if not fancy:
        return "#" * round(share * _BAR_CELLS)
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
