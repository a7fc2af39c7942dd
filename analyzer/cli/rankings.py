"""A ranking in the terminal: a table with a bar that fits its width. Knows records, no formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analyzer.cli.terminal import OutputConsole, human_count, is_fancy, printable, shorten, spelled
from analyzer.ranking import RankRow
from analyzer.statistics import STATISTICS
from analyzer.verdicts import worst

_BAR_CELLS = 8
_NAME = 16  # characters of a name that no column may take away
_SHORTEST_NAME = 8  # on a terminal that is too narrow for the columns that must stay
_ONE_LINE = 8  # characters of a heading that need no second line
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_COLUMNS = ("relative_change", "cosine", "norm_ratio", "changed_fraction", "energy_share")
_GROUPS = {
    "component": ("category", "categories"),
    "block": ("block", "blocks"),
    "part": ("part", "parts"),
    "kind": ("kind", "kinds"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table behind the names."""

    head: str  # one line or two
    cells: Sequence[str]
    left_out: int = 0  # where the terminal is too narrow: the larger number first; 0: never
    bar: int = 0  # how many characters wide, if it holds bars

    @property
    def width(self) -> int:
        """In characters."""
        return self.bar or max(len(word) for word in [*self.head.split("\n"), *self.cells])


def print_ranking(
    ranking: Sequence[RankRow],
    *,
    by: str,
    axis: str = "component",
    top: int | None = None,
    console: Console | None = None,
) -> None:
    """Groups as a table that fits the terminal, with a bar for the statistic that orders it.

    Of groups that changed by no more than rounding there is only the number below the table, unless all
    are such, or the statistic tells nothing of a difference. `top` is the number of groups at most.
    """
    console = console or OutputConsole()
    fancy = is_fancy(console.encoding)
    shown = [ranking[place] for place in telling(ranking, by)][:top]
    names = [by, *(name for name in _COLUMNS if name != by)]
    values = {name: [format_value(name, row.statistics[name]) for row in shown] for name in names}
    sizes = [difference(by, row.statistics[by]) for row in shown]
    largest = max(sizes, default=0.0)
    bars = [_bar(size / largest if largest else 0.0, fancy=fancy) for size in sizes]
    print_table(
        [row.name for row in shown],
        [
            Column("keys", [f"{row.keys:,}" for row in shown], left_out=1),
            Column("size", [human_count(row.sums.numel) for row in shown], left_out=2),
            Column(heading(by), values[by]),
            Column("", bars, left_out=3, bar=_BAR_CELLS),
            *(
                Column(heading(name), values[name], left_out=3 + place)
                for place, name in enumerate(names)
                if place
            ),
        ],
        console,
    )
    for sentence in told_below(ranking, by, axis, top):
        console.print(Text(spelled(sentence, console.encoding)), soft_wrap=True)


def telling(ranking: Sequence[RankRow], by: str) -> list[int]:
    """The places of the groups that a table shows: those that changed, if there are any.

    All, where the statistic tells nothing of a difference, but those in which it is not defined either.
    """
    plain = STATISTICS[by].neutral is None
    shown = [
        place
        for place, row in enumerate(ranking)
        if row.verdict == "changed" or (plain and (row.verdict, row.statistics[by]) != ("identical", None))
    ]
    return shown or list(range(len(ranking)))


def told_below(ranking: Sequence[RankRow], by: str, axis: str, top: int | None) -> list[str]:
    """What became of the groups that a table leaves out; or that none of those it shows changed.

    Nothing of the groups behind the first `top` where so many are shown.
    """
    one, many = _GROUPS.get(axis, ("group", "groups"))
    shown = set(telling(ranking, by))
    hidden = [row.verdict for place, row in enumerate(ranking) if place not in shown]
    if hidden:
        if top is not None and top <= len(shown):
            return []
        same = hidden.count("identical")
        counts = {"only rounding differs": len(hidden) - same, "nothing changed": same}
        return [f"{what} in {n:,} other {one if n == 1 else many}" for what, n in counts.items() if n]
    verdict = worst(row.verdict for row in ranking)
    if verdict == "changed" or not ranking or STATISTICS[by].neutral is None:
        return []
    if verdict == "identical":
        return [f"nothing changed in any {one}"]
    same = sum(row.verdict == "identical" for row in ranking)
    rest = f"; nothing at all changed in {same:,} of them" if same else ""
    return [f"only rounding differs in all of these {many}{rest}"]


def print_table(names: Sequence[str], columns: Sequence[Column], console: Console) -> None:
    """Names and columns in one line each; a narrow terminal shows fewer columns, and whole ones."""
    columns = [
        Column(
            spelled(column.head, console.encoding),
            [spelled(cell, console.encoding) for cell in column.cells],
            column.left_out,
            column.bar,
        )
        for column in columns
    ]
    names = [spelled(printable(name), console.encoding) for name in names]
    longest = max(map(len, names), default=0)
    order = sorted((c for c in columns if c.left_out), key=lambda column: column.left_out)
    while order and _room(columns, console.width) < min(longest, _NAME):
        last = order.pop()
        columns = [column for column in columns if column is not last]
    room = max(_room(columns, console.width), _SHORTEST_NAME)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column.head, justify="left" if column.bar else "right", no_wrap=True)
    for place, name in enumerate(names):
        cells = (Text(column.cells[place], "cyan" if column.bar else "") for column in columns)
        table.add_row(shorten(name, room, mark="…" if is_fancy(console.encoding) else "~"), *cells)
    console.print(table)


def _room(columns: Sequence[Column], width: int) -> int:
    """How many characters are left for a name: one blank stands behind it and behind each column."""
    return width - sum(column.width + 1 for column in columns) - 1


def format_value(statistic: str, value: float | None, *, digits: int = 1) -> str:
    """A value with the digits that a reader can use; a dash where it is undefined.

    `digits` are those behind the point of a number that is so small or large that it has an exponent.
    """
    if value is None:
        return "–"
    form = STATISTICS[statistic].format
    if form == "count":  # of a group it may be a median, or an end of an interval: 4.5
        return human_count(round(value)) if value >= 1000 or value == round(value) else f"{value:.1f}"
    if value == 0:
        return "0"
    if form == "share":
        return f"{value:.1%}" if value >= 0.001 else "<0.1%"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.{digits}e}"


def difference(statistic: str, value: float | None) -> float:
    """How far a value is from the one of two equal models, for the length of its bar.

    Of a rank, which is without end where nothing differs, its reciprocal: 1 direction is the longest bar.
    """
    neutral = STATISTICS[statistic].neutral or 0.0
    if value is None:
        return 0.0
    if neutral == inf:
        return 1 / value if value else 0.0
    return abs(value - neutral)


def heading(statistic: str) -> str:
    """A heading of few columns: a name that is long on two lines, as even as its words allow."""
    short = {"relative_change": "change", "norm_ratio": "|B|/|A|", "energy_share": "Δ² share"}
    title = short.get(statistic, STATISTICS[statistic].title)
    words = title.split(" ")
    if len(title) <= _ONE_LINE or len(words) == 1:
        return title
    cuts = ((" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words)))
    return "\n".join(min(cuts, key=lambda lines: max(map(len, lines))))


def _bar(share: float, *, fancy: bool) -> str:
    if not fancy:
        return "#" * round(share * _BAR_CELLS)
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
