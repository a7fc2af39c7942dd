"""With a base: each sentence on both sides of its threshold, and none without a base."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import acos, pi
from pathlib import Path

import numpy as np
import pytest

from analyzer.findings import findings
from analyzer.measures import Sums, TaskSums
from analyzer.records import Finding, KeyScan, Scan

sys.path.append(str(Path(__file__).parent))
from measured import Array, hit, moved, row, said, scan_arrays, scan_of

TASKS = {
    "norm_task_a",
    "dominance",
    "task_cosine",
    "sign_conflict_fraction",
    "support_overlap",
}


def learned(
    cosine: float,
    *,
    numel: int = 2000,
    aa: float = 10.0,
    bb: float = 10.0,
    conflicts: int | None = None,
    moved_both: int | None = None,
) -> Sums:
    """Two tasks of these squared lengths at this cosine; as many conflicts as are to be expected of it."""
    both = numel if moved_both is None else moved_both
    task = TaskSums(
        n=numel,
        moved_a=numel,
        moved_b=numel,
        moved_both=both,
        conflicts=round(both * acos(cosine) / pi) if conflicts is None else conflicts,
        aa=aa,
        bb=bb,
        dd=aa + bb - 2 * cosine * (aa * bb) ** 0.5,
    )
    return moved((task.dd / numel) ** 0.5, numel, task=task)


def based(*rows: KeyScan) -> Scan:
    return scan_of(*rows, base=True)


def of_tasks(scan: Scan) -> list[Finding]:
    return [finding for finding in findings(scan) if finding.statistic in TASKS]


def test_without_a_base_nothing_is_said_of_tasks() -> None:
    """The sums are not there."""
    assert [] == of_tasks(scan_of(row("x", moved(0.1))))


@pytest.mark.parametrize(
    ("cosine", "words"),
    [
        (0.5 + 1e-9, "learned much the same"),
        (0.5 - 1e-9, "learned partly the same"),
        (0.1 + 1e-9, "learned partly the same"),
        (0.1 - 1e-9, "learned unrelated things"),
        (0.0, "learned unrelated things"),
        (-0.1 + 1e-9, "learned unrelated things"),
        (-0.1 - 1e-9, "pull in opposite directions"),
    ],
)
def test_the_task_cosine_says_what_they_learned(cosine: float, words: str) -> None:
    """In words for each range, with the number."""
    (found,) = of_tasks(based(row("x", learned(cosine))))
    assert found.text.startswith(f"since the base A and B {words}")
    assert "task_cosine" == found.statistic
    assert found.value == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.99 + 1e-9, "B did 99% of the change since the base; A hardly moved"),
        (0.01 - 1e-9, "A did all but 1% of the change since the base; B hardly moved"),
    ],
)
def test_one_did_nearly_all(share: float, text: str) -> None:
    """From 99 % on; the sentences on how both go together are then left out. Below, they are not."""
    (found,) = of_tasks(based(row("x", learned(0.0, aa=1 - share, bb=share))))
    assert text == found.text
    assert ("dominance", pytest.approx(share)) == (found.statistic, found.value)
    nearer = share - 2e-9 if share > 0.5 else share + 2e-9
    (found,) = of_tasks(based(row("x", learned(0.0, aa=1 - nearer, bb=nearer))))
    assert "task_cosine" == found.statistic


@pytest.mark.parametrize(("aa", "bb", "text"), [(0.0, 10.0, "B did 100%"), (10.0, 0.0, "A did 100%")])
def test_one_equals_the_base(aa: float, bb: float, text: str) -> None:
    """Where not one number of it moved, it is said so."""
    sums = learned(0.0, aa=aa, bb=bb)
    assert sums.task is not None
    task = replace(sums.task, moved_a=2000 * (aa > 0), moved_b=2000 * (bb > 0))
    (found,) = of_tasks(based(row("x", replace(sums, task=task))))
    other = "A" if aa == 0 else "B"
    assert f"{text} of the change since the base; {other} equals the base" == found.text


@pytest.mark.parametrize(("factor", "count"), [(1 - 1e-9, 0), (1 + 1e-9, 1)])
def test_what_is_far_from_both_is_no_base(factor: float, count: int) -> None:
    """From their own length on: as far as something of cosine a half. Or from one of the two alone."""
    square = factor**2 * 2000
    sums = replace(learned(0.5, aa=square, bb=square), sum_bb=2000.0)
    found = said(based(row("x", sums)), "C is hardly the base of these two")
    assert count == len(found)
    assert (not count) is bool(said(based(row("x", sums)), "since the base A and B"))
    nearer = replace(learned(0.5, aa=1000.0, bb=square), sum_bb=2000.0)
    assert count == len(said(based(row("x", nearer)), "C is hardly the base of B: "))


def test_a_stranger_did_not_do_all_of_the_change() -> None:
    """Where B is a fine-tune of C and A was trained apart, A did nothing since that base, and B did move."""
    sums = replace(learned(0.0, aa=4000.0, bb=4.0), sum_bb=2000.0)
    (found,) = of_tasks(based(row("x", sums)))
    assert found.text.startswith("C is hardly the base of A: ")
    assert found.value == pytest.approx(4000**0.5, rel=1e-12)


@pytest.mark.parametrize(("numel", "count"), [(4999, 0), (5000, 1)])
def test_half_of_the_weights_make_a_stranger(numel: int, count: int) -> None:
    """Of 10,000 elements; beside them gains that lie close together in any two models do not count."""
    far = replace(learned(0.0, numel=numel, aa=2 * numel, bb=2 * numel), sum_bb=float(numel))
    near = learned(0.0, numel=10_000 - numel)
    gains = row("gain", replace(learned(0.0, numel=90_000), sum_a=9e4, sum_b=9e4), shape=(90_000,))
    found = said(based(row("x", far), row("y", near), gains), "C is hardly the base of these two")
    assert count == len(found)
    for each in found:
        assert "the matrices that hold at least 50% of the weights" in each.text
        assert "norm_task_a" == each.statistic


def test_a_base_that_was_trained_apart_is_found() -> None:
    """Measured: gains make up most of the length, and two relatives have a stranger for their base."""
    rng = np.random.default_rng(0)

    def model() -> dict[str, Array]:
        matrices = {f"x{n}.weight": 0.02 * rng.standard_normal((50, 50)) for n in range(4)}
        gains = {f"norm{n}.weight": 1 + 0.02 * rng.standard_normal(50) for n in range(9)}
        return {key: value.astype(np.float32) for key, value in {**matrices, **gains}.items()}

    def tuned(of: dict[str, Array]) -> dict[str, Array]:
        return {
            key: (value + 0.001 * rng.standard_normal(value.shape)).astype(np.float32)
            for key, value in of.items()
        }

    base, other = model(), model()
    a, b = tuned(base), tuned(base)
    assert 1 == len(said(scan_arrays(a, b, other), "C is hardly the base of these two"))
    assert [] == said(scan_arrays(a, b, base), "hardly the base")
    assert 1 == len(said(scan_arrays(a, b, base), "learned unrelated things"))


@pytest.mark.parametrize(
    ("leads", "text"),
    [
        ((1.0, 1.0), "in text_encoder and vae B did 100% of"),
        ((0.995, 0.996), "in text_encoder and vae B did 99.5% or more of"),
        ((1 - 1e-6, 1 - 1e-7), "in text_encoder and vae B did more than 99.99% of"),
        ((0.0, 0.0), "in text_encoder and vae A did 100% of"),
        ((0.004, 0.001), "in text_encoder and vae A did all but 0.4% or less of"),
        ((1e-6, 1e-7), "in text_encoder and vae A did all but less than 0.01% of"),
    ],
)
def test_several_parts_may_be_the_work_of_one(leads: tuple[float, float], text: str) -> None:
    """With the share of the one where it did least of all."""
    both = row("x", learned(0.0, numel=90_000, aa=500.0, bb=500.0))
    parts = [
        row(name, learned(0.0, aa=1 - lead, bb=lead), part=name)
        for name, lead in zip(("text_encoder", "vae"), leads, strict=True)
    ]
    (found,) = said(based(both, *parts), " of the change since the base")
    assert found.text.startswith(text)


@pytest.mark.parametrize(("share", "count"), [(0.99 - 1e-9, 0), (0.99 + 1e-9, 1)])
def test_a_part_may_be_the_work_of_one(share: float, count: int) -> None:
    """While the whole is that of both; for either of the two, with a selector that hits the part."""
    both = row("x", learned(0.0, numel=90_000, aa=500.0, bb=500.0))
    for side, aa, bb in (("B did 99%", 1 - share, share), ("A did all but 1%", share, 1 - share)):
        scan = based(both, row("t", learned(0.0, aa=aa, bb=bb), part="text_encoder"))
        found = said(scan, f"in text_encoder {side}")
        assert count == len(found)
        for each in found:
            assert ["t.1"] == hit(scan, each.selector)
            assert each.value == pytest.approx(bb, abs=1e-12)


@pytest.mark.parametrize(("cosine", "count"), [(0.3 + 1e-6, 0), (0.3 - 1e-6, 1)])
def test_where_they_disagree_most(cosine: float, count: int) -> None:
    """A component a fifth below the whole, which is at 0.5 but for its own small share."""
    whole = row("x", learned(0.5, numel=90_000, aa=1e9, bb=1e9))
    scan = based(whole, row("attn2", learned(cosine)))
    scan = replace(
        scan, keys=tuple(replace(k, sums=replace(k.sums, sum_aa=1e12, sum_bb=1e12)) for k in scan.keys)
    )
    found = said(scan, "attn2 is where A and B go together least")
    assert count == len(found)
    for each in found:
        assert each.value == pytest.approx(cosine, abs=1e-9)
        assert ["attn2.1"] == hit(scan, each.selector)


@pytest.mark.parametrize(("numel", "count"), [(999, 0), (1000, 1)])
def test_a_small_component_disagrees_by_chance(numel: int, count: int) -> None:
    """Below 1000 elements a cosine is luck."""
    scan = based(
        row("x", learned(0.5, numel=90_000, aa=100.0, bb=100.0)),
        row("y", learned(-0.5, numel=numel, aa=1.0, bb=1.0)),
    )
    assert count == len(said(scan, "y is where A and B go together least"))


@pytest.mark.parametrize(
    ("conflicts", "words"),
    [(1101, "more than"), (1099, ""), (901, ""), (899, "fewer than")],
)
def test_signs_that_conflict_beyond_expectation(conflicts: int, words: str) -> None:
    """Of unrelated tasks half of the signs conflict; 5 points above or below are worth a sentence."""
    found = said(based(row("x", learned(0.0, conflicts=conflicts))), "opposite directions")
    assert bool(words) is bool(found)
    for each in found:
        assert f"{words} the 50% to expect" in each.text
        assert ("sign_conflict_fraction", conflicts / 2000) == (each.statistic, each.value)


@pytest.mark.parametrize(("both", "count"), [(999, 0), (1000, 1)])
def test_few_signs_conflict_by_chance(both: int, count: int) -> None:
    """Of less than 1000 numbers that both changed nothing is said."""
    sums = learned(0.0, moved_both=both, conflicts=both)
    assert count == len(said(based(row("x", sums)), "opposite directions"))


@pytest.mark.parametrize(("both", "count"), [(364, 0), (363, 1)])
def test_they_changed_different_numbers(both: int, count: int) -> None:
    """2000 each, of which 363 in common are 0.0998 of all 3637; 364 are 0.1001."""
    found = said(based(row("x", learned(0.0, moved_both=both))), "A and B changed different numbers")
    assert count == len(found)
    for each in found:
        assert ("support_overlap", both / (4000 - both)) == (each.statistic, each.value)
