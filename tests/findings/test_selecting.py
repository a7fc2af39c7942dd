"""The shortest selector hits exactly what it is meant to hit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.findings.selecting import MOST_NAMED, keys_selector, selecting
from analyzer.ranking import Axis
from analyzer.records import KeyScan
from analyzer.vocabulary import MAX_TERM

sys.path.append(str(Path(__file__).parent))
from measured import TEN_BLOCKS, hit, row, scan_of, still

PARTS, KINDS = ("unet", "vae", "text_encoder"), ("weight", "bias")
NAMES = ("attn", "ff", "norm", "conv", "weight", "IN01", "vae")  # some of them stand on two axes


@st.composite
def rows(draw: st.DrawFn) -> KeyScan:
    path = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    counted = draw(st.booleans()) or draw(st.booleans())
    return row(
        "/".join(path),
        still(),
        part=draw(st.sampled_from(PARTS)),
        block=draw(st.sampled_from([*TEN_BLOCKS[:4], "VAE"])),
        kind=draw(st.sampled_from(KINDS)) if counted else "other",
        group="/".join(path[: 1 if path[0] in ("attn", "vae") else 2]),
        counted=counted,
    )


@settings(max_examples=300)
@given(
    keys=st.lists(rows(), min_size=1, max_size=12),
    axis=st.sampled_from(["part", "component", "block", "kind"]),
    data=st.data(),
)
def test_a_selector_hits_the_keys_of_its_groups_and_no_others(
    keys: list[KeyScan], axis: Axis, data: st.DataObject
) -> None:
    """Whatever the labels are: names in several parts, on several axes, paths inside paths."""
    scan = scan_of(*keys)
    label = "group" if axis == "component" else axis
    counted = [each for each in scan.keys if each.labels.counted]
    paths = sorted({getattr(each.labels, label) for each in counted})
    if axis == "block":
        paths = [path for path in paths if path in scan.blocks]
    if not paths:
        return
    chosen = data.draw(st.lists(st.sampled_from(paths), min_size=1, unique=True))
    expected = [each.key for each in counted if getattr(each.labels, label) in chosen]
    assert expected == hit(scan, selecting(scan).groups(axis, chosen))


def test_short_names_are_preferred() -> None:
    """The last segment where it says the same; with its part where another part has it too."""
    rows = [row("blocks/attn2", still()), row("ff", still()), row("norm", still())]
    scan = scan_of(*rows, row("norm", still(), part="vae", group="mid"))
    assert "attn2" == selecting(scan).groups("component", ["blocks/attn2"])
    assert "unet,norm" == selecting(scan).groups("component", ["norm"])
    assert "" == selecting(scan).groups("component", [])


def test_what_is_left_out_is_named_where_that_is_shorter() -> None:
    """Nine of ten components are all but one; two of three are not much shorter that way."""
    scan = scan_of(*(row(f"x{n}", still()) for n in range(10)))
    assert "!x9" == selecting(scan).groups("component", [f"x{n}" for n in range(9)])
    scan = scan_of(*(row(f"x{n}", still()) for n in range(3)))
    assert "x0,x1" == selecting(scan).groups("component", ["x0", "x1"])


def test_blocks_in_a_row_become_a_range() -> None:
    """And a gap makes two of it."""
    scan = scan_of(*(row("x", still(), block=block) for block in TEN_BLOCKS))
    blocks = [TEN_BLOCKS[n] for n in (0, 1, 2, 5, 7, 8)]
    assert "IN00..IN02,IN05,IN07..IN08" == selecting(scan).groups("block", blocks)


def test_a_file_of_strange_names_takes_no_longer() -> None:
    """Thousands of kinds of keys: the exact selector, without trying shorter ones."""
    scan = scan_of(*(row(f"a{n}/b{n}", still()) for n in range(2001)))
    assert "component:a7/b7" == selecting(scan).groups("component", ["a7/b7"])


@pytest.mark.parametrize("key", ["a.b", "a*", "a[0]?", "[!x]", "!a", "part:vae", "Ä.ß", "a/b"])
def test_a_key_is_selected_by_its_own_name(key: str) -> None:
    """Signs of globs stand for themselves, and case matters."""
    others = [row(name, still()) for name in ("axb", "aX", "a0b", "x", "A.B")]
    scan = scan_of(row(key, still()), *others)
    assert [f"{key}.0"] == hit(scan, keys_selector([f"{key}.0"]))


@pytest.mark.parametrize("key", ["a b", "a,b", "a\n", "x" * MAX_TERM])
def test_a_key_that_no_selector_can_name_has_none(key: str) -> None:
    """Blanks and commas end a term, and terms have a length."""
    assert "" == keys_selector([key])
    assert "" == keys_selector(["fine", key])


def test_few_keys_are_named_one_by_one() -> None:
    """Up to three; a longer list nobody reads."""
    keys = [f"k{n}" for n in range(MOST_NAMED)]
    assert "key:k0,key:k1,key:k2" == keys_selector(keys)
    assert "" == keys_selector([*keys, "one more"])
