"""Read the JSON files that lie beside weights: an index, a pipeline's description. Trusts nothing."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from analyzer.checkpoints.checkpoint import shown
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

_AGAIN = "the file is damaged, get it again"


def read_json_object(path: Path, *, limit: int) -> dict[str, Any]:
    """The object in the file, its values unchecked; CheckpointError beyond `limit` bytes or if it is none."""
    with closing(FileSource(path)) as source:
        if source.size > limit:
            raise CheckpointError(
                f"{path}: has {source.size} bytes, and {limit} is the most that is read of such a file; "
                "get it again"
            )
        text = source.read(0, source.size)
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise CheckpointError(f"{path}: is nested too deeply; {_AGAIN}") from error
    except ValueError as error:  # JSON, UTF-8, a number of thousands of digits, a name that stands twice
        raise CheckpointError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path}: is not a JSON object; {_AGAIN}")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"the name {shown(name)} stands twice")
        unique[name] = value
    return unique


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
