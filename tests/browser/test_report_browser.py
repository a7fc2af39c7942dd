"""The report page in a real browser: what it draws, what it answers, and what it never does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyzer.records import Finding, KeyScan, Scan, Sums, add_sums
from analyzer.selectors import select
from analyzer.statistics import STATISTICS, evaluate

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

HOSTILE = "</script><img src=x onerror=alert(1)><b>&amp;%{x}$a$\u2028"


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
    for name, statistic in STATISTICS.items():
        page.switch("ranking", "statistic", name)
        values = group_values(synthetic.scan, lambda key: key.labels.group, name)
        defined = sorted((v for v in values.values() if v is not None), reverse=not statistic.ascending)
        drawn = page.figure("ranking")["data"][0]["x"]
        undefined = [None] * (len(values) - len(defined))
        assert [*defined, *undefined] == pytest.approx(drawn, rel=1e-9, abs=1e-15), name


@pytest.mark.parametrize("statistic", ["relative_change", "cosine", "energy_share"])
def test_the_map_shows_the_statistic_of_block_and_component(
    page: Any, synthetic: Any, statistic: str
) -> None:
    """A cell is the statistic of its summed record; columns stand in network order; no keys, no colour."""
    page.switch("map", "statistic", statistic)
    values = group_values(
        synthetic.scan, lambda key: (key.labels.group.split("/")[-1], key.labels.block), statistic
    )
    figure = page.figure("map")
    columns, rows = (figure["layout"][axis]["ticktext"] for axis in ("xaxis", "yaxis"))
    drawn = {
        (row, column): z
        for row, line in zip(rows, figure["data"][0]["z"], strict=True)
        for column, z in zip(columns, line, strict=True)
        if z is not None
    }
    assert ["BASE", "IN01", "IN02", "IN04", "M00", "OUT03", "OUT05", "OUT08", "OUT11", "VAE"] == columns
    assert {place: value for place, value in values.items() if value is not None} == pytest.approx(
        drawn, rel=1e-9
    )


def test_a_logarithmic_map_sets_exact_zeros_apart(page: Any, synthetic: Any) -> None:
    """What did not change has no logarithm: its cell has no colour and says 0."""
    page.switch("map", "logarithmic", True)
    figure = page.figure("map")
    still = {key.labels.group for key in synthetic.scan.keys if key.labels.part == "vae"}
    assert ["0"] * len(still) == figure["data"][1]["text"]
    assert min(z for line in figure["data"][0]["z"] for z in line if z is not None) < -1


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


# What comes from strangers


def test_hostile_names_stay_text(open_page: OpenPage, synthetic: Any) -> None:
    """Names that are markup elsewhere are drawn letter by letter, in tables, figures and labels."""
    hostile = [
        replace(key, key=f"{HOSTILE}{n}", labels=replace(key.labels, component=f"a/{HOSTILE}", group=HOSTILE))
        for n, key in enumerate(synthetic.scan.keys[20:60])
    ]
    model = replace(synthetic.scan.a, path=f"/models/{HOSTILE}.ckpt", title=HOSTILE)
    scan = replace(synthetic.scan, a=model, keys=tuple(hostile), only_in_b=(HOSTILE, "lone \ud800 surrogate"))
    page = open_page(scan, found=[Finding(HOSTILE, "count", 3.0, HOSTILE)])
    page.point_at("[data-section=ranking] .bars .point path")
    page.wait("return document.querySelector('.hoverlayer').textContent !== ''")
    assert HOSTILE.rstrip("\u2028") in page.text(".hoverlayer")
    assert HOSTILE in page.rows()[0][0]
    assert f"a/{HOSTILE}" == page.run("return mergescope.scan.keys[0].component")
    assert 0 == page.run("return document.querySelectorAll('img, b b, td b, li b, h2 b').length")
    assert 4 == page.run("return document.scripts.length")
    assert [] == page.complaints()


def test_the_policy_forbids_scripts_and_requests_that_are_not_the_page_s_own(
    open_page: OpenPage, synthetic: Any
) -> None:
    """Even markup that found a way in could not run: the browser refuses it and says so."""
    page = open_page(one_key(synthetic.scan))
    page.run("""document.body.insertAdjacentHTML('beforeend',
        '<img src=x onerror="window.caught = 1"><a id=trap href="javascript:window.caught = 1">x</a>');
        document.querySelector('#trap').click();
        const script = document.createElement('script');
        script.textContent = 'window.caught = 1';
        document.body.append(script);""")
    page.wait("return document.querySelector('img').complete")
    complaints = page.complaints()
    assert page.run("return window.caught === undefined")
    assert len(complaints) >= 3
    assert all("Content Security Policy" in complaint for complaint in complaints)
    assert [] == page.requests()


def test_without_plotly_the_table_still_works(open_page: OpenPage, synthetic: Any) -> None:
    """A page that fetches plotly.js and gets none says so, and everything but the figures is there."""
    page = open_page(synthetic.scan, plotlyjs="cdn")
    page.select("attn2")
    assert "could not be loaded" in page.text("[data-section=map] .figure")
    assert {"attn2"} == {row[3].split("/")[0] for row in page.rows()}
    assert all("ERR_NAME_NOT_RESOLVED" in complaint for complaint in page.complaints())
    assert all(url.startswith("https://cdn.plot.ly/plotly-") for url in page.requests())


# Unusual scans


def test_an_identical_pair_says_so_instead_of_drawing(open_page: OpenPage, synthetic: Any) -> None:
    """Two equal models: one plain sentence, no empty figures, and the keys for those who look."""
    keys = tuple(replace(key, sums=unchanged(key.sums)) for key in synthetic.scan.keys)
    page = open_page(replace(synthetic.scan, keys=keys))
    assert f"Nothing differs. {len(keys)} keys pair" in page.text(".banner")
    assert 0 == page.run("return document.querySelectorAll('.figure').length")
    assert f"{len(keys)} keys shown" == page.text("#shown")
    assert 0.0 == page.predict([("attn2", 0.5)])["distance_a"]


def test_a_scan_of_one_key_is_drawn(open_page: OpenPage, synthetic: Any) -> None:
    """One bar, one cell, one point, one row."""
    page = open_page(one_key(synthetic.scan))
    assert 1 == len(page.figure("ranking")["data"][0]["x"])
    assert 1 == len(page.figure("map")["data"][0]["z"])
    assert 1 == sum(len(trace["x"]) for trace in page.figure("scatter")["data"][1:])
    assert 1 == len(page.rows())
    assert [] == page.complaints()


def test_a_scan_of_integers_alone_has_a_table_and_undefined_numbers(
    open_page: OpenPage, synthetic: Any
) -> None:
    """Nothing counts: the totals are undefined, figures say why, and a prediction is null."""
    keys = tuple(key for key in synthetic.scan.keys if key.dtype_a == "I64")
    page = open_page(replace(synthetic.scan, keys=keys))
    assert "—" == page.text("[data-total=relative_change]")
    assert "Nothing to rank" in page.text("[data-section=ranking] .figure")
    assert ["—", "—", "—", "1.3 %", "not counted"] == page.rows()[0][-5:]
    assert {
        "norm": 0,
        "distance_a": None,
        "distance_b": None,
        "cosine_a": None,
        "cosine_b": None,
    } == page.predict([])
    page.select("kind:other")
    assert 1 == len(page.rows())
    assert [] == page.complaints()


# Looks


@pytest.mark.parametrize(
    ("size", "scheme"),
    [((1440, 1000), "dark"), ((820, 1100), "light"), ((390, 844), "dark"), ((390, 844), "light")],
)
def test_the_page_fits_its_window(
    open_page: OpenPage, synthetic: Any, size: tuple[int, int], scheme: str
) -> None:
    """From desktop to phone, in light and dark, nothing reaches beyond the window's edge."""
    page = open_page(synthetic.scan, size=size, scheme=scheme)
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
    groups: dict[Any, list[Sums]] = {}
    for key in counted if among is None else among:
        groups.setdefault(name(key), []).append(key.sums)
    return {group: evaluate(add_sums(sums), total=total)[statistic] for group, sums in groups.items()}


def one_key(scan: Scan) -> Scan:
    key = next(key for key in scan.keys if key.labels.component.endswith("attn2/to_k"))
    return replace(scan, keys=(key,))


def unchanged(sums: Sums) -> Sums:
    """The record of A against itself."""
    return replace(
        sums, changed=0, sign_flips=0, sum_b=sums.sum_a, sum_bb=sums.sum_aa, sum_dd=0.0, sum_abs_d=0.0
    )


def brightness(colour: str) -> float:
    """The mean of a `rgb(…)` colour's channels, in 0 … 1."""
    return sum(int(channel) for channel in colour[4:-1].split(",")[:3]) / 765
