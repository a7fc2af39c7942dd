"""A scan as data for the page: columns for the script, short lists for the head.

Owns every conversion from records to text that a page may hold. Key names, paths and dtypes come
from strangers' files: what leaves here as script data is escaped once, in `script_json`; what leaves
as text is escaped by the template. Draws nothing.
"""

from __future__ import annotations

import json
import sys
from array import array
from base64 import b64encode
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import orjson

from analyzer.records import COUNTS, Finding, KeyScan, ModelId, Scan, Sums
from analyzer.statistics import STATISTICS

LISTED = 500  # names that a list in the head shows; the embedded scan holds all of them

_SUM_FIELDS = tuple(field.name for field in fields(Sums))
# A dtype that is not here shows as its file names it.
_DTYPE_TITLES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the head says of one model."""

    letter: str  # "A" or "B"
    name: str  # the last segment of the path
    path: str
    facts: tuple[str, ...]  # "2.1 GB", "Stable Diffusion 1.x", "fp16", "1,143 keys"


@dataclass(frozen=True, slots=True)
class Kinship:
    """How two models are related, in a word and in a sentence."""

    title: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A titled list of names that the head folds away."""

    title: str
    names: tuple[str, ...]  # the first `LISTED`
    omitted: int
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """Everything above the figures that needs no arithmetic."""

    a: ModelCard
    b: ModelCard
    paired: str  # "1,143 keys pair"
    changed: str  # "812 of 1,131": of the keys that count
    listings: tuple[Listing, ...]
    identical: bool
    unrelated: str  # who was trained apart, if that is so: the models, or only the keys that changed


# What the kinship of two models means to somebody who wants to merge them.
KINSHIPS = {
    "same": Kinship("identical", "nothing changed between them"),
    "fine-tune": Kinship(
        "fine-tune", "one was trained on from the other, or both from one parent: merging them makes sense"
    ),
    "distant": Kinship("distant", "they share an origin, but training took them far apart: merge with care"),
    "unrelated": Kinship("trained apart", "their weights have no common origin: merging them is pointless"),
    "undefined": Kinship("undefined", "no weights could be compared, or none that changed has a direction"),
}


def head(scan: Scan) -> Head:
    """The two models, what pairs, what does not, and what a reader should be warned of."""
    counted = [key.sums for key in scan.keys if key.labels.counted]
    return Head(
        a=_card("A", scan.a),
        b=_card("B", scan.b),
        paired=_count(len(scan.keys), "key pairs", "keys pair"),
        changed=f"{sum(sums.changed > 0 for sums in counted):,} of {len(counted):,}",
        listings=tuple(listing for listing in (*_unpaired(scan), *_warnings(scan)) if listing.names),
        identical=is_identical(scan),
        unrelated=_who_changed(counted),
    )


def _who_changed(counted: Sequence[Sums]) -> str:
    changed = [sums for sums in counted if sums.changed]
    if sum(sums.numel for sums in changed) * 2 >= sum(sums.numel for sums in counted):
        return "These two models were"
    return f"The {len(changed)} of {len(counted)} keys that changed were"


def is_identical(scan: Scan) -> bool:
    """Whether there are paired elements, every one was compared, and none differs."""
    every = [key.sums for key in scan.keys]
    return any(sums.n for sums in every) and all(sums.changed == 0 and sums.n == sums.numel for sums in every)


def page_data(scan: Scan, *, kinship: str, findings: Sequence[Finding]) -> dict[str, object]:
    """The scan in columns, as the page's script reads it; sums keep full fp64 precision."""
    return {
        "tool": scan.tool,
        "created": scan.created,
        "kinship": kinship,
        "identical": is_identical(scan),
        "models": {"a": _model(scan.a), "b": _model(scan.b)},
        "blocks": list(scan.blocks),
        "keys": _key_columns(scan.keys),
        "sums": {name: _sum_column(scan.keys, name) for name in _SUM_FIELDS},
        "only_in_a": list(scan.only_in_a),
        "only_in_b": list(scan.only_in_b),
        "shape_mismatch": [asdict(mismatch) for mismatch in scan.shape_mismatch],
        "findings": [asdict(finding) for finding in findings],
        "statistics": [
            {"name": name, "title": s.title, "symbol": s.symbol, "unit": s.unit, "range": s.range}
            | {"meaning": s.meaning, "ascending": s.ascending}
            for name, s in STATISTICS.items()
        ],
    }


def script_json(data: object) -> str:
    """JSON that may stand inside a `<script>` element: no sign in it can end the element."""
    try:
        text = orjson.dumps(data).decode()
    except TypeError:
        # A JSON header can smuggle a lone surrogate into a name. UTF-8 has no form for it, and
        # orjson refuses it; as the escape \ud800 it passes and stays the same name.
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


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
        "uncounted": [i for i, label in enumerate(labels) if not label.counted],
    }


def _sum_column(keys: Sequence[KeyScan], name: str) -> list[int] | str:
    """One field of all records: a list of counts, or floats as base64 of little-endian fp64.

    That is exact and half as long as decimal digits, and has a form for a sum that overflowed.
    """
    values = [getattr(key.sums, name) for key in keys]
    if name in COUNTS:
        return values
    column = array("d", values)
    if sys.byteorder == "big":
        column.byteswap()
    return b64encode(column.tobytes()).decode()


def _encode(values: Iterable[Hashable]) -> dict[str, object]:
    """The distinct values in order of appearance, and for every row the index of its value."""
    index: dict[Hashable, int] = {}
    codes = [index.setdefault(value, len(index)) for value in values]
    return {"names": list(index), "codes": codes}


def _model(model: ModelId) -> dict[str, object]:
    return asdict(model) | {"name": _file_name(model.path)}


def _card(letter: str, model: ModelId) -> ModelCard:
    dtypes = model.dtypes or {}
    by_size = sorted(dtypes, key=lambda dtype: (-dtypes[dtype], dtype))
    facts = (
        _bytes(model.bytes),
        model.title or model.architecture,
        " + ".join(_DTYPE_TITLES.get(dtype, dtype) for dtype in by_size),
        _count(model.keys, "key", "keys") if model.keys else "",
    )
    return ModelCard(letter, _file_name(model.path), model.path, tuple(fact for fact in facts if fact))


def _unpaired(scan: Scan) -> Iterable[Listing]:
    mismatches = [
        f"{m.key}  {'×'.join(map(str, m.shape_a))} → {'×'.join(map(str, m.shape_b))}"
        for m in scan.shape_mismatch
    ]
    yield _listing("only in A", scan.only_in_a)
    yield _listing("only in B", scan.only_in_b)
    yield _listing("of another shape", mismatches)


def _warnings(scan: Scan) -> Iterable[Listing]:
    nonfinite = [
        f"{key.key}  {key.sums.nonfinite_a:,} in A, {key.sums.nonfinite_b:,} in B"
        for key in scan.keys
        if key.sums.nonfinite_a or key.sums.nonfinite_b
    ]
    recast = [f"{key.key}  {key.dtype_a} → {key.dtype_b}" for key in scan.keys if key.dtype_a != key.dtype_b]
    yield _listing("with NaN or Inf, left out of every sum", nonfinite, is_warning=True)
    yield _listing("stored in another dtype", recast, is_warning=True)


def _listing(what: str, names: Sequence[str], *, is_warning: bool = False) -> Listing:
    title = f"{_count(len(names), 'key', 'keys')} {what}"
    return Listing(title, tuple(names[:LISTED]), max(0, len(names) - LISTED), is_warning)


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _file_name(path: str) -> str:
    """The last segment of a path of any system: a scan may have been made on another one."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path


def _bytes(number: int) -> str:
    """Decimal units with three digits: "2.13 GB", as file managers and download pages count."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # what would round to 1000 takes the next unit
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
