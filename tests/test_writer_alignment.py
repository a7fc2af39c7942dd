"""Where the writer puts tensors: readers that map the file can view every one of them in place."""

from __future__ import annotations

import json
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from analyzer.writing.writer import Entry, create_safetensors

ITEMSIZE = {"BOOL": 1, "F8_E4M3": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}


def entry(key: str, dtype: str, shape: tuple[int, ...]) -> Entry:
    """The description of a tensor."""
    return Entry(key, dtype, shape, int(np.prod(shape, dtype=int)) * ITEMSIZE[dtype])


def write(path: Path, entries: list[Entry]) -> tuple[int, dict[str, Any], bytes]:
    """Write tensors whose bytes are their places in the list; parse the file here.

    Returns the position where the data begins, the header and all bytes.
    """
    with create_safetensors(path, entries, {"format": "pt"}) as writer:
        for index, e in enumerate(entries):
            writer.write(index, 0, np.full(e.nbytes, index % 2, np.uint8))
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert {"format": "pt"} == header.pop("__metadata__")
    return 8 + size, header, data


def check_alignment(path: Path, entries: list[Entry]) -> list[int]:
    """Order, alignment, contents, and no byte between; returns the offsets in header order."""
    start, header, data = write(path, entries)
    assert [e.key for e in entries] == list(header)
    assert 0 == start % 8
    spans = [header[e.key]["data_offsets"] for e in entries]
    for index, (e, (begin, end)) in enumerate(zip(entries, spans, strict=True)):
        assert (e.dtype, list(e.shape)) == (header[e.key]["dtype"], header[e.key]["shape"])
        assert e.nbytes == end - begin
        if e.nbytes:
            assert 0 == begin % ITEMSIZE[e.dtype], (e, begin)
        assert bytes([index % 2]) * e.nbytes == data[start + begin : start + end]
    ordered = sorted(spans)
    assert 0 == ordered[0][0]
    assert all(one[1] == two[0] for one, two in pairwise(ordered))
    assert len(data) == start + ordered[-1][1]
    return [begin for begin, _ in spans]


ODD = [("b", "BOOL", (3,)), ("h", "F16", (1, 3)), ("f", "F32", (3, 1)), ("d", "F64", ()), ("i", "I64", (1,))]


@pytest.mark.parametrize("order", list(permutations(range(len(ODD)), len(ODD)))[::7])
def test_misaligned_orders_are_laid_out_otherwise(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Odd sizes in any order: each offset is a multiple of its element's size, the header as given."""
    check_alignment(tmp_path / "o.safetensors", [entry(*ODD[i]) for i in order])


def test_one_byte_before_a_table_of_integers(tmp_path: Path) -> None:
    """The plainest misalignment: the data of `a` comes first, its line in the header second."""
    path = tmp_path / "o.safetensors"
    assert [16, 0] == check_alignment(path, [entry("z", "BOOL", (1,)), entry("a", "I64", (2,))])
    loaded = load_file(path)
    np.testing.assert_array_equal(np.full(2, 0x0101010101010101), loaded["a"])


def test_aligned_orders_are_laid_out_as_they_come(tmp_path: Path) -> None:
    """Where nothing is misaligned the data follows the header, narrow before wide too."""
    entries = [
        entry("h", "F16", (4,)),
        entry("x", "F32", (0, 3)),
        entry("d", "F64", (2,)),
        entry("b", "BOOL", (1,)),
    ]
    assert [0, 8, 8, 24] == check_alignment(tmp_path / "o.safetensors", entries)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(ITEMSIZE)), st.lists(st.integers(0, 5), max_size=3).map(tuple)),
        min_size=1,
        max_size=9,
    )
)
def test_any_tensors_are_aligned(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Any dtypes and shapes, scalars and empty ones among them."""
    entries = [entry(f"t{i}", dtype, shape) for i, (dtype, shape) in enumerate(tensors)]
    check_alignment(tmp_path_factory.mktemp("w") / "o.safetensors", entries)
