"""Write a safetensors file: header first, then tensors in any order and from any thread.

Nothing of that name exists until the file is complete. What must not be written over is decided here
too. Knows no models: bytes come from the caller.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO, RawIOBase
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import OutputError
from analyzer.writing.system_calls import start_writing_out
from analyzer.writing.unfinished import new_file, output_errors, remove_abandoned

Content: TypeAlias = bytes | Iterable[bytes]  # of a file: all at once, or in pieces

_ALIGNMENT = 8  # the header is padded so that the data starts at a multiple of this, as the library does
_METADATA = "__metadata__"
_WRITE_OUT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file to be written."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 1 where there is none."""
        count = prod(self.shape)
        return self.nbytes // count if count else 1


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How a safetensors file is laid out."""

    header: bytes
    starts: tuple[int, ...]  # where each entry starts in the file
    size: int  # of the file


class SafetensorsWriter:
    """An open, not yet visible file. `write` is safe to call from many threads."""

    def __init__(self, path: Path, file: FileIO, layout: FileLayout) -> None:
        self._path = path  # what messages call it
        self._file = file  # and not its number, which another file has once this one is closed
        self._starts = layout.starts
        self._lock = threading.Lock()
        self._fresh = 0  # bytes that the system was not yet told to bring to the disk
        self._put(memoryview(layout.header), 0)

    def write(self, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Put bytes of entry `index` where they belong, `offset` bytes into the tensor.

        They may go on into the entries that lie behind it in the file.
        """
        self._put(data.data, self.position(index, offset))

    def position(self, index: int, offset: int = 0) -> int:
        """Where in the file a byte of entry `index` stands."""
        return self._starts[index] + offset

    def _put(self, view: memoryview, position: int) -> None:
        with output_errors(self._path):
            while view:
                written = self._write_some(view, position)
                self._write_out(written)
                view, position = view[written:], position + written

    def _write_out(self, written: int) -> None:
        """Let the disk work while the next tensors are computed, and not only once all are there."""
        with self._lock:
            self._fresh += written
            if self._fresh < _WRITE_OUT_BYTES:
                return
            self._fresh = 0
        start_writing_out(self._file.fileno())

    def _write_some(self, view: memoryview, position: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), view, position)
        with self._lock:  # Windows has one file position for all threads
            self._file.seek(position)
            return self._file.write(view)


@contextlib.contextmanager
def create_safetensors(
    path: Path, entries: Sequence[Entry], metadata: Mapping[str, str], *, force: bool = False
) -> Iterator[SafetensorsWriter]:
    """A writer for the file that will appear at `path` when the block ends well.

    It has the user's ordinary permissions. If anything goes wrong, an interrupt included, nothing is
    left; without `force` nothing is replaced, even if it appeared while the block ran. Raises
    OutputError if the disk is full or the folder cannot be written to. Call `check_target` first.
    """
    layout = layout_of(entries, metadata)
    with output_errors(path):
        remove_abandoned(path.parent)
        check_space(path.parent, layout.size)
    with open_writer(path, layout, shown=path, force=force) as writer:
        yield writer


@contextlib.contextmanager
def open_writer(path: Path, layout: FileLayout, *, shown: Path, force: bool) -> Iterator[SafetensorsWriter]:
    """A writer for the file that appears at `path` when the block ends well; messages call it `shown`."""
    with new_file(path, shown=shown, force=force) as file:
        yield SafetensorsWriter(shown, file, layout)


def check_target(path: Path, *, inputs: Iterable[Path], force: bool, folders: Iterable[Path] = ()) -> None:
    """Refuse what must not be written: an input (through links too), a folder, an existing file.

    So is what would lie in one of `folders`, those of the inputs: whoever opens that would take it for
    a part of the model. `force` allows an existing file to be replaced, an input never. Raises OutputError.
    """
    if path.suffix.lower() != ".safetensors":
        raise OutputError(
            f"{path}: models are written as .safetensors; name the output {path.stem or 'merged'}.safetensors"
        )
    check_files([path], inputs=inputs)
    for folder in folders:
        if is_within(path, folder):
            raise OutputError(
                f"{path}: lies in {folder}, which is an input and would change with it; name another place"
            )
    if os.path.lexists(path) and not force:
        raise OutputError(f"{path}: exists already; name another file, or replace it with --force")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or a pipe; a model needs an ordinary file")


def check_files(paths: Sequence[Path], *, inputs: Iterable[Path]) -> None:
    """Refuse, before any work, outputs over an input, over each other, or where no file can be.

    Raises OutputError, through links too.
    """
    sources = list(inputs)
    for place, path in enumerate(paths):
        with output_errors(path):
            _check_file(path, sources, paths[:place])


def _check_file(path: Path, sources: Sequence[Path], others: Sequence[Path]) -> None:
    for source in sources:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(
                f"{path}: is the input {source}; inputs are never written to, name another file"
            )
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    check_writable(path)
    # Of links that lead in a circle realpath gives one, and Path.resolve a RuntimeError.
    if os.path.realpath(path) in set(map(os.path.realpath, others)) and not _is_stream(path):
        raise OutputError(f"{path}: is named for two outputs; give each a file of its own")


def check_writable(path: Path) -> None:
    """Refuse a place in a folder that the user may not write to, or that nobody may.

    Asked before the work, since to find out afterwards may take an hour. Raises OutputError.
    """
    if not os.access(path.parent, os.W_OK | os.X_OK) and not _is_stream(path):
        raise OutputError(f"{path}: the folder {path.parent} cannot be written to; choose another place")


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path, or what it leads to, is the folder or lies in it, under whatever name."""
    if not folder.exists():
        return False
    named, real = path.absolute(), Path(os.path.realpath(path))
    places = {named, *named.parents, real, *real.parents}
    return any(place.exists() and place.samefile(folder) for place in places)


def write_files(contents: Mapping[Path, Content], *, inputs: Iterable[Path]) -> None:
    """Write scans, reports and tables, all of them or none, replacing earlier ones, never an input.

    Devices and pipes such as /dev/stdout are written to and not replaced. What is large comes in pieces,
    which are made while they are written.
    """
    with files_ready(contents, inputs=inputs):
        pass


@contextlib.contextmanager
def files_ready(contents: Mapping[Path, Content], *, inputs: Iterable[Path]) -> Iterator[None]:
    """The same for files that go with other work: written at once, and there when the block ends well.

    So what can go wrong with them goes wrong before the work.
    """
    check_files(list(contents), inputs=inputs)
    files = {path: data for path, data in contents.items() if not _is_stream(path)}
    with ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(new_file(path, shown=path, force=True))
            with output_errors(path):
                _write_all(file, data)
                os.fsync(file.fileno())  # some disks say only now that they are full
        yield
    for path in contents.keys() - files.keys():
        with output_errors(path), path.open("wb", buffering=0) as stream:
            _write_all(stream, contents[path])


def _write_all(file: RawIOBase, content: Content) -> None:
    """Unbuffered files may take less than they are given."""
    for piece in (content,) if isinstance(content, bytes) else content:
        view = memoryview(piece)
        while view:
            view = view[file.write(view) or 0 :]


def _is_stream(path: Path) -> bool:
    """Whether something stands there that is written to rather than replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def layout_of(entries: Sequence[Entry], metadata: Mapping[str, str]) -> FileLayout:
    """Where everything stands in the file that holds these entries.

    The header lists the entries as given. So does the data, unless that would put an element
    where readers that map the file cannot view it; then wider dtypes come first. Raises OutputError for
    a tensor that is called as the header calls the metadata: pickles may hold one, and no reader finds it.
    """
    if any(entry.key == _METADATA for entry in entries):
        raise OutputError(
            f"a tensor is named {_METADATA}, which a safetensors file cannot hold; rename or remove it first"
        )
    order: Sequence[int] = range(len(entries))
    itemsizes = [entry.itemsize for entry in entries]
    if _misaligned(entries, itemsizes):
        order = sorted(order, key=lambda i: -itemsizes[i])
    offsets, position = [0] * len(entries), 0
    for i in order:
        offsets[i] = position
        position += entries[i].nbytes
    # A file's name that is not valid UTF-8 may stand in the metadata: its bytes become "?".
    text = _header(entries, offsets, metadata).encode(errors="replace")
    text += b" " * (-len(text) % _ALIGNMENT)
    data = 8 + len(text)
    header = struct.pack("<Q", len(text)) + text
    return FileLayout(header, tuple(data + offset for offset in offsets), data + position)


def _header(entries: Sequence[Entry], offsets: Sequence[int], metadata: Mapping[str, str]) -> str:
    """The JSON text, put together: as a tree of objects 100,000 entries would take 70 MB."""
    members = [f"{_json(_METADATA)}:{_json(dict(metadata))}"] if metadata else []
    described: dict[tuple[str, tuple[int, ...]], str] = {}  # what many entries have alike
    for entry, offset in zip(entries, offsets, strict=True):
        form = (entry.dtype, entry.shape)
        if form not in described:
            described[form] = f'{{"dtype":{_json(entry.dtype)},"shape":{_json(entry.shape)},"data_offsets":['
        members.append(f"{_json(entry.key)}:{described[form]}{offset},{offset + entry.nbytes}]}}")
    return f"{{{','.join(members)}}}"


_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _misaligned(entries: Sequence[Entry], itemsizes: Sequence[int]) -> bool:
    position = 0
    for entry, itemsize in zip(entries, itemsizes, strict=True):
        if entry.nbytes and position % itemsize:
            return True
        position += entry.nbytes
    return False


def check_space(folder: Path, size: int) -> None:
    """Fail before the work and not after it. Quotas and other writers can still fail it later.

    Asked for, not reserved: reserving writes every page of a memory file system twice.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
