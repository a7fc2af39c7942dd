"""The first sentence: what the models are to each other, and never more than the numbers carry."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyzer.findings import findings
from analyzer.measures import Sums
from analyzer.records import Finding, KeyScan, Scan, ShapeMismatch
from analyzer.verdicts import verdict

sys.path.append(str(Path(__file__).parent))
from measured import hit, measure, moved, rounded, row, said, scan_of, still, turned


def scaled(factor: float, numel: int = 1000) -> Sums:
    """A vector and its multiple."""
    square = float(numel)
    more = {"sum_bb": square * factor**2, "sum_ab": square * factor, "sum_dd": square * (factor - 1) ** 2}
    return replace(turned(1.0, numel), **more)  # type: ignore[arg-type]  # fields of Sums


UNDIRECTED = Sums(1000, 1000, 1000, changed=1000, sum_bb=1000.0, sum_dd=1000.0)  # a is all zeros
NO_POSITION = Sums(1000, 0, 0, nonfinite_b=1000)  # b is all NaN: no position can be compared


def first(scan: Scan) -> Finding:
    return findings(scan)[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.97, "relatives"),
        (0.9, "relatives"),
        (0.9 - 1e-9, "distant relatives"),
        (0.1 + 1e-9, "distant relatives"),
        (0.1 - 1e-9, "trained apart"),
        (0.01, "trained apart"),
    ],
)
def test_the_first_finding_is_the_kinship_and_its_cosine(value: float, words: str) -> None:
    """From either side of both thresholds; the sentence carries the number that it rests on."""
    found = first(scan_of(row("x", turned(value, 2500))))
    assert words == found.text.partition(":")[0]
    assert ("cosine", "") == (found.statistic, found.selector)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert "chance alone gives 0 ± 0.02" in found.text


@pytest.mark.parametrize(("value", "text"), [(0.97, "0.970"), (0.3, "0.300"), (0.01, "0.010")])
def test_the_cosine_stands_in_the_sentence(value: float, text: str) -> None:
    """As people round it."""
    assert f"is {text} " in first(scan_of(row("x", turned(value)))).text


def test_models_trained_apart_are_not_to_be_merged() -> None:
    """The sentence that spares a reader a pointless merge; relatives do not get it."""
    assert "merging them is pointless" in first(scan_of(row("x", turned(0.0)))).text
    for value in (0.95, 0.5):
        assert "pointless" not in first(scan_of(row("x", turned(value)))).text


def test_equal_models_have_one_finding() -> None:
    """Nothing changed: that, and no sentence about what moved most or what did not."""
    expected = [Finding("identical: the two models hold the same values", "changed_fraction", 0.0, "")]
    assert expected == findings(scan_of(row("x", still()), row("y", still())))


@pytest.mark.parametrize(
    "scan",
    [
        scan_of(),
        scan_of(row("x", NO_POSITION)),
        scan_of(row("ids", Sums(77, 77, 0, changed=3), kind="other", counted=False)),
        scan_of(row("x", still()), row("y", turned(0.5), part="ema", counted=False)),
        scan_of(row("x", still()), row("y", turned(0.5), part="other", counted=False)),
        replace(scan_of(row("x", still())), only_in_a=("lora",)),
        replace(scan_of(row("x", still())), only_in_b=("lora",)),
        replace(scan_of(row("x", still())), shape_mismatch=(ShapeMismatch("conv", (4, 9), (4, 4)),)),
    ],
    ids=["no keys", "NaN", "integers", "copies", "tables", "only in A", "only in B", "shapes"],
)
def test_what_was_not_compared_is_not_the_same(scan: Scan) -> None:
    """Nobody may read that two models hold the same values unless all of them were seen."""
    assert [] == said(scan, "the two models hold the same values")


def test_identical_is_said_of_whole_models_only() -> None:
    """Of 20 keys, 2 without a partner are a tenth and do not matter; 3 do, and so does a NaN."""
    rows = [row(f"x.{n}", still()) for n in range(20)]

    def text(**lists: tuple[str, ...]) -> str:
        return first(replace(scan_of(*rows), **lists)).text

    assert text(only_in_a=("betas", "alphas")).startswith("identical: all weights that could be compared")
    assert text(only_in_a=("betas", "alphas", "lora")).startswith("all weights that could be compared")
    assert text(only_in_b=tuple("abc")).startswith("all weights that could be compared")
    broken = row("y", replace(still(), numel=still().numel + 1, nonfinite_b=1))
    assert first(scan_of(*rows, broken)).text.startswith("all weights that could be compared")


def test_what_stands_beside_equal_weights_is_counted() -> None:
    """Each list with its number."""
    scan = scan_of(row("x", still()), row("y", turned(0.5), part="ema", counted=False))
    text = first(replace(scan, only_in_a=("p", "q"), only_in_b=("r",))).text
    assert text.endswith("keys: 2 only in A, 1 only in B, 1 outside the totals that changed")


def test_an_undefined_kinship_has_no_value() -> None:
    """The finding says that it cannot be told; the number is None and none is in the sentence."""
    found = first(scan_of(row("x", UNDIRECTED)))
    assert ("cosine", None) == (found.statistic, found.value)
    assert ["1,000"] == re.findall(r"[\d,]*\d", found.text)  # the elements that a key must have
    for scan in (scan_of(), scan_of(row("x", Sums()))):
        assert Finding("kinship cannot be told: no weights could be compared", "cosine", None, "") == first(
            scan
        )


def test_what_is_equal_tells_where_what_changed_is_too_small() -> None:
    """Norms of 999 elements changed, matrices of 1000 did not: relatives. With matrices of 999: who knows."""
    norms = [row("norm", turned(0.99, 999), shape=(999,)) for _ in range(4)]
    found = first(scan_of(*norms, row("x", still(1000)), row("y", still(1000))))
    assert ("count", 2.0) == (found.statistic, found.value)
    assert "relatives: nothing changed in 2 keys of 1,000 elements and more; the 4 that" in found.text
    assert "cannot be told" in first(scan_of(*norms, row("x", still(999)))).text
    assert "by more than rounding in 1 key" in first(scan_of(*norms, row("x", rounded(1000)))).text
    assert "cannot be told" in first(scan_of(row("z", UNDIRECTED), row("x", still(1000)))).text


def test_gains_alone_are_no_evidence() -> None:
    """A cosine of keys with one axis is told as it is, and that it says little."""
    gain = turned(0.99, 4096)
    assert "gains and biases" in first(scan_of(row("norm", gain, shape=(4096,)))).text
    assert "gains and biases" not in first(scan_of(row("norm", gain))).text


def test_a_replaced_part_is_not_two_models_trained_apart() -> None:
    """Less than half of all elements changed: the sentence says where, and that the rest is identical."""
    unet = row("x", still(9000))
    scan = scan_of(unet, row("v", turned(0.0, 8999), part="vae", block="VAE"))
    found = first(scan)
    assert found.text.startswith("what changed (1 of 2 keys, in vae) was replaced or trained apart")
    assert "the rest of the weights is identical" in found.text
    assert ["v.1"] == hit(scan, found.selector)
    found = first(scan_of(unet, row("v", turned(0.0, 9000), part="vae", block="VAE")))
    assert found.text.startswith("trained apart: ")


def test_a_replaced_head_is_named_as_such() -> None:
    """In a part of which the rest did not change, the component is named, and selected alone."""
    scan = scan_of(row("layers", still(9000)), row("head", turned(0.0, 2000)))
    found = first(scan)
    assert found.text.startswith("what changed (1 of 2 keys, in head) was replaced or trained apart")
    assert ["head.1"] == hit(scan, found.selector)


def test_the_rest_may_be_rounded() -> None:
    """A swapped VAE in a model that was cast: the rest is not identical, and not changed."""
    scan = scan_of(row("x", rounded(9000)), row("v", turned(0.0, 5000), part="vae", block="VAE"))
    assert "in the rest only rounding differs" in first(scan).text
    assert "trained apart: 1 key, cosine 0.000" in first(scan).text


# --- only rounding ---


def test_a_model_and_its_fp16_save_differ_by_rounding_only() -> None:
    """What was stored as what, the counts of the verdicts, and how the difference compares with the floor."""
    rows = [row("x", rounded(1000)), row("y", rounded(2000)), row("z", still())]
    scan = scan_of(*(replace(r, dtype_b="F16") for r in rows))
    found = first(scan)
    assert (
        "only rounding differs: B is A stored as fp16 (2 keys equal after a cast, 1 identical); the "
        "difference is 1.00 times what rounding alone would leave"
    ) == found.text
    assert ("change_to_rounding", "") == (found.statistic, found.selector)
    assert found.value == pytest.approx(1.0, rel=1e-12)
    mirrored = scan_of(*(replace(r, dtype_a="F16") for r in rows))
    assert first(mirrored).text.startswith("only rounding differs: A is B stored as fp16")


def test_rounding_that_is_no_cast_does_not_say_who_was_stored_how() -> None:
    """Two models, each rounded in its own way; without a spacing there is no floor to compare with."""
    found = first(scan_of(row("x", rounded(cast=False)), row("y", rounded())))
    assert "the two models hold the same weights, rounded differently" in found.text
    found = first(scan_of(row("x", replace(rounded(), sum_ulp_sq=0.0))))
    assert ("count", 1.0) == (found.statistic, found.value)


def test_rounding_ends_at_twice_the_floor() -> None:
    """At twice what rounding leaves it is rounding, just above it is a change."""
    for factor, expected in ((2.0 - 1e-9, True), (2.0 + 1e-9, False)):
        sums = rounded(cast=False)
        scan = scan_of(row("x", replace(sums, sum_dd=sums.sum_dd * factor**2)))
        assert expected is first(scan).text.startswith("only rounding differs")


# --- where the kinship differs ---


def vae(sums: Sums, *, shape: tuple[int, ...] | None = None) -> KeyScan:
    """A key of the VAE."""
    return row("v", sums, shape=shape, part="vae", block="VAE")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (0.1 - 1e-9, "was replaced or trained apart"),
        (0.1 + 1e-9, "was trained far apart"),
        (0.9 - 1e-9, "was trained far apart"),
        (0.9 + 1e-9, "changed as well"),
    ],
)
def test_a_part_of_another_kinship_is_named(own: float, words: str) -> None:
    """Beside a fine-tuned U-Net, the VAE: by the same thresholds, with its own evidence and selector."""
    scan = scan_of(row("x", turned(0.99, 90_000)), vae(turned(own, 2500)), vae(turned(own, 2500)))
    (found,) = said(scan, words)
    assert found.text.startswith("vae ")
    assert "chance gives 0 ± 0.02" in found.text
    assert found.value == pytest.approx(own, abs=1e-12)
    assert ["v.1", "v.2"] == hit(scan, found.selector)
    assert 1 == len([f for f in findings(scan)[1:] if f.statistic == "cosine"])


def test_a_part_without_matrices_is_no_evidence() -> None:
    """Biases of one axis may have any cosine: nothing is said of the part that has no other keys."""
    rows = [row("x", turned(0.99, 90_000)), vae(turned(0.0, 2500), shape=(2500,))]
    assert [] == said(scan_of(*rows), "replaced or trained apart")


def test_a_fine_tuned_part_in_a_stranger_can_be_merged() -> None:
    """The other way round: the text encoder is the same family, the U-Net is not."""
    scan = scan_of(row("x", turned(0.0, 90_000)), row("t", turned(0.95, 2500), part="text_encoder"))
    (found,) = said(scan, "can be merged")
    assert found.text.startswith("text_encoder (1 key, cosine 0.950, chance gives 0 ± 0.02) was fine-tuned")
    assert ["t.1"] == hit(scan, found.selector)


def test_an_unchanged_vae_was_not_swapped() -> None:
    """One that is equal, or rounded, gets no such sentence; nor does a VAE that is all there is."""
    tuned = row("x", turned(0.99, 90_000))
    for sums in (still(), rounded()):
        assert [] == said(scan_of(tuned, vae(sums)), "changed as well")
    assert [] == said(scan_of(vae(turned(0.95))), "changed as well")


def test_a_head_that_was_trained_anew_is_named() -> None:
    """In a fine-tune, the component whose matrices are strangers; just above the threshold it is none."""
    for own, count in ((0.1 - 1e-9, 1), (0.1 + 1e-9, 0)):
        scan = scan_of(row("layers", turned(0.99, 90_000)), row("head", turned(own, 2500)))
        found = said(scan, "replaced or trained anew")
        assert count == len(found)
        for each in found:
            assert each.text.endswith("while the rest of unet is a fine-tune")
            assert ["head.1"] == hit(scan, each.selector)


@pytest.mark.parametrize(("value", "opposed"), [(-0.1 + 1e-9, False), (-0.1, True), (-1.0, True)])
def test_a_negated_model_is_opposed(value: float, opposed: bool) -> None:
    """From −0.1 down it is no chance that they differ; above, they share no training. Merging is no good."""
    sums = turned(value, 90_000)
    text = first(scan_of(row("x", sums))).text
    assert text.startswith("opposed: the cosine of the one key" if opposed else "trained apart: ")
    assert ("as if B were −A, or nearly" in text) is opposed
    assert ("share no training" in text) is not opposed
    piece = first(scan_of(row("x", sums), row("y", still(900_000)))).text
    assert ("points the other way, as if it were −A" in piece) is opposed
    part = said(scan_of(row("x", turned(0.99, 900_000)), vae(sums)), "take it from one model, whole")
    assert [opposed] == ["points the other way, as if B were −A there" in each.text for each in part]


@pytest.mark.parametrize(("change", "count"), [(0.01 - 1e-9, 0), (0.01 + 1e-9, 1)])
def test_a_rounded_vae_was_not_swapped(change: float, count: int) -> None:
    """Below a hundredth of its length, several times what bf16 and back leaves."""
    scan = scan_of(row("x", moved(0.3, 90_000)), vae(moved(change, 2500)), vae(still(90_000)))
    assert count == len(said(scan, "changed as well"))


@pytest.mark.parametrize("bits", [10, 7], ids=["fp16", "bf16"])
def test_a_vae_that_went_through_half_precision_was_not_swapped(bits: int) -> None:
    """Rounded to as many bits of the significand, and back in fp32: far below a hundredth."""
    w = np.random.default_rng(0).standard_normal((50, 50)).astype(np.float32)
    mantissa, exponent = np.frexp(w)
    low = np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1).astype(np.float32)
    scan = scan_of(row("x", moved(0.3, 90_000)), vae(measure(w, low)))
    assert "vae" in {key.labels.part for key in scan.keys if verdict(key.sums) == "changed"}
    assert [] == said(scan, "changed as well")


@pytest.mark.parametrize(
    ("own", "rest", "count"),
    [
        (scaled(1.1), scaled(1.1), 0),
        (scaled(1.1), scaled(1.12), 0),
        (scaled(1.1), scaled(1.13), 1),
        (moved(0.1), scaled(1.1), 1),
        (scaled(1.1), moved(0.1), 1),
        (moved(0.1), moved(0.1), 1),
    ],
    ids=["all by the same", "within 1.25", "beyond it", "vae not by length", "rest not by length", "tuned"],
)
def test_a_vae_that_was_multiplied_with_the_rest_was_not_swapped(own: Sums, rest: Sums, count: int) -> None:
    """By the same number, all of it; of any other change it is said."""
    assert count == len(said(scan_of(row("x", rest), row("y", rest), vae(own)), "changed as well"))


def test_a_component_of_small_keys_was_not_replaced() -> None:
    """Below 1000 elements, and of one axis, a cosine is chance."""
    layers = row("layers", turned(0.99, 90_000))
    for head in (row("head", turned(0.0, 999)), row("head", turned(0.0, 2500), shape=(2500,))):
        assert [] == said(scan_of(layers, head), "trained anew")


def test_how_far_relatives_moved_is_said_and_of_strangers_it_is_not() -> None:
    """From the cosine of distant relatives on; with how many keys changed."""
    rows = [row("x", moved(0.1, 5000)), row("y", still(5000))]
    (found,) = said(scan_of(*rows), "as a whole")
    assert "as a whole the weights moved by 7.1% of their length; 1 of 2 keys changed" == found.text
    assert found.value == pytest.approx(0.1 / 2**0.5, rel=1e-12)
    for value, count in ((0.1 + 1e-9, 1), (0.1 - 1e-9, 0)):
        assert count == len(said(scan_of(row("x", turned(value))), "as a whole"))
