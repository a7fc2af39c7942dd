"""The report page of unusual scans: hostile names, nothing to compare, nothing that differs, one key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from analyzer.measures import Sums
from analyzer.records import Finding, KeyScan, Labels, Scan
from analyzer.selectors import select

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

HOSTILE = "</script><img src=x onerror=alert(1)><b>&amp;%{x}$a$\u2028"


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
    assert 3 == page.run("return document.scripts.length")
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


def test_names_that_every_object_has_are_names_like_others(open_page: OpenPage, synthetic: Any) -> None:
    """Keys, labels and dtypes called `__proto__` are grouped, drawn and selected as written."""
    names = ("__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "length")
    key = one_key(synthetic.scan).keys[0]
    keys = tuple(
        replace(
            key,
            key=name,
            dtype_a=name,
            labels=Labels(names[n - 1], names[n - 2], f"{name}/{names[n - 3]}", names[n - 4], name),
        )
        for n, name in enumerate(names)
    )
    model = replace(synthetic.scan.a, dtypes=dict.fromkeys(names, 1))
    scan = replace(synthetic.scan, a=model, keys=keys, blocks=names)
    page = open_page(scan)
    assert set(names) == {row[0] for row in page.rows()}
    for axis in ("group", "block", "part", "kind"):
        page.switch("ranking", "axis", axis)
        assert sorted(names) == sorted(page.figure("ranking")["layout"]["yaxis"]["ticktext"])
    for text in (
        f"{axis}:{name}" for axis in ("part", "block", "component", "kind", "key") for name in names[:2]
    ):
        page.select(text)
        assert {key.key for key in select_python(scan, text)} == {row[0] for row in page.rows()}, text
    assert set(names) == set(page.run("return Object.keys(mergescope.scan.models.a.dtypes)"))
    assert [] == page.complaints()


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
        "norm": None,
        "distance_a": None,
        "distance_b": None,
        "cosine_a": None,
        "cosine_b": None,
    } == page.predict([])
    page.select("kind:other")
    assert 1 == len(page.rows())
    assert [] == page.complaints()


def test_an_undefined_kinship_has_findings_without_a_number(open_page: OpenPage, synthetic: Any) -> None:
    """A is all zeros: nothing has a direction, and the page says so instead of drawing a 0."""
    sums = Sums(numel=4, n=4, numeric=4, changed=4, sum_bb=1.0, sum_dd=1.0)
    page = open_page(replace(synthetic.scan, keys=(replace(one_key(synthetic.scan).keys[0], sums=sums),)))
    assert "undefined" == page.run("return mergescope.scan.kinship")
    assert "undefined" == page.text(".totals dd")
    assert "kinship cannot be told" in page.text(".findings li")
    assert "—" == page.text(".findings .value")
    assert "undefined · cosine" == page.run("return document.querySelector('.findings .value').title")
    assert "none of these keys both moved and turned" in page.text("[data-section=scatter] .figure")
    assert [] == page.complaints()


# What the tests are made of


def select_python(scan: Scan, text: str) -> tuple[KeyScan, ...]:
    return select(text, rows=scan.keys, blocks=scan.blocks)


def one_key(scan: Scan) -> Scan:
    key = next(key for key in scan.keys if key.labels.component.endswith("attn2/to_k"))
    return replace(scan, keys=(key,))


def unchanged(sums: Sums) -> Sums:
    """The record of A against itself."""
    return replace(
        sums,
        changed=0,
        sign_flips=0,
        sum_b=sums.sum_a,
        sum_bb=sums.sum_aa,
        sum_dd=0.0,
        sum_abs_d=0.0,
        max_abs_d=0.0,
        m2_b=sums.m2_a,
    )
