"""A scan as the data that the page's script reads: names and numbers in columns, compressed together.

Owns the format of that data; `reports/js/data.js` reads it. Key names, paths and dtypes come from
strangers' files: what leaves here is base64, in which no sign can end the element that holds it.

Before it is deflated (RFC 1950) the data is one line of JSON, and after it all numbers of all columns
as fp64: first the lowest byte of each, then the second byte of each, and so on. Bytes of one place are
alike, which saves a third. A column stands in the JSON as [start, end] among the numbers, and NaN in it
means that a row has no value.
"""

from __future__ import annotations

import json
import sys
import zlib
from array import array
from base64 import b64encode
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite, nan
from typing import TypeAlias, TypedDict

import orjson

from analyzer.float_formats import FLOATS
from analyzer.measures import SUM_FIELDS, TASK_FIELDS, Histogram
from analyzer.records import Finding, KeyScan, ModelId, RowCosines, Scan, Spectrum
from analyzer.statistics import Statistic
from analyzer.verdicts import VERDICTS, verdict
from reports.tables import file_name, is_identical


class Interval(TypedDict):
    """How sure the statistic of one group is, and with which of its neighbours it ranks."""

    low: float | None  # the 95 % interval; None where the group has too few keys for one
    high: float | None
    tier: int | None  # groups of one tier: no two of their intervals are disjoint; None: not compared
    keys: int  # in the group
    note: str  # why there is no interval: "1 key", "too few keys"; "" where there is one, or nothing to say


# axis -> statistic -> group -> interval; the axes are those of the page's menu: "group", the component at
# the level of rankings, "component" at full depth, "block", "part" and "kind". Groups by their whole name.
Intervals: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Interval]]]


class Preset(TypedDict):
    """A preset of block weights, as it is on this model."""

    name: str  # as users know it: "GRAD_V"
    meaning: str  # a line
    weights: Sequence[float]  # of the model's blocks, in network order


@dataclass(frozen=True, slots=True)
class Planner:
    """What a page needs to plan a merge, beside the scan."""

    presets: Sequence[Preset] = ()  # none for a model without blocks
    scan: str | None = None  # the scan's file, as the command line is to name it; None: it was not saved


# Keys of which a page still holds the steps: two thirds of what it has of a key.
MOST_KEYS_WITH_STEPS = 20_000
_DIGITS = 6  # of an interval's ends, which are drawn and never computed with
_COMPRESSION = 6  # zlib's own default


def embed(
    scan: Scan,
    *,
    kinship: str,
    findings: Sequence[Finding],
    statistics: Mapping[str, Statistic],
    intervals: Intervals,
    planner: Planner | None = None,
) -> str:
    """The scan as base64; sums keep full fp64 precision.

    What only some keys have (tasks, cosines of rows, spectra) is a table of those keys alone; None
    where no key has it. Only a page with a planner holds the steps of the keys, and only of so many keys.
    """
    with_steps = planner is not None and len(scan.keys) <= MOST_KEYS_WITH_STEPS
    keys, numbers = scan.keys, _Numbers()
    data = {
        "tool": scan.tool,
        "created": scan.created,
        "kinship": kinship,
        "identical": is_identical(scan),
        "models": {
            "a": _model(scan.a),
            "b": _model(scan.b),
            "base": None if scan.base is None else _model(scan.base),
        },
        "spectrum": scan.with_spectrum,
        "blocks": list(scan.blocks),
        "keys": _key_columns(keys),
        "sums": {name: numbers.column(getattr(key.sums, name) for key in keys) for name in SUM_FIELDS},
        "histograms": _histograms([key.sums.histogram for key in keys], numbers),
        "steps": _steps(keys, numbers) if with_steps else None,
        "tasks": _table([key.sums.task for key in keys], TASK_FIELDS, numbers),
        "row_cosines": _table([key.row_cosines for key in keys], _names_of(RowCosines), numbers),
        "spectra": _table([key.spectrum for key in keys], _names_of(Spectrum), numbers),
        "only_in_a": list(scan.only_in_a),
        "only_in_b": list(scan.only_in_b),
        "shape_mismatch": [asdict(mismatch) for mismatch in scan.shape_mismatch],
        "findings": [asdict(finding) for finding in findings],
        "statistics": [
            {"name": name, "title": s.title, "symbol": s.symbol, "unit": s.unit, "range": s.range}
            | {"meaning": s.meaning, "ascending": s.ascending}
            for name, s in statistics.items()
        ],
        "intervals": _intervals(intervals),
        "planner": None if planner is None else _planner(planner),
    }
    return deflated(_json(data) + b"\n" + numbers.planes())


def packed(data: object) -> str:
    """Plain values as base64, where numbers in columns would save nothing. They hold no NaN."""
    return deflated(_json(data))


def deflated(raw: bytes) -> str:
    """Bytes as the page's script unpacks them: deflated (RFC 1950), as base64."""
    return b64encode(zlib.compress(raw, _COMPRESSION)).decode()


class _Numbers:
    """All numbers of the page, column after column."""

    def __init__(self) -> None:
        self._values = array("d")

    def column(self, values: Iterable[float | None]) -> list[int]:
        """Take a column of counts or sums in; where it starts and ends. Counts up to 2^53 are exact."""
        start = len(self._values)
        self._values.extend(nan if value is None else value for value in values)
        return [start, len(self._values)]

    def planes(self) -> bytes:
        """The numbers as little-endian fp64, byte by byte of all of them."""
        values = array("d", self._values)
        if sys.byteorder == "big":
            values.byteswap()
        raw = values.tobytes()
        return b"".join(raw[place :: values.itemsize] for place in range(values.itemsize))


def _json(data: object) -> bytes:
    """JSON without a line break."""
    try:
        return orjson.dumps(data)
    except TypeError:
        # A JSON header can smuggle a lone surrogate into a name. UTF-8 has no form for it, and
        # orjson refuses it; as the escape \ud800 it passes and stays the same name.
        return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def _key_columns(keys: Sequence[KeyScan]) -> dict[str, object]:
    """One list per field of a key; fields with few distinct values are dictionary-encoded."""
    labels = [key.labels for key in keys]
    return {
        "key": [key.key for key in keys],
        "key_b": [key.key_b for key in keys] if any(key.key_b != key.key for key in keys) else None,
        "shape": _encode(key.shape for key in keys),
        "dtype_a": _encode(key.dtype_a for key in keys),
        "dtype_b": _encode(key.dtype_b for key in keys),
        "part": _encode(label.part for label in labels),
        "block": _encode(label.block for label in labels),
        "component": _encode(label.component for label in labels),
        "group": _encode(label.group for label in labels),
        "kind": _encode(label.kind for label in labels),
        "verdict": _encode((verdict(key.sums) for key in keys), first=VERDICTS),
        "uncounted": [i for i, label in enumerate(labels) if not label.counted],
    }


def _encode(values: Iterable[Hashable], *, first: Iterable[Hashable] = ()) -> dict[str, object]:
    """The distinct values, `first` and in order of appearance, and for every row the index of its value."""
    index: dict[Hashable, int] = {value: place for place, value in enumerate(first)}
    codes = [index.setdefault(value, len(index)) for value in values]
    return {"names": list(index), "codes": codes}


def _table(
    records: Sequence[object | None], names: Sequence[str], numbers: _Numbers
) -> dict[str, object] | None:
    """The records of the rows that have one, a column a field; None if no row has any."""
    rows = [row for row, record in enumerate(records) if record is not None]
    columns = {name: numbers.column(getattr(records[row], name) for row in rows) for name in names}
    return {"rows": rows, "columns": columns} if rows else None


def _histograms(histograms: Sequence[Histogram], numbers: _Numbers) -> dict[str, object]:
    """The bins of all rows one after the other; of each row, its first bin and how many it holds."""
    return {
        "first": [histogram.first for histogram in histograms],
        "lengths": [len(histogram) for histogram in histograms],
        "counts": numbers.column(count for histogram in histograms for count in histogram.counts),
        "energies": numbers.column(energy for histogram in histograms for energy in histogram.energies),
    }


def _steps(keys: Sequence[KeyScan], numbers: _Numbers) -> dict[str, object]:
    """What of a change outlives rounding is told from these: Σd² by |d| / ulp(a), without the counts."""
    columns = {"steps": [key.sums.steps for key in keys], "e4m3_steps": [key.sums.e4m3_steps for key in keys]}
    return {
        name: {
            "first": [histogram.first for histogram in histograms],
            "lengths": [len(histogram) for histogram in histograms],
            "energies": numbers.column(energy for histogram in histograms for energy in histogram.energies),
        }
        for name, histograms in columns.items()
    }


def _planner(planner: Planner) -> dict[str, object]:
    """Presets, the scan's file, and the storage formats as [significand bits, smallest spacing]."""
    formats = {name: [format_.precision, format_.smallest_spacing] for name, format_ in FLOATS.items()}
    return {"presets": list(planner.presets), "scan": planner.scan, "formats": formats}


def _intervals(intervals: Intervals) -> dict[str, object]:
    """The names of all groups, and by axis and statistic rows of [name, low, high, tier, keys, note]."""
    names: dict[str, int] = {}

    def row(group: str, interval: Interval) -> list[object]:
        ends = (None if end is None else _rounded(end) for end in (interval["low"], interval["high"]))
        return [
            names.setdefault(group, len(names)),
            *ends,
            interval["tier"],
            interval["keys"],
            interval["note"],
        ]

    rows = {
        axis: {
            statistic: [row(group, interval) for group, interval in groups.items()]
            for statistic, groups in statistics.items()
        }
        for axis, statistics in intervals.items()
    }
    return {"groups": list(names), "rows": rows}


def _rounded(end: float) -> float | None:
    return float(f"{end:.{_DIGITS}g}") if isfinite(end) else None


def _names_of(record: type) -> list[str]:
    return [field.name for field in fields(record)]


def _model(model: ModelId) -> dict[str, object]:
    return asdict(model) | {"name": file_name(model.path)}
