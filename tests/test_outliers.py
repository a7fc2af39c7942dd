"""Outlier keys: robust z-scores of log relative change, against scipy and numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from analyzer.measures import Sums
from analyzer.outliers import Outlier, outliers, robust_z
from analyzer.records import KeyScan, Labels, ModelId, Scan

MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")

reproducible = settings(derandomize=True, deadline=None)  # the same examples on every machine


def key(name: str, change: float, **labels: object) -> KeyScan:
    """A weight of 100 elements and norm 1 that moved by `change` of its norm."""
    described = Labels("unet", "IN01", "t/attn2/to_k", "weight", "t/attn2")
    described = replace(described, **labels)  # type: ignore[arg-type]  # fields of Labels
    sums = Sums(numel=100, n=100, numeric=100, changed=100 if change else 0, sum_aa=1.0, sum_dd=change**2)
    return KeyScan(name, name, (10, 10), "F32", "F32", described, sums)


def scan_of(rows: Sequence[KeyScan]) -> Scan:
    """A scan of these rows."""
    return Scan("mergescope", "2026-01-01", MODEL, MODEL, ("IN01",), tuple(rows), (), (), ())


def spread(count: int, *, seed: int = 0, prefix: str = "k", **labels: object) -> list[KeyScan]:
    """Keys whose changes spread around 0.1 as they do in real models: by a factor of 1.3 or so."""
    changes = np.exp(np.random.default_rng(seed).uniform(-0.3, 0.3, count)) * 0.1
    return [key(f"{prefix}{i}", float(change), **labels) for i, change in enumerate(changes)]


def test_a_key_far_above_its_like_is_found() -> None:
    """One key at fifty times the change of twenty others: its score is scipy's."""
    rows = [*spread(20), key("odd", 5.0)]
    (found,) = outliers(scan_of(rows))
    logs = np.log([math.sqrt(row.sums.sum_dd) for row in rows])
    expected = (logs[-1] - np.median(logs)) / median_abs_deviation(logs, scale="normal")
    assert ("odd", "t/attn2") == (found.key, found.category)
    assert found.value == pytest.approx(5.0)
    assert found.z == pytest.approx(expected, rel=1e-4)  # 1.4826 is rounded


def test_a_key_that_hardly_moved_has_a_negative_score() -> None:
    """Standing still among movers stands out as well."""
    (found,) = outliers(scan_of([*spread(20), key("still", 1e-4)]))
    assert ("still", True) == (found.key, found.z < -3.5)


def test_the_most_extreme_comes_first_and_ties_go_by_key() -> None:
    """Sorted by |z|, whichever way it points."""
    rows = [*spread(21), key("z", 9.0), key("y", 9.0), key("low", 1e-6)]
    assert ["low", "y", "z"] == [outlier.key for outlier in outliers(scan_of(rows))]


def test_no_outlier_among_keys_that_spread_evenly() -> None:
    """Nothing is reported where nothing stands out."""
    assert [] == outliers(scan_of(spread(50)))


@pytest.mark.parametrize(("count", "found"), [(6, 0), (7, 1)])
def test_few_keys_have_no_outliers(count: int, found: int) -> None:
    """A category needs eight keys that changed, the odd one included."""
    assert found == len(outliers(scan_of([*spread(count), key("odd", 50.0)])))


def test_a_mad_of_zero_gives_none() -> None:
    """Where most keys moved by the very same factor there is no spread to measure against."""
    rows = [*(key(f"k{i}", 0.1) for i in range(20)), key("odd", 5.0)]
    assert [] == outliers(scan_of(rows))
    assert robust_z([1.0, 1.0, 1.0, 9.0]) is None
    assert robust_z([]) is None


def test_small_factors_are_no_outliers() -> None:
    """Twenty keys at 0.1 to a ten-thousandth: 0.12 is many deviations away, and still about 0.1."""
    rows = [key(f"k{i}", 0.1 + i * 1e-6) for i in range(20)]
    assert [] == outliers(scan_of([*rows, key("near", 0.12)]))
    assert ["far"] == [outlier.key for outlier in outliers(scan_of([*rows, key("far", 0.13)]))]


def test_keys_are_compared_with_their_like_alone() -> None:
    """What is usual in another component or part does not count: each has its own median."""
    other = [key(f"o{i}", float(5 * row.sums.sum_dd**0.5), group="t/ff") for i, row in enumerate(spread(20))]
    part = [replace(row, key=f"p{row.key}", labels=replace(row.labels, part="vae")) for row in other]
    gains = [replace(row, key=f"g{row.key}", shape=(100,), labels=spread(1)[0].labels) for row in other]
    rows = [*spread(20), *other, *part, *gains]
    assert [] == outliers(scan_of(rows))
    assert ["odd"] == [outlier.key for outlier in outliers(scan_of([*rows, key("odd", 0.9)]))]


@pytest.mark.parametrize("labels", [{"kind": "bias"}, {"kind": "other"}, {"counted": False}])
def test_only_counted_weights_are_looked_at(labels: dict[str, object]) -> None:
    """Biases, tables and EMA copies neither are outliers nor count among the others."""
    assert [] == outliers(scan_of([*spread(20), key("odd", 50.0, **labels)]))
    assert [] == outliers(scan_of([*spread(20, **labels), key("odd", 50.0)]))


def test_unchanged_and_undefined_keys_are_left_out() -> None:
    """A key that did not change, or that A has as zeros alone, has no logarithm to compare."""
    zeros = replace(key("zeros", 1.0), sums=Sums(numel=4, n=4, numeric=4, changed=4, sum_dd=1.0))
    assert [] == outliers(scan_of([*spread(20), key("still", 0.0), zeros]))


def test_rounding_is_no_outlier() -> None:
    """A key that differs by rounding alone is not listed, however much the others moved."""
    row = key("rounded", 1e-6)
    rounded = replace(row, sums=replace(row.sums, sum_ulp_sq=12 * 1e-12))
    cast = replace(key("cast", 1e-6), sums=replace(row.sums, cast_only=100))
    assert [] == outliers(scan_of([*spread(20), rounded, cast]))


@reproducible
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
def test_scores_are_those_of_numpy(values: list[float]) -> None:
    """(x − median) / (1.4826 · MAD), or nothing where that divides by zero."""
    x = np.array(values)
    middle = np.median(x)
    scale = 1.4826 * np.median(np.abs(x - middle))
    scores = robust_z(values)
    if scale == 0:
        assert scores is None
    else:
        assert scores == pytest.approx((x - middle) / scale, rel=1e-9, abs=1e-9)


@reproducible
@given(order=st.permutations(range(22)), factor=st.floats(1e-6, 1e3))
def test_neither_order_nor_scale_matters(order: list[int], factor: float) -> None:
    """Outliers stay the same when keys are shuffled or all changes are multiplied by one number."""
    rows = [*spread(20), key("high", 7.0), key("low", 1e-4)]
    scaled = [key(rows[i].key, math.sqrt(rows[i].sums.sum_dd) * factor) for i in order]
    expected = [(o.key, pytest.approx(o.z, rel=1e-6)) for o in outliers(scan_of(rows))]
    assert expected == [(o.key, o.z) for o in outliers(scan_of(scaled))]


def test_an_outlier_is_a_plain_record() -> None:
    """Findings and the report take it as it is."""
    assert Outlier("k", "ff", 0.5, 4.0) == Outlier(key="k", category="ff", value=0.5, z=4.0)
