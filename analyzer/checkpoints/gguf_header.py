"""Read the header of a GGUF file. Trusts nothing in it and never touches the tensors.

The format: "GGUF", version, number of tensors, number of metadata entries; the entries (name, type,
value); of every tensor its name, sizes (innermost first), type and place; then, aligned, the tensors.
All numbers are little-endian. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Never

from analyzer.checkpoints.checkpoint import shown
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 100_000_000  # as of a safetensors file; tokenizers of large vocabularies take about 15 MB
MAX_COUNT = 100_000  # tensors, and metadata entries; 2,000 and 100 in the largest models
MAX_STEPS = 4_000_000  # strings and nested arrays in all arrays together; 1 million in the largest tokenizers
MAX_NAME_BYTES = 65_535  # of a metadata entry, by the format
MAX_TEXT_BYTES = 4096  # longer texts (chat templates) are passed over
MAX_AXES = 8  # ggml has 4, video models were given 5
MAX_NESTING = 4  # of arrays in arrays
MAX_ELEMENTS = 2**63 - 1

ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # before a tensor's name: its shape before it was folded to 2 axes

_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_TEXT, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_WHOLE = frozenset("BbHhIiQq")
_LENGTH = struct.Struct("<Q")  # before every text
_TENSOR_BYTES, _ENTRY_BYTES = 24, 13  # the least that a tensor, and an entry, take up
_BLOCK_BYTES = 1 << 20
_AGAIN = "the file is damaged, get it again"


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as the header describes it; its place and size are still unchecked."""

    name: str
    code: int  # ggml's number of its type
    shape: tuple[int, ...]  # row-major: the innermost axis last
    offset: int  # bytes from the start of the tensors


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands before the tensors."""

    raw: bytes  # from the start of the file to the end of the last tensor's description
    start: int  # where in the file the tensors begin
    alignment: int
    texts: Mapping[str, str]  # the metadata entries that are short texts
    numbers: Mapping[str, int]  # those that are whole numbers
    shapes: Mapping[str, tuple[int, ...]]  # by tensor: the original shape, if it was folded
    tensors: tuple[GgufTensor, ...]  # in the order of the header


def read_gguf_header(source: FileSource) -> GgufHeader:
    """The header; CheckpointError says what is wrong with it."""
    cursor = _Cursor(source)
    tensor_count, entry_count = _preamble(cursor)
    entries = _Entries()
    for _ in range(entry_count):
        _read_entry(cursor, entries)
    tensors = tuple(_read_tensor(cursor) for _ in range(tensor_count))
    alignment = entries.numbers.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment is {alignment}, not a power of two of at most {1 << 20}")
    return GgufHeader(
        raw=cursor.passed(),
        start=-(-cursor.position // alignment) * alignment,
        alignment=alignment,
        texts=entries.texts,
        numbers=entries.numbers,
        shapes=entries.shapes,
        tensors=tensors,
    )


class _Cursor:
    """Reads the file from its start on, in blocks, and never beyond MAX_HEADER_BYTES."""

    def __init__(self, source: FileSource) -> None:
        self.path: Path = source.path
        self.position = 0
        self.steps = 0
        self._source = source
        self._data = bytearray()
        self._limit = min(source.size, MAX_HEADER_BYTES)

    @property
    def left(self) -> int:
        """How many bytes the header can still have."""
        return self._limit - self.position

    def skip(self, count: int) -> None:
        """Pass over bytes; CheckpointError if there are not as many."""
        if count > self.left:
            if self._limit < self._source.size:
                raise CheckpointError(
                    f"{self.path}: the header would be longer than {MAX_HEADER_BYTES} bytes at byte "
                    f"{self.position}; {_AGAIN}"
                )
            raise CheckpointError(
                f"{self.path}: truncated: the header goes on after the end of the file, at byte "
                f"{self.position}; download it again"
            )
        self.position += count

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start = self.position
        self.skip(count)
        self._load(self.position)
        with memoryview(self._data) as view:
            return bytes(view[start : self.position])

    def number(self, code: str) -> int:
        """The next whole number, by its code in `struct`."""
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def name(self, what: str) -> str:
        """The next text, which names something."""
        length = self.number("Q")
        if length > MAX_NAME_BYTES:
            self.fail(f"the name of {what} would have {length} bytes, and {MAX_NAME_BYTES} is the most")
        raw = self.take(length)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.fail(f"the name of {what}, {shown(raw.decode(errors='replace'))}, is not valid Unicode")

    def skip_texts(self, count: int) -> None:
        """Pass over texts: a tokenizer has hundreds of thousands, so each must cost little."""
        position, loaded = self.position, len(self._data)
        for _ in range(count):
            if position + _LENGTH.size > loaded:
                self.skip(position + _LENGTH.size - self.position)
                self._load(self.position)
                loaded = len(self._data)
            position += _LENGTH.size + _LENGTH.unpack_from(self._data, position)[0]
        self.skip(position - self.position)

    def count_steps(self, count: int) -> None:
        """Count elements of an array that have to be walked through."""
        self.steps += count
        if self.steps > MAX_STEPS:
            self.fail(f"its arrays hold more than {MAX_STEPS} texts")

    def passed(self) -> bytes:
        """All bytes up to the position."""
        here, self.position = self.position, 0
        return self.take(here)

    def _load(self, end: int) -> None:
        """Have the file's bytes up to `end`, which lies within it, in memory."""
        while len(self._data) < end:
            have = len(self._data)
            self._data += self._source.read(have, min(_BLOCK_BYTES, self._limit - have))

    def fail(self, what: str) -> Never:
        """Raise CheckpointError."""
        raise CheckpointError(f"{self.path}: {what}; {_AGAIN}")


class _Entries:
    """The metadata that is kept, by name."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.texts: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}


def _preamble(cursor: _Cursor) -> tuple[int, int]:
    """Numbers of tensors and of metadata entries."""
    if cursor.take(len(MAGIC)) != MAGIC:
        raise CheckpointError(
            f"{cursor.path}: does not start like a GGUF file, although its name ends like one; check what "
            "was saved under this name"
        )
    version = cursor.number("I")
    if version and not version & 0xFFFF:
        raise CheckpointError(
            f"{cursor.path}: is a big-endian GGUF file, which cannot be read; get the little-endian one"
        )
    if version not in _VERSIONS:
        raise CheckpointError(
            f"{cursor.path}: is a GGUF file of version {version}; this version reads 2 and 3, convert it "
            "with a current llama.cpp"
        )
    tensors, entries = cursor.number("Q"), cursor.number("Q")
    if max(tensors, entries) > MAX_COUNT or tensors * _TENSOR_BYTES + entries * _ENTRY_BYTES > cursor.left:
        cursor.fail(f"{tensors} tensors and {entries} metadata entries are promised, more than can be there")
    return tensors, entries


def _read_entry(cursor: _Cursor, entries: _Entries) -> None:
    """One metadata entry: kept if it is short and of use, passed over otherwise."""
    name = cursor.name("a metadata entry")
    if name in entries.names:
        cursor.fail(f"the metadata entry {shown(name)} stands twice")
    entries.names.add(name)
    code = cursor.number("I")
    if code == _TEXT:
        _read_text(cursor, name, entries.texts)
    elif code == _ARRAY:
        _read_array(cursor, name, entries.shapes)
    elif _scalar(cursor, code) in _WHOLE:
        entries.numbers[name] = cursor.number(_SCALARS[code])
    else:
        cursor.skip(struct.calcsize(_SCALARS[code]))


def _scalar(cursor: _Cursor, code: int) -> str:
    if code not in _SCALARS:
        cursor.fail(f"at byte {cursor.position} stands metadata of the unknown type {code}")
    return _SCALARS[code]


def _read_text(cursor: _Cursor, name: str, texts: dict[str, str]) -> None:
    length = cursor.number("Q")
    if length > MAX_TEXT_BYTES:
        cursor.skip(length)
        return
    try:
        texts[name] = cursor.take(length).decode()
    except UnicodeDecodeError:  # not worth refusing the model for: it is left out
        return


def _read_array(cursor: _Cursor, name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    if not name.startswith(ORIGINAL_SHAPE):
        _skip_array(cursor, MAX_NESTING)
        return
    code, count = cursor.number("I"), cursor.number("Q")
    if code not in _SCALARS or _SCALARS[code] not in _WHOLE or count > MAX_AXES:
        cursor.fail(f"{shown(name)} is not a list of at most {MAX_AXES} whole numbers")
    shapes[name.removeprefix(ORIGINAL_SHAPE)] = tuple(cursor.number(_SCALARS[code]) for _ in range(count))


def _skip_array(cursor: _Cursor, depth: int) -> None:
    """Pass over an array: of numbers by arithmetic, of texts and arrays one by one."""
    if not depth:
        cursor.fail(f"its metadata holds arrays in arrays more than {MAX_NESTING} deep")
    code, count = cursor.number("I"), cursor.number("Q")
    if code not in (_TEXT, _ARRAY):
        cursor.skip(count * struct.calcsize("<" + _scalar(cursor, code)))
        return
    if count * _LENGTH.size > cursor.left:
        cursor.fail(f"at byte {cursor.position} stands an array of {count} elements, which do not fit")
    cursor.count_steps(count)
    if code == _TEXT:
        cursor.skip_texts(count)
        return
    for _ in range(count):
        _skip_array(cursor, depth - 1)


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    name = cursor.name("a tensor")
    axes = cursor.number("I")
    if axes > MAX_AXES:
        cursor.fail(f"{shown(name)} has {axes} axes, and {MAX_AXES} is the most")
    sizes = struct.unpack(f"<{axes}Q", cursor.take(8 * axes))
    if prod(sizes) > MAX_ELEMENTS or max(sizes, default=0) > MAX_ELEMENTS:
        cursor.fail(f"{shown(name)} has more elements than can be addressed")
    return GgufTensor(name, cursor.number("I"), sizes[::-1], cursor.number("Q"))
