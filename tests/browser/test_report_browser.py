"""The report page in a real browser: what it draws, what it answers, and what it never does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import nan, sqrt
from typing import Any

import numpy as np
import pytest

from analyzer.evaluation import evaluate
from analyzer.findings import findings
from analyzer.measures import Sums, add_sums
from analyzer.records import Finding, KeyScan, Scan
from analyzer.selectors import select
from analyzer.statistics import STATISTICS

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


# The page as a whole


def test_the_page_is_silent_and_asks_nothing_of_the_network(open_page: OpenPage, synthetic: Any) -> None:
    """Opening a report and using it leaves no word in the console and sends no request."""
    page = open_page(synthetic.scan)
    page.switch("ranking", "axis", "block")
    page.switch("map", "logarithmic", True)
    page.select("attn2")
    assert [] == page.complaints()
    assert [] == page.requests()
    assert [] == page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")


def test_every_figure_is_drawn(page: Any, synthetic: Any) -> None:
    """Bars, cells and points are in the page by the time its functions exist; no canvas, no WebGL."""
    count = (
        "return document.querySelectorAll(`[data-section=${arguments[0]}] .figure ${arguments[1]}`).length"
    )
    groups = {key.labels.group for key in synthetic.scan.keys if key.labels.counted}
    moved = [key for key in synthetic.scan.keys if key.labels.counted and key.sums.sum_dd > 0]
    assert len(groups) == page.run(count, "ranking", ".bars .point")
    assert page.run(count, "map", ".heatmaplayer image") > 0
    assert len(moved) == page.run(count, "scatter", ".scatterlayer .point")
    assert 0 == page.run("return document.querySelectorAll('canvas, .gl-container *').length")


def test_the_embedded_scan_keeps_every_digit(page: Any, synthetic: Any) -> None:
    """`mergescope.scan` holds all keys with their labels, and their sums to the last bit."""
    rows = page.run("return mergescope.scan.keys")
    expected = [
        (
            k.key,
            list(k.shape),
            k.labels.block,
            k.labels.component,
            k.labels.counted,
            k.sums.sum_dd,
            k.sums.sum_a,
        )
        for k in synthetic.scan.keys
    ]
    fields = ("key", "shape", "block", "component", "counted")
    assert expected == [(*(r[f] for f in fields), r["sums"]["sum_dd"], r["sums"]["sum_a"]) for r in rows]


# Figures against Python


@pytest.mark.parametrize(
    ("option", "label"),
    [("group", "group"), ("component", "component"), ("block", "block"), ("part", "part"), ("kind", "kind")],
)
def test_the_ranking_groups_by_any_axis(page: Any, synthetic: Any, option: str, label: str) -> None:
    """Each bar is the statistic of its group's summed record, the group that moved most on top."""
    page.switch("ranking", "axis", option)
    page.run("const all = document.querySelector('[name=whole]'); if (!all.hidden) all.click()")
    values = group_values(synthetic.scan, lambda key: getattr(key.labels, label), "relative_change")
    figure = page.figure("ranking")
    assert sorted(values.values(), reverse=True) == pytest.approx(figure["data"][0]["x"], rel=1e-12)
    first = max(values, key=lambda name: values[name])
    assert figure["layout"]["yaxis"]["ticktext"][0] in first


def test_the_page_knows_every_statistic_that_python_knows(page: Any, synthetic: Any) -> None:
    """The page's formulas give Python's numbers for every statistic of the table, group by group."""
    for name in STATISTICS:
        expected = ranked(synthetic.scan, name)
        assert expected == pytest.approx(drawn(page, name), rel=1e-9, abs=1e-15, nan_ok=True), name


def test_the_page_and_python_agree_at_the_ends_of_fp64(open_page: OpenPage, synthetic: Any) -> None:
    """Sums that nearly overflow, that do so together, that vanish, and a spread far below the mean."""
    huge, tiny = sums_of(1.7e308), sums_of(5e-324)
    level = Sums(4, 4, 4, sum_a=4e6, sum_b=-4e6, sum_aa=4e12, sum_bb=4e12, m2_a=1e-9, m2_b=3e-9)
    raised = replace(level, numeric=2, sum_a=2.000002e6, sum_b=-2e6)
    empty = Sums(numel=3, nonfinite_a=3)
    groups = {
        "huge": [huge],
        "beyond": [huge, huge],
        "tiny": [tiny],
        "level": [level, replace(level, m2_a=0.0), empty],
        "raised": [level, raised],
        "zero": [Sums(4, 4, 4, changed=4, sum_bb=1.0, sum_dd=1.0)],
        "nothing": [empty, empty],
    }
    scan = scan_of_groups(synthetic.scan, groups)
    page = open_page(scan)
    for name in STATISTICS:
        assert ranked(scan, name) == pytest.approx(drawn(page, name), rel=1e-9, abs=0.0, nan_ok=True), name
    assert [] == page.complaints()


def test_the_scatter_has_a_point_for_every_key_that_moved(page: Any, synthetic: Any) -> None:
    """Points stand at relative change and cosine distance; the note counts the keys that have none."""
    counted = [key.sums for key in synthetic.scan.keys if key.labels.counted]
    formulas = [STATISTICS[name].formula for name in ("relative_change", "cosine_distance")]
    expected = sorted(tuple(f(sums) for f in formulas) for sums in counted if sums.changed)
    traces = page.figure("scatter")["data"][1:]
    drawn = sorted((x, y) for trace in traces for x, y in zip(trace["x"], trace["y"], strict=True))
    assert np.array(expected) == pytest.approx(np.array(drawn), rel=1e-9)
    still = sum(not sums.changed for sums in counted)
    assert f"{still} unchanged keys are not drawn." in page.text("[data-section=scatter] .note")


def test_a_selection_reaches_every_figure(page: Any, synthetic: Any) -> None:
    """Figures of other axes are of the selection alone, and the bar at the foot sums it up."""
    page.switch("ranking", "axis", "block")
    page.select("attn2,weight")
    chosen = select_python(synthetic.scan, "attn2,weight")
    values = group_values(synthetic.scan, lambda key: key.labels.block, "relative_change", among=chosen)
    total = add_sums(key.sums for key in chosen)
    page.wait(
        "return document.querySelector('[data-section=ranking] .figure').data[0].x.length === arguments[0]",
        len(values),
    )
    drawn = page.figure("ranking")["data"][0]["x"]
    assert sorted(values.values(), reverse=True) == pytest.approx(drawn, rel=1e-9)
    facts = page.text("#selection-facts")
    assert f"{len(chosen)} of {len(synthetic.scan.keys)} keys" in facts
    assert f"relative change {STATISTICS['relative_change'].formula(total):.3f}" in facts


# The table of keys


def test_the_table_sorts_by_any_column_with_undefined_last(page: Any, synthetic: Any) -> None:
    """A click on a heading sorts, a second one turns the order round; rows without a value stay last."""
    click = "document.querySelector(`th[data-column=${arguments[0]}] button`).click()"
    cosines = {key.key: STATISTICS["cosine"].formula(key.sums) for key in synthetic.scan.keys}
    defined = sorted(value for value in cosines.values() if value is not None)
    page.run(click, "cosine")
    assert [cosines[row[0]] for row in page.rows()[:10]] == pytest.approx(defined[:10])
    page.run(click, "cosine")
    assert [cosines[row[0]] for row in page.rows()[:10]] == pytest.approx(defined[::-1][:10])
    page.run("const box = document.querySelector('.table'); box.scrollTop = box.scrollHeight")
    page.wait("return document.querySelector('tbody .gap:last-child').style.height === '0px'")
    assert cosines[page.rows()[-1][0]] is None
    page.run(click, "key")
    assert sorted(key.key for key in synthetic.scan.keys)[:10] == [row[0] for row in page.rows()[:10]]


def test_the_table_marks_what_no_total_counts(page: Any, synthetic: Any) -> None:
    """EMA copies, tables and integers stand in the table, and instead of a share it says why."""
    page.select("key:*ema*")
    assert {"not counted"} == {row[-1] for row in page.rows()}
    page.select("key:*attn2*to_k.weight")
    shares = {row[1]: row[-1] for row in page.rows()}
    assert "not counted" == shares["ema"]
    assert shares["unet"].endswith("%")


def test_a_table_of_many_keys_holds_few_rows(open_page: OpenPage, synthetic: Any) -> None:
    """Only rows in sight are in the page, wherever it is scrolled to."""
    template = synthetic.scan.keys[10]
    keys = tuple(replace(template, key=f"key.{n:06}") for n in range(20_000))
    page = open_page(replace(synthetic.scan, keys=keys))
    assert "20,000 keys shown" == page.text("#shown")
    page.run("document.querySelector('.table').scrollTop = 32 * 10_000")
    page.wait("return document.querySelector('tbody tr:nth-child(20) td').textContent > 'key.009900'")
    assert len(page.rows()) < 100
    assert "key.010000" in {row[0] for row in page.rows()}


# Looks


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ((1440, 1000), "dark"),
        ((1280, 900), "light"),
        ((820, 1100), "light"),
        ((390, 844), "dark"),
        ((390, 844), "light"),
    ],
)
def test_the_page_fits_its_window(
    open_page: OpenPage, synthetic: Any, size: tuple[int, int], scheme: str
) -> None:
    """From desktop to phone, in light and dark, nothing reaches beyond the window's edge."""
    long = f"{'model.diffusion_model.output_blocks.' * 3}weight"
    found = [*findings(synthetic.scan), Finding(f"{long} stands out", "relative_change", 0.1, f"key:{long}")]
    page = open_page(synthetic.scan, found=found, size=size, scheme=scheme)
    page.select("attn2,OUT03..OUT08,weight")
    assert size[0] == page.run("return document.documentElement.scrollWidth")
    over = """return [...document.querySelectorAll('main *')]
        .filter((node) => !node.closest('svg, .table, .unseen'))
        .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
        .map((node) => node.outerHTML.slice(0, 80))"""
    assert [] == page.run(over)
    background = page.run("return getComputedStyle(document.body.parentNode).backgroundColor")
    assert (scheme == "dark") == (brightness(background) < 0.2)
    title = page.run("return getComputedStyle(document.querySelector('.figure .ytick text')).fill")
    assert (scheme == "dark") == (brightness(title) > 0.5)


def test_a_change_of_scheme_redraws_the_figures(open_page: OpenPage, synthetic: Any) -> None:
    """Figures follow when the system turns dark while the page is open, and turn light to print."""
    page = open_page(one_key(synthetic.scan))
    colour = "return document.querySelector('[data-section=ranking] .figure').data[0].marker.color[0]"
    light = page.run(colour)
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.wait(f"{colour} !== arguments[0]", light)
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.wait(f"{colour} === arguments[0]", light)
    page.run("dispatchEvent(new Event('afterprint'))")
    page.wait(f"{colour} !== arguments[0]", light)
    assert light == "#0a7396"


def test_every_control_has_a_name(page: Any, synthetic: Any) -> None:
    """Whoever cannot see the page is told what each control, figure and region is."""
    controls = page.driver.find_elements(
        "css selector", "select, input, button, summary, [role=img], [role=region]"
    )
    visible = [control for control in controls if control.is_displayed()]
    assert len(visible) > 20
    assert [] == [c.get_attribute("outerHTML")[:80] for c in visible if not c.accessible_name.strip()]


# What Python says


def select_python(scan: Scan, text: str) -> tuple[KeyScan, ...]:
    return select(text, rows=scan.keys, blocks=scan.blocks)


def group_values(
    scan: Scan, name: Callable[[KeyScan], Any], statistic: str, *, among: Iterable[KeyScan] | None = None
) -> dict[Any, float | None]:
    """A statistic of every group of counted keys, from the summed records."""
    counted = [key for key in scan.keys if key.labels.counted]
    total = add_sums(key.sums for key in counted)
    groups: dict[Any, list[KeyScan]] = {}
    for key in counted if among is None else among:
        groups.setdefault(name(key), []).append(key)
    return {
        group: evaluate(add_sums(key.sums for key in keys), total=total, keys=keys)[statistic]
        for group, keys in groups.items()
    }


def sums_of(square: float) -> Sums:
    """The record of four elements whose squares, of a, b, d and their spacing, each sum to `square`."""
    squares = ("sum_aa", "sum_bb", "sum_dd", "sum_ab", "sum_ulp_sq", "m2_a", "m2_b")
    lengths = ("sum_a", "sum_b", "sum_abs_d", "max_abs_d")
    values = dict.fromkeys(squares, square) | dict.fromkeys(lengths, sqrt(square))
    return Sums(numel=4, n=4, numeric=4, changed=4, sign_flips=4, **values)


def ranked(scan: Scan, statistic: str) -> list[float]:
    """The values of all groups in the order of a ranking: the largest difference first; NaN is undefined."""
    values = group_values(scan, lambda key: key.labels.group, statistic).values()
    defined = sorted((v for v in values if v is not None), reverse=not STATISTICS[statistic].ascending)
    return [*defined, *[nan] * (len(values) - len(defined))]


def drawn(page: Any, statistic: str) -> list[float]:
    """The values of the bars that the ranking draws for a statistic, from top to bottom."""
    page.switch("ranking", "statistic", statistic)
    return [nan if value is None else value for value in page.figure("ranking")["data"][0]["x"]]


def scan_of_groups(scan: Scan, groups: Mapping[str, Sequence[Sums]]) -> Scan:
    """A scan of keys with these records, in components of these names."""
    template = one_key(scan).keys[0]
    keys = [
        replace(
            template,
            key=f"{name}.{n}",
            key_b=f"{name}.{n}",
            labels=replace(template.labels, component=name, group=name),
            sums=sums,
        )
        for name, records in groups.items()
        for n, sums in enumerate(records)
    ]
    return replace(scan, keys=tuple(keys))


def one_key(scan: Scan) -> Scan:
    key = next(key for key in scan.keys if key.labels.component.endswith("attn2/to_k"))
    return replace(scan, keys=(key,))


def brightness(colour: str) -> float:
    """The mean of a `rgb(…)` colour's channels, in 0 … 1."""
    return sum(int(channel) for channel in colour[4:-1].split(",")[:3]) / 765
