"""What two models are to each other, and whether a cosine is evidence for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from analyzer.formulas import cosine
from analyzer.kinship import Kinships, Relation, can_tell, cosine_of_means, kinship, relation
from analyzer.measures import Sums
from analyzer.records import KeyScan

sys.path.append(str(Path(__file__).parent / "findings"))
from measured import SHARED, measure, row, scan_arrays, scan_of, still, turned

UNDIRECTED = Sums(1000, 1000, 1000, changed=1000, sum_bb=1000.0, sum_dd=1000.0)  # a is all zeros
NO_POSITION = Sums(1000, 0, 0, nonfinite_b=1000)  # b is all NaN: no position can be compared


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1.0, "fine-tune"),
        (0.99, "fine-tune"),
        (0.9 + 1e-9, "fine-tune"),
        (0.9, "fine-tune"),
        (0.9 - 1e-9, "distant"),
        (0.5, "distant"),
        (0.1 + 1e-9, "distant"),
        (0.1 - 1e-9, "unrelated"),
        (0.0, "unrelated"),
        (-1.0, "unrelated"),
    ],
)
def test_the_cosine_decides(value: float, name: str) -> None:
    """From 0.9 on a fine-tune, from 0.1 on distant, below unrelated; the cosine comes along."""
    sums = turned(value)
    got, median = kinship(scan_of(row("x", sums)))
    assert name == got
    assert median == cosine(sums) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(("value", "opposed"), [(-0.1, True), (-0.1 + 1e-9, False), (0.5, False)])
def test_what_points_away_is_opposed(value: float, opposed: bool) -> None:
    """From −0.1 down, which is "unrelated" by its name."""
    found = relation([row("x", turned(value))])
    assert opposed is found.opposed
    assert not opposed or found.name == "unrelated"
    assert not Relation("same").opposed


def test_nothing_changed_is_the_same() -> None:
    """Equal values everywhere need no cosine, and even zeros are equal to zeros."""
    zeros = Sums(10, 10, 10)
    assert ("same", None) == kinship(scan_of(row("x", still()), row("y", zeros)))


def test_without_a_direction_nothing_is_told() -> None:
    """Where A is all zeros, what changed has no cosine, and so the models no kinship."""
    assert (None, None) == kinship(scan_of(row("x", UNDIRECTED), row("y", still())))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("x", NO_POSITION)],
        [row("ids", Sums(77, 77, 0, changed=3), kind="other", counted=False)],
        [row("x", Sums())],
    ],
    ids=["no keys", "all NaN", "changed integers alone", "no elements"],
)
def test_no_evidence_is_not_the_same(rows: list[KeyScan]) -> None:
    """Where no weights could be compared, nobody may read that the two models hold the same values."""
    assert (None, None) == kinship(scan_of(*rows))


def test_identical_keys_do_not_vote() -> None:
    """A frozen network, however large, tells nothing about the part that was trained."""
    result = scan_of(row("x", still(1_000_000)), row("y", turned(0.5, 1000)))
    assert ("distant", 0.5) == kinship(result)


def test_small_keys_do_not_vote_beside_large_ones() -> None:
    """Below 1000 elements chance can give any cosine: gains and biases are left out."""
    gains = [row("x", turned(0.99, 999)) for _ in range(9)]
    assert "unrelated" == kinship(scan_of(*gains, row("y", turned(0.0, 1000))))[0]
    assert (None, None) == kinship(scan_of(*gains, row("y", still(1000))))
    assert (None, None) == kinship(scan_of(*gains))  # and alone they tell nothing


def test_what_does_not_count_does_not_vote() -> None:
    """EMA copies and schedules say nothing, however many elements they have."""
    result = scan_of(row("x", turned(0.95)), row("y", turned(0.0, 90_000), part="ema", counted=False))
    assert "fine-tune" == kinship(result)[0]


def test_elements_vote_not_keys() -> None:
    """One matrix of 10,000 elements outweighs three of 1000, whatever the lengths of the vectors."""
    small = [row("x", turned(0.95, 1000, scale=50.0)) for _ in range(3)]
    assert ("unrelated", 0.0) == kinship(scan_of(*small, row("y", turned(0.0, 10_000))))
    assert "fine-tune" == kinship(scan_of(*small, row("y", turned(0.0, 2_900))))[0]


@given(
    keys=st.lists(
        st.tuples(st.floats(-1, 1), st.sampled_from([1000, 1001, 2500, 7000])), min_size=1, max_size=9
    )
)
def test_the_median_is_that_of_the_elements(keys: list[tuple[float, int]]) -> None:
    """As if every element held its key's cosine: sort them all and take the middle one."""
    sums = [turned(value, numel) for value, numel in keys]
    elements = np.sort(np.concatenate([np.full(s.numel, cosine(s)) for s in sums]))
    expected = elements[(elements.size - 1) // 2]
    assert expected == kinship(scan_of(*(row("x", s) for s in sums)))[1]


def test_chance_is_the_spread_of_unrelated_cosines() -> None:
    """The standard deviation of the cosines of 2000 unrelated pairs is 1/√n, within its own error."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 2000, 1024))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = chance([row("x", turned(0.0, 1024))])
    assert 1 / 32 == expected
    assert expected == pytest.approx(cosines.std(), rel=0.05)


def test_chance_is_that_of_the_typical_matrix() -> None:
    """Of the size that the middle element lies in; without a matrix there is none."""
    rows = [row("x", turned(0.0, 1000)), row("y", turned(0.0, 1600)), row("z", turned(0.0, 90_000))]
    assert 1 / 300 == pytest.approx(chance(rows), rel=1e-12)
    assert 1 / 40 == pytest.approx(chance(rows[:2]), rel=1e-12)
    assert chance([row("x", turned(0.0, 1600), shape=(1600,))]) is None
    assert chance([]) is None


def test_the_cosine_of_gains_is_near_one_by_chance() -> None:
    """Two unrelated gains around 1: the cosine of their means foretells theirs, and they are no evidence."""
    rng = np.random.default_rng(1)
    a, b = 1 + 0.1 * rng.standard_normal((2, 4096))
    sums = measure(a.astype(np.float32), b.astype(np.float32))
    assert 0.99 == pytest.approx(cosine(sums), abs=0.005)
    assert cosine(sums) == pytest.approx(cosine_of_means(sums), abs=2e-3)
    assert not can_tell(row("gain", sums))
    assert not can_tell(row("gain", sums, shape=(4096,)))


def test_what_can_tell_has_two_axes_and_enough_elements_around_zero() -> None:
    """Each of the three alone decides, from the thresholds on."""
    assert can_tell(row("x", turned(0.0, 1000)))
    assert not can_tell(row("x", turned(0.0, 999)))
    assert not can_tell(row("x", turned(0.0, 1000), shape=(1000,)))
    for mean, expected in ((0.31, True), (0.32, False)):  # of elements of size 1: the cosine is mean²
        sums = replace(turned(0.0), sum_a=mean * 1000, sum_b=mean * 1000)
        assert mean**2 == pytest.approx(cosine_of_means(sums), rel=1e-12)
        assert expected is can_tell(row("x", sums))
    assert not can_tell(row("x", UNDIRECTED))
    assert cosine_of_means(UNDIRECTED) is None
    assert cosine_of_means(Sums()) is None


def chance(rows: list[KeyScan]) -> float | None:
    """What chance gives for these rows."""
    return Kinships(rows).chance(np.arange(len(rows)))


def test_the_relation_of_some_keys_carries_its_evidence() -> None:
    """How many keys have a say, their median and what chance gives; a part can be another than the whole."""
    rows = [row("x", turned(0.95, 2500)), row("y", turned(0.0, 2500)), row("z", turned(0.95, 10))]
    assert Relation("unrelated", 0.0, 2, 0.02) == relation(rows)
    found = relation(rows[:1])
    assert ("fine-tune", 1, 0.02) == (found.name, found.keys, found.chance)
    assert Relation("same") == relation([row("x", still())])
    assert Relation(None) == relation(rows[2:])


def test_many_rows_are_judged_as_each_by_itself() -> None:
    """The relation of any of them, from columns, is that of a literal reading of its definition."""
    rng = np.random.default_rng(7)
    kinds = [still(), UNDIRECTED, Sums(), *(turned(c, n) for c in (-0.5, 0.0, 0.5, 0.99) for n in (10, 2500))]
    gain = replace(turned(0.5, 2500), sum_a=2000.0, sum_b=2000.0)
    rows = [
        row(f"{i}", [*kinds, gain][kind], shape=((50, 50), (2500,))[axes])
        for i, (kind, axes) in enumerate(zip(rng.integers(0, 12, 60), rng.integers(0, 2, 60), strict=True))
    ]
    kinships = Kinships(rows)
    assert [can_tell(each) for each in rows] == kinships.telling.tolist()
    for size in (0, 1, 2, 5, 60):
        places = np.sort(rng.choice(60, size, replace=False))
        some = [rows[place] for place in places]
        found = kinships.relation(places)
        voters = [(cosine(r.sums), r.sums.numel) for r in some if r.sums.changed and r.sums.numel >= 1000]
        values = sorted((c, n) for c, n in voters if c is not None)
        weights = np.cumsum([n for _, n in values])
        median = values[int(np.argmax(weights >= weights[-1] / 2))][0] if values else None
        assert median == (None if found.cosine is None else pytest.approx(found.cosine, rel=1e-14))
        assert len(values) == found.keys
        sizes = sorted(r.sums.numel for r in some if r.sums.changed and can_tell(r))
        weights = np.cumsum(sizes)
        typical = sizes[int(np.argmax(weights >= weights[-1] / 2))] if sizes and values else None
        assert (typical and 1 / np.sqrt(typical)) == found.chance

        assert relation(some) == found


def test_two_voice_detectors_that_share_a_front_end_are_unrelated() -> None:
    """Versions 5 and 6 of a real model, trained apart: chance gives such a cosine."""
    paths = [SHARED / "real" / f"silero_vad_v{version}.safetensors" for version in (5, 6)]
    if not all(path.exists() for path in paths):
        pytest.skip("needs the real models")
    scan = scan_arrays(load_file(paths[0]), load_file(paths[1]))
    name, median = kinship(scan)
    assert "unrelated" == name
    assert median is not None
    assert abs(median) < 0.02


def test_a_model_that_was_trained_on_is_a_fine_tune() -> None:
    """A step of a tenth of the weights' spread in a direction of its own gives a cosine of 1/√1.01."""
    rng = np.random.default_rng(2)
    a = {f"layers.{n}.weight": rng.standard_normal((64, 64)).astype(np.float32) for n in range(4)}
    b = {key: (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32) for key, w in a.items()}
    name, median = kinship(scan_arrays(a, b))
    assert "fine-tune" == name
    assert 1 / np.sqrt(1.01) == pytest.approx(median, abs=1e-3)
