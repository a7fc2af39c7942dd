"""A scan as one JSON document, written in pieces so that 100,000 keys need no gigabyte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from operator import attrgetter
from typing import Any

import orjson

from analyzer.column_arithmetic import Floats, HistogramColumns
from analyzer.columns import SumColumns
from analyzer.evaluation import evaluate, evaluate_keys
from analyzer.findings import findings
from analyzer.kinship import kinship
from analyzer.measures import HISTOGRAMS, SUM_FIELDS, TASK_FIELDS, Sums
from analyzer.outliers import outliers
from analyzer.ranking import counted
from analyzer.records import Finding, KeyScan, Labels, Scan
from analyzer.scanfile.layout import FORMAT, TASK, VERSION
from analyzer.statistics import STATISTICS
from analyzer.verdicts import Verdict

_ROWS = 1 << 10  # of which the statistics are computed together
_FEW = 1 << 6  # in one piece: what is made of them stays in the processor's cache until it is written


def dumps(scan: Scan, *, found: Sequence[Finding] | None = None) -> bytes:
    """The scan as one JSON document, floats at full fp64 precision, with a newline at its end.

    `found` are its findings, if they are known already.
    """
    return b"".join(pieces(scan, found=found))


def pieces(scan: Scan, *, found: Sequence[Finding] | None = None) -> Iterator[bytes]:
    """The same document, piece by piece."""
    columns = SumColumns.of(row.sums for row in counted(scan.keys))
    whole = columns.total()
    yield orjson.dumps(_head(scan, whole, columns, found)).removesuffix(b"}")
    del columns
    for name, rows in (("keys", scan.keys), ("virtual", scan.virtual)):
        yield f',"{name}":['.encode()
        documents = _key_documents(rows, whole)
        comma = b""
        while few := list(islice(documents, _FEW)):
            yield comma + orjson.dumps(few, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
            comma = b","
        yield b"]"
    yield b"}\n"


def _head(scan: Scan, whole: Sums, columns: SumColumns, found: Sequence[Finding] | None) -> dict[str, Any]:
    """All that stands before the keys, in the order in which it is written."""
    name, _ = kinship(scan, columns)
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
        "findings": [asdict(finding) for finding in (findings(scan, columns) if found is None else found)],
        "outliers": [asdict(outlier) for outlier in outliers(scan, columns)],
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


def _key_documents(rows: Sequence[KeyScan], whole: Sums) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        columns = SumColumns.of(row.sums for row in block)
        values = evaluate_keys(block, total=whole, columns=columns)
        names = tuple(values)
        statistics = zip(*(_plain(name, column) for name, column in values.items()), strict=True)
        histograms = zip(
            *(_histogram_documents(columns.histograms(name)) for name in HISTOGRAMS), strict=True
        )
        for row, verdict, bins, own in zip(block, columns.verdicts(), histograms, statistics, strict=True):
            yield _key_document(row, verdict, bins, dict(zip(names, own, strict=True)))


def _key_document(
    row: KeyScan, verdict: Verdict, histograms: Sequence[Mapping[str, Any]], statistics: Mapping[str, float]
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "key": row.key,
        "key_b": row.key_b,
        "shape": row.shape,
        "dtype_a": row.dtype_a,
        "dtype_b": row.dtype_b,
    }
    if row.slice is not None:
        document["slice"] = row.slice
    if row.rows is not None:
        document["rows"] = row.rows
    document.update(zip(_LABELS, _labels_of(row.labels), strict=True))
    document["verdict"] = verdict
    document["sums"] = _sums_document(row.sums)
    document.update(zip(HISTOGRAMS, histograms, strict=True))
    if row.row_cosines is not None:
        document["row_cosines"] = row.row_cosines
    if row.spectrum is not None:
        document["spectrum"] = row.spectrum
    document["statistics"] = statistics
    return document


def _sums_document(sums: Sums) -> dict[str, float]:
    """The plain numbers of a record, those of the tasks under names that begin with "task_"."""
    document = dict(zip(SUM_FIELDS, _numbers_of(sums), strict=True))
    if sums.task is not None:
        document |= zip(_TASK_NAMES, _tasks_of(sums.task), strict=True)
    return document


def _histogram_documents(histograms: HistogramColumns) -> Iterator[dict[str, Any]]:
    """Of each of them, with its bins as arrays."""
    counts, energies = histograms.counts, histograms.energies
    ends = histograms.starts + histograms.lengths
    for first, start, end in zip(
        *(x.tolist() for x in (histograms.first, histograms.starts, ends)), strict=True
    ):
        yield {"first": first, "counts": counts[start:end], "energies": energies[start:end]}


def _plain(name: str, column: Floats) -> list[float]:
    """Counts as integers. NaN stays, and is written as null."""
    statistic = STATISTICS[name]
    counts = statistic.formula is not None and statistic.format == "count"
    values: list[float] = (column.astype("q") if counts else column).tolist()
    return values


_LABELS = tuple(field.name for field in fields(Labels))
_TASK_NAMES = tuple(TASK + name for name in TASK_FIELDS)
_labels_of, _numbers_of, _tasks_of = (attrgetter(*names) for names in (_LABELS, SUM_FIELDS, TASK_FIELDS))
