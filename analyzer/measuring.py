"""Stream pieces of two checkpoints, or of three, through the measurer. Knows no keys, no labels, no JSON."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from analyzer.batches import AbstractMeasurer, Array, Batch, Bytes, records
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.gathering import Extent, read_together, room_for
from analyzer.coded_rounding import coded_rounding, coded_steps
from analyzer.kernels.formats import FLOATS, spacing
from analyzer.measures import Sums, add_sums
from analyzer.records import TensorInfo
from analyzer.row_cosines import cosines_of
from analyzer.streaming import Progress, run_batches
from analyzer.sums import compare_equality, open_measurer

_MOST_ROWS = 1 << 20  # of a matrix whose rows are told apart: 48 bytes each, until it is read
_LEAST_WIDTH = 2  # a row of one element has no direction but its sign
# A batch has at most these many spans, and a buffer these many bytes for each element of a chunk: elements of
# 8 bytes come in half as many.
_MOST_SPANS = 256
_WIDTH = 4


@dataclass(frozen=True, slots=True)
class Models:
    """The open checkpoints of one pass."""

    a: Checkpoint
    b: Checkpoint
    base: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements that follow one another in A's tensor, in B's and, if it has them, in the base's."""

    a: TensorInfo
    b: TensorInfo
    c: TensorInfo | None
    count: int
    at_a: int = 0  # the first one's place in `a`, in elements
    at_b: int = 0
    at_c: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was measured of one piece."""

    sums: Sums
    cosines: NDArray[np.float64] | None  # of the rows that have one; None where rows are not told apart


def measure_pieces(
    models: Models,
    pieces: Sequence[Piece],
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> list[Measured]:
    """What was measured of every piece, in the order given. The result does not depend on `threads`."""
    measurer = open_measurer(device)
    layouts = _layouts(pieces, measurer.chunk)
    # In the order in which they lie in A's file, so that a cold disk reads forward.
    ordered = sorted(range(len(pieces)), key=lambda i: (pieces[i].a.source, pieces[i].a.offset))
    spans = (span for i in ordered for span in _spans(i, pieces[i], layouts[i]))
    collected = _Collected(len(pieces))
    run_batches(
        _batches(spans, measurer.chunk),
        _Pass(models, measurer, collected).measure,
        state=lambda: _Room(
            [
                measurer.new_buffer(room_for(measurer.chunk * _WIDTH, _MOST_SPANS))
                for _ in range(3 if models.base else 2)
            ],
            measurer.new_scratch(),
        ),
        threads=threads or measurer.threads,
        total=sum(piece.count * layout.nbytes for piece, layout in zip(pieces, layouts, strict=True)),
        progress=progress,
    )
    return collected.measured


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What all pieces of the same dtypes have in common."""

    itemsizes: tuple[int, int, int]  # bytes of an element of a, b and c; 0: there is no c
    codes: tuple[int, int, int]  # see `formats.FLOATS`
    spacing: Array
    numeric: bool  # whether all are floating point; if not, elements are equal or not
    chunk: int  # elements that one span has at most
    nbytes: int  # that one element takes in all files together


def _layouts(pieces: Sequence[Piece], chunk: int) -> list[_Layout]:
    known: dict[tuple[str, str, str | None], _Layout] = {}
    found = []
    for piece in pieces:
        dtypes = (piece.a.dtype, piece.b.dtype, piece.c.dtype if piece.c is not None else None)
        # An empty tensor does not tell how large its elements are.
        layout = known.get(dtypes) if piece.count else _layout(piece, chunk)
        if layout is None:
            layout = known[dtypes] = _layout(piece, chunk)
        found.append(layout)
    return found


def _layout(piece: Piece, chunk: int) -> _Layout:
    infos = [piece.a, piece.b] if piece.c is None else [piece.a, piece.b, piece.c]
    size_a, size_b, size_c = [*(info.itemsize for info in infos), 0][:3]
    numeric = all(info.dtype in FLOATS for info in infos)
    codes = [FLOATS[info.dtype].code for info in infos] if numeric else [0, 0]
    return _Layout(
        (size_a, size_b, size_c),
        (codes[0], codes[1], codes[2] if len(codes) > 2 else 0),
        spacing(piece.a.dtype, piece.b.dtype) if numeric else np.zeros(8),
        numeric,
        chunk // max(1, max(size_a, size_b, size_c) // _WIDTH),
        size_a + size_b + size_c,
    )


def _row_width(piece: Piece, layout: _Layout) -> int:
    """Elements of a row of A's tensor, seen as a matrix (out × rest); 0: its rows are not told apart."""
    rows, *rest = piece.a.shape or (1,)
    if not rest or not piece.count or not layout.numeric or rows > _MOST_ROWS:
        return 0
    width = prod(rest)
    whole = width >= _LEAST_WIDTH and piece.at_a % width == 0 and piece.count % width == 0
    return width if whole else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Span:
    """A run of elements of one piece, small enough for one buffer."""

    index: int  # of the piece
    piece: Piece
    layout: _Layout
    width: int  # elements of a row; 0: rows are not told apart
    start: int  # elements from the piece's first one
    count: int

    @property
    def rows(self) -> int:
        """How many rows it touches."""
        return -(-(self.start % self.width + self.count) // self.width) if self.width else 0


def _spans(index: int, piece: Piece, layout: _Layout) -> Iterator[_Span]:
    width = _row_width(piece, layout)
    for start in range(0, piece.count, layout.chunk):
        yield _Span(index, piece, layout, width, start, min(layout.chunk, piece.count - start))


def _batches(spans: Iterator[_Span], chunk: int) -> Iterator[list[_Span]]:
    """Spans that fill one chunk together, or few: one call measures them all."""
    batch: list[_Span] = []
    held = 0
    for span in spans:
        taken = span.count * (chunk // span.layout.chunk)
        if batch and (held + taken > chunk or len(batch) == _MOST_SPANS):
            yield batch
            batch, held = [], 0
        batch.append(span)
        held += taken
    if batch:
        yield batch


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """What one thread works in."""

    buffers: Sequence[Bytes]  # one for each model
    scratch: Array


class _Pass:
    """The work of one thread, again and again."""

    def __init__(self, models: Models, measurer: AbstractMeasurer, collected: _Collected) -> None:
        self._models, self._measurer, self._collected = models, measurer, collected

    def measure(self, batch: Sequence[_Span], room: _Room) -> int:
        """Read and measure one batch; returns how many bytes of all files it takes."""
        a, b, *_ = room.buffers
        at_a = read_together(self._models.a, [_extent_a(span) for span in batch], a)
        at_b = read_together(self._models.b, [_extent_b(span) for span in batch], b)
        at_c = self._read_base(batch, room)
        numeric = []
        for i, span in enumerate(batch):
            if span.layout.numeric:
                numeric.append((span, at_a[i], at_b[i], at_c[i]))
            else:
                self._collected.add(span, self._compare(span, at_a[i], at_b[i], room), None)
        if numeric:
            self._measure(numeric, room)
        return sum(span.count * span.layout.nbytes for span in batch)

    def _read_base(self, batch: Sequence[_Span], room: _Room) -> list[int]:
        """Where the base's elements lie in their buffer; −1: there are none."""
        places = [-1] * len(batch)
        if self._models.base is not None:
            asked = [i for i, s in enumerate(batch) if s.piece.c is not None and s.layout.numeric]
            extents = [_extent_c(batch[i]) for i in asked]
            found = read_together(self._models.base, extents, room.buffers[2])
            for i, place in zip(asked, found, strict=True):
                places[i] = place
        return places

    def _compare(self, span: _Span, at_a: int, at_b: int, room: _Room) -> Sums:
        size_a, size_b, _ = span.layout.itemsizes
        raw_a = room.buffers[0][at_a : at_a + span.count * size_a]
        raw_b = room.buffers[1][at_b : at_b + span.count * size_b]
        return compare_equality(raw_a, span.piece.a.dtype, raw_b, span.piece.b.dtype, itemsize=size_a)

    def _measure(self, placed: Sequence[tuple[_Span, int, int, int]], room: _Room) -> None:
        table = []
        row = 0
        for span, at_a, at_b, at_c in placed:
            first = span.start % span.width if span.width else 0
            table.append((at_a, at_b, at_c, span.count, *span.layout.codes, first, span.width, row, 0, 0))
            row += span.rows
        spacings = np.array([span.layout.spacing for span, *_ in placed])
        raw = room.buffers if len(room.buffers) == 3 else [*room.buffers, _NO_BYTES]
        batch = Batch(raw, np.array(table, np.int64), spacings, row)
        found = self._measurer.measure_batch(batch, room.scratch)
        sums = records(batch, found)
        for i, (span, *at) in enumerate(placed):
            if span.piece.a.encoded or span.piece.b.encoded:
                sums[i] = self._with_rounding(sums[i], span, at, room)
        self._collected.add_all([span for span, *_ in placed], sums, found.rows)

    def _with_rounding(self, sums: Sums, span: _Span, at: Sequence[int], room: _Room) -> Sums:
        """With what depends on the code in which a file holds its numbers."""
        piece = span.piece
        raw = [
            buffer[place : place + span.count * size]
            for buffer, place, size in zip(room.buffers, at, span.layout.itemsizes, strict=False)
        ]
        side_a = (self._models.a, piece.a, piece.at_a + span.start, raw[0])
        side_b = (self._models.b, piece.b, piece.at_b + span.start, raw[1])
        base = (raw[2], piece.c.dtype) if piece.c is not None and len(raw) > 2 else None
        ulp_squares, cast_only = coded_rounding(side_a, side_b, base)
        sums = replace(sums, sum_ulp_sq=ulp_squares, cast_only=cast_only)
        return replace(sums, steps=coded_steps(side_a, side_b, base)) if piece.a.encoded else sums


_NO_BYTES = np.empty(0, np.uint8)


def _extent_a(span: _Span) -> Extent:
    size = span.layout.itemsizes[0]
    return span.piece.a, (span.piece.at_a + span.start) * size, span.count * size, size


def _extent_b(span: _Span) -> Extent:
    size = span.layout.itemsizes[1]
    return span.piece.b, (span.piece.at_b + span.start) * size, span.count * size, size


def _extent_c(span: _Span) -> Extent:
    size = span.layout.itemsizes[2]
    assert span.piece.c is not None
    return span.piece.c, (span.piece.at_c + span.start) * size, span.count * size, size


class _Collected:
    """What was measured of every piece; the parts are let go once a piece is complete."""

    def __init__(self, pieces: int) -> None:
        self.measured = [Measured(Sums(), None)] * pieces
        self._parts: dict[int, list[tuple[int, Sums, Array | None]]] = {}
        self._lock = threading.Lock()

    def add_all(self, spans: Sequence[_Span], sums: Sequence[Sums], rows: Array) -> None:
        """Take the spans of a batch, with the sums of their rows, span by span."""
        whole = any(span.count == span.piece.count for span in spans)
        cosines, known = cosines_of(rows if whole else rows[:0])
        complete = bool(known.all())
        row = 0
        for span, found in zip(spans, sums, strict=True):
            end = row + span.rows
            if span.count < span.piece.count:
                self.add(span, found, _own(rows[row:end]) if span.width else None)
            elif not span.width:
                self.measured[span.index] = Measured(found, None)
            elif complete:
                self.measured[span.index] = Measured(found, cosines[row:end])
            else:
                self.measured[span.index] = Measured(found, cosines[row:end][known[row:end]])
            row = end

    def add(self, span: _Span, sums: Sums, rows: Array | None) -> None:
        """Take one span of a piece. In which order they come does not matter."""
        piece = span.piece
        with self._lock:
            parts = self._parts.setdefault(span.index, [])
            parts.append((span.start, sums, rows))
            if len(parts) < -(-piece.count // span.layout.chunk):
                return
            del self._parts[span.index]
        parts.sort(key=lambda part: part[0])  # rows that two spans share add in one order
        cosines = None
        if span.width:
            whole = np.zeros((piece.count // span.width, 3))
            for start, _, part in parts:
                if part is not None:
                    first = start // span.width
                    whole[first : first + len(part)] += part
            every, known = cosines_of(whole)
            cosines = every[known]
        self.measured[span.index] = Measured(add_sums(part for _, part, _ in parts), cosines)


def _own(rows: Array) -> Array:
    """Rows that hold no others in memory."""
    return rows if rows.base is None or len(rows) == len(rows.base) else rows.copy()
