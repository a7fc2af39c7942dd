"""Many runs of elements by few reads: the right bytes, where they are said to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.checkpoints.gathering import Extent, read_together, room_for
from analyzer.checkpoints.sources import MemorySource
from analyzer.records import TensorInfo
from analyzer.views import leading, transposed

SIZE = 4096  # bytes of a source
BLOCKS = [np.random.default_rng(seed).integers(0, 256, SIZE).astype(np.uint8) for seed in (1, 2)]
DTYPES = {1: "F8_E4M3", 2: "F16", 4: "F32", 8: "F64"}


class Recording(MemorySource):
    """A block of memory that counts how often it is asked."""

    def __init__(self, block: memoryview) -> None:
        super().__init__(block)
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        super().read_into(offset, buffer)


def opened() -> tuple[Checkpoint, list[Recording]]:
    """A model of two blocks of memory."""
    sources = [Recording(block.data) for block in BLOCKS]
    model = Checkpoint(
        path=Path("x"), format="safetensors", files=(), bytes=2 * SIZE, metadata={}, infos={}, header=b"",
        sources=tuple(sources),
    )  # fmt: skip
    return model, sources


def vector(source: int, offset: int, count: int, itemsize: int) -> TensorInfo:
    return TensorInfo("w", DTYPES[itemsize], (count,), offset, count * itemsize, source)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 2000), st.integers(1, 60), st.sampled_from([1, 2, 4, 8]))
    )
)
def test_every_extent_is_where_it_is_said_to_be(drawn: list[tuple[int, int, int, int]]) -> None:
    """In any order, with gaps and overlaps, in two sources; elements begin at multiples of their size."""
    model, _ = opened()
    extents: list[Extent] = [
        (vector(source, offset, count, size), count // 3 * size, (count - count // 3) * size, size)
        for source, offset, count, size in drawn
    ]
    buffer = np.empty(room_for(sum(nbytes for _, _, nbytes, _ in extents), len(extents)), np.uint8)
    for place, (info, start, nbytes, itemsize) in zip(
        read_together(model, extents, buffer), extents, strict=True
    ):
        first = info.offset + start
        expected = BLOCKS[info.source][first : first + nbytes]
        np.testing.assert_array_equal(expected, buffer[place : place + nbytes])
        assert 0 == place % itemsize


def test_neighbours_are_one_read() -> None:
    """In whatever order; a gap or another source begins another read, wider elements only if need be."""
    model, sources = opened()
    infos = [vector(0, 100, 10, 2), vector(0, 120, 3, 2), vector(0, 126, 4, 4), vector(0, 200, 5, 2)]
    infos += [vector(1, 210, 5, 2)]
    extents = [(info, 0, info.nbytes, info.itemsize) for info in infos]
    buffer = np.empty(room_for(200, 5), np.uint8)
    read_together(model, [extents[i] for i in (3, 1, 4, 0, 2)], buffer)
    # 26 bytes into a read no element of 4 bytes may begin
    assert [(100, 26), (126, 16), (200, 10)] == sources[0].reads
    assert [(210, 10)] == sources[1].reads
    sources[0].reads.clear()
    read_together(model, [extents[0], (vector(0, 120, 2, 4), 0, 8, 4)], buffer)
    assert [(100, 28)] == sources[0].reads


def test_views_are_read_by_themselves() -> None:
    """A transpose and the first columns of a matrix, between plain neighbours."""
    model, _ = opened()
    matrix = TensorInfo("m", "F16", (6, 10), 40, 120, 0)
    plain = [vector(0, 20, 10, 2), vector(0, 160, 7, 2)]
    infos = [plain[0], transposed(matrix), leading(matrix, (6, 4)), plain[1]]
    extents = [(info, 0, info.nbytes, 2) for info in infos]
    buffer = np.empty(room_for(sum(info.nbytes for info in infos), 4), np.uint8)
    places = read_together(model, extents, buffer)
    whole = BLOCKS[0][40:160].view("<u2").reshape(6, 10)
    expected = [BLOCKS[0][20:40].view("<u2"), whole.T, whole[:, :4], BLOCKS[0][160:174].view("<u2")]
    for place, info, values in zip(places, infos, expected, strict=True):
        got = buffer[place : place + info.nbytes].view("<u2")
        np.testing.assert_array_equal(values.ravel(), got)


def test_a_part_of_a_view_is_read() -> None:
    """From an element on that is not its first."""
    model, _ = opened()
    matrix = transposed(TensorInfo("m", "F16", (6, 10), 40, 120, 0))
    buffer = np.empty(room_for(40, 1), np.uint8)
    (place,) = read_together(model, [(replace(matrix), 14, 40, 2)], buffer)
    expected = BLOCKS[0][40:160].view("<u2").reshape(6, 10).T.ravel()[7:27]
    np.testing.assert_array_equal(expected, buffer[place : place + 40].view("<u2"))


def test_nothing_is_read_for_nothing() -> None:
    """No extents, no reads."""
    model, sources = opened()
    assert [] == read_together(model, [], np.empty(0, np.uint8))
    assert [[], []] == [source.reads for source in sources]
