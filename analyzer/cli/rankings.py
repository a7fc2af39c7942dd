"""A ranking in the terminal: a table with a bar that fits its width. Knows records, no formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analyzer.cli.terminal import OutputConsole, human_count, printable, shorten
from analyzer.ranking import RankRow
from analyzer.statistics import STATISTICS

_BAR_CELLS = 8
_BAR_PLACE = 3  # of the columns behind the name
_SHORTEST_NAME = 8
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_COLUMNS = ("relative_change", "cosine", "norm_ratio", "changed_fraction", "energy_share")
_SHARES = {"changed_fraction", "energy_share", "sign_flip_fraction"}
_COUNTS = {"numel", "nonfinite_a", "nonfinite_b"}


def print_ranking(ranking: Sequence[RankRow], *, by: str, console: Console | None = None) -> None:
    """Groups as a table that fits the terminal, with a bar for the statistic that orders it."""
    console = console or OutputConsole()
    columns = [by, *(c for c in _COLUMNS if c != by)]
    largest = max((difference(by, row.statistics[by]) for row in ranking), default=0.0)
    rows = [
        _ranking_cells(row, columns, largest, fancy=console.encoding.startswith("utf")) for row in ranking
    ]
    headings = ["keys", "size", heading(by), "", *map(heading, columns[1:])]
    widths = [
        max(_BAR_CELLS if place == _BAR_PLACE else len(word) for word in [*head.split("\n"), *column])
        for place, (head, *column) in enumerate(zip(headings, *(cells[1:] for cells in rows), strict=True))
    ]
    # A narrow terminal shows fewer statistics, whole ones; the name makes do with what is left.
    shown = len(widths)
    while shown > _BAR_PLACE + 1 and sum(widths[:shown]) + shown + _SHORTEST_NAME > console.width:
        shown -= 1
    room = max(console.width - sum(widths[:shown]) - shown - 1, _SHORTEST_NAME)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for place, head in enumerate(headings[:shown]):
        table.add_column(head, justify="left" if place == _BAR_PLACE else "right", no_wrap=True)
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


def _ranking_cells(row: RankRow, columns: Sequence[str], largest: float, *, fancy: bool) -> list[str]:
    """One line of the ranking: name, keys, size, the ordering statistic, its bar, the others."""
    values = [format_value(column, row.statistics[column]) for column in columns]
    share = difference(columns[0], row.statistics[columns[0]]) / largest if largest else 0.0
    bar = _bar(share, fancy=fancy)
    return [printable(row.name), f"{row.keys:,}", human_count(row.sums.numel), values[0], bar, *values[1:]]


def difference(statistic: str, value: float | None) -> float:
    """How much of a difference a value means, for the length of its bar: none at cosine 1 or ratio 1."""
    if value is None:
        return 0.0
    if statistic == "cosine":
        return 1 - value
    if statistic == "norm_ratio":
        return abs(math.log(value)) if value > 0 else 0.0
    return abs(value)


def heading(statistic: str) -> str:
    """A heading of few columns: two lines where the name is long."""
    short = {"relative_change": "change", "norm_ratio": "|B|/|A|", "energy_share": "Δ² share"}
    return short.get(statistic) or STATISTICS[statistic].title.replace(" ", "\n")


def _bar(share: float, *, fancy: bool) -> str:
    if not fancy:
        return "#" * round(share * _BAR_CELLS)
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
