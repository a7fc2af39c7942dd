"""`mergescope rank` and `mergescope report`: what is made from a scan file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from analyzer.cli import options

PlotlyJs = Literal["inline", "cdn"]

if TYPE_CHECKING:
    from analyzer.ranking import Axis, Depth
    from analyzer.records import Scan


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

    del quiet  # a ranking has neither progress nor warnings to hold back
    rows = ranking.rank(scanfile.load(scan_file), axis=axis, by=by, depth=depth, only=only, top=top)
    if form == "json":
        document = tables.ranking_document(rows, axis=axis, by=by)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    elif form == "csv":
        click.echo(tables.ranking_csv(rows), nl=False)
    else:
        from analyzer.cli.terminal import print_ranking

        print_ranking(rows, by=by)


@click.command()
@click.argument("scan_file", metavar="SCAN.json", type=options.FILE)
@click.option(
    "-o", "--output", type=options.FILE, required=True, metavar="FILE.html", help="The page to write."
)
@click.option(
    "--plotlyjs",
    type=click.Choice(["inline", "cdn"]),
    default="inline",
    show_default=True,
    help="inline works offline; cdn makes a small file.",
)
@options.quiet
def report(scan_file: Path, output: Path, plotlyjs: PlotlyJs, quiet: bool) -> None:
    """Draw a scan as one self-contained HTML page."""
    from analyzer import scanfile
    from analyzer.writer import check_files, write_file

    check_files([output], inputs=[scan_file])
    write_file(output, render_report(scanfile.load(scan_file), plotlyjs=plotlyjs), inputs=[scan_file])
    if not quiet:
        from analyzer.cli.terminal import print_written

        print_written([output])


def render_report(scan: Scan, *, plotlyjs: PlotlyJs) -> bytes:
    """The page of a scan, as bytes to write."""
    from analyzer.kinship import findings, kinship
    from reports.page import render

    name, _ = kinship(scan)
    return render(scan, kinship=name or "undefined", findings=findings(scan), plotlyjs=plotlyjs).encode()
