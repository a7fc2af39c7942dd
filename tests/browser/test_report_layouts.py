"""The report page of models as they are published: every section there, quiet, and open to everybody."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
from real_layouts import scan_of_layout

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

DESKTOP, PHONE = (1440, 1000), (390, 844)
FIGURES = ["ranking", "map", "scatter", "profile", "treemap", "histogram"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.mark.parametrize(
    ("layout", "keys"), [("sd15-ldm", 1143), ("sdxl-base-sgm", 2515), ("llama32-1b", 146)]
)
def test_a_published_layout_is_drawn_whole(open_page: OpenPage, layout: str, keys: int) -> None:
    """Every figure has traces, every key a row, the console is empty and the network unasked."""
    page = open_page(scan_of_layout(layout))
    assert f"{keys:,} keys shown" == page.text("#shown")
    sections = page.run(
        "return [...document.querySelectorAll('[data-section]')].map((s) => s.dataset.section)"
    )
    assert ["head", "findings", *FIGURES, "planner", "keys"] == sections
    for name in FIGURES:
        assert page.figure(name)["data"], name
        assert page.run(f"return document.querySelector('[data-section={name}] .main-svg') !== null"), name
    assert page.run("return document.documentElement.outerHTML.length") < 6_000_000
    assert [] == page.complaints()
    assert [] == page.requests()


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_breaks_no_rule_of_accessibility(
    open_page: OpenPage, synthetic: Any, take_screenshot: Any, size: tuple[int, int], scheme: str
) -> None:
    """Axe finds no violation of WCAG 2.1 A and AA, with a selection, in either scheme and size."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    page = open_page(synthetic.scan, size=size, scheme=scheme)
    page.select("attn2,OUT03..OUT08,weight")
    page.run("for (const details of document.querySelectorAll('details')) details.open = true")
    page.run(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8") + ";window.axe = axe")
    found = page.driver.execute_async_script(
        """const [values, done] = arguments;
        axe.run(document, { runOnly: { type: 'tag', values }, resultTypes: ['violations'] }).then(done);""",
        RULES,
    )
    broken = [
        f"{rule['id']}: {node['html'][:160]} {node['any'][:1] and node['any'][0]['message']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    assert [] == broken
    assert len(found["passes"]) > 20
    window = "phone" if size == PHONE else "desktop"
    assert take_screenshot(page, f"report-{window}-{scheme}").stat().st_size > 50_000


def test_the_key_has_room_in_its_table(open_page: OpenPage, synthetic: Any) -> None:
    """The other columns have widths of their own, and leave the name of the key what it needs."""
    page = open_page(synthetic.scan, size=(1440, 900))
    head = "document.querySelector('[data-section=keys] th[data-column=key]')"
    for width in (1440, 1180, 1061, 1000, 901, 820, 761, 390):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.wait("return innerWidth === arguments[0]", width)
        assert page.run(f"return {head}.offsetWidth") >= 110, width


def test_the_keyboard_reaches_all_and_in_reading_order(open_page: OpenPage, synthetic: Any) -> None:
    """The way past everything first, then from above to below; headings leave no level out."""
    page = open_page(synthetic.scan)  # its own: after a click, the keyboard goes on from there
    order = page.run("""
        const focusable = 'a[href], button, input, select, summary, [tabindex="0"]';
        const order = [...document.querySelectorAll(focusable)].map((node) => node.tabIndex);
        return order.filter((place) => place >= 0);""")
    assert {0} == set(order)
    page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Tab", "code": "Tab"})
    assert "Skip to the table of keys" == page.run("return document.activeElement.textContent")
    page.run("document.activeElement.click()")
    assert "keys-title" == page.run("return document.activeElement.id")
    assert page.run("return document.querySelector('#keys').getBoundingClientRect().top") < 200
    levels = page.run(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((node) => Number(node.tagName[1]))"
    )
    assert 1 == levels.count(1)
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_prints_in_light_on_a_few_sheets(open_page: OpenPage, synthetic: Any) -> None:
    """A PDF of the page is white, whatever the screen is, and its figures are as wide as paper."""
    page = open_page(synthetic.scan, scheme="dark")
    width = "document.querySelector('[data-section=map] .figure').layout.width"
    wide = page.run(f"return {width}")
    page.run(f"addEventListener('beforeprint', () => {{ window.onPaper = {width} }})")
    pdf = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 12
    assert page.run("return window.onPaper") <= 700 < wide
    page.wait(f"return {width} === arguments[0]", wide)
    assert [] == page.complaints()
