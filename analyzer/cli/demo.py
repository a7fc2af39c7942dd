"""`mergescope demo`: the whole main job on the two models that ship with the package."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click

from analyzer.cli import options
from analyzer.cli.experiment import experiment

_ONLY = "attn1"  # the category that the demo takes from the fine-tune
# A grid that two cores paint in seconds; `mergescope experiment` without options paints the article's.
_COLUMNS = ("transformer_blocks", "attn1", "ff")
_SEEDS = (1, 2, 3)
_STEPS = 12


@click.command(short_help="Try all of it on two small models that ship with it.")
@click.argument("folder", metavar="[DIR]", default="mergescope-demo", type=options.FILE)
@options.compute
@options.quiet
@click.pass_context
def demo(context: click.Context, folder: Path, device: str, threads: int | None, quiet: bool) -> None:
    """Scan, report and merge a small Stable Diffusion and its fine-tune, into DIR [mergescope-demo].

    Where diffusers and transformers are installed, it also paints what single categories of B do.
    """
    from analyzer.cli import terminal
    from analyzer.devices import resolve_device
    from analyzer.pocket import base_path, fine_tune_path

    where = resolve_device(device, notify=terminal.warner(quiet=quiet))
    with _made(folder):
        _scan_and_merge(folder, where, threads, quiet=quiet)
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


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there; if the block goes wrong, nothing that was not there before is left of it."""
    from analyzer.errors import OutputError

    new = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be created ({error.strerror}); name another folder"
            ) from error
        yield
    except BaseException:
        for place in new:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise


def _scan_and_merge(folder: Path, device: str, threads: int | None, *, quiet: bool) -> None:
    """All that needs no libraries: numbers, page and a merged model, or nothing."""
    from analyzer import checkpoints, scanfile
    from analyzer.cli import summaries, terminal
    from analyzer.cli.report import render_report
    from analyzer.errors import OutputError
    from analyzer.findings import findings
    from analyzer.merge import merge, plan_merge
    from analyzer.merging.inputs import Inputs
    from analyzer.pocket import base_path, fine_tune_path
    from analyzer.ranking import rank
    from analyzer.recipes.recipe import Recipe
    from analyzer.scan import scan
    from analyzer.writing.writer import files_ready

    merged = folder / "merged.safetensors"
    with checkpoints.open_checkpoint(base_path()) as a, checkpoints.open_checkpoint(fine_tune_path()) as b:
        if os.path.lexists(merged) and not _is_ours(merged, a.fingerprint()):
            raise OutputError(f"{merged}: exists already, and no demo wrote it; name another folder")
        result = scan(a, b, device=device, threads=threads)
        pages = {
            folder / "scan.json": scanfile.dumps(result),
            folder / "report.html": render_report(result, path=folder / "scan.json", plotlyjs="inline"),
        }
        wish = Recipe(only=_ONLY)
        pair = Inputs(a, b)
        plan = plan_merge(pair, wish)
        with files_ready(pages, inputs=pair.files):
            merge(pair, plan, wish, out=merged, force=True, device=device, threads=threads)
    if not quiet:
        with terminal.pipe_may_close():
            summaries.print_scan(result, findings(result), rank(result), unrelated=False)
            terminal.print_written([*pages, merged])


def _is_ours(path: Path, fingerprint: str) -> bool:
    """Whether a file is what an earlier demo left there: a merge of the model with this fingerprint."""
    from analyzer.checkpoints import open_checkpoint
    from analyzer.errors import AnalyzerError
    from analyzer.recipes.document import METADATA_NAME

    try:
        with open_checkpoint(path) as model:
            return fingerprint in model.metadata.get(METADATA_NAME, "")
    except AnalyzerError:
        return False


def _missing() -> str | None:
    """Which library keeps this from painting, in a few words; None if all are there and work."""
    from importlib.util import find_spec

    from analyzer.errors import AnalyzerError
    from analyzer.quiet import diffusers_library

    for name in ("diffusers", "transformers", "PIL"):
        if find_spec(name) is None:
            return f"{name} is missing"
    try:
        diffusers_library()
    except AnalyzerError:
        return "diffusers cannot be imported"
    return None


def _print_next_steps(folder: Path, missing: str | None) -> None:
    from analyzer.pocket import base_path, fine_tune_path

    if missing:
        click.echo(f"\nPictures:    {missing}; to see some, say this, and demo again:")
        click.echo("             pip install 'mergescope[experiment]'")
    pages = "report.html" if missing else "report.html and experiment.html"
    click.echo(
        f"\nLook at it:  open {pages} of {folder} in a browser"
        f"\n             mergescope rank {folder / 'scan.json'} --axis block"
        f"\nThe models:  A {base_path()}"
        f"\n             B {fine_tune_path()}"
        "\nYour own:    mergescope scan A B -o scan.json --report report.html"
        "\n             mergescope experiment A B -o experiment.html"
    )
