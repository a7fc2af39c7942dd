"""A scan as one JSON document, written in pieces so that 100,000 keys need no gigabyte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any

import orjson

from analyzer.columns import Floats, SumColumns
from analyzer.evaluation import evaluate, evaluate_keys
from analyzer.findings import findings
from analyzer.kinship import kinship
from analyzer.measures import HISTOGRAMS, SUM_FIELDS, TASK_FIELDS, Histogram, Sums
from analyzer.outliers import outliers
from analyzer.ranking import counted, total
from analyzer.records import Finding, KeyScan, Labels, Scan
from analyzer.scanfile.layout import FORMAT, TASK, VERSION
from analyzer.statistics import STATISTICS
from analyzer.verdicts import Verdict

_ROWS = 1 << 10  # in one piece: a few megabytes


def dumps(scan: Scan, *, found: Sequence[Finding] | None = None) -> bytes:
    """The scan as one JSON document, floats at full fp64 precision, with a newline at its end.

    `found` are its findings, if they are known already.
    """
    return b"".join(pieces(scan, found=found))


def pieces(scan: Scan, *, found: Sequence[Finding] | None = None) -> Iterator[bytes]:
    """The same document, piece by piece."""
    whole = total(scan.keys)
    yield orjson.dumps(_head(scan, whole, found)).removesuffix(b"}")
    for name, rows in (("keys", scan.keys), ("virtual", scan.virtual)):
        yield f',"{name}":['.encode()
        for start in range(0, len(rows), _ROWS):
            listed = orjson.dumps(_key_documents(rows[start : start + _ROWS], whole))
            yield (b"," if start else b"") + listed[1:-1]
        yield b"]"
    yield b"}\n"


def _head(scan: Scan, whole: Sums, found: Sequence[Finding] | None) -> dict[str, Any]:
    """All that stands before the keys, in the order in which it is written."""
    name, _ = kinship(scan)
    return {
        "format": FORMAT,
        "version": VERSION,
        "tool": scan.tool,
        "created": scan.created,
        "models": {
            "a": asdict(scan.a),
            "b": asdict(scan.b),
            "base": None if scan.base is None else asdict(scan.base),
        },
        "spectrum": scan.with_spectrum,
        "kinship": name,
        "findings": [asdict(finding) for finding in (findings(scan) if found is None else found)],
        "outliers": [asdict(outlier) for outlier in outliers(scan)],
        "totals": {
            "statistics": evaluate(whole, total=whole, keys=counted(scan.keys)),
            "sums": _sums_document(whole),
        },
        "blocks": list(scan.blocks),
        "only_in_a": list(scan.only_in_a),
        "only_in_b": list(scan.only_in_b),
        "shape_mismatch": [asdict(mismatch) for mismatch in scan.shape_mismatch],
        "notes": list(scan.notes),
    }


def _key_documents(rows: Sequence[KeyScan], whole: Sums) -> list[dict[str, Any]]:
    columns = SumColumns.of(row.sums for row in rows)
    values = evaluate_keys(rows, total=whole, columns=columns)
    names = tuple(values)
    statistics = zip(*(_plain(name, column) for name, column in values.items()), strict=True)
    return [
        _key_document(row, name, dict(zip(names, own, strict=True)))
        for row, name, own in zip(rows, columns.verdicts(), statistics, strict=True)
    ]


def _key_document(row: KeyScan, verdict: Verdict, statistics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "key": row.key,
        "key_b": row.key_b,
        "shape": row.shape,
        "dtype_a": row.dtype_a,
        "dtype_b": row.dtype_b,
        **({} if row.slice is None else {"slice": row.slice}),
        **({} if row.rows is None else {"rows": row.rows}),
        **dict(zip(_LABELS, _labels_of(row.labels), strict=True)),
        "verdict": verdict,
        "sums": _sums_document(row.sums),
        **{name: _histogram_document(getattr(row.sums, name)) for name in HISTOGRAMS},
        **({} if row.row_cosines is None else {"row_cosines": row.row_cosines}),
        **({} if row.spectrum is None else {"spectrum": row.spectrum}),
        "statistics": statistics,
    }


def _sums_document(sums: Sums) -> dict[str, float]:
    """The plain numbers of a record, those of the tasks under names that begin with "task_"."""
    document = dict(zip(SUM_FIELDS, _numbers_of(sums), strict=True))
    if sums.task is not None:
        document |= zip(_TASK_NAMES, _tasks_of(sums.task), strict=True)
    return document


def _histogram_document(histogram: Histogram) -> dict[str, Any]:
    return {
        "first": histogram.first,
        "counts": histogram.counts.tolist(),
        "energies": histogram.energies.tolist(),
    }


def _plain(name: str, column: Floats) -> list[float]:
    """Counts as integers. NaN stays, and is written as null."""
    statistic = STATISTICS[name]
    counts = statistic.formula is not None and statistic.format == "count"
    values: list[float] = (column.astype("q") if counts else column).tolist()
    return values


_LABELS = tuple(field.name for field in fields(Labels))
_TASK_NAMES = tuple(TASK + name for name in TASK_FIELDS)
_labels_of, _numbers_of, _tasks_of = (attrgetter(*names) for names in (_LABELS, SUM_FIELDS, TASK_FIELDS))
