"""Open the shards of one model. The shards' own headers are the truth; the index is checked against them.

The index is JSON: `weight_map` says of every key in which file it lies, relative to the index.
https://huggingface.co/docs/transformers/big_models
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from analyzer.checkpoints.checkpoint import Checkpoint, require_key, shown
from analyzer.checkpoints.composite import Member, listed
from analyzer.checkpoints.json_file import read_json_object
from analyzer.errors import CheckpointError

MAX_INDEX_BYTES = 100_000_000  # as the header of a safetensors file, which names the same keys
MAX_SHARDS = 10_000
MAX_NAME = 255  # bytes of a file's name, on the systems that people use

OpenFile = Callable[[Path], Checkpoint]


def read_index(path: Path) -> dict[str, str]:
    """The name of the shard that holds each key; CheckpointError if one might lead out of the folder."""
    weight_map = read_json_object(path, limit=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{path}: holds no weight_map, and so is no index of shards; get it again")
    if not weight_map:
        raise CheckpointError(f"{path}: its weight_map is empty; get it again")
    shards: dict[str, None] = {}
    for key, shard in weight_map.items():
        require_key(path, key)
        if not isinstance(shard, str):
            raise CheckpointError(f"{path}: names no file for the key {shown(key)}; get it again")
        shards[shard] = None
    bad = [shown(shard) for shard in shards if not _is_inside(shard)]
    if bad:
        raise CheckpointError(
            f"{path}: names shards that are not plain names of files below its own folder: {listed(bad)}; "
            "do not use this model unless you know why"
        )
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(
            f"{path}: names {len(shards)} shards, and {MAX_SHARDS} is the most; get it again"
        )
    return weight_map


def open_shards(index: Path, weight_map: Mapping[str, str], open_file: OpenFile) -> list[Member]:
    """The shards that the index names, in the order of their names, checked against it."""
    names = sorted(set(weight_map.values()))
    members = open_members(index, index.parent, names, open_file)
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.checkpoint.close)
        _compare(index, weight_map, members)
        stack.pop_all()
    return members


def open_members(path: Path, folder: Path, names: Sequence[str], open_file: OpenFile) -> list[Member]:
    """The files of one model, all or none of them; errors are about `path`, or the file that has one."""
    missing = [name for name in names if not _exists(folder / name)]
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of {len(names)} files are missing: {listed(missing)}; "
            "the download is incomplete, finish it"
        )
    members: list[Member] = []
    with ExitStack() as stack:
        for name in names:
            checkpoint = open_file(folder / name)
            stack.callback(checkpoint.close)
            members.append(Member(name, checkpoint))
        stack.pop_all()
    return members


def _is_inside(name: str) -> bool:
    """Whether it is the relative name of a file in the folder or below it, on every system."""
    parts = name.split("/")
    return (
        name.isprintable()
        and not any(sign in name for sign in '\\:*?"<>|')
        and len(name.encode()) <= MAX_NAME
        and all(part and part != ".." and part != "." for part in parts)
    )


def _exists(path: Path) -> bool:
    """Whether there is something under this name, a link that leads nowhere not counted."""
    try:
        return path.exists()
    except OSError:  # why it cannot be looked at is said when it is opened
        return True


def _compare(index: Path, weight_map: Mapping[str, str], members: Sequence[Member]) -> None:
    """CheckpointError that lists where index and shards disagree."""
    held = {member.name: member.checkpoint.infos.keys() for member in members}
    count = Counter(key for keys in held.values() for key in keys)
    twice = [
        f"{shown(key)} in {' and '.join(name for name, keys in held.items() if key in keys)}"
        for key, times in count.items()
        if times > 1
    ]
    lacking = [f"{shown(key)} of {shard}" for key, shard in weight_map.items() if key not in held[shard]]
    unnamed = [
        f"{shown(key)} of {name}"
        for name, keys in held.items()
        for key in keys
        if weight_map.get(key) != name and count[key] == 1
    ]
    problems = [
        f"{what} {listed(where)}"
        for what, where in (
            ("the same key stands in two shards:", twice),
            ("the index names what the shard lacks:", lacking),
            ("a shard holds what the index does not name there:", unnamed),
        )
        if where
    ]
    if problems:
        raise CheckpointError(
            f"{index}: the index and its shards disagree: {'; '.join(problems)}; the files are not of one "
            "model, or one of them is damaged: get all of them again"
        )
