"""What did not change, or only by rounding, is named and selected, and nothing is said twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.findings import findings
from analyzer.formulas import changed_fraction
from analyzer.measures import Sums

sys.path.append(str(Path(__file__).parent))
from measured import TEN_BLOCKS, hit, moved, rounded, row, said, scan_of, still, turned

NO_POSITION = Sums(1000, 0, 0, nonfinite_b=1000, nonfinite_differs=1000)  # b is all NaN


def test_parts_that_did_not_change_are_counted() -> None:
    """A frozen VAE is named with its keys, and its selector hits exactly those."""
    scan = scan_of(row("x", turned(0.5)), *(row(f"v{i}", still(), part="vae", block="VAE") for i in range(3)))
    (found,) = said(scan, "nothing changed")
    assert "nothing changed in vae (3 keys, equal values)" == found.text
    assert ("changed_fraction", 0.0, "vae") == (found.statistic, found.value, found.selector)
    assert ["v0.1", "v1.2", "v2.3"] == hit(scan, found.selector)


@pytest.mark.parametrize(("changed", "count"), [(0, 1), (1, 0)])
def test_one_changed_number_is_a_change(changed: int, count: int) -> None:
    """Of a part of a million of them."""
    part = replace(still(1_000_000), changed=changed, sum_dd=float(changed))
    scan = scan_of(row("x", turned(0.5)), row("v", part, part="vae", block="VAE"))
    assert count == len(said(scan, "nothing changed in vae"))


def test_components_that_did_not_change_are_selected_alone() -> None:
    """A frozen `norm`: its selector leaves out the norm inside the VAE's attention, which moved."""
    rows = [
        row("norm", still()),
        row("ff", turned(0.5)),
        row("mid/attn_1/norm", turned(0.7), part="vae", block="VAE"),
    ]
    scan = scan_of(*rows)
    (found,) = said(scan, "nothing changed in norm (1 key,")
    assert ["norm.0"] == hit(scan, found.selector)


def test_a_part_of_nan_did_not_stay_the_same() -> None:
    """A VAE that became NaN has no changed position that could be compared, and yet it changed."""
    scan = scan_of(row("x", turned(0.5)), row("v", NO_POSITION, part="vae", block="VAE"))
    assert [] == said(scan, "nothing changed")


def test_equal_values_in_another_dtype_are_said_to_be_that() -> None:
    """A VAE that was cast without loss holds the same values, in other bits."""
    vae = replace(row("v", still(), part="vae", block="VAE"), dtype_b="F16")
    (found,) = said(scan_of(row("x", turned(0.5)), vae), "nothing changed")
    assert found.text.endswith("(1 key, equal values, stored in another dtype)")


def test_where_few_changed_they_are_named_instead() -> None:
    """Four of nine components; the selector hits those, and so does the number."""
    changed = [row(f"x{n}", moved(0.1)) for n in range(4)]
    quiet = [row(f"y{n}", still()) for n in range(5)]
    scan = scan_of(*changed, *quiet)
    (found,) = said(scan, "of the categories")
    assert (
        "of the categories only x0, x1, x2 and x3 changed; nothing changed in the 5 others (5 keys)"
    ) == found.text
    assert ["x0.0", "x1.1", "x2.2", "x3.3"] == hit(scan, found.selector)
    assert changed_fraction(changed[0].sums) == found.value == 1.0


def test_where_more_changed_those_that_did_not_are_named() -> None:
    """Five of eleven are more than a sentence holds; four of eight are as many as did not."""
    for moving, quiet in ((5, 6), (4, 4)):
        rows = [row(f"x{n}", moved(0.1)) for n in range(moving)]
        scan = scan_of(*rows, *(row(f"y{n}", still()) for n in range(quiet)))
        (found,) = said(scan, "nothing changed in")
        assert found.text.startswith("nothing changed in y0, y1, y2 and")
        assert [f"y{n}.{moving + n}" for n in range(quiet)] == hit(scan, found.selector)


def test_what_was_rounded_did_change() -> None:
    """Of the categories only x is not what is said where y was rounded."""
    rows = [row("x", moved(0.1)), row("y", rounded()), *(row(f"z{n}", still()) for n in range(5))]
    assert [] == said(scan_of(*rows), "of the categories only")


@pytest.mark.parametrize(("news", "count"), [(1, 0), (2, 1)])
def test_a_component_of_which_little_is_news_is_left_out(news: int, count: int) -> None:
    """19 keys in the VAE, which stood still, and one more outside are a twentieth; two are a tenth."""
    inside = [row("norm", still(), part="vae", block="VAE") for _ in range(20 - news)]
    scan = scan_of(
        *inside, *(row("norm", still()) for _ in range(news)), row("x", turned(0.5)), row("y", turned(0.5))
    )
    assert 1 == len(said(scan, "nothing changed in vae"))
    assert count == len(said(scan, "nothing changed in norm"))


def test_blocks_that_follow_each_other_are_a_range() -> None:
    """Six blocks of ten stood still: named as they are selected, and the selector hits their keys."""
    rows = [
        row("x", moved(0.1) if number in (0, 1, 2, 8, 9) else still(), block=block)
        for number, block in enumerate(TEN_BLOCKS)
    ]
    scan = scan_of(*rows)
    (found,) = said(scan, "nothing changed in IN")
    assert "IN03..IN07" == found.selector
    assert found.text.startswith("nothing changed in IN03..IN07 (5 keys")
    assert [f"x.{number}" for number in range(3, 8)] == hit(scan, found.selector)


def test_kinds_that_did_not_change_are_named() -> None:
    """A LoRA leaves biases alone."""
    scan = scan_of(row("x", moved(0.1)), row("x", still(), kind="bias"), row("y", moved(0.1)))
    (found,) = said(scan, "nothing changed in bias")
    assert ["x.1"] == hit(scan, found.selector)


def test_a_value_that_is_no_number_is_no_change_of_the_others() -> None:
    """One NaN alone: nothing is said of what changed. Beside a change, what did not is named."""
    broken = replace(still(999), numel=1000, nonfinite_b=1, nonfinite_differs=1)
    rows = [row("nan", broken), *(row(f"y{n}", still()) for n in range(5))]
    scan = scan_of(*rows, row("x", still()))
    first, *others = [finding.text for finding in findings(scan)]
    assert first.startswith("all weights that could be compared are equal")
    assert [] == [text for text in others if "NaN" not in text]
    scan = scan_of(*rows, row("x", moved(0.1)))
    assert [] == said(scan, "of the categories only")
    assert 1 == len(said(scan, "nothing changed in y0, y1, y2 and 2 more (5 keys, equal values)"))


def test_rounding_beside_a_value_that_is_no_number_is_said_once() -> None:
    """By the first sentence, not again of the part."""
    broken = replace(still(999), numel=1000, nonfinite_b=1, nonfinite_differs=1)
    scan = scan_of(row("nan", broken), row("v", rounded(), part="vae", block="VAE"))
    assert 1 == len(said(scan, "only rounding differs"))


# --- rounding in a part or a component ---


def test_a_part_that_was_only_rounded_is_named() -> None:
    """With its verdicts, how it compares with the floor, and a selector that hits it."""
    scan = scan_of(
        row("x", moved(0.1)),
        row("v", rounded(), part="vae", block="VAE"),
        row("v", still(), part="vae", block="VAE"),
    )
    (found,) = said(scan, "only rounding differs")
    assert (
        "in vae only rounding differs (1 key equal after a cast, 1 identical); the difference is 1.00 times "
        "what rounding alone would leave"
    ) == found.text
    assert found.value == pytest.approx(1.0, rel=1e-12)
    assert ["v.1", "v.2"] == hit(scan, found.selector)


@pytest.mark.parametrize(("factor", "count"), [(2 - 1e-9, 1), (2 + 1e-9, 0)])
def test_more_than_rounding_is_a_change(factor: float, count: int) -> None:
    """Twice the floor is the threshold, in a component of a part that changed."""
    sums = rounded(cast=False)
    scan = scan_of(row("x", moved(0.1)), row("y", replace(sums, sum_dd=sums.sum_dd * factor**2)))
    found = said(scan, "in y only rounding differs")
    assert count == len(found)
    for each in found:
        assert each.value == pytest.approx(factor, rel=1e-6)
        assert ["y.1"] == hit(scan, each.selector)


def test_rounding_without_a_floor_is_counted() -> None:
    """Two casts from and to storage without a spacing: the number is how many keys there are."""
    scan = scan_of(row("x", moved(0.1)), row("y", replace(rounded(), sum_ulp_sq=0.0)))
    (found,) = said(scan, "in y only rounding differs (1 key equal after a cast)")
    assert ("count", 1.0) == (found.statistic, found.value)


def test_an_equal_component_was_not_rounded() -> None:
    """Nothing is said of rounding where nothing differs, nor of a part twice."""
    assert [] == said(scan_of(row("x", moved(0.1)), row("y", still())), "rounding")
    scan = scan_of(row("x", moved(0.1)), row("v", rounded(), part="vae", block="VAE"))
    assert 1 == len(said(scan, "only rounding differs"))


def test_a_component_that_is_called_like_a_part_is_told_from_it() -> None:
    """By the word that selects it, if it holds other keys as well."""
    both = [row("vae", rounded(), part="vae"), row("vae", rounded(), part="text_encoder")]
    scan = scan_of(*both, row("ff", moved(0.1), part="text_encoder"))
    assert 1 == len(said(scan, "in vae only rounding differs (1 key "))
    (found,) = said(scan, "in component:vae only rounding differs (2 keys ")
    assert ["vae.0", "vae.1"] == hit(scan, found.selector)
    both = [row("head", still(), part=part) for part in ("head", "lm")]
    scan = scan_of(*both, row("ff", moved(0.1), part="lm"), row("norm", moved(0.1), part="lm"))
    assert 1 == len(said(scan, "nothing changed in head (1 key,"))
    (found,) = said(scan, "nothing changed in component:head (2 keys,")
    assert ["head.0", "head.1"] == hit(scan, found.selector)


def test_a_component_that_is_a_whole_part_keeps_its_name() -> None:
    """There is nothing to tell it from."""
    parts = [row(f"head{n}", moved(0.1), part=f"head{n}") for n in range(8)]
    texts = " ".join(finding.text for finding in findings(scan_of(*parts, row("lm_head", moved(0.4)))))
    assert "lm_head moved most" in texts
    scan = scan_of(*parts, row("lm_head", moved(0.4), part="lm_head"))
    assert texts == " ".join(finding.text for finding in findings(scan))  # and not "component:lm_head"
