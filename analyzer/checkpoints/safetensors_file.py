"""Read the header of a .safetensors file. Trusts nothing in it and never touches the tensors.

The format: 8 bytes with the header's length N, little-endian; N bytes of JSON, which name dtype,
shape and place of every tensor; then the tensors, without gaps. What the safetensors library refuses
is refused here, and so are keys that stand twice, of which the library silently drops one.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from analyzer.checkpoints.checkpoint import Checkpoint, require_key, shown
from analyzer.checkpoints.dtypes import DTYPES, PACKED
from analyzer.checkpoints.json_file import parse_object
from analyzer.checkpoints.sound_header import MAX_AXES, METADATA, read_sound
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError
from analyzer.records import TensorInfo

MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library
MAX_DIMENSION = 2**63 - 1

_LENGTH_BYTES = 8
_AGAIN = "the file is damaged, get it again"


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file that starts with these bytes can only be safetensors: a sane length, then JSON."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES


def open_safetensors(source: FileSource) -> Checkpoint:
    """The checkpoint that the file holds; CheckpointError says what is wrong with its header."""
    path = source.path
    header = _read_header(source)
    start = _LENGTH_BYTES + len(header)
    infos, metadata = read_sound(header, start, source.size) or _read_carefully(source, header, start)
    return Checkpoint(
        path=path,
        format="safetensors",
        files=(path,),
        bytes=source.size,
        metadata=MappingProxyType(metadata),
        infos=MappingProxyType(infos),
        header=header,
        sources=(source,),
    )


def _read_carefully(
    source: FileSource, header: bytes, start: int
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors and the metadata, each checked by itself; CheckpointError says what is wrong."""
    entries = parse_object(source.path, header, what="the header ")
    metadata = _metadata(source.path, entries.pop(METADATA, None))
    infos = {key: _info(source.path, key, entry, start) for key, entry in entries.items()}
    _check_layout(source, infos.values(), start)
    return infos, metadata


def _read_header(source: FileSource) -> bytes:
    if source.size < _LENGTH_BYTES:
        raise CheckpointError(
            f"{source.path}: has only {source.size} bytes, too few for a safetensors file; download it again"
        )
    length = int.from_bytes(source.read(0, _LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{source.path}: is not a safetensors file, or it is damaged: its header would have "
            f"{length} bytes, and {MAX_HEADER_BYTES} is the most; get it again"
        )
    if _LENGTH_BYTES + length > source.size:
        raise CheckpointError(
            f"{source.path}: truncated: the header should end at byte {_LENGTH_BYTES + length}, "
            f"the file has {source.size}; download it again"
        )
    return source.read(_LENGTH_BYTES, length)


def _metadata(path: Path, metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: __metadata__ in the header is not an object; {_AGAIN}")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise CheckpointError(
                f"{path}: __metadata__ in the header holds {shown(name)}, which is not a string as the "
                "format demands; save the model again"
            )
        require_key(path, name)
        require_key(path, value)
    return metadata


def _info(path: Path, key: str, entry: object, start: int) -> TensorInfo:
    """One tensor, checked by itself; `start` is where the tensors begin in the file."""
    require_key(path, key)
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: the header's entry for {shown(key)} is not an object; {_AGAIN}")
    name = _dtype(path, key, entry.get("dtype"))
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or len(shape) > MAX_AXES:
        raise CheckpointError(
            f"{path}: the shape of {shown(key)} is not a list of at most {MAX_AXES} sizes; {_AGAIN}"
        )
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{path}: data_offsets of {shown(key)} are not two positions, start and end; {_AGAIN}"
        )
    needed, given = prod(shape) * DTYPES[name].itemsize, offsets[1] - offsets[0]
    if needed != given:
        raise CheckpointError(
            f"{path}: {shown(key)} needs {needed} bytes by its shape and dtype, and its data_offsets "
            f"span {given}; {_AGAIN}"
        )
    return TensorInfo(key=key, dtype=name, shape=tuple(shape), offset=start + offsets[0], nbytes=given)


def _dtype(path: Path, key: str, name: object) -> str:
    if not isinstance(name, str):
        raise CheckpointError(f"{path}: the header gives {shown(key)} no dtype; {_AGAIN}")
    if name in PACKED:
        raise CheckpointError(
            f"{path}: {shown(key)} is {name}, whose elements are not whole bytes; this version does not "
            "read it, use a model in fp16 or fp8"
        )
    if name not in DTYPES:
        raise CheckpointError(
            f"{path}: {shown(key)} has the unknown dtype {shown(name)}; known are {', '.join(DTYPES)}"
        )
    return name


def _are_counts(values: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers that a file can address; True is not a number here."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= MAX_DIMENSION for v in values)


def _check_layout(source: FileSource, infos: Iterable[TensorInfo], start: int) -> None:
    """The tensors must fill the rest of the file, without overlap and without holes."""
    path = source.path
    ordered = sorted(infos, key=lambda i: (i.offset, i.offset + i.nbytes))
    end = max((i.offset + i.nbytes for i in ordered), default=start)
    if end > source.size:
        raise CheckpointError(
            f"{path}: truncated: the header promises {end} bytes, the file has {source.size}; "
            "download it again"
        )
    if ordered and ordered[0].offset > start:
        raise CheckpointError(f"{path}: there is a hole before {shown(ordered[0].key)}; {_AGAIN}")
    for one, two in pairwise(ordered):
        if one.offset + one.nbytes != two.offset:
            what = "overlap" if one.offset + one.nbytes > two.offset else "have a hole between them"
            raise CheckpointError(f"{path}: {shown(one.key)} and {shown(two.key)} {what}; {_AGAIN}")
    if end < source.size:
        raise CheckpointError(
            f"{path}: goes on for {source.size - end} bytes after its last tensor; {_AGAIN}"
        )
