"""`mergescope demo`: the whole main job on the two models that ship with the package."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.cli import options

_ONLY = "self_attn"  # the category that the demo takes from the fine-tune
_PROMPT = "A portrait of "


@click.command(short_help="Try all of it on two small models that ship with it.")
@click.argument(
    "folder", metavar="[DIR]", default="mergescope-demo", type=click.Path(path_type=Path, file_okay=False)
)
@options.compute
@options.quiet
def demo(folder: Path, device: str, threads: int | None, quiet: bool) -> None:
    """Scan, report and merge a small model and its fine-tune, into DIR (default: mergescope-demo)."""
    from analyzer import checkpoints, scanfile
    from analyzer.cli import summaries, terminal
    from analyzer.cli.report import render_report
    from analyzer.demo import base_path, fine_tune_path
    from analyzer.devices import resolve_device
    from analyzer.errors import OutputError
    from analyzer.findings import findings
    from analyzer.merge import merge, plan_merge
    from analyzer.merging.inputs import Inputs
    from analyzer.ranking import rank
    from analyzer.recipes.recipe import Recipe
    from analyzer.scan import scan
    from analyzer.writing.writer import write_files

    where = resolve_device(device, notify=lambda text: None if quiet else terminal.warn(text))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error.strerror}); name another folder") from error
    merged = folder / "merged.safetensors"
    with checkpoints.open_checkpoint(base_path()) as a, checkpoints.open_checkpoint(fine_tune_path()) as b:
        if merged.exists() and not _is_ours(merged, a.fingerprint()):
            raise OutputError(f"{merged}: exists already, and no demo wrote it; name another folder")
        result = scan(a, b, device=where, threads=threads)
        pages = {
            folder / "scan.json": scanfile.dumps(result),
            folder / "report.html": render_report(result, path=folder / "scan.json", plotlyjs="inline"),
        }
        write_files(pages, inputs=[*a.files, *b.files])
        wish = Recipe(only=_ONLY)
        pair = Inputs(a, b)
        merge(pair, plan_merge(pair, wish), wish, out=merged, force=True, device=where, threads=threads)
    if quiet:
        return
    with terminal.pipe_may_close():
        summaries.print_scan(result, findings(result), rank(result), unrelated=False)
        _print_effect(merged)
        terminal.print_written([*pages, merged])
        _print_next_steps(folder)


def _is_ours(path: Path, fingerprint: str) -> bool:
    """Whether a file is what an earlier demo left there: a merge of the model with this fingerprint."""
    from analyzer.checkpoints import open_checkpoint

    with open_checkpoint(path) as model:
        return fingerprint in model.metadata.get("mergescope.recipe", "")


def _print_effect(merged: Path) -> None:
    """What the merge did to the model's behaviour: its loss on both styles, and one sample."""
    from rich.table import Table
    from rich.text import Text
    from safetensors.torch import load_file

    from analyzer.cli.terminal import OutputConsole
    from analyzer.demo import base_path, fine_tune_path
    from analyzer.demo.captions import STYLES
    from analyzer.demo.model import held_out_loss, sample

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("bits per character on")
    for style in STYLES:
        table.add_column(style, justify="right")
    table.add_column(f"what it makes of {_PROMPT!r}")
    for name, path in (
        ("A, the base model", base_path()),
        ("B, its fine-tune", fine_tune_path()),
        (f"A with B's {_ONLY}", merged),
    ):
        weights = load_file(path)
        losses = [f"{held_out_loss(weights, style):.2f}" for style in STYLES]
        table.add_row(name, *losses, Text(sample(weights, _PROMPT, 1)))
    console = OutputConsole()
    console.print(f"\nmerged with --only {_ONLY}:")
    console.print(table)
    console.print()


def _print_next_steps(folder: Path) -> None:
    from analyzer.demo import base_path, fine_tune_path

    click.echo(
        f"\nLook at it:  open {folder / 'report.html'} in a browser"
        f"\n             mergescope rank {folder / 'scan.json'} --axis block"
        f"\nThe models:  A {base_path()}"
        f"\n             B {fine_tune_path()}"
        "\nYour own:    mergescope scan A B -o scan.json --report report.html"
    )
