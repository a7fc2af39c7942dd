"""`Scan` to versioned JSON and back. Undefined is null, never NaN. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson

from analyzer.errors import ScanFileError
from analyzer.kinship import findings, kinship
from analyzer.ranking import total
from analyzer.records import COUNTS, KeyScan, Labels, ModelId, Scan, ShapeMismatch, Sums
from analyzer.statistics import evaluate

FORMAT = "mergescope.scan"
VERSION = 1


def dumps(scan: Scan) -> bytes:
    """The scan as one JSON document, floats at full fp64 precision, with a newline at its end."""
    return orjson.dumps(as_document(scan), option=orjson.OPT_APPEND_NEWLINE)


def as_document(scan: Scan) -> dict[str, Any]:
    """The scan as plain dicts and lists, in the order in which they are written."""
    whole = total(scan.keys)
    name, _ = kinship(scan)
    return {
        "format": FORMAT,
        "version": VERSION,
        "tool": scan.tool,
        "created": scan.created,
        "models": {"a": asdict(scan.a), "b": asdict(scan.b), "base": None},
        "kinship": name,
        "findings": [asdict(finding) for finding in findings(scan)],
        "totals": {"statistics": evaluate(whole, total=whole), "sums": _sums_document(whole)},
        "blocks": list(scan.blocks),
        "only_in_a": list(scan.only_in_a),
        "only_in_b": list(scan.only_in_b),
        "shape_mismatch": [asdict(mismatch) for mismatch in scan.shape_mismatch],
        "notes": list(scan.notes),
        "keys": [_key_document(row, whole) for row in scan.keys],
        "virtual": [_key_document(row, whole) for row in scan.virtual],
    }


def load(path: Path) -> Scan:
    """Read a scan file. Raises ScanFileError for anything that is not one, naming the field."""
    try:
        if path.is_file():
            with path.open("rb") as file:  # before gigabytes of a model are read as JSON
                if file.read(1) != b"{":
                    raise ScanFileError(
                        f"{path}: not a scan file; make one with: mergescope scan A B -o FILE.json"
                    )
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ScanFileError(f"{path}: no such file; make it with: mergescope scan A B -o {path}") from error
    except OSError as error:
        raise ScanFileError(f"{path}: cannot be read ({error.strerror})") from error
    except orjson.JSONDecodeError as error:
        raise ScanFileError(f"{path}: not JSON ({error}); a scan file comes from: mergescope scan") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ScanFileError(f"{path}: not a scan file (no format {FORMAT!r}); make one with: mergescope scan")
    if document.get("version") != VERSION or document["version"] is True:
        raise ScanFileError(
            f"{path}: is of scan version {document.get('version')!r}, "
            f"and this release reads version {VERSION}: scan again"
        )
    try:
        return _scan(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScanFileError(
            f"{path}: damaged scan file ({type(error).__name__}: {error}); scan again"
        ) from error


def _key_document(row: KeyScan, whole: Sums) -> dict[str, Any]:
    return {
        "key": row.key,
        "key_b": row.key_b,
        "shape": list(row.shape),
        "dtype_a": row.dtype_a,
        "dtype_b": row.dtype_b,
        **({} if row.slice is None else {"slice": list(row.slice)}),
        **({} if row.rows is None else {"rows": list(row.rows)}),
        **asdict(row.labels),
        "sums": _sums_document(row.sums),
        "statistics": evaluate(row.sums, total=whole if row.labels.counted else None),
    }


_SUMS = [f.name for f in fields(Sums)]
_SIGNED = {"sum_a", "sum_b", "sum_ab"}
_LARGEST_COUNT = 2**53  # beyond it JSON numbers stop being exact, and sums of counts outgrow 64 bits
_LABELS = [f.name for f in fields(Labels) if f.name != "counted"]


def _sums_document(sums: Sums) -> dict[str, float]:
    return {name: getattr(sums, name) for name in _SUMS}


def _scan(document: Mapping[str, Any]) -> Scan:
    models = document["models"]
    return Scan(
        tool=_text(document["tool"]),
        created=_text(document["created"]),
        a=_model(models["a"]),
        b=_model(models["b"]),
        blocks=_texts(document["blocks"]),
        keys=tuple(_key(row) for row in _list(document["keys"])),
        only_in_a=_texts(document["only_in_a"]),
        only_in_b=_texts(document["only_in_b"]),
        shape_mismatch=tuple(
            ShapeMismatch(_text(row["key"]), _shape(row["shape_a"]), _shape(row["shape_b"]))
            for row in _list(document["shape_mismatch"])
        ),
        virtual=tuple(_key(row) for row in _list(document.get("virtual", []))),
        notes=_texts(document.get("notes", [])),
    )


def _model(document: Mapping[str, Any]) -> ModelId:
    dtypes = document.get("dtypes", {})
    if dtypes is not None and not isinstance(dtypes, dict):
        raise TypeError(f"{dtypes!r} is not a table of dtypes")
    return ModelId(
        path=_text(document["path"]),
        bytes=_count(document["bytes"]),
        fingerprint=_text(document["fingerprint"]),
        architecture=_text(document["architecture"]),
        title=_text(document.get("title", "")),
        keys=_count(document.get("keys", 0)),
        dtypes=None if dtypes is None else {name: _count(count) for name, count in dtypes.items()},
    )


def _key(document: Mapping[str, Any]) -> KeyScan:
    counted = document["counted"]
    if not isinstance(counted, bool):
        raise TypeError("counted is not true or false")
    values = document["sums"]
    return KeyScan(
        key=_text(document["key"]),
        key_b=_text(document["key_b"]),
        shape=_shape(document["shape"]),
        dtype_a=_text(document["dtype_a"]),
        dtype_b=_text(document["dtype_b"]),
        labels=Labels(**{name: _text(document[name]) for name in _LABELS}, counted=counted),
        sums=Sums(**{name: _sum(name, values[name]) for name in _SUMS}),
        slice=_shape(document["slice"]) if "slice" in document else None,
        rows=_rows(document["rows"]) if "rows" in document else None,
    )


def _rows(value: Any) -> tuple[int, int]:
    first, end = _shape(value)
    return first, end


def _sum(name: str, value: Any) -> Any:
    """A count or a sum. A sum that overflowed fp64 was written as null, and is infinite again."""
    if name in COUNTS:
        return _count(value)
    if value is None:
        return float("inf")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} {value!r} is not a number")
    if value < 0 and name not in _SIGNED:
        raise ValueError(f"{name} {value!r} is negative")
    return float(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_COUNT:
        raise TypeError(f"{value!r} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(_count(n) for n in _list(value))
