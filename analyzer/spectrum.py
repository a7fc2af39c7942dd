"""Spectra of changes: how many directions a matrix changed in. Not additive, and measured only if asked for.

A change is seen as a matrix, out × rest: the first axis against all others, for convolutions too; the
parts that a fused tensor is compared with stand on top of each other. Up to `GRAM_SIZE` rows or columns all
of its singular values are computed; beyond, the largest by a randomized range finder. Then:

- `stable_rank` is too large and `top_singular_share` too small by at most 1 % for the flattest spectrum there
  is, that of noise, and by less than 1e-6 where few directions stand out;
- `rank_90` is None above `RANK_CAP`, and near it up to 2 % too large;
- `lora_rank` is None above `RANK_CAP` and above half of the smaller side, for any size.

Spectra are of A and B alone: what is not finite in a base leaves the sums, and not them.

Memory: `HELD_ELEMENTS` · 4 bytes of matrices at most, whatever the number of threads; larger matrices are
read again for each look. Each thread needs besides about 100 MB, and for a matrix of m rows and n
columns that goes to the range finder (4·m + 8·n) · 176 bytes; (4·m + 8·n) · 816 where it may be a LoRA.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints import Checkpoint
from analyzer.kernels.backends import device_errors
from analyzer.kernels.formats import FLOATS
from analyzer.low_rank import CLOSE, RANK_CAP, Limits, limits_of, may_be_low, summarize, without_few_rows
from analyzer.measures import Sums
from analyzer.records import Pair, Spectrum, TensorInfo
from analyzer.streaming import Progress, run_batches, usable_processors, usual_threads

if TYPE_CHECKING:  # torch takes seconds to import, and most scans do without
    from analyzer.kernels.range_finder import Noise, RawTile

Bytes = NDArray[np.uint8]

GRAM_SIZE = 2048  # of the smaller side: up to it an eigenvalue problem takes less than a second
HELD_ELEMENTS = 1 << 29
_HELD_AT_ONCE = 1 << 28  # elements of one matrix; larger ones are not held
_TILE_ELEMENTS = 1 << 20
_COLUMN_TILE_ELEMENTS = 1 << 22  # larger, as every row of a tile is read on its own

# The first look of the range finder: narrow and deep, so that the largest singular value is close even in
# the spectrum of noise. The second one: wider than the cap, so that equal values are told apart.
_NARROW, _DEEP = 16, 10
_WIDE, _SHALLOW = RANK_CAP + 16, 2

# Operations a second and processor, for what is said of the time; measured on two cores with AVX-512.
_GRAM_RATE, _EIGEN_RATE, _RANGE_RATE, _ELEMENT_RATE = 40e9, 15e9, 20e9, 2e8


@dataclass(frozen=True, slots=True)
class Cost:
    """What spectra take at most: keys without any change are left out, once that is known."""

    matrices: int
    bytes: int  # of both models, that are read again, once
    operations: float
    seconds: float  # on one processor
    longest: float = 0.0  # the seconds of one matrix, which is not shared between processors


def estimate(pairs: Sequence[Pair]) -> Cost:
    """What the spectra of these pairs will take at most."""
    matrices = [(p, shape) for p in pairs if (shape := _matrix_shape(p)) is not None]
    work = [_work(shape) for _, shape in matrices]
    rates = (_GRAM_RATE, _EIGEN_RATE, _RANGE_RATE)
    seconds = [
        sum(count / rate for count, rate in zip(each, rates, strict=True)) + prod(shape) / _ELEMENT_RATE
        for each, (_, shape) in zip(work, matrices, strict=True)
    ]
    return Cost(
        matrices=len(matrices),
        bytes=sum(run.a.nbytes + run.b.nbytes for p, _ in matrices for run in p.parts),
        operations=sum(map(sum, work)),
        seconds=sum(seconds),
        longest=max(seconds, default=0.0),
    )


def describe_cost(cost: Cost, *, device: str = "cpu", threads: int | None = None) -> str:
    """One sentence for the user, before it begins."""
    text = (
        f"--spectrum reads {cost.matrices:,} {'matrix' if cost.matrices == 1 else 'matrices'} again "
        f"({_size(cost.bytes, 'B')}) and takes up to {_size(cost.operations, 'flop')}"
    )
    if device != "cpu":
        return f"{text} on {device}"
    processors = min(threads or usual_threads(), usable_processors())
    plural = "" if processors == 1 else "s"
    seconds = max(cost.seconds / processors, cost.longest)
    return f"{text}: about {_duration(seconds)} on {processors} processor{plural}"


def _size(amount: float, unit: str) -> str:
    """2.5e12 as "2.5 Tflop"."""
    for prefix, size in (("T", 1e12), ("G", 1e9)):
        if amount >= size:
            return f"{amount / size:,.1f} {prefix}{unit}"
    return f"{amount / 1e6:,.1f} M{unit}"


def measure_spectra(
    a: Checkpoint,
    b: Checkpoint,
    pairs: Sequence[Pair],
    sums: Sequence[Sums],
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> list[Spectrum | None]:
    """The spectrum of every pair's change, in the order given; `sums` are those of the scan.

    None for tensors of fewer than two axes or no elements, for numbers that are not floating point, and
    where nothing changed: these are not read. The result depends neither on `threads` nor on the
    order. Raises CheckpointError if a file cannot be read, DeviceError if the device fails.
    """
    from analyzer.kernels.range_finder import one_thread_each, warm_up

    found: list[Spectrum | None] = [None] * len(pairs)
    tasks = []
    for i, (p, s) in enumerate(zip(pairs, sums, strict=True)):
        shape = _matrix_shape(p)
        if shape is not None and 0 < s.sum_dd < math.inf and s.max_abs_d > 0:
            tasks.append(_Task(i, p, shape, s))
    tasks.sort(key=lambda task: (-sum(_work(task.shape)), task.index))  # the longest first: none waits for it
    room = _Room(HELD_ELEMENTS)
    with device_errors(device):
        warm_up(device)

    with one_thread_each() as prepare:

        def work(task: _Task, _: None) -> int:
            with room.taken(prod(task.shape) if task.held else 0), device_errors(device):
                found[task.index] = _spectrum(a, b, task, device)
            return task.nbytes

        run_batches(
            tasks,
            work,
            state=prepare,
            threads=threads or (None if device == "cpu" else 2),
            total=sum(task.nbytes for task in tasks),
            progress=progress,
        )
    return found


@dataclass(frozen=True, slots=True)
class _Task:
    """One matrix to look at."""

    index: int
    pair: Pair
    shape: tuple[int, int]  # out × rest
    sums: Sums

    @property
    def held(self) -> bool:
        """Whether all of it is in memory at once; a Gram matrix of columns needs one look only."""
        rows, columns = self.shape
        one_look = self.gram and columns <= rows
        return not one_look and prod(self.shape) <= _HELD_AT_ONCE

    @property
    def gram(self) -> bool:
        """Whether all singular values are computed."""
        return min(self.shape) <= GRAM_SIZE

    @property
    def nbytes(self) -> int:
        """Of both sides."""
        return sum(run.a.nbytes + run.b.nbytes for run in self.pair.parts)

    @property
    def exponent(self) -> int:
        """The power of two above the largest change."""
        return math.frexp(self.sums.max_abs_d)[1]

    @property
    def seed(self) -> int:
        """The same for the same key, in any scan and at any place in it."""
        name = f"{self.pair.a.key}\0{self.shape}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:7], "little")


class _Room:
    """So many elements are held at a time; one thread at least always gets what it asks for."""

    def __init__(self, elements: int) -> None:
        self._elements, self._taken = elements, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, elements: int) -> Iterator[None]:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + elements <= self._elements)
            self._taken += elements
        try:
            yield
        finally:
            with self._changed:
                self._taken -= elements
                self._changed.notify_all()


def _matrix_shape(p: Pair) -> tuple[int, int] | None:
    """(out, rest) of a pair of floating-point tensors with two axes or more; None for any other."""
    runs = p.parts
    if len(p.a.shape) < 2 or 0 in p.a.shape:
        return None
    if any(side.dtype not in FLOATS for run in runs for side in (run.a, run.b)):
        return None
    columns = prod(p.a.shape[1:])
    assert all(run.a.numel % columns == 0 == run.b.numel - run.a.numel for run in runs), "not whole rows"
    return sum(run.a.numel for run in runs) // columns, columns


def _work(shape: tuple[int, int]) -> tuple[float, float, float]:
    """Operations for a Gram matrix, its eigenvalues, and the products of the range finder."""
    small, large = min(shape), max(shape)
    if small <= GRAM_SIZE:
        return 1.0 * small * small * large, 4 / 3 * small**3, 0.0
    products = sum((4 * depth + 2) * width for width, depth in ((_NARROW, _DEEP), (_WIDE, _SHALLOW)))
    return 0.0, 0.0, 1.0 * products * small * large


def _duration(seconds: float) -> str:
    if seconds < 90:
        whole = max(math.ceil(seconds), 1)
        return f"{whole} second{'' if whole == 1 else 's'}"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"


def _spectrum(a: Checkpoint, b: Checkpoint, task: _Task, device: str) -> Spectrum:
    from analyzer.kernels import range_finder as kernel

    change = kernel.Change(
        task.shape,
        lambda by_columns: _tiles(a, b, task, by_columns=by_columns),
        exponent=task.exponent,
        device=device,
        held=task.held,
    )
    energy, size = math.ldexp(task.sums.sum_dd, -2 * task.exponent), min(task.shape)
    if task.gram:
        squares, close = kernel.gram_squares(change), size
        limits = _limits(task, change.noise(), kernel.GRAM_FLOOR, kernel.GRAM_SLACK)
    else:
        squares, close = kernel.range_squares(change, width=_NARROW, depth=_DEEP, seed=task.seed), CLOSE
        limits = _limits(task, change.noise(), kernel.RANGE_FLOOR, kernel.RANGE_SLACK)
        if may_be_low(squares, energy, limits, size):
            squares = kernel.range_squares(change, width=_WIDE, depth=_SHALLOW, seed=task.seed)
            close = RANK_CAP
    # Both sum the same squares, in another order and precision: no share is to be above 1.
    energy = max(energy, float(squares.sum()))
    found = summarize(squares, energy, limits, size=size, close=close)
    return without_few_rows(found, task.sums, task.shape)


def _limits(task: _Task, noise: Noise, floor: float, slack: float) -> Limits | None:
    return limits_of(task.sums, noise, exponent=task.exponent, floor=floor, slack=slack)


def _tiles(a: Checkpoint, b: Checkpoint, task: _Task, *, by_columns: bool) -> Iterator[RawTile]:
    """All of a matrix: blocks of whole rows, or of whole columns, each cut where a part of the pair ends."""
    from analyzer.kernels.range_finder import RawTile

    rows, columns = task.shape
    width = max(_COLUMN_TILE_ELEMENTS // rows, 1) if by_columns else columns
    for column in range(0, columns, width):
        row = 0
        wide = min(width, columns - column)
        for run in task.pair.parts:
            part_rows = run.a.numel // columns
            step = part_rows if by_columns else max(_TILE_ELEMENTS // columns, 1)
            for first in range(0, part_rows, step):
                count = min(step, part_rows - first)
                raw_a, raw_b = (
                    _read(model, info, (first, count), (column, wide), columns)
                    for model, info in ((a, run.a), (b, run.b))
                )
                yield RawTile(row + first, column, count, wide, raw_a, run.a.dtype, raw_b, run.b.dtype)
            row += part_rows


def _read(
    model: Checkpoint, info: TensorInfo, rows: tuple[int, int], columns: tuple[int, int], pitch: int
) -> Bytes:
    """The bytes of so many rows and columns (first, count) of a tensor with `pitch` elements a row."""
    size = info.itemsize
    (row, height), (column, width) = rows, columns
    out = np.empty((height, width * size), np.uint8)
    if width == pitch:
        model.read_into(info, row * pitch * size, out.reshape(-1))
    else:
        for i in range(height):
            model.read_into(info, ((row + i) * pitch + column) * size, out[i])
    return out.reshape(-1)
