"""Selecting and predicting in the report page: one language and one arithmetic with Python's."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyzer.errors import SelectorError
from analyzer.measures import add_sums
from analyzer.records import KeyScan, Scan
from analyzer.selectors import select
from analyzer.statistics import STATISTICS

pytestmark = pytest.mark.browser

SELECTORS = (
    "attn2",
    "ATTN2/to_k",
    "attn1,attn2,weight",
    "attn1 attn2, !bias",
    "OUT03..OUT08",
    "IN00..M00,ff",
    "CLIP",
    "U-Net",
    "VAE",
    "Other",
    "!VAE",
    "!unet !clip",
    "part:ema",
    "ema,attn2",
    "component:norm1",
    "transformer_blocks",
    "proj_in,!component:decoder",
    "kind:other",
    "schedule",
    "key:*.attn?.to_[kq].weight",
    "key:*[!kq].weight",
    "key:first_stage_model.*,!bias",
    "block:BASE,kind:bias",
)
# What selectors at random are made of: what the scan has, and rarely what it has not.
NAMES = {
    "part": ("unet", "U-Net", "CLIP", "vae", "text_encoder", "ema", "Other"),
    "block": ("IN01", "IN04", "in02", "M00", "OUT05", "OUT11", "VAE", "BASE"),
    "component": (
        "attn2",
        "to_k",
        "attn2/to_k",
        "transformer_blocks",
        "transformer_blocks/attn1",
        "ff",
        "NET",
        "norm1",
    ),
    "kind": ("weight", "bias", "other", "WEIGHT"),
}
RANGES = ("IN00..IN04", "in01..out05", "M00..M00", "OUT03..OUT11", "block:IN04..OUT08", "OUT11..IN00")
GLOBS = (
    "*",
    "?",
    ".",
    "model*",
    "*in0",
    "*attn2*",
    "*to_[kq]",
    "*[!k].",
    "[a-m]*",
    "*weight",
    "bias",
    "*bias",
)
STRANGE = (
    "attn",
    "flavour:attn2",
    "part:IN01",
    "position_ids",
    "schedule",
    "proj_in",
    "X9..OUT05",
    "key:[z-a]*",
    "..",
)
REFUSED = (
    "attn",
    "other",
    "part:attn2",
    "flavour:attn2",
    "OUT08..OUT03",
    "OUT03..VAE",
    "OUT03..",
    "key:nothing.*",
    "!",
    ",",
    "VAE,attn2",
    "constructor",
    "__proto__",
    "part:toString",
    "block:valueOf",
)


def test_clicking_a_bar_filters_the_keys_and_keeps_the_other_bars(page: Any, synthetic: Any) -> None:
    """A bar selects its group everywhere; the ranking still shows what it was chosen among."""
    page.point_at("[data-section=ranking] .bars .point path", click=True)
    page.wait("return !document.querySelector('#selection').hidden")
    keys = [key for key in synthetic.scan.keys if key.labels.component.startswith("transformer_blocks/attn2")]
    counted = [key for key in keys if key.labels.counted]
    assert "component:transformer_blocks/attn2" == page.run(
        "return document.querySelector('#selector').value"
    )
    assert f"{len(counted)} keys shown" == page.text("#shown")
    assert {key.key for key in counted} == {row[0] for row in page.rows()}
    page.wait("return document.querySelectorAll('[data-section=ranking] .bars .point').length > 1")
    assert len(set(page.figure("ranking")["data"][0]["marker"]["color"])) == 2
    page.run("document.querySelector('#selection button').click()")
    page.wait("return document.querySelector('#selection').hidden")
    assert f"{len(synthetic.scan.keys)} keys shown" == page.text("#shown")


def test_a_group_is_selected_without_others_that_carry_its_name(page: Any, synthetic: Any) -> None:
    """`proj_in` also stands inside a path of the VAE; its bar and its cells are of the U-Net's alone."""
    page.run("""[...document.querySelectorAll('.groups button')]
        .find((button) => button.textContent === 'proj_in').click()""")
    page.wait("return !document.querySelector('#selection').hidden")
    members = {key.key for key in synthetic.scan.keys if key.labels.group == "proj_in"}
    hit = {key.key for key in select_python(synthetic.scan, "proj_in")}
    chosen = {key.key for key in select_python(synthetic.scan, page.text("#selection-text"))}
    assert members < hit
    assert members == chosen == {row[0] for row in page.rows()}


def test_a_finding_selects_its_keys(page: Any, synthetic: Any) -> None:
    """The button beside a finding shows the keys that the sentence is about."""
    button = "document.querySelector('.findings [data-selector]')"
    page.run(f"{button}.click()")
    page.wait("return !document.querySelector('#selection').hidden")
    chosen = select_python(synthetic.scan, page.run(f"return {button}.dataset.selector"))
    assert f"{len(chosen)} {'key' if len(chosen) == 1 else 'keys'} shown" == page.text("#shown")
    assert {row[0] for row in page.rows()} <= {key.key for key in chosen}


@pytest.mark.parametrize("text", SELECTORS)
def test_selectors_hit_what_they_hit_on_the_command_line(page: Any, synthetic: Any, text: str) -> None:
    """One language: the page and Python select the same keys, told by what a merge of them would be."""
    chosen = {key.key for key in select_python(synthetic.scan, text)}
    expected = predicted(synthetic.scan, lambda key: 1.0 if key.key in chosen else None)
    assert expected == pytest.approx(page.predict([(text, 1.0)]), rel=1e-9)


@pytest.mark.parametrize("text", REFUSED)
def test_selectors_are_refused_where_the_command_line_refuses_them(
    page: Any, synthetic: Any, text: str
) -> None:
    """What Python calls an error is an error here, and the reader is told why."""
    with pytest.raises(SelectorError):
        select_python(synthetic.scan, text)
    script = "try { mergescope.predict([[arguments[0], 1]]) } catch (error) { return error.message }"
    message = page.run(script, text)
    assert message.endswith(".")


@st.composite
def selectors(draw: st.DrawFn) -> str:
    """A selector of up to five terms, of names that the scan has and of some that it has not."""
    axes = st.sampled_from(list(NAMES))
    names = [
        axes.flatmap(lambda axis: st.sampled_from(NAMES[axis])),
        axes.flatmap(lambda axis: st.sampled_from(NAMES[axis]).map(f"{axis}:{{}}".format)),
        st.sampled_from(RANGES),
        st.lists(st.sampled_from(GLOBS), min_size=1, max_size=3).map(lambda parts: f"key:*{''.join(parts)}*"),
    ]
    rare = st.one_of(st.sampled_from(STRANGE), st.text("aIN01:.!*?[]/-é", min_size=1, max_size=6))
    excludes = st.sampled_from(["", "", "!"])
    terms = draw(
        st.lists(st.tuples(excludes, st.one_of(*names, *names, rare)).map("".join), min_size=1, max_size=4)
    )
    return draw(st.sampled_from([",", " ", ", ", "\n"])).join(terms)


@given(texts=st.lists(selectors(), min_size=60, max_size=60))
@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_selector_means_what_it_means_on_the_command_line(
    page: Any, synthetic: Any, texts: list[str]
) -> None:
    """Terms at random: both languages refuse the same ones, and select the same keys with the others."""
    script = """return arguments[0].map((text) => {
        try { mergescope.predict([[text, 1]]) } catch (error) { return null }
        const { numel, norm_a, norm_b, norm_delta } = mergescope.evaluate(text);
        return [numel, norm_a ?? -1, norm_b ?? -1, norm_delta ?? -1];
    })"""
    for text, found in zip(texts, page.run(script, texts), strict=True):
        try:
            chosen = select_python(synthetic.scan, text)
        except SelectorError:
            assert found is None, text
        else:
            total = add_sums(key.sums for key in chosen)
            formulas = [STATISTICS[name].formula for name in ("norm_a", "norm_b", "norm_delta")]
            values = [formula(total) for formula in formulas]
            expected = [total.numel, *(-1 if value is None else value for value in values)]
            assert found is not None, text
            assert expected == pytest.approx(found, rel=1e-12), text


def test_an_unknown_name_is_explained_and_changes_nothing(page: Any, synthetic: Any) -> None:
    """A reader who types half a name sees the nearest names and a way to search the raw keys."""
    page.type_selector("zebra")
    page.wait("return document.querySelector('#selector-message').textContent.includes('zebra')")
    assert page.run("return document.querySelector('#selector-hint').hidden")
    page.type_selector("attn")
    page.wait("return document.querySelector('#selector-message').textContent.includes('“attn”')")
    assert "attn1, attn2" in page.text("#selector-message")
    assert f"{len(synthetic.scan.keys)} keys shown" == page.text("#shown")
    page.run("document.querySelector('#selector-hint').click()")
    page.wait("return !document.querySelector('#selection').hidden")
    named = [key for key in synthetic.scan.keys if "attn" in key.key]
    assert f"{len(named)} keys shown" == page.text("#shown")
    assert [] == page.complaints()


def test_a_prediction_is_what_the_arrays_say(page: Any, synthetic: Any) -> None:
    """Norm, distances and cosines of a merge equal those of the merged arrays; later entries win."""
    entries = [
        ("unet", 0.25),
        ("attn2", 0.8),
        ("OUT03..OUT11,weight", 1.0),
        ("CLIP", -0.5),
        ("key:*norm1*", 1.5),
    ]
    alphas: dict[str, float] = {}
    for text, alpha in entries:
        alphas |= {key.key: alpha for key in select_python(synthetic.scan, text)}
    used = [key.key for key in synthetic.scan.keys if key.labels.counted]
    a, b = (
        np.concatenate([synthetic.arrays[key][side].astype(np.float64).ravel() for key in used])
        for side in (0, 1)
    )
    alpha = np.concatenate([np.full(synthetic.arrays[key][0].size, alphas.get(key, 0.0)) for key in used])
    m = a + alpha * (b - a)
    norm = np.linalg.norm
    expected = {
        "norm": norm(m),
        "distance_a": norm(m - a) / norm(a),
        "distance_b": norm(m - b) / norm(b),
        "cosine_a": m @ a / (norm(m) * norm(a)),
        "cosine_b": m @ b / (norm(m) * norm(b)),
    }
    assert expected == pytest.approx(page.predict(entries), rel=1e-9)


def test_predictions_at_the_ends_are_the_models_themselves(page: Any, synthetic: Any) -> None:
    """Alpha 0 everywhere is A, alpha 1 everywhere is B, to the last digit that a square root leaves."""
    none, every = page.predict([]), page.predict([("key:*", 1.0)])
    assert (0.0, 1.0) == (none["distance_a"], none["cosine_a"])
    assert (0.0, 1.0) == (every["distance_b"], every["cosine_b"])


# What Python says


def select_python(scan: Scan, text: str) -> tuple[KeyScan, ...]:
    return select(text, rows=scan.keys, blocks=scan.blocks)


def predicted(scan: Scan, alpha: Callable[[KeyScan], float | None]) -> dict[str, float | None]:
    """The whole model with one alpha per key; None keeps A, and leaves an uncounted key out."""
    keys = [(key.sums, alpha(key)) for key in scan.keys if key.labels.counted or alpha(key) is not None]
    aa, bb = (sum(getattr(s, name) for s, _ in keys) for name in ("sum_aa", "sum_bb"))
    ad = [(s.sum_bb - s.sum_aa - s.sum_dd) / 2 for s, _ in keys]
    steps = [(s, dot, a or 0.0) for (s, a), dot in zip(keys, ad, strict=True)]
    mm = sum(s.sum_aa + 2 * a * dot + a * a * s.sum_dd for s, dot, a in steps)
    to_a = sum(a * a * s.sum_dd for s, _, a in steps)
    to_b = sum((1 - a) ** 2 * s.sum_dd for s, _, a in steps)
    return {
        "norm": sqrt(mm),
        "distance_a": sqrt(to_a / aa),
        "distance_b": sqrt(to_b / bb),
        "cosine_a": (mm + aa - to_a) / (2 * sqrt(mm * aa)),
        "cosine_b": (mm + bb - to_b) / (2 * sqrt(mm * bb)),
    }
