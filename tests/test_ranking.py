"""Rankings: groups from summed records, in an order that never depends on luck."""

from __future__ import annotations

import csv
import math
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.errors import AnalyzerError, SelectorError
from analyzer.expressions import parse_expression
from analyzer.measures import SUM_FIELDS, Histogram, Sums, TaskSums
from analyzer.ranking import (
    Axis,
    Depth,
    counted,
    crossed_axes,
    keys_where,
    rank,
    rank_keys,
    short_names,
    total,
)
from analyzer.records import KeyScan, Labels, ModelId, RowCosines, Scan, Spectrum, TensorInfo
from analyzer.selectors import select
from analyzer.statistics import STATISTICS

LAYOUTS = Path(__file__).resolve().parents[2] / "shared" / "layouts"
MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")
ATTENTION = "transformer_blocks/attn2"


def measure(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Sums:
    """The record of two vectors, by numpy."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    d = y - x
    return Sums(
        numel=x.size, n=x.size, numeric=x.size, changed=int((x != y).sum()), sum_a=float(x.sum()),
        sum_b=float(y.sum()), sum_aa=float(x @ x), sum_bb=float(y @ y), sum_dd=float(d @ d),
        sum_ab=float(x @ y), sum_abs_d=float(np.abs(d).sum()), max_abs_d=float(np.abs(d).max()),
        m2_a=x.var() * x.size, m2_b=y.var() * y.size, sum_ulp_sq=x.size * 2.0**-46,
        histogram=Histogram(128, array("q", [x.size]), array("d", [float(d @ d)])),
    )  # fmt: skip


def moved(change: float, numel: int = 4) -> Sums:
    """A record whose relative change is `change`, and whose cosine is 1."""
    return measure(np.ones(numel), np.full(numel, 1 + change))


def row(key: str, component: str, sums: Sums, **labels: object) -> KeyScan:
    """A key of the U-Net, ranked under its whole component unless a group is given."""
    described = Labels("unet", "IN01", component, "weight", component)
    described = replace(described, **labels)  # type: ignore[arg-type]  # fields of Labels
    return KeyScan(key, key, (sums.numel,), "F32", "F32", described, sums)


def scan_of(*rows: KeyScan, blocks: tuple[str, ...] = ("IN00", "IN01", "M00")) -> Scan:
    """A scan of these rows."""
    return Scan("mergescope", "2026-01-01", MODEL, MODEL, blocks, rows, (), (), ())


def test_the_largest_change_comes_first() -> None:
    """Groups are ordered by the statistic, from the one that differs most."""
    changes = {"ff": 0.1, "attn1": 0.3, "attn2": 0.5, "norm1": 0.0}
    rows = [row(f"k.{name}", f"t/{name}", moved(change)) for name, change in changes.items()]
    ranking = rank(scan_of(*rows))
    assert ["attn2", "attn1", "ff", "norm1"] == [group.name for group in ranking]
    assert [0.5, 0.3, 0.1, 0.0] == pytest.approx([g.statistics["relative_change"] for g in ranking])


def test_the_smallest_cosine_comes_first() -> None:
    """Of a cosine the smallest value is the largest difference, as of all cosines and of ranks."""
    angles = {"same": 0.0, "opposite": math.pi, "across": math.pi / 2}
    vectors = {name: ([1.0, 0.0], [math.cos(x), math.sin(x)]) for name, x in angles.items()}
    result = scan_of(*(row(name, name, measure(*pair)) for name, pair in vectors.items()))
    expected = ["opposite", "across", "same"]
    assert expected == [group.name for group in rank(result, by="cosine")]
    assert expected == [group.name for group in rank(result, by="cosine_distance")]
    ascending = {name for name, statistic in STATISTICS.items() if statistic.ascending}
    cosines = {name for name in STATISTICS if "cosine" in name} - {"cosine_distance"}
    assert cosines | {"stable_rank", "rank_90", "lora_rank"} == ascending


@pytest.mark.parametrize("by", ["relative_change", "cosine", "energy_share", "numel"])
def test_ties_are_broken_by_name(by: str) -> None:
    """Equal values stand in alphabetical order, whatever the order of the keys."""
    rows = [row(f"k{i}", name, moved(0.25)) for i, name in enumerate(["c", "a", "d", "b"])]
    for order in (rows, rows[::-1]):
        assert ["a", "b", "c", "d"] == [group.name for group in rank(scan_of(*order), by=by)]


@pytest.mark.parametrize("by", ["relative_change", "cosine"])
def test_undefined_groups_come_last(by: str) -> None:
    """A group without a direction is listed behind all others, whichever way the order runs."""
    zeros = measure([0.0, 0.0], [1.0, 1.0])
    rows = [row("k0", "b_zero", zeros), row("k1", "x", moved(-0.5)), row("k2", "a_zero", zeros)]
    ranking = rank(scan_of(*rows), by=by)
    assert ["x", "a_zero", "b_zero"] == [group.name for group in ranking]
    assert [None, None] == [group.statistics[by] for group in ranking[1:]]


def with_all(scan: Scan) -> Scan:
    """The same scan, as if it had been asked for a base and for spectra: made up, different for each key."""
    rng = np.random.default_rng(4)

    def rich(r: KeyScan) -> KeyScan:
        if not r.sums.numeric:
            return r
        x = rng.uniform(1, 2, 11)
        n = r.sums.n
        task = TaskSums(n, n, n, n, int(rng.integers(1, n)), x[0], x[1], x[2], x[3], x[4], x[5], x[6] / 2)
        spectrum = Spectrum(1 + x[7], int(rng.integers(1, 9)), x[8] / 2, int(rng.integers(1, 9)))
        return replace(
            r,
            sums=replace(r.sums, task=task),
            row_cosines=RowCosines(x[9] - 2, x[9] - 1.5, x[9] - 1),
            spectrum=spectrum,
        )

    return replace(scan, keys=tuple(map(rich, scan.keys)), base=MODEL, with_spectrum=True)


@pytest.mark.parametrize("by", STATISTICS)
def test_every_statistic_orders(by: str) -> None:
    """Each entry of the table can rank: defined values run one way, undefined ones stand at the end."""
    rng = np.random.default_rng(2)
    rows = [row(f"k{i}", f"c{i}", measure(*rng.standard_normal((2, i + 200)))) for i in range(6)]
    rows.append(row("ids", "ids", Sums(numel=3, n=3), kind="other"))
    values = [group.statistics[by] for group in rank(with_all(scan_of(*rows)), by=by)]
    defined = [value for value in values if value is not None]
    assert 7 == len(values)
    assert 6 <= len(defined)
    assert sorted(defined, reverse=not STATISTICS[by].ascending) == defined
    assert defined == values[: len(defined)]


@pytest.mark.parametrize(("by", "way"), [("task_cosine", "--base"), ("stable_rank", "--spectrum")])
def test_a_statistic_that_was_not_measured_is_refused(by: str, way: str) -> None:
    """The message says with which option to scan again."""
    with pytest.raises(AnalyzerError, match=f"{by}.*{way}"):
        rank(scan_of(row("k", "x", moved(0.1))), by=by)


def test_an_unknown_statistic_is_refused() -> None:
    """The message names the word and the nearest there are; all, where none is near."""
    with pytest.raises(AnalyzerError, match=r"unknown statistic 'cosinus': nearest are cosine"):
        rank(scan_of(row("k", "x", moved(0.1))), by="cosinus")
    with pytest.raises(AnalyzerError, match=r"'zzz': choose one of .*norm_ratio.*energy_share"):
        rank(scan_of(row("k", "x", moved(0.1))), by="zzz")


def test_a_groups_cosine_is_that_of_its_elements_together() -> None:
    """Keys of 1000 and 10 elements with cosines 1 and −1: 0.98 in truth, where the average is 0.00."""
    long, short = np.ones(1000), np.ones(10)
    rows = [row("long", "x", measure(long, long)), row("short", "x", measure(short, -short))]
    (group,) = rank(scan_of(*rows))
    a, b = np.concatenate([long, short]), np.concatenate([long, -short])
    expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert expected == pytest.approx(0.98, abs=0.001)
    assert group.statistics["cosine"] == pytest.approx(expected, rel=1e-12)
    assert (2, 1010) == (group.keys, group.sums.numel)
    expected_sums = measure(a, b)
    for name in SUM_FIELDS:
        assert getattr(expected_sums, name) == pytest.approx(getattr(group.sums, name), rel=1e-12)


def _places() -> tuple[KeyScan, ...]:
    """One key for each of some places on the four axes, with changes that tell them apart."""
    places = [
        (part, block, group, leaf, kind)
        for part, block in (("unet", "IN01"), ("unet", "M00"), ("text_encoder", "BASE"))
        for group, leaf in (("t/attn2", "to_k"), ("t/attn2", "to_v"), ("t/ff", "net"))
        for kind in ("weight", "bias")
    ]
    return tuple(
        row(f"k{i}", f"{group}/{leaf}", moved(i / 10, i + 2), part=part, block=block, kind=kind, group=group)
        for i, (part, block, group, leaf, kind) in enumerate(places)
    )


PLACES = _places()


@pytest.mark.parametrize(
    ("axis", "depth", "names"),
    [
        ("part", "rank", ["text_encoder", "unet"]),
        ("block", "rank", ["BASE", "IN01", "M00"]),
        ("component", "rank", ["attn2", "ff"]),
        ("component", "full", ["net", "to_k", "to_v"]),
        ("kind", "rank", ["bias", "weight"]),
    ],
)
def test_axes_and_depths_group_by_their_labels(axis: Axis, depth: Depth, names: list[str]) -> None:
    """Each key is in one group; a group's record is the sum of its keys' and its selector selects them."""
    rows = [replace(r, labels=replace(r.labels, group=r.labels.component.rpartition("/")[0])) for r in PLACES]
    result = scan_of(*rows)
    ranking = rank(result, axis=axis, depth=depth)
    assert names == sorted(group.name for group in ranking)
    assert len(rows) == sum(group.keys for group in ranking)
    for group in ranking:
        members = select(group.selector, rows=result.keys, blocks=result.blocks)
        assert len(members) == group.keys
        expected = sum(member.sums.sum_dd for member in members)
        assert group.sums.sum_dd == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        (
            "block*component",
            ["BASE × attn2", "BASE × ff", "IN01 × attn2", "IN01 × ff", "M00 × attn2", "M00 × ff"],
        ),
        ("component*part", ["attn2 × text_encoder", "attn2 × unet", "ff × text_encoder", "ff × unet"]),
        ("part * kind", ["text_encoder × bias", "text_encoder × weight", "unet × bias", "unet × weight"]),
    ],
)
def test_two_axes_can_be_crossed(axis: str, names: list[str]) -> None:
    """Each pair of labels that occurs is a group; its selector selects its keys and no others."""
    result = scan_of(*PLACES)
    groups = rank_keys(result, axis=axis)
    assert names == sorted(group.row.name for group in groups)
    assert sorted(r.key for r in PLACES) == sorted(r.key for group in groups for r in group.keys)
    for group in groups:
        assert group.keys == select(group.row.selector, rows=result.keys, blocks=result.blocks)
        assert len(group.keys) == group.row.keys


@pytest.mark.parametrize("axis", ["", "layer", "block*", "block*block", "block*part*kind", "Block"])
def test_what_is_no_axis_is_refused(axis: str) -> None:
    """The message lists the axes and shows how two are crossed."""
    with pytest.raises(AnalyzerError, match=r"unknown axis .*component.*block\*component"):
        rank(scan_of(*PLACES), axis=axis)
    assert ("block", "component") == crossed_axes("block*component")


def test_components_group_where_the_rules_say() -> None:
    """At depth "rank" by the marked group, at depth "full" by the whole component."""
    rows = [
        row("q", f"{ATTENTION}/to_q", moved(0.1), group=ATTENTION),
        row("k", f"{ATTENTION}/to_k", moved(0.2), group=ATTENTION),
    ]
    (group,) = rank(scan_of(*rows))
    assert ("attn2", f"component:{ATTENTION}", 2) == (group.name, group.selector, group.keys)
    leaves = rank(scan_of(*rows), depth="full")
    expected = [("to_k", f"component:{ATTENTION}/to_k"), ("to_q", f"component:{ATTENTION}/to_q")]
    assert expected == [(leaf.name, leaf.selector) for leaf in leaves]


def test_top_is_the_beginning_of_the_ranking() -> None:
    """`top` cuts and reorders nothing; more than there are is all of them."""
    result = scan_of(*(row(f"k{i}", f"c{i}", moved(i / 8)) for i in range(5)))
    full = rank(result)
    for top in (1, 3, 5, 99):
        assert full[:top] == rank(result, top=top)


def test_only_keeps_the_shares_of_the_whole() -> None:
    """A selection is ranked alone, while `energy_share` still is of the whole scan."""
    result = scan_of(
        row("a", "attn1", measure([1.0], [4.0])), row("b", "attn2", measure([1.0], [2.0])),
        row("c", "attn2", measure([1.0], [2.0]), kind="bias"),
    )  # fmt: skip
    (group,) = rank(result, only="attn2,weight")
    assert ("attn2", 1, 1 / 11) == (group.name, group.keys, group.statistics["energy_share"])


def test_only_refuses_unknown_and_empty_selections() -> None:
    """A name that the scan lacks, and names that no key has together, are errors."""
    result = scan_of(row("a", "attn1", moved(0.1)), row("b", "attn2", moved(0.1), kind="bias"))
    for selector in ("attn3", "attn1,bias"):
        with pytest.raises(SelectorError, match=selector[:5]):
            rank(result, only=selector)


def test_what_does_not_count_is_ranked_only_when_named() -> None:
    """EMA copies, schedules and integers enter no group and no total unless `only` asks for them."""
    plain = row("w", "x", measure([1.0], [2.0]))
    copy = row("ema", "x", measure([1.0], [9.0]), part="ema", counted=False)
    table = row("betas", "schedule", measure([1.0], [3.0]), part="other", kind="other", counted=False)
    result = scan_of(plain, copy, table)
    assert [plain] == counted(result.keys)
    assert plain.sums == total(result.keys)
    assert [("x", 1)] == [(group.name, group.keys) for group in rank(result)]
    assert [("schedule", None)] == [  # it is no share of a total in which it is not
        (g.name, g.statistics["energy_share"]) for g in rank(result, only="schedule")
    ]
    assert [("ema", 1)] == [(g.name, g.keys) for g in rank(result, only="ema", axis="part")]


def test_nothing_counted_ranks_to_nothing() -> None:
    """A scan without keys, or of integers alone, has an empty ranking and the empty total."""
    integers = row("ids", "ids", Sums(numel=77, n=77, changed=1), counted=False)
    for result in (scan_of(), scan_of(integers)):
        assert [] == rank(result)
        assert Sums() == total(result.keys)


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.lists(st.sampled_from("abcde"), min_size=1, max_size=12),
    axis=st.sampled_from(["component", "kind"]),
)
def test_shares_add_up_to_one(seed: int, groups: list[str], axis: Axis) -> None:
    """Along any axis the groups' shares of the change are non-negative and sum to 1."""
    rng = np.random.default_rng(seed)
    rows = [
        row(f"k{i}", name, measure(*rng.standard_normal((2, rng.integers(1, 50)))), kind=name)
        for i, name in enumerate(groups)
    ]
    shares = [group.statistics["energy_share"] for group in rank(scan_of(*rows), axis=axis)]
    assert all(share is not None and share >= 0 for share in shares)
    assert 1.0 == pytest.approx(sum(share or 0.0 for share in shares), rel=1e-12)


@given(order=st.permutations(range(len(PLACES))), axis=st.sampled_from(["component", "block", "part"]))
def test_the_ranking_does_not_depend_on_the_order_of_keys(order: list[int], axis: Axis) -> None:
    """Names, values to the last bit and positions are the same for any order of the rows."""
    assert rank(scan_of(*PLACES), axis=axis) == rank(scan_of(*(PLACES[i] for i in order)), axis=axis)


def test_short_names_are_the_ends_of_paths() -> None:
    """As few segments as tell a path from the others; a lone path is called by its last one."""
    expected = {
        "t/attn2": "t/attn2",
        "mid/attn2": "mid/attn2",
        "t/ff": "ff",
        "conv_in": "conv_in",
        "t/attn1/to_q": "attn1/to_q",
        "t/attn3/to_q": "attn3/to_q",
        "norm": "norm",
        "t/norm": "t/norm",
    }
    assert expected == short_names(expected)


@given(paths=st.sets(st.lists(st.sampled_from(["a", "b", "attn", ""]), min_size=1, max_size=4).map("/".join)))
def test_short_names_never_collide(paths: set[str]) -> None:
    """However alike the paths are: the shortest end that no other path has, or else the whole path."""

    def ends(path: str) -> list[str]:
        segments = path.split("/")
        return ["/".join(segments[i:]) for i in range(len(segments))[::-1]]

    names = short_names(paths)
    assert paths == set(names)
    assert len(paths) == len(set(names.values()))
    for path, name in names.items():
        taken = {end for other in paths - {path} for end in ends(other)}
        assert next((end for end in ends(path) if end not in taken), path) == name


def test_keys_where_a_condition_holds() -> None:
    """Each key is judged by its own statistics; undefined compares false, and what counts not is left out."""
    rows = [
        row("still", "x", moved(0.0)),
        row("far", "x", moved(0.5)),
        row("zero", "x", measure([0.0], [1.0])),
        row("ema", "x", moved(0.9), part="ema", counted=False),
        row("near", "x", moved(0.125)),
    ]
    condition = parse_expression("relative_change > 0.1", names=STATISTICS)
    assert ["far", "near"] == [r.key for r in keys_where(scan_of(*rows), condition)]
    most = parse_expression("energy_share > 0.45", names=STATISTICS)
    assert ["far", "zero"] == [r.key for r in keys_where(scan_of(*rows), most)]


@cache
def layout_scan(layout: str) -> Scan:
    """A scan of a well-known model whose keys all changed alike."""
    path = LAYOUTS / f"{layout}.tsv"
    if not path.exists():
        pytest.skip("the layouts lie beside the repository, and are not here")
    with path.open(newline="") as file:
        infos = [
            TensorInfo(
                line["key"], line["dtype"], tuple(map(int, filter(None, line["shape"].split("x")))), 0, 0
            )
            for line in csv.DictReader(file, delimiter="\t")
        ]
    known = categorize(infos)
    rows = [KeyScan(i.key, i.key, i.shape, i.dtype, i.dtype, known.labels[i.key], moved(0.1)) for i in infos]
    return scan_of(*rows, blocks=known.blocks)


@pytest.mark.parametrize("layout", ["sd15-ldm", "sdxl-sgm", "llama", "bert", "sd15-diffusers-unet"])
@pytest.mark.parametrize("depth", ["rank", "full"])
def test_selectors_of_groups_select_the_group(layout: str, depth: Depth) -> None:
    """What a ranking offers for `--only` hits the counted keys of that group and no others."""
    result = layout_scan(layout)
    groups: dict[str, list[str]] = defaultdict(list)
    for r in counted(result.keys):
        groups[r.labels.component if depth == "full" else r.labels.group].append(r.key)
    hits = {
        group.selector: [
            r.key for r in counted(select(group.selector, rows=result.keys, blocks=result.blocks))
        ]
        for group in rank(result, depth=depth)
    }
    members = sorted(groups.values())
    if depth == "rank":  # crossing adds a term, and the hits are those of that block among the group's
        cells = rank_keys(result, axis="block*component")[::7]
        for cell in cells:
            hit = select(cell.row.selector, rows=result.keys, blocks=result.blocks)
            assert [r.key for r in cell.keys] == [r.key for r in counted(hit)]
    assert [] == [selector for selector, keys in hits.items() if keys not in members]
    assert members == sorted(hits.values())
