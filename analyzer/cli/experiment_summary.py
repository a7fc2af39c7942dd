"""An experiment in the terminal: how far it is, and what it found. Knows the data document, no formulas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from analyzer.cli.rankings import Column, print_table
from analyzer.cli.terminal import OutputConsole, is_fancy, remark, spelled, wrapped

_MEASURES = (("toward_b", "toward B", 0), ("neither", "neither", 0), ("ssim_a", "SSIM to A", 1))
_EFFECTS = ("toward_b", "neither")
_LISTED = 2  # correlations of an effect
_DIGITS = 9  # of ρ that are no error of rounding
_FAILURES = 5  # that are told one by one
_WARM = 2  # cells after which the time that is left is known well enough to say
_WORTH = 10.0  # seconds that are


def failures(grid: Mapping[tuple[str, int], object]) -> list[str]:
    """A sentence for each of the first cells that failed, and how many more there are."""
    found = [f"{label}, seed {seed}: {x}" for (label, seed), x in grid.items() if isinstance(x, str)]
    more = len(found) - _FAILURES
    return found[:_FAILURES] + ([f"{more:,} more cells failed; the numbers list them"] if more > 0 else [])


@contextlib.contextmanager
def cells_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int, float | None], None]]:
    """A callback (cells done, in all, seconds left) that draws a bar on stderr.

    Where that is no terminal it says once, after the first few, how long the rest will take.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    drawn = console.is_terminal and not quiet
    with Progress(*columns, console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(what, total=None, left="")

        def report(done: int, total: int, left: float | None) -> None:
            text = "" if left is None else f"{human_time(left)} left"
            bar.update(task, completed=done, total=total, left=text)
            if not quiet and not drawn and done == _WARM and left is not None and left > _WORTH:
                remark(f"{what}: {total - done:,} of {total:,} left, about {human_time(left)}")

        yield report


def human_time(seconds: float) -> str:
    """3700 as "1 h 2 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_experiment(
    data: Mapping[str, Any], console: Console | None = None, *, told: Collection[str] = ()
) -> None:
    """A line for each category, the largest correlations, and what the numbers say and do not.

    `told` are the notes that were said before the work.
    """
    console = console or OutputConsole()
    columns = data["columns"]
    summary = {(entry["selector"], entry["measure"]): entry for entry in data["summary"]}
    names = [column["selector"] for column in columns]
    shown = [
        Column(head, [_mean(summary.get((name, measure))) for name in names], left_out)
        for measure, head, left_out in _MEASURES
    ]
    shown = [column for column in shown if set(column.cells) != {"–"} or not column.left_out]
    keys = Column("keys", [f"{column['keys']:,}" for column in columns], left_out=2)
    print_table(names, [keys, *shown], console)
    lines = [line for effect in _EFFECTS for line in _correlations(data["correlations"], effect)]
    if lines:
        console.print(Text("\nSpearman's ρ of weight statistics with the effect, over the categories:"))
        for line in lines:
            console.print(Text(spelled(f"  {line}", console.encoding)), soft_wrap=True)
    console.print()
    mark = "•" if is_fancy(console.encoding) else "*"
    for note in [note for note in data["notes"] if note not in told]:
        console.print(wrapped(spelled(note, console.encoding), width=console.width, mark=mark))
    if data["best"] is not None and data["best"]["offered"]:
        by = data["best"]["offered"]
        console.print(
            wrapped(
                f"rank by what foretells it: mergescope rank SCAN.json --by {by}",
                width=console.width,
                mark=mark,
            )
        )


def _mean(entry: Mapping[str, Any] | None) -> str:
    """The mean over the seeds, and half of its interval."""
    if entry is None or entry["mean"] is None:
        return "–"
    mean = f"{round(entry['mean'], 2) + 0.0:.2f}"  # zero has no sign
    return mean if entry["low"] is None else f"{mean} ±{(entry['high'] - entry['low']) / 2:.2f}"


def _correlations(found: Sequence[Mapping[str, Any]], effect: str) -> list[str]:
    """The largest of one effect, one line each."""
    own = [entry for entry in found if entry["effect"] == effect and entry["spearman"] is not None]
    own.sort(key=lambda entry: -round(abs(entry["spearman"]), _DIGITS))  # of those alike the first leads
    title = {"toward_b": "toward B"}.get(effect, effect)
    return [
        f"{title} and {entry['statistic']}: {entry['spearman']:+.2f}"
        + ("" if entry["low"] is None else f" ({entry['low']:+.2f} … {entry['high']:+.2f})")
        + f", n = {entry['n']}"
        for entry in own[:_LISTED]
    ]
