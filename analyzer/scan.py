"""Stream two open checkpoints once and measure every pair. Knows no JSON, no plotly, no click."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from analyzer import __version__
from analyzer.categories import RuleBook, categorize, require_used, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.scaled import scales_in_use
from analyzer.measures import Sums, add_sums
from analyzer.measuring import Measured, Models, measure_pieces
from analyzer.pairing import Side, pair, repeated
from analyzer.records import Categorized, KeyScan, ModelId, Pair, Run, Scan, TensorInfo
from analyzer.row_cosines import describe_rows
from analyzer.selectors import select
from analyzer.spectrum import describe_cost, estimate, measure_spectra
from analyzer.streaming import Progress
from analyzer.triples import pieces_of

_NAMED = 3  # keys that a note names
_NONE = Sums()  # of what is not measured yet


def scan(
    a: Checkpoint,
    b: Checkpoint,
    *,
    base: Checkpoint | None = None,
    only: str | None = None,
    book: RuleBook | None = None,
    spectrum: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
    notify: Callable[[str], None] = lambda _: None,
) -> Scan:
    """Measure every key that A and B share, or those that the selector `only` hits.

    With a `base`, from which both were trained on, also what each learned beyond it, in the same pass.
    Reads each byte of the paired tensors once, but for the few that are stored transposed. With `spectrum`
    reads the matrices that changed again; `notify` is told beforehand what that will cost. Memory is
    bounded by a chunk buffer for each model a thread, some kilobytes a key, and 48 bytes for every row of
    the tensors that are just being read (at most 2^20 rows each), whatever the size of the tensors.
    `book` are the architectures (default: those that ship). `device` is "cpu" or a torch device with
    fp64; `threads` defaults to one a processor (16 at most), and to two for a GPU. Raises PairingError if no
    key is shared, SelectorError if `only` is wrong or hits nothing, CheckpointError if a file cannot be
    read to its end, DeviceError if the device fails.
    """
    book = book or shipped()
    categorized, labels_b = categorize_both(a, b, book=book)
    pairing = pair(side_of(a, categorized), side_of(b, labels_b))
    rows = [_row(p, a.infos[p.a.key], categorized) for p in pairing.pairs]
    chosen = list(range(len(rows)))
    if only is not None:
        hit = {row.key for row in select(only, rows=rows, blocks=categorized.blocks)}
        chosen = [i for i in chosen if rows[i].key in hit]
        # An EMA copy or a schedule that was asked for by name counts like any other key.
        rows = [replace(row, labels=replace(row.labels, counted=True)) for row in rows]
    runs = [(i, run) for i in chosen for run in pairing.pairs[i].parts]
    bases, base_id = _in_base(a, categorized, base, book)
    with_base = [(run, bases.get(rows[i].key)) for i, run in runs]
    measured = _measure_runs(Models(a, b, base), with_base, device, threads, progress)
    parts: dict[int, list[Measured]] = {}
    for (i, _), found in zip(runs, measured, strict=True):
        parts.setdefault(i, []).extend(found)
    keys = _with_measures([rows[i] for i in chosen], [parts[i] for i in chosen])
    words = [(i, run, found) for (i, run), found in zip(runs, measured, strict=True) if run.word]
    virtual = _with_measures([_virtual_row(rows[i], run) for i, run, _ in words], [x for *_, x in words])
    notes_c = base.notes if base else ()
    keys, tied = count_tied_once(keys, repeated(categorized.networks))
    if spectrum:
        chosen_pairs = [pairing.pairs[i] for i in chosen]
        keys = _with_spectra(keys, chosen_pairs, Models(a, b), device, threads, progress, notify)
    return Scan(
        tool=f"mergescope {__version__}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        a=identify(a, categorized),
        b=identify(b, labels_b),
        base=base_id,
        with_spectrum=spectrum,
        blocks=categorized.blocks,
        keys=tuple(keys),
        only_in_a=_without_scales(pairing.only_in_a, a),
        only_in_b=_without_scales(pairing.only_in_b, b),
        shape_mismatch=pairing.shape_mismatch,
        virtual=tuple(virtual),
        notes=(*a.notes, *b.notes, *notes_c, *pairing.notes, *tied, *_left_out(keys, base_id)),
    )


def _in_base(
    a: Checkpoint, categorized: Categorized, base: Checkpoint | None, book: RuleBook
) -> tuple[dict[str, Pair], ModelId | None]:
    """The base's tensors for A's, by A's key, and which model it is. PairingError if it has none of them."""
    if base is None:
        return {}, None
    labels = categorize(base.infos.values(), book=book)
    pairing = pair(side_of(a, categorized), side_of(base, labels))
    return {p.a.key: p for p in pairing.pairs}, identify(base, labels)


def _left_out(keys: Sequence[KeyScan], base: ModelId | None) -> list[str]:
    """A note on the keys that have no counterpart in the base, or one for some of their rows only."""
    if base is None:
        return []
    measured = [(row.key, row.sums.task.n if row.sums.task else 0, row.sums.numeric) for row in keys]
    lacking = {
        "no tensor of their shape": [key for key, known, n in measured if n and not known],
        "only some rows": [key for key, known, n in measured if 0 < known < n],
    }
    return [
        f"the base {base.path} has {what} for {', '.join(found[:_NAMED])}"
        + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        + ": the statistics of the tasks leave them out"
        for what, found in lacking.items()
        if found
    ]


def _measure_runs(
    models: Models,
    runs: Sequence[tuple[Run, Pair | None]],
    device: str,
    threads: int | None,
    progress: Progress,
) -> list[list[Measured]]:
    """What was measured of every run, each with A's tensor in the base; several pieces where that is cut."""
    pieces = [pieces_of(run, base) for run, base in runs]
    flat = [piece for each in pieces for piece in each]
    measured = iter(measure_pieces(models, flat, device=device, threads=threads, progress=progress))
    return [list(islice(measured, len(each))) for each in pieces]


def _with_spectra(
    keys: Sequence[KeyScan],
    pairs: Sequence[Pair],
    models: Models,
    device: str,
    threads: int | None,
    progress: Progress,
    notify: Callable[[str], None],
) -> list[KeyScan]:
    """The rows with the spectra of those that count and changed."""
    asked = [i for i, row in enumerate(keys) if row.labels.counted and row.sums.changed]
    chosen = [pairs[i] for i in asked]
    notify(describe_cost(estimate(chosen), device=device, threads=threads))
    sums = [keys[i].sums for i in asked]
    spectra = measure_spectra(
        models.a, models.b, chosen, sums, device=device, threads=threads, progress=progress
    )
    out = list(keys)
    for i, found in zip(asked, spectra, strict=True):
        out[i] = replace(out[i], spectrum=found)
    return out


def _with_measures(rows: Sequence[KeyScan], parts: Sequence[Sequence[Measured]]) -> list[KeyScan]:
    """The rows with what the pieces of each measured together."""
    described = describe_rows([_joined_cosines(found) for found in parts])
    return [
        KeyScan(
            row.key, row.key_b, row.shape, row.dtype_a, row.dtype_b, row.labels,
            add_sums([part.sums for part in found]), row.slice, row.rows, cosines,
        )
        for row, found, cosines in zip(rows, parts, described, strict=True)
    ]  # fmt: skip


def _joined_cosines(parts: Sequence[Measured]) -> NDArray[np.float64] | None:
    """Of all rows that have one; None unless the rows of every piece are told apart."""
    cosines = [part.cosines for part in parts if part.cosines is not None]
    if not cosines or len(cosines) < len(parts):
        return None
    return cosines[0] if len(cosines) == 1 else np.concatenate(cosines)


def categorize_both(a: Checkpoint, b: Checkpoint, *, book: RuleBook) -> tuple[Categorized, Categorized]:
    """The labels of both models. Two that list the same tensors, as most do, are labelled once.

    Raises AnalyzerError if the rules that the user named fit no network of one of them.
    """
    found_a = categorize(a.infos.values(), book=book)
    same = a.infos.keys() == b.infos.keys() and all(
        (info.dtype, info.shape, info.part) == (b.infos[key].dtype, b.infos[key].shape, b.infos[key].part)
        for key, info in a.infos.items()
    )
    found_b = found_a if same else categorize(b.infos.values(), book=book)
    for side, found in ((a, found_a), (b, found_b)):
        require_used(book, [network.architecture for network in found.networks], model=str(side.path))
    return found_a, found_b


def _without_scales(keys: Sequence[str], checkpoint: Checkpoint) -> tuple[str, ...]:
    """The keys without those that are part of a value: scales of weights that are read as code × scale."""
    scales = scales_in_use(checkpoint.infos)
    return tuple(key for key in keys if key not in scales)


def side_of(checkpoint: Checkpoint, categorized: Categorized) -> Side:
    """A model as pairing looks at it."""
    return Side(checkpoint.infos, str(checkpoint.path), categorized.networks)


def count_tied_once(rows: Sequence[KeyScan], repeated: Mapping[str, str]) -> tuple[list[KeyScan], list[str]]:
    """Tensors that hold another one once more, in both models, count in no total.

    `repeated` are the keys of which that may be so, and what they may repeat. Whether it is so is told
    by the sums: two tensors of one shape with equal sums down to the last bit.
    """
    by_key = {row.key: row for row in rows}
    counted, notes = [], []
    for row in rows:
        first = by_key.get(repeated.get(row.key, ""))
        if first is not None and row.sums.n and (first.shape, first.sums) == (row.shape, row.sums):
            notes.append(f"{row.key} is tied to {first.key} in both models, so it counts in no total")
            row = replace(row, labels=replace(row.labels, counted=False))
        counted.append(row)
    return counted, notes


def identify(checkpoint: Checkpoint, categorized: Categorized) -> ModelId:
    """Which model this is, for the scan file and for people."""
    dtypes: dict[str, int] = {}
    for info in checkpoint.infos.values():
        dtypes[info.storage] = dtypes.get(info.storage, 0) + info.numel
    return ModelId(
        path=str(checkpoint.path).encode(errors="replace").decode(),  # file names may be any bytes
        bytes=checkpoint.bytes,
        fingerprint=checkpoint.fingerprint(),
        architecture=categorized.architecture,
        title=categorized.title,
        keys=len(checkpoint.infos),
        dtypes=dtypes,
    )


def _row(p: Pair, whole: TensorInfo, categorized: Categorized) -> KeyScan:
    labels = categorized.labels[whole.key]
    compared = p.a.shape if p.partial else None
    return KeyScan(whole.key, p.key_b, whole.shape, p.a.storage, p.b.storage, labels, _NONE, slice=compared)


def _virtual_row(row: KeyScan, run: Run) -> KeyScan:
    """The rows of a fused tensor, under the name of what they are."""
    width = prod(run.a.shape[1:])
    first = run.start // width if width else 0
    labels = replace(row.labels, component=f"{row.labels.component}/{run.word}")
    return replace(
        row, key_b=run.b.key, shape=run.a.shape, labels=labels, rows=(first, first + run.a.shape[0])
    )
