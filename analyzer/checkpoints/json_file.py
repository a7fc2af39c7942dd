"""Read the JSON files that lie beside weights: an index, a pipeline's description. Trusts nothing.

The header of a safetensors file is parsed here too: all JSON is held to the same rules.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from analyzer.checkpoints.checkpoint import shown
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

MAX_GROUPS = 1_000_000  # objects and lists, which take 27 times their text: 300,000 describe 100,000 tensors

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
    return parse_object(path, text)


def parse_object(path: Path, text: bytes, *, what: str = "") -> dict[str, Any]:
    """The object that the text holds; `what` is the part of the file, as messages begin: "the header "."""
    if text.count(b"{") + text.count(b"[") > MAX_GROUPS:
        raise CheckpointError(
            f"{path}: {what}holds more than {MAX_GROUPS} objects and lists, as no model does; "
            "get it from another source"
        )
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise CheckpointError(f"{path}: {what}is nested too deeply; {_AGAIN}") from error
    except ValueError as error:  # JSON, UTF-8, a number of thousands of digits, a name that stands twice
        raise CheckpointError(f"{path}: {what}cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path}: {what}is not a JSON object; {_AGAIN}")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {shown(name)} stands twice")
            seen.add(name)
    return unique


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
