"""The state of the report page in its address: copied, opened, gone back to, and broken on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from analyzer.records import Finding

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


def test_a_copied_address_shows_the_same_page(open_page: OpenPage, synthetic: Any) -> None:
    """Selection, switches, sorting and verdict: what a reader chose stands in the address and comes back."""
    page = open_page(synthetic.scan)
    assert "" == page.fragment()
    page.switch("ranking", "axis", "block")
    page.switch("map", "statistic", "cosine")
    page.switch("scatter", "colour", "part")
    page.switch("keys", "verdict", "changed")
    page.run("document.querySelector('th[data-column=norm_ratio] button').click()")
    page.run("document.querySelector('th[data-column=norm_ratio] button').click()")
    page.select("attn2,OUT03..OUT08,!bias")
    pieces = {
        "ranking.axis=block",
        "map.statistic=cosine",
        "scatter.colour=part",
        "keys.verdict=changed",
        "keys.sort=norm_ratio",
        "select=attn2,OUT03..OUT08,!bias",
    }
    page.wait("return location.hash.includes('select=')")
    assert pieces == set(page.fragment().split("&"))
    rows, bars, cells = page.rows(), page.figure("ranking")["data"][0]["x"], page.figure("map")["data"][0]
    copied = page.run("return location.hash")

    page = open_page(synthetic.scan, fragment=copied)
    assert "attn2,OUT03..OUT08,!bias" == page.text("#selection-text")
    assert "attn2,OUT03..OUT08,!bias" == page.run("return document.querySelector('#selector').value")
    assert (rows, bars) == (page.rows(), page.figure("ranking")["data"][0]["x"])
    assert cells == page.figure("map")["data"][0]
    assert pieces == set(page.fragment().split("&"))
    assert [] == page.complaints()


def test_going_back_restores_what_the_address_says(page: Any, synthetic: Any) -> None:
    """A fragment that is followed is a step of the browser's history; without one, all is as at first."""
    # Until its load event is over, a browser replaces a page's entry in the history instead of adding one;
    # and the address of a page that was put back still says for a moment what the test before chose.
    page.wait("return performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    page.wait("return location.hash === ''")
    # When its history is full, Chromium first drops what no user gesture made, and that is this test's.
    page.driver.execute_cdp_cmd("Page.resetNavigationHistory", {})
    page.run("location.hash = 'select=attn1&ranking.statistic=cosine'")
    page.wait("return document.querySelector('#selection-text').textContent === 'attn1'")
    assert "cosine" == page.run(
        "return document.querySelector('[data-section=ranking] [name=statistic]').value"
    )
    page.run("location.hash = 'select=ff'")
    page.wait("return document.querySelector('#selection-text').textContent === 'ff'")
    assert "relative_change" == page.run(
        "return document.querySelector('[data-section=ranking] [name=statistic]').value"
    )
    page.run("history.back()")
    page.wait("return document.querySelector('#selection-text').textContent === 'attn1'")
    page.run("history.back()")
    page.wait("return document.querySelector('#selection').hidden")
    assert f"{len(synthetic.scan.keys)} keys shown" == page.text("#shown")


BROKEN = (
    "#select=%E0%A4%A",
    "#keys",
    "#&&==&select&=x&ranking.axis",
    "#ranking.axis=nothing&map.logarithmic=maybe&keys.sort=-&keys.verdict=%00",
    "#__proto__=1&constructor=2&keys.sort=__proto__",
    "#plan=" + quote('{"alpha":"</script>","weights":{"__proto__":1e999}}'),
    "#select=" + quote("</script><img src=x onerror=alert(1)>"),
    "#" + "x" * 5000,
)


def test_a_broken_address_is_no_error(open_page: OpenPage, synthetic: Any) -> None:
    """Whatever stands in the fragment, the page is as it opens, and nothing of it becomes markup."""
    first = "return document.querySelector('[data-section=ranking] [name=axis]').value"
    all_of_them = "#" + "&".join(fragment.removeprefix("#") for fragment in BROKEN)
    page = open_page(synthetic.scan, fragment=all_of_them)
    for fragment in (all_of_them, *BROKEN):
        page.run("location.hash = arguments[0]", fragment)
        page.run("dispatchEvent(new HashChangeEvent('hashchange'))")
        page.settle()
        assert page.run("return document.querySelector('#selection').hidden"), fragment
        assert "group" == page.run(first), fragment
        assert f"{len(synthetic.scan.keys)} keys shown" == page.text("#shown"), fragment
        assert 0 == page.run("return document.querySelectorAll('img').length"), fragment
    assert [] == page.complaints()


def test_a_selection_that_this_scan_does_not_know_is_explained(open_page: OpenPage, synthetic: Any) -> None:
    """An address of another model's page says which name is missing here."""
    page = open_page(synthetic.scan, fragment="#select=double_blocks")
    assert "“double_blocks” names nothing here" in page.text("#selector-message")
    assert page.run("return document.querySelector('#selection').hidden")


def test_links_into_the_page_leave_the_state_in_the_address(page: Any) -> None:
    """The way to a section moves the page and the keyboard, and the address still holds the selection."""
    page.select("attn2")
    page.wait("return location.hash === '#select=attn2'")
    page.run("document.querySelector('.contents [href*=map]').click()")
    assert "map-title" == page.run("return document.activeElement.id")
    top = page.run("return document.querySelector('[data-section=map]').getBoundingClientRect().top")
    assert abs(top) < 40
    assert "select=attn2" == page.fragment()


def test_a_finding_leads_to_the_figure_that_shows_it(open_page: OpenPage, synthetic: Any) -> None:
    """Its keys are selected, the figure shows its axis and statistic, and the keyboard is there."""
    found = [
        Finding("attn2 moved most", "relative_change", 0.3, "attn2"),
        Finding("OUT05 turned", "cosine", 0.9, "OUT05"),
        Finding("the encoder turned", "cosine", 0.9, "CLIP"),
        Finding("one key is odd", "relative_change", 0.2, "key:*out11.attn2.to_q.weight"),
        Finding("attn2 of OUT05", "changed_fraction", 0.2, "attn2,OUT05"),
        Finding("they learned alike", "task_cosine", 0.2, "attn1"),
        Finding("some keys are no total's", "count", 3.0, "schedule"),
    ]
    expected = [
        ("ranking", {"axis": "group", "statistic": "relative_change"}),
        ("profile", {"statistic": "cosine"}),
        ("ranking", {"axis": "part", "statistic": "cosine"}),
        ("scatter", {}),
        ("map", {"statistic": "changed_fraction"}),
        ("tasks", {"points": "group"}),
        ("ranking", {"axis": "group", "statistic": "cosine"}),
    ]
    page = open_page(synthetic.scan, found=found)
    selected = "return document.querySelector('#selection-text').textContent === arguments[0]"
    buttons = page.driver.find_elements("css selector", ".findings [data-selector]")
    for finding, button, (section, switches) in zip(found, buttons, expected, strict=True):
        page.run("arguments[0].click()", button)
        page.wait(selected, finding.selector)
        assert f"{section}-title" == page.run("return document.activeElement.id"), finding.text
        values = page.run(
            """const all = document.querySelectorAll(`[data-section=${arguments[0]}] [name]`);
            return Object.fromEntries([...all].map((control) => [control.name, control.value]));""",
            section,
        )
        assert switches.items() <= values.items(), finding.text
    assert [] == page.complaints()


def test_a_finding_on_the_whole_model_leads_to_its_figure(open_page: OpenPage, synthetic: Any) -> None:
    """It has no keys of its own: what was selected is let go. One without a number has no figure."""
    found = [
        Finding("relatives", "cosine", 0.99, ""),
        Finding("as a whole it moved", "relative_change", 0.1, ""),
        Finding("they learned alike", "task_cosine", 0.2, ""),
        Finding("kinship cannot be told", "cosine", None, ""),
        Finding("some keys are no total's", "count", 3.0, ""),
    ]
    page = open_page(synthetic.scan, found=found)
    buttons = page.driver.find_elements("css selector", ".findings button")
    for button, section in zip(buttons, ("scatter", "ranking", "tasks"), strict=True):
        page.select("attn2")
        page.run("arguments[0].click()", button)
        page.wait("return document.querySelector('#selection').hidden")
        assert f"{section}-title" == page.run("return document.activeElement.id")
    assert [] == page.complaints()
