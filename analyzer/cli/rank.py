"""`mergescope rank`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from analyzer.ranking import Axis, Depth


@click.command()
@click.argument("scan_file", metavar="SCAN.json", type=options.FILE)
@click.option(
    "--axis",
    type=click.Choice(["component", "block", "part", "kind"]),
    default="component",
    show_default=True,
)
@click.option(
    "--by", default="relative_change", show_default=True, metavar="STATISTIC", help="What orders the groups."
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N groups.")
@options.only
@click.option(
    "--depth",
    type=click.Choice(["rank", "full"]),
    default="rank",
    show_default=True,
    help="Components: the level that rankings use, or the leaves.",
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
@options.quiet
def rank(
    scan_file: Path,
    axis: Axis,
    by: str,
    top: int | None,
    only: str | None,
    depth: Depth,
    form: str,
    quiet: bool,
) -> None:
    """Order the groups of an axis by a statistic, the one that differs most first."""
    import orjson

    from analyzer import ranking, scanfile, tables
    from analyzer.cli import terminal

    del quiet  # a ranking has neither progress nor warnings to hold back
    rows = ranking.rank(scanfile.load(scan_file), axis=axis, by=by, depth=depth, only=only, top=top)
    with terminal.pipe_may_close():
        if form == "json":
            document = tables.ranking_document(rows, axis=axis, by=by)
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        elif form == "csv":
            click.echo(tables.ranking_csv(rows).encode(), nl=False)  # UTF-8 whatever the terminal's encoding
        else:
            terminal.print_ranking(rows, by=by)
