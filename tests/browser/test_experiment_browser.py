"""The page of an experiment in a real browser: its grid, its viewer, its numbers, and what it never does."""

from __future__ import annotations

import csv
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_page import Page

sys.path.append(str(Path(__file__).parent.parent / "experiment"))

from example_document import FAILED, SEEDS, example, without_pictures

from analyzer.pocket import captions, portraits
from reports.experiment import render

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'<b>"
LABELS = ("A", "B", *(column["selector"] for column in example()["columns"]))
READY = "return Boolean(window.mergescope?.experiment) && window.mergescope.isDrawn()"


@pytest.fixture(scope="module")
def pictures() -> dict[tuple[str, int], tuple[str, bytes]]:
    """A portrait for every cell: with more of the second style, the further the column went."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    found = {}
    for seed in SEEDS:
        shown = replace(captions.choose("shaded", np.random.default_rng(seed)), blurred=False)
        for place, label in enumerate(LABELS):
            if (label, seed) == FAILED:
                continue
            hair = captions.HAIR_COLOURS[(seed + place) % len(captions.HAIR_COLOURS)]
            style = "flat" if label in ("B", "weight", "transformer_blocks") else "shaded"
            pixels = portraits.draw(replace(shown, hair_colour=hair), style, np.random.default_rng(seed))
            file = BytesIO()
            image.fromarray(pixels).save(file, "PNG")
            found[label, seed] = "image/png", file.getvalue()
    return found


@pytest.fixture(scope="module")
def open_experiment(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Page]:
    """Render a document, open its page, and wait until it is drawn."""
    path = tmp_path_factory.mktemp("experiment") / "experiment.html"

    def open_page(
        data: Any,
        pictures: Any,
        *,
        size: tuple[int, int] = (1280, 900),
        scheme: str = "light",
        fragment: str = "",
    ) -> Page:
        path.write_text(render(data, pictures), encoding="utf-8")
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        page = Page(driver)
        page.complaints(), page.requests()  # what an earlier page left behind
        driver.get("about:blank")
        driver.get(path.as_uri() + fragment)
        page.wait(READY)
        return page

    return open_page


@pytest.fixture
def page(driver: Any, open_experiment: Callable[..., Page], pictures: Any) -> Page:
    """The page of the example, opened once: each test puts its switches back."""
    page = Page(driver)
    if not page.run("return Boolean(window.mergescope?.isExample)"):
        page = open_experiment(example(), pictures)
        page.run("window.mergescope.isExample = true")
    return page


def press(page: Page, key: str) -> None:
    """A key, where the keyboard is."""
    from selenium.webdriver import ActionChains, Keys

    ActionChains(page.driver).send_keys(getattr(Keys, key)).perform()


def heads(page: Page) -> list[str]:
    """The columns as they stand."""
    script = "return [...document.querySelectorAll('.grid thead th')].map((n) => n.firstChild.textContent)"
    return page.run(script)


def viewed(page: Page) -> tuple[str, list[str]]:
    """The title of the viewer, and what its two pictures are called."""
    script = "return [...document.querySelectorAll('#viewer .stage img')].map((image) => image.alt)"
    return page.text("#viewer-title"), page.run(script)


def test_the_page_is_whole_silent_and_asks_for_nothing(page: Page, pictures: Any) -> None:
    """Every picture is drawn from the page itself; both figures are there; no word in the console."""
    shown = page.run(
        """return Object.fromEntries([...document.querySelectorAll('.grid img')].map((image) => (
             [image.alt, image.complete && image.naturalWidth === 64 ? image.src : null])))"""
    )
    assert {
        f"{label}, seed {seed}": f"data:{mime};base64,{b64encode(content).decode()}"
        for (label, seed), (mime, content) in pictures.items()
    } == shown
    for section in ("landing", "foresight"):
        assert page.run(
            "return !!document.querySelector(`[data-section=${arguments[0]}] .main-svg`)", section
        )
    assert example() == page.run("return mergescope.experiment")
    assert [] == page.complaints()
    assert [] == page.requests()


def test_bars_have_one_scale_and_the_numbers_of_the_document(page: Page) -> None:
    """In each row of bars a length is the mean over the unit of that row; A is 0 and B is 1."""
    data = example()
    means = {(entry["selector"], entry["measure"]): entry for entry in data["summary"]}
    script = """
        const cells = document.querySelectorAll(`.bars .${arguments[0]} td`);
        const width = (cell) => cell.querySelector('.length').getBoundingClientRect().width;
        const text = (cell) => cell.querySelector('.number').textContent;
        return [...cells].map((cell) => [width(cell), text(cell), cell.querySelectorAll('.seed').length]);"""
    for measure in ("toward_b", "neither"):
        found = page.run(script, measure)
        unit = page.run(script, "toward_b")[1][0]
        for label, (width, text, dots) in list(zip(LABELS, found, strict=True))[2:]:
            its = means[label, measure]
            assert its["mean"] == pytest.approx(width / unit, abs=0.02), (label, measure)
            assert f"{its['mean']:.2f} ± {(its['high'] - its['low']) / 2:.2f}" == text
            assert its["n"] == dots
    page.switch("grid", "measured", "pixels_")
    assert f"{means['attn1', 'pixels_toward_b']['mean']:.2f}" in page.run(script, "toward_b")[3][1]
    page.switch("grid", "measured", "")


def test_columns_are_put_in_the_order_asked_for(page: Page) -> None:
    """By an effect or by the weights, A and B first; every row follows, and the way through the viewer."""
    data = example()
    means = {e["selector"]: e["mean"] for e in data["summary"] if e["measure"] == "toward_b"}
    page.switch("grid", "order", "toward_b")
    ordered = sorted(LABELS[2:], key=lambda label: -means[label])
    assert ["A", "B", *ordered] == heads(page)
    row = "return [...document.querySelectorAll('.grid tbody tr:first-child img')].map((image) => image.alt)"
    assert [f"{label}, seed 1" for label in heads(page)] == page.run(row)
    page.run("mergescope.look(arguments[0], 0)", LABELS.index(ordered[0]))
    press(page, "ARROW_RIGHT")
    assert f"{ordered[1]}seed 1" == viewed(page)[0]
    press(page, "ESCAPE")
    page.switch("grid", "order", "statistic")
    changes = {column["selector"]: column["statistics"]["norm_delta"] for column in data["columns"]}
    assert ["A", "B", *sorted(LABELS[2:], key=lambda label: -changes[label])] == heads(page)
    page.switch("grid", "order", "given")
    assert list(LABELS) == heads(page)


def test_a_ranking_that_foretells_is_the_order_of_the_columns(
    open_experiment: Callable[..., Page], pictures: Any
) -> None:
    """At first, with its bars beneath; the order that was given comes back, in a copied address as well."""
    data = example()
    data["best"] |= {"statistic": "numel", "offered": "relative_change"}
    page = open_experiment(data, pictures)
    changes = {column["selector"]: column["statistics"]["relative_change"] for column in data["columns"]}
    assert ["A", "B", *sorted(LABELS[2:], key=lambda label: -changes[label])] == heads(page)
    control = "return document.querySelector(`[data-section=${arguments[0]}] [name=statistic]`).value"
    assert ["relative_change", "numel"] == [page.run(control, name) for name in ("grid", "foresight")]
    assert "At first they stand by relative change" in page.text("[data-section=grid] .meaning")
    page.switch("grid", "size", "medium")
    page.wait("return location.hash === '#grid.size=medium'")  # the order is that of the page
    page.switch("grid", "size", "")
    page.switch("grid", "order", "given")
    page.wait("return location.hash === '#grid.order=given'")
    page = open_experiment(data, pictures, fragment="#grid.order=given")
    assert list(LABELS) == heads(page)
    assert [] == page.complaints()


def test_a_picture_is_looked_at_by_mouse_and_keyboard(page: Page) -> None:
    """A click opens it over A's; arrows walk; sides change; the wipe follows the pointer; Escape returns."""
    page.point_at('td[data-column="3"][data-row="1"] button', click=True)
    assert ("attn1seed 2", ["A, seed 2", "attn1, seed 2"]) == viewed(page)
    press(page, "ARROW_DOWN")
    press(page, "ARROW_RIGHT")
    assert ("attn2seed 3", ["A, seed 3", "attn2, seed 3"]) == viewed(page)
    row = next(row for row in example()["rows"] if (row["selector"], row["seed"]) == ("attn2", 3))
    assert [f"{row[name]:.2f}" for name in ("toward_b", "neither", "moved")] == page.run(
        "return [...document.querySelectorAll('#viewer dd')].slice(0, 3).map((node) => node.textContent)"
    )
    page.run("document.querySelector('[name=sides][value=mb]').click()")
    assert ["attn2, seed 3", "B, seed 3"] == viewed(page)[1]
    page.run("document.querySelector('[name=sides][value=am]').click()")
    clip = "return document.querySelector('#viewer .stage img + img').style.clipPath"
    page.point_at("#viewer .stage", click=True)
    assert "inset(0px 0px 0px 50%)" == page.run(clip)
    page.run("document.querySelector('[name=wipe]').focus()")
    press(page, "ARROW_RIGHT")
    assert "inset(0px 0px 0px 51%)" == page.run(clip)
    assert "attn2seed 3" == viewed(page)[0]
    press(page, "ESCAPE")
    assert not page.run("return document.querySelector('#viewer').open")
    focus = "return document.activeElement.querySelector('img')?.alt"
    assert "attn2, seed 3" == page.run(focus)
    press(page, "ARROW_LEFT")
    assert "attn1, seed 3" == page.run(focus)


def test_what_failed_says_why_and_parents_stand_for_themselves(page: Page) -> None:
    """A cell without a picture opens with its whole message; A's own shows how far B is."""
    page.run("mergescope.look(arguments[0], arguments[1])", LABELS.index(FAILED[0]), SEEDS.index(FAILED[1]))
    assert "the sampler ran out of memory: give a smaller --size" in page.text("#viewer .message")
    assert page.run("return document.querySelector('#viewer .stage').hidden")
    page.run("mergescope.look(0, 0)")
    assert ("A itselfseed 1", ["A, seed 1", "B, seed 1"]) == viewed(page)
    assert f"{example()['parents'][0]['ssim']:.2f}" in page.text("#viewer dl")
    press(page, "ESCAPE")


def test_figures_show_the_document_s_numbers(page: Page) -> None:
    """Categories by the means of both legs; a statistic against an effect, chosen in the table beside it."""
    data = example()
    means = {(entry["selector"], entry["measure"]): entry["mean"] for entry in data["summary"]}
    landing = page.figure("landing")["data"][-1]
    assert list(LABELS[2:]) == landing["text"]
    assert [means[label, "toward_b"] for label in LABELS[2:]] == landing["x"]
    assert [means[label, "neither"] for label in LABELS[2:]] == landing["y"]
    assert 31 - 1 == len(page.figure("landing")["data"][-2]["x"])  # one cell failed, one is undefined
    page.run(
        """const buttons = [...document.querySelectorAll('.forest button')];
           buttons.find(({ textContent }) => textContent === 'relative change').click();"""
    )
    page.switch("foresight", "effect", "toward_b")
    page.settle()
    [points] = page.figure("foresight")["data"]
    assert [column["statistics"]["relative_change"] for column in data["columns"]] == points["x"]
    assert [means[label, "toward_b"] for label in LABELS[2:]] == points["y"]
    entry = next(
        its
        for its in data["correlations"]
        if (its["statistic"], its["effect"]) == ("relative_change", "toward_b")
    )
    rho = f"{entry['spearman']:.2f}".replace("-", "−")
    assert f"ρ = {rho} (95 %: " in page.text("[data-section=foresight] .note")
    rows = page.run(
        """const rows = [...document.querySelectorAll('.forest tbody tr')];
           return rows.map((row) => [...row.cells].map((cell) => cell.textContent));"""
    )
    assert ["relative change", "", rho] == next(row for row in rows if row[0] == "relative change")[:3]
    sizes = [abs(float(row[2].replace("−", "-"))) for row in rows if row[2] != "—"]
    assert sorted(sizes, reverse=True) == sizes
    page.switch("foresight", "statistic", "norm_delta")
    page.switch("foresight", "effect", "moved")
    head, *lines = csv.reader(page.run("return mergescope.csv()").splitlines())
    assert list(data["rows"][0]) == head
    assert [
        str(row["toward_b"] if row["toward_b"] is not None else "") for row in data["rows"]
    ] == pytest.approx([line[2] for line in lines])


def test_it_fits_a_phone_and_an_address_restores_it(
    open_experiment: Callable[..., Page], pictures: Any, take_screenshot: Callable[..., Path]
) -> None:
    """No sideways scrolling but the grid's own, in which A stays; switches stand as the address says."""
    page = open_experiment(
        example(),
        pictures,
        size=(390, 844),
        scheme="dark",
        fragment="#grid.order=neither&foresight.effect=neither",
    )
    assert [390, 390] == page.run("return [innerWidth, document.documentElement.scrollWidth]")
    left = "return document.querySelector('td.a').getBoundingClientRect().left"
    before = page.run(left)
    page.run("document.querySelector('.grid').scrollLeft = 200")
    assert page.run(left) == pytest.approx(before, abs=1)
    assert "attn1,attn2" == heads(page)[2]
    assert "neither" == page.figure("foresight")["layout"]["yaxis"]["title"]["text"]
    take_screenshot(page, "experiment-phone-dark")
    page.run("mergescope.look(2, 0)")
    assert page.run("return document.querySelector('#viewer').scrollWidth <= innerWidth")
    assert [] == page.complaints()


def test_few_columns_stay_readable_and_what_cannot_be_told_fills_no_table(
    open_experiment: Callable[..., Page], pictures: Any
) -> None:
    """On a phone columns are as wide as those of many; a lone category needs no scrolling; ρ: a sentence."""
    data = example()
    data["columns"] = data["columns"][:1]
    for row in data["correlations"]:
        row |= {"spearman": None, "low": None, "high": None}
    heads = "return [...document.querySelectorAll('.grid thead th')].map((head) => head.offsetWidth)"
    fits = "const grid = document.querySelector('.grid'); return grid.scrollWidth === grid.clientWidth"
    page = open_experiment(data, pictures, size=(390, 844))
    assert ([92, 92, 92], True) == (page.run(heads), page.run(fits))
    assert "No statistic could be correlated with it." == page.text(".forest")
    data["columns"] = example()["columns"][:3]
    page = open_experiment(data, pictures, size=(390, 844))
    assert ([92] * 5, False) == (page.run(heads), page.run(fits))
    page.switch("grid", "size", "medium")
    assert [192] * 5 == page.run(heads)


def test_a_probe_and_hostile_names_are_shown_as_text(
    open_experiment: Callable[..., Page], take_screenshot: Callable[..., Path]
) -> None:
    """Without pictures the bars stand alone; no name becomes an element, nothing runs or complains."""
    data = without_pictures()
    data["conditions"] |= {"prompt": HOSTILE, "probe": HOSTILE}
    data["columns"][0] |= {"selector": HOSTILE, "merged": HOSTILE}
    for row in [*data["rows"], *data["summary"]]:
        row["selector"] = HOSTILE if row["selector"] == "transformer_blocks" else row["selector"]
    page = open_experiment(data, {})
    assert HOSTILE in page.text(".numbers")
    assert HOSTILE == heads(page)[2]
    assert 0 == page.run("return document.querySelectorAll('img, dialog, .grid b b').length")
    assert 8 == len(page.figure("landing")["data"][-1]["x"])
    take_screenshot(page, "experiment-probe")
    assert [] == page.complaints()
    assert [] == page.requests()
