"""Parts and transposes of tensors, read piece by piece, against numpy on the whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.checkpoints import views as reading
from analyzer.checkpoints.sources import AbstractSource, MemorySource
from analyzer.checkpoints.views import read_view
from analyzer.records import TensorInfo
from analyzer.views import leading, rows_of, transposed

DTYPES = {"F8_E4M3": np.uint8, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def stored(values: np.ndarray, dtype: str, before: int = 3) -> tuple[AbstractSource, TensorInfo]:
    """A source that holds the array between other bytes, and its description."""
    raw = b"\x55" * before + values.tobytes() + b"\xaa" * 5
    info = TensorInfo("w", dtype, values.shape, before, values.nbytes)
    return MemorySource(memoryview(raw)), info


def read(source: AbstractSource, info: TensorInfo, start: int = 0, count: int | None = None) -> np.ndarray:
    """Elements of a tensor, as a checkpoint reads them."""
    buffer = np.empty((info.numel - start if count is None else count) * info.itemsize, np.uint8)
    if info.view is None:
        source.read_into(info.offset + start * info.itemsize, buffer.data)
    else:
        read_view(source, info, start * info.itemsize, buffer.data)
    return buffer.view(DTYPES[info.dtype])


def numbered(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array with no two neighbours alike, row by row and column by column."""
    count = int(np.prod(shape))
    return (np.arange(count) * 37 % 251).astype(DTYPES[dtype]).reshape(shape)


@st.composite
def requests(draw: st.DrawFn) -> tuple[np.ndarray, str, int, int, int]:
    """A matrix or a convolution, its dtype, a run of elements in per mille, and how much is held."""
    shape = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    start, end = sorted(draw(st.tuples(st.integers(0, 1000), st.integers(0, 1000))))
    return numbered(tuple(shape), dtype), dtype, start, end, draw(st.integers(1, 400))


@settings(max_examples=300)
@given(request=requests(), data=st.data())
def test_any_run_of_a_view_is_numpys(
    request: tuple[np.ndarray, str, int, int, int], data: st.DataObject
) -> None:
    """Rows, channels and the transpose, from any element on, however little may be held at a time."""
    values, dtype, first, last, held = request
    source, info = stored(values, dtype)
    axis = data.draw(st.sampled_from([0, 1]), label="axis")
    length = data.draw(st.integers(1, values.shape[axis]), label="length")
    shape = (*values.shape[:axis], length, *values.shape[axis + 1 :])
    cases = [(leading(info, shape), values[tuple(slice(n) for n in shape)])]
    skipped = data.draw(st.integers(0, values.shape[0] - 1), label="skipped")
    cases.append((rows_of(info, skipped, values.shape[0]), values[skipped:]))
    if values.ndim == 2:
        cases.append((transposed(info), values.T))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK_BYTES", held)
        for view, expected in cases:
            assert (expected.shape, expected.size * values.itemsize) == (view.shape, view.nbytes)
            assert (info.key, info.dtype, info.source) == (view.key, view.dtype, view.source)
            start, end = (expected.size * mark // 1000 for mark in (first, last))
            np.testing.assert_array_equal(
                expected.reshape(-1)[start:end], read(source, view, start, end - start)
            )


def test_what_is_whole_needs_no_view() -> None:
    """Rows are a run of bytes; the whole of a tensor is the tensor."""
    _, info = stored(numbered((6, 4), "F32"), "F32")
    assert info is leading(info, (6, 4))
    rows = rows_of(info, 2, 5)
    assert (None, info.offset + 2 * 16, 3 * 16) == (rows.view, rows.offset, rows.nbytes)


def test_empty_tensors_have_empty_parts() -> None:
    """No rows, rows of nothing, and the transpose of nothing: no read, and no division by zero."""
    for shape in ((0, 4), (4, 0)):
        source, info = stored(np.empty(shape, np.float32), "F32")
        assert (0, *shape[1:]) == rows_of(info, 0, 0).shape
        view = transposed(info)
        assert shape[::-1] == view.shape
        assert 0 == read(source, view).size


class _Counting(AbstractSource):
    """A source without bytes, which counts what is asked of it."""

    def __init__(self) -> None:
        self.largest = self.total = self.end = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.largest, self.total = max(self.largest, len(buffer)), self.total + len(buffer)
        self.end = max(self.end, offset + len(buffer))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "shape", [(1 << 26, 2), (3, 1 << 26), (1 << 13, 1 << 13)], ids=["tall", "wide", "square"]
)
def test_memory_does_not_grow_with_the_matrix(shape: tuple[int, int]) -> None:
    """A chunk of the transpose or of the first columns of 256 MB and more is read in blocks of a few MB."""
    rows, columns = shape
    info = TensorInfo("w", "F32", shape, 0, rows * columns * 4)
    for view in (transposed(info), leading(info, (rows, columns - 1))):
        source = _Counting()
        chunk = np.empty(1 << 18, np.uint8)
        tracemalloc.start()
        read_view(source, view, view.nbytes - chunk.nbytes, chunk.data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20
        assert source.largest < 4 << 20
        assert source.end <= info.nbytes
