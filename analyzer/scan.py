"""Stream two open checkpoints once and measure every pair. Knows no JSON, no plotly, no click."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from analyzer import __version__
from analyzer.categories import RuleBook, categorize, require_used, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.scaled import scales_in_use
from analyzer.kernels.formats import FLOATS
from analyzer.pairing import Side, pair, repeated
from analyzer.records import Categorized, KeyScan, ModelId, Pair, Run, Scan, Sums, TensorInfo, add_sums
from analyzer.selectors import select
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.sums import AbstractMeasurer, Bytes, compare_equality, open_measurer

_BATCH_BYTES = 1 << 20


def scan(
    a: Checkpoint,
    b: Checkpoint,
    *,
    only: str | None = None,
    book: RuleBook | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Scan:
    """Measure every key that A and B share, or those that the selector `only` hits.

    Reads each byte of the paired tensors once, but for the few that are stored transposed. Memory is
    bounded by two chunk buffers a thread and some kilobytes a key, whatever the size of the tensors.
    `book` are the architectures (default: those that ship). `device` is "cpu" or a torch device with
    fp64; `threads` defaults to one for each processor, and to two for a GPU. Raises PairingError if no
    key is shared, SelectorError if `only` is wrong or hits nothing, CheckpointError if a file cannot be
    read to its end, DeviceError if the device fails.
    """
    categorized, labels_b = categorize_both(a, b, book=book or shipped())
    pairing = pair(side_of(a, categorized), side_of(b, labels_b))
    rows = [_row(p, a.infos[p.a.key], categorized) for p in pairing.pairs]
    chosen = list(range(len(rows)))
    if only is not None:
        hit = {row.key for row in select(only, rows=rows, blocks=categorized.blocks)}
        chosen = [i for i in chosen if rows[i].key in hit]
        # An EMA copy or a schedule that was asked for by name counts like any other key.
        rows = [replace(row, labels=replace(row.labels, counted=True)) for row in rows]
    runs = [(i, run) for i in chosen for run in pairing.pairs[i].parts]
    pairs = [Pair(run.a, run.b) for _, run in runs]
    measured = measure_pairs(a, b, pairs, device=device, threads=threads, progress=progress)
    sums: dict[int, list[Sums]] = {}
    for (i, _), each in zip(runs, measured, strict=True):
        sums.setdefault(i, []).append(each)
    keys = [replace(rows[i], sums=add_sums(sums[i])) for i in chosen]
    keys, tied = count_tied_once(keys, repeated(categorized.networks))
    return Scan(
        tool=f"mergescope {__version__}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        a=identify(a, categorized),
        b=identify(b, labels_b),
        blocks=categorized.blocks,
        keys=tuple(keys),
        only_in_a=_without_scales(pairing.only_in_a, a),
        only_in_b=_without_scales(pairing.only_in_b, b),
        shape_mismatch=pairing.shape_mismatch,
        virtual=tuple(
            _virtual_row(rows[i], run, each)
            for (i, run), each in zip(runs, measured, strict=True)
            if run.word
        ),
        notes=(*a.notes, *b.notes, *pairing.notes, *tied),
    )


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


def measure_pairs(
    a: Checkpoint,
    b: Checkpoint,
    pairs: Sequence[Pair],
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> list[Sums]:
    """The sums of every pair, in the order given. The result does not depend on `threads`."""
    measurer = open_measurer(device)
    # In the order in which they lie in A's file, so that a cold disk reads forward.
    ordered = sorted(range(len(pairs)), key=lambda i: (pairs[i].a.source, pairs[i].a.offset))
    spans = (span for i in ordered for span in _spans(i, pairs[i], measurer.chunk))
    collected = _Collected([-(-p.a.numel // measurer.chunk) for p in pairs])

    def work(batch: Sequence[_Span], buffers: tuple[Bytes, Bytes]) -> int:
        for span in batch:
            collected.add(span.index, _measure(a, b, measurer, span, buffers))
        return sum(span.nbytes for span in batch)

    run_batches(
        in_batches(spans, size=lambda span: span.nbytes, limit=_BATCH_BYTES),
        work,
        state=lambda: _buffers(measurer.chunk),
        threads=threads or measurer.threads,
        total=sum(p.a.nbytes + p.b.nbytes for p in pairs),
        progress=progress,
    )
    return collected.sums


class _Collected:
    """The sums of every pair; those of its chunks are let go once they are complete."""

    def __init__(self, expected: Sequence[int]) -> None:
        self.sums = [Sums()] * len(expected)
        self._expected = expected
        self._chunks: dict[int, list[Sums]] = {}
        self._lock = threading.Lock()

    def add(self, index: int, sums: Sums) -> None:
        """Take one chunk of a pair. In which order chunks come does not matter: see `add_sums`."""
        with self._lock:
            chunks = self._chunks.setdefault(index, [])
            chunks.append(sums)
            if len(chunks) < self._expected[index]:
                return
            del self._chunks[index]
        self.sums[index] = add_sums(chunks)


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of elements of one pair, small enough for one buffer."""

    index: int  # of the pair
    pair: Pair
    start: int  # elements
    count: int

    @property
    def nbytes(self) -> int:
        """How many bytes of both files it takes."""
        return self.count * (self.pair.a.itemsize + self.pair.b.itemsize)


def _spans(index: int, p: Pair, chunk: int) -> Iterator[_Span]:
    for start in range(0, p.a.numel, chunk):
        yield _Span(index, p, start, min(chunk, p.a.numel - start))


def _buffers(chunk: int) -> tuple[Bytes, Bytes]:
    """Room for one chunk of each side; 8 bytes hold an element of any dtype."""
    return np.empty(chunk * 8, np.uint8), np.empty(chunk * 8, np.uint8)


def _measure(
    a: Checkpoint, b: Checkpoint, measurer: AbstractMeasurer, span: _Span, buffers: tuple[Bytes, Bytes]
) -> Sums:
    info_a, info_b = span.pair.a, span.pair.b
    size_a, size_b = info_a.itemsize, info_b.itemsize
    raw_a, raw_b = buffers[0][: span.count * size_a], buffers[1][: span.count * size_b]
    a.read_into(info_a, span.start * size_a, raw_a)
    b.read_into(info_b, span.start * size_b, raw_b)
    if info_a.dtype in FLOATS and info_b.dtype in FLOATS:
        return measurer.measure(raw_a, info_a.dtype, raw_b, info_b.dtype)
    return compare_equality(raw_a, info_a.dtype, raw_b, info_b.dtype, itemsize=size_a)


def _row(p: Pair, whole: TensorInfo, categorized: Categorized) -> KeyScan:
    labels = categorized.labels[whole.key]
    compared = p.a.shape if p.partial else None
    return KeyScan(whole.key, p.key_b, whole.shape, p.a.storage, p.b.storage, labels, Sums(), slice=compared)


def _virtual_row(row: KeyScan, run: Run, sums: Sums) -> KeyScan:
    """The rows of a fused tensor, under the name of what they are."""
    width = prod(run.a.shape[1:])
    first = run.start // width if width else 0
    labels = replace(row.labels, component=f"{row.labels.component}/{run.word}")
    return replace(
        row,
        key_b=run.b.key,
        shape=run.a.shape,
        labels=labels,
        sums=sums,
        rows=(first, first + run.a.shape[0]),
    )
