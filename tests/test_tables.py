"""CSV and JSON tables for other programs: as read back by Python's own readers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.evaluation import evaluate
from analyzer.measures import Sums
from analyzer.ranking import rank, total
from analyzer.records import KeyScan, Labels, ModelId, Scan
from analyzer.statistics import STATISTICS
from analyzer.tables import keys_csv, ranking_csv, ranking_document

MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")
TO_K = Labels("unet", "IN01", "transformer_blocks/attn2/to_k", "weight", "transformer_blocks/attn2")
IDS = Labels("text_encoder", "BASE", "embeddings/position_ids", "other", "embeddings", counted=False)
MEASURED = Sums(
    numel=8, n=7, numeric=7, nonfinite_a=1, changed=5, sign_flips=1, sum_a=0.1 + 0.2, sum_b=-1 / 3,
    sum_aa=2.0000000000000004, sum_bb=1e-300, sum_dd=3.141592653589793, sum_ab=-5e-324, sum_abs_d=1e300,
    max_abs_d=0.1, sum_ulp_sq=1e-7,
)  # fmt: skip
SCALAR = replace(TO_K, component="x", group="x")
GROWN = Sums(1, 1, 1, changed=1, sum_b=2.0, sum_bb=4.0, sum_dd=4.0, sum_abs_d=2.0, max_abs_d=2.0)
ROWS = (
    KeyScan("a.weight", "model.a.weight", (2, 4, 1), "F16", "BF16", TO_K, MEASURED),
    KeyScan("ids", "ids", (77,), "I64", "I32", IDS, Sums(numel=77, n=77, changed=1)),
    KeyScan("scalar", "scalar", (), "F32", "F32", SCALAR, GROWN),
)
SCAN = Scan("mergescope", "2026-01-01", MODEL, MODEL, ("IN01",), ROWS, (), (), ())


def read(text: str) -> list[list[str]]:
    """The cells of a CSV text, as Python's reader sees them."""
    return list(csv.reader(io.StringIO(text, newline="")))


def cell(value: float | None) -> str:
    """A number as its shortest exact spelling; nothing for undefined."""
    return "" if value is None else repr(value)


def test_the_key_table_has_a_line_for_every_key() -> None:
    """Names, labels, shape, dtypes and statistics, in the scan's order, integers and all."""
    head, *lines = read(keys_csv(SCAN))
    labels = ["part", "block", "component", "kind"]
    known = ["shape", "dtype_a", "dtype_b", "verdict"]
    assert ["key", "key_b", *labels, *known, *STATISTICS] == head
    assert [
        [
            "a.weight",
            "model.a.weight",
            "unet",
            "IN01",
            TO_K.component,
            "weight",
            "2x4x1",
            "F16",
            "BF16",
            "changed",
        ],
        ["ids", "ids", "text_encoder", "BASE", IDS.component, "other", "77", "I64", "I32", "changed"],
        ["scalar", "scalar", "unet", "IN01", "x", "weight", "", "F32", "F32", "changed"],
    ] == [line[:10] for line in lines]


def test_the_key_table_keeps_full_precision() -> None:
    """Every number reads back equal; what is undefined is an empty cell, never a word."""
    head, *lines = read(keys_csv(SCAN))
    for row, line in zip(ROWS, lines, strict=True):
        values = evaluate(row.sums, total=total(ROWS))
        got = dict(zip(head, line, strict=True))
        assert {name: cell(values[name]) for name in STATISTICS} == {name: got[name] for name in STATISTICS}
    assert repr(2.0000000000000004**0.5) == dict(zip(head, lines[0], strict=True))["norm_a"]
    assert "" == dict(zip(head, lines[1], strict=True))["cosine"]


@given(keys=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_name_survives_the_key_table(keys: list[str]) -> None:
    """Commas, quotes, line breaks of every kind: the cells are the names, and every key is one line."""
    rows = tuple(replace(ROWS[0], key=key) for key in keys)
    _, *lines = read(keys_csv(replace(SCAN, keys=rows)))
    assert keys == [line[0] for line in lines]


@pytest.mark.parametrize("key", ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", '"', " a ", "a;b\tc"])
def test_names_with_csv_signs_survive(key: str) -> None:
    """The signs that mean something to a reader of CSV, one after the other."""
    _, *lines = read(keys_csv(replace(SCAN, keys=(replace(ROWS[0], key=key),))))
    assert [key] == [line[0] for line in lines]


def test_a_scan_without_keys_is_a_table_without_lines() -> None:
    """The heading stays, so that a program finds its columns."""
    assert read(keys_csv(SCAN))[:1] == read(keys_csv(replace(SCAN, keys=())))
    assert [["name", "selector", "keys", "verdict", *STATISTICS]] == read(ranking_csv([]))


def test_the_ranking_table_has_a_line_for_every_group() -> None:
    """In the ranking's order: name, selector, number of keys, verdict and every statistic, exactly."""
    ranking = rank(SCAN)
    head, *lines = read(ranking_csv(ranking))
    assert ["name", "selector", "keys", "verdict", *STATISTICS] == head
    assert ["attn2", "x"] == [line[0] for line in lines]
    for group, line in zip(ranking, lines, strict=True):
        numbers = [cell(group.statistics[name]) for name in STATISTICS]
        assert [group.name, group.selector, "1", group.verdict, *numbers] == line


def test_the_ranking_document_is_the_ranking() -> None:
    """Rows in order under a format and a version; undefined is null, floats are exact."""
    ranking = rank(SCAN, by="cosine")
    document = ranking_document(ranking, axis="component", by="cosine")
    read_back = json.loads(orjson.dumps(document))
    assert document == read_back
    rows = read_back.pop("rows")
    assert {"format": "mergescope.ranking", "version": 1, "axis": "component", "by": "cosine"} == read_back
    assert [group.name for group in ranking] == [row["name"] for row in rows]
    for group, row in zip(ranking, rows, strict=True):
        head = {"name": group.name, "selector": group.selector, "keys": group.keys, "verdict": group.verdict}
        assert head | group.statistics == row
    assert {"changed"} == {row["verdict"] for row in rows}
    assert None is rows[-1]["cosine"]
