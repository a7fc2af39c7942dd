"""What moved most, what holds most of the change, and what moved least, on both sides of each threshold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from analyzer.findings import findings

sys.path.append(str(Path(__file__).parent))
from measured import hit, moved, row, said, scan_of, still, turned


def test_what_moved_most_is_named_with_its_numbers() -> None:
    """By how much, what the others did, and its share of all change."""
    rows = [row("t/attn2", moved(0.3, 2000)), row("t/ff", moved(0.1, 8000)), row("still", still())]
    scan = scan_of(*rows)
    (found,) = said(scan, "moved most")
    share = 0.09 * 2000 / (0.09 * 2000 + 0.01 * 8000)
    assert (
        f"attn2 moved most, by 30% of its length (the median of the others: 10%); it holds {share:.0%} of "
        "all change"
    ) == found.text
    assert ("relative_change", "attn2") == (found.statistic, found.selector)
    assert found.value == pytest.approx(0.3, rel=1e-12)
    assert ["t/attn2.0"] == hit(scan, found.selector)


@pytest.mark.parametrize(("factor", "count"), [(1.5 - 1e-9, 0), (1.5 + 1e-9, 1)])
def test_to_move_most_takes_half_as_much_again(factor: float, count: int) -> None:
    """As the median of the others."""
    rows = [
        row("x", moved(0.1 * factor)),
        *(row(f"y{n}", moved(change)) for n, change in enumerate([0.1, 0.1])),
    ]
    assert count == len(said(scan_of(*rows), "x moved most"))


@pytest.mark.parametrize(("factor", "count"), [(0.5 + 1e-9, 0), (0.5 - 1e-9, 1)])
def test_to_move_least_takes_half(factor: float, count: int) -> None:
    """Of the median of the others; its selector is its own."""
    scan = scan_of(row("x", moved(0.1 * factor)), row("y", moved(0.1)), row("z", moved(0.1)))
    found = said(scan, "x moved least")
    assert count == len(found)
    for each in found:
        assert ["x.0"] == hit(scan, each.selector)


@pytest.mark.parametrize(("numel", "count"), [(180, 0), (181, 1)])
def test_small_components_move_neither_most_nor_least(numel: int, count: int) -> None:
    """Below a thousandth of all that moved: a bias of a few numbers always moves most."""
    for change in (0.9, 0.01):
        scan = scan_of(
            row("x", moved(change, numel)), row("y", moved(0.1, 90_000)), row("z", moved(0.1, 90_000))
        )
        assert count == len([f for f in findings(scan) if f.text.startswith("x moved")])


@pytest.mark.parametrize(("share", "count"), [(0.25 - 1e-9, 0), (0.25 + 1e-9, 1)])
def test_a_quarter_of_all_change_in_few_numbers_is_much(share: float, count: int) -> None:
    """In a twentieth of the numbers that changed, and no further than the median of the others."""
    others = [
        *(row(f"y{n}", moved(0.1, 1000)) for n in range(4)),
        row("z", moved((110 / 90_000) ** 0.5, 90_000)),
    ]
    change = (share / (1 - share) * 150 / 5000) ** 0.5  # Σd² of the others is 150
    scan = scan_of(row("x", moved(change, 5000)), *others, row("still", still(20_000)))
    found = said(scan, "x holds")
    assert count == len(found)
    for each in found:
        assert "x holds 25% of all change in 5.1% of the numbers that changed" == each.text
        assert ("energy_share", "x") == (each.statistic, each.selector)
        assert each.value == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(("numel", "count"), [(4001, 0), (3999, 1)])
def test_to_hold_much_takes_twice_the_share_of_the_numbers(numel: int, count: int) -> None:
    """Half of the change, in just more or less than a quarter of 16,000 numbers."""
    others = [row(f"y{n}", moved(0.1, 500)) for n in range(2)]
    z = row("z", moved((30 / (15_000 - numel)) ** 0.5, 15_000 - numel))
    scan = scan_of(row("x", moved((40 / numel) ** 0.5, numel)), *others, z, row("still", still(90_000)))
    assert count == len(said(scan, "x holds 50% of all change"))


def test_components_that_moved_alike_are_said_to() -> None:
    """Three or more, none of them most or least; two are too few."""
    rows = [row("x", moved(0.09)), row("y", moved(0.1)), row("z", moved(0.11))]
    (found,) = said(scan_of(*rows), "no category")
    assert (
        "no category moved much more or less than the others: all 3 by 9% to 11% of their length"
        == found.text
    )
    assert found.value == pytest.approx(0.1, rel=1e-12)
    assert [] == said(scan_of(*rows[:2]), "no category")
    assert [] == said(scan_of(*rows, row("w", moved(0.3))), "no category")


def test_one_component_alone_moved_neither_most_nor_least() -> None:
    """Where only one changed there is nothing to compare it with."""
    assert [] == said(scan_of(row("attn2", moved(0.5)), row("ff", still())), "moved most")


def test_of_strangers_no_size_is_said() -> None:
    """A component that was trained apart moves by its whole length, and that says nothing."""
    rows = [row("x", moved(0.1, 90_000)), row("y", moved(0.1, 90_000)), row("head", turned(0.0, 2000))]
    assert [] == said(scan_of(*rows), "head moved most")
    strangers = [row(name, turned(0.0, numel)) for name, numel in (("x", 1000), ("y", 4000), ("z", 9000))]
    assert [] == [
        f for f in findings(scan_of(*strangers)) if f.statistic in ("relative_change", "energy_share")
    ]


def test_a_name_that_is_in_another_part_too_is_selected_in_its_own() -> None:
    """The `norm` of the U-Net is not the norm inside the VAE's attention."""
    scan = scan_of(
        row("norm", moved(0.5)),
        row("ff", moved(0.1)),
        row("mid/norm", moved(0.1), part="vae", block="VAE", group="mid"),
    )
    (found,) = said(scan, "moved most")
    assert ["norm.0"] == hit(scan, found.selector)
