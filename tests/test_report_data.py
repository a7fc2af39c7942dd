"""The data inside the report page: it comes back as it went in, and nothing in it can end its element."""

from __future__ import annotations

import json
import string
import zlib
from array import array
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.measures import Histogram, Sums, TaskSums
from analyzer.records import KeyScan, Labels, ModelId, RowCosines, Scan, Spectrum
from analyzer.statistics import STATISTICS
from reports import embedded
from reports.embedded import Interval, Intervals, Planner, Preset, embed

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'\u2028"
SUMS = Sums(numel=4, n=4, numeric=4, changed=4, sum_aa=1 / 3, sum_bb=0.4, sum_dd=0.1, sum_a=1e-300)

histograms = st.builds(
    lambda first, bins: Histogram(
        first, array("q", [count for count, _ in bins]), array("d", [energy for _, energy in bins])
    ),
    st.integers(0, 250),
    st.lists(st.tuples(st.integers(0, 2**53), st.floats(0, allow_nan=False)), max_size=6),
)


def key_scan(key: str = "block.attn2.weight", **changes: Any) -> KeyScan:
    labels = Labels("unet", "IN01", "attn2/to_k", "weight", "attn2")
    return replace(KeyScan(key, key, (2, 2), "F16", "F16", labels, SUMS), **changes)


def scan_of(*keys: KeyScan, **changes: Any) -> Scan:
    model = ModelId("/models/one.safetensors", 10, "sha256:0", "sd1")
    return replace(Scan("mergescope 0", "now", model, model, ("IN01",), keys, (), (), ()), **changes)


class Data:
    """What the page's script reads: the JSON, and the numbers that its columns point into."""

    def __init__(
        self, scan: Scan, *, intervals: Intervals | None = None, planner: Planner | None = None
    ) -> None:
        self.text = embed(
            scan,
            kinship="fine-tune",
            findings=[],
            statistics=STATISTICS,
            intervals=intervals or {},
            planner=planner,
        )
        head, _, planes = zlib.decompress(b64decode(self.text)).partition(b"\n")
        self.json: dict[str, Any] = json.loads(head)
        self.numbers = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<f8").ravel()

    def column(self, place: Sequence[int]) -> list[float]:
        start, end = place
        return self.numbers[start:end].tolist()  # type: ignore[no-any-return]  # a list of floats

    def table(self, name: str) -> dict[int, dict[str, float]]:
        """A table of some rows: row -> record."""
        table = self.json[name]
        columns = {field: self.column(place) for field, place in table["columns"].items()}
        return {
            row: {field: column[n] for field, column in columns.items()}
            for n, row in enumerate(table["rows"])
        }


def test_sums_keep_every_bit() -> None:
    """Floats come back as the floats they were, overflow included, and counts as counts."""
    overflow = Sums(numel=1, n=1, numeric=1, sum_aa=inf, sum_bb=0.1)
    data = Data(scan_of(key_scan(), key_scan("y", sums=overflow)))
    names = ("sum_aa", "sum_bb", "sum_a", "changed")
    read = {name: data.column(data.json["sums"][name]) for name in names}
    assert {
        "sum_aa": [1 / 3, inf],
        "sum_bb": [0.4, 0.1],
        "sum_a": [1e-300, 0.0],
        "changed": [4, 0],
    } == read


@given(st.lists(histograms, min_size=1, max_size=5))
def test_histograms_come_back_by_key(them: list[Histogram]) -> None:
    """Every key finds its own bins among those of all keys, empty histograms included."""
    keys = [key_scan(str(n), sums=replace(SUMS, histogram=its)) for n, its in enumerate(them)]
    data = Data(scan_of(*keys))
    packed = data.json["histograms"]
    counts, energies = data.column(packed["counts"]), data.column(packed["energies"])
    read, start = [], 0
    for first, length in zip(packed["first"], packed["lengths"], strict=True):
        end = start + length
        read.append((first, counts[start:end], energies[start:end]))
        start = end
    assert [(its.first, its.counts.tolist(), its.energies.tolist()) for its in them] == read


@given(st.lists(st.tuples(histograms, histograms), min_size=1, max_size=5))
def test_steps_come_back_by_key(them: list[tuple[Histogram, Histogram]]) -> None:
    """A page with a planner holds the energies of all steps, in both of their units."""
    sums = [replace(SUMS, steps=steps, e4m3_steps=coarse) for steps, coarse in them]
    data = Data(scan_of(*(key_scan(str(n), sums=its) for n, its in enumerate(sums))), planner=Planner())
    for name in ("steps", "e4m3_steps"):
        packed = data.json["steps"][name]
        energies, read, start = data.column(packed["energies"]), [], 0
        for first, length in zip(packed["first"], packed["lengths"], strict=True):
            read.append((first, energies[start : start + length]))
            start += length
        assert [(h.first, h.energies.tolist()) for h in (getattr(its, name) for its in sums)] == read


def test_a_page_of_too_many_keys_holds_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one without a planner: they are two thirds of what a page has of a key."""
    assert Data(scan_of(key_scan())).json["steps"] is None
    monkeypatch.setattr(embedded, "MOST_KEYS_WITH_STEPS", 1)
    assert Data(scan_of(key_scan()), planner=Planner()).json["steps"] is not None
    assert Data(scan_of(key_scan(), key_scan("y")), planner=Planner()).json["steps"] is None


def test_a_planner_has_presets_formats_and_the_scan_s_file() -> None:
    """What a page cannot know by itself; no planner, nothing of it."""
    planner = Planner((Preset(name="GRAD_V", meaning="ends", weights=(1.0, 0.0)),), "scan.json")
    data = Data(scan_of(key_scan()), planner=planner).json["planner"]
    assert [{"name": "GRAD_V", "meaning": "ends", "weights": [1.0, 0.0]}] == data["presets"]
    assert ("scan.json", [11, 2.0**-24]) == (data["scan"], data["formats"]["F16"])
    assert Data(scan_of(key_scan())).json["planner"] is None


def test_only_the_keys_that_have_a_record_take_room() -> None:
    """Tasks, cosines of rows and spectra stand with their rows; a key without them is not in the table."""
    task = TaskSums(n=4, conflicts=1, aa=0.5)
    rows = RowCosines(0.1, 0.2, 0.3)
    spectrum = Spectrum(1.5, None, 0.6, 2)
    full = key_scan("full", sums=replace(SUMS, task=task), row_cosines=rows, spectrum=spectrum)
    data = Data(scan_of(key_scan("without"), full))
    assert [1] == [*data.table("tasks")]
    assert (4, 1, 0.5) == tuple(data.table("tasks")[1][name] for name in ("n", "conflicts", "aa"))
    assert {1: {"minimum": 0.1, "p05": 0.2, "median": 0.3}} == data.table("row_cosines")
    expected = {"stable_rank": 1.5, "rank_90": nan, "top_singular_share": 0.6, "lora_rank": 2}
    assert expected == pytest.approx(data.table("spectra")[1], abs=0, rel=0, nan_ok=True)


def test_what_no_key_has_is_null() -> None:
    """A scan of two models alone has no table of tasks, and says that it has no base."""
    data = Data(scan_of(key_scan())).json
    names = ("tasks", "row_cosines", "spectra")
    assert [None, None, None, None] == [*(data[name] for name in names), data["models"]["base"]]


def test_labels_come_back_by_key() -> None:
    """Every key finds its own label, shape and verdict again, whichever it shares with others."""
    other = Labels("vae", "VAE", "decoder", "bias", "decoder", counted=False)
    same = Sums(numel=4, n=4, numeric=4)
    scan = scan_of(key_scan("x"), key_scan("y", labels=other, shape=(), sums=same), key_scan("z"))
    keys = Data(scan).json["keys"]
    read = {
        name: [keys[name]["names"][code] for code in keys[name]["codes"]]
        for name in ("part", "block", "shape", "verdict")
    }
    assert {
        "part": ["unet", "vae", "unet"],
        "block": ["IN01", "VAE", "IN01"],
        "shape": [[2, 2], [], [2, 2]],
        "verdict": ["changed", "identical", "changed"],
    } == read
    assert ([1], ["x", "y", "z"], None) == (keys["uncounted"], keys["key"], keys["key_b"])


def test_intervals_are_embedded_with_the_digits_that_a_figure_needs() -> None:
    """Six digits of either end, tier and keys; a group with too few keys is there, without ends."""
    sure = Interval(low=1 / 3, high=2 / 3, tier=0, keys=16, note="")
    unsure = Interval(low=None, high=inf, tier=None, keys=1, note="1 key")
    groups = {"attn2": sure, "few": unsure}
    data = Data(scan_of(key_scan()), intervals={"group": {"cosine": groups}, "part": {}}).json["intervals"]
    assert ["attn2", "few"] == data["groups"]
    rows = [[0, 0.333333, 0.666667, 0, 16, ""], [1, None, None, None, 1, "1 key"]]
    assert {"group": {"cosine": rows}, "part": {}} == data["rows"]


def test_nothing_in_the_data_can_end_its_element() -> None:
    """Whatever the names are, the text has the signs of base64 alone, and the names come back."""
    data = Data(scan_of(key_scan(HOSTILE)))
    assert set(data.text) <= set(string.ascii_letters + string.digits + "+/=")
    assert [HOSTILE] == data.json["keys"]["key"]


def test_a_lone_surrogate_survives() -> None:
    """Such a name is legal in a JSON header and illegal in UTF-8; it comes back as it was."""
    assert ["lone \ud800\n"] == Data(scan_of(key_scan("lone \ud800\n"))).json["keys"]["key"]
