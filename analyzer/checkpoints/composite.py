"""Several open checkpoints as one. Knows neither folders nor indexes, and opens nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from analyzer.checkpoints.checkpoint import Checkpoint, Shard, shown
from analyzer.checkpoints.sources import AbstractSource
from analyzer.errors import CheckpointError
from analyzer.records import TensorInfo

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a model that consists of several."""

    name: str  # relative to the model's folder, with forward slashes
    checkpoint: Checkpoint
    part: str = ""  # the sub-model that it belongs to: stands, with a dot, before its keys


def join(
    path: Path, container: str, members: Sequence[Member], *, files: Sequence[Path], notes: Sequence[str]
) -> Checkpoint:
    """All members as one checkpoint, in their order; closing it closes them.

    `files` are those opened beside the members' own. CheckpointError if a key stands in two members.
    The header, from which the fingerprint is made, is that of every member in the order of their names:
    length of the name, name, length of the header, header; lengths as 8 bytes, little-endian.
    """
    infos: dict[str, TensorInfo] = {}
    sources: list[AbstractSource] = []
    holders: dict[str, str] = {}
    twice: list[str] = []
    for member in members:
        for info in member.checkpoint.infos.values():
            moved = _moved(info, member.part, len(sources))
            if moved.key in infos:
                twice.append(f"{shown(moved.key)} in {holders[moved.key]} and {member.name}")
            infos[moved.key] = moved
            holders[moved.key] = member.name
        sources.extend(member.checkpoint.sources)
    if twice:
        raise CheckpointError(
            f"{path}: the same key stands in two files: {listed(twice)}; the files do not belong together, "
            "get the model again"
        )
    inner = [note for member in members for note in member.checkpoint.notes]
    return Checkpoint(
        path=path,
        format=container,
        files=(*files, *(file for member in members for file in member.checkpoint.files)),
        bytes=sum(member.checkpoint.bytes for member in members),
        metadata=MappingProxyType(_shared_metadata(members)),
        infos=MappingProxyType(infos),
        header=_header(members),
        sources=tuple(sources),
        notes=(*notes, *inner),
        folder=folder_of(members[0]) if members else None,
        shards=tuple(shard_of(member) for member in members),
    )


def folder_of(member: Member) -> Path:
    """The model's folder, which the names of its members are relative to."""
    return member.checkpoint.path.parents[member.name.count("/")]


def shard_of(member: Member) -> Shard:
    """The member without its open file."""
    model = member.checkpoint
    keys = tuple(f"{member.part}.{key}" if member.part else key for key in model.infos)
    return Shard(model.path, member.name, model.format, model.metadata, keys, member.part)


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """The first names and how many more there are; names of files may hold any character."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if name.isprintable() else shown(name) for name in names[:most]) + more


def _moved(info: TensorInfo, part: str, first: int) -> TensorInfo:
    """The tensor under its key in the joined model, with its source among the joined ones."""
    key = f"{part}.{info.key}" if part else info.key
    encoded = _moved(info.encoded, part, first) if info.encoded else None
    return replace(info, key=key, part=part, source=first + info.source, encoded=encoded)


def _shared_metadata(members: Sequence[Member]) -> dict[str, str]:
    """What all files say alike."""
    if not members:
        return {}
    first, *others = (member.checkpoint.metadata for member in members)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _header(members: Sequence[Member]) -> bytes:
    pieces: list[bytes] = []
    for member in sorted(members, key=lambda m: m.name):
        for piece in (member.name.encode(errors="replace"), member.checkpoint.header):
            pieces += [len(piece).to_bytes(8, "little"), piece]
    return b"".join(pieces)
