"""Presets of block weights: the published numbers on 25 blocks, the same shapes on any number of them."""

from __future__ import annotations

from itertools import pairwise
from math import cos, isclose, pi
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.blocks import presets
from analyzer.errors import RecipeError

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "mbw_presets.tsv"

COUNTS = st.integers(1, 200)

# Digits of the published tables, by name: whole blocks as 0, 1 and h for a half.
STEPS = {
    "WRAP08": "1111000000000000000001111",
    "WRAP12": "1111110000000000000111111",
    "WRAP14": "1111111000000000001111111",
    "WRAP16": "1111111100000000011111111",
    "MID12_50": "00000hhhhhhhhhhhhhh000000",
    "OUT07": "0000000000000000001111111",
    "OUT12": "0000000000000111111111111",
    "OUT12_5": "000000000000h111111111111",
    "RING08_SOFT": "00000h111h00000h111h00000",
    "RING08_5": "0000001111000001111000000",
    "RING10_5": "0000011111000001111100000",
    "RING10_3": "0000001111100011111000000",
    "ALL_A": "0" * 25,
    "ALL_B": "1" * 25,
}
# Some numbers of the published tables: the block's place, its alpha.
SOME = {
    "GRAD_V": {0: 1, 1: 0.9166666667, 12: 0, 17: 0.4166666667, 24: 1},
    "GRAD_A": {0: 0, 5: 0.4166666667, 12: 1, 18: 0.5, 24: 0},
    "FLAT_25": dict.fromkeys(range(25), 0.25),
    "FLAT_75": dict.fromkeys(range(25), 0.75),
    "SMOOTHSTEP": {0: 0, 1: 0.00506365740740741, 12: 0.5, 23: 0.994936342592593, 24: 1},
    "REVERSE-SMOOTHSTEP": {0: 1, 3: 0.95703125, 21: 0.0429687499999996, 24: 0},
    "SMOOTHSTEP*2": {1: 0.0101273148148148, 12: 1, 13: 0.875289351851852, 24: 0},
    "R_SMOOTHSTEP*2": {0: 1, 11: 0.124710648148148, 23: 0.989872685185185},
    "SMOOTHSTEP*3": {9: 0.94921875, 10: 0.871527777777778, 15: 0.0507812500000004, 24: 1},
    "R_SMOOTHSTEP*3": {0: 1, 9: 0.05078125, 15: 0.94921875, 24: 0},
    "SMOOTHSTEP*4": {8: 0.962962962962963, 12: 0, 16: 0.962962962962963, 24: 0},
    "R_SMOOTHSTEP*4": {0: 1, 7: 0.177662037037037, 12: 1, 24: 1},
    "SMOOTHSTEP/2": {1: 0.0196759259259259, 12: 1, 17: 0.623842592592593, 24: 0},
    "R_SMOOTHSTEP/2": {0: 1, 6: 0.5, 12: 0, 24: 1},
    "SMOOTHSTEP/3": {4: 0.5, 8: 1, 16: 0, 23: 0.95703125, 24: 1},
    "R_SMOOTHSTEP/3": {0: 1, 8: 0, 16: 1, 24: 0},
    "SMOOTHSTEP/4": {5: 0.925925925925926, 6: 1, 12: 0, 18: 1, 24: 0},
    "R_SMOOTHSTEP/4": {0: 1, 6: 0, 12: 1, 18: 0, 24: 1},
    "COSINE": {0: 1, 1: 0.995722430686905, 8: 0.75, 23: 0.00427756931309475, 24: 0},
    "REVERSE_COSINE": {0: 0, 6: 0.146446609406726, 12: 0.5, 24: 1},
    "TRUE_CUBIC_HERMITE": {0: 0, 1: 0.199031876929012, 12: 0.520833333333333, 23: 0.842634789737655, 24: 1},
    "TRUE_REVERSE_CUBIC_HERMITE": {0: 1, 1: 0.800968123070988, 12: 0.479166666666667, 24: 0},
    "FAKE_CUBIC_HERMITE": {0: 0, 1: 0.157576195987654, 8: 0.567901234567901, 24: 1},
    "FAKE_REVERSE_CUBIC_HERMITE": {0: 1, 1: 0.842423804012346, 16: 0.567901234567901, 24: 0},
}
REVERSED = {
    "GRAD_A": "GRAD_V",
    "REVERSE-SMOOTHSTEP": "SMOOTHSTEP",
    "REVERSE_COSINE": "COSINE",
    "TRUE_REVERSE_CUBIC_HERMITE": "TRUE_CUBIC_HERMITE",
    "FAKE_REVERSE_CUBIC_HERMITE": "FAKE_CUBIC_HERMITE",
    "ALL_B": "ALL_A",
    **{f"R_SMOOTHSTEP{sign}{k}": f"SMOOTHSTEP{sign}{k}" for sign in "*/" for k in (2, 3, 4)},
}
MIRRORED = [
    *(name for name in presets.PRESETS if name.startswith(("GRAD", "FLAT", "WRAP", "RING", "ALL"))),
    *(f"{r}SMOOTHSTEP{sign}{k}" for r in ("", "R_") for sign in "*/" for k in (2, 4)),
]
STRAIGHT = [name for name in presets.PRESETS if name not in STEPS]  # without jumps


def published() -> dict[str, list[float]]:
    """The tables as they are spread, or nothing where they are not at hand."""
    if not PUBLISHED.exists():
        return {}
    lines = PUBLISHED.read_text(encoding="utf-8").splitlines()[1:]
    return {line.split("\t")[0]: [float(x) for x in line.split("\t")[1].split(",")] for line in lines}


def formula(name: str, place: int) -> float:
    """What the formula alone gives one of 25 blocks."""
    return float(presets.PRESETS[name].at(presets.position(place, 25)))


@pytest.mark.parametrize("name", presets.PRESETS)
def test_25_blocks_have_the_published_numbers(name: str) -> None:
    """To 1e-9, each of the 38, the exceptions included."""
    tables = published()
    if not tables:
        pytest.skip("the published tables are not at hand")
    assert tables[name] == pytest.approx(presets.weights(name, 25), abs=1e-9, rel=0)
    assert list(tables) == list(presets.PRESETS)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_numbers_that_were_copied_by_hand(name: str) -> None:
    """Without the tables: every number of the presets of whole blocks, some of each curve."""
    got = presets.weights(name, 25)
    assert 25 == len(got)
    if name in STEPS:
        assert tuple({"0": 0.0, "1": 1.0, "h": 0.5}[sign] for sign in STEPS[name]) == got
    else:
        assert SOME[name] == pytest.approx({place: got[place] for place in SOME[name]}, abs=1e-9, rel=0)


def test_the_exceptions_are_all_and_no_more() -> None:
    """Three entries of the published tables contradict their formula, each by more than 1 %."""
    found = {
        name: {place for place in range(25) if abs(formula(name, place) - numbers[place]) > 1e-9}
        for name, numbers in published().items()
    }
    listed = {name: set(places) for name, places in presets.EXCEPTIONS.items()}
    assert {"MID12_50": {5}, "TRUE_CUBIC_HERMITE": {0}, "TRUE_REVERSE_CUBIC_HERMITE": {0}} == listed
    assert not found or listed == {name: places for name, places in found.items() if places}
    for name, places in presets.EXCEPTIONS.items():
        for place, alpha in places.items():
            assert abs(formula(name, place) - alpha) > 0.01


def test_an_exception_is_for_25_blocks_alone() -> None:
    """Elsewhere the formula has its way: 24 layers, 26 layers, 19 blocks."""
    for count in (19, 24, 26):
        middle = presets.weights("MID12_50", count)
        assert middle == middle[::-1]
        assert pytest.approx(1 / 24) == presets.weights("TRUE_CUBIC_HERMITE", count)[0]


@settings(max_examples=20)
@given(COUNTS)
def test_every_preset_gives_every_block_an_alpha(count: int) -> None:
    """One number a block, all of them in 0 … 1."""
    for row in presets.rows(count):
        assert count == len(row.numbers)
        assert all(0 <= alpha <= 1 for alpha in row.numbers), row.name


@settings(max_examples=20)
@given(COUNTS.filter(lambda n: n != 25))
def test_a_reversed_preset_is_one_minus_the_other(count: int) -> None:
    """To the last bit but one, on every depth."""
    for reverse, name in REVERSED.items():
        plain = presets.weights(name, count)
        assert [1 - alpha for alpha in plain] == pytest.approx(presets.weights(reverse, count), abs=1e-15)


@settings(max_examples=20)
@given(COUNTS)
def test_presets_with_two_like_ends_are_mirrored(count: int) -> None:
    """Exactly, on every depth."""
    for name in MIRRORED:
        numbers = presets.weights(name, count)
        assert numbers == numbers[::-1], name


@settings(max_examples=20)
@given(COUNTS)
def test_curves_with_unlike_ends_turn_about_the_middle(count: int) -> None:
    """What the first blocks have of B, the last have of A."""
    for name in ("SMOOTHSTEP", "SMOOTHSTEP*3", "SMOOTHSTEP/3", "COSINE", "FAKE_CUBIC_HERMITE", "OUT12_5"):
        numbers = presets.weights(name, count)
        assert [1 - alpha for alpha in numbers] == pytest.approx(numbers[::-1], abs=1e-15), name


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_curve_is_the_same_on_twice_as_many_steps(name: str) -> None:
    """Every other block of a model twice as deep has the alpha of the shallow one; between them no jump."""
    for count in (9, 19, 24, 32, 57):
        coarse, fine = presets.weights(name, count), presets.weights(name, 2 * count - 1)
        if 25 not in (count, 2 * count - 1):
            assert coarse == fine[::2]
    dense = presets.weights(name, 2000)
    assert max(abs(x - y) for x, y in pairwise(dense)) < 13 / 2000  # the steepest: SMOOTHSTEP*4


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("MID12_50", "OUT12")])
@settings(max_examples=20)
@given(COUNTS)
def test_whole_blocks_keep_their_share_of_the_depth(name: str, count: int) -> None:
    """A third of 25 blocks is a third of 60, to half a block at each of the four borders at most."""
    share = sum(presets.weights(name, 25)) / 25
    assert abs(sum(presets.weights(name, count)) - share * count) <= 2.001


@settings(max_examples=20)
@given(COUNTS)
def test_out_blocks_lie_behind_the_middle(count: int) -> None:
    """OUT12 is the second half without the middle block; OUT12_5 gives that one a half."""
    half, odd = divmod(count, 2)
    assert (0.0,) * (half + odd) + (1.0,) * half == presets.weights("OUT12", count)
    assert (0.0,) * half + (0.5,) * odd + (1.0,) * half == presets.weights("OUT12_5", count)


def test_sdxl_by_hand() -> None:
    """19 blocks: the ends of WRAP12, the rings and OUT07 lie where they lie in SD 1."""

    def digits(name: str) -> str:
        return "".join(f"{alpha:g}" for alpha in presets.weights(name, 19))

    assert "1111100000000011111" == digits("WRAP12")
    assert "1110000000000000111" == digits("WRAP08")
    assert "0000000000000011111" == digits("OUT07")
    assert "0000011100011100000" == digits("RING08_5")
    assert tuple(abs(i - 9) / 9 for i in range(19)) == pytest.approx(presets.weights("GRAD_V", 19), abs=1e-15)


def test_curves_against_their_closed_form_on_57_blocks() -> None:
    """Flux: the smooth step, its folds and the cosine, written down once more with floats."""
    for block, alpha in enumerate(presets.weights("COSINE", 57)):
        assert isclose((1 + cos(pi * block / 56)) / 2, alpha, abs_tol=1e-15)
    for block, alpha in enumerate(presets.weights("SMOOTHSTEP*3", 57)):
        rise = 3 * (3 * (block / 56) ** 2 - 2 * (block / 56) ** 3)
        assert isclose(rise if rise < 1 else 2 - rise if rise < 2 else rise - 2, alpha, abs_tol=1e-14)
    for block, alpha in enumerate(presets.weights("TRUE_CUBIC_HERMITE", 57)):
        t = block / 56  # the cubic that the published numbers lie on from the second block on
        assert isclose(77 / 12 * t**3 - 77 / 8 * t**2 + 25 / 6 * t + 1 / 24, alpha, abs_tol=1e-14)


def test_one_block_stands_in_the_middle() -> None:
    """Its alpha is that of the middle block of every odd depth."""
    for name in presets.PRESETS:
        assert presets.weights(name, 1)[0] == presets.weights(name, 101)[50]


@given(st.sampled_from(sorted(presets.PRESETS)), st.randoms(use_true_random=False))
def test_names_match_in_any_case_with_either_dash(name: str, random: object) -> None:
    """reverse_smoothstep is REVERSE-SMOOTHSTEP."""
    spelled = "".join(
        random.choice([sign.lower(), sign.upper()]) if sign not in "-_" else random.choice("-_")  # type: ignore[attr-defined]
        for sign in name
    )
    assert name == presets.preset(spelled).name == presets.preset(f" {spelled} ").name


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("WRAP8", "WRAP08"), ("grad", "GRAD_"), ("R_SMOOTHSTEP", "R_SMOOTHSTEP/2"), ("COSIN", "COSINE"),
        ("CUBIC_HERMITE", "TRUE_CUBIC_HERMITE"), ("qqqq", "mergescope presets"), ("", "mergescope presets"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_its_nearest(wrong: str, near: str) -> None:
    """Or where all of them are listed, if nothing is like it."""
    with pytest.raises(RecipeError, match=f"unknown preset '{wrong}'") as caught:
        presets.weights(wrong, 25)
    assert near in str(caught.value)


def test_every_preset_can_be_shown() -> None:
    """Meanings fit a table of 80 columns beside the name and 25 signs; formulas use known letters."""
    assert 38 == len(presets.PRESETS)
    for name, preset in presets.PRESETS.items():
        assert name == preset.name
        assert 0 < len(preset.meaning) <= 27
        assert preset.formula
        assert len(name) <= 26
    assert {"t", "x", "s", "w"} == set(presets.SYMBOLS)
    assert ["t", "s", "w"] == list(presets.symbols("1 − w(3·s(t))"))
    assert ["x"] == list(presets.symbols("1 where |x| > 6.5, else 0"))
    assert [] == list(presets.symbols("the cubic from 0 to 1 with slope 25/6 at both ends"))


def test_a_row_says_where_its_numbers_are_not_the_formulas() -> None:
    """On 25 blocks alone."""
    assert ("block 6 of 25 has 0.5, as published; the formula gives 0",) == presets.row("mid12-50").notes
    assert () == presets.row("MID12_50", 24).notes
    assert 3 == sum(bool(row.notes) for row in presets.rows())
