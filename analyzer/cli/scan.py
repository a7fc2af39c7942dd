"""`mergescope scan`."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.cli import options

_FAILED = 3  # the exit code that says "--fail-on held"


@click.command()
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="FILE.json",
    help="Write the scan, for rank, report and merge.",
)
@click.option("--report", type=options.FILE, metavar="FILE.html", help="Write the HTML report as well.")
@click.option("--csv", "table", type=options.FILE, metavar="FILE.csv", help="Write one line a key as well.")
@options.only
@click.option(
    "--fail-on", metavar="EXPR", help="Exit with 3 if this holds for some key: 'relative_change > 0.03'."
)
@options.rules
@click.option("--json", "as_json", is_flag=True, help="Print the scan as JSON, and nothing else.")
@options.compute
@options.quiet
def scan(
    a: Path,
    b: Path,
    output: Path | None,
    report: Path | None,
    table: Path | None,
    only: str | None,
    fail_on: str | None,
    rules: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> int:
    """Measure what differs between models A and B, key by key."""
    from analyzer import checkpoints, scanfile
    from analyzer.cli import terminal
    from analyzer.cli.report import render_report
    from analyzer.devices import resolve_device
    from analyzer.expressions import parse_expression
    from analyzer.kinship import findings, kinship
    from analyzer.ranking import keys_where, rank
    from analyzer.scan import scan as run_scan
    from analyzer.statistics import STATISTICS
    from analyzer.tables import keys_csv
    from analyzer.writer import check_files, write_files

    condition = parse_expression(fail_on, names=STATISTICS) if fail_on is not None else None
    book = options.rule_book(rules)
    with checkpoints.open_checkpoint(a) as model_a, checkpoints.open_checkpoint(b) as model_b:
        inputs = [*model_a.files, *model_b.files]
        check_files([f for f in (output, report, table) if f], inputs=inputs)
        where = resolve_device(device, notify=lambda text: None if quiet else terminal.warn(text))
        with terminal.progress_bar("scanning", quiet=quiet) as progress:
            result = run_scan(
                model_a, model_b, only=only, book=book, device=where, threads=threads, progress=progress
            )
    failed = keys_where(result, condition) if condition else []
    document = scanfile.dumps(result) if output or as_json else b""
    contents = {}
    if output:
        contents[output] = document
    if report:
        contents[report] = render_report(result, plotlyjs="inline")
    if table:
        contents[table] = keys_csv(result).encode()
    write_files(contents, inputs=inputs)
    found = findings(result)
    if not quiet:
        for note in result.notes:
            terminal.warn(note)
        for finding in found:
            if finding.statistic in terminal.WARNED:
                terminal.warn(finding.text)
        if failed:
            names = terminal.list_some([row.key for row in failed])
            terminal.warn(f"--fail-on held for {len(failed):,} keys: {names}")
    with terminal.pipe_may_close():
        if as_json:
            click.echo(document, nl=False)
        elif not quiet:
            unrelated = kinship(result)[0] == "unrelated"
            terminal.print_scan(result, found, rank(result), unrelated=unrelated)
            terminal.print_written(list(contents))
    return _FAILED if failed else 0
