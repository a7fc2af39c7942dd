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
    (found,) = said(scan_of(*rows), "none of the")
    assert (
        "none of the 3 large categories moved much more or less than the others: all by 9% to 11% of their "
        "length"
    ) == found.text
    assert found.value == pytest.approx(0.1, rel=1e-12)
    assert [] == said(scan_of(*rows[:2]), "none of the")
    assert [] == said(scan_of(*rows, row("w", moved(0.3))), "none of the")


@pytest.mark.parametrize(("factor", "count"), [(1.5 - 1e-9, 1), (1.5 + 1e-9, 0)])
def test_alike_is_within_half_as_much_again(factor: float, count: int) -> None:
    """From the smallest to the largest; beyond it nothing is said, even where no one stands out."""
    changes = [0.1, 0.11, 0.12, 0.13, 0.14, 0.1 * factor]
    scan = scan_of(*(row(f"x{n}", moved(change)) for n, change in enumerate(changes)))
    found = said(scan, "none of the 6 large categories")
    assert count == len(found)
    assert [] == [f for f in findings(scan) if " moved most" in f.text or " moved least" in f.text]


def test_only_the_large_components_are_counted_as_alike() -> None:
    """A gain of few numbers that moved far is neither named nor among those of which it is said."""
    rows = [row(f"x{n}", moved(0.1 + 0.01 * n, 90_000)) for n in range(3)]
    (found,) = said(scan_of(*rows, row("gain", moved(0.9, 100))), "none of the 3 large categories")
    assert "by 10% to 12% of their length" in found.text


@pytest.mark.parametrize(("factor", "count"), [(1.25 - 1e-9, 0), (1.25 + 1e-9, 1)])
@pytest.mark.parametrize(("how", "far"), [("most", 0.5), ("least", 0.01)])
def test_what_is_followed_closely_did_not_move_most_or_least(
    how: str, far: float, factor: float, count: int
) -> None:
    """Five that lie near each other, of eleven: the first is named alone only if it lies apart from them."""
    first = far * factor if how == "most" else far / factor
    rows = [row("x", moved(first)), *(row(f"near{n}", moved(far)) for n in range(4))]
    scan = scan_of(*rows, *(row(f"other{n}", moved(0.1)) for n in range(6)))
    assert count == len(said(scan, f"x moved {how}"))
    assert count == len(said(scan, f"moved {how}"))


@pytest.mark.parametrize(("near", "count"), [(4, 1), (5, 0)])
def test_those_that_moved_most_together_are_named_together(near: int, count: int) -> None:
    """Up to four, with one selector for all and what they hold together; five are no news."""
    rows = [row(f"near{n}", moved(0.5 - 0.01 * n)) for n in range(near)]
    scan = scan_of(*rows, *(row(f"other{n}", moved(0.1)) for n in range(7)))
    found = said(scan, "moved most")
    assert count == len(found)
    for each in found:
        assert each.text == (
            "near0, near1, near2 and near3 moved most, by 47% to 50% of their length (the median of the "
            "others: 10%); they hold 93% of all change"
        )
        assert each.value == pytest.approx(0.5, rel=1e-12)
        assert ["near0.0", "near1.1", "near2.2", "near3.3"] == hit(scan, each.selector)


def test_those_that_moved_most_are_half_at_the_most() -> None:
    """Three of four did not move most: the fourth moved least."""
    scan = scan_of(*(row(f"x{n}", moved(0.5)) for n in range(3)), row("y", moved(0.1)))
    assert [] == said(scan, "moved most")
    (found,) = said(scan, "y moved least, by 10% of its length (the median of the others: 50%)")
    assert ["y.3"] == hit(scan, found.selector)


def test_small_components_are_not_among_the_others() -> None:
    """Nine gains that hardly moved do not make ordinary layers move most."""
    gains = [row(f"gain{n}", moved(0.001, 10)) for n in range(9)]
    layers = [row(f"x{n}", moved(change, 90_000)) for n, change in enumerate([0.13, 0.1, 0.1])]
    scan = scan_of(*layers, *gains)
    assert [] == said(scan, "moved most")
    assert 1 == len(said(scan, "none of the 3 large categories"))


def test_of_two_only_one_is_named() -> None:
    """That the one moved most says that the other one moved least."""
    scan = scan_of(row("x", moved(0.3)), row("y", moved(0.1)))
    assert ["x"] == [
        f.selector for f in findings(scan) if " moved most" in f.text or " moved least" in f.text
    ]


def test_of_a_part_that_was_replaced_no_size_is_said() -> None:
    """A gain in a swapped VAE, too small to tell by itself, neither moved most nor holds much."""
    rows = [row(f"x{n}", moved(0.1, 90_000)) for n in range(3)]
    for own, count in ((turned(0.0, 90_000), 0), (turned(0.99, 90_000), 1)):
        part = {"part": "vae", "block": "VAE"}
        scan = scan_of(*rows, row("conv", own, **part), row("gain", moved(0.9, 900), **part))
        assert count == len(said(scan, "gain moved most"))


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
