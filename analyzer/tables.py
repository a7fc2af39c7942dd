"""Scans and rankings as CSV and JSON rows for other programs. Full precision, undefined left empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from analyzer.ranking import RankRow, total
from analyzer.records import Scan
from analyzer.statistics import STATISTICS, evaluate


def keys_csv(scan: Scan) -> str:
    """One line a key: names, labels, shape ("320x4x3x3"), dtypes and every statistic."""
    whole = total(scan.keys)
    labels = ("part", "block", "component", "kind")
    head = ["key", "key_b", *labels, "shape", "dtype_a", "dtype_b", *STATISTICS]
    rows = []
    for row in scan.keys:
        names = [row.key, row.key_b, *(getattr(row.labels, label) for label in labels)]
        shape = "x".join(map(str, row.shape))
        values = evaluate(row.sums, total=whole if row.labels.counted else None)
        rows.append([*names, shape, row.dtype_a, row.dtype_b, *(values[name] for name in STATISTICS)])
    return _csv(head, rows)


def ranking_csv(ranking: Sequence[RankRow]) -> str:
    """One line a group: name, selector, number of keys and every statistic."""
    rows = [[r.name, r.selector, r.keys, *(r.statistics[name] for name in STATISTICS)] for r in ranking]
    return _csv(["name", "selector", "keys", *STATISTICS], rows)


def ranking_document(ranking: Sequence[RankRow], *, axis: str, by: str) -> dict[str, Any]:
    """The ranking as a JSON document; undefined is null."""
    return {
        "format": "mergescope.ranking",
        "version": 1,
        "axis": axis,
        "by": by,
        "rows": [{"name": r.name, "selector": r.selector, "keys": r.keys, **r.statistics} for r in ranking],
    }


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines end in LF; a cell with any line break in it is quoted, a lone CR included."""
    lines = []
    for row in (head, *rows):
        line = io.StringIO()
        # The csv module quotes the characters of its line terminator only, so that must hold both.
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)
