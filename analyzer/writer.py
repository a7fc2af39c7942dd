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
from math import prod
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

    def __init__(self, path: Path, descriptor: int, layout: FileLayout) -> None:
        self._path = path  # what messages call it
        self._descriptor = descriptor
        self._starts = layout.starts
        self._lock = threading.Lock()
        self._put(memoryview(layout.header), 0)

    def write(self, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Put bytes of entry `index` where they belong, `offset` bytes into the tensor."""
        self._put(data.data, self._starts[index] + offset)

    def _put(self, view: memoryview, position: int) -> None:
        with output_errors(self._path):
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
    layout = layout_of(entries, metadata)
    temporary = temporary_beside(path)
    try:
        with output_errors(path):
            check_space(path.parent, layout.size)
        with open_writer(temporary, layout, shown=path) as writer:
            yield writer
        with output_errors(path):
            temporary.replace(path)
    finally:  # an interrupt comes here too; after the rename there is nothing to remove
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def open_writer(place: Path, layout: FileLayout, *, shown: Path) -> Iterator[SafetensorsWriter]:
    """A writer for a new file at `place`, synced when the block ends well; messages call it `shown`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with output_errors(shown):
        file = os.fdopen(os.open(place, flags, _NEW_FILE_MODE), "wb", buffering=0)
    with file:
        yield SafetensorsWriter(shown, file.fileno(), layout)
        with output_errors(shown):
            os.fsync(file.fileno())


def check_target(path: Path, *, inputs: Iterable[Path], force: bool) -> None:
    """Refuse what must not be written: an input (through links too), a folder, an existing file.

    Raises OutputError. `force` allows an existing file to be replaced, an input never.
    """
    if path.suffix.lower() != ".safetensors":
        raise OutputError(
            f"{path}: models are written as .safetensors; name the output {path.stem}.safetensors"
        )
    check_files([path], inputs=inputs)
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
    if path.resolve() in {other.resolve() for other in others} and not _is_stream(path):
        raise OutputError(f"{path}: is named for two outputs; give each a file of its own")


def write_files(contents: Mapping[Path, bytes], *, inputs: Iterable[Path]) -> None:
    """Write scans, reports and tables, all of them or none, replacing earlier ones, never an input.

    Devices and pipes such as /dev/stdout are written to and not replaced.
    """
    check_files(list(contents), inputs=inputs)
    files = {path: data for path, data in contents.items() if not _is_stream(path)}
    temporaries = {path: temporary_beside(path) for path in files}
    try:
        for path, data in files.items():
            with output_errors(path):
                temporaries[path].write_bytes(data)
        for path, temporary in temporaries.items():
            with output_errors(path):
                temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):  # where nothing could be written, nothing is there
                temporary.unlink(missing_ok=True)
    for path in contents.keys() - files.keys():
        with output_errors(path):
            path.write_bytes(contents[path])


def _is_stream(path: Path) -> bool:
    """Whether something stands there that is written to rather than replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def temporary_beside(path: Path) -> Path:
    """A name beside the target that nobody uses, short enough wherever the target's is."""
    return path.with_name(f".mergescope-{secrets.token_hex(4)}.part")


def layout_of(entries: Sequence[Entry], metadata: Mapping[str, str]) -> FileLayout:
    """Where everything stands in the file that holds these entries.

    The header lists the entries as given. So does the data, unless that would put an element
    where readers that map the file cannot view it; then wider dtypes come first.
    """
    order = list(range(len(entries)))
    itemsizes = [entry.itemsize for entry in entries]
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
    # A file's name that is not valid UTF-8 may stand in the metadata: its bytes become "?".
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    text += b" " * (-len(text) % _ALIGNMENT)
    data = 8 + len(text)
    header = struct.pack("<Q", len(text)) + text
    return FileLayout(header, tuple(data + offset for offset in offsets), data + position)


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


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be synced."""
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """OutputError, in one sentence about the output, for what the system says of a file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "the disk is full; free some space or write elsewhere (nothing was left behind)"
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            problem = "too many files are open at once; allow more (ulimit -n), or close other programs"
        elif error.errno == errno.ENOENT:
            problem = f"the folder {path.parent} does not exist; create it first"
        else:
            problem = f"cannot be written ({error.strerror or error}); choose another place"
        raise OutputError(f"{path}: {problem}") from error
