"""`mergescope merge`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from analyzer.merge import MergeResult
    from analyzer.records import Plan


@click.command()
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="The model to write: a .safetensors file, or a folder if A is one.",
)
@options.only
@click.option(
    "--alpha",
    type=float,
    metavar="F",
    help="0 keeps A, 1 takes B (the default where something else says what to take).",
)
@click.option(
    "--block-weights",
    metavar="W",
    help="Alphas by block: 25 numbers for SD 1.x (26 with BASE first), or a file of them.",
)
@click.option(
    "--base-alpha",
    type=float,
    metavar="F",
    help="Alpha outside all blocks: text encoder, VAE, other [0 with --block-weights, else --alpha].",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    callback=options.set_option,
    metavar="SELECTOR=F",
    help="Alpha of a selection; repeatable, the later wins.",
)
@click.option("--method", default="weighted_sum", show_default=True, metavar="NAME")
@click.option(
    "--position-ids",
    type=click.Choice(["keep", "reset"]),
    help="CLIP's position_ids: A's, or 0..76 as int64, whatever --only says.",
)
@click.option(
    "--only-in-b",
    type=click.Choice(["drop", "add"]),
    default="drop",
    show_default=True,
    help="Keys that A lacks.",
)
@click.option(
    "--dtype",
    type=click.Choice(["keep", "fp16", "bf16", "fp32"]),
    default="keep",
    show_default=True,
    help="Of every floating-point key; config.json in a folder is told.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done with every key, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, and nothing else.")
@click.option("--force", is_flag=True, help="Replace an existing output; never an input.")
@options.rules
@options.compute
@options.quiet
def merge(
    a: Path,
    b: Path,
    output: Path | None,
    only: str | None,
    alpha: float | None,
    block_weights: str | None,
    base_alpha: float | None,
    sets: tuple[tuple[str, float], ...],
    method: str,
    position_ids: str | None,
    only_in_b: str,
    dtype: str,
    dry_run: bool,
    as_json: bool,
    force: bool,
    rules: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Write model A with what you choose of model B.

    \b
    mergescope merge a.safetensors b.safetensors -o c.safetensors --only attn2
    mergescope merge a.safetensors b.safetensors -o c.safetensors --alpha 0.3 --set 'VAE=0'
    mergescope merge folder-a folder-b -o folder-c --alpha 0.5
    """  # noqa: D301 - click wants the character that \b stands for
    from analyzer import checkpoints, recipe
    from analyzer.cli import plans, terminal
    from analyzer.devices import resolve_device
    from analyzer.merge import check_output, plan_merge
    from analyzer.merge import merge as run_merge

    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o': name the model to write, or use --dry-run.")
    weights = recipe.parse_block_weights(block_weights) if block_weights is not None else None
    wish = recipe.Recipe(method, only, alpha, weights, base_alpha, sets, position_ids, only_in_b, dtype)
    with checkpoints.open_checkpoint(a) as model_a, checkpoints.open_checkpoint(b) as model_b:
        if output is not None:
            check_output(output, model_a, model_b, force=force)
        plan = plan_merge(model_a, model_b, wish, book=options.rule_book(rules))
        for warning in plan.warnings if not quiet else ():
            terminal.warn(warning)
        with terminal.pipe_may_close():
            if as_json:
                _print_json(plan)
            elif dry_run:
                plans.print_plan(plan)
        if dry_run:
            return
        assert output is not None
        where = resolve_device(device, notify=lambda text: None if quiet else terminal.warn(text))
        with terminal.progress_bar("merging", quiet=quiet) as progress:
            result = run_merge(
                model_a, model_b, plan, wish, out=output, force=force,
                device=where, threads=threads, progress=progress,
            )  # fmt: skip
    if not quiet:
        _warn_of(result)
    if not quiet and not as_json:
        with terminal.pipe_may_close():
            plans.print_plan_summary(plan)
            terminal.print_written([output])


def _warn_of(result: MergeResult) -> None:
    from analyzer.cli import terminal

    for key, count in result.nonfinite.items():
        terminal.warn(f"{count:,} values of {key!r} are NaN or Inf in the result")
    for key, count in result.clipped.items():
        terminal.warn(f"{count:,} values of {key!r} are clipped: too large for A's fp8 scale")
    if result.left_out:
        terminal.warn(
            f"not copied from A's folder: {terminal.list_some(result.left_out)} (weights in other forms, "
            "states of a training, links that lead to no file)"
        )


def _print_json(plan: Plan) -> None:
    import orjson

    document = {
        "format": "mergescope.plan",
        "version": 1,
        "counts": dict(sorted(Counter(action.verb for action in plan.actions).items())),
        "warnings": plan.warnings,
        "only_in_a": plan.only_in_a,
        "only_in_b_dropped": plan.dropped,
        "shape_mismatch": plan.shape_mismatch,
        "actions": plan.actions,
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
