"""The planner of the page: what its sliders, switches and menus do, held against Python's own prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planner_page import BASE, Planner, expected, steps

from analyzer.blocks import presets
from analyzer.prediction.closed_form import predict
from analyzer.ranking import counted, rank_keys
from analyzer.records import KeyScan, Scan
from reports.embedded import Planner as Embedded


@pytest.fixture(scope="module")
def opened(open_page: Callable[..., Any], synthetic: Any) -> Planner:
    """The planner of the synthetic scan and the presets of its blocks, opened once."""
    rows = presets.rows(len(synthetic.scan.blocks))
    its = [{"name": row.name, "meaning": row.meaning, "weights": row.numbers} for row in rows]
    return Planner(open_page(synthetic.scan, planner=Embedded(presets=its)))


@pytest.fixture
def planner(opened: Planner) -> Planner:
    """The same with nothing planned."""
    opened.press("reset")
    return opened


def test_the_planner_opens_half_way(planner: Planner, synthetic: Any) -> None:
    """Its first figures are those of the plain average, and its command says so."""
    assert expected(synthetic.scan, lambda row: BASE) == pytest.approx(planner.figures(), rel=1e-9)
    assert ["--alpha", "0.5"] == planner.command("--alpha", "0.5")[-2:]


def test_sliders_move_the_prediction_to_what_python_says(planner: Planner, synthetic: Any) -> None:
    """Blocks, everything, and what lies outside all blocks; in total and by component."""
    planner.move("alpha of everything", 0.25)
    planner.move("alpha of IN04", 0.9)
    planner.move("alpha of OUT08", 0)
    planner.move("alpha of keys outside all blocks", 0.75)
    by_block = {"IN04": 0.9, "OUT08": 0.0, "BASE": 0.75, "VAE": 0.75}

    def alpha(row: KeyScan) -> float:
        return by_block.get(row.labels.block, 0.25)

    assert expected(synthetic.scan, alpha) == pytest.approx(planner.figures(), rel=1e-9)
    groups = {row.labels.group for row in counted(synthetic.scan.keys)}
    wanted = {group: _of_group(synthetic.scan, group, alpha) for group in groups}
    assert wanted == pytest.approx(planner.components(), rel=1e-9)


def _of_group(scan: Scan, group: str, alpha: Callable[[KeyScan], float]) -> float | None:
    """How far one component moves, as a model of its own."""
    rows = tuple(row for row in scan.keys if row.labels.group == group)
    return expected(replace(scan, keys=rows), alpha)["distance_a"]


def test_everything_takes_all_sliders_along_and_undo_brings_them_back(planner: Planner) -> None:
    """A slip of the hand costs nothing."""
    planner.move("alpha of IN04", 0.9)
    planner.move("alpha of everything", 0.1)
    assert 0.1 == planner.slider("alpha of IN04")
    planner.press("undo")
    assert (0.9, 0.5) == (planner.slider("alpha of IN04"), planner.slider("alpha of M00"))
    planner.press("undo")
    assert 0.5 == planner.slider("alpha of IN04")


def test_a_preset_moves_the_sliders(planner: Planner, synthetic: Any) -> None:
    """To the weights that Python has of it; a slider that is moved then leaves the others there."""
    planner.put('select[name="preset"]', "GRAD_V")
    blocks = synthetic.scan.blocks
    by_block = dict(zip(blocks, presets.weights("GRAD_V", len(blocks)), strict=True))
    wanted = expected(synthetic.scan, lambda row: by_block.get(row.labels.block, 0.0))
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    assert "GRAD_V" in planner.command("GRAD_V")
    planner.move("alpha of OUT05", 1)
    by_block["OUT05"] = 1.0
    wanted = expected(synthetic.scan, lambda row: by_block.get(row.labels.block, 0.0))
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    assert "" == planner.page.run("return document.querySelector('[name=preset]').value")


def test_arrow_keys_move_a_slider_that_says_what_it_does(planner: Planner) -> None:
    """For those without a pointer, and those who listen."""
    planner.page.run("document.querySelector('[aria-label=\"alpha of M00\"]').focus()")
    planner.page.driver.switch_to.active_element.send_keys("\ue014\ue014")  # to the right, twice
    planner.settle()
    assert 0.52 == planner.slider("alpha of M00")
    spoken = planner.page.run("return document.activeElement.getAttribute('aria-valuetext')")
    assert spoken.startswith("0.52: moves M00 by ")


def test_switches_leave_components_kinds_and_parts_at_a(planner: Planner, synthetic: Any) -> None:
    """What is switched off stays A's, and the command says it so that a merge does the same."""
    planner.switch("merge attn2", False)
    planner.switch("merge the kind bias", False)
    planner.switch("merge the part text_encoder", False)

    def alpha(row: KeyScan) -> float:
        labels = row.labels
        is_off = labels.group.endswith("attn2") or labels.kind == "bias" or labels.part == "text_encoder"
        return 0.0 if is_off else BASE

    assert expected(synthetic.scan, alpha) == pytest.approx(planner.figures(), rel=1e-9)
    planner.switch("merge attn2", True)
    planner.switch("merge the kind bias", True)
    planner.switch("merge the part text_encoder", True)
    assert expected(synthetic.scan, lambda row: BASE) == pytest.approx(planner.figures(), rel=1e-9)


def test_a_budget_limits_every_component(planner: Planner, synthetic: Any) -> None:
    """Its alphas are min(1, budget / relative change); sliders that it overrules cannot be moved."""
    planner.put('[data-guide="budget"] input[type="number"]', 0.05, "input")
    changes = {
        row.key: change
        for group in rank_keys(synthetic.scan)
        if (change := _change(group))
        for row in group.keys
    }
    wanted = expected(
        synthetic.scan, lambda row: min(1.0, 0.05 / changes[row.key]) if row.key in changes else 1.0
    )
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    assert planner.page.run("return document.querySelector('[aria-label=\"alpha of IN04\"]').disabled")
    assert 0.05 + 1e-9 > max(planner.components().values())


def _change(group: Any) -> float | None:
    return group.row.statistics["relative_change"]


def test_the_groups_that_moved_most_are_taken_alone(planner: Planner, synthetic: Any) -> None:
    """As `merge --top 2` takes them, by any axis and statistic of the menus."""
    planner.put('[name="top-n"]', 2, "input")
    planner.put('[name="top"]', True)
    chosen = {row.key for group in rank_keys(synthetic.scan)[:2] for row in group.keys}
    wanted = expected(synthetic.scan, lambda row: BASE if row.key in chosen else 0.0)
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    planner.put('[name="top-axis"]', "block")
    planner.put('[name="top-by"]', "norm_delta")
    chosen = {
        row.key
        for group in rank_keys(synthetic.scan, axis="block", by="norm_delta")[:2]
        for row in group.keys
    }
    wanted = expected(synthetic.scan, lambda row: BASE if row.key in chosen else 0.0)
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)


def test_a_ramp_sets_a_range_of_blocks(planner: Planner) -> None:
    """From one alpha at the first of them to another at the last, in even steps."""
    for name, value in (("first", "IN00"), ("last", "IN04"), ("start", 0), ("end", 1)):
        planner.put(f'[name="ramp-{name}"]', value)
    planner.press("ramp")
    alphas = [planner.slider(f"alpha of {block}") for block in ("IN01", "IN02", "IN04", "M00")]
    assert [0.25, 0.5, 1.0, BASE] == pytest.approx(alphas)


def test_names_and_selections_go_both_ways(planner: Planner, synthetic: Any) -> None:
    """A component's name selects it in the page; the page's selection becomes the gate of the plan."""
    planner.page.run("document.querySelector('[data-component$=\"attn2\"] button.name').click()")
    planner.page.wait("return !document.querySelector('#selection').hidden")
    assert planner.page.text("#selection-text").startswith("component:transformer_blocks/attn2")
    planner.press("use-selection")
    wanted = expected(synthetic.scan, lambda row: BASE if row.labels.group.endswith("attn2") else 0.0)
    assert wanted == pytest.approx(planner.figures(), rel=1e-9)
    planner.put('[name="only"]', "nonsense")
    assert "nonsense" in planner.problem()
    planner.put('[name="only"]', "")
    assert "" == planner.problem()


def test_alphas_of_selections_are_added_and_removed(planner: Planner, synthetic: Any) -> None:
    """The later wins, as with --set."""
    for selector, alpha in (("attn2", 1), ("attn2/to_k", 0)):
        planner.put('[name="set-selector"]', selector)
        planner.put('[name="set-alpha"]', alpha)
        planner.press("set")

    def alpha_of(row: KeyScan) -> float:
        path = f"/{row.labels.component}/"
        return 0.0 if "/attn2/to_k/" in path else 1.0 if "/attn2/" in path else BASE

    assert expected(synthetic.scan, alpha_of) == pytest.approx(planner.figures(), rel=1e-9)
    planner.page.run("document.querySelector('.sets li:last-child button').click()")
    planner.settle()
    assert "attn2 = 1" == planner.page.text(".sets code")


def test_the_output_dtype_says_what_survives(planner: Planner, synthetic: Any) -> None:
    """The share of the step that the save keeps; where it is little, the way out is said."""
    planner.move("alpha of everything", 0.01)
    planner.put('select[name="dtype"]', "fp8_e5m2")
    keys = {row.key: "F8_E5M2" for row in counted(synthetic.scan.keys)}
    wanted = predict(synthetic.scan, steps(synthetic.scan, lambda row: 0.01), dtypes=keys).survives
    shown = planner.page.run("return document.querySelector('[data-outcome=survives]').title")
    assert (wanted is None) == (shown == "undefined")
    if wanted is not None:
        assert wanted == pytest.approx(float(shown), abs=1e-9)
        assert (wanted < 0.5) == ("fp8_e5m2" in planner.page.text(".survival .warning"))


def test_the_map_shows_where_the_merge_lies(planner: Planner) -> None:
    """On the line for one alpha, on the arc where every key is A's or B's; words say the same."""
    planner.move("alpha of everything", 0.3)
    a, b, m, y = _places(planner)
    assert 0.3 == pytest.approx((m - a) / (b - a), abs=1e-3)
    assert 150 == pytest.approx(y)
    assert "0.3 of the way" in planner.page.run(
        "return document.querySelector('.between').getAttribute('aria-label')"
    )
    planner.move("alpha of everything", 1)
    planner.switch("merge attn2", False)
    a, b, m, y = _places(planner)
    radius = (b - a) / 2
    assert radius == pytest.approx(np.hypot(m - (a + b) / 2, y - 150), rel=1e-3)


def _places(planner: Planner) -> list[float]:
    script = """
        const at = (name, side) => Number(document.querySelector(`.between ${name}`).getAttribute(side));
        return [at('.end-a', 'cx'), at('.end-b', 'cx'), at('.merged', 'cx'), at('.merged', 'cy')];"""
    return planner.page.run(script)
