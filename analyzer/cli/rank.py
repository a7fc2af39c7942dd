"""`mergescope rank`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from analyzer.ranking import Depth


def _axis(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """One axis, or two with * between them."""
    from analyzer.errors import AnalyzerError
    from analyzer.ranking import CROSS, crossed_axes

    try:
        return CROSS.join(crossed_axes(value))
    except AnalyzerError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(short_help="Order groups by how much they differ.")
@click.argument("scan_file", metavar="SCAN.json", type=options.FILE)
@click.option(
    "--axis",
    callback=_axis,
    default="component",
    show_default=True,
    metavar="component|block|part|kind|AXIS*AXIS",
    help="What to group by; 'block*component' crosses two.",
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
@click.option(
    "--uncertainty", is_flag=True, help="How sure the ranking is: intervals, tiers, probabilities and tests."
)
@options.quiet
def rank(
    scan_file: Path,
    axis: str,
    by: str,
    top: int | None,
    only: str | None,
    depth: Depth,
    form: str,
    uncertainty: bool,
    quiet: bool,
) -> None:
    """Order the groups of an axis by a statistic, the one that differs most first."""
    import orjson

    from analyzer import ranking, scanfile, tables
    from analyzer.cli import rankings, terminal

    del quiet  # a ranking has neither progress nor warnings to hold back
    scan = scanfile.load(scan_file)
    groups = ranking.rank_keys(scan, axis=axis, by=by, depth=depth, only=only)
    assessment, odd = None, []
    if uncertainty:
        from analyzer.outliers import outliers
        from analyzer.uncertainty import assess  # scipy takes half a second to import

        assessment = assess(groups, scan, by=by)
        ranked = {row.key for group in groups for row in group.keys}
        odd = [outlier for outlier in outliers(scan) if outlier.key in ranked]
    every = [group.row for group in groups]
    rows = every[:top]
    with terminal.pipe_may_close():
        if form == "json":
            document = tables.ranking_document(rows, axis=axis, by=by, assessment=assessment, outliers=odd)
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        elif form == "csv":
            table = tables.ranking_csv(rows, assessment)
            click.echo(table.encode(), nl=False)  # UTF-8 whatever the terminal's encoding
        elif assessment is not None:
            from analyzer.cli import uncertainties

            # A key that moved unlike the others explains an order by their change, by category.
            explained = odd if (axis, by) == ("component", "relative_change") else []
            uncertainties.print_ranking(every, assessment, explained, axis=axis, top=top)
        else:
            rankings.print_ranking(every, by=by, axis=axis, top=top)
