"""Write a safetensors file: header first, tensors in any order and from any thread, then rename.

Nothing of that name exists until the file is complete. Knows no models: bytes come from the caller.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import OutputError

_ALIGNMENT = 8  # the header is padded so that the data starts at a multiple of this, as the library does
_NEW_FILE_MODE = 0o666  # what open() asks for; the user's umask takes its share


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file to be written."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class SafetensorsWriter:
    """An open, not yet visible file. `write` is safe to call from many threads."""

    def __init__(self, descriptor: int, header: bytes, starts: Sequence[int]) -> None:
        self._descriptor = descriptor
        self._starts = starts
        self._lock = threading.Lock()
        self._put(memoryview(header), 0)

    def write(self, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Put bytes of entry `index` where they belong, `offset` bytes into the tensor."""
        self._put(data.data, self._starts[index] + offset)

    def _put(self, view: memoryview, position: int) -> None:
        while view:
            written = self._write_some(view, position)
            view, position = view[written:], position + written

    def _write_some(self, view: memoryview, position: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, view, position)
        with self._lock:  # Windows has one file position for all threads
            os.lseek(self._descriptor, position, os.SEEK_SET)
            return os.write(self._descriptor, view)


@contextlib.contextmanager
def create_safetensors(
    path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]
) -> Iterator[SafetensorsWriter]:
    """A writer for the file that will appear at `path` when the block ends well.

    The file is built beside its target under another name, synced and renamed, with the user's
    ordinary permissions. If anything goes wrong, an interrupt included, it is removed. Raises
    OutputError if the disk is full or the folder cannot be written to. Call `check_target` first.
    """
    header, starts, size = _layout(entries, metadata)
    temporary = _temporary(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        file = os.fdopen(os.open(temporary, flags, _NEW_FILE_MODE), "wb", buffering=0)
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        with file:
            _check_space(path.parent, size)
            yield SafetensorsWriter(file.fileno(), header, starts)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:  # an interrupt comes here too; after the rename there is nothing to remove
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def check_target(path: Path, *, inputs: Iterable[Path], force: bool) -> None:
    """Refuse what must not be written: an input (through links too), a folder, an existing file.

    Raises OutputError. `force` allows an existing file to be replaced, an input never.
    """
    if path.suffix != ".safetensors":
        raise OutputError(
            f"{path}: models are written as .safetensors; name the output {path.stem}.safetensors"
        )
    check_files([path], inputs=inputs)
    if path.exists() and not force:
        raise OutputError(f"{path}: exists already; name another file, or replace it with --force")


def check_files(paths: Iterable[Path], *, inputs: Iterable[Path]) -> None:
    """Refuse, before any work, to write reports over an input or into a folder that is not there."""
    for path in paths:
        _check_no_input(path, inputs)
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file in it")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")


def write_file(path: Path, data: bytes, *, inputs: Iterable[Path]) -> None:
    """Write a scan, report or table whole or not at all, replacing an earlier one, never an input."""
    check_files([path], inputs=inputs)
    temporary = _temporary(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_no_input(path: Path, inputs: Iterable[Path]) -> None:
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(
                f"{path}: is the input {source}; inputs are never written to, name another file"
            )


def _temporary(path: Path) -> Path:
    """A name beside the target that nobody uses; short enough for any file system."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")


def _layout(entries: Sequence[Entry], metadata: Mapping[str, str]) -> tuple[bytes, list[int], int]:
    """The header's bytes, where each entry starts in the file, and the file's size.

    The header lists the entries as given. So does the data, unless that would put an element
    where readers that map the file cannot view it; then wider dtypes come first.
    """
    order = list(range(len(entries)))
    itemsizes = [_itemsize(entry) for entry in entries]
    if _misaligned(entries, itemsizes):
        order.sort(key=lambda i: -itemsizes[i])
    offsets, position = [0] * len(entries), 0
    for i in order:
        offsets[i] = position
        position += entries[i].nbytes
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for entry, offset in zip(entries, offsets, strict=True):
        document[entry.key] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + entry.nbytes],
        }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    data = 8 + len(text)
    return struct.pack("<Q", len(text)) + text, [data + offset for offset in offsets], data + position


def _misaligned(entries: Sequence[Entry], itemsizes: Sequence[int]) -> bool:
    position = 0
    for entry, itemsize in zip(entries, itemsizes, strict=True):
        if entry.nbytes and position % itemsize:
            return True
        position += entry.nbytes
    return False


def _itemsize(entry: Entry) -> int:
    count = 1
    for n in entry.shape:
        count *= n
    return entry.nbytes // count if count else 1


def _check_space(folder: Path, size: int) -> None:
    """Fail before the work and not after it. Quotas and other writers can still fail it later.

    Asked for, not reserved: reserving writes every page of a memory file system twice.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be synced."""
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{path}: the disk is full; free some space or write elsewhere (nothing was left behind)"
        )
    if error.errno == errno.ENOENT:
        return OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another place")
