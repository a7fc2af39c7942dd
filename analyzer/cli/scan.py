"""`mergescope scan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from analyzer.categories import RuleBook
    from analyzer.readahead import Readahead
    from analyzer.records import Finding, KeyScan, Scan
    from analyzer.writing.writer import Content

_FAILED = 3  # the exit code that says "--fail-on held"


@click.command()
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@click.option(
    "--base",
    type=options.MODEL,
    metavar="C",
    help="The model that A and B were both trained from: adds what each learned beyond it.",
)
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
@click.option(
    "--spectrum",
    is_flag=True,
    help="Also measure in how many directions each matrix changed, and find LoRAs. Says what it costs.",
)
@click.option(
    "--hash",
    "with_hash",
    is_flag=True,
    help="Also the SHA-256 of every input file, as sha256sum prints it, in the same pass.",
)
@options.rules
@click.option("--json", "as_json", is_flag=True, help="Print the scan as JSON, and nothing else.")
@options.compute
@options.quiet
def scan(
    a: Path,
    b: Path,
    base: Path | None,
    output: Path | None,
    report: Path | None,
    table: Path | None,
    only: str | None,
    fail_on: str | None,
    spectrum: bool,
    with_hash: bool,
    rules: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> int:
    """Measure what differs between models A and B, key by key."""
    from analyzer.readahead import Readahead

    paths = (a, b, base) if base else (a, b)
    with Readahead() as ahead:
        # Begun before all that is imported: the disk need not wait for it.
        if only is None and _is_warm() and all(path.is_file() for path in paths):
            ahead.begin([[path] for path in paths])

        from analyzer import scanfile
        from analyzer.cli import terminal
        from analyzer.evaluation import require_asked
        from analyzer.expressions import parse_expression
        from analyzer.findings import findings
        from analyzer.ranking import keys_where
        from analyzer.statistics import STATISTICS
        from analyzer.writing.writer import write_files

        condition = parse_expression(fail_on, names=STATISTICS) if fail_on is not None else None
        if condition is not None:
            require_asked(condition.names, base=base is not None, spectrum=spectrum)
        result, inputs = _measure(
            paths,
            ahead,
            outputs=[f for f in (output, report, table) if f],
            only=only,
            book=options.rule_book(rules),
            spectrum=spectrum,
            with_hash=with_hash,
            device=device,
            threads=threads,
            quiet=quiet,
        )
    failed = keys_where(result, condition) if condition else []
    found = findings(result)
    contents: dict[Path, Content] = {output: scanfile.pieces(result, found=found)} if output else {}
    contents |= _report_and_table(result, report, table, scan_file=output)
    write_files(contents, inputs=inputs)
    if not quiet:
        _warn(result, found, failed)
    with terminal.pipe_may_close():
        if as_json:
            for piece in scanfile.pieces(result, found=found):
                click.echo(piece, nl=False)
        elif not quiet:
            _print_summary(result, found)
            terminal.print_written(list(contents))
    return _FAILED if failed else 0


def _measure(
    paths: Sequence[Path],
    ahead: Readahead,
    *,
    outputs: Sequence[Path],
    only: str | None,
    book: RuleBook,
    spectrum: bool,
    with_hash: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> tuple[Scan, list[Path]]:
    """The scan of A, B and perhaps a base, and all files that were read for it."""
    from contextlib import ExitStack

    from analyzer.checkpoints import open_checkpoint
    from analyzer.checkpoints.hashing import ModelHasher
    from analyzer.cli import terminal
    from analyzer.devices import resolve_device
    from analyzer.scan import scan as run_scan
    from analyzer.writing.writer import check_files

    with ExitStack() as opened:
        models = [opened.enter_context(open_checkpoint(path)) for path in paths]
        inputs = [file for model in models for file in model.files]
        check_files(outputs, inputs=inputs)
        where = resolve_device(device, notify=terminal.warner(quiet=quiet))
        hashers = [ModelHasher(model) for model in models] if with_hash else []
        with terminal.progress_bar("scanning", quiet=quiet) as progress:
            if only is None:
                progress = ahead.led_by(progress, [model.files for model in models])
            result = run_scan(
                *models[:2],
                base=models[2] if len(models) > 2 else None,
                only=only,
                book=book,
                spectrum=spectrum,
                device=where,
                threads=threads,
                progress=progress,
                notify=lambda text: None if quiet else terminal.remark(text),
            )
        return _with_digests(result, [hasher.digests() for hasher in hashers]), inputs


def _with_digests(result: Scan, digests: Sequence[str | Mapping[str, str]]) -> Scan:
    """The scan with the digests of the files of A, B and the base; as it is if there are none."""
    from dataclasses import replace

    if not digests:
        return result
    a, b, *base = digests
    return replace(
        result,
        a=replace(result.a, sha256=a),
        b=replace(result.b, sha256=b),
        base=replace(result.base, sha256=base[0]) if result.base else None,
    )


def _is_warm() -> bool:
    """Whether the rest of this program is cached, told by a part that only a scan needs.

    If it is not, what is still to be imported must not wait in the disk's queue behind the models.
    """
    import importlib.util

    from analyzer.readahead import is_cached

    return is_cached(Path(importlib.util.cache_from_source(str(Path(__file__).parents[1] / "scan.py"))))


def _report_and_table(
    result: Scan, report: Path | None, table: Path | None, *, scan_file: Path | None
) -> dict[Path, bytes]:
    from analyzer.cli.report import render_report
    from analyzer.tables import keys_csv

    contents = {report: render_report(result, path=scan_file, plotlyjs="inline")} if report else {}
    return contents | ({table: keys_csv(result).encode()} if table else {})


def _print_summary(result: Scan, found: Sequence[Finding]) -> None:
    from analyzer.cli import summaries
    from analyzer.kinship import kinship
    from analyzer.ranking import rank

    summaries.print_scan(result, found, rank(result), unrelated=kinship(result)[0] == "unrelated")


def _warn(result: Scan, found: Sequence[Finding], failed: Sequence[KeyScan]) -> None:
    """What the user must not miss, on stderr."""
    from analyzer.cli import summaries, terminal

    for note in result.notes:
        terminal.warn(note)
    for finding in found:
        if finding.statistic in summaries.WARNED:
            terminal.warn(finding.text)
    if failed:
        names = terminal.list_some([row.key for row in failed])
        terminal.warn(f"--fail-on held for {len(failed):,} keys: {names}")
