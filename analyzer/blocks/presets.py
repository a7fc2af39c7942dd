"""Block-weight presets as formulas of a block's position, so that each works on any number of blocks.

The names, and their numbers on 25 blocks, are those that users know from the merge-block-weighted extension
of bbc-mc and from SuperMerger. A curve is a formula of t, which runs from 0 at the first block to 1 at the
last, so that both ends are always reached. Presets that take whole blocks take a share of the depth: theirs
is x, the distance of a block's centre from the middle, in 25ths of the depth. Their limits are the middle
itself, or half-way between two blocks of 25, where no centre ever lies.

Knows no models and no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import cos, pi

from analyzer.errors import RecipeError

USUAL = 25  # blocks of SD 1 and 2, for which the presets were first written down

_NEAREST = 3  # names that a message offers
_LIKE = 0.5  # difflib's ratio from which on a name is near
_COMPARED = 100  # characters of a name


@dataclass(frozen=True, slots=True)
class Position:
    """Where a block stands, exactly."""

    t: Fraction  # 0 for the first block, 1 for the last, ½ for one that is alone
    x: Fraction  # within −12.5 … 12.5, negative before the middle, 0 in it


Curve = Callable[[Position], Fraction | float]  # an alpha, in 0 … 1


@dataclass(frozen=True, slots=True)
class Preset:
    """One preset. `at` is exact where the formula is rational, so that mirrored blocks are equal."""

    name: str
    meaning: str  # a line, for people
    formula: str  # what `at` computes, in terms of t or x
    at: Curve


@dataclass(frozen=True, slots=True)
class PresetRow:
    """A preset as a table shows it."""

    name: str
    meaning: str
    formula: str
    numbers: tuple[float, ...]  # alphas of the blocks, the first block first
    notes: tuple[str, ...] = ()  # where the numbers are not the formula's


def preset(name: str) -> Preset:
    """The preset of that name, whatever its case and whether with - or _.

    RecipeError with the nearest names if there is none.
    """
    found = find(name)
    if found is None:
        raise RecipeError(f"unknown preset {name[:_COMPARED]!r}: {nearest(name)}")
    return found


def find(name: str) -> Preset | None:
    """The preset of that name, whatever its case and whether with - or _; None if there is none."""
    return _BY_FOLDED_NAME.get(fold(name))


def fold(name: str) -> str:
    """What two spellings of one name have in common."""
    return name.strip().casefold().replace("-", "_")


def nearest(name: str, *, among: Iterable[str] = ()) -> str:
    """The way out of an unknown name: up to three that are like it, of these and of those that ship."""
    known = {fold(other): other for other in (*PRESETS, *among)}
    near = get_close_matches(fold(name)[:_COMPARED], known, n=_NEAREST, cutoff=_LIKE)
    if near:
        return f"nearest are {', '.join(known[folded] for folded in near)}"
    return "mergescope presets lists all, GRAD_V, WRAP12 and COSINE among them"


def weights(name: str, count: int) -> tuple[float, ...]:
    """The alphas of `count` ≥ 1 blocks, in 0 … 1, the first block first.

    On 25 blocks they are those of the published tables to 1e-9, `EXCEPTIONS` included. RecipeError for
    an unknown name.
    """
    chosen = preset(name)
    exceptions = _exceptions(chosen, count)
    return tuple(exceptions.get(block, float(chosen.at(position(block, count)))) for block in range(count))


def position(block: int, count: int) -> Position:
    """Where block 0 … count − 1 of so many stands."""
    t = Fraction(block, count - 1) if count > 1 else Fraction(1, 2)
    return Position(t, Fraction(USUAL * (2 * block + 1 - count), 2 * count))


def rows(count: int = USUAL) -> tuple[PresetRow, ...]:
    """All presets in their order, with the alphas of `count` ≥ 1 blocks."""
    return tuple(row(name, count) for name in PRESETS)


def row(name: str, count: int = USUAL) -> PresetRow:
    """One preset with the alphas of `count` ≥ 1 blocks; RecipeError for an unknown name."""
    chosen = preset(name)
    numbers = weights(chosen.name, count)
    notes = tuple(
        f"block {block + 1} of 25 has {alpha:g}, as published; the formula gives "
        f"{float(chosen.at(position(block, count))):.4g}"
        for block, alpha in _exceptions(chosen, count).items()
    )
    return PresetRow(chosen.name, chosen.meaning, chosen.formula, numbers, notes)


def symbols(formula: str) -> Mapping[str, str]:
    """What the letters that stand in a formula mean."""
    used = set(re.findall(r"(?<![a-z])[a-z](?![a-z])", formula))
    return {letter: meaning for letter, meaning in SYMBOLS.items() if letter in used}


def _exceptions(chosen: Preset, count: int) -> Mapping[int, float]:
    return EXCEPTIONS.get(chosen.name, {}) if count == USUAL else {}


def _smooth(y: Fraction) -> Fraction:
    """3y² − 2y³: the cubic from 0 to 1 that is level at both ends, known as smoothstep."""
    return y * y * (3 - 2 * y)


def _wave(y: Fraction) -> Fraction:
    """The triangle wave: 0 at even, 1 at odd numbers, straight between them."""
    return 1 - abs(1 - y % 2)


def _constant(alpha: Fraction) -> Curve:
    return lambda _: alpha


def _outside(limit: Fraction) -> Curve:
    return lambda p: Fraction(abs(p.x) > limit)


def _ring(inner: Fraction, outer: Fraction) -> Curve:
    return lambda p: Fraction(inner < abs(p.x) < outer)


def _soft_ring(p: Position) -> Fraction:
    return min(max((3 - abs(abs(p.x) - 5)) / 2, Fraction(0)), Fraction(1))


def _folded_rise(times: int) -> Curve:
    return lambda p: _wave(times * _smooth(p.t))


def _swings(count: int) -> Curve:
    return lambda p: _smooth(_wave(count * p.t))


def _hermite(start: Fraction) -> Curve:
    """The cubic from `start` to 1 with slope 25/6 at both ends (Hermite's form)."""
    slope = Fraction(25, 6)
    return lambda p: start + (1 - start) * _smooth(p.t) + slope * p.t * (1 - p.t) * (1 - 2 * p.t)


def _reversed(curve: Curve) -> Curve:
    return lambda p: 1 - curve(p)


def _gradient(p: Position) -> Fraction:
    return abs(2 * p.t - 1)


def _rise(p: Position) -> Fraction:
    return _smooth(p.t)


def _cosine(p: Position) -> float:
    return (1 + cos(pi * p.t)) / 2


_HALF = Fraction(1, 2)
_TRUE, _FAKE = _hermite(Fraction(1, 24)), _hermite(Fraction(0))

_ALL = (
    Preset("GRAD_V", "B at the ends, A inside", "|2t − 1|", _gradient),
    Preset("GRAD_A", "A at the ends, B inside", "1 − |2t − 1|", _reversed(_gradient)),
    Preset("FLAT_25", "a quarter of B everywhere", "0.25", _constant(Fraction(1, 4))),
    Preset("FLAT_75", "three quarters of B", "0.75", _constant(Fraction(3, 4))),
    Preset("WRAP08", "the outer 8 blocks of 25", "1 where |x| > 8.5, else 0", _outside(Fraction(17, 2))),
    Preset("WRAP12", "the outer 12 blocks of 25", "1 where |x| > 6.5, else 0", _outside(Fraction(13, 2))),
    Preset("WRAP14", "the outer 14 blocks of 25", "1 where |x| > 5.5, else 0", _outside(Fraction(11, 2))),
    Preset("WRAP16", "the outer 16 blocks of 25", "1 where |x| > 4.5, else 0", _outside(Fraction(9, 2))),
    Preset(
        "MID12_50", "half of B, middle 13 of 25",
        "0.5 where |x| < 6.5, else 0", lambda p: _HALF * (abs(p.x) < Fraction(13, 2)),
    ),
    Preset("OUT07", "the last 7 blocks of 25", "1 where x > 5.5, else 0", lambda p: Fraction(p.x > 5.5)),
    Preset("OUT12", "all behind the middle", "1 where x > 0, else 0", lambda p: Fraction(p.x > 0)),
    Preset(
        "OUT12_5", "OUT12 and half the middle",
        "1 where x > 0, 0.5 at 0, else 0", lambda p: Fraction(p.x > 0) + _HALF * (p.x == 0),
    ),
    Preset(
        "RING08_SOFT", "two soft bands of 4 blocks",
        "(3 − ||x| − 5|) / 2, within 0 … 1", _soft_ring,
    ),
    Preset(
        "RING08_5", "8 blocks round a gap of 5",
        "1 where 2.5 < |x| < 6.5, else 0", _ring(Fraction(5, 2), Fraction(13, 2)),
    ),
    Preset(
        "RING10_5", "10 blocks round a gap of 5",
        "1 where 2.5 < |x| < 7.5, else 0", _ring(Fraction(5, 2), Fraction(15, 2)),
    ),
    Preset(
        "RING10_3", "10 blocks round a gap of 3",
        "1 where 1.5 < |x| < 6.5, else 0", _ring(Fraction(3, 2), Fraction(13, 2)),
    ),
    Preset("SMOOTHSTEP", "from A to B, smoothly", "s(t)", _rise),
    Preset("REVERSE-SMOOTHSTEP", "from B to A, smoothly", "1 − s(t)", _reversed(_rise)),
    Preset("SMOOTHSTEP*2", "to B and back", "w(2·s(t))", _folded_rise(2)),
    Preset("R_SMOOTHSTEP*2", "1 − SMOOTHSTEP*2", "1 − w(2·s(t))", _reversed(_folded_rise(2))),
    Preset("SMOOTHSTEP*3", "to B, back, and to B", "w(3·s(t))", _folded_rise(3)),
    Preset("R_SMOOTHSTEP*3", "1 − SMOOTHSTEP*3", "1 − w(3·s(t))", _reversed(_folded_rise(3))),
    Preset("SMOOTHSTEP*4", "to B and back, twice", "w(4·s(t))", _folded_rise(4)),
    Preset("R_SMOOTHSTEP*4", "1 − SMOOTHSTEP*4", "1 − w(4·s(t))", _reversed(_folded_rise(4))),
    Preset("SMOOTHSTEP/2", "to B and back, even waves", "s(w(2t))", _swings(2)),
    Preset("R_SMOOTHSTEP/2", "1 − SMOOTHSTEP/2", "1 − s(w(2t))", _reversed(_swings(2))),
    Preset("SMOOTHSTEP/3", "to B, back, to B, evenly", "s(w(3t))", _swings(3)),
    Preset("R_SMOOTHSTEP/3", "1 − SMOOTHSTEP/3", "1 − s(w(3t))", _reversed(_swings(3))),
    Preset("SMOOTHSTEP/4", "twice to B and back, evenly", "s(w(4t))", _swings(4)),
    Preset("R_SMOOTHSTEP/4", "1 − SMOOTHSTEP/4", "1 − s(w(4t))", _reversed(_swings(4))),
    Preset("COSINE", "from B to A along a cosine", "(1 + cos πt) / 2", _cosine),
    Preset("REVERSE_COSINE", "from A to B along a cosine", "(1 − cos πt) / 2", _reversed(_cosine)),
    Preset(
        "TRUE_CUBIC_HERMITE", "A, half of each, then B",
        "the cubic from 1/24 to 1 with slope 25/6 at both ends", _TRUE,
    ),
    Preset(
        "TRUE_REVERSE_CUBIC_HERMITE", "B, half of each, then A",
        "1 − TRUE_CUBIC_HERMITE", _reversed(_TRUE),
    ),
    Preset(
        "FAKE_CUBIC_HERMITE", "A, half of each, then B",
        "the cubic from 0 to 1 with slope 25/6 at both ends", _FAKE,
    ),
    Preset(
        "FAKE_REVERSE_CUBIC_HERMITE", "B, half of each, then A",
        "1 − FAKE_CUBIC_HERMITE", _reversed(_FAKE),
    ),
    Preset("ALL_A", "all of A", "0", _constant(Fraction(0))),
    Preset("ALL_B", "all of B", "1", _constant(Fraction(1))),
)  # fmt: skip

# What the letters of the formulas mean.
SYMBOLS: Mapping[str, str] = {
    "t": "0 at the first block, 1 at the last, ½ of one that is alone",
    "x": "25 · (block + ½) / blocks − 12½, the first block being 0: how far behind the middle",
    "s": "s(y) = 3y² − 2y³, level at 0 and 1",
    "w": "the triangle wave, 0 at even and 1 at odd numbers",
}

PRESETS: Mapping[str, Preset] = {entry.name: entry for entry in _ALL}

# Where the published tables contradict their own formula: on 25 blocks these numbers stand, by the block's
# place. MID12_50 gives 13 blocks that lie evenly round the middle, and IN05 besides. The cubic of the two
# Hermite presets begins at 1/24 and at 23/24; the tables begin at 0 and 1, and follow it from IN01 on.
EXCEPTIONS: Mapping[str, Mapping[int, float]] = {
    "MID12_50": {5: 0.5},
    "TRUE_CUBIC_HERMITE": {0: 0.0},
    "TRUE_REVERSE_CUBIC_HERMITE": {0: 1.0},
}

_BY_FOLDED_NAME: Mapping[str, Preset] = {fold(name): entry for name, entry in PRESETS.items()}
