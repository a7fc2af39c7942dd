"""Read tensors whose elements do not lie one after the other in their source. Knows `View`, no formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.sources import AbstractSource
from analyzer.records import TensorInfo, View

_BLOCK_BYTES = 1 << 20  # how much of the source is held at a time


def read_view(source: AbstractSource, info: TensorInfo, start: int, buffer: memoryview) -> None:
    """Fill the buffer with the view's bytes from its byte `start` on, in a bounded amount of memory."""
    view, itemsize = info.view, info.itemsize
    assert view is not None
    assert start % itemsize == 0 == len(buffer) % itemsize, "a read that cuts an element"
    rows = info.numel // view.columns
    out = np.frombuffer(buffer, np.uint8).reshape(-1, itemsize)
    read = _read_columns if view.transposed else _read_rows
    read(source, info.offset, view, rows, start // itemsize, out)


def _read_rows(
    source: AbstractSource, offset: int, view: View, _rows: int, first: int, out: NDArray[np.uint8]
) -> None:
    """The first columns of row after row, a few rows at a time."""
    itemsize = out.shape[1]
    done = 0
    whole = max(_BLOCK_BYTES // (view.stride * itemsize), 1)
    while done < len(out):
        row, column = divmod(first + done, view.columns)
        if column or len(out) - done < view.columns or whole == 1:  # a part of a row
            count = min(view.columns - column, len(out) - done)
            place = offset + (row * view.stride + column) * itemsize
            source.read_into(place, out[done : done + count].reshape(-1).data)
        else:
            rows = min(whole, (len(out) - done) // view.columns)
            count = rows * view.columns
            # Up to the last element wanted: the last row need not reach to its end.
            block = np.empty(((rows - 1) * view.stride + view.columns, itemsize), np.uint8)
            source.read_into(offset + row * view.stride * itemsize, block.reshape(-1).data)
            shape, strides = (rows, view.columns, itemsize), (view.stride * itemsize, itemsize, 1)
            picked = np.lib.stride_tricks.as_strided(block, shape, strides, writeable=False)
            out[done : done + count] = picked.reshape(count, itemsize)
        done += count


def _read_columns(
    source: AbstractSource, offset: int, view: View, rows: int, first: int, out: NDArray[np.uint8]
) -> None:
    """Column after column: as many of them at a time as make a block, of the longest ones a piece."""
    done = 0
    while done < len(out):
        column, row = divmod(first + done, rows)
        count = len(out) - done
        if rows > _BLOCK_BYTES:  # where even a single column is too long to be held
            count = min(count, rows - row)
        _gather(source, offset, view, rows, first + done, out[done : done + count])
        done += count


def _gather(
    source: AbstractSource, offset: int, view: View, rows: int, first: int, out: NDArray[np.uint8]
) -> None:
    """Column after column: every block of stored rows gives a piece of all columns that are asked for."""
    itemsize = out.shape[1]
    left, right = first // rows, (first + len(out) - 1) // rows + 1  # of the columns
    gathered = np.empty((right - left, rows, itemsize), np.uint8)
    step = max(_BLOCK_BYTES // (view.stride * itemsize), 1)
    for row in range(0, rows, step):
        count = min(step, rows - row)
        block = np.empty(((count - 1) * view.stride + view.columns, itemsize), np.uint8)
        source.read_into(offset + row * view.stride * itemsize, block.reshape(-1).data)
        shape, strides = (count, right - left, itemsize), (view.stride * itemsize, itemsize, 1)
        picked = np.lib.stride_tricks.as_strided(block[left:], shape, strides, writeable=False)
        gathered[:, row : row + count] = picked.swapaxes(0, 1)
    flat = gathered.reshape(-1, itemsize)
    out[:] = flat[first - left * rows :][: len(out)]
