"""Stream a merge and its suspected parents once, and sum how it moved between them. Knows no formulas."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer import __version__
from analyzer.alignment import Located, Stretch, align
from analyzer.categories import RuleBook, categorize, require_used, shipped
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.scaled import scales_in_use
from analyzer.coded_rounding import coded_rounding
from analyzer.errors import PairingError
from analyzer.kernels.formats import FLOATS
from analyzer.pairing import pair
from analyzer.records import Categorized, Labels, ModelId, Pair
from analyzer.recovery.grams import (
    AbstractGramMeasurer,
    Bytes,
    Gram,
    add_grams,
    of_codes,
    open_gram_measurer,
)
from analyzer.scan import identify, side_of
from analyzer.selectors import select
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.sums import compare_equality

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Parents:
    """The open models of a recovery."""

    a: Checkpoint
    b: Checkpoint
    c: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class KeyGram:
    """One tensor of A, or the rows of a fused one: its place on the axes, and what was summed of it."""

    key: str  # A's raw name
    labels: Labels
    gram: Gram
    word: str = ""  # what the rows are inside a fused tensor: "q", "k", "v"; "" for a whole one


@dataclass(frozen=True, slots=True)
class KeyEquality:
    """One tensor that is no floating point in some model: which parent's values the merge holds."""

    key: str
    labels: Labels
    equals_a: bool
    equals_b: bool | None  # None: B has no such tensor


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was summed of a merge m and its suspected parents."""

    tool: str
    m: ModelId
    a: ModelId
    b: ModelId
    c: ModelId | None
    blocks: tuple[str, ...]  # in network order, as A's architecture has them
    rows: tuple[KeyGram, ...]  # in A's header order
    equalities: tuple[KeyEquality, ...]
    lacking: tuple[str, ...]  # keys of A that the merge has not, or of another shape
    only_in_a: tuple[str, ...]  # keys of A that the merge has and B has not
    without_c: tuple[str, ...]  # keys of A that C has not: no estimate is made of them
    added: tuple[str, ...]  # keys of the merge that A has not
    notes: tuple[str, ...] = ()


def recover(
    m: Checkpoint,
    parents: Parents,
    *,
    only: str | None = None,
    book: RuleBook | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Recovery:
    """Sum, for every key of A or those that `only` hits, how the merge m moved between its parents.

    Reads each byte of the tensors once, in any layouts and dtypes. Memory is bounded by a chunk buffer for
    each model a thread, and some hundred bytes a key. A key that B lacks is summed as if B held A's values:
    a merge can only have kept those. Raises PairingError if two of the models share no key or if nothing
    of the merge can be compared, SelectorError if `only` is wrong or hits nothing, CheckpointError if a
    file cannot be read to its end, DeviceError if the device fails.
    """
    book = book or shipped()
    others = [m, parents.b, *([parents.c] if parents.c else [])]
    of_a, labels = _labels(parents.a, book), [_labels(other, book) for other in others]
    side_a = side_of(parents.a, of_a)
    pairings = [pair(side_a, side_of(x, found)) for x, found in zip(others, labels, strict=True)]
    paired = [{p.a.key: p for p in pairing.pairs if not p.partial} for pairing in pairings]
    scales = scales_in_use(parents.a.infos)
    rows = [_Row(key, of_a.labels[key]) for key in parents.a.infos if key not in scales]
    lacking = tuple(row.key for row in rows if row.key not in paired[0])
    rows = [row for row in rows if row.key in paired[0]]
    if not rows:
        raise PairingError(
            f"{m.path} and {parents.a.path} have no tensor of one shape in common: they are no merge and "
            "its parent"
        )
    if only is not None:
        rows = [
            replace(row, labels=replace(row.labels, counted=True))
            for row in select(only, rows=rows, blocks=of_a.blocks)
        ]
    tasks = [
        task
        for index, row in enumerate(rows)
        for task in _tasks(index, parents.a, row.key, [each.get(row.key) for each in paired])
    ]
    measured = _measure(m, parents, tasks, device, threads, progress)
    grams, equalities = _collect(rows, tasks, measured)
    return Recovery(
        tool=f"mergescope {__version__}",
        m=identify(m, labels[0]),
        a=identify(parents.a, of_a),
        b=identify(parents.b, labels[1]),
        c=identify(parents.c, labels[2]) if parents.c else None,
        blocks=of_a.blocks,
        rows=tuple(grams),
        equalities=tuple(equalities),
        lacking=lacking,
        only_in_a=tuple(row.key for row in rows if row.key not in paired[1]),
        without_c=tuple(row.key for row in rows if parents.c and row.key not in paired[2]),
        added=tuple(key for key in pairings[0].only_in_b if key not in scales_in_use(m.infos)),
        notes=tuple(dict.fromkeys(note for x in (parents.a, *others) for note in x.notes)),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A key of A as selectors see it."""

    key: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class _Task:
    """A stretch of elements to measure."""

    row: int
    stretch: Stretch
    m: Located
    b: Located | None  # None: B lacks them
    c: Located | None  # None: there is no C

    @property
    def sides(self) -> tuple[Located, ...]:
        """What is read."""
        return tuple(x for x in (self.m, self.stretch.a, self.b, self.c) if x is not None)

    @property
    def numeric(self) -> bool:
        """Whether all sides are floating point."""
        return all(side.info.dtype in FLOATS for side in self.sides)

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes in all files together."""
        return sum(side.info.itemsize for side in self.sides)


@dataclass(frozen=True, slots=True)
class _Span:
    """Elements of a task, few enough for one buffer."""

    index: int  # of the task
    task: _Task
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class _Equal:
    """How many elements of a stretch, or of a part of one, differ from each parent's."""

    from_a: int
    from_b: int | None


def _labels(checkpoint: Checkpoint, book: RuleBook) -> Categorized:
    found = categorize(checkpoint.infos.values(), book=book)
    require_used(book, [network.architecture for network in found.networks], model=str(checkpoint.path))
    return found


def _tasks(index: int, a: Checkpoint, key: str, pairs: Sequence[Pair | None]) -> Iterator[_Task]:
    for stretch in align(a.infos[key], pairs):
        m, b, *rest = stretch.others
        without_c = bool(rest) and rest[0] is None
        if m is not None and not (without_c and m.info.dtype in FLOATS):
            yield _Task(index, stretch, m, b, rest[0] if rest else None)


def _measure(
    m: Checkpoint,
    parents: Parents,
    tasks: Sequence[_Task],
    device: str,
    threads: int | None,
    progress: Progress,
) -> list[list[Gram | _Equal]]:
    """What was measured of every task, in parts, in the order given."""
    measurer = open_gram_measurer(device)
    collected = _Collected(tasks, measurer.chunk)
    # In the order in which they lie in the merge, so that a cold disk reads forward.
    ordered = sorted(range(len(tasks)), key=lambda i: (tasks[i].m.info.source, tasks[i].m.info.offset))
    spans = (
        _Span(i, tasks[i], start, min(measurer.chunk, tasks[i].stretch.count - start))
        for i in ordered
        for start in range(0, tasks[i].stretch.count, measurer.chunk)
    )
    reader = _Reader(m, parents, measurer)

    def work(batch: Sequence[_Span], buffers: Sequence[Bytes]) -> int:
        for span in batch:
            collected.add(span, reader.measure(span, buffers))
        return sum(span.count * span.task.itemsize for span in batch)

    run_batches(
        in_batches(spans, size=lambda span: span.count * span.task.itemsize, limit=_BATCH_BYTES),
        work,
        state=lambda: [np.empty(measurer.chunk * 8, np.uint8) for _ in range(4)],
        threads=threads or measurer.threads,
        total=sum(task.stretch.count * task.itemsize for task in tasks),
        progress=progress,
    )
    return collected.measured


class _Collected:
    """What was measured of every task; the parts are joined once a task is complete."""

    def __init__(self, tasks: Sequence[_Task], chunk: int) -> None:
        self.measured: list[list[Gram | _Equal]] = [[] for _ in tasks]
        self._expected = [-(-task.stretch.count // chunk) for task in tasks]
        self._lock = threading.Lock()

    def add(self, span: _Span, found: Gram | _Equal) -> None:
        """Take one chunk of a task. In which order chunks come does not matter."""
        with self._lock:
            parts = self.measured[span.index]
            parts.append(found)
            if len(parts) == self._expected[span.index] and isinstance(found, Gram):
                self.measured[span.index] = [add_grams(p for p in parts if isinstance(p, Gram))]


class _Reader:
    """Reads and measures one span; called from many threads."""

    def __init__(self, m: Checkpoint, parents: Parents, measurer: AbstractGramMeasurer) -> None:
        self._m, self._parents, self._measurer = m, parents, measurer

    def measure(self, span: _Span, buffers: Sequence[Bytes]) -> Gram | _Equal:
        """The sums of a span, or where it holds no floating-point numbers which parent it equals."""
        task = span.task
        m = _read(self._m, task.m, span, buffers[0])
        a = _read(self._parents.a, task.stretch.a, span, buffers[1])
        b = None if task.b is None else _read(self._parents.b, task.b, span, buffers[2])
        if not task.numeric:
            size = task.m.info.itemsize
            return _Equal(_differing(m, a, size), None if b is None else _differing(m, b, size))
        c = None
        if task.c is not None:
            assert self._parents.c is not None
            c = _read(self._parents.c, task.c, span, buffers[3])
        gram = self._measurer.measure(m, a, a if b is None else b, c)
        if task.m.info.encoded is None:
            return gram
        coded = (self._m, task.m.info, task.m.at + span.start, m[0])
        return of_codes(gram, coded_rounding(coded, coded, None)[0])


_Operand = tuple[Bytes, str]


def _read(checkpoint: Checkpoint, side: Located, span: _Span, buffer: Bytes) -> _Operand:
    size = side.info.itemsize
    raw = buffer[: span.count * size]
    checkpoint.read_into(side.info, (side.at + span.start) * size, raw)
    return raw, side.info.dtype


def _differing(one: _Operand, other: _Operand, itemsize: int) -> int:
    """How many elements are not equal; `itemsize` is that of the first."""
    return compare_equality(*one, *other, itemsize=itemsize).changed


def _collect(
    rows: Sequence[_Row], tasks: Sequence[_Task], measured: Sequence[Sequence[Gram | _Equal]]
) -> tuple[list[KeyGram], list[KeyEquality]]:
    """The parts of every key together, and of the rows of a fused tensor apart."""
    grams: dict[tuple[int, str], list[Gram]] = {}
    equal: dict[int, list[_Equal]] = {}
    for task, parts in zip(tasks, measured, strict=True):
        for part in parts:
            if isinstance(part, Gram):
                grams.setdefault((task.row, task.stretch.word), []).append(part)
            else:
                equal.setdefault(task.row, []).append(part)
    found = [
        KeyGram(rows[index].key, rows[index].labels, add_grams(parts), word)
        for (index, word), parts in sorted(grams.items(), key=lambda item: item[0][0])
    ]
    equalities = []
    for index, several in sorted(equal.items()):
        from_b = [part.from_b for part in several]
        equals_b = None if None in from_b else not any(from_b)
        row = rows[index]
        equalities.append(
            KeyEquality(row.key, row.labels, not any(part.from_a for part in several), equals_b)
        )
    return found, equalities
