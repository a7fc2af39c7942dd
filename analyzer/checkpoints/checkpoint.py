"""An open model: its tensors by name, and their bytes on demand. Knows no formats and no keys' meaning.

Every container reduces to this: a list of `TensorInfo` over a few sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.sources import AbstractSource
from analyzer.checkpoints.views import read_view
from analyzer.errors import CheckpointError
from analyzer.records import TensorInfo

SAMPLE_BYTES = 4096
_READ_BYTES = 1 << 20

_Header = bytes  # under another name, since `bytes` below is the size of the model


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the files in a model's folder that hold its tensors."""

    path: Path
    name: str  # relative to the folder, with forward slashes
    format: str
    metadata: Mapping[str, str]
    keys: tuple[str, ...]  # as the whole model has them, in the order of the file's header
    part: str = ""  # the sub-model that it belongs to: stands, with a dot, before its keys


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Checkpoint:
    """A model that is open for reading, by any number of threads. Close it, or use `with`."""

    path: Path  # as the user named it
    format: str  # "safetensors", "torch", "gguf", or of a folder "sharded" or "diffusers"
    files: tuple[Path, ...]  # all that were opened: an output may be none of them
    bytes: int  # size of all files
    metadata: Mapping[str, str]
    infos: Mapping[str, TensorInfo]  # by raw key, in the order of the header
    header: _Header = field(repr=False)  # what describes the tensors, for the fingerprint
    sources: tuple[AbstractSource, ...] = field(repr=False)
    notes: tuple[str, ...] = ()  # a sentence about each oddity that the user should know of
    folder: Path | None = None  # the model's own; None if a single file was named
    shards: tuple[Shard, ...] = ()  # the files in it that hold tensors, in the order of `infos`
    _fingerprints: list[str] = field(default_factory=list, init=False, repr=False)  # once it was asked for

    def read_into(self, info: TensorInfo, start: int, buffer: memoryview | NDArray[np.uint8]) -> None:
        """Fill the whole buffer with the tensor's bytes from its byte `start` on.

        Little-endian and in row-major order, as safetensors has them. Raises CheckpointError if
        the file ends early or cannot be read.
        """
        target = buffer if isinstance(buffer, memoryview) else buffer.data
        assert 0 <= start <= start + len(target) <= info.nbytes, "a read outside of its tensor"
        source = self.sources[info.source]
        if info.view is None:
            source.read_into(info.offset + start, target)
        else:
            read_view(source, info, start, target)

    def fingerprint(self) -> str:
        """What the model holds, as "sha256:…"; the same under any path and at any time.

        Hashed are, in this order: the size of all files and the length of the header, each as 8
        bytes, little-endian; the header; and of every tensor, in the header's order, its first,
        middle and last 4 KiB (the middle starting at byte (nbytes − 4096) // 2), or all of it if
        it has at most 12 KiB. The header is the JSON text of a safetensors file, data.pkl of a
        torch archive, of an older torch pickle a list of its keys, dtypes and shapes, and of a GGUF
        file everything up to the end of the last tensor's description.

        It tells models apart by reading a few megabytes; it is no proof against a forger. Those are read
        when it is first asked for.
        """
        if not self._fingerprints:
            self._fingerprints.append(self._digest())
        return self._fingerprints[0]

    def _digest(self) -> str:
        digest = hashlib.sha256()
        digest.update(self.bytes.to_bytes(8, "little"))
        digest.update(len(self.header).to_bytes(8, "little"))
        digest.update(self.header)
        buffer = np.empty(_READ_BYTES, np.uint8)
        whole: list[TensorInfo] = []  # neighbours that are read in one go: of small tensors all is hashed
        size = 0
        for info in self.infos.values():
            stored = info.encoded or info
            small = stored.nbytes <= 3 * SAMPLE_BYTES and stored.view is None
            if whole and not (small and size + stored.nbytes <= len(buffer) and _follows(stored, whole[-1])):
                digest.update(self._read_together(whole, buffer[:size]))
                whole, size = [], 0
            if small:
                whole.append(stored)
                size += stored.nbytes
                continue
            for start, count in _samples(stored.nbytes):
                part = buffer[:count]
                self.read_into(stored, start, part)
                digest.update(part.data)
        if whole:
            digest.update(self._read_together(whole, buffer[:size]))
        return f"sha256:{digest.hexdigest()}"

    def _read_together(self, infos: Sequence[TensorInfo], buffer: NDArray[np.uint8]) -> memoryview:
        """The bytes of tensors that lie one after the other."""
        self.sources[infos[0].source].read_into(infos[0].offset, buffer.data)
        return buffer.data

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        for source in self.sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shown(text: str) -> str:
    """A name out of a file, fit for a message: quoted, escaped and of bounded length."""
    quoted = repr(text[:100])
    return quoted if len(text) <= 100 else f"{quoted}…"


def require_key(path: Path, key: str) -> None:
    """CheckpointError if a key cannot be written down; lone surrogates can be spelled in JSON and pickles."""
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{path}: the name {shown(key)} is not valid Unicode; the file is damaged, get it again"
        ) from error


def _follows(info: TensorInfo, other: TensorInfo) -> bool:
    return info.source == other.source and info.offset == other.offset + other.nbytes


def _samples(nbytes: int) -> Iterator[tuple[int, int]]:
    """(start, count) of the parts of a tensor that enter the fingerprint."""
    if nbytes <= 3 * SAMPLE_BYTES:
        yield 0, nbytes
    else:
        for start in (0, (nbytes - SAMPLE_BYTES) // 2, nbytes - SAMPLE_BYTES):
            yield start, SAMPLE_BYTES
