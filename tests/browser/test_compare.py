"""The page of several scans in a real browser: their numbers side by side, against NumPy's and Python's."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_page import Page as BrowserPage

from analyzer.evaluation import evaluate
from analyzer.measures import add_sums
from analyzer.ranking import rank, total
from analyzer.records import KeyScan, ModelId, Scan
from analyzer.selectors import select
from analyzer.verdicts import verdict
from reports.compare import render

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'<b>"
FIGURES = ("ranking", "map", "profile", "scatter", "treemap", "histogram")
READY = "return Boolean(window.mergescope?.predict)"

# What each model changed, by a part of the key, and by how much of its norm.
RATES = (
    {"attn2": 0.3, "attn1": 0.1},
    {"first_stage_model": 0.05, "attn2": 0.02, "in_layers": 0.08},
    {"self_attn": 0.06, "attn2": 0.12},
)


@dataclass(frozen=True, slots=True)
class Compared:
    """Three scans of one A, and the arrays of which each holds the sums."""

    scans: tuple[Scan, ...]
    arrays: tuple[Mapping[str, tuple[np.ndarray, np.ndarray]], ...]


@pytest.fixture(scope="session")
def compared(synthetic: Any, sums_of: Callable[..., Any]) -> Compared:
    """Three fine-tunes of the small model; the third scan was made without the VAE."""
    scans, arrays = [], []
    for place, rates in enumerate(RATES):
        generator = np.random.default_rng(7 + place)
        own, keys = {}, []
        for key in synthetic.scan.keys:
            a = synthetic.arrays[key.key][0]
            if place == 2 and key.labels.part == "vae":
                continue
            rate = next((rate for part, rate in rates.items() if part in key.key), 0.0)
            b = a if a.dtype.kind == "i" else a + generator.normal(0, 0.05 * rate, a.shape).astype(a.dtype)
            own[key.key] = a, b
            keys.append(
                replace(key, sums=sums_of(a, b), dtype_b=key.dtype_a, row_cosines=None, spectrum=None)
            )
        model = ModelId(f"/models/run{place + 1}/model.safetensors", 10**9, f"sha256:b{place}", "sd1")
        scan = replace(
            synthetic.scan, b=model, keys=tuple(keys), base=None, with_spectrum=False, only_in_b=()
        )
        scans.append(scan)
        arrays.append(own)
    return Compared(tuple(scans), tuple(arrays))


class Page(BrowserPage):
    """An open page of several scans."""

    def __init__(self, driver: Any, path: Path) -> None:
        super().__init__(driver)
        self.path = path

    def open(
        self,
        scans: Sequence[Scan],
        *,
        size: tuple[int, int] = (1440, 1000),
        scheme: str = "light",
        fragment: str = "",
    ) -> Page:
        """Render the scans, open their page, and wait until it is drawn."""
        self.path.write_text(render(scans, kinships=["fine-tune"] * len(scans)), encoding="utf-8")
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.complaints(), self.requests()  # what an earlier page left behind
        self.driver.get("about:blank")  # or a fragment alone would open nothing anew
        self.driver.get(self.path.as_uri() + fragment)
        self.wait(READY)
        return self

    def texts(self, selector: str) -> list[str]:
        """What all such elements say."""
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
        return self.run(script, selector)

    def cells(self, section: str) -> list[list[str]]:
        """The cells of a section's table, row by row, as far as they are in the page."""
        script = """
            const rows = document.querySelectorAll(`[data-section="${arguments[0]}"] tbody tr:not(.gap)`);
            return [...rows].map((row) => [...row.cells].map((cell) => cell.textContent));"""
        return self.run(script, section)


@pytest.fixture(scope="module")
def comparison(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(driver, tmp_path_factory.mktemp("compare") / "compare.html")


@pytest.fixture(scope="module")
def opened(comparison: Page, compared: Compared) -> Page:
    """The page of the three scans, opened once."""
    page = comparison.open(compared.scans)
    page.run("window.mergescope.isComparison = true")
    page.first_requests = page.requests()  # type: ignore[attr-defined]  # for the test that asks for them
    page.first_complaints = page.complaints()  # type: ignore[attr-defined]
    return page


@pytest.fixture
def page(opened: Page, compared: Compared) -> Iterator[Page]:
    """The page as it opens, whatever the test before did to it."""
    if not opened.run("return Boolean(window.mergescope?.isComparison)"):
        opened.open(compared.scans).run("window.mergescope.isComparison = true")
    yield opened
    if not opened.run("return Boolean(window.mergescope.isComparison)"):
        return  # it left another page open
    opened.run(
        """
        for (const list of document.querySelectorAll('section select')) {
          if (list.selectedIndex === 0) continue;
          list.selectedIndex = 0;
          list.dispatchEvent(new Event('change'));
        }
        for (const box of document.querySelectorAll('section input:checked')) box.click();
        if (document.querySelector('#selector').value) document.querySelector('#selection button').click();"""
    )
    opened.wait("return document.querySelector('#selection').hidden && mergescope.isDrawn()")


def relative_change(compared: Compared, place: int, keys: Sequence[KeyScan]) -> float:
    """‖b − a‖ / ‖a‖ over some keys of a scan, straight from its arrays."""
    pairs = [compared.arrays[place][key.key] for key in keys]
    a, b = (np.concatenate([pair[side].astype(np.float64).ravel() for pair in pairs]) for side in (0, 1))
    return float(np.linalg.norm(b - a) / np.linalg.norm(a))


def counted(scan: Scan, **labels: str) -> list[KeyScan]:
    """The counted keys of a scan with these labels."""
    return [
        key
        for key in scan.keys
        if key.labels.counted and all(getattr(key.labels, axis) == name for axis, name in labels.items())
    ]


def attn2(scan: Scan) -> list[KeyScan]:
    return [key for key in counted(scan) if "attn2" in key.labels.group]


def is_touched(keys: Sequence[KeyScan]) -> bool:
    return any(verdict(key.sums) == "changed" for key in keys)


# Numbers


@pytest.mark.parametrize("selector", ["", "attn2", "attn2/to_k,weight", "OUT03..OUT08,bias", "unet"])
def test_every_statistic_of_every_scan_is_python_s(page: Page, compared: Compared, selector: str) -> None:
    """Of any selection, in each column, as its own scan file would give it."""
    for place, scan in enumerate(compared.scans):
        whole = total(scan.keys)
        keys = select(selector, rows=scan.keys, blocks=scan.blocks) if selector else counted(scan)
        expected = evaluate(add_sums(key.sums for key in keys), total=whole, keys=keys)
        found = page.run("return mergescope.evaluate(arguments[0], arguments[1])", place, selector)
        for name, value in found.items():
            assert expected[name] == pytest.approx(value, rel=1e-9, abs=1e-15), (place, name)


def test_the_ranking_shows_what_the_arrays_say(page: Page, compared: Compared) -> None:
    """A row a component, in each column the relative change of its own model."""
    figure = page.figure("ranking")
    names = figure["layout"]["yaxis"]["ticktext"]
    bars = [trace for trace in figure["data"] if trace["type"] == "bar"]
    assert 3 == len(bars)
    groups = {key.labels.group for key in counted(compared.scans[0])}
    titles = {group.rsplit("/", 1)[-1]: group for group in groups}
    assert len(groups) == len(names)
    for place, trace in enumerate(bars):
        for name, value in zip(names, trace["x"], strict=True):
            keys = counted(compared.scans[place], group=titles[name])
            if keys:
                assert relative_change(compared, place, keys) == pytest.approx(value, rel=1e-9), (place, name)
            else:
                assert value is None
    furthest = [max(trace["x"][row] or 0 for trace in bars) for row in range(len(names))]
    assert sorted(furthest, reverse=True) == furthest


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_ranking_is_ordered_by_the_scan_that_was_chosen(
    page: Page, compared: Compared, place: int
) -> None:
    """Then its rows are in the order of that scan's own ranking."""
    page.switch("ranking", "axis", "block")
    page.switch("ranking", "order", str(place))
    shown = page.figure("ranking")["layout"]["yaxis"]["ticktext"]
    assert [row.name for row in rank(compared.scans[place], axis="block")] == [
        name for name in shown if counted(compared.scans[place], block=name)
    ]


def test_a_prediction_is_that_of_one_scan(page: Page, compared: Compared) -> None:
    """`predict` takes the column first; half of attn2 is half of its change."""
    for place, scan in enumerate(compared.scans):
        found = page.run("return mergescope.predict(arguments[0], [['attn2', 0.5]])", place)
        energy = sum(key.sums.sum_dd for key in select("attn2", rows=scan.keys, blocks=scan.blocks))
        norm = sum(key.sums.sum_aa for key in counted(scan))
        assert 0.5 * (energy / norm) ** 0.5 == pytest.approx(found["distance_a"], rel=1e-9)


def test_the_embedded_scans_are_whole(page: Page, compared: Compared) -> None:
    """All keys of each with their sums."""
    for place, scan in enumerate(compared.scans):
        script = "return mergescope.scans[arguments[0]].keys.map((key) => [key.key, key.sums.sum_dd])"
        assert [[key.key, key.sums.sum_dd] for key in scan.keys] == page.run(script, place)


# Columns and common scales


def test_the_head_has_a_column_for_every_scan(page: Page, compared: Compared) -> None:
    """B1, B2 and B3 with names that tell them apart, and each scan's own total."""
    heads = [" ".join(text.split()) for text in page.texts(".column h2")]
    assert [f"B{n} run{n}/model.safetensors" for n in (1, 2, 3)] == heads
    totals = page.run(
        "return [...document.querySelectorAll('[data-total=relative_change]')].map((n) => n.title)"
    )
    assert [relative_change(compared, place, counted(scan)) for place, scan in enumerate(compared.scans)] == (
        pytest.approx([float(text) for text in totals], rel=1e-9)
    )


@pytest.mark.parametrize("logarithmic", [False, True])
def test_every_column_of_the_ranking_has_the_same_scale(page: Page, logarithmic: bool) -> None:
    """Bars of one length mean one value, in every column."""
    page.switch("ranking", "logarithmic", logarithmic)
    layout = page.figure("ranking")["layout"]
    axes = [layout[name] for name in ("xaxis", "xaxis2", "xaxis3")]
    assert {"log" if logarithmic else "linear"} == {axis["type"] for axis in axes}
    assert axes[0]["range"] == axes[1]["range"] == axes[2]["range"]
    lengths = [axis["domain"][1] - axis["domain"][0] for axis in axes]
    assert [lengths[0]] * 3 == pytest.approx(lengths)


def test_every_map_has_the_same_places_and_colours(page: Page, compared: Compared) -> None:
    """One colour axis for all; a cell is the change of its block and component in its own scan."""
    figure = page.figure("map")
    maps = [trace for trace in figure["data"] if trace.get("coloraxis")]
    assert [("coloraxis", maps[0]["x"], maps[0]["y"])] * 3 == [
        (trace["coloraxis"], trace["x"], trace["y"]) for trace in maps
    ]
    layout = figure["layout"]
    assert layout["xaxis"]["ticktext"] == layout["xaxis2"]["ticktext"] == layout["xaxis3"]["ticktext"]
    for place, trace in enumerate(maps):
        keys = [key for key in counted(compared.scans[place], block="OUT05") if "attn2" in key.labels.group]
        value = relative_change(compared, place, keys)
        assert any(cell == pytest.approx(value, rel=1e-9) for line in trace["z"] for cell in line)
    assert layout["coloraxis"]["cmax"] == max(cell or 0 for t in maps for line in t["z"] for cell in line)


def test_the_profile_follows_each_scan_through_the_blocks(page: Page, compared: Compared) -> None:
    """A line a scan, a point a block of the network: BASE and the VAE lie beside its depth."""
    page.select("attn2")
    figure = page.figure("profile")
    blocks = [name for name in compared.scans[0].blocks if counted(compared.scans[0], block=name)]
    assert blocks == figure["layout"]["xaxis"]["ticktext"]
    for place, line in enumerate(figure["data"]):
        expected = [
            relative_change(
                compared,
                place,
                [key for key in counted(compared.scans[place], block=name) if "attn2" in key.labels.group],
            )
            for name in blocks
        ]
        assert expected == pytest.approx(line["y"], rel=1e-9)


def test_scatter_and_histogram_and_treemap_show_every_scan(page: Page, compared: Compared) -> None:
    """Of each as many points as keys moved and turned; lines and areas of all three."""
    scatter = page.figure("scatter")
    drawn = [trace for trace in scatter["data"] if trace.get("hovertext")]
    for place, trace in enumerate(drawn):
        moved = [key for key in counted(compared.scans[place]) if key.sums.changed and key.sums.numeric > 1]
        assert len(moved) == len(trace["x"])
    layout = scatter["layout"]
    assert layout["xaxis"]["range"] == layout["xaxis2"]["range"] == layout["xaxis3"]["range"]
    assert layout["yaxis"]["range"] == layout["yaxis2"]["range"] == layout["yaxis3"]["range"]
    assert 3 == len([trace for trace in page.figure("histogram")["data"] if trace["x"]])
    trees = page.figure("treemap")["data"]
    assert 3 == len(trees)
    assert 1 == len({trace["marker"]["cmax"] for trace in trees})


# Who touched what


def test_the_table_says_who_touched_what(page: Page, compared: Compared) -> None:
    """By the verdicts of the keys of each scan; what a scan does not hold is not called untouched."""
    page.switch("touched", "axis", "part")
    found = {name: cells for name, *cells in page.cells("touched")}
    assert {"unet", "text_encoder", "vae"} == set(found)
    for name, (*cells, _) in found.items():
        for scan, cell in zip(compared.scans, cells, strict=True):
            keys = counted(scan, part=name)
            touched = [key for key in keys if verdict(key.sums) == "changed"]
            count = f"{len(touched)} of {len(keys)}"
            assert cell.startswith(count if touched else "none" if keys else "not compared"), (name, cell)
    assert "all" == found["unet"][-1]
    assert "only B3" == found["text_encoder"][-1]
    assert "B2, as far as compared" == found["vae"][-1]


@pytest.mark.parametrize(("show", "scans"), [("one", {1}), ("some", {1, 2}), ("all", {3}), ("none", {0})])
def test_the_table_shows_what_so_many_touched(
    page: Page, compared: Compared, show: str, scans: set[int]
) -> None:
    """One alone, some, all, none: by component, against the verdicts."""
    page.switch("touched", "touched", show)
    shown = {cells[0] for cells in page.cells("touched")}
    groups = {key.labels.group for key in counted(compared.scans[0])}
    times = {
        group: sum(is_touched(counted(scan, group=group)) for scan in compared.scans) for group in groups
    }
    assert {group.rsplit("/", 1)[-1] for group in groups if times[group] in scans} == shown


def test_sentences_say_what_one_alone_touched_and_no_more(page: Page, compared: Compared) -> None:
    """Of the text encoder it can be said; the third scan holds no VAE, so that of it nothing can."""
    sentences = page.texts("[data-section=findings] li span:nth-child(2)")
    assert any(sentence.startswith("B1 (run1/model.safetensors) moved furthest") for sentence in sentences)
    first, third = (relative_change(compared, place, attn2(compared.scans[place])) for place in (0, 2))
    assert f"attn2 moved most in B1 and B3: {first:.3f} in B1 and {third:.3f} in B3." in sentences
    assert any(s.startswith("Only B3 touched text_encoder") for s in sentences)
    assert any(s.startswith("Only B2 touched in_layers") for s in sentences)
    assert not any("vae" in sentence for sentence in sentences)
    assert not any("cosine" in sentence or "direction" in sentence for sentence in sentences)


def test_a_sentence_about_keys_counts_those_that_all_compare(page: Page, compared: Compared) -> None:
    """So many changed in all of them, so many in one alone."""
    by_key = [{key.key: verdict(key.sums) == "changed" for key in counted(scan)} for scan in compared.scans]
    common = [key for key in by_key[0] if all(key in its for its in by_key)]
    in_all = sum(all(its[key] for its in by_key) for key in common)
    alone = [sum(its[key] and sum(o[key] for o in by_key) == 1 for key in common) for its in by_key]
    words = ", ".join(f"{count} in B{place + 1} alone" for place, count in enumerate(alone) if count)
    expected = f"{in_all} keys of {len(common)} changed in all of them, {words}."
    assert expected in page.texts("[data-section=findings] li span:nth-child(2)")


# Selecting


def test_a_category_is_selected_everywhere(page: Page) -> None:
    """A click in the table: bars of other categories fade, the keys are filtered, the bar says how far."""
    page.run(
        "[...document.querySelectorAll('[data-section=touched] tbody button')]"
        ".find((button) => button.textContent === 'attn2').click()"
    )
    page.wait("return !document.querySelector('#selection').hidden")
    facts = page.texts("#selection-facts")[0]
    assert "B1 " in facts
    assert "B3 " in facts
    for trace in (t for t in page.figure("ranking")["data"] if t["type"] == "bar"):
        *others, colour = sorted(trace["marker"]["color"], key=trace["marker"]["color"].count, reverse=True)
        assert 1 == len(set(others))
        assert colour not in others
    assert all("attn2" in cells[0] for cells in page.cells("keys"))


def test_the_figure_s_click_selects(page: Page) -> None:
    """What Plotly reports of a bar, a cell, a point of the profile and of the scatter becomes a selector."""
    for section, expected in (("ranking", "component:"), ("map", "component:"), ("scatter", "key:")):
        script = """
            const place = document.querySelector(`[data-section="${arguments[0]}"] .figure`);
            const curve = place.data.findIndex((trace) => trace.hovertext);
            const trace = place.data[curve];
            const heat = trace.type === 'heatmap';
            const row = heat ? trace.z.findIndex((line) => line.some((z) => z !== null)) : 0;
            const pointNumber = heat ? [row, trace.z[row].findIndex((z) => z !== null)] : 0;
            const customdata = trace.customdata?.[0];
            place.emit('plotly_click', { points: [{ curveNumber: curve, pointNumber, customdata }] });"""
        page.run(script, section)
        page.wait(
            "return document.querySelector('#selection-text').textContent.includes(arguments[0])", expected
        )
        page.run("document.querySelector('#selection button').click()")
        page.wait("return document.querySelector('#selection').hidden")


@pytest.mark.parametrize("selector", ["attn2,weight", "VAE", "OUT03..OUT08 !bias", "key:*norm1*"])
def test_a_selector_hits_the_union_of_the_scans(page: Page, compared: Compared, selector: str) -> None:
    """As many keys as Python's selector hits in a scan that holds them all."""
    page.select(selector)
    hits = select(selector, rows=compared.scans[0].keys, blocks=compared.scans[0].blocks)
    assert [f"{len(hits)} keys shown"] == page.texts("#shown")


def test_a_selector_that_is_none_says_so(page: Page) -> None:
    """And the page stays as it was."""
    page.run(
        "const input = document.querySelector('#selector'); input.value = 'atn2';"
        "input.dispatchEvent(new Event('input'))"
    )
    page.wait("return document.querySelector('#selector-message').textContent.includes('nearest')")
    assert page.run("return document.querySelector('#selection').hidden")
    page.run(
        "const i = document.querySelector('#selector'); i.value = ''; i.dispatchEvent(new Event('input'))"
    )
    page.wait("return document.querySelector('#selector-message').textContent === ''")


def test_the_key_table_shows_the_statistic_of_every_scan(page: Page, compared: Compared) -> None:
    """A column a scan; what a scan does not hold says so; sorted by the first, the largest on top."""
    rows = page.cells("keys")
    changes = [relative_change(compared, 0, [key]) for key in compared.scans[0].keys if key.dtype_a == "F32"]
    assert f"{np.nanmax(changes):.3g}" == f"{float(rows[0][6]):.3g}"
    page.select("VAE")
    assert {"not compared"} == {cells[-1] for cells in page.cells("keys")}
    page.switch("keys", "statistic", "changed_fraction")
    assert {"0 %"} == {cells[-3] for cells in page.cells("keys")}


def test_the_key_table_filters_by_who_touched_a_key(page: Page, compared: Compared) -> None:
    """Only one of them, all, none: of all keys, those that count in no total among them."""
    touched = [{key.key for key in scan.keys if verdict(key.sums) == "changed"} for scan in compared.scans]
    only_second = touched[1] - touched[0] - touched[2]
    page.switch("keys", "touched", "1")
    assert [f"{len(only_second)} keys shown"] == page.texts("#shown")
    page.switch("keys", "touched", "all")
    assert [f"{len(touched[0] & touched[1] & touched[2])} keys shown"] == page.texts("#shown")


def test_the_rows_shown_are_saved_as_csv(page: Page, compared: Compared) -> None:
    """A line a key, a column a model, full precision; empty where a scan does not hold the key."""
    page.select("VAE,weight")
    script = """
        const [create, click] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
        URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'blob:none'; };
        HTMLAnchorElement.prototype.click = () => {};
        document.querySelector('#save-rows').click();
        [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [create, click];
        return window.saved;"""
    head, *lines = csv.reader(page.run(script).splitlines())
    assert ["key", "part", "block", "component", "kind", "shape"] == head[:6]
    assert [f"relative_change B{n} run{n}/model.safetensors" for n in (1, 2, 3)] == head[6:]
    keys = {key.key: key for key in counted(compared.scans[1], part="vae", kind="weight")}
    assert set(keys) == {cells[0] for cells in lines}
    for key, *_, first, second, third in lines:
        assert ("0", "") == (first, third)
        assert relative_change(compared, 1, [keys[key]]) == pytest.approx(float(second), rel=1e-12)


# Safety, state, other screens


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened: Page) -> None:
    """No request and no word in the console while it opened; every figure is drawn."""
    assert [] == opened.first_requests  # type: ignore[attr-defined]
    assert [] == opened.first_complaints  # type: ignore[attr-defined]
    for section in FIGURES:
        assert opened.run(
            "return Boolean(document.querySelector(`[data-section=${arguments[0]}] .main-svg`))", section
        )


def test_a_copied_address_restores_the_page(page: Page, compared: Compared) -> None:
    """The selection and the switches lie in the fragment."""
    page.select("attn2")
    page.switch("ranking", "axis", "block")
    page.switch("touched", "axis", "part")
    page.wait("return location.hash.includes('select') && location.hash.includes('touched')")
    fragment = page.run("return location.hash")
    again = page.open(compared.scans, fragment=fragment, scheme="dark")
    assert ["attn2"] == again.texts("#selection-text")
    assert {"unet", "text_encoder", "vae"} >= {cells[0] for cells in again.cells("touched")}
    assert "IN01" in again.figure("ranking")["layout"]["yaxis"]["ticktext"]
    assert [] == again.complaints()


def test_hostile_names_stay_text(comparison: Page, compared: Compared) -> None:
    """Of keys, labels, paths and tools: nothing of them becomes an element, and nothing runs."""
    scans = []
    for place, scan in enumerate(compared.scans[:2]):
        keys = tuple(
            replace(
                key,
                key=f"{key.key}{HOSTILE}",
                labels=replace(key.labels, part=f"p{HOSTILE}", component=f"c{HOSTILE}", group=f"c{HOSTILE}"),
            )
            for key in scan.keys[:40]
        )
        model = replace(scan.b, path=f"/m/{place}{HOSTILE}", fingerprint=f"{place}{HOSTILE}", title=HOSTILE)
        scans.append(replace(scan, keys=keys, b=model, tool=HOSTILE, created=HOSTILE, only_in_a=(HOSTILE,)))
    page = comparison.open(scans)
    assert 0 == page.run("return document.querySelectorAll('img, .column b, .findings b').length")
    page.run("document.querySelector('[data-section=touched] tbody button').click()")
    page.wait("return document.querySelector('#selection-text').textContent !== '' || true")
    assert any(HOSTILE in text for text in page.texts("#keys td"))
    assert [] == page.complaints()
    assert [] == page.requests()


def test_it_fits_a_phone(comparison: Page, compared: Compared) -> None:
    """No sideways scrolling, every figure drawn, nothing in the console; bars of all scans in one column."""
    page = comparison.open(compared.scans, size=(390, 844), scheme="dark")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert [] == page.complaints()
    assert {"x"} == {trace["xaxis"] for trace in page.figure("ranking")["data"]}
    for section in FIGURES:
        script = "return Boolean(document.querySelector(`[data-section=${arguments[0]}] .main-svg`))"
        assert page.run(script, section)


def test_many_scans_and_identical_ones_are_drawn(comparison: Page, compared: Compared) -> None:
    """Nine columns have more scans than colours; where nothing changed, the page says so and stands."""
    few = [replace(scan, keys=scan.keys[:60]) for scan in compared.scans]
    same = replace(
        few[0],
        keys=tuple(
            replace(
                key, sums=replace(key.sums, changed=0, cast_only=0, sum_dd=0.0, sum_abs_d=0.0, max_abs_d=0.0)
            )
            for key in few[0].keys
        ),
    )
    page = comparison.open([same, same])
    sentences = page.texts("[data-section=findings] li span:nth-child(2)")
    assert "B1 and B2 are one and the same file." in sentences
    assert "None of them changed anything." in sentences
    assert [] == page.complaints()
    page = comparison.open(few * 3)
    assert 9 == len(page.figure("profile")["data"])
    assert {"solid", "dash"} == {trace["line"]["dash"] for trace in page.figure("profile")["data"]}
    assert [] == page.complaints()
