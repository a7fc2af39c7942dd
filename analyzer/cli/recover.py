"""`mergescope recover`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from analyzer.ranking import Depth


def _axis(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """One axis, or two with * between them."""
    from analyzer.errors import AnalyzerError
    from analyzer.ranking import CROSS, crossed_axes

    try:
        return None if value is None else CROSS.join(crossed_axes(value))
    except AnalyzerError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(short_help="Find what a merge was made of, from its parents.")
@click.argument("merged", metavar="M", type=options.MODEL)
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@click.argument("c", type=options.MODEL, required=False)
@click.option(
    "--axis",
    callback=_axis,
    metavar="block|component|part|kind|AXIS*AXIS",
    help="What to group by [block, then component].",
)
@options.only
@click.option(
    "--depth",
    type=click.Choice(["rank", "full"]),
    default="rank",
    show_default=True,
    help="Components: the level that rankings use, or the leaves.",
)
@options.rules
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON, and nothing else.")
@options.compute
@options.quiet
def recover(
    merged: Path,
    a: Path,
    b: Path,
    c: Path | None,
    axis: str | None,
    only: str | None,
    depth: Depth,
    rules: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Find what the merge M was made of: alphas of A and B (and C), and the rest.

    \b
    mergescope recover merged.safetensors a.safetensors b.safetensors
    mergescope recover merged.safetensors a.safetensors b.safetensors c.safetensors --axis component
    """  # noqa: D301 - click wants the character that \b stands for
    from contextlib import ExitStack

    from analyzer import recovery
    from analyzer.checkpoints import open_checkpoint
    from analyzer.cli import recoveries, terminal
    from analyzer.devices import resolve_device

    book = options.rule_book(rules)
    with ExitStack() as opened:
        model_m, *models = (
            opened.enter_context(open_checkpoint(path)) for path in (merged, a, b, c) if path is not None
        )
        where = resolve_device(device, notify=terminal.warner(quiet=quiet))
        with terminal.progress_bar("comparing", quiet=quiet) as progress:
            found = recovery.recover(
                model_m, recovery.Parents(*models), only=only, book=book,
                device=where, threads=threads, progress=progress,
            )  # fmt: skip
    axes = [axis] if axis else ["block", "component"]
    account = recovery.recovered(found)
    tables = {name: recovery.groups(found, account.form, axis=name, depth=depth) for name in axes}
    for note in () if quiet else recoveries.notes(found):
        terminal.warn(note)
    with terminal.pipe_may_close():
        if as_json:
            click.echo(recoveries.dumps(found, account, tables), nl=False)
        else:
            recoveries.print_recovery(found, account, tables)
