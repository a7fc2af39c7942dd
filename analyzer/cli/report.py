"""`mergescope report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from analyzer.cli import options

PlotlyJs = Literal["inline", "cdn"]

if TYPE_CHECKING:
    from analyzer.records import Scan


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
    from analyzer.writer import check_files, write_files

    check_files([output], inputs=[scan_file])
    page = render_report(scanfile.load(scan_file), plotlyjs=plotlyjs)
    write_files({output: page}, inputs=[scan_file])
    if not quiet:
        from analyzer.cli import terminal

        with terminal.pipe_may_close():
            terminal.print_written([output])


def render_report(scan: Scan, *, plotlyjs: PlotlyJs) -> bytes:
    """The page of a scan, as bytes to write."""
    from analyzer.kinship import findings, kinship
    from reports.page import render

    name, _ = kinship(scan)
    return render(scan, kinship=name or "undefined", findings=findings(scan), plotlyjs=plotlyjs).encode()
