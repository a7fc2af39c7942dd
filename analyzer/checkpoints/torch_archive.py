"""Where the records of a torch zip archive lie in its file. Reads directories, never pickles.

torch.save stores each storage as one uncompressed record, `<name>/data/<number>`, so that a tensor can
be read straight from the file. The places come from the archive's own directory, checked against the
file's size; nothing that a pickle says decides where bytes are read. Archives that were packed again
with compression are unpacked into memory here and not by torch, which takes a damaged compressed
record for whatever its memory held before (seen with torch 2.13).
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from analyzer.checkpoints.sources import FileSource, MemorySource
from analyzer.errors import CheckpointError

MAX_PICKLE_BYTES = 100_000_000  # data.pkl describes tensors, like the header of a safetensors file
MAX_EXPANSION = 16  # how many times its file's size a compressed archive may unpack to

# .ZIP File Format Specification 6.3.10, §4.3.7: a local header has 30 bytes, the last four of which
# are the lengths of the name and the extra field that follow; then come the data.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_MAX_REASON = 100  # characters
# What `zipfile` raises on damaged input, apart from its own error.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True)
class Record:
    """Where the bytes of one storage lie."""

    source: int  # 0: the file itself; n: the n-th unpacked block
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """What the directory of a torch archive says."""

    pickle: bytes  # data.pkl
    records: Mapping[str, Record]  # by the storage's name
    blocks: tuple[MemorySource, ...]  # the records that were compressed


def read_archive(source: FileSource) -> Archive:
    """The archive's directory; CheckpointError if it is damaged or no state dict can be in it."""
    try:
        with source.stream() as stream, zipfile.ZipFile(stream) as archive:
            return _read(source, archive)
    except _DAMAGED as error:
        reason = str(error)[:_MAX_REASON]  # may repeat a name of the file's
        raise CheckpointError(
            f"{source.path}: truncated or damaged zip archive ({reason}); download it again"
        ) from error


def without_data(archive: Archive) -> tuple[io.BytesIO, Mapping[int, Record]]:
    """An archive of the same pickle whose storages are empty, and which record each stands for.

    From this torch can tell which storage a tensor uses, by the place where it finds it here, without
    ever seeing the real archive. (From the real one it would compute places from the sizes and the
    order in the pickle, which is wrong for archives that another tool has packed again.)
    """
    stream = io.BytesIO()
    places: dict[int, Record] = {}
    with zipfile.ZipFile(stream, "w") as copy:
        copy.writestr("archive/data.pkl", archive.pickle)
        copy.writestr("archive/version", b"3\n")
        for name, record in archive.records.items():
            copy.writestr(zipfile.ZipInfo(f"archive/data/{name}"), b"")
            places[stream.tell()] = record
    stream.seek(0)
    return stream, places


def _read(source: FileSource, archive: zipfile.ZipFile) -> Archive:
    names = archive.namelist()
    pickle_name = next((n for n in names if n.endswith("/data.pkl") and n.count("/") == 1), None)
    if pickle_name is None:
        raise CheckpointError(
            f"{source.path}: is a zip archive without data.pkl, so no torch checkpoint; unpack it if it "
            "holds a model"
        )
    prefix = pickle_name.removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise CheckpointError(
            f"{source.path}: is a TorchScript program, and mergescope never runs code from a model file; "
            "where you trust it, load it and save its state dict as safetensors"
        )
    most = min(MAX_PICKLE_BYTES, MAX_EXPANSION * source.size)
    if archive.getinfo(pickle_name).file_size > most:
        raise CheckpointError(
            f"{source.path}: its data.pkl has more than {most} bytes, which no state dict needs; "
            "get the model from another source"
        )
    if not _is_little_endian(archive, f"{prefix}byteorder"):
        raise CheckpointError(
            f"{source.path}: was saved on a big-endian machine, which this version does not read; save it "
            "as safetensors there"
        )
    return Archive(archive.read(pickle_name), *_place_all(source, archive, f"{prefix}data/"))


def _is_little_endian(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether the record says so; older torch did not write it, and knew no other order."""
    if name not in archive.namelist():
        return True
    return archive.getinfo(name).file_size == len(b"little") and archive.read(name) == b"little"


def _place_all(
    source: FileSource, archive: zipfile.ZipFile, prefix: str
) -> tuple[dict[str, Record], tuple[MemorySource, ...]]:
    records: dict[str, Record] = {}
    blocks: list[MemorySource] = []
    budget = MAX_EXPANSION * source.size
    stored = 0
    for entry in archive.infolist():
        name = entry.filename.removeprefix(prefix)
        if not entry.filename.startswith(prefix):
            continue
        if entry.compress_type == zipfile.ZIP_STORED:
            records[name] = _place(source, entry)
            stored += entry.file_size
            if stored > source.size:  # all of them may be loaded, each as often as it is named
                raise zipfile.BadZipFile("its records overlap")
            continue
        budget -= entry.file_size
        if budget < 0:
            raise CheckpointError(
                f"{source.path}: unpacks to more than {MAX_EXPANSION} times its size; "
                "get the model from another source"
            )
        block = archive.read(entry)
        blocks.append(MemorySource(memoryview(block)))
        records[name] = Record(len(blocks), 0, len(block))
    return records, tuple(blocks)


def _place(source: FileSource, entry: zipfile.ZipInfo) -> Record:
    """The place of an uncompressed record, which must lie in the file."""
    start = entry.header_offset + _LOCAL_HEADER.size
    if start > source.size:
        raise zipfile.BadZipFile("a record lies outside of the file")
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(
        source.read(entry.header_offset, _LOCAL_HEADER.size)
    )
    start += name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or start + entry.file_size > source.size:
        raise zipfile.BadZipFile("a record lies outside of the file")
    if entry.flag_bits & _ENCRYPTED:
        raise zipfile.BadZipFile("it is encrypted")
    return Record(0, start, entry.file_size)
