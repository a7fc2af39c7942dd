"""A scan file as a `Scan`: every field checked, since the file may come from anywhere."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson

from analyzer.errors import ScanFileError
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
from analyzer.records import KeyScan, Labels, ModelId, RowCosines, Scan, ShapeMismatch, Spectrum
from analyzer.scanfile.layout import (
    FORMAT,
    LARGEST_COUNT,
    LARGEST_TENSOR,
    LOWEST_COSINE,
    SIGNED,
    TASK,
    VERSION,
    is_part,
    leads,
)  # fmt: skip
from analyzer.scanfile.sound_rows import OddRowsError, sound_rows


def load(path: Path) -> Scan:
    """Read a scan file. Raises ScanFileError for anything that is not one, naming the field."""
    try:
        if path.is_file():
            with path.open("rb") as file:  # before gigabytes of a model are read as JSON
                if file.read(1) != b"{":
                    raise ScanFileError(
                        f"{path}: not a scan file; make one with: mergescope scan A B -o FILE.json"
                    )
        elif path.is_char_device() or path.is_block_device():  # of which some, as /dev/zero, have no end
            raise ScanFileError(f"{path}: is a device; make a scan with: mergescope scan A B -o FILE.json")
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


_ADDED = {"nonfinite_differs", "cast_only"}  # fields that the first files of version 1 lack
_ADDED_TO_TASKS = ("task_dot_a",)
_RANKS = ("rank_90", "lora_rank")
_COSINES = tuple(f.name for f in fields(RowCosines))
_LABELS = [f.name for f in fields(Labels) if f.name != "counted"]


def _scan(document: Mapping[str, Any]) -> Scan:
    models = document["models"]
    return Scan(
        tool=_text(document["tool"]),
        created=_text(document["created"]),
        a=_model(models["a"]),
        b=_model(models["b"]),
        blocks=_texts(document["blocks"]),
        keys=_keys(_list(document["keys"])),
        only_in_a=_texts(document["only_in_a"]),
        only_in_b=_texts(document["only_in_b"]),
        shape_mismatch=tuple(
            ShapeMismatch(_text(row["key"]), _shape(row["shape_a"]), _shape(row["shape_b"]))
            for row in _list(document["shape_mismatch"])
        ),
        virtual=_keys(_list(document.get("virtual", []))),
        notes=_texts(document.get("notes", [])),
        base=_model(models["base"]) if models.get("base") is not None else None,
        with_spectrum=_flag(document.get("spectrum", False)),
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
        sha256=_digests(document.get("sha256")),
    )


def _digests(value: Any) -> str | dict[str, str] | None:
    """Of a file, or of the files of a folder by name."""
    if isinstance(value, dict):
        return {name: _text(digest) for name, digest in value.items()}
    return None if value is None else _text(value)


def _keys(documents: list[Any]) -> tuple[KeyScan, ...]:
    """The rows of these documents, which are gone then: beside the rows they would take twice the memory."""
    rows: list[KeyScan] = []
    while documents:
        rows += _block(documents[-_ROWS:])[::-1]
        del documents[-_ROWS:]
    return tuple(rows[::-1])


def _block(documents: Sequence[Any]) -> list[KeyScan]:
    try:
        rows = sound_rows(documents)
    except OddRowsError:
        return [_key(document) for document in documents]
    return [
        row if _FEW.isdisjoint(document) else replace(row, **_more(document))
        for row, document in zip(rows, documents, strict=True)
    ]


def _key(document: Mapping[str, Any]) -> KeyScan:
    counted = _flag(document["counted"])
    return KeyScan(
        key=_text(document["key"]),
        key_b=_text(document["key_b"]),
        shape=_shape(document["shape"]),
        dtype_a=_text(document["dtype_a"]),
        dtype_b=_text(document["dtype_b"]),
        labels=_labels(document, counted),
        sums=_sums(document),
        **_more(document),
    )


def _more(document: Mapping[str, Any]) -> dict[str, Any]:
    """What only some rows have."""
    return {name: read(document[name]) for name, read in _MORE.items() if name in document}


def _sums(document: Mapping[str, Any]) -> Sums:
    """A record. Files of earlier releases lack some of its fields, which then count nothing."""
    values = document["sums"]
    numbers = {name: _sum(name, values[name]) for name in SUM_FIELDS if name in values or name not in _ADDED}
    task = None
    if TASK + "n" in values:
        lacking = dict.fromkeys(_ADDED_TO_TASKS)  # null, and so infinite
        tasks = {name: _sum(name, (lacking | values)[TASK + name]) for name in TASK_FIELDS}
        task = TaskSums(**tasks)
    histograms: dict[str, Any] = {
        name: _histogram(document[name], BINS if name == "histogram" else STEP_BINS)
        for name in HISTOGRAMS
        if name in document
    }
    return Sums(**numbers, **histograms, task=task)


def _histogram(document: Any, bins: int) -> Histogram:
    first, counts = _count(document["first"]), _list(document["counts"])
    energies = _list(document["energies"])
    if len(counts) != len(energies) or first + len(counts) > bins:
        raise ValueError("a histogram has other bins than this release")
    return Histogram(
        first,
        array("q", [_count(count, most=LARGEST_TENSOR) for count in counts]),
        array("d", [_sum("energies", energy) for energy in energies]),
    )


def _row_cosines(document: Any) -> RowCosines:
    return RowCosines(*(_number(document[name], lowest=LOWEST_COSINE) for name in _COSINES))


def _spectrum(document: Any) -> Spectrum:
    ranks = {name: None if document[name] is None else _count(document[name]) for name in _RANKS}
    shares = {name: _number(document[name]) for name in ("stable_rank", "top_singular_share")}
    return Spectrum(**shares, **ranks)  # type: ignore[arg-type]  # two literal lists of its fields


def _rows(value: Any) -> tuple[int, int]:
    first, end = _shape(value)
    return first, end


def _sum(name: str, value: Any) -> Any:
    """A count or a sum. A sum that overflowed fp64 was written as null, and is infinite again."""
    if name in COUNTS | TASK_COUNTS:
        return _count(value, most=LARGEST_TENSOR)
    if value is None:
        return float("inf")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} {value!r} is not a number")
    if value < 0 and name not in SIGNED:
        raise ValueError(f"{name} {value!r} is negative")
    return float(value)


def _number(value: Any, *, lowest: float = 0.0) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    if value < lowest:
        raise ValueError(f"{value!r} is below {lowest:g}")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is not true or false")
    return value


def _count(value: Any, *, most: int = LARGEST_COUNT) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise TypeError(f"{value!r} is not a count")
    return value


def _labels(document: Mapping[str, Any], counted: bool) -> Labels:
    labels = Labels(**{name: _text(document[name]) for name in _LABELS}, counted=counted)
    if not is_part(labels.part):
        raise ValueError(f"part {labels.part!r:.60} is no word")
    if not leads(labels.group, labels.component):
        raise ValueError(
            f"component {labels.component!r:.60} is no path of words that begins with its group "
            f"{labels.group!r:.60}"
        )
    return labels


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


_ROWS = 1 << 10  # that are looked at together
_MORE = {"slice": _shape, "rows": _rows, "row_cosines": _row_cosines, "spectrum": _spectrum}
_FEW = _MORE.keys() - {"row_cosines"}  # what few rows have
