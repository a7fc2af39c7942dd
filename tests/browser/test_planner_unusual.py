"""The planner of models that are no U-Net: a hundred layers, one key, a pair without a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planner_page import Planner, expected

from analyzer.records import KeyScan, Labels, Scan

SEED = 20240307


@pytest.fixture(scope="module")
def hundred(synthetic: Any, sums_of: Callable[..., Any]) -> Scan:
    """A language model of a hundred layers, and what stands outside them."""
    generator = np.random.default_rng(SEED)
    blocks = [f"L{place:02}" for place in range(100)]
    keys = []
    for block in ("BASE", *blocks):
        for component in ("self_attn/q_proj", "mlp/down_proj") if block != "BASE" else ("embed_tokens",):
            a = generator.normal(0, 0.05, (8, 6)).astype(np.float32)
            b = a + generator.normal(0, 0.005, a.shape).astype(np.float32)
            labels = Labels("transformer", block, component, "weight", component.split("/")[0])
            key = f"model.{block}.{component}.weight"
            keys.append(KeyScan(key, key, a.shape, "F32", "F32", labels, sums_of(a, b)))
    return replace(synthetic.scan, keys=tuple(keys), blocks=tuple(blocks), base=None, with_spectrum=False)


def test_a_hundred_layers_are_drawn_as_a_curve(open_page: Callable[..., Any], hundred: Scan) -> None:
    """A pointer that is dragged across sets them all; the page stays as high as with few."""
    from selenium.webdriver import ActionChains

    planner = Planner(open_page(hundred))
    curve = planner.page.driver.find_element("css selector", ".curve")
    planner.page.run("arguments[0].scrollIntoView({ block: 'center' })", curve)
    width, height = curve.size["width"], curve.size["height"]
    ActionChains(planner.page.driver).move_to_element_with_offset(
        curve, -width // 2 + 3, height // 2 - 3
    ).click_and_hold().move_by_offset(width - 6, 6 - height).release().perform()
    planner.settle()
    alphas = [planner.slider(f"alpha of L{place:02}") for place in (0, 25, 50, 75, 99)]
    assert [0.0, 0.25, 0.5, 0.75, 1.0] == pytest.approx(alphas, abs=0.05)
    assert 400 > planner.page.run("return document.querySelector('.block-rows').clientHeight")
    assert [] == planner.page.complaints()


def test_of_thousands_of_layers_neighbours_share_a_slider(
    open_page: Callable[..., Any], hundred: Scan
) -> None:
    """A page holds hundreds of sliders, not thousands; a name then selects the run of layers."""
    layers = [f"L{place:04}" for place in range(1000)]
    keys = [
        replace(
            row,
            key=f"model.{layer}.weight",
            key_b=f"model.{layer}.weight",
            labels=replace(row.labels, block=layer),
        )
        for layer, row in zip(layers, hundred.keys * 5, strict=False)
    ]
    planner = Planner(open_page(replace(hundred, keys=tuple(keys), blocks=tuple(layers)), found=()))
    assert 200 == planner.page.run("return document.querySelectorAll('.block-row').length")
    planner.move("alpha of everything", 0)
    planner.move("alpha of L0005..L0009", 1)
    scan = replace(hundred, keys=tuple(keys), blocks=tuple(layers))
    wanted = expected(scan, lambda row: 1.0 if "L0005" <= row.labels.block <= "L0009" else 0.0)
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    planner.page.run("document.querySelector('[data-block=\"L0005..L0009\"] button').click()")
    planner.page.wait("return document.querySelector('#selection-text').textContent === 'block:L0005..L0009'")
    planner.page.wait("return location.hash.includes('x5')")


def test_one_key_without_blocks_is_planned(
    open_page: Callable[..., Any], synthetic: Any, sums_of: Callable[..., Any]
) -> None:
    """No block has a slider where there are none; hostile names stay text."""
    generator = np.random.default_rng(SEED)
    a = generator.normal(0, 0.05, (8, 6)).astype(np.float32)
    b = (a * np.float32(1.1)).astype(np.float32)
    name = "</script><img\tsrc=x onerror=alert(1)>"
    labels = Labels("other", "BASE", name, "weight", name)
    row = KeyScan(name, name, a.shape, "F32", "F32", labels, sums_of(a, b))
    scan = replace(synthetic.scan, keys=(row,), blocks=(), base=None, with_spectrum=False)
    planner = Planner(open_page(scan, found=()))
    planner.move("alpha of everything", 0.75)
    assert expected(scan, lambda _: 0.75) == pytest.approx(planner.figures(), rel=1e-9)
    assert planner.page.run("return document.querySelector('.blocks').hidden")
    assert name in planner.components()
    assert 0 == planner.page.run("return document.querySelectorAll('img').length")
    assert [] == planner.page.complaints()


def test_a_phone_shows_the_planner_in_one_column(open_page: Callable[..., Any], synthetic: Any) -> None:
    """Nothing is wider than the screen, and the map of the merge stays in sight above the sliders."""
    page = open_page(synthetic.scan, size=(390, 844))
    assert 390 == page.run("return document.documentElement.scrollWidth")
    page.run("document.querySelector('[data-block=\"OUT05\"]').scrollIntoView({ block: 'center' })")
    assert 0 == pytest.approx(
        page.run("return document.querySelector('.outcome-map').getBoundingClientRect().top"), abs=1
    )


def test_an_identical_pair_has_no_planner(
    open_page: Callable[..., Any], synthetic: Any, sums_of: Callable[..., Any]
) -> None:
    """There is nothing to plan between a model and itself."""
    a = np.random.default_rng(SEED).normal(0, 0.05, (8, 6)).astype(np.float32)
    labels = Labels("unet", "IN01", "proj_in", "weight", "proj_in")
    row = KeyScan("x.weight", "x.weight", a.shape, "F32", "F32", labels, sums_of(a, a))
    page = open_page(replace(synthetic.scan, keys=(row,), base=None, with_spectrum=False))
    assert not page.run("return Boolean(document.querySelector('[data-section=planner]'))")
    assert [] == page.complaints()
