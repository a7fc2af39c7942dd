"""What one model file holds: networks, blocks, components, dtypes, and what is odd about it.

Knows labels and headers; with `deep` it reads every value once. Prints nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.categories import RuleBook, categorize, require_used, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.kernels.backends import CPU_CHUNK
from analyzer.kernels.formats import FLOATS, count_nonfinite
from analyzer.oddities import CLIP_POSITIONS, Nonfinite, oddities, unknown_keys
from analyzer.recipes.ancestry import history_lines
from analyzer.recipes.history import foreign_of
from analyzer.records import Categorized, Labels, TensorInfo
from analyzer.selectors import select
from analyzer.streaming import Progress, in_batches, run_batches

_BATCH_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Tally:
    """How much lies in one group of keys."""

    name: str
    keys: int
    elements: int
    bytes: int  # as stored
    dtypes: Mapping[str, int]  # storage type -> elements


@dataclass(frozen=True, slots=True)
class PartTally:
    """One part of the model, and the architecture of the network that it is."""

    tally: Tally
    architecture: str
    title: str
    unknown: int  # keys that no rule knows, labelled by their names


@dataclass(frozen=True, slots=True)
class Selected:
    """One key that a selector hits."""

    key: str
    labels: Labels
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that a look at a model tells."""

    path: str
    format: str
    files: int
    bytes: int
    fingerprint: str
    architecture: str
    title: str
    total: Tally
    parts: tuple[PartTally, ...]
    blocks: tuple[Tally, ...]  # in network order, BASE and VAE last
    components: tuple[Tally, ...]  # at the level at which rankings group, the largest first; no EMA copies
    dtypes: tuple[Tally, ...]
    ema: Tally | None
    uncounted: Tally | None  # schedules, markers, integers: in no total
    oddities: tuple[str, ...]
    history: tuple[str, ...]  # what it was merged from, a line for each merge, the youngest first
    metadata: Mapping[str, str]
    nonfinite: Mapping[str, int] | None  # key -> NaN and Inf; None if the values were not read
    selected: tuple[Selected, ...] | None  # None if nothing was asked for


def inspect_model(
    checkpoint: Checkpoint,
    *,
    book: RuleBook | None = None,
    only: str | None = None,
    deep: bool = False,
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Inspection:
    """Look at one open model. `deep` reads every value, and counts what is NaN or Inf.

    Raises SelectorError if `only` is wrong or hits nothing, AnalyzerError if the rules that the user
    named fit no network of the model, CheckpointError if a file cannot be read to its end.
    """
    book = book or shipped()
    found = categorize(checkpoint.infos.values(), book=book)
    require_used(book, [n.architecture for n in found.networks], model=str(checkpoint.path))
    rows = [_row(info, found.labels[key]) for key, info in checkpoint.infos.items()]
    selected = None if only is None else select(only, rows=rows, blocks=found.blocks)
    nonfinite = _read_all(checkpoint, threads=threads, progress=progress) if deep else None
    infos = list(checkpoint.infos.values())
    ema = [i for i in infos if found.labels[i.key].part == "ema"]
    live = [i for i in infos if found.labels[i.key].part != "ema"]
    rest = [i for i in live if not found.labels[i.key].counted]
    return Inspection(
        path=str(checkpoint.path),
        format=checkpoint.format,
        files=len(checkpoint.files),
        bytes=checkpoint.bytes,
        fingerprint=checkpoint.fingerprint(),
        architecture=found.architecture,
        title=found.title,
        total=_tally("", infos),
        parts=_parts(checkpoint, found),
        blocks=_blocks(live, found),
        components=_largest_first(_groups((found.labels[i.key].group, i) for i in live)),
        dtypes=_largest_first(_groups((info.storage, info) for info in infos)),
        ema=_tally("ema", ema) if ema else None,
        uncounted=_tally("uncounted", rest) if rest else None,
        oddities=oddities(checkpoint, found, nonfinite),
        history=history_lines({**checkpoint.metadata, **foreign_of(checkpoint)}),
        metadata=dict(checkpoint.metadata),
        nonfinite=None if nonfinite is None else nonfinite.counts,
        selected=selected,
    )


def _row(info: TensorInfo, labels: Labels) -> Selected:
    return Selected(info.key, labels, info.storage, info.shape)


def _tally(name: str, infos: Sequence[TensorInfo]) -> Tally:
    dtypes: dict[str, int] = {}
    for info in infos:
        dtypes[info.storage] = dtypes.get(info.storage, 0) + info.numel
    stored = sum((info.encoded or info).nbytes for info in infos)
    return Tally(name, len(infos), sum(info.numel for info in infos), stored, dtypes)


def _groups(named: Iterable[tuple[str, TensorInfo]]) -> dict[str, Tally]:
    groups: dict[str, list[TensorInfo]] = {}
    for name, info in named:
        groups.setdefault(name, []).append(info)
    return {name: _tally(name, members) for name, members in groups.items()}


def _largest_first(groups: Mapping[str, Tally]) -> tuple[Tally, ...]:
    return tuple(sorted(groups.values(), key=lambda t: (-t.elements, t.name)))


def _parts(checkpoint: Checkpoint, found: Categorized) -> tuple[PartTally, ...]:
    tallies = _groups((found.labels[key].part, info) for key, info in checkpoint.infos.items())
    rows = []
    for name, tally in sorted(tallies.items(), key=lambda item: (-item[1].elements, item[0])):
        networks = [n for n in found.networks if n.part == name]
        if name == "ema":
            networks = [n for n in found.networks if n.copies]
        unknown = sum(unknown_keys(network, found) for network in networks)
        network = networks[0] if networks else None
        rows.append(
            PartTally(
                tally,
                network.architecture if network else "",
                network.title if network else "",
                unknown if name != "ema" else 0,
            )
        )
    return tuple(rows)


def _blocks(live: Sequence[TensorInfo], found: Categorized) -> tuple[Tally, ...]:
    tallies = _groups((found.labels[info.key].block, info) for info in live)
    order = [*found.blocks, *sorted(tallies.keys() - set(found.blocks))]
    return tuple(tallies.get(name, Tally(name, 0, 0, 0, {})) for name in order)


def _read_all(checkpoint: Checkpoint, *, threads: int | None, progress: Progress) -> Nonfinite:
    """Read every value once; count what is not finite, and keep CLIP's positions."""
    floats = [info for info in checkpoint.infos.values() if info.dtype in FLOATS and info.numel]
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def work(
        batch: list[tuple[TensorInfo, int, int]], buffer: np.ndarray[tuple[int], np.dtype[np.uint8]]
    ) -> int:
        done = 0
        for info, start, count in batch:
            raw = buffer[: count * info.itemsize]
            checkpoint.read_into(info, start * info.itemsize, raw)
            done += len(raw)
            if bad := count_nonfinite(raw, info.dtype):
                with lock:
                    counts[info.key] = counts.get(info.key, 0) + bad
        return done

    run_batches(
        in_batches(_chunks(floats), size=lambda chunk: chunk[2] * chunk[0].itemsize, limit=_BATCH_BYTES),
        work,
        state=lambda: np.empty(CPU_CHUNK * 8, np.uint8),
        threads=threads,
        total=sum(info.nbytes for info in floats),
        progress=progress,
    )
    positions = {}
    for key, info in checkpoint.infos.items():
        if key.rpartition(".")[2] == "position_ids" and info.numel == CLIP_POSITIONS:
            raw = np.empty(info.nbytes, np.uint8)
            checkpoint.read_into(info, 0, raw)
            positions[key] = raw.tobytes()
    ordered = {key: counts[key] for key in checkpoint.infos if key in counts}
    return Nonfinite(ordered, positions)


def _chunks(infos: Iterable[TensorInfo]) -> Iterator[tuple[TensorInfo, int, int]]:
    for info in infos:
        for start in range(0, info.numel, CPU_CHUNK):
            yield info, start, min(CPU_CHUNK, info.numel - start)
