"""`mergescope report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from analyzer.cli import options

PlotlyJs = Literal["inline", "cdn"]

if TYPE_CHECKING:
    from analyzer.records import Scan
    from analyzer.uncertainty import AxisIntervals
    from reports.embedded import Interval, Intervals, Planner

# The axes on which groups have intervals, and the labels that name these groups, as in the page's menu.
_PAGE_AXES = {"component": "group", "block": "block", "part": "part", "kind": "kind"}

# Of an axis whose groups have intervals: no reader compares more, and of 12,500 blocks they took an hour.
_MOST_GROUPS = 500


@click.command()
@click.argument("scan_files", metavar="SCAN.json...", type=options.FILE, nargs=-1, required=True)
@click.option(
    "--compare", is_flag=True, help="Two scans or more against the same A on one page, a column each."
)
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
def report(
    scan_files: tuple[Path, ...], compare: bool, output: Path, plotlyjs: PlotlyJs, quiet: bool
) -> None:
    """Draw a scan as one self-contained HTML page, or several beside each other."""
    if compare and len(scan_files) < 2:
        raise click.UsageError("--compare needs two scans or more: name them all, --compare S1.json S2.json")
    if not compare and len(scan_files) > 1:
        raise click.UsageError("one scan makes a page: put --compare before several to see them on one")
    from analyzer import scanfile
    from analyzer.cli import comparisons
    from analyzer.writing.writer import check_files, write_files

    check_files([output], inputs=scan_files)
    scans = [scanfile.load(path) for path in scan_files]
    if compare:
        comparisons.require_same_a(scan_files, scans)
        page = render_comparison(scans, plotlyjs=plotlyjs)
    else:
        page = render_report(scans[0], path=scan_files[0], plotlyjs=plotlyjs)
    write_files({output: page}, inputs=scan_files)
    if not quiet:
        from analyzer.cli import terminal

        with terminal.pipe_may_close():
            terminal.print_written([output])


def render_report(scan: Scan, *, path: Path | None = None, plotlyjs: PlotlyJs) -> bytes:
    """The page of a scan, as bytes to write; `path` is the file that holds the scan, if there is one."""
    from concurrent.futures import ThreadPoolExecutor

    from analyzer.findings import findings
    from reports.page import pack_plotly, render

    with ThreadPoolExecutor(1) as beside:  # deflating needs no interpreter: a tenth of the whole run
        if plotlyjs == "inline":
            beside.submit(pack_plotly)
        kinship, found, intervals = _kinship(scan), findings(scan), _intervals(scan)
    page = render(
        scan,
        kinship=kinship,
        findings=found,
        intervals=intervals,
        planner=_planner(scan, path),
        plotlyjs=plotlyjs,
    )
    return page.encode()


def _planner(scan: Scan, path: Path | None) -> Planner:
    """What the page's planner offers: the presets on this model's blocks, and the scan to go by."""
    from analyzer.blocks import presets
    from reports.embedded import Planner, Preset

    rows = presets.rows(len(scan.blocks)) if scan.blocks else ()
    return Planner(
        tuple(Preset(name=row.name, meaning=row.meaning, weights=row.numbers) for row in rows),
        None if path is None else str(path).encode(errors="replace").decode(),
    )


def render_comparison(scans: Sequence[Scan], *, plotlyjs: PlotlyJs) -> bytes:
    """The page of several scans of one A, as bytes to write."""
    from reports.compare import render

    return render(scans, kinships=[_kinship(scan) for scan in scans], plotlyjs=plotlyjs).encode()


def _kinship(scan: Scan) -> str:
    """How the two models are related, in the words of `reports.tables.KINSHIPS`."""
    from analyzer.kinship import kinship, relation
    from analyzer.ranking import counted

    name, _ = kinship(scan)
    if name == "unrelated" and relation(counted(scan.keys)).opposed:
        return "opposed"
    return name or "undefined"


def _intervals(scan: Scan) -> Intervals:
    """How sure the rankings of the page are, under the page's own names of the axes."""
    from reports.page import measured
    from reports.tables import is_identical

    if is_identical(scan):
        return {}  # the page has no ranking
    from analyzer import uncertainty  # after that, since scipy takes half a second to import

    axes = [
        axis
        for axis, label in _PAGE_AXES.items()
        if len({getattr(row.labels, label) for row in scan.keys}) <= _MOST_GROUPS
    ]
    found = uncertainty.intervals(scan, axes, [s for s in measured(scan) if s not in uncertainty.EXACT])
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
