"""`mergescope merge`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.cli import options
from analyzer.cli.merge_options import merge_options
from analyzer.cli.sections import SectionedCommand
from analyzer.errors import OutputError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analyzer.checkpoints import Checkpoint
    from analyzer.merge import MergeResult
    from analyzer.merging.inputs import Inputs
    from analyzer.methods import Array
    from analyzer.prediction.forecast import Forecast
    from analyzer.prediction.verification import Verification
    from analyzer.recipes.recipe import Recipe
    from analyzer.recipes.wish import Wish
    from analyzer.records import Plan, Scan, TensorInfo


@dataclass(frozen=True, slots=True)
class _Job:
    """How a merge is to be run."""

    output: Path | None
    force: bool
    verify: bool
    dry_run: bool
    rules: Path | None
    device: str
    threads: int | None
    quiet: bool
    warn: Callable[[str], None]


@click.command(cls=SectionedCommand)
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@merge_options
@options.rules
@options.compute
@options.quiet
def merge(
    a: Path,
    b: Path,
    output: Path | None,
    recipe_path: Path | None,
    save_recipe: Path | None,
    dry_run: bool,
    verify: bool,
    as_json: bool,
    force: bool,
    rules: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
    **said: Any,
) -> None:
    """Write model A with what you choose of model B.

    \b
    mergescope merge a.safetensors b.safetensors -o c.safetensors --only attn2
    mergescope merge a.safetensors b.safetensors -o c.safetensors --block-weights GRAD_V
    mergescope merge a.safetensors b.safetensors -o c.safetensors --scan scan.json --budget 0.05
    mergescope merge folder-a folder-b -o folder-c --alpha 0.5 --set 'lm_head=0'
    """  # noqa: D301 - click wants the character that \b stands for
    from analyzer.cli import merge_inputs, plans, terminal
    from analyzer.merge import check_output
    from analyzer.writing.writer import files_ready

    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o': name the model to write, or use --dry-run.")
    job = _Job(
        output, force, verify and not dry_run, dry_run, rules, device, threads, quiet,
        warn=terminal.warner(quiet=quiet),
    )  # fmt: skip
    wish = merge_inputs.wish_of(recipe_path, said)
    with merge_inputs.opened(a, b, wish, recipe_path) as (inputs, wish):
        if output is not None:
            check_output(output, inputs, force=force)
            _check_guides(output, (wish.scan, wish.presets, rules), recipe_path)
        saved = _recipe_file(save_recipe, wish, inputs, recipe_path, output)
        plan, scan, found = _planned(inputs, wish, job)
        with files_ready(saved, inputs=inputs.files):  # both are left behind, or none
            verified = None if dry_run else _written(inputs, wish, plan, scan, found, job)
    with terminal.pipe_may_close():
        if as_json:
            plans.print_json(plan, found, verified)
        elif dry_run:
            plans.print_plan(plan, found)
        elif not quiet:
            plans.print_plan_summary(plan)
            plans.print_outcome(found, verified)
        if not quiet and not as_json:
            written = (None if dry_run else output, save_recipe)
            terminal.print_written([path for path in written if path])


def _planned(inputs: Inputs, wish: Wish, job: _Job) -> tuple[Plan, Scan | None, Forecast | None]:
    """The plan, the scan that it goes by, and what the scan predicts; all warnings are printed."""
    from analyzer.cli import merge_inputs, terminal
    from analyzer.devices import resolve_device
    from analyzer.merge import plan_merge
    from analyzer.recipes.recorded_inputs import input_warnings
    from analyzer.scan import scan as measure

    scan = merge_inputs.scan_of(wish, inputs)
    book = options.rule_book(job.rules)
    plan = plan_merge(inputs, wish.recipe, scan=scan, book=book)
    changed = input_warnings(
        wish, a=inputs.a, b=inputs.b, base=inputs.base, models=inputs.models, vae=inputs.vae
    )
    for text in (*changed, *plan.warnings):
        job.warn(text)
    if job.verify and scan is None:
        device = resolve_device(job.device, notify=lambda _: None)
        with terminal.progress_bar("measuring", quiet=job.quiet) as progress:
            scan = measure(
                inputs.a, inputs.b, base=inputs.base, book=book,
                device=device, threads=job.threads, progress=progress,
            )  # fmt: skip
    if scan is None:
        return plan, None, None
    from analyzer.prediction.forecast import forecast

    found = forecast(plan, wish.recipe, scan, grams=_grams(inputs, wish, plan, job))
    if found and found.warning:
        job.warn(found.warning)
    return plan, scan, found


def _grams(inputs: Inputs, wish: Wish, plan: Plan, job: _Job) -> Mapping[str, Array]:
    """What the scan does not know of further models, where that is worth one more pass over the files."""
    from analyzer.cli import terminal
    from analyzer.devices import resolve_device
    from analyzer.recipes.recipe import method_of

    if not inputs.models or method_of(wish.recipe).coefficients is None or not (job.verify or job.dry_run):
        return {}
    from analyzer.prediction.further_models import measure_grams

    device = resolve_device(job.device, notify=lambda _: None)
    with terminal.progress_bar("measuring", quiet=job.quiet) as progress:
        return measure_grams(inputs, plan, wish.recipe, device=device, threads=job.threads, progress=progress)


def _written(
    inputs: Inputs, wish: Wish, plan: Plan, scan: Scan | None, found: Forecast | None, job: _Job
) -> Verification | None:
    """Merge, and verify what was written if that is asked for; a model that is not as it should be goes."""
    from analyzer.cli import terminal
    from analyzer.devices import resolve_device
    from analyzer.merge import merge as run_merge
    from analyzer.readahead import Readahead

    assert job.output is not None
    device = resolve_device(job.device, notify=job.warn)
    with Readahead() as ahead, terminal.progress_bar("merging", quiet=job.quiet) as progress:
        progress = ahead.led_by(progress, _read_throughout(inputs, plan, wish.recipe))
        result = run_merge(
            inputs, plan, wish.recipe, out=job.output, force=job.force,
            device=device, threads=job.threads, progress=progress,
        )  # fmt: skip
    _warn_of(result, job.warn)
    if not job.verify:
        return None
    assert scan is not None
    from analyzer.prediction.verified_merge import verify_merge

    try:
        with terminal.progress_bar("verifying", quiet=job.quiet) as progress:
            return verify_merge(
                inputs, plan, result, found=found, scan=scan,
                device=device, threads=job.threads, progress=progress,
            )  # fmt: skip
    except VerificationError as error:
        _remove(job.output)
        raise VerificationError(f"{error} (it was removed)") from error
    except BaseException:  # interrupted, or unreadable: nobody vouches for it
        _remove(job.output)
        raise


def _read_throughout(inputs: Inputs, plan: Plan, recipe: Recipe) -> list[tuple[Path, ...]]:
    """The files of the models that are read once, from end to end: A and B where most of them is used.

    The others go with B, but for a VAE's, which may be a whole model.
    """
    from analyzer.recipes.recipe import method_of

    method = method_of(recipe)
    if method.needs_gram or method.survey is not None:
        return []  # read more than once: what lies behind in one pass lies ahead in another
    of_a = (inputs.a.infos[x.key] for x in plan.actions if x.verb in ("keep", "cast", "merge"))
    of_b = (plan.pairs[x.key].b for x in plan.actions if x.verb in ("merge", "take"))
    found = [inputs.a] if _is_most(of_a, inputs.a) else []
    if _is_most(of_b, inputs.b):
        found += [model for role, model in inputs.named() if role not in ("a", "vae")]
    return [model.files for model in found]


def _is_most(used: Iterable[TensorInfo], model: Checkpoint) -> bool:
    return 2 * sum((info.encoded or info).nbytes for info in used) >= model.bytes - len(model.header)


def _remove(output: Path) -> None:
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def _check_guides(output: Path, guides: Iterable[Path | None], recipe: Path | None) -> None:
    """Refuse an output that would replace what the merge goes by, but for a model that is repeated."""
    from analyzer.writing.writer import is_within

    again = recipe is not None and os.path.realpath(recipe) == os.path.realpath(output)
    for guide in (*guides, None if again else recipe):
        if guide is not None and is_within(guide, output):
            raise OutputError(f"{output}: is or holds {guide}, which the merge goes by; name another place")


def _recipe_file(
    path: Path | None, wish: Wish, inputs: Inputs, recipe: Path | None, output: Path | None
) -> dict[Path, bytes]:
    """What is to be written of the wish, by file; refused before any work where it cannot be."""
    from analyzer import __version__
    from analyzer.recipes.recipe_file import write_recipe
    from analyzer.writing.writer import check_files, is_within

    if path is None:
        return {}
    if path.exists() and path.is_file() and path.suffix.lower() != ".toml":
        raise OutputError(f"{path}: exists already, and is no .toml file; name another file for the recipe")
    others = [other for other in (wish.scan, wish.presets, recipe) if other is not None]
    check_files([path], inputs=[*inputs.files, *(other for other in others if other != path)])
    if output is not None and (os.path.realpath(path) == os.path.realpath(output) or is_within(path, output)):
        raise OutputError(f"{path}: is the output {output}, or lies in it; name another file for the recipe")
    comments = [f"mergescope {__version__}", f"A: {inputs.a.path.name}", f"B: {inputs.b.path.name}"]
    return {path: write_recipe(wish, folder=path.parent, comments=comments).encode()}


def _warn_of(result: MergeResult, warn: Callable[[str], None]) -> None:
    from analyzer.cli import terminal

    for key, count in result.nonfinite.items():
        warn(f"{count:,} values of {key!r} are NaN or Inf in the result")
    for key, count in result.clipped.items():
        warn(f"{count:,} values of {key!r} are clipped: too large for fp8")
    for text in result.warnings:
        warn(text)
    if result.left_out:
        warn(
            f"not copied from A's folder: {terminal.list_some(result.left_out)} (weights in other forms, "
            "states of a training, links that lead to no file)"
        )
