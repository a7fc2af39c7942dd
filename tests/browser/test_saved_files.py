"""What the page saves in a real browser: its figures as SVG and PNG, the rows of its table as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from figure_numbers import counted, select_python

from analyzer.tables import keys_csv

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

HOSTILE = "</script><img src=x onerror=alert(1)><b>&amp;%{x}$a$&foo;&#1;"
NEW = ("profile", "treemap", "histogram", "tasks")


def test_figures_are_saved_light_with_their_words(
    open_page: OpenPage, driver: Any, synthetic: Any, tmp_path: Path
) -> None:
    """Each as an SVG that parses and a PNG of twice its size, from a dark page that keeps its colours."""
    page = open_page(synthetic.scan, scheme="dark")
    page.select("attn2")
    downloads(driver, tmp_path)
    for section in ("ranking", "map", "scatter", *NEW):
        title = page.text(f"[data-section={section}] h2")
        svg = ElementTree.fromstring(save(page, tmp_path, f"[data-section={section}] [data-export=svg]"))
        words = "".join(svg.itertext())
        assert title in words
        assert "small-v1.safetensors" in words
        assert "selected: attn2" in words
        assert "255, 255, 255" in next(svg.iter("{http://www.w3.org/2000/svg}rect")).attrib["style"]
        if section not in ("map", "treemap", "tasks"):
            continue  # it is that SVG on a canvas: the others would take their time
        png = save(page, tmp_path, f"[data-section={section}] [data-export=png]")
        size = (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big"))
        assert (b"\x89PNG", (2 * int(svg.attrib["width"]), 2 * int(svg.attrib["height"]))) == (png[:4], size)
    assert "dark" == page.run(
        "return getComputedStyle(document.documentElement).getPropertyValue('--scheme').trim()"
    )
    assert [] == page.complaints()
    assert [] == page.requests()


def test_rows_are_saved_as_the_scan_command_writes_them(
    page: Any, driver: Any, synthetic: Any, tmp_path: Path
) -> None:
    """The rows in the table, with the columns of `scan --csv` and every digit."""
    page.select("attn2,weight")
    downloads(driver, tmp_path)
    chosen = select_python(synthetic.scan, "attn2,weight")
    saved = list(csv.DictReader(io.StringIO(save(page, tmp_path, "#save-rows").decode())))
    written = {row["key"]: row for row in csv.DictReader(io.StringIO(keys_csv(synthetic.scan)))}
    assert [key.key for key in chosen] == [row["key"] for row in saved]
    for row in saved:
        expected = written[row["key"]]
        assert set(expected) == set(row)
        for name, text in expected.items():
            if is_number(text):
                assert float(text) == pytest.approx(float(row[name]), rel=1e-12), (row["key"], name)
            else:
                assert text == row[name], (row["key"], name)


def test_hostile_names_stay_text_in_figures_and_in_files(
    open_page: OpenPage, driver: Any, synthetic: Any, tmp_path: Path
) -> None:
    """Drawn and saved letter by letter; a spreadsheet takes no key for a formula."""
    names = (HOSTILE, '=HYPERLINK("http://x","y")', 'a,"b"\n', "bell \x07", "@SUM(A1)")
    group = f"a/{HOSTILE}"
    keys = tuple(
        replace(
            key,
            key=f"{names[n % len(names)]}{n}",
            key_b=f"{n}",
            labels=replace(key.labels, component=group, group=HOSTILE),
        )
        for n, key in enumerate(counted(synthetic.scan)[40:80])
    )
    page = open_page(replace(synthetic.scan, keys=keys, blocks=synthetic.scan.blocks))
    downloads(driver, tmp_path)
    for section in NEW:
        svg = ElementTree.fromstring(save(page, tmp_path, f"[data-section={section}] [data-export=svg]"))
        assert {"script", "img", "b"}.isdisjoint(node.tag.rpartition("}")[2] for node in svg.iter())
    save(page, tmp_path, "[data-section=profile] [data-export=png]")
    ending = HOSTILE.partition("/")[2]  # a component is called by its last segment
    assert ending in page.text("[data-section=profile] .groups")
    assert ending in page.text("[data-section=tasks] .groups")
    saved = list(csv.reader(io.StringIO(save(page, tmp_path, "#save-rows").decode(), newline="")))[1:]
    assert [("'" if key.key[0] in "=@" else "") + key.key for key in keys] == [row[0] for row in saved]
    assert 0 == page.run("return document.querySelectorAll('img, b b, td b').length")
    assert [] == page.complaints()


# What the tests are made of


def downloads(driver: Any, folder: Path) -> None:
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})


def save(page: Any, folder: Path, button: str) -> bytes:
    """Press a button that saves a file, wait for the file, and take it away."""
    page.run(f"document.querySelector('{button}').click()")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        files = [
            file
            for file in folder.iterdir()
            if not file.name.endswith((".crdownload", ".tmp")) and file.name[0] != "."
        ]
        if files and files[0].stat().st_size:
            content = files[0].read_bytes()
            files[0].unlink()
            return content
        time.sleep(0.02)
    raise AssertionError(f"{button} saved nothing")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
