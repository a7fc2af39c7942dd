"""`mergescope demo`: the whole main job on the two models that ship with the package."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.cli import options
from analyzer.cli.experiment import experiment

_ONLY = "attn1"  # the category that the demo takes from the fine-tune
# A grid that two cores paint in seconds; `mergescope experiment` without options paints the article's.
_COLUMNS = ("transformer_blocks", "attn1", "ff")
_SEEDS = (1, 2)
_STEPS = 12


@click.command(short_help="Try all of it on two small models that ship with it.")
@click.argument(
    "folder", metavar="[DIR]", default="mergescope-demo", type=click.Path(path_type=Path, file_okay=False)
)
@options.compute
@options.quiet
@click.pass_context
def demo(context: click.Context, folder: Path, device: str, threads: int | None, quiet: bool) -> None:
    """Scan, report and merge a small Stable Diffusion and its fine-tune, into DIR [mergescope-demo].

    Where diffusers and transformers are installed, it also paints what single categories of B do.
    """
    from analyzer import checkpoints, scanfile
    from analyzer.cli import summaries, terminal
    from analyzer.cli.report import render_report
    from analyzer.devices import resolve_device
    from analyzer.errors import OutputError
    from analyzer.findings import findings
    from analyzer.merge import merge, plan_merge
    from analyzer.merging.inputs import Inputs
    from analyzer.pocket import base_path, fine_tune_path
    from analyzer.ranking import rank
    from analyzer.recipes.recipe import Recipe
    from analyzer.scan import scan
    from analyzer.writing.writer import write_files

    where = resolve_device(device, notify=terminal.warner(quiet=quiet))
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
    if not quiet:
        with terminal.pipe_may_close():
            summaries.print_scan(result, findings(result), rank(result), unrelated=False)
            terminal.print_written([*pages, merged])
    missing = _missing()
    if missing is None:
        if not quiet:
            click.echo("\nA, B, and A with one category of B at a time, from the same noise:\n")
        context.invoke(
            experiment, a=base_path(), b=fine_tune_path(), output=folder / "experiment.html",
            sheet=folder / "experiment.png", scan_file=folder / "scan.json", each=_COLUMNS, seeds=_SEEDS,
            steps=_STEPS, device=device, threads=threads, quiet=quiet,
        )  # fmt: skip
    if not quiet:
        with terminal.pipe_may_close():
            _print_next_steps(folder, missing)


def _is_ours(path: Path, fingerprint: str) -> bool:
    """Whether a file is what an earlier demo left there: a merge of the model with this fingerprint."""
    from analyzer.checkpoints import open_checkpoint

    with open_checkpoint(path) as model:
        return fingerprint in model.metadata.get("mergescope.recipe", "")


def _missing() -> str | None:
    """The first library that painting needs and that is not installed; None if all are there."""
    from importlib.util import find_spec

    return next((name for name in ("diffusers", "transformers", "PIL") if find_spec(name) is None), None)


def _print_next_steps(folder: Path, missing: str | None) -> None:
    from analyzer.pocket import base_path, fine_tune_path

    if missing:
        click.echo(f"\nPictures:    {missing} is missing; pip install 'mergescope[experiment]', then again")
    pages = "report.html" if missing else "report.html and experiment.html"
    click.echo(
        f"\nLook at it:  open {pages} of {folder} in a browser"
        f"\n             mergescope rank {folder / 'scan.json'} --axis block"
        f"\nThe models:  A {base_path()}"
        f"\n             B {fine_tune_path()}"
        "\nYour own:    mergescope scan A B -o scan.json --report report.html"
        "\n             mergescope experiment A B -o experiment.html"
    )
