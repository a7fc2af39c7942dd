"""Every statistic that the report page computes, for every key and for groups, against Python's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyzer.evaluation import evaluate, evaluate_key
from analyzer.measures import Sums, add_sums
from analyzer.ranking import total
from analyzer.records import KeyScan, Scan
from analyzer.selectors import select
from analyzer.statistics import STATISTICS
from analyzer.verdicts import verdict

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

GROUPS = (
    "unet",
    "attn2",
    "attn2/to_k,weight",
    "text_encoder",
    "vae",
    "OUT03..OUT08",
    "bias",
    "part:ema",
    "attn2,ema",
    "key:*embeddings.position_ids",
    "schedule",
)


def test_every_statistic_of_every_key_is_python_s(page: Any, synthetic: Any) -> None:
    """Sums, tasks, histograms, cosines of rows and spectra: all that the table has, of each key."""
    whole = total(synthetic.scan.keys)
    rows = page.run("return mergescope.scan.keys.map((key) => key.statistics)")
    assert set(STATISTICS) == set(rows[0])
    for key, drawn in zip(synthetic.scan.keys, rows, strict=True):
        assert_same(evaluate_key(key, total=whole), drawn, key.key)


@pytest.mark.parametrize("selector", GROUPS)
def test_every_statistic_of_a_group_is_python_s(page: Any, synthetic: Any, selector: str) -> None:
    """Of any selection, whether or not it counts in the total."""
    assert_same(of_selection(synthetic.scan, selector), page.run(EVALUATE, selector), selector)


def test_every_statistic_of_the_whole_is_python_s(page: Any, synthetic: Any) -> None:
    """The totals are those of all counted keys together, and so is the empty selection."""
    counted = [key for key in synthetic.scan.keys if key.labels.counted]
    whole = total(counted)
    expected = evaluate(whole, total=whole, keys=counted)
    assert_same(expected, page.run("return mergescope.scan.totals.statistics"), "totals")
    assert_same(expected, page.run(EVALUATE, ""), "all")


def test_the_fixture_defines_every_statistic(synthetic: Any) -> None:
    """No formula is compared on undefined values alone."""
    whole = total(synthetic.scan.keys)
    rows = [evaluate_key(key, total=whole) for key in synthetic.scan.keys]
    assert [] == [name for name in STATISTICS if all(row[name] is None for row in rows)]
    assert {"nonfinite_a", "nonfinite_b"} == {n for n in STATISTICS if len({row[n] for row in rows}) < 3}


def test_a_scan_of_two_models_alone_has_no_statistics_of_a_base(open_page: OpenPage, synthetic: Any) -> None:
    """Without --base and --spectrum, menus and numbers are those that were measured."""
    keys = tuple(
        replace(key, sums=replace(key.sums, task=None), row_cosines=None, spectrum=None)
        for key in synthetic.scan.keys
    )
    scan = replace(synthetic.scan, keys=keys, base=None, with_spectrum=False)
    page = open_page(scan)
    names = {name for name, s in STATISTICS.items() if not s.needs and not name.startswith("row_cosine")}
    assert names == set(page.run(EVALUATE, "attn2"))
    menu = "[...document.querySelectorAll('[data-section=ranking] [name=statistic] option')]"
    assert names == set(page.run(f"return {menu}.map((option) => option.value)"))
    assert 0 == page.run("return document.querySelectorAll('.base').length")
    assert {name: of_selection(scan, "attn2")[name] for name in names} == pytest.approx(
        page.run(EVALUATE, "attn2"), rel=1e-12
    )
    assert [] == page.complaints()


def test_histograms_of_every_width_add(open_page: OpenPage, synthetic: Any, sums_of: Any) -> None:
    """Changes from the first bin to the last, alone and together; one of them beyond fp64 squared."""
    rng = np.random.default_rng(7)
    sizes = (2.0**-70, 1e-9, 0.3, 1.5, 2.0**63, 2.0**70)
    keys = []
    for place, size in enumerate(sizes):
        a = rng.normal(0.0, 1.0, 400)
        b = a + rng.choice([-1.0, 1.0], 400) * size * rng.uniform(1, 3, 400) * (rng.random(400) < 0.5)
        keys.append(renamed(synthetic.scan.keys[20], f"key{place}", f"part{place % 2}", sums_of(a, b)))
    scan = replace(synthetic.scan, keys=tuple(keys))
    page = open_page(scan)
    for selector in ("part:part0", "part:part1", "part:part0,part:part1"):
        assert_same(of_selection(scan, selector), page.run(EVALUATE, selector), selector)
    whole = total(keys)
    for key, drawn in zip(keys, page.run("return mergescope.scan.keys"), strict=True):
        assert_same(evaluate_key(key, total=whole), drawn["statistics"], key.key)
        assert key.sums.histogram.counts.tolist() == drawn["histogram"]["counts"]
        assert key.sums.histogram.energies.tolist() == drawn["histogram"]["energies"]


def test_verdicts_are_python_s(page: Any, synthetic: Any) -> None:
    """The verdict of every key is embedded as `analyzer.verdicts` gives it."""
    rows = page.run("return mergescope.scan.keys.map((key) => key.verdict)")
    assert [verdict(key.sums) for key in synthetic.scan.keys] == rows
    assert len(set(rows)) > 2


EVALUATE = "return mergescope.evaluate(arguments[0])"


def of_selection(scan: Scan, selector: str) -> dict[str, float | None]:
    """What Python says of the keys that a selector hits."""
    keys = select(selector, rows=scan.keys, blocks=scan.blocks)
    whole = total(scan.keys) if all(key.labels.counted for key in keys) else None
    return evaluate(add_sums(key.sums for key in keys), total=whole, keys=keys)


def assert_same(expected: Mapping[str, float | None], drawn: Mapping[str, float | None], where: str) -> None:
    """Equal to 12 digits, undefined where the other is; a mean near zero to 12 digits of the spread."""
    assert [name for name in drawn if expected[name] is None] == [
        name for name in drawn if drawn[name] is None
    ], where
    for name, value in drawn.items():
        slack = 1e-12 * (expected[f"std_{name[-1]}"] or 0.0) if name.startswith("mean_") else 0.0
        assert expected[name] is None or expected[name] == pytest.approx(value, rel=1e-12, abs=slack), (
            f"{name} of {where}"
        )


def renamed(key: KeyScan, name: str, part: str, sums: Sums) -> KeyScan:
    labels = replace(key.labels, part=part)
    return replace(key, key=name, key_b=name, labels=labels, sums=sums, row_cosines=None, spectrum=None)
