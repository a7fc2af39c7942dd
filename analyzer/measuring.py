"""Stream pieces of two checkpoints, or of three, through the measurer. Knows no keys, no labels, no JSON."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints import Checkpoint
from analyzer.coded_rounding import coded_rounding, coded_steps
from analyzer.kernels.formats import FLOATS
from analyzer.measures import Sums, add_sums
from analyzer.records import TensorInfo
from analyzer.streaming import Progress, in_batches, run_batches
from analyzer.sums import AbstractMeasurer, Bytes, Rows, compare_equality, open_measurer

_BATCH_BYTES = 1 << 20
_MOST_ROWS = 1 << 20  # of a matrix whose rows are told apart: 48 bytes each, until it is read
_LEAST_WIDTH = 2  # a row of one element has no direction but its sign


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

    @property
    def width(self) -> int:
        """Elements of a row of A's tensor, seen as a matrix (out × rest); 0: its rows are not told apart."""
        shape = self.a.shape
        if len(shape) < 2 or not self.count or self.dtypes - FLOATS.keys():
            return 0
        width = self.a.numel // shape[0]
        whole = self.at_a % width == 0 and self.count % width == 0
        return width if whole and width >= _LEAST_WIDTH and shape[0] <= _MOST_ROWS else 0

    @property
    def dtypes(self) -> set[str]:
        """As they are read."""
        return {info.dtype for info in (self.a, self.b, self.c) if info is not None}

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes in all files together."""
        return sum(info.itemsize for info in (self.a, self.b, self.c) if info is not None)


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
    # In the order in which they lie in A's file, so that a cold disk reads forward.
    ordered = sorted(range(len(pieces)), key=lambda i: (pieces[i].a.source, pieces[i].a.offset))
    spans = (span for i in ordered for span in _spans(i, pieces[i], measurer.chunk))
    collected = _Collected(pieces, measurer.chunk)

    def work(batch: Sequence[_Span], buffers: Sequence[Bytes]) -> int:
        for span in batch:
            collected.add(span, *_measure(models, measurer, span, buffers))
        return sum(span.nbytes for span in batch)

    run_batches(
        in_batches(spans, size=lambda span: span.nbytes, limit=_BATCH_BYTES),
        work,
        # Room for one chunk of each side; 8 bytes hold an element of any dtype.
        state=lambda: [np.empty(measurer.chunk * 8, np.uint8) for _ in range(3 if models.base else 2)],
        threads=threads or measurer.threads,
        total=sum(piece.count * piece.itemsize for piece in pieces),
        progress=progress,
    )
    return collected.measured


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of elements of one piece, small enough for one buffer."""

    index: int  # of the piece
    piece: Piece
    start: int  # elements from the piece's first one
    count: int

    @property
    def nbytes(self) -> int:
        """How many bytes of all files it takes."""
        return self.count * self.piece.itemsize


def _spans(index: int, piece: Piece, chunk: int) -> Iterator[_Span]:
    for start in range(0, piece.count, chunk):
        yield _Span(index, piece, start, min(chunk, piece.count - start))


class _Collected:
    """What was measured of every piece; the parts are let go once a piece is complete."""

    def __init__(self, pieces: Sequence[Piece], chunk: int) -> None:
        self.measured = [Measured(Sums(), None)] * len(pieces)
        self._expected = [-(-piece.count // chunk) for piece in pieces]
        self._parts: dict[int, list[tuple[int, Sums, Rows | None]]] = {}
        self._lock = threading.Lock()

    def add(self, span: _Span, sums: Sums, rows: Rows | None) -> None:
        """Take one chunk of a piece. In which order chunks come does not matter."""
        with self._lock:
            parts = self._parts.setdefault(span.index, [])
            parts.append((span.start, sums, rows))
            if len(parts) < self._expected[span.index]:
                return
            del self._parts[span.index]
        parts.sort(key=lambda part: part[0])  # rows that two chunks share add in one order
        piece = span.piece
        cosines = None
        if piece.width:
            whole = np.zeros((piece.count // piece.width, 3))
            for start, _, part in parts:
                if part is not None:
                    first = start // piece.width
                    whole[first : first + len(part.sums)] += part.sums
            cosines = _cosines(whole)
        self.measured[span.index] = Measured(add_sums(part for _, part, _ in parts), cosines)


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of every row (Σa², Σb², Σd²) that has one; see `analyzer.formulas.angular_distance`."""
    norms = np.sqrt(rows)
    lengths = 2 * norms[:, 0] * norms[:, 1]
    with np.errstate(all="ignore"):  # beyond fp64, which leaves the row out
        difference = (rows[:, 1] - rows[:, 0]) / (norms[:, 0] + norms[:, 1])
        distance = (rows[:, 2] - difference * difference) / lengths
    cosines: NDArray[np.float64] = 1.0 - np.clip(distance[np.isfinite(distance)], 0.0, 2.0)
    return cosines


def _measure(
    models: Models, measurer: AbstractMeasurer, span: _Span, buffers: Sequence[Bytes]
) -> tuple[Sums, Rows | None]:
    piece = span.piece
    raw_a = _read(models.a, piece.a, piece.at_a + span.start, span.count, buffers[0])
    raw_b = _read(models.b, piece.b, piece.at_b + span.start, span.count, buffers[1])
    dtype_a, dtype_b = piece.a.dtype, piece.b.dtype
    if dtype_a not in FLOATS or dtype_b not in FLOATS:
        return compare_equality(raw_a, dtype_a, raw_b, dtype_b, itemsize=piece.a.itemsize), None
    base = None
    if models.base is not None and piece.c is not None:
        raw_c = _read(models.base, piece.c, piece.at_c + span.start, span.count, buffers[2])
        base = (raw_c, piece.c.dtype)
    rows = _rows(piece.width, span) if piece.width else None
    sums = measurer.measure(raw_a, dtype_a, raw_b, dtype_b, base=base, rows=rows)
    if piece.a.encoded or piece.b.encoded:
        at_a, at_b = piece.at_a + span.start, piece.at_b + span.start
        side_a, side_b = (models.a, piece.a, at_a, raw_a), (models.b, piece.b, at_b, raw_b)
        ulp_squares, cast_only = coded_rounding(side_a, side_b, base)
        sums = replace(sums, sum_ulp_sq=ulp_squares, cast_only=cast_only)
        if piece.a.encoded:
            sums = replace(sums, steps=coded_steps(side_a, side_b, base))
    return sums, rows


def _rows(width: int, span: _Span) -> Rows:
    first = span.start % width
    return Rows(width, first, np.zeros((-(-(first + span.count) // width), 3)))


def _read(checkpoint: Checkpoint, info: TensorInfo, start: int, count: int, buffer: Bytes) -> Bytes:
    raw = buffer[: count * info.itemsize]
    checkpoint.read_into(info, start * info.itemsize, raw)
    return raw
