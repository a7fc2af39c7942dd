"""Scan files: what comes back equals what was written, and nothing damaged gets in."""

from __future__ import annotations

import copy
import json
import math
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import ScanFileError
from analyzer.evaluation import evaluate_key
from analyzer.measures import SUM_FIELDS, Histogram, Sums, TaskSums
from analyzer.ranking import rank, total
from analyzer.records import KeyScan, Labels, ModelId, RowCosines, Scan, ShapeMismatch, Spectrum
from analyzer.scan import scan
from analyzer.scanfile import dumps, load, pieces
from analyzer.statistics import STATISTICS

Write = Callable[..., Path]
Unet = Callable[[int], dict[str, np.ndarray]]
Way = tuple[str | int, ...]  # from the top of a document to one of its values


_A = ModelId("a.safetensors", 1234, "sha256:0a", "sd1", "Stable Diffusion 1.x", 3, {"F16": 8, "I64": 77})
_B = replace(_A, path="folder/b ✓.ckpt", fingerprint="sha256:0b")
_TO_K = Labels("unet", "IN01", "transformer_blocks/attn2/to_k", "weight", "transformer_blocks/attn2")
_IDS = Labels("text_encoder", "BASE", "embeddings/position_ids", "other", "embeddings", counted=False)
_PROJ = Labels("unet", "M00", "proj_in", "bias", "proj_in")
_MEASURED = Sums(
    numel=8, n=7, numeric=7, nonfinite_a=1, nonfinite_b=0, changed=5, sign_flips=1,
    sum_a=0.1 + 0.2, sum_b=-1 / 3, sum_aa=2.0000000000000004, sum_bb=1e-300, sum_dd=math.pi,
    sum_ab=-5e-324, sum_abs_d=1.7e308, max_abs_d=0.75, sum_ulp_sq=1e-7, nonfinite_differs=1, cast_only=2,
    histogram=Histogram(100, array("q", [2, 0, 3]), array("d", [1e-9, 0.0, math.e])),
    e4m3_steps=Histogram(191, array("q", [2]), array("d", [math.pi])),
    steps=Histogram(30, array("q", [1, 4]), array("d", [1 / 3, 2.5])),
    task=TaskSums(7, 5, 4, 3, 1, 0.1, 0.2, math.pi, 0.4, 0.5, 0.6, 0.7, -0.8),
)  # fmt: skip
_ONE = Sums(
    numel=1, n=1, numeric=1, changed=1, sum_a=1.0, sum_b=2.0, sum_aa=1.0, sum_bb=4.0, sum_dd=1.0, sum_ab=2.0,
    sum_abs_d=1.0, max_abs_d=1.0, sum_ulp_sq=1e-14,
)  # fmt: skip
_COSINES, _SPECTRUM = RowCosines(-0.5, 0.1 + 0.2, 0.9), Spectrum(1.5, None, 2 / 3, 4)
SCAN = Scan(
    tool="mergescope 0.1.0",
    created="2026-01-31T12:00:00+00:00",
    a=_A,
    b=_B,
    base=replace(_A, path="c.safetensors"),
    with_spectrum=True,
    blocks=("IN00", "IN01", "M00"),
    keys=(
        KeyScan(
            "x.to_k.weight",
            "x.to_k.weight",
            (2, 4),
            "F16",
            "BF16",
            _TO_K,
            _MEASURED,
            row_cosines=_COSINES,
            spectrum=_SPECTRUM,
        ),
        KeyScan("ids", "model.ids", (1, 77), "I64", "I64", _IDS, Sums(numel=77, n=77, changed=1)),
        KeyScan("scalar", "scalar", (), "F32", "F32", _PROJ, _ONE),
        KeyScan("embed", "embed", (6, 2), "F16", "F16", _PROJ, _MEASURED, slice=(4, 2)),
    ),
    only_in_a=("betas", 'odd "name"\n\u2028'),
    only_in_b=(),
    shape_mismatch=(ShapeMismatch("conv", (4, 9, 3, 3), (4, 4, 3, 3)),),
    virtual=(KeyScan("qkv", "to_k", (2, 4), "F16", "F16", _TO_K, _MEASURED, rows=(2, 4)),),
    notes=("b has no lm_head",),
)
DOCUMENT: dict[str, Any] = json.loads(dumps(SCAN))


def refuse_constant(name: str) -> None:
    """What Python's own reader calls for NaN, Infinity and -Infinity, which JSON does not have."""
    raise AssertionError(f"{name} is not JSON")


def save(path: Path, document: object) -> Path:
    """Write any document as JSON."""
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def assert_statistics(row: KeyScan, result: Scan, written: Mapping[str, Any]) -> None:
    """Those of the row itself, as written; NumPy's logarithms and angles are rounded otherwise than C's."""
    expected = evaluate_key(row, total=total(result.keys))
    assert expected.keys() == written["statistics"].keys()
    for name, value in written["statistics"].items():
        # the closed form of a nearly even density has half of its digits
        tolerance = 1e-6 if name == "top_energy_share" else 1e-14
        assert value == (expected[name] and pytest.approx(expected[name], rel=tolerance, abs=0.0)), name


def ways(value: object, way: Way = ()) -> Iterator[Way]:
    """The ways to all values of a document, the document itself left out."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for step, inner in items:
        yield (*way, step)
        yield from ways(inner, (*way, step))


def value_at(document: Any, way: Way) -> Any:
    """The value at the end of a way."""
    for step in way:
        document = document[step]
    return document


def opened(way: Way) -> tuple[dict[str, Any], Any]:
    """A document like `DOCUMENT`, and in it what holds the end of a way: what is on the way is its own."""
    holder = document = copy.copy(DOCUMENT)
    for step in way[:-1]:
        holder[step] = copy.copy(holder[step])
        holder = holder[step]
    return document, holder


def changed(way: Way, value: object) -> dict[str, Any]:
    """The document with another value at the end of a way."""
    document, holder = opened(way)
    holder[way[-1]] = value
    return document


def without(way: Way) -> dict[str, Any]:
    """The document without a field."""
    document, holder = opened(way)
    del holder[way[-1]]
    return document


# What is computed from the sums is written for other programs, and not read back.
DERIVED = ("kinship", "findings", "outliers", "totals", "statistics", "verdict")
READ = [way for way in ways(DOCUMENT) if not set(DERIVED) & set(way) and "dtypes" not in way[:-1]]
# Not in every file of version 1: later than the first ones, or not measured by every scan.
ADDED = ("notes", "virtual", "slice", "rows", "base", "spectrum", "row_cosines", "histogram", "cast_only")
ADDED += ("nonfinite_differs", "task_n", "task_dot_a", "steps", "e4m3_steps")
OPTIONAL = ("title", "keys", "dtypes", "sha256")  # of a model: added after the first version 1 was fixed
FIELDS = [
    way
    for way in READ
    if isinstance(way[-1], str) and not (way[0] == "models" and way[-1] in OPTIONAL) and way[-1] not in ADDED
]


def spelled(way: Way) -> str:
    """A way as the name of a test."""
    return ".".join(map(str, way))


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    """Every record of a scan survives the file: names, shapes, labels, sums to the last bit."""
    path = tmp_path / "scan.json"
    path.write_bytes(dumps(SCAN))
    assert SCAN == load(path)


def test_the_scan_of_real_files_comes_back(tmp_path: Path, write: Write, unet: Unet) -> None:
    """The same for a scan that was measured."""
    a, b = write("a.safetensors", unet(1)), write("b.safetensors", unet(2))
    with open_checkpoint(a) as model_a, open_checkpoint(b) as model_b:
        measured = scan(model_a, model_b)
    path = tmp_path / "scan.json"
    path.write_bytes(dumps(measured))
    assert measured == load(path)
    assert dumps(measured) == dumps(load(path))


def test_many_keys_come_back_in_their_order(tmp_path: Path) -> None:
    """Of thousands of rows, plain ones and ones with something odd, each stands where it stood."""
    odd = (*SCAN.keys, replace(SCAN.keys[0], sums=replace(_MEASURED, sum_dd=math.inf)))
    keys = tuple(
        replace(odd[i % 5 if i == 1500 or i > 2600 else 2], key=f"k{i}", key_b=f"k{i}") for i in range(3000)
    )
    several = replace(SCAN, keys=keys, virtual=keys[:1100])
    path = tmp_path / "scan.json"
    path.write_bytes(dumps(several))
    assert several == load(path)
    assert [f"k{i}" for i in range(3000)] == [row["key"] for row in json.loads(path.read_bytes())["keys"]]
    assert path.read_bytes() == b"".join(pieces(several))
    assert max(map(len, pieces(several))) < len(path.read_bytes()) / 2


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the examples of a property write one after the other."""
    return tmp_path_factory.mktemp("scans") / "scan.json"


_squares = st.floats(0, 1.7e308)
_values = st.floats(-1.7e308, 1.7e308)


@example(squares=(117.0, 0.048828125, 119.0, 0.0, 0.0, 0.0), values=(0.0, 0.0, 0.0), count=1)
@given(squares=st.tuples(*[_squares] * 6), values=st.tuples(*[_values] * 3), count=st.integers(1, 2**40))
def test_floats_keep_full_precision(
    reused: Path, squares: tuple[float, ...], values: tuple[float, ...], count: int
) -> None:
    """Any finite fp64 sum and any count is read back equal, whoever reads the JSON."""
    aa, bb, dd, abs_d, largest, ulp = squares
    a, b, ab = values
    sums = Sums(
        numel=count, n=count, numeric=count, changed=count, sum_a=a, sum_b=b, sum_aa=aa, sum_bb=bb, sum_dd=dd,
        sum_ab=ab, sum_abs_d=abs_d, max_abs_d=largest, sum_ulp_sq=ulp,
        histogram=Histogram(3, array("q", [count]), array("d", [dd])),
        task=TaskSums(count, count, aa=aa, bb=bb, dd=dd),
    )  # fmt: skip
    row = replace(SCAN.keys[0], sums=sums)
    expected = replace(SCAN, keys=(row,))
    reused.write_bytes(dumps(expected))
    assert expected == load(reused)
    read = json.loads(reused.read_bytes())["keys"][0]
    assert {name: getattr(sums, name) for name in SUM_FIELDS}.items() <= read["sums"].items()
    assert_statistics(row, expected, read)


def test_undefined_is_null_and_never_nan() -> None:
    """The words NaN and Infinity, which are not JSON, appear for no scan; sums that overflowed are null."""
    overflowed = replace(_MEASURED, sum_dd=math.inf, sum_ab=math.nan)
    rows = (*SCAN.keys, replace(SCAN.keys[0], key="overflowed", sums=overflowed))
    for result in (SCAN, replace(SCAN, keys=rows), replace(SCAN, keys=())):
        document = json.loads(dumps(result), parse_constant=refuse_constant)
        for row, written in zip(result.keys, document["keys"], strict=True):
            assert_statistics(row, result, written)
    statistics = DOCUMENT["keys"][1]["statistics"]
    assert dict.fromkeys(("norm_a", "cosine", "mean_b")).items() <= statistics.items()
    whole = json.loads(dumps(replace(SCAN, keys=())))["totals"]["statistics"]
    assert {"numel": 0, "nonfinite_a": 0, "nonfinite_b": 0} == {
        k: v for k, v in whole.items() if v is not None
    }


def test_a_sum_that_overflowed_is_infinite_again(tmp_path: Path) -> None:
    """Its statistics stay undefined after reading, and the others stay what they were."""
    sums = replace(_MEASURED, sum_dd=math.inf)
    path = tmp_path / "scan.json"
    path.write_bytes(dumps(replace(SCAN, keys=(replace(SCAN.keys[0], sums=sums),))))
    assert (sums,) == tuple(row.sums for row in load(path).keys)


Kinds = type | tuple[type, ...]

NUMBER, COUNT, MAYBE = (int, float), int, (int, float, type(None))
KEY: dict[str, Kinds] = {
    "key": str, "key_b": str, "shape": list, "dtype_a": str, "dtype_b": str,
    "part": str, "block": str, "component": str, "kind": str, "sums": dict, "statistics": dict,
    "verdict": str,
}  # fmt: skip
MODEL: dict[str, Kinds] = {"path": str, "bytes": COUNT, "fingerprint": str, "architecture": str}
TOP: dict[str, Kinds] = {
    "format": str, "version": COUNT, "tool": str, "created": str, "models": dict, "keys": list,
    "only_in_a": list, "only_in_b": list, "shape_mismatch": list, "totals": dict,
    "kinship": (str, type(None)), "findings": list, "outliers": list,
}  # fmt: skip


def test_the_contracts_fields_are_there() -> None:
    """All fields that the contract names, of the types that it gives them."""
    described: list[tuple[Mapping[str, Kinds], dict[str, Any]]] = [
        (TOP, DOCUMENT),
        ({"a": dict, "b": dict, "base": dict}, DOCUMENT["models"]),
        (MODEL, DOCUMENT["models"]["base"]),
        (MODEL, DOCUMENT["models"]["a"]),
        (MODEL, DOCUMENT["models"]["b"]),
        *((KEY, row) for row in DOCUMENT["keys"]),
        *((dict.fromkeys(STATISTICS, MAYBE), row["statistics"]) for row in DOCUMENT["keys"]),
        *((dict.fromkeys(SUM_FIELDS, NUMBER), row["sums"]) for row in DOCUMENT["keys"]),
        (dict.fromkeys(STATISTICS, MAYBE), DOCUMENT["totals"]["statistics"]),
        ({"key": str, "shape_a": list, "shape_b": list}, DOCUMENT["shape_mismatch"][0]),
        ({"text": str, "statistic": str, "value": MAYBE, "selector": str}, DOCUMENT["findings"][0]),
    ]
    for names, got in described:
        for name, kind in names.items():
            assert isinstance(got[name], kind), name
    assert ("mergescope.scan", 1) == (DOCUMENT["format"], DOCUMENT["version"])


def test_same_scan_same_bytes() -> None:
    """One line of JSON with a newline at its end, the same each time."""
    assert dumps(SCAN) == dumps(copy.deepcopy(SCAN))
    assert 1 == dumps(SCAN).count(b"\n") == dumps(SCAN).endswith(b"\n")


def test_readers_ignore_fields_that_they_do_not_know(tmp_path: Path) -> None:
    """A later release of the same version may add fields anywhere."""
    document = copy.deepcopy(DOCUMENT)
    for way in ((), ("models", "a"), ("keys", 0), ("keys", 0, "sums"), ("shape_mismatch", 0)):
        value_at(document, way)["later"] = {"new": [1, None]}
    assert SCAN == load(save(tmp_path / "scan.json", document))


def test_files_without_what_is_computed_or_optional_are_read(tmp_path: Path) -> None:
    """Statistics, totals, kinship and findings are made anew; a model's title, keys and dtypes may lack."""
    document = copy.deepcopy(DOCUMENT)
    del document["kinship"], document["findings"], document["totals"], document["outliers"]
    for row in document["keys"]:
        del row["statistics"], row["verdict"]
    for model in ("a", "b"):
        for name in OPTIONAL:
            del document["models"][model][name]
    a, b = (replace(model, title="", keys=0, dtypes={}) for model in (SCAN.a, SCAN.b))
    expected = replace(SCAN, a=a, b=b)
    assert expected == load(save(tmp_path / "scan.json", document))


NOT_SCANS = {
    "empty": b"",
    "text": b"not a scan",
    "cut short": dumps(SCAN)[:-20],
    "not UTF-8": dumps(SCAN).replace(b"ids", b"\xff\xfe"),
    "NaN": dumps(SCAN).replace(b"2.0000000000000004", b"NaN"),
    "safetensors": b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
    "too deep": b"[" * 100_000,
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "another format": b'{"format": "mergescope.experiment", "version": 1}',
    "no format": b'{"version": 1}',
    "a later version": json.dumps(changed(("version",), 2)).encode(),
    "a version as text": json.dumps(changed(("version",), "1")).encode(),
    "a version that is true": json.dumps(changed(("version",), True)).encode(),
    "no version": json.dumps(without(("version",))).encode(),
}


@pytest.mark.parametrize("name", NOT_SCANS)
def test_what_is_no_scan_file_is_refused(name: str, tmp_path: Path) -> None:
    """One sentence that names the file and says how to make one."""
    path = tmp_path / "scan.json"
    path.write_bytes(NOT_SCANS[name])
    with pytest.raises(ScanFileError, match=r"scan\.json: .*scan"):
        load(path)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    """No file, a folder, a device, which may have no end: said, with the name."""
    with pytest.raises(ScanFileError, match=r"nowhere\.json: no such file"):
        load(tmp_path / "nowhere.json")
    if os.name != "nt":
        with pytest.raises(ScanFileError, match="/dev/null: is a device"):
            load(Path("/dev/null"))
    with pytest.raises(ScanFileError, match=tmp_path.name):
        load(tmp_path)


def test_lists_that_came_later_may_be_missing(tmp_path: Path) -> None:
    """A scan file of the first release has no virtual rows, no notes and no slices."""
    document = copy.deepcopy(DOCUMENT)
    del document["virtual"], document["notes"], document["keys"][-1]["slice"]
    keys = (*SCAN.keys[:-1], replace(SCAN.keys[-1], slice=None))
    expected = replace(SCAN, virtual=(), notes=(), keys=keys)
    assert expected == load(save(tmp_path / "scan.json", document))


@pytest.mark.parametrize("way", FIELDS, ids=spelled)
def test_a_missing_field_is_refused(way: Way, tmp_path: Path) -> None:
    """Every field that is read, one after the other: the message names the file."""
    with pytest.raises(ScanFileError, match=r"scan\.json: "):
        load(save(tmp_path / "scan.json", without(way)))


WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    0.5,
    "text",
    "",
    ["list"],
    [[]],
    {},
    {"a": "dict"},
    [{"a": "dict"}],
)


def is_fine(way: Way, value: object) -> bool:
    """Whether a value of `WRONG` may stand in a field."""
    good, field = value_at(DOCUMENT, way), way[-1]
    if field in ("blocks", "only_in_a", "only_in_b", "notes"):
        return value == ["list"]
    if field == "dtypes":
        return value in (None, {})
    if field == "sha256":
        return value is None or isinstance(value, str | dict)
    if field in ("rank_90", "lora_rank") or way == ("models", "base"):
        return value is None
    if "row_cosines" in way or "spectrum" in way[:-1]:
        return value in (0.5, -1 if "row_cosines" in way else 0.5) and not isinstance(value, bool)
    if isinstance(good, bool) or isinstance(value, bool):
        return isinstance(good, bool) and isinstance(value, bool)
    if isinstance(good, float):  # a sum: null where it overflowed; squares and magnitudes have no sign
        signed = field in ("sum_a", "sum_b", "sum_ab", "task_dot_a")
        return value is None or value == 0.5 or (value == -1 and signed)
    return isinstance(good, str) and isinstance(value, str) and field != "format"


@pytest.mark.parametrize("way", READ, ids=spelled)
def test_a_value_of_the_wrong_type_is_refused(way: Way, tmp_path: Path) -> None:
    """Every value that is read, one after the other, replaced by each type of JSON in turn."""
    path = tmp_path / "scan.json"
    accepted = []
    for value in WRONG:
        save(path, changed(way, value))
        try:
            load(path)
        except ScanFileError as error:
            assert "scan.json: " in str(error)
        else:
            accepted.append(value)
    assert [] == [value for value in accepted if not is_fine(way, value)]


@pytest.mark.parametrize(("count", "refused"), [(2**40, False), (2**40 + 1, True)])
def test_counts_that_no_key_has_are_refused(tmp_path: Path, count: int, refused: bool) -> None:
    """So that of thousands of keys together none outgrows 64 bits and is negative."""
    histogram = Histogram(3, array("q", [count]), array("d", [1.0]))
    sums = replace(_MEASURED, numel=count, n=count, numeric=count, changed=count, histogram=histogram)
    document = json.loads(dumps(replace(SCAN, keys=(replace(SCAN.keys[0], sums=sums),))))
    for rows in (9000, 1):  # many are looked at together
        document["keys"] = [document["keys"][0] | {"key": f"k{row}"} for row in range(rows)]
        path = save(tmp_path / "scan.json", document)
        if refused:
            with pytest.raises(ScanFileError, match=f"{count} is not a count"):
                load(path)
        else:
            loaded = load(path)
            assert rows * count == total(loaded.keys).changed
            dumps(loaded)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400)
@given(way=st.sampled_from(READ), value=_json)
@example(way=("keys", 0, "sums", "numeric"), value=0)  # sums of no elements
@example(way=("keys", 2, "sums", "sum_aa"), value=-1.0)
@example(way=("keys", 2, "sums", "numel"), value=2**64 - 1)
@example(way=("keys", 0, "group"), value="")
@example(way=("keys", 0, "component"), value="")
@example(way=("keys", 0, "component"), value="0")  # its group is of another
@example(way=("keys", 0, "component"), value="transformer_blocks/attn2/a,b")
@example(way=("keys", 0, "part"), value="..")
def test_damage_is_a_scan_file_error_or_harmless(reused: Path, way: Way, value: object) -> None:
    """Whatever stands in a field: it is refused, or the scan can be ranked and written again."""
    try:
        result = load(save(reused, changed(way, value)))
    except ScanFileError as error:
        assert str(reused) in str(error)
        return
    assert sum(row.keys for row in rank(result)) == sum(row.labels.counted for row in result.keys)
    document = json.loads(dumps(result), parse_constant=refuse_constant)
    assert [row.key for row in result.keys] == [row["key"] for row in document["keys"]]


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_bytes_are_a_scan_file_error_or_harmless(reused: Path, data: st.DataObject) -> None:
    """Bytes lost, added or changed anywhere never raise anything else."""
    raw = bytearray(dumps(SCAN))
    start = data.draw(st.integers(0, len(raw) - 1))
    stop = data.draw(st.integers(start, min(start + 5, len(raw))))
    raw[start:stop] = data.draw(st.binary(max_size=5))
    reused.write_bytes(raw)
    try:
        result = load(reused)
    except ScanFileError as error:
        assert str(reused) in str(error)
    else:
        assert len(SCAN.keys) >= len(result.keys)
