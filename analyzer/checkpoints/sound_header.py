"""The fast road through a safetensors header: all tensors at once, or nothing if anything is odd.

What stands here only ever accepts, and accepts no more than `safetensors_file` does tensor by tensor. What
it does not accept is looked at again there, which says what is wrong, or takes what is merely unusual.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.checkpoints.json_file import MAX_GROUPS
from analyzer.records import TensorInfo

METADATA = "__metadata__"
MAX_AXES = 64  # as in numpy and torch

_FIELDS = ("dtype", "shape", "data_offsets")


def read_sound(header: bytes, start: int, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]] | None:
    """The tensors and the metadata of a header in which nothing is odd; None of any other.

    `start` is where the tensors begin in the file, `size` the bytes of the whole file.
    """
    if header.count(b"{") + header.count(b"[") > MAX_GROUPS:
        return None
    try:
        entries = orjson.loads(header)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(entries, dict):
        return None
    described = METADATA in entries
    metadata = entries.pop(METADATA, None)
    if not (metadata is None or _is_text(metadata)) or not _has_only_the_fields(entries.values()):
        return None
    colons = described + _colons(metadata or {}) + _colons(entries) + len(_FIELDS) * len(entries)
    if not _stands_once(header, colons):
        return None
    infos = _infos(entries, start, size)
    return None if infos is None else (infos, metadata or {})


def _stands_once(header: bytes, colons: int) -> bool:
    """Whether no name stands twice, of which the parser drops all but the last; `colons` are those it kept.

    Every name is followed by a colon, so what is dropped takes one away at least. None may be spelled
    otherwise (as the escape for its code), or the two counts could be equal by chance.
    """
    return header.count(b":") == colons and b"\\u003" not in header


def _colons(fields: Mapping[str, Any]) -> int:
    """The colons behind the names of an object, in the names, and in values that are texts."""
    texts = chain(fields, (value for value in fields.values() if isinstance(value, str)))
    return len(fields) + "".join(texts).count(":")


def _is_text(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def _has_only_the_fields(entries: Any) -> bool:
    """Whether each is an object with so many fields; which they are shows when they are read."""
    return set(map(type, entries)) <= {dict} and set(map(len, entries)) <= {len(_FIELDS)}


def _infos(entries: Mapping[str, Any], start: int, size: int) -> dict[str, TensorInfo] | None:
    """The tensors, if each is sound and together they fill the file."""
    if not entries:
        return {} if size == start else None
    try:
        dtypes, shapes, offsets = zip(*map(itemgetter(*_FIELDS), entries.values()), strict=True)
        if max(map(len, shapes)) > MAX_AXES or set(map(len, offsets)) != {2}:
            return None
        bounds = _counts(offsets).reshape(-1, 2)
        _counts(shapes)
        kinds = list(zip(dtypes, map(tuple, shapes), strict=True))
        known = {kind: (*kind, prod(kind[1]) * DTYPES[kind[0]].itemsize) for kind in set(kinds)}
        described = [known[kind] for kind in kinds]  # equal shapes are one object
        needed = np.array([nbytes for _, _, nbytes in described], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not _fill(bounds, needed, size - start):
        return None
    places = (bounds[:, 0] + start).tolist()
    return {
        key: TensorInfo(key, dtype, shape, offset, nbytes)
        for key, (dtype, shape, nbytes), offset in zip(
            map(sys.intern, entries), described, places, strict=True
        )
    }


def _counts(lists: Sequence[Any]) -> NDArray[np.int64]:
    """What stands in the lists, one after the other; a TypeError or ValueError if that is not all counts."""
    if set(map(type, lists)) != {list}:
        raise TypeError("not a list")
    flat = list(chain.from_iterable(lists))
    if not set(map(type, flat)) <= {int}:  # neither True nor 1.0
        raise TypeError("not a whole number")
    counts = np.array(flat, np.int64)  # OverflowError from 2^63 on
    if len(counts) and counts.min() < 0:
        raise ValueError("negative")
    return counts


def _fill(bounds: NDArray[np.int64], needed: NDArray[np.int64], size: int) -> bool:
    """Whether tensors of so many bytes lie within these (start, end), and fill 0 … `size` without gaps."""
    starts, ends = bounds[np.lexsort((bounds[:, 1], bounds[:, 0]))].T
    return bool(
        np.array_equal(bounds[:, 1] - bounds[:, 0], needed)
        and starts[0] == 0
        and ends[-1] == size
        and np.array_equal(ends[:-1], starts[1:])
    )
