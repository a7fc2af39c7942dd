"""The block and the key that moved unlike the others, what is no number, and what is outside the totals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest

from analyzer.formulas import relative_change
from analyzer.measures import Sums
from analyzer.records import KeyScan

sys.path.append(str(Path(__file__).parent))
from measured import TEN_BLOCKS, hit, moved, row, said, scan_of, still, turned

# Deviations of the logarithm around the middle: with any tenth one the median is 0 and the MAD 0.1.
DEVIATIONS = (-0.1, -0.1, -0.1, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1)
MIDDLE = 0.1


def blocks(deviations: Sequence[float]) -> list[KeyScan]:
    """One key in each block, that moved by a factor of the middle."""
    return [
        row("attn2", moved(MIDDLE * exp(deviation)), block=block)
        for block, deviation in zip(TEN_BLOCKS, deviations, strict=False)
    ]


@pytest.mark.parametrize(
    ("deviation", "count"),
    [(1.05, 1), (1.04, 0), (-1.05, 1), (-1.04, 0)],
)
def test_a_block_beyond_what_chance_gives_stands_out(deviation: float, count: int) -> None:
    """Of nine others of which the MAD is 0.1: 7.06 · 1.4826 · 0.1 is 1.047."""
    scan = scan_of(*blocks([*DEVIATIONS, deviation]))
    found = said(scan, "block IN09 stands out")
    assert count == len(found)
    for each in found:
        assert each.value == pytest.approx(MIDDLE * exp(deviation), rel=1e-12)
        assert ["attn2.9"] == hit(scan, each.selector)
        assert "IN09" == each.selector


@pytest.mark.parametrize(("factor", "count"), [(1.5 - 1e-3, 0), (1.5 + 1e-3, 1)])
def test_a_block_must_differ_by_half(factor: float, count: int) -> None:
    """Where all others moved alike, the score is large, and the factor decides."""
    scan = scan_of(*blocks([0.0] * 9 + [log(factor)]))
    assert count == len(said(scan, "stands out: it moved by 15% of its length, 1.50 times as far"))


@pytest.mark.parametrize(("others", "count"), [(6, 0), (7, 1)])
def test_eight_blocks_must_have_changed(others: int, count: int) -> None:
    """Of fewer no spread is known; those that stood still are none of them."""
    rows = blocks([0.0] * others + [log(3)])
    quiet = [row("attn2", still(), block=block) for block in TEN_BLOCKS[others + 1 :]]
    assert count == len(said(scan_of(*rows, *quiet), "stands out"))


def test_a_block_is_compared_by_its_components() -> None:
    """One without attention, which moved most everywhere, is not odd for moving less."""
    rows = [row("attn2", moved(0.5), block=block) for block in TEN_BLOCKS[:9]]
    rows += [row("ff", moved(0.05), block=block) for block in TEN_BLOCKS]
    assert [] == said(scan_of(*rows), "block IN09 stands out")


# --- keys ---


def keys(deviations: Sequence[float]) -> list[KeyScan]:
    """Keys of one component outside the blocks, that moved by a factor of the middle."""
    sums = [moved(MIDDLE * exp(deviation), 90_000) for deviation in deviations]
    return [row("attn2", each, block="BASE") for each in sums]


@pytest.mark.parametrize(("deviation", "count"), [(1.05, 1), (1.04, 0), (-1.05, 1), (-1.04, 0)])
def test_a_key_beyond_its_category_stands_out(deviation: float, count: int) -> None:
    """Among ten keys 7.06 is the limit; the selector hits that key."""
    scan = scan_of(*keys([*DEVIATIONS, deviation]))
    found = said(scan, "attn2.9 stands out among the weights of attn2")
    assert count == len(found)
    for each in found:
        assert each.value == pytest.approx(MIDDLE * exp(deviation), rel=1e-12)
        assert ["attn2.9"] == hit(scan, each.selector)
        assert f"a robust z-score of {deviation / 0.14826:+.1f}"[:-2] in each.text


@pytest.mark.parametrize(("cosine", "count"), [(0.0, 0), (0.99, 1)])
def test_in_a_part_that_was_replaced_no_key_and_no_block_stands_out(cosine: float, count: int) -> None:
    """Gains there are too small to tell by themselves; what their part is called holds for them too."""
    part = {"part": "vae", "block": "VAE"}
    odd = [replace(r, labels=replace(r.labels, part="vae")) for r in keys([*DEVIATIONS, 2.0])]
    gains = [replace(r, sums=moved(relative_change(r.sums) or 0.0, 900)) for r in odd]
    rest = [row("conv", turned(cosine, 90_000), **part), row("x", turned(0.99, 900_000))]
    assert count == len(said(scan_of(*gains, *rest), "stands out among the weights of attn2"))
    layers = [replace(r, labels=replace(r.labels, part="vae")) for r in blocks([*DEVIATIONS, 2.0])]
    small = [replace(r, sums=moved(relative_change(r.sums) or 0.0, 900)) for r in layers]
    assert count == len(said(scan_of(*small, *rest), "block IN09 stands out"))


def test_several_keys_that_stand_out_are_counted() -> None:
    """Three are selected, of four only the first."""
    scan = scan_of(*keys([*DEVIATIONS, *DEVIATIONS, 3.0, 4.0, 5.0]))
    (found,) = said(scan, "attn2.20 stands out")
    assert found.text.endswith("; 2 more keys stand out")
    assert ["attn2.18", "attn2.19", "attn2.20"] == hit(scan, found.selector)
    scan = scan_of(*keys([*DEVIATIONS, *DEVIATIONS, 3.0, 4.0, 5.0, 6.0]))
    (found,) = said(scan, "attn2.21 stands out")
    assert ["attn2.21"] == hit(scan, found.selector)


def test_among_strangers_no_key_stands_out() -> None:
    """Of what was trained apart it says nothing how far each key moved."""
    rows = [row("x", turned(0.0, 1000, scale=1.0)) for _ in range(9)]
    odd = replace(turned(0.0), sum_bb=1e6, sum_dd=1e6)
    assert [] == said(scan_of(*rows, row("x", odd)), "stands out")


# --- values that are no numbers ---


@pytest.mark.parametrize("side", ["a", "b"])
def test_nan_and_inf_are_found_on_either_side(side: str) -> None:
    """How many there are, in which key, in how many more; keys outside the totals included."""
    bad = replace(turned(0.95), **{f"nonfinite_{side}": 1234})
    rows = [row("fine", turned(0.95)), row("bad", bad), row("ema", bad, part="ema", counted=False)]
    scan = scan_of(*rows)
    (found,) = said(scan, "NaN or Inf")
    assert (f"nonfinite_{side}", 2468.0) == (found.statistic, found.value)
    assert found.text.startswith(f"{side.upper()} holds 2,468 values that are NaN or Inf, in 'bad.1'")
    assert "1 more key" in found.text
    assert ["bad.1", "ema.2"] == hit(scan, found.selector)


@pytest.mark.parametrize(("count", "selected"), [(3, True), (4, False)])
def test_many_keys_with_nan_have_no_selector(count: int, selected: bool) -> None:
    """Four keys one by one are more than a reader copies."""
    bad = replace(turned(0.95), nonfinite_b=1)
    (found,) = said(scan_of(*(row("x", bad) for _ in range(count))), "NaN or Inf")
    assert selected is bool(found.selector)


def test_one_value_is_enough_and_none_is_none() -> None:
    """The first NaN speaks."""
    assert [] == said(scan_of(row("x", turned(0.95))), "NaN")
    (found,) = said(scan_of(row("x", replace(turned(0.95), nonfinite_a=1))), "NaN")
    assert "A holds 1 value that is NaN or Inf, in 'x.0': left out" == found.text


# --- outside the totals ---


def ids(changed: int, name: str = "position_ids") -> KeyScan:
    """An integer table of CLIP."""
    sums = Sums(77, 77, 0, changed=changed)
    labels = {"part": "text_encoder", "block": "BASE", "kind": "other", "counted": False}
    return row(f"embeddings/{name}", sums, shape=(1, 77), **labels)


@pytest.mark.parametrize(("changed", "count"), [(0, 0), (1, 1)])
def test_position_ids_that_changed_are_named_with_their_way_out(changed: int, count: int) -> None:
    """One of 77 is enough."""
    scan = scan_of(row("x", moved(0.1)), ids(changed))
    scan = replace(scan, keys=(scan.keys[0], replace(scan.keys[1], key="t.embeddings.position_ids")))
    found = said(scan, "outside the totals")
    assert count == len(found)
    for each in found:
        assert each.text.startswith(
            "outside the totals position_ids changed too (1 key); merge --position-ids"
        )
        assert ("count", 1.0, "position_ids") == (each.statistic, each.value, each.selector)
        assert ["t.embeddings.position_ids"] == hit(scan, each.selector)


def test_other_tables_have_no_such_way_out() -> None:
    """A schedule is named, and selected by what hits it alone."""
    scan = scan_of(row("x", moved(0.1)), ids(3, "betas"), ids(0, "betas"))
    keys = ("x", "first.betas", "second.betas")
    scan = replace(scan, keys=tuple(replace(r, key=key) for r, key in zip(scan.keys, keys, strict=True)))
    (found,) = said(scan, "outside the totals betas changed too (1 key)")
    assert "reset" not in found.text
    assert ["first.betas"] == hit(scan, found.selector)


def test_copies_that_changed_are_counted_apart() -> None:
    """EMA copies by their part."""
    copy = row("x", moved(0.1), part="ema", counted=False)
    scan = scan_of(row("x", moved(0.1)), copy, copy)
    (found,) = said(scan, "averaged copies")
    assert ("count", 2.0) == (found.statistic, found.value)
    assert ["x.1", "x.2"] == hit(scan, found.selector)
