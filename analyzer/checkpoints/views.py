"""Read tensors whose elements do not lie one after the other in their source. Knows `View`, no formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.sources import AbstractSource
from analyzer.records import TensorInfo, View

_BLOCK_BYTES = 1 << 20  # about how much is held at a time, of the source and of columns

_Bytes = NDArray[np.uint8]


def read_view(source: AbstractSource, info: TensorInfo, start: int, buffer: memoryview) -> None:
    """Fill the buffer with the view's bytes from its byte `start` on, in a bounded amount of memory."""
    view, itemsize = info.view, info.itemsize
    assert view is not None
    assert start % itemsize == 0 == len(buffer) % itemsize, "a read that cuts an element"
    if not len(buffer):
        return
    out = np.frombuffer(buffer, np.uint8).reshape(-1, itemsize)
    matrix = _Matrix(source, info.offset, view.stride * itemsize, itemsize)
    if view.transposed:
        _read_columns(matrix, info.numel // view.columns, start // itemsize, out)
    else:
        _read_rows(matrix, view, start // itemsize, out)


class _Matrix:
    """The stored matrix that a view shows a part of."""

    def __init__(self, source: AbstractSource, offset: int, pitch: int, itemsize: int) -> None:
        self._source, self._offset, self._pitch, self._itemsize = source, offset, pitch, itemsize
        self.at_once = max(_BLOCK_BYTES // pitch, 1)  # rows that may be read together

    def read(self, row: int, column: int, out: _Bytes) -> None:
        """Elements of one row, from a column on."""
        self._source.read_into(self._place(row, column), out.reshape(-1).data)

    def block(self, row: int, rows: int, column: int, columns: int) -> _Bytes:
        """Elements of several rows, as an array of rows, columns and the bytes of an element."""
        # Up to the last element wanted: the last row need not reach to its end.
        block = np.empty((rows - 1) * self._pitch + columns * self._itemsize, np.uint8)
        self._source.read_into(self._place(row, column), block.data)
        shape, strides = (rows, columns, self._itemsize), (self._pitch, self._itemsize, 1)
        return np.lib.stride_tricks.as_strided(block, shape, strides, writeable=False)

    def _place(self, row: int, column: int) -> int:
        return self._offset + row * self._pitch + column * self._itemsize


def _read_rows(matrix: _Matrix, view: View, first: int, out: _Bytes) -> None:
    """The first columns of row after row, a few rows at a time."""
    done = 0
    while done < len(out):
        row, column = divmod(first + done, view.columns)
        left = len(out) - done
        if column or left < view.columns or matrix.at_once == 1:  # a part of a row, or a long one
            count = min(view.columns - column, left)
            matrix.read(row, column, out[done : done + count])
        else:
            rows = min(matrix.at_once, left // view.columns)
            count = rows * view.columns
            out[done : done + count] = matrix.block(row, rows, 0, view.columns).reshape(count, -1)
        done += count


def _read_columns(matrix: _Matrix, rows: int, first: int, out: _Bytes) -> None:
    """Column after column: as many as are asked for, or of one that is too long to be held a piece."""
    itemsize = out.shape[1]
    held = max(_BLOCK_BYTES // itemsize, 1)
    done = 0
    while done < len(out):
        column, row = divmod(first + done, rows)
        left = len(out) - done
        if rows > held:
            count = min(left, rows - row, held)
            piece = _gather(matrix, range(row, row + count), range(column, column + 1), itemsize)
            out[done : done + count] = piece
        else:
            count = left
            columns = range(column, (first + done + count - 1) // rows + 1)
            out[done : done + count] = _gather(matrix, range(rows), columns, itemsize)[row : row + count]
        done += count


def _gather(matrix: _Matrix, rows: range, columns: range, itemsize: int) -> _Bytes:
    """These columns, one after the other: every block of rows gives a piece of all of them."""
    gathered = np.empty((len(columns), len(rows), itemsize), np.uint8)
    for at in range(0, len(rows), matrix.at_once):
        count = min(matrix.at_once, len(rows) - at)
        block = matrix.block(rows.start + at, count, columns.start, len(columns))
        gathered[:, at : at + count] = block.swapaxes(0, 1)
    return gathered.reshape(-1, itemsize)
