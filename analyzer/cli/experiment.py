"""`mergescope experiment`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from analyzer.cli import options
from analyzer.cli.experiment_options import OF_PICTURES, experiment_options
from analyzer.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from analyzer.categories import RuleBook
    from analyzer.checkpoints import Checkpoint
    from analyzer.experiment.cells import Cells
    from analyzer.experiment.choosing import Choice
    from analyzer.experiment.conditions import Asked
    from analyzer.experiment.document import Outcome
    from analyzer.experiment.features import Features
    from analyzer.experiment.keeping import Keep
    from analyzer.experiment.measures import Picture
    from analyzer.experiment.records import Column, Conditions, Subject
    from analyzer.experiment.running import Grid
    from analyzer.merging.inputs import Inputs
    from analyzer.records import Scan


@dataclass(frozen=True, slots=True)
class _Job:
    """What was asked for, and where it is to be done."""

    choice: Choice
    asked: Asked
    probe: str | None
    config: Path | None
    features: Path | None
    scan: Path | None
    keep: Path | None
    book: RuleBook
    device: str  # where pictures are painted and functions asked
    measuring: str  # where weights are measured and merged
    threads: int | None
    quiet: bool
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Shower:
    """What shows the models, and under which conditions."""

    subject: Subject
    conditions: Conditions
    identity: str  # a digest of what a cell depends on beside weights and seed
    seeded: bool
    look: Callable[[Picture], Features] | None = None  # the model of perceptual features, if one is asked for
    notes: tuple[str, ...] = ()  # what it cannot show, one sentence each


@click.command(cls=SectionedCommand)
@click.argument("a", type=options.MODEL)
@click.argument("b", type=options.MODEL)
@experiment_options
@options.rules
@options.compute
@options.quiet
def experiment(
    a: Path,
    b: Path,
    output: Path | None,
    data: Path | None,
    sheet: Path | None,
    as_json: bool,
    quiet: bool,
    **said: Any,
) -> None:
    """Take one category at a time from B, paint, and measure what it does.

    \b
    mergescope experiment sd-v1-5 wd-v1-3 -o experiment.html
    mergescope experiment a.safetensors b.safetensors -o experiment.html --each attn1 --each attn2,weight
    mergescope experiment llm-a llm-b --probe causal_lm --data effects.json

    An interrupted run is continued by the same command.
    """  # noqa: D301 - click wants the character that \b stands for
    from analyzer.checkpoints import open_checkpoint
    from analyzer.cli import terminal
    from analyzer.merging.inputs import Inputs
    from analyzer.writing.writer import check_files

    files = {"page": output, "data": data, "sheet": sheet}
    named = [path for path in files.values() if path]
    if not named and not as_json and said["keep"] is None:
        raise click.UsageError(
            "Missing option '-o': name the page to write, or give --data, --sheet or --json."
        )
    job = _job(said, sheet=sheet, quiet=quiet)
    with open_checkpoint(a) as of_a, open_checkpoint(b) as of_b:
        inputs = Inputs(of_a, of_b)
        guides = [path for path in (job.scan, said["rules"]) if path is not None]
        check_files(named, inputs=[*inputs.files, *guides])
        found, told = _carry_out(inputs, job, files)
    with terminal.pipe_may_close():
        if as_json:
            click.echo(_as_json(found))
        elif not quiet:
            from analyzer.cli.experiment_summary import print_experiment

            print_experiment(found, told=told)
            terminal.print_written(named)


def _job(said: Mapping[str, Any], *, sheet: Path | None, quiet: bool) -> _Job:
    """The options as the library takes them; what is wrong whatever the models is refused."""
    from analyzer.cli import terminal
    from analyzer.devices import resolve_device
    from analyzer.errors import AnalyzerError
    from analyzer.experiment.choosing import Choice
    from analyzer.experiment.conditions import Asked, device_named

    given = {name: value for name, value in said.items() if value is not None}
    names = ("prompts", "negative_prompt", "seeds", "steps", "sampler", "cfg", "size", "dtype")
    choice = Choice(**{name: given[name] for name in ("each", "axis", "only", "alpha") if name in given})
    asked = Asked(**{name: given[name] for name in names if name in given})
    choice.check()
    asked.check(paints="probe" not in given)
    idle = [option for name, option in OF_PICTURES.items() if name in given or (name == "sheet" and sheet)]
    if "probe" in given and idle:
        raise AnalyzerError(
            f"{', '.join(idle)}: --probe paints no pictures, so this says nothing; leave it out"
        )
    warn = terminal.warner(quiet=quiet)
    return _Job(
        choice=choice,
        asked=asked,
        probe=said["probe"],
        config=said["config"],
        features=said["features"],
        scan=said["scan_file"],
        keep=said["keep"],
        book=options.rule_book(said["rules"]),
        device=device_named(said["device"]),
        measuring=resolve_device(said["device"], notify=warn),
        threads=said["threads"],
        quiet=quiet,
        warn=warn,
    )


def _carry_out(
    inputs: Inputs, job: _Job, files: Mapping[str, Path | None]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Paint, measure, write; the data document, and what of its notes was said before."""
    from analyzer.experiment.cells import Cells, cache_folder
    from analyzer.experiment.keeping import Keep

    with ExitStack() as stack:
        columns, scan, shower = _prepared(inputs, job, stack)
        keep = None if job.keep is None else Keep(job.keep, inputs, columns)
        if keep is not None:
            stack.callback(keep.tidy)
            keep.prepare()
            _announce(keep, shower, job)
        folder = cache_folder() if keep is None else keep.cells
        cells = Cells(folder, inputs, shower.identity, expire=keep is None)
        total = len(columns) * len(shower.conditions.seeds)
        try:
            outcome = _outcome(columns, scan, shower, cells, job)
            document = _written(outcome, scan, inputs, keep, job, files)
        except KeyboardInterrupt as error:
            kept = f"{len(cells):,} of {total:,} cells are kept, and the same command goes on from them"
            raise KeyboardInterrupt(f"Interrupted; {kept if len(cells) else 'nothing was kept'}.") from error
        if keep is None and not any(isinstance(cell, str) for cell in outcome.grid.values()):
            cells.remove()
    return document, shower.notes


def _prepared(inputs: Inputs, job: _Job, stack: ExitStack) -> tuple[tuple[Column, ...], Scan, _Shower]:
    """All columns, the scan, and what shows them; what is cheap to refuse comes first."""
    from analyzer.experiment import choosing

    a, b = choosing.parents(inputs, book=job.book)
    assert b.plan is not None
    axis = choosing.axis_of(job.choice, b.plan)
    columns = choosing.named_columns(inputs, job.choice, b.plan, book=job.book) if axis is None else ()
    known = _known_scan(inputs, job)
    if known is not None:
        choosing.require_measured(known, b, where=str(job.scan))
    shower = stack.enter_context(_shower(inputs, job))
    scan = known or _scan(inputs, job)
    if axis is not None:
        columns = choosing.ranked_columns(inputs, job.choice, b.plan, scan, axis=axis, book=job.book)
    notes = [*choosing.limits(inputs, b.plan, book=job.book), *choosing.left_out(job.choice, axis, columns)]
    texts = (text for column in (b, *columns) if column.plan for text in column.plan.warnings)
    for text in dict.fromkeys((*texts, *notes)):
        job.warn(text)
    return (a, b, *columns), scan, replace(shower, notes=tuple(notes))


@contextmanager
def _shower(inputs: Inputs, job: _Job) -> Iterator[_Shower]:
    """What shows the models; it lets go of them at the end."""
    from analyzer.experiment.conditions import use_threads

    with use_threads(job.threads):
        shower = _painter(inputs, job) if job.probe is None else _prober(inputs, job, job.probe)
        try:
            yield shower
        finally:
            shower.subject.close()


def _painter(inputs: Inputs, job: _Job) -> _Shower:
    """The pipeline with A's weights."""
    from analyzer.experiment.cells import painting_identity
    from analyzer.experiment.conditions import dtype_on, painted
    from analyzer.experiment.features import open_features
    from analyzer.experiment.painting import open_painter
    from analyzer.experiment.pipelines import is_pocket, load_pipeline, native_size
    from analyzer.experiment.samplers import check_sampler, default_sampler

    if job.asked.sampler is not None:
        check_sampler(job.asked.sampler)
    look = None if job.features is None else open_features(job.features, device=job.device)
    dtype = dtype_on(job.device, job.asked.dtype)
    pipeline = load_pipeline(inputs.a, config=job.config, dtype=dtype, device=job.device)
    conditions = painted(
        job.asked,
        pocket=is_pocket(inputs.a),
        own_size=native_size(pipeline),
        own_sampler=default_sampler(pipeline),
        device=job.device,
        alpha=job.choice.alpha,
    )
    painter = open_painter(inputs, conditions, pipeline=pipeline, threads=job.threads)
    folders = [folder for folder in (inputs.a.folder, job.config) if folder is not None]
    return _Shower(painter, conditions, painting_identity(conditions, folders), seeded=True, look=look)


def _prober(inputs: Inputs, job: _Job, text: str) -> _Shower:
    """The function that the user named."""
    from analyzer.experiment.conditions import dtype_on, probed
    from analyzer.experiment.probing import open_prober

    prober = open_prober(
        text,
        inputs,
        prompts=job.asked.prompts,
        device=job.device,
        dtype=dtype_on(job.device, job.asked.dtype),
        threads=job.threads,
    )
    conditions = probed(job.asked, seeded=prober.seeded, device=job.device, alpha=job.choice.alpha)
    return _Shower(prober, conditions, prober.identity, prober.seeded)


def _known_scan(inputs: Inputs, job: _Job) -> Scan | None:
    """The scan that is named, if it is of these models."""
    from analyzer import scanfile
    from analyzer.guidance.scan_identity import require_same_models

    if job.scan is None:
        return None
    known = scanfile.load(job.scan)
    require_same_models(known, a=inputs.a, b=inputs.b, base=None)
    return known


def _scan(inputs: Inputs, job: _Job) -> Scan:
    """A new one."""
    from analyzer.cli import terminal
    from analyzer.scan import scan

    with terminal.progress_bar("measuring", quiet=job.quiet) as progress:
        return scan(
            inputs.a, inputs.b, book=job.book, device=job.measuring, threads=job.threads, progress=progress
        )


def _announce(keep: Keep, shower: _Shower, job: _Job) -> None:
    """What will lie in the folder, before hours of work fill a disk."""
    from analyzer.cli import terminal

    if job.quiet:
        return
    size = terminal.human_bytes(keep.model_bytes)
    models = len(keep.models)
    whole = terminal.human_bytes(keep.model_bytes * models)
    pictures = len(keep.columns) * len(shower.conditions.seeds) * (job.probe is None)
    terminal.remark(
        f"{keep.folder} will hold "
        + (
            f"{models:,} merged models of {size} each, {whole} in all"
            if models > 1
            else f"a merged model, {size}"
        )
        + (f", and {pictures:,} pictures" if pictures else "")
    )


def _outcome(columns: Sequence[Column], scan: Scan, shower: _Shower, cells: Cells, job: _Job) -> Outcome:
    """The whole grid, shown."""
    from analyzer.cli.experiment_summary import cells_bar, failures
    from analyzer.experiment.choosing import unchanged
    from analyzer.experiment.document import Outcome
    from analyzer.experiment.running import run

    seeds = shower.conditions.seeds
    with cells_bar("painting" if job.probe is None else "probing", quiet=job.quiet) as progress:
        grid = run(
            shower.subject, columns, seeds, cells, unchanged=unchanged(columns, scan), progress=progress
        )
    for text in failures(grid):
        job.warn(text)
    if cells.trouble:
        job.warn(f"finished cells are not kept: {cells.trouble}")
    features = None
    if shower.look is not None:
        features = {
            place: shower.look(cell.pixels)
            for place, cell in grid.items()
            if not isinstance(cell, str) and cell.pixels is not None
        }
    return Outcome(
        shower.conditions, columns, grid,
        probe=job.probe, seeded=shower.seeded, features=features, notes=shower.notes,
    )  # fmt: skip


def _written(
    outcome: Outcome,
    scan: Scan,
    inputs: Inputs,
    keep: Keep | None,
    job: _Job,
    files: Mapping[str, Path | None],
) -> dict[str, Any]:
    """The data document; with it all that was asked for is written, or nothing is."""
    from analyzer.cli import terminal
    from analyzer.experiment.document import describe
    from analyzer.writing.writer import files_ready

    # A scan that was read may have gone from other places.
    models = (replace(scan.a, path=_path(inputs.a)), replace(scan.b, path=_path(inputs.b)))
    document = describe(outcome, scan=scan, models=models)
    contents = _contents(document, outcome.grid, files)
    if keep is not None:
        contents |= keep.pictures(outcome.grid)
    with ExitStack() as stack:
        stack.enter_context(files_ready(contents, inputs=inputs.files))
        if keep is not None:
            progress = stack.enter_context(terminal.progress_bar("merging", quiet=job.quiet))
            stack.enter_context(keep.merged(device=job.measuring, threads=job.threads, progress=progress))
    return document


def _path(model: Checkpoint) -> str:
    return str(model.path).encode(errors="replace").decode()  # names of files may be any bytes


def _contents(document: Mapping[str, Any], grid: Grid, files: Mapping[str, Path | None]) -> dict[Path, bytes]:
    contents: dict[Path, bytes] = {}
    page, data, sheet = (files[name] for name in ("page", "data", "sheet"))
    if page is not None:
        from analyzer.experiment.encoding import encode_all
        from reports.experiment import render

        contents[page] = render(document, encode_all(grid)).encode()
    if data is not None:
        contents[data] = _as_json(document) + b"\n"
    if sheet is not None:
        from analyzer.experiment.contact_sheet import contact_sheet

        shown = {place: cell.pixels for place, cell in grid.items() if not isinstance(cell, str)}
        pixels = {place: picture for place, picture in shown.items() if picture is not None}
        contents[sheet] = contact_sheet(document, pixels)
    return contents


def _as_json(document: Mapping[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(document, option=orjson.OPT_INDENT_2)
