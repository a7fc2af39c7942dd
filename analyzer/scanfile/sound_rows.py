"""The rows of a scan file, many at once, as long as nothing in them is odd.

A field of a thousand rows is checked as one column. What is not plainly sound goes back to
`analyzer.scanfile.reading`, which looks at every value by itself and says what is wrong with it, if anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain
from math import inf
from typing import Any

import numpy as np

from analyzer.column_arithmetic import HistogramColumns
from analyzer.measures import (
    BINS,
    COUNTS,
    HISTOGRAMS,
    STEP_BINS,
    SUM_FIELDS,
    TASK_COUNTS,
    TASK_FIELDS,
    Histogram,
    Sums,
    TaskSums,
)  # fmt: skip
from analyzer.records import KeyScan, Labels, RowCosines
from analyzer.scanfile.layout import LARGEST_TENSOR, LOWEST_COSINE, SIGNED, TASK, is_part, leads

_TEXTS = ("key", "key_b", "dtype_a", "dtype_b")
_PLACES = tuple(field.name for field in fields(Labels) if field.name != "counted")
_COSINES = tuple(field.name for field in fields(RowCosines))


class OddRowsError(Exception):
    """Some value of these rows has to be looked at by itself."""


def sound_rows(documents: Sequence[Mapping[str, Any]]) -> list[KeyScan]:
    """The rows of these documents, without what few rows have: slice, rows of a fused tensor, spectrum.

    Raises OddRowsError.
    """
    try:
        texts = [_texts(documents, name) for name in _TEXTS]
        places = [_texts(documents, name) for name in _PLACES]
        parts, groups, components = (places[_PLACES.index(each)] for each in ("part", "group", "component"))
        _require(all(map(is_part, set(parts))))
        _require(all(leads(*pair) for pair in set(zip(groups, components, strict=True))))
        counted = [document["counted"] for document in documents]
        shapes = [document["shape"] for document in documents]
        _require(set(map(type, counted)) <= {bool} and set(map(type, shapes)) <= {list})
        _require_counts(list(chain.from_iterable(shapes)))
        labels = cache(Labels)  # few distinct ones, shared by all rows
        keys, keys_b, dtypes_a, dtypes_b = texts
        held = map(labels, *_in_order(places, counted))
        columns = zip(
            keys, keys_b, map(tuple, shapes), dtypes_a, dtypes_b, held, _sums(documents),
            _row_cosines(documents), strict=True,
        )  # fmt: skip
        return [
            KeyScan(key, key_b, shape, a, b, place, sums, row_cosines=cosines)
            for key, key_b, shape, a, b, place, sums, cosines in columns
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise OddRowsError from error


def _in_order(places: Sequence[Sequence[str]], counted: Sequence[bool]) -> list[Sequence[Any]]:
    """The columns in the order of the fields of `Labels`."""
    columns = dict(zip(_PLACES, places, strict=True)) | {"counted": counted}
    return [columns[field.name] for field in fields(Labels)]


def _sums(documents: Sequence[Mapping[str, Any]]) -> list[Sums]:
    values = [document["sums"] for document in documents]
    numbers = [_numbers(values, name, name in COUNTS, name in SIGNED) for name in SUM_FIELDS]
    histograms = [
        _histograms([document[name] for document in documents], BINS if name == "histogram" else STEP_BINS)
        for name in HISTOGRAMS
    ]
    return [Sums(*row) for row in zip(*numbers, *histograms, _tasks(values), strict=True)]


def _tasks(values: Sequence[Mapping[str, Any]]) -> list[TaskSums | None]:
    found: list[TaskSums | None] = [None] * len(values)
    places = [place for place, value in enumerate(values) if TASK + "n" in value]
    own = [values[place] for place in places]
    numbers = [_numbers(own, TASK + name, name in TASK_COUNTS, name in SIGNED) for name in TASK_FIELDS]
    for place, row in zip(places, zip(*numbers, strict=True), strict=True):
        found[place] = TaskSums(*row)
    return found


def _row_cosines(documents: Sequence[Mapping[str, Any]]) -> list[RowCosines | None]:
    found: list[RowCosines | None] = [None] * len(documents)
    places = [place for place, document in enumerate(documents) if "row_cosines" in document]
    own = [documents[place]["row_cosines"] for place in places]
    columns = [_require_numbers([value[name] for value in own], lowest=LOWEST_COSINE) for name in _COSINES]
    for place, row in zip(places, zip(*columns, strict=True), strict=True):
        found[place] = RowCosines(*row)
    return found


def _histograms(documents: Sequence[Mapping[str, Any]], bins: int) -> list[Histogram]:
    names = ("first", "counts", "energies")
    firsts, counts, energies = ([document[name] for document in documents] for name in names)
    _require_counts(firsts)
    _require(set(map(type, chain(counts, energies))) <= {list})
    _require(set(map(type, chain.from_iterable(counts))) <= {int})
    _require(set(map(type, chain.from_iterable(energies))) <= {int, float})
    _require(list(map(len, counts)) == list(map(len, energies)))
    held = [
        Histogram(first, array("q", integers), array("d", floats))
        for first, integers, floats in zip(firsts, counts, energies, strict=True)
    ]
    columns = HistogramColumns.of(held)
    _require(bool(((columns.first + columns.lengths) <= bins).all()))
    _require(bool(((columns.counts >= 0) & (columns.counts <= LARGEST_TENSOR)).all()))
    _require(bool((columns.energies >= 0).all()))
    return held


def _numbers(values: Sequence[Mapping[str, Any]], name: str, count: bool, signed: bool) -> Sequence[float]:
    column = [value[name] for value in values]
    if count:
        _require_counts(column)
        return column
    return _require_numbers(column, lowest=-inf if signed else 0.0)


def _texts(documents: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    column = [document[name] for document in documents]
    _require(set(map(type, column)) <= {str})
    return column


def _require_counts(column: Sequence[Any]) -> None:
    """Integers, no truth values among them, and no more than a key can have elements."""
    _require(set(map(type, column)) <= {int})
    if column:
        numbers = np.array(column, np.int64)
        _require(bool(numbers.min() >= 0 and numbers.max() <= LARGEST_TENSOR))


def _require_numbers(column: list[Any], *, lowest: float = 0.0) -> list[float]:
    types = set(map(type, column))
    _require(types <= {int, float})
    _require(not column or bool(np.array(column, np.float64).min() >= lowest))
    return list(map(float, column)) if int in types else column


def _require(sound: bool) -> None:
    if not sound:
        raise OddRowsError
