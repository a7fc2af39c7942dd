"""Other tensors made of a tensor's elements: its transpose, its first rows or channels. Knows no files."""

from __future__ import annotations

from math import prod

from analyzer.records import TensorInfo, View


def transposed(info: TensorInfo) -> TensorInfo:
    """The transpose of a matrix that lies row by row in its source."""
    rows, columns = info.shape
    assert info.view is None
    return _with_view(info, (columns, rows), View(columns, columns, transposed=True))


def leading(info: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    """The first elements of a tensor along every axis: of `shape`, which is as long and nowhere larger.

    At most one axis may be shorter than the tensor's, and only the first or the second one: rows of a
    vocabulary, or the input channels of a layer.
    """
    shorter = [axis for axis, (want, have) in enumerate(zip(shape, info.shape, strict=True)) if want != have]
    if not shorter:
        return info
    assert info.view is None
    assert shorter in ([0], [1])
    if shorter == [0]:
        return rows_of(info, 0, shape[0])
    inner = prod(info.shape[2:])
    return _with_view(info, shape, View(shape[1] * inner, info.shape[1] * inner))


def rows_of(info: TensorInfo, first: int, last: int) -> TensorInfo:
    """Rows first … last − 1 along the first axis."""
    assert info.view is None
    row = info.nbytes // max(info.shape[0], 1)
    return _replace(
        info, (last - first, *info.shape[1:]), info.offset + first * row, (last - first) * row, None
    )


def _with_view(info: TensorInfo, shape: tuple[int, ...], view: View) -> TensorInfo:
    return _replace(info, shape, info.offset, prod(shape) * info.itemsize, view)


def _replace(
    info: TensorInfo, shape: tuple[int, ...], offset: int, nbytes: int, view: View | None
) -> TensorInfo:
    """The same key and source with other elements of it."""
    return TensorInfo(info.key, info.dtype, shape, offset, nbytes, info.source, info.part, info.encoded, view)
