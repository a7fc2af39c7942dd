"""What kind of change it is: of length, of few numbers, in few of them most of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyzer.findings import findings
from analyzer.formulas import radial_share, top_energy_share
from analyzer.measures import Sums

sys.path.append(str(Path(__file__).parent))
from measured import hit, measure, moved, row, said, scan_of, still, turned


def grown(share: float, *, numel: int = 1000, by: float = 0.1) -> Sums:
    """A vector that became longer, of which change this share of Σd² is one of length."""
    dd = by**2 * numel / share
    bb = (1 + by) ** 2 * numel
    sums = Sums(numel, numel, numel, changed=numel, sum_aa=float(numel), sum_bb=bb, sum_dd=dd)
    return replace(sums, sum_ab=(numel + bb - dd) / 2)


@pytest.mark.parametrize(("share", "count"), [(0.5 - 1e-9, 0), (0.5 + 1e-9, 1)])
def test_half_of_the_change_makes_it_rescaled(share: float, count: int) -> None:
    """The share that a change of length explains, by how much, and where."""
    scan = scan_of(row("norm", grown(share)), row("x", turned(0.99)))
    found = said(scan, "rescaled rather than re-aimed")
    assert count == len(found)
    for each in found:
        assert (
            "norm was rescaled rather than re-aimed (10% longer): 50% of the change is one of length"
            == each.text
        )
        assert ("radial_share", "norm") == (each.statistic, each.selector)
        assert each.value == pytest.approx(share, rel=1e-9)
        assert ["norm.0"] == hit(scan, each.selector)


def test_several_rescaled_components_share_a_sentence() -> None:
    """With the smallest share and both ends of the factors."""
    scan = scan_of(row("n1", grown(1.0)), row("n2", grown(0.8, by=-0.2)), row("x", turned(0.99)))
    (found,) = said(scan, "rescaled")
    assert "(20% shorter to 10% longer): at least 80% of the change of each" in found.text
    assert found.value == pytest.approx(0.8, rel=1e-9)
    assert ["n1.0", "n2.1"] == hit(scan, found.selector)


def test_nearly_all_of_each_is_not_at_least_more() -> None:
    """Two of which all but a millionth is length, and two of which all is."""
    for share, words in (
        (1 - 1e-6, ": more than 99.99% of the change of each"),
        (1.0, ": 100% of the change"),
    ):
        scan = scan_of(row("n1", grown(share)), row("n2", grown(share)), row("x", turned(0.99)))
        (found,) = said(scan, "rescaled")
        assert words in found.text


@pytest.mark.parametrize(("numel", "count"), [(999, 0), (1000, 1)])
def test_small_components_are_not_judged(numel: int, count: int) -> None:
    """The length of a few numbers changes by chance."""
    scan = scan_of(row("norm", grown(0.9, numel=numel)), row("x", turned(0.99, 90_000)))
    assert count == len(said(scan, "rescaled"))


def test_a_scaled_model_is_rescaled() -> None:
    """Every value times 1.1, by NumPy: the whole change is one of length."""
    a = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    sums = measure(a, a * np.float32(1.1))
    assert 1.0 == pytest.approx(radial_share(sums), abs=1e-9)
    assert said(scan_of(row("x", sums)), "x was rescaled")


# --- few numbers changed ---


def sparse(changed: int, numel: int = 2000) -> Sums:
    """A vector of which some numbers changed, by a hundredth of its length together."""
    return replace(moved(0.01, numel), changed=changed)


@pytest.mark.parametrize(("changed", "count"), [(101, 0), (100, 1)])
def test_a_twentieth_of_the_numbers_is_few(changed: int, count: int) -> None:
    """Of those in the keys that changed, what did not change at all being left out."""
    found = said(
        scan_of(row("x", sparse(changed)), row("y", still(90_000))), "in the one key that changed differ"
    )
    assert count == len(found)
    for each in found:
        assert each.text.startswith("only 5% of the numbers")
        assert ("changed_fraction", 0.05, "") == (each.statistic, each.value, each.selector)


@pytest.mark.parametrize(("changed", "count"), [(101, 0), (100, 1)])
def test_a_component_may_be_the_sparse_one(changed: int, count: int) -> None:
    """Beside others that changed all over; its unchanged keys do not make it sparse."""
    scan = scan_of(row("x", sparse(changed)), row("x", still(90_000)), row("y", moved(0.1, 90_000)))
    found = said(scan, "in the keys of x that changed only 5% of the numbers differ")
    assert count == len(found)
    for each in found:
        assert ["x.0", "x.1"] == hit(scan, each.selector)


@pytest.mark.parametrize(("numel", "count"), [(999, 0), (1000, 1)])
def test_a_few_numbers_of_a_few_are_not_judged(numel: int, count: int) -> None:
    """A component of less than 1000 elements in the keys that changed."""
    scan = scan_of(row("x", sparse(10, numel)), row("y", moved(0.1, 90_000)))
    assert count == len(said(scan, "in the keys of x that changed"))


# --- the change sits in few numbers ---


def spiked(share: float, numel: int = 10_000, *, seed: int = 0) -> Sums:
    """A change of which a hundredth of the numbers hold this share, all of these of one size, as the rest."""
    a = np.random.default_rng(seed).standard_normal(numel)
    high = numel // 100
    d = np.full(numel, ((1 - share) / (numel - high)) ** 0.5)
    d[:high] = (share / high) ** 0.5
    return measure(a, a + d)


@pytest.mark.parametrize(("share", "count"), [(0.499, 0), (0.501, 1)])
def test_half_of_the_change_in_one_number_of_a_hundred_is_much(share: float, count: int) -> None:
    """In the median key of a component."""
    scan = scan_of(
        row("x", spiked(share)),
        row("x", spiked(share, seed=1)),
        row("x", spiked(0.9)),
        row("x", spiked(0.1)),
        row("y", moved(0.1)),
    )
    found = said(scan, "the change of x sits in few numbers")
    assert count == len(found)
    for each in found:
        assert each.value == pytest.approx((share + share) / 2, rel=1e-9)
        assert "the 1% that changed most hold 50% of it" in each.text
        assert ["x.0", "x.1", "x.2", "x.3"] == hit(scan, each.selector)


@pytest.mark.parametrize(("numel", "count"), [(9_900, 0), (10_000, 1)])
def test_one_percent_must_be_a_hundred_numbers(numel: int, count: int) -> None:
    """Of fewer elements it is a handful."""
    sums = spiked(0.9, numel)
    assert count == len(said(scan_of(row("x", sums)), "sits in few numbers"))


def test_a_sparse_change_is_not_called_concentrated_too() -> None:
    """Where few numbers changed at all, the one sentence says it."""
    sums = replace(spiked(0.9), changed=500)  # a twentieth
    assert [] == said(scan_of(row("x", sums)), "sits in few numbers")
    assert 1 == len(said(scan_of(row("x", replace(sums, changed=501))), "sits in few numbers"))


def test_a_gaussian_change_is_nothing_special() -> None:
    """As after training everywhere: neither rescaled, nor sparse, nor concentrated; the 1 % hold 0.085."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((200, 100))
    sums = measure(a.astype(np.float32), (a + 0.1 * rng.standard_normal(a.shape)).astype(np.float32))
    assert 0.085 == pytest.approx(top_energy_share(sums), abs=0.01)
    assert {"cosine", "relative_change"} == {f.statistic for f in findings(scan_of(row("x", sums)))}
