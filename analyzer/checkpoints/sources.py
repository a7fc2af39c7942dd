"""Where the bytes of tensors come from: a file, or a block of memory. Knows no formats.

Files are read by position into the caller's buffer and never mapped: mapped pages count as memory
in use, and a mapped file that shrinks kills the process.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from analyzer.errors import CheckpointError

Watch = Callable[[int, memoryview], None]  # the place of what was read, and the bytes, valid during the call


class AbstractSource(ABC):
    """Bytes that can be read from any position, by many threads at once."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer with the bytes from `offset` on; CheckpointError if they end early."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the source holds; a second call does nothing."""


class MemorySource(AbstractSource):
    """A block of memory, for tensors that do not lie in their file as they are meant."""

    def __init__(self, block: memoryview) -> None:
        self._block = block

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Copy from the block, which is as long as its tensor."""
        buffer[:] = self._block[offset : offset + len(buffer)]

    def close(self) -> None:
        """Let the block go."""
        self._block = memoryview(b"")


class FileSource(AbstractSource):
    """An open regular file. Raises CheckpointError, with the reason, if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            # Asked before opening: opening a pipe would wait for its writer.
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path}: is not a regular file; name a model file")
            self._file = path.open("rb", buffering=0)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise CheckpointError(f"{path}: {_reason(error)}") from error
        self.size = os.fstat(self._file.fileno()).st_size
        self.watch: Watch | None = None
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer, and show it to who watches what is read."""
        self.fill(offset, buffer)
        if self.watch is not None:
            self.watch(offset, buffer)

    def fill(self, offset: int, buffer: memoryview) -> None:
        """Read until the buffer is full; the system may deliver less than asked at a time."""
        done = 0
        while done < len(buffer):
            count = self._read_some(offset + done, buffer[done:])
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ended early, at byte {offset + done}, although it had {self.size} bytes "
                    "when it was opened; leave the file alone while it is being read, and try again"
                )
            done += count

    def read(self, offset: int, count: int) -> bytes:
        """The bytes from `offset` on, for headers."""
        block = bytearray(count)
        self.read_into(offset, memoryview(block))
        return bytes(block)

    def stream(self) -> io.BufferedReader:
        """The file as a seekable stream of its own position, without a file descriptor."""
        return io.BufferedReader(_Stream(self))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._file.fileno(), [buffer], offset)
            # Windows has one position a file, so threads take turns.
            with self._lock:
                self._file.seek(offset)
                return self._file.readinto(buffer)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be read at byte {offset}: {_reason(error)}"
            ) from error


class _Stream(io.RawIOBase):
    """What loaders that want a file object read through. Closing it leaves the source open."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise OSError("seek before the start of the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any buffer; BufferedReader passes a memoryview
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._source.size - self._position))
        self._source.read_into(self._position, view[:count])
        self._position += count
        return count


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; check the spelling of its name"
    if isinstance(error, PermissionError):
        return "permission denied; allow reading it, or copy it to where you may"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "more files are needed at once than the system lets open; allow more, with `ulimit -n 4096`"
    return (getattr(error, "strerror", None) or str(error)).lower()
