"""Outlier keys: robust z-scores of log relative change, against scipy and numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

from analyzer.measures import Sums
from analyzer.outliers import CHANCE, LIMITS, Outlier, limit, outliers, robust_z
from analyzer.records import KeyScan, Labels, ModelId, Scan

MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")


def key(name: str, change: float, *, numel: int = 10_000, **labels: object) -> KeyScan:
    """A weight of norm 1 that moved by `change` of its norm."""
    described = Labels("unet", "IN01", "t/attn2/to_k", "weight", "t/attn2")
    described = replace(described, **labels)  # type: ignore[arg-type]  # fields of Labels
    changed = numel if change else 0
    sums = Sums(numel=numel, n=numel, numeric=numel, changed=changed, sum_aa=1.0, sum_dd=change**2)
    return KeyScan(name, name, (2, numel // 2), "F32", "F32", described, sums)


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
    cast = replace(key("cast", 1e-6), sums=replace(row.sums, cast_only=10_000))
    assert [] == outliers(scan_of([*spread(20), rounded, cast]))


def chance_scores(count: int, samples: int, seed: int) -> NDArray[np.float64]:
    """The largest robust |z| of each of so many samples of `count` normal values, by NumPy."""
    x = np.random.default_rng(seed).standard_normal((samples, count))
    far = np.abs(x - np.median(x, axis=1, keepdims=True))
    return far.max(axis=1) / (1.4826 * np.median(far, axis=1))


@pytest.mark.parametrize("count", [8, 9, 11, 14, 20, 40, 90, 300, 1000])
@pytest.mark.parametrize("samples", [1, 10])
def test_chance_goes_beyond_the_limit_in_one_of_a_hundred_looks(count: int, samples: int) -> None:
    """At one sample, and at ten together: at most that, within the error of 400,000 or fewer numbers."""
    looks = max(min(40_000, 4_000_000 // count), 10_000)
    share = float((chance_scores(count, looks, count) > limit(count, samples)).mean()) * samples
    error = math.sqrt(CHANCE * samples / looks)
    assert share < CHANCE + 4 * error
    assert share > CHANCE / 3 - 4 * error  # and the limit is not out of reach


def test_the_limits_of_the_table_are_met_and_lie_on_one_line() -> None:
    """One, ten and a hundred samples are the three columns; fewer values and more samples need more."""
    for count, row in LIMITS.items():
        assert row == pytest.approx([limit(count, samples) for samples in (1, 10, 100)], rel=1e-12)
    assert limit(8) == limit(2) == limit(9)
    assert limit(2048) == limit(10**6)
    assert sorted(map(limit, (8, 10, 13, 17, 30, 60)), reverse=True) == [
        limit(count) for count in (8, 10, 13, 17, 30, 60)
    ]
    assert limit(8, 1) < limit(8, 7) < limit(8, 500)


def lognormal(seed: int, *, planted: float = 0.0) -> Scan:
    """Twelve categories of 8 or 24 keys whose changes spread by chance, perhaps with one that stands out."""
    rng = np.random.default_rng(seed)
    rows = [
        key(f"{c}.{i}", float(0.02 * np.exp(0.3 * rng.standard_normal())), group=f"g{c}")
        for c in range(12)
        for i in range(8 + 16 * (c % 2))
    ]
    return scan_of([*rows, key("planted", planted, group="g1")] if planted else rows)


def test_chance_outliers_are_rare() -> None:
    """One in 100 scans of categories without any; at 3.5 most of them had one. What is planted is found."""
    assert sum(bool(outliers(lognormal(seed))) for seed in range(200)) <= 6
    for seed in range(20):
        assert "planted" in [outlier.key for outlier in outliers(lognormal(seed, planted=1.0))]


def test_few_elements_move_more_or_less_by_chance() -> None:
    """Nineteen keys that moved alike: a gain of 8 elements at half of that is chance, of 800 it is not."""
    rows = [key(f"k{i}", 0.1 + i * 1e-5) for i in range(19)]
    assert [] == outliers(scan_of([*rows, key("few", 0.05, numel=8)]))
    assert ["many"] == [outlier.key for outlier in outliers(scan_of([*rows, key("many", 0.05, numel=800)]))]


def test_noise_in_gains_has_no_outliers() -> None:
    """Norm gains of 32 to 128 elements, each changed by independent noise."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sizes = rng.choice([32, 64, 128], 32)
        changes = [0.02 * np.linalg.norm(rng.standard_normal(n)) / math.sqrt(n) for n in sizes]
        rows = [
            key(f"k{i}", float(x), numel=int(n)) for i, (n, x) in enumerate(zip(sizes, changes, strict=True))
        ]
        assert [] == outliers(scan_of(rows))


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
