"""A predicted merge, and what was measured of it, as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from analyzer.cli.rankings import Column, print_table
from analyzer.cli.terminal import OutputConsole, spelled
from analyzer.prediction.forecast import Forecast
from analyzer.prediction.verification import Verification

_UNKNOWN = "–"
_WHOLE = "all"
_NAMES = {
    "norm": "norm",
    "distance_a": "distance to A",
    "distance_b": "distance to B",
    "cosine_a": "cosine with A",
    "cosine_b": "cosine with B",
}


def print_forecast(found: Forecast) -> None:
    """The merged model and its categories as a table; those in which nothing differs are counted below."""
    console = OutputConsole()
    moved = [group for group in found.groups if group.prediction.distance_a or group.prediction.distance_b]
    rows = [(_WHOLE, found.whole), *((group.name, group.prediction) for group in moved)]
    console.print()
    part = "" if found.whole.keys == found.keys else f", of {found.whole.keys:,} of {found.keys:,} keys"
    console.print(Text(f"predicted, before rounding{part}", style="bold"))
    print_table(
        [name for name, _ in rows],
        [
            Column("keys", [f"{p.keys:,}" for _, p in rows], left_out=3),
            Column("distance\nto A", [_short(p.distance_a) for _, p in rows]),
            Column("distance\nto B", [_short(p.distance_b) for _, p in rows]),
            Column("cosine\nwith A", [_cosine(p.cosine_distance_a) for _, p in rows]),
            Column("cosine\nwith B", [_cosine(p.cosine_distance_b) for _, p in rows]),
            Column("norm", [_short(p.norm) for _, p in rows], left_out=2),
            Column("step\nsurvives", [_share(p.survives) for _, p in rows], left_out=1),
        ],
        console,
    )
    if same := len(found.groups) - len(moved):
        what = "category" if same == 1 else "categories"
        console.print(Text(f"nothing differs in {same} other {what}"), soft_wrap=True)


def print_forecast_line(found: Forecast) -> None:
    """The merged model in one line."""
    whole = found.whole
    if whole.distance_a is None and whole.distance_b is None:
        return
    console = OutputConsole()
    text = (
        f"predicted: {_short(whole.distance_a)} of A's length from A, {_short(whole.distance_b)} of B's "
        f"from B, cosine {_cosine(whole.cosine_distance_a)} and {_cosine(whole.cosine_distance_b)}"
    )
    console.print(Text(spelled(text, console.encoding)), soft_wrap=True)


def document(found: Forecast) -> dict[str, Any]:
    """The prediction as plain values."""
    groups: Sequence[dict[str, Any]] = [
        {"name": group.name, "selector": group.selector, **asdict(group.prediction)} for group in found.groups
    ]
    return {**asdict(found.whole), "groups": groups}


def _short(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"


def _cosine(distance: float | None) -> str:
    """Enough digits to tell it from 1."""
    if distance is None:
        return _UNKNOWN
    return f"1 − {distance:.2g}" if 0 < distance < 1e-4 else f"{1 - distance:.4f}"


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{100 * value:.0f}%"


def print_verification(found: Verification) -> None:
    """What was measured of the written model beside what was predicted."""
    console = OutputConsole()
    parts = [f"verified: {found.keys:,} keys measured, {found.copied:,} copied byte for byte"]
    if not found.keys and not found.copied:
        parts = ["nothing was verified"]
    if found.unpredicted:
        have, were = ("key has", "was") if found.unpredicted == 1 else ("keys have", "were")
        parts.append(f"{found.unpredicted:,} {have} no prediction and {were} not compared")
    console.print(Text("; ".join(parts)), soft_wrap=True)
    if not found.whole.measured.keys:
        return
    print_table(
        [_NAMES[value.statistic] for value in found.whole.values],
        [
            Column("predicted", [_exact(value.predicted) for value in found.whole.values]),
            Column("measured", [_exact(value.measured) for value in found.whole.values]),
            Column("rounding\nallows ±", [f"{value.allowed:.1g}" for value in found.whole.values]),
        ],
        console,
    )


def _exact(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.9g}"
