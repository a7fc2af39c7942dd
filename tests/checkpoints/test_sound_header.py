"""The fast road through a header takes what is usual, and never what the careful one would refuse."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from analyzer.checkpoints.safetensors_file import _read_carefully
from analyzer.checkpoints.sound_header import read_sound
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

examples = settings(max_examples=300)

ENTRY: dict[str, Any] = {"dtype": "U8", "shape": [2, 1], "data_offsets": [0, 2]}
OTHER: dict[str, Any] = {"dtype": "F16", "shape": [], "data_offsets": [2, 4]}


def fast(header: bytes, data: int) -> list[tuple[Any, ...]] | None:
    """What the fast road makes of a header before so many bytes of tensors."""
    start = 8 + len(header)
    found = read_sound(header, start, start + data)
    return (
        None if found is None else [(i.key, i.dtype, i.shape, i.offset, i.nbytes) for i in found[0].values()]
    )


def careful(path: Path, header: bytes, data: int) -> list[tuple[Any, ...]] | None:
    """What the careful road makes of it, which looks at every tensor by itself; None if it is refused."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data))
    try:
        with closing(FileSource(path)) as source:
            infos, _ = _read_carefully(source, header, 8 + len(header))
    except CheckpointError:
        return None
    return [(i.key, i.dtype, i.shape, i.offset, i.nbytes) for i in infos.values()]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound") / "m.safetensors"


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"format": "pt"}, {"date": "2023-07-26T00:00:00", "a:b": '{"steps": 3, ":": "::"}'}],
)
def test_takes_what_the_library_writes(metadata: dict[str, str] | None) -> None:
    """Names and metadata with colons in them are usual, as are scalars, empty tensors and any order."""
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "b:c": np.zeros((3, 5), np.float16),
        "a": np.zeros((), np.int64),
        "é": np.zeros((0, 7), np.float32),
        "z.weight": np.zeros((3, 5), np.float16),
    }
    content = save(tensors, metadata)
    length = int.from_bytes(content[:8], "little")
    found = read_sound(content[8 : 8 + length], 8 + length, len(content))
    assert found is not None
    infos, read = found
    assert (metadata or {}) == read
    assert {k: (t.shape, t.nbytes) for k, t in tensors.items()} == {
        k: (i.shape, i.nbytes) for k, i in infos.items()
    }
    assert infos["b:c"].shape is infos["z.weight"].shape


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":%(e)s,"a":%(e)s}',
        b'{"a":%(e)s,"\\u0061":%(e)s}',
        b'{"a":%(e)s,"b\\u003a":%(e)s,"a":%(e)s}',
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[2,1],"data_offsets":[0,2]}}',
        b'{"__metadata__":{"x":"1","x":"2"},"a":%(e)s}',
        b'{"__metadata__":{},"__metadata__":{},"a":%(e)s}',
        b'{"__metadata__":{"x\\u003a":"1"},"__metadata__":{},"a":%(e)s}',
    ],
)
def test_a_name_that_stands_twice_is_left_to_the_careful_road(header: bytes) -> None:
    """However it is spelled, and with a colon spelled as an escape that could make up for it."""
    assert fast(header % {b"e": json.dumps(ENTRY).encode()}, 2) is None


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(['"a"', '"b"', '"a:b"', '"\\u0061"', '"\\u003a"', '":"', '"__metadata__"']),
        st.sampled_from(
            [json.dumps(ENTRY), json.dumps(OTHER), "null", "{}", '{"k":":"}', '{"k":"1","k":"2"}', "3"]
        ),
    ),
    max_size=4,
)


@examples
@given(members=MEMBERS, data=st.sampled_from([0, 2, 4]))
def test_takes_no_more_than_the_careful_road(
    scratch: Path, members: list[tuple[str, str]], data: int
) -> None:
    """What it takes has each name once and is what the standard library's parser reads."""
    header = ("{" + ",".join(f"{name}:{value}" for name, value in members) + "}").encode()
    found = fast(header, data)
    names = [json.loads(name) for name, _ in members]
    if len(set(names)) < len(names) or any('"k":"1","k"' in value for _, value in members):
        assert found is None
    if found is not None:
        assert careful(scratch, header, data) == found
        assert sorted(set(names) - {"__metadata__"}) == sorted(row[0] for row in found)


NUMBERS = st.sampled_from(["0", "1", "2", "4", "-1", "-0", "true", "1.0", "1e0", "9223372036854775808", "[]"])


@examples
@given(
    dtype=st.sampled_from(['"U8"', '"F16"', '"F4"', '"?"', "3", "null", "[]"]),
    shape=st.lists(NUMBERS, max_size=3),
    offsets=st.lists(NUMBERS, max_size=3),
    data=st.integers(0, 4),
)
def test_takes_no_odd_numbers(
    scratch: Path, dtype: str, shape: list[str], offsets: list[str], data: int
) -> None:
    """Neither True nor 1.0 is a size, no size is negative, and the offsets span what is needed."""
    header = f'{{"a":{{"dtype":{dtype},"shape":[{",".join(shape)}],"data_offsets":[{",".join(offsets)}]}}}}'
    if (found := fast(header.encode(), data)) is not None:
        assert careful(scratch, header.encode(), data) == found
        (_, name, sizes, offset, nbytes) = found[0]
        assert {*shape, *offsets} <= {"0", "1", "2", "4", "-0"}
        assert (nbytes, 8 + len(header)) == (data, offset)
        assert nbytes == int(np.prod(sizes)) * {"U8": 1, "F16": 2}[name]


def test_more_axes_than_arrays_have_are_not_even_multiplied() -> None:
    """A product of a million large sizes would take minutes."""
    sizes = ",".join(["9223372036854775807"] * 200_000)
    header = f'{{"a":{{"dtype":"U8","shape":[{sizes}],"data_offsets":[0,2]}}}}'
    assert fast(header.encode(), 2) is None


WHOLE = [
    json.dumps(header, separators=(",", ":")).encode()
    for header in (
        {"a": ENTRY, "b:c": OTHER},
        {"__metadata__": {"x:y": "1:\\u", "é": "😀"}, "a": ENTRY, 'q"': OTHER},
        {"__metadata__": None, "a": ENTRY},
    )
]
SCRAPS = [
    b":", b"\\u003a", b"\\u003A", b"\\u0061", b'"a":', b'"x":"1",', b'"dtype":"U8",', b'"shape":[2,1],',
    b'"__metadata__":null,', b'"__metadata__":{"k":"v"},', b'"a":%b,' % json.dumps(ENTRY).encode(), b"{}",
    b"[]", b"{", b"}", b",", b'"', b"\\", b" ", b"\0", b"NaN", b"-0", b"-1", b"1e0", b"2.0", b"true", b"null",
    b"9" * 25, b"\\ud800", b"\xed\xa0\x80", b"\xef\xbb\xbf",
]  # fmt: skip


@settings(examples, max_examples=1000)
@given(
    header=st.sampled_from(WHOLE),
    edits=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from(SCRAPS)), max_size=3
    ),
    data=st.sampled_from([2, 4]),
)
def test_takes_no_damaged_header_that_the_careful_road_refuses(
    scratch: Path, header: bytes, edits: list[tuple[int, int, bytes]], data: int
) -> None:
    """Escapes, colons, halves of characters, odd numbers and second names, wherever they stand."""
    for place, lost, scrap in edits:
        joints = [found.end() for found in re.finditer(rb'[{\[,:"]', header)]
        at = joints[place % len(joints)]
        header = header[:at] + scrap + header[at + lost :]
    if (found := fast(header, data)) is not None:
        assert careful(scratch, header, data) == found
