"""How sure a ranking is: as long as the ranking, in its order, and the same on every run."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from samples import group, moved, random_key, scan_of

from analyzer.errors import AnalyzerError
from analyzer.ranking import rank_keys
from analyzer.records import Scan, Spectrum
from analyzer.statistics import STATISTICS
from analyzer.uncertainty import EXACT, KINDS, Assessment, GroupUncertainty, assess, intervals


def four_groups() -> Scan:
    """Two groups that cannot be told apart, one far above, one with two keys."""
    return scan_of(
        [
            *group("attn2", 20, 0.5),
            *group("ff", 20, 0.1),
            *group("mlp", 20, 0.1, seed=3),
            *group("in", 2, 0.2),
        ]
    )


def assessed(
    scan: Scan, *, by: str = "relative_change", axis: str = "component"
) -> dict[str, GroupUncertainty]:
    """The rows of an assessment by the name of their group."""
    ranking = rank_keys(scan, axis=axis, by=by)
    found = assess(ranking, scan, by=by)
    assert len(ranking) == len(found.rows)
    return {one.row.name: row for one, row in zip(ranking, found.rows, strict=True)}


def test_what_can_be_told_apart_has_another_tier() -> None:
    """The group far above stands alone; the two alike share a tier and do not know their ranks."""
    rows = assessed(four_groups())
    assert {"attn2": 1, "in": None, "ff": 2, "mlp": 2} == {name: row.tier for name, row in rows.items()}
    assert 1.0 == rows["attn2"].rank_probability
    first, second = (rows[name].rank_probability for name in ("ff", "mlp"))
    assert first == second  # of two groups both hold their ranks, or neither does
    assert 0.4 < (first or 0) < 0.95


def test_two_keys_say_so_and_take_no_part() -> None:
    """No interval, no tier, no probability, no test; its neighbours are compared across it."""
    rows = assessed(four_groups())
    assert GroupUncertainty(2, note="too few keys") == rows["in"]
    attn2 = rows["attn2"].next
    assert attn2 is not None
    assert attn2.other in ("ff", "mlp")
    assert (20, 20) == attn2.keys


@pytest.mark.parametrize("by", [name for name in STATISTICS if name not in EXACT])
def test_every_statistic_can_be_assessed(by: str) -> None:
    """Intervals hold the ranking's values, probabilities lie in 0 … 1, and tiers rise by one at most."""
    rng = np.random.default_rng(7)
    rows = [random_key(f"k{i}", rng, group=f"g{i % 4}", component=f"g{i % 4}") for i in range(48)]
    scan = scan_of(rows)
    ranking = rank_keys(scan, by=by)
    found = assess(ranking, scan, by=by)
    for one, row in zip(ranking, found.rows, strict=True):
        value = one.row.statistics[by]
        assert value is not None
        if by in KINDS:
            assert row.low is not None
            assert row.high is not None
            assert row.rank_probability is not None
            assert row.low <= value <= row.high
            assert 0 <= row.rank_probability <= 1
        else:
            assert (None, None, None) == (row.low, row.high, row.rank_probability)
    found_tiers = [row.tier or 0 for row in found.rows]
    assert 1 == found_tiers[0]
    assert all(0 <= after - before <= 1 for before, after in pairwise(found_tiers))
    assert [None] == [row.next for row in found.rows[-1:]]
    assert found.axis_test is not None
    assert (4, 48) == (found.axis_test.groups, found.axis_test.keys)


@pytest.mark.parametrize("by", sorted(EXACT))
def test_counts_are_exact(by: str) -> None:
    """There is nothing to be unsure of, and nothing is said."""
    scan = four_groups()
    ranking = rank_keys(scan, by=by)
    rows = tuple(GroupUncertainty(one.row.keys) for one in ranking)
    assert Assessment(by, rows, None) == assess(ranking, scan, by=by)


@pytest.mark.parametrize("by", ["relative_change", "cosine", "task_cosine", "stable_rank", "row_cosine_p05"])
def test_the_first_place_is_most_probable_for_the_first_group(by: str) -> None:
    """Whether small or large values come first: groups far apart hold their ranks in every resample."""
    rng = np.random.default_rng(7)
    far = []
    for at in range(3):
        for i in range(12):
            row = random_key(f"k{at}.{i}", rng, size=200, group=f"g{at}", component=f"g{at}")
            sums = row.sums
            scale = 100.0**at
            assert sums.task is not None
            assert row.spectrum is not None
            assert row.row_cosines is not None
            aa, bb = 1.0, 1.0 + 1e-4 * scale * (1 + i / 30)
            task = replace(sums.task, aa=aa, bb=bb, dd=1e-4 * scale * (1 + i / 30))
            sums = replace(sums, sum_aa=aa, sum_bb=bb, sum_dd=1e-4 * scale * (1 + i / 30), task=task)
            spectrum = replace(row.spectrum, stable_rank=1 + scale * (1 + i / 30))
            cosines = replace(row.row_cosines, p05=0.9 - at / 2 + i / 1000)
            far.append(replace(row, sums=sums, spectrum=spectrum, row_cosines=cosines))
    rows = assessed(scan_of(far), by=by)
    assert [1.0, 1.0, 1.0] == [row.rank_probability for row in rows.values()]
    assert [1, 2, 3] == [row.tier for row in rows.values()]


def test_an_assessment_does_not_depend_on_luck_or_order() -> None:
    """The same to the last bit for shuffled keys, and on every run."""
    scan = four_groups()
    assert assessed(scan) == assessed(replace(scan, keys=scan.keys[::-1]))
    assert assessed(scan) == assessed(scan)


def test_a_group_outside_the_total_has_no_share() -> None:
    """EMA copies that were asked for by name have intervals, but no `energy_share`."""
    copies = [
        replace(row, labels=replace(row.labels, part="ema", counted=False)) for row in group("ema", 10, 0.1)
    ]
    scan = scan_of([*group("ff", 10, 0.2), *copies])
    for by, has in (("relative_change", True), ("energy_share", False)):
        ranking = rank_keys(scan, by=by, only="part:ema")
        (row,) = assess(ranking, scan, by=by).rows
        assert has == (row.low is not None)


def test_shares_are_of_the_whole_scan_whatever_is_selected() -> None:
    """As the ranking's: a selection is assessed alone, its share is that of the whole."""
    scan = four_groups()
    ranking = rank_keys(scan, by="energy_share", only="ff")
    (row,) = assess(ranking, scan, by="energy_share").rows
    of_all = assessed(scan, by="energy_share")["ff"]
    assert row == replace(of_all, tier=1, next=None, border=None, rank_probability=1.0)


def test_nothing_to_assess() -> None:
    """An empty ranking has an empty assessment."""
    assert Assessment("cosine", (), None) == assess([], scan_of([]), by="cosine")
    assert {} == intervals(scan_of([]), ["block"], ["cosine"])["block", "cosine"].intervals


def test_intervals_are_those_of_the_ranking() -> None:
    """For every axis and statistic at once: the same intervals, tiers and notes by the labels' paths."""
    rng = np.random.default_rng(4)
    rows = [
        random_key(
            f"k{i}", rng, block=("IN00", "IN01", "M00")[i % 3], group=f"t/g{i % 2}", component=f"t/g{i % 2}"
        )
        for i in range(40)
    ]
    scan = scan_of([*rows, *group("in", 2, 0.2)])
    axes, statistics = ["component", "block*component"], ["relative_change", "top_energy_share", "numel"]
    found = intervals(scan, axes, statistics)
    assert {(axis, name) for axis in axes for name in statistics} == set(found)
    for (axis, by), one in found.items():
        expected = assessed(scan, by=by, axis=axis)
        short = {path: path.replace("t/", "").replace("*", " × ") for path in one.intervals}
        assert set(expected) == set(short.values())
        for path, name in short.items():
            row = expected[name]
            pair = None if row.low is None else (row.low, row.high)
            assert (pair, row.tier, row.note) == (
                one.intervals[path],
                one.tiers[path],
                one.notes.get(path, ""),
            )


@pytest.mark.parametrize(("axis", "name"), [("layer", "cosine"), ("block", "cosinus")])
def test_unknown_names_are_refused(axis: str, name: str) -> None:
    """An axis or a statistic that there is not."""
    with pytest.raises(AnalyzerError, match="unknown"):
        intervals(four_groups(), [axis], [name])


def test_what_was_not_measured_is_refused() -> None:
    """As by the ranking itself."""
    with pytest.raises(AnalyzerError, match="--base"):
        intervals(replace(four_groups(), base=None), ["block"], ["task_cosine"])


def test_a_large_scan_is_quick() -> None:
    """1100 keys, four axes and a crossing, twelve statistics: a second or so, never ten."""
    rng = np.random.default_rng(2)
    few = [random_key(f"k{i}", rng, size=150) for i in range(10)]
    rows = [
        replace(
            few[i % 10],
            key=f"k{i}",
            labels=replace(
                few[0].labels, block=f"B{i % 25}", group=f"g{i % 28}", kind="weight" if i % 2 else "bias"
            ),
        )
        for i in range(1100)
    ]
    names = [name for name in KINDS if STATISTICS[name].needs == ""][:12]
    started = time.perf_counter()
    intervals(scan_of(rows), ["part", "block", "component", "kind", "block*component"], names)
    assert time.perf_counter() - started < 10


def test_one_key_of_many_may_be_all() -> None:
    """A group whose sum rests on one key says so, and still is compared by its keys."""
    keys = [
        moved("k0", 0.5, norm=100.0, group="big", component="big"),
        *(moved(f"k{i}", 0.1, group="big", component="big") for i in range(1, 9)),
    ]
    rows = assessed(scan_of([*keys, *group("ff", 9, 0.01)]))
    assert ("rests on few keys", None, 1) == (rows["big"].note, rows["big"].low, rows["big"].tier)


def test_what_ties_shares_its_ranks() -> None:
    """Groups of one value hold each of their ranks in an equal share of the resamples, and not by name."""
    ranks = {"a": 4, "b": 4, "c": 4, "d": 9}
    rows = []
    for name, lora_rank in ranks.items():
        spectrum = Spectrum(2.0, 2, 0.5, lora_rank)
        rows += [replace(key, spectrum=spectrum) for key in group(name, 6, 0.1)]
    found = assessed(scan_of(rows), by="lora_rank")
    third = pytest.approx(1 / 3)
    assert {"a": third, "b": third, "c": third, "d": 1.0} == {n: r.rank_probability for n, r in found.items()}


def test_what_did_not_change_has_no_interval() -> None:
    """Six keys that stayed say nothing of others: a note instead of 0 – 0, and no probability of a rank."""
    still = [moved(f"still.{i}", 0.0, group="still", component="still") for i in range(6)]
    scan = scan_of([*still, *group("ff", 20, 0.1)])
    for by in ("relative_change", "cosine", "changed_fraction", "norm_ratio"):
        row = assessed(scan, by=by)["still"]
        assert ("nothing changed", None, None, None) == (row.note, row.low, row.high, row.rank_probability)
    assert 2 == assessed(scan)["still"].tier
    sizes = assessed(scan, by="norm_a")["still"]  # which says nothing of a change
    assert ("", True) == (sizes.note, sizes.low is not None)


def test_no_tier_goes_from_one_end_to_the_other() -> None:
    """Many small steps: the intervals of every two groups of one tier have something in common."""
    rows = [key for step in range(16) for key in group(f"g{step:02}", 12, 0.5 * 0.85**step, seed=step)]
    found = list(assessed(scan_of(rows)).values())
    assert 2 < max(row.tier or 0 for row in found) < 16
    for this, other in combinations(found, 2):
        assert this.low is not None
        assert this.high is not None
        assert other.low is not None
        assert other.high is not None
        if this.tier == other.tier:
            assert this.low <= other.high
            assert other.low <= this.high
    begins = [i for i in range(1, 16) if found[i].tier != found[i - 1].tier]
    assert begins == [i for i in range(16) if found[i].border is not None]
