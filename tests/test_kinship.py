"""What two models are to each other, and what is said about it: never more than the numbers carry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.kinship import findings, kinship
from analyzer.records import Finding, KeyScan, Labels, ModelId, Scan, ShapeMismatch, Sums
from analyzer.selectors import select
from analyzer.statistics import STATISTICS, cosine

MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")


def row(component: str, sums: Sums, *, dtype_b: str = "F32", **labels: object) -> KeyScan:
    """A key of the U-Net, ranked under its whole component."""
    described = Labels("unet", "IN01", component, "weight", component)
    described = replace(described, **labels)  # type: ignore[arg-type]  # fields of Labels
    return KeyScan(component, component, (sums.numel,), "F32", dtype_b, described, sums)


def scan_of(*rows: KeyScan) -> Scan:
    """A scan of these rows, each under a key of its own."""
    named = tuple(replace(r, key=f"{r.key}.{i}", key_b=f"{r.key}.{i}") for i, r in enumerate(rows))
    return Scan("mergescope", "2026-01-01", MODEL, MODEL, ("IN01",), named, (), (), ())


def turned(value: float, numel: int = 1000, scale: float = 1.0) -> Sums:
    """A record of two vectors of equal length at a given cosine."""
    square = numel * scale**2
    dd = 2 * (1 - value) * square
    return Sums(
        numel, numel, numel, changed=numel, sum_aa=square, sum_bb=square, sum_dd=dd, sum_ab=value * square
    )


def still(numel: int = 1000, value: float = 1.0) -> Sums:
    """A record of two equal vectors."""
    square = numel * value**2
    return Sums(numel, numel, numel, sum_aa=square, sum_bb=square, sum_ab=square)


UNDIRECTED = Sums(1000, 1000, 1000, changed=1000, sum_bb=1000.0, sum_dd=1000.0)  # a is all zeros
NO_POSITION = Sums(1000, 0, 0, nonfinite_b=1000)  # b is all NaN: no position can be compared


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.0, "fine-tune"),
        (0.99, "fine-tune"),
        (0.9 + 1e-9, "fine-tune"),
        (0.9, "fine-tune"),
        (0.9 - 1e-9, "distant"),
        (0.5, "distant"),
        (0.1 + 1e-9, "distant"),
        (0.1 - 1e-9, "unrelated"),
        (0.0, "unrelated"),
        (-1.0, "unrelated"),
    ],
)
def test_the_cosine_decides(value: float, name: str) -> None:
    """From 0.9 on a fine-tune, from 0.1 on distant, below unrelated; the cosine comes along."""
    sums = turned(value)
    got, median = kinship(scan_of(row("x", sums)))
    assert name == got
    assert median == cosine(sums) == pytest.approx(value, abs=1e-15)


def test_nothing_changed_is_the_same() -> None:
    """Equal values everywhere need no cosine, and even zeros are equal to zeros."""
    zeros = Sums(10, 10, 10)
    assert ("same", None) == kinship(scan_of(row("x", still()), row("y", zeros)))


def test_without_a_direction_nothing_is_told() -> None:
    """Where A is all zeros, what changed has no cosine, and so the models no kinship."""
    assert (None, None) == kinship(scan_of(row("x", UNDIRECTED), row("y", still())))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("x", NO_POSITION)],
        [row("ids", Sums(77, 77, 0, changed=3), kind="other", counted=False)],
        [row("x", Sums())],
    ],
    ids=["no keys", "all NaN", "changed integers alone", "no elements"],
)
def test_no_evidence_is_not_the_same(rows: list[KeyScan]) -> None:
    """Where no weights could be compared, nobody may read that the two models hold the same values."""
    assert (None, None) == kinship(scan_of(*rows))
    assert all("same values" not in finding.text for finding in findings(scan_of(*rows)))


def test_a_change_outside_the_totals_is_not_the_same() -> None:
    """Equal weights and other position_ids, EMA copies or schedules: not "the same values"."""
    weights = row("x", still())
    for part in ("ema", "other"):
        result = scan_of(weights, row("y", turned(0.5), part=part, counted=False))
        assert all("same values" not in finding.text for finding in findings(result))


def test_a_key_that_cannot_be_compared_is_not_the_same() -> None:
    """Equal keys beside keys that only one model has, or that differ in shape, do not make equal models."""
    result = scan_of(row("x", still()))
    for other in (
        replace(result, only_in_a=("lora",)),
        replace(result, only_in_b=("lora",)),
        replace(result, shape_mismatch=(ShapeMismatch("conv", (4, 9), (4, 4)),)),
    ):
        assert "identical: the two models hold the same values" not in [
            finding.text for finding in findings(other)
        ]


def test_identical_is_said_of_whole_models_only() -> None:
    """Schedules that one side lacks do not matter; half a model without a partner, or NaN, does."""
    rows = [row(f"x.{n}", still()) for n in range(20)]

    def text(**lists: tuple[str, ...]) -> str:
        return findings(replace(scan_of(*rows), **lists))[0].text

    assert text(only_in_a=("betas", "alphas")).startswith("identical: all weights that could be compared")
    assert text(only_in_a=("betas", "alphas", "lora")).startswith("all weights that could be compared")
    assert text(only_in_b=tuple("abc")).startswith("all weights that could be compared")
    broken = row("y", replace(still(), numel=still().numel + 1, nonfinite_b=1))
    assert findings(scan_of(*rows, broken))[0].text.startswith("all weights that could be compared")


def test_identical_keys_do_not_vote() -> None:
    """A frozen network, however large, tells nothing about the part that was trained."""
    result = scan_of(row("x", still(1_000_000)), row("y", turned(0.5, 1000)))
    assert ("distant", 0.5) == kinship(result)


def test_small_keys_do_not_vote_beside_large_ones() -> None:
    """Below 1000 elements chance can give any cosine: gains and biases are left out."""
    gains = [row("x", turned(0.99, 999)) for _ in range(9)]
    assert "unrelated" == kinship(scan_of(*gains, row("y", turned(0.0, 1000))))[0]
    assert (None, None) == kinship(scan_of(*gains, row("y", still(1000))))
    assert (None, None) == kinship(scan_of(*gains))  # and alone they tell nothing


def test_what_does_not_count_does_not_vote() -> None:
    """EMA copies and schedules say nothing, however many elements they have."""
    result = scan_of(row("x", turned(0.95)), row("y", turned(0.0, 90_000), part="ema", counted=False))
    assert "fine-tune" == kinship(result)[0]


def test_elements_vote_not_keys() -> None:
    """One matrix of 10,000 elements outweighs three of 1000, whatever the lengths of the vectors."""
    small = [row("x", turned(0.95, 1000, scale=50.0)) for _ in range(3)]
    assert ("unrelated", 0.0) == kinship(scan_of(*small, row("y", turned(0.0, 10_000))))
    assert "fine-tune" == kinship(scan_of(*small, row("y", turned(0.0, 2_900))))[0]


@settings(derandomize=True, deadline=None)
@given(
    keys=st.lists(
        st.tuples(st.floats(-1, 1), st.sampled_from([1000, 1001, 2500, 7000])), min_size=1, max_size=9
    )
)
def test_the_median_is_that_of_the_elements(keys: list[tuple[float, int]]) -> None:
    """As if every element held its key's cosine: sort them all and take the middle one."""
    sums = [turned(value, numel) for value, numel in keys]
    elements = np.sort(np.concatenate([np.full(s.numel, cosine(s)) for s in sums]))
    expected = elements[(elements.size - 1) // 2]
    assert expected == kinship(scan_of(*(row("x", s) for s in sums)))[1]


@pytest.mark.parametrize(
    ("value", "words"), [(0.97, "relatives"), (0.3, "distant relatives"), (0.01, "trained apart")]
)
def test_the_first_finding_is_the_kinship_and_its_cosine(value: float, words: str) -> None:
    """The sentence carries the number that it rests on, as people round it."""
    first = findings(scan_of(row("x", turned(value))))[0]
    assert words == first.text.partition(":")[0]
    assert f"{value:.2f}" in first.text
    assert ("cosine", "") == (first.statistic, first.selector)
    assert first.value == pytest.approx(value, abs=1e-12)


def test_models_trained_apart_are_not_to_be_merged() -> None:
    """The sentence that spares a reader a pointless merge; relatives do not get it."""
    assert "merging them is pointless" in findings(scan_of(row("x", turned(0.0))))[0].text
    for value in (0.95, 0.5):
        assert "pointless" not in findings(scan_of(row("x", turned(value))))[0].text


def test_equal_models_have_one_finding() -> None:
    """Nothing changed: that, and no sentence about what moved most or what did not."""
    expected = [Finding("identical: the two models hold the same values", "changed_fraction", 0.0, "")]
    assert expected == findings(scan_of(row("x", still()), row("y", still())))


def test_an_undefined_kinship_has_no_value() -> None:
    """The finding says that it cannot be told; the number is None and none is in the sentence."""
    first = findings(scan_of(row("x", UNDIRECTED)))[0]
    assert ("cosine", None) == (first.statistic, first.value)
    assert ["1000"] == re.findall(r"\d+", first.text)  # the elements that a key must have


def test_what_moved_most_is_named_with_its_numbers() -> None:
    """The group with the largest relative change, by how much, and its share of all change."""
    rows = [row("t/attn2", turned(0.5, 2000)), row("t/ff", turned(0.875, 8000)), row("still", still())]
    (finding,) = [f for f in findings(scan_of(*rows)) if f.statistic == "relative_change"]
    change = np.sqrt(2 * 0.5)  # of two vectors of equal length at this cosine
    share = 2 * 0.5 * 2000 / (2 * 0.5 * 2000 + 2 * 0.125 * 8000)
    assert (
        f"attn2 moved most, by {change:.2g} of its norm; it holds {share:.0%} of all change" == finding.text
    )
    assert finding.value == pytest.approx(change, rel=1e-12)
    assert "component:t/attn2" == finding.selector


def test_one_group_alone_did_not_move_most() -> None:
    """Where only one group changed there is nothing to compare it with."""
    result = scan_of(row("attn2", turned(0.5)), row("ff", still()))
    assert [] == [f.text for f in findings(result) if "moved most" in f.text]


def test_parts_that_did_not_change_are_counted() -> None:
    """A frozen VAE is named with its keys, and its selector hits exactly those."""
    rows = [row("x", turned(0.5)), *(row(f"v{i}", still(), part="vae", block="VAE") for i in range(3))]
    result = scan_of(*rows)
    (finding,) = [f for f in findings(result) if f.statistic == "changed_fraction"]
    assert "nothing changed in vae (3 keys" in finding.text
    assert 0.0 == finding.value
    assert result.keys[1:] == select(finding.selector, rows=result.keys, blocks=result.blocks)


def test_components_that_did_not_change_are_selected_alone() -> None:
    """A frozen `norm`: its selector leaves out the norm inside the VAE's attention, which moved."""
    rows = [
        row("norm", still()),
        row("ff", turned(0.5)),
        row("mid/attn_1/norm", turned(0.7), part="vae", block="VAE"),
    ]
    result = scan_of(*rows)
    (finding,) = [f for f in findings(result) if f.statistic == "changed_fraction"]
    assert "nothing changed in norm (1 key," in finding.text
    assert result.keys[:1] == select(finding.selector, rows=result.keys, blocks=result.blocks)


def test_a_part_of_nan_did_not_stay_the_same() -> None:
    """A VAE that became NaN has no changed position that could be compared, and yet it changed."""
    result = scan_of(row("x", turned(0.5)), row("v", NO_POSITION, part="vae", block="VAE"))
    assert [] == [f.text for f in findings(result) if "nothing changed" in f.text]


def test_equal_values_in_another_dtype_are_not_equal_bits() -> None:
    """A VAE that was cast without loss holds the same values, in other bits."""
    result = scan_of(row("x", turned(0.5)), row("v", still(), dtype_b="F16", part="vae", block="VAE"))
    assert [] == [f.text for f in findings(result) if "bit for bit" in f.text]


@pytest.mark.parametrize("side", ["a", "b"])
def test_nan_and_inf_are_found_on_either_side(side: str) -> None:
    """How many there are, in which key, in how many more; keys outside the totals included."""
    bad = replace(turned(0.95), **{f"nonfinite_{side}": 1234})
    rows = [row("fine", turned(0.95)), row("bad", bad), row("ema", bad, part="ema", counted=False)]
    (finding,) = [f for f in findings(scan_of(*rows)) if f.statistic.startswith("nonfinite")]
    assert (f"nonfinite_{side}", 2468.0) == (finding.statistic, finding.value)
    assert finding.text.startswith(f"{side.upper()} holds 2,468 values that are NaN or Inf, in 'bad.1'")
    assert "1 more key" in finding.text


MIXTURES: Sequence[Sequence[KeyScan]] = [
    [row("x", turned(0.0)), row("y", turned(0.95, 5000)), row("v", still(), part="vae")],
    [row("x", UNDIRECTED), row("y", still())],
    [row("x", NO_POSITION), row("y", turned(0.3))],
    [row("x", Sums(1, 1, 1, changed=1, sum_aa=1e-300, sum_bb=1.0, sum_dd=1.0)), row("y", turned(0.3, 3))],
]


@pytest.mark.parametrize("rows", MIXTURES)
def test_every_finding_has_a_known_statistic_and_a_working_selector(rows: Sequence[KeyScan]) -> None:
    """Whoever acts on a finding can use its selector; its statistic is one that the tables have."""
    result = scan_of(*rows)
    found = findings(result)
    assert len(found) >= 1
    for finding in found:
        assert finding.statistic in {*STATISTICS, "count"}
        if finding.selector:
            assert select(finding.selector, rows=result.keys, blocks=result.blocks)


def test_a_replaced_part_is_not_two_models_trained_apart() -> None:
    """Less than half of all elements changed: the sentence says where, and that the rest is identical."""
    unet = row("x", still(9000))
    (first, *_) = findings(scan_of(unet, row("v", turned(0.0, 8999), part="vae", block="VAE")))
    assert first.text.startswith("what changed (1 of 2 keys, in vae) was replaced or trained apart")
    assert "the rest of the weights is identical" in first.text
    (first, *_) = findings(scan_of(unet, row("v", turned(0.0, 9000), part="vae", block="VAE")))
    assert first.text.startswith("trained apart: ")
