"""`mergescope report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from analyzer.cli import options

PlotlyJs = Literal["inline", "cdn"]

if TYPE_CHECKING:
    from analyzer.records import Scan
    from analyzer.uncertainty import AxisIntervals
    from reports.embedded import Interval, Intervals

# The axes on which groups have intervals, and the labels that name these groups, as in the page's menu.
_PAGE_AXES = {"component": "group", "block": "block", "part": "part", "kind": "kind"}


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
    from analyzer.writing.writer import check_files, write_files

    check_files([output], inputs=[scan_file])
    page = render_report(scanfile.load(scan_file), plotlyjs=plotlyjs)
    write_files({output: page}, inputs=[scan_file])
    if not quiet:
        from analyzer.cli import terminal

        with terminal.pipe_may_close():
            terminal.print_written([output])


def render_report(scan: Scan, *, plotlyjs: PlotlyJs) -> bytes:
    """The page of a scan, as bytes to write."""
    from analyzer.findings import findings
    from analyzer.kinship import kinship, relation
    from analyzer.ranking import counted
    from reports.page import render

    name, _ = kinship(scan)
    if name == "unrelated" and relation(counted(scan.keys)).opposed:
        name = "opposed"
    page = render(
        scan,
        kinship=name or "undefined",
        findings=findings(scan),
        intervals=_intervals(scan),
        plotlyjs=plotlyjs,
    )
    return page.encode()


def _intervals(scan: Scan) -> Intervals:
    """How sure the rankings of the page are, under the page's own names of the axes."""
    from reports.page import measured
    from reports.tables import is_identical

    if is_identical(scan):
        return {}  # the page has no ranking
    from analyzer import uncertainty  # after that, since scipy takes half a second to import

    found = uncertainty.intervals(scan, _PAGE_AXES, [s for s in measured(scan) if s not in uncertainty.EXACT])
    by_axis: dict[str, dict[str, dict[str, Interval]]] = {name: {} for name in _PAGE_AXES.values()}
    for (axis, statistic), its in found.items():
        by_axis[_PAGE_AXES[axis]][statistic] = {group: _interval(its, group) for group in its.intervals}
    return by_axis


def _interval(its: AxisIntervals, group: str) -> Interval:
    low, high = its.intervals[group] or (None, None)
    return {
        "low": low,
        "high": high,
        "tier": its.tiers[group],
        "keys": its.sizes[group],
        "note": its.notes.get(group, "" if its.sizes[group] else "no key has a value"),
    }
