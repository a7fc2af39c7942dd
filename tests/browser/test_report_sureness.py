"""How sure the report page is: error bars, tiers, verdicts, and the base, as a reader sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from analyzer.measures import Sums
from analyzer.records import Finding
from analyzer.verdicts import verdict as verdict_on
from reports.embedded import Interval, Intervals

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

# The components of the fixture that moved most, in order; the second has no interval, the last no tier.
ATTN2, ATTN1, FF, PROJ = (
    "transformer_blocks/attn2",
    "transformer_blocks/attn1",
    "transformer_blocks/ff",
    "proj_in",
)
SURE: Mapping[str, Interval] = {
    ATTN2: {"low": 0.2, "high": 0.5, "tier": 1, "keys": 32, "note": ""},
    ATTN1: {"low": None, "high": None, "tier": None, "keys": 2, "note": "too few keys"},
    FF: {"low": 0.01, "high": 0.3, "tier": 1, "keys": 16, "note": ""},
    PROJ: {"low": 0.01, "high": 0.2, "tier": 2, "keys": 16, "note": ""},
}
INTERVALS: Intervals = {"group": {"relative_change": SURE}}


@pytest.fixture
def sure(open_page: OpenPage, synthetic: Any, kept: list[Any]) -> Any:
    """A page of the fixture's scan whose ranking says how sure it is; put back where a test left it open."""
    if not (kept and kept[0].run("return Boolean(window.mergescope?.isSure)")):
        kept[:] = [open_page(synthetic.scan, intervals=INTERVALS)]
        kept[0].run("window.mergescope.isSure = true")
    kept[0].restore()
    return kept[0]


@pytest.fixture(scope="module")
def kept() -> list[Any]:
    """The page that tests of this module share, once one is open."""
    return []


def test_intervals_are_drawn_as_error_bars(sure: Any) -> None:
    """From the value to either end of the interval; a group without one has no bar of length 0."""
    bars = sure.figure("ranking")["data"][0]
    value = bars["x"][0]
    assert "attn2" == sure.figure("ranking")["layout"]["yaxis"]["ticktext"][0]
    assert [0.5 - value, None] == pytest.approx(bars["error_x"]["array"][:2], nan_ok=True)
    assert [value - 0.2, None] == pytest.approx(bars["error_x"]["arrayminus"][:2], nan_ok=True)
    drawn = sure.run("return document.querySelectorAll('[data-section=ranking] .errorbar path').length")
    assert sum(its["low"] is not None for its in SURE.values()) == drawn


def test_groups_of_one_tier_are_in_one_bracket(sure: Any) -> None:
    """Also around a group of which too little is known; a tier of one group has no bracket."""
    [bracket] = sure.figure("ranking")["layout"]["shapes"]
    assert ",-0.32L" in bracket["path"]
    assert ",2.32L" in bracket["path"]
    assert "A bracket joins groups of one tier: no two of their intervals lie apart." in sure.text(
        "[data-section=ranking] .note"
    )


def test_a_group_of_few_keys_says_so(sure: Any) -> None:
    """In the note, and in the text for those who cannot see the figure."""
    assert "No error bar: 1 group (too few keys)." in sure.text("[data-section=ranking] .note")
    texts = sure.run("return [...document.querySelectorAll('.groups li')].map((item) => item.textContent)")
    assert texts[1].endswith("(no 95 % interval: too few keys)")
    assert "(95 %: 0.200 – 0.500, from 32 keys; tier 1)" in texts[0]
    assert not texts[-1].endswith(")")


def test_a_logarithmic_axis_cuts_no_error_bar(sure: Any) -> None:
    """The axis reaches from the lowest end of all intervals to the highest."""
    sure.switch("ranking", "logarithmic", True)
    figure = sure.figure("ranking")
    low, high = figure["layout"]["xaxis"]["range"]
    ends = [its[end] for its in SURE.values() for end in ("low", "high") if its[end] is not None]
    assert 10**low <= min(ends)
    assert max(ends) <= 10**high * (1 + 1e-9)


def test_other_axes_and_statistics_have_no_error_bars(sure: Any) -> None:
    """What was not assessed is drawn plainly, and no note speaks of error bars."""
    sure.switch("ranking", "axis", "block")
    assert sure.figure("ranking")["data"][0].get("error_x") is None
    assert "" == sure.text("[data-section=ranking] .note")
    sure.switch("ranking", "axis", "group")
    sure.switch("ranking", "statistic", "cosine")
    assert sure.figure("ranking")["data"][0].get("error_x") is None


def test_error_bars_are_of_the_whole_scan(sure: Any) -> None:
    """They stay where a selection leaves the groups whole, and go where it makes other groups."""
    sure.select("attn2")
    assert sure.figure("ranking")["data"][0]["error_x"] is not None
    sure.select("weight")
    sure.wait("return !document.querySelector('[data-section=ranking] .figure').data[0].error_x")
    assert "clear the selection" in sure.text("[data-section=ranking] .note")
    assert [] == sure.complaints()


def test_hovering_a_group_shows_its_interval_and_verdicts(sure: Any) -> None:
    """How many keys are behind it, and what their verdicts are."""
    [text] = sure.figure("ranking")["data"][0]["hovertext"][:1]
    assert "95 %: 0.200 – 0.500, from 32 keys" in text
    assert "32 changed" in text


# Verdicts


def test_a_click_on_a_verdict_lists_its_keys(page: Any, synthetic: Any) -> None:
    """The counts in the head are buttons; the table then shows the keys of that verdict alone."""
    rows = page.run("return mergescope.scan.keys.map((key) => key.verdict)")
    for verdict in set(rows):
        page.run("document.querySelector(`[data-verdict=${arguments[0]}]`).click()", verdict)
        count = rows.count(verdict)
        assert f"{count} {'key' if count == 1 else 'keys'} shown" == page.text("#shown")
        assert f"{count} {verdict}" in page.text(f"[data-verdict={verdict}]")
        cells = "[...document.querySelectorAll('tbody td[data-column=verdict]')]"
        assert {verdict} == set(page.run(f"return {cells}.map((cell) => cell.textContent)"))


def test_a_finding_shows_its_keys_whatever_verdict_is_filtered(page: Any, synthetic: Any) -> None:
    """Its button promises so many keys; a filter that was set before must not hide them."""
    verdicts = {verdict_on(key.sums) for key in synthetic.scan.keys}
    chosen = "return document.querySelector('[name=verdict]').value"
    for name in verdicts:
        page.run("document.querySelector(`[data-verdict=${arguments[0]}]`).click()", name)
        assert name == page.run(chosen)
        page.run("document.querySelector('[data-section=findings] [data-selector]').click()")
        assert "" == page.run(chosen)


@pytest.mark.parametrize("casts", [True, False])
def test_a_ranking_of_rounding_alone_says_so(casts: bool, open_page: OpenPage, synthetic: Any) -> None:
    """Its order means little; where something changed, it does not say that."""
    keys = tuple(
        replace(key, sums=replace(key.sums, cast_only=key.sums.changed, nonfinite_differs=0))
        if casts
        else key
        for key in synthetic.scan.keys
    )
    page = open_page(replace(synthetic.scan, keys=keys), intervals=INTERVALS)
    assert casts == (
        "Only rounding differs in all of these groups" in page.text("[data-section=ranking] .note")
    )


def test_verdicts_sort_by_what_they_mean(page: Any) -> None:
    """The largest difference first, whatever the letters."""
    page.run("document.querySelector('th[data-column=verdict] button').click()")
    column = "return document.querySelector('tbody td[data-column=verdict]').textContent"
    assert "changed" == page.run(column)
    page.run("document.querySelector('th[data-column=verdict] button').click()")
    assert "identical" == page.run(column)


def test_a_page_of_rounding_alone_says_so_first(open_page: OpenPage, synthetic: Any) -> None:
    """One banner, how the keys are spread over the verdicts, and no verdict that does not occur."""
    template = next(key for key in synthetic.scan.keys if key.labels.component.endswith("attn2/to_k"))
    cast = Sums(4, 4, 4, changed=2, cast_only=2, sum_aa=1.0, sum_bb=1.0, sum_dd=1e-9, sum_ulp_sq=1e-8)
    keys = (
        replace(template, key="cast", sums=cast),
        replace(template, key="near", sums=replace(cast, cast_only=1)),
        replace(template, key="same", sums=replace(cast, changed=0, cast_only=0, sum_dd=0.0)),
    )
    page = open_page(replace(synthetic.scan, keys=keys))
    banner = " ".join(page.text(".banner").split())
    assert banner == (
        "Only rounding differs. 3 keys pair: 1 holds the same values, 1 is equal after a cast to the coarser "
        "dtype, 1 differs by no more than rounding would leave."
    )
    buttons = (
        "return [...document.querySelectorAll('[data-verdict]')].map((button) => button.dataset.verdict)"
    )
    assert ["rounding", "cast", "identical"] == page.run(buttons)
    assert [] == page.complaints()


# Base and findings


def test_the_base_has_a_card_and_its_statistics_a_menu(page: Any) -> None:
    """C stands beside A and B, and every figure can show what it adds."""
    assert "small-base.safetensors" in page.text(".base h2")
    groups = (
        "return [...document.querySelectorAll('[data-section=map] optgroup')].map((group) => group.label)"
    )
    assert ["A and B", "beside their base", "spectrum of the change"] == page.run(groups)
    page.switch("map", "statistic", "task_cosine")
    values = [z for line in page.figure("map")["data"][0]["z"] for z in line if z is not None]
    assert values
    assert all(-1 <= value <= 1 for value in values)


def test_every_finding_has_its_number_and_its_selector(open_page: OpenPage, synthetic: Any) -> None:
    """A click selects what the sentence is about; the words for the command line stand with it."""
    found = [
        Finding("attn2 moved most", "relative_change", 0.301, "component:attn2,weight"),
        Finding("42 keys have NaN", "count", 42.0, ""),
    ]
    page = open_page(synthetic.scan, found=found)
    values = page.run(
        "return [...document.querySelectorAll('.findings .value')].map((its) => its.textContent)"
    )
    assert ["0.301", "42"] == values
    assert "--only component:attn2,weight" == page.text(".findings .option")
    page.point_at(".findings [data-selector]", click=True)
    page.wait("return !document.querySelector('#selection').hidden")
    assert "component:attn2,weight" == page.text("#selection-text")
    assert {("attn2", "weight")} == {(row[3].split("/")[0], row[4]) for row in page.rows()}
