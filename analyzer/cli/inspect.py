"""`mergescope inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.cli import options


@click.command(short_help="Show what one model holds, and what it was made from.")
@click.argument("model", type=options.MODEL)
@options.only
@click.option("--deep", is_flag=True, help="Read every value: count NaN and Inf, check CLIP's positions.")
@options.rules
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, and nothing else.")
@options.compute
@options.quiet
def inspect(
    model: Path,
    only: str | None,
    deep: bool,
    rules: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Show what one model holds: architecture, parts, blocks, components, dtypes, oddities.

    \b
    mergescope inspect model.safetensors
    mergescope inspect model.safetensors --only attn2,OUT03..OUT08   key by key
    """  # noqa: D301 - click wants the character that \b stands for
    from analyzer.checkpoints import open_checkpoint
    from analyzer.cli import inspections, terminal
    from analyzer.devices import resolve_device
    from analyzer.inspection import inspect_model

    resolve_device(device, notify=terminal.warner(quiet=quiet))
    with open_checkpoint(model) as checkpoint, terminal.progress_bar("reading", quiet=quiet) as progress:
        found = inspect_model(
            checkpoint,
            book=options.rule_book(rules),
            only=only,
            deep=deep,
            threads=threads,
            progress=progress,
        )
    with terminal.pipe_may_close():
        if as_json:
            click.echo(inspections.as_json(found), nl=False)
        elif found.selected is not None:
            inspections.print_selected(found)
        else:
            inspections.print_inspection(found)
