"""The SHA-256 of a model's files, from the bytes that a pass over its tensors reads anyway.

Threads bring what they read in about the order of the file, and each hashes what it brought if it is its
turn. What comes early is held, a bounded amount of it for all files together; what nobody brings, as
headers and tensors without a partner, is read in between.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
from contextlib import closing
from pathlib import Path

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.checkpoints.sources import FileSource, Watch

HELD_BYTES = 32 << 20  # of a model, at most, but for one read a thread
_READ_BYTES = 1 << 22


class ModelHasher:
    """Hashes the files of an open model while they are read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._files = {
            source.path: FileHasher(source) for source in checkpoint.sources if isinstance(source, FileSource)
        }
        for hasher in self._files.values():
            hasher.source.watch = self._watch_of(hasher)

    def digests(self) -> str | dict[str, str]:
        """The digest of the file as `sha256sum` prints it, or of a folder's files by their names in it.

        Reads whatever has not been read; to be called when the pass is over.
        """
        digests = {path: self._digest(path) for path in self._checkpoint.files}
        if self._checkpoint.folder is None and len(digests) == 1:
            return next(iter(digests.values()))
        folder = self._checkpoint.folder or self._checkpoint.path.parent
        return {_spelled(path.relative_to(folder)): digest for path, digest in digests.items()}

    def _watch_of(self, hasher: FileHasher) -> Watch:
        """What takes a file's bytes, and sees to it that files that were read before hold few of theirs."""

        def take(offset: int, data: memoryview) -> None:
            hasher.take(offset, data)
            if sum(each.held_bytes for each in self._files.values()) >= HELD_BYTES:
                max(self._files.values(), key=lambda each: each.held_bytes).release()

        return take

    def _digest(self, path: Path) -> str:
        if path in self._files:
            return self._files[path].digest()
        with closing(FileSource(path)) as source:  # what holds no tensors: an index
            return FileHasher(source).digest()


def _spelled(path: Path) -> str:
    """The name, which on Linux may be any bytes, as a text that JSON can hold; no two become one."""
    return path.as_posix().encode(errors="backslashreplace").decode()


class FileHasher:
    """The digest of one file, whose bytes come from any thread and in any order."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self._sha256 = hashlib.sha256()
        self._position = 0  # everything before it is hashed
        self._busy = False  # a thread is hashing
        self._held: list[tuple[int, bytes]] = []  # a heap: what came early, by its place
        self.held_bytes = 0
        self._changed = threading.Condition()

    def take(self, offset: int, data: memoryview) -> None:
        """Hash what was read at this place, or hold a copy of it. Waits for a thread that is hashing."""
        end = offset + len(data)
        with self._changed:
            # Only for room that a thread makes by hashing: whoever has the bytes to come may wait as well.
            self._changed.wait_for(
                lambda: not self._busy or self.held_bytes < HELD_BYTES or end <= self._position
            )
            if end <= self._position:
                return
            if self._busy or offset > self._position:
                heapq.heappush(self._held, (offset, bytes(data)))
                self.held_bytes += len(data)
                if self._busy or self.held_bytes < HELD_BYTES:
                    return
                data = data[:0]  # what is held goes on only with what nobody has brought
            else:
                data = data[self._position - offset :]
            self._busy = True
        self._hash_alone(data, room=HELD_BYTES)

    def release(self) -> None:
        """Hash all that is held, unless a thread is hashing anyway."""
        with self._changed:
            if self._busy or not self._held:
                return
            self._busy = True
        self._hash_alone(memoryview(b""), room=1)

    def digest(self) -> str:
        """In hexadecimal; reads what is lacking. For when no more bytes come."""
        while self._position < self.source.size:
            part = self._next_held() or self._read_gap()
            self._sha256.update(part)
            self._position += len(part)
        return self._sha256.hexdigest()

    def _hash_alone(self, part: memoryview, *, room: int) -> None:
        """As the one thread that is busy, which it is no more in the end."""
        try:
            self._hash(part, room)
        except BaseException:  # the file could not be read: the other threads must not wait for ever
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            raise

    def _hash(self, part: memoryview | bytearray | None, room: int) -> None:
        """Hash it and what is held behind it, and read what lies before the rest if that fills the room."""
        while part is not None:
            self._sha256.update(part)
            with self._changed:
                self._position += len(part)
                part = self._next_held()
                full = bool(self._held) and self.held_bytes >= room
                if part is None and not full:
                    self._busy = False  # under the lock: what comes now is for the next one to hash
                self._changed.notify_all()
            if part is None and full:
                part = self._read_gap()

    def _next_held(self) -> memoryview | None:
        """What is held of the bytes from the position on, if anything."""
        while self._held and self._held[0][0] <= self._position:
            offset, data = heapq.heappop(self._held)
            self.held_bytes -= len(data)
            if offset + len(data) > self._position:
                return memoryview(data)[self._position - offset :]
        return None

    def _read_gap(self) -> bytearray:
        """Some of the bytes before what is held, or before the end of the file."""
        with self._changed:
            end = self._held[0][0] if self._held else self.source.size
        block = bytearray(min(end - self._position, _READ_BYTES))
        self.source.fill(self._position, memoryview(block))
        return block
