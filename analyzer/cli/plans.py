"""A merge plan, as a person reads it before or after the merge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.text import Text

from analyzer.cli.terminal import OutputConsole, list_some, printable, spelled
from analyzer.records import Action, Labels, Plan

if TYPE_CHECKING:
    from rich.console import Console

    from analyzer.prediction.forecast import Forecast
    from analyzer.prediction.verification import Verification

# What the counts are called, in the order in which a reader cares.
_VERBS = {
    "merge": "blended",
    "take": "taken from B",
    "bake": "taken from --vae",
    "add": "added from B",
    "reset": "reset",
    "cast": "kept from A, cast",
    "keep": "kept from A as they are",
}
# As block weights are written: text encoders (BASE) first, then what has blocks, then the VAE and the rest.
_ENCODERS, _LAYERED = 0, 1
_LATER = {"vae": 2, "other": 3, "ema": 4}
_GAP = 3  # columns between cells


def print_plan(plan: Plan, found: Forecast | None) -> None:
    """Every key with its action, alpha and reason, a line each, then alphas, counts and the prediction.

    Keys stand in the order of the network, those of a block under its name.
    """
    console = OutputConsole()
    actions = sorted(plan.actions, key=_network_order(plan))
    for title, lines in _sections(plan, actions).items():
        console.print(Text(spelled(printable(title), console.encoding), style="underline"))
        for text, style in lines:
            console.print(Text(spelled(text, console.encoding), style=style), soft_wrap=True)
        console.print()
    _print_alphas(plan, actions, console)
    print_plan_summary(plan)
    if found is not None:
        from analyzer.cli import forecasts

        forecasts.print_forecast(found)


def _sections(plan: Plan, actions: Iterable[Action]) -> dict[str, list[tuple[str, str]]]:
    """A line and its style for every key, by the place in the network where it stands."""
    sections: dict[str, list[tuple[str, str]]] = {}
    layered = _layered(plan)
    for action in actions:
        labels = plan.labels[action.key]
        title = labels.part if (block := _block(labels, layered)) == labels.part else f"{labels.part} {block}"
        style = "" if action.verb in ("keep", "cast") else "bold"
        line = _line(action.verb, action.alpha, action.key, action.reason)
        sections.setdefault(title, []).append((line, style))
    left = [*((key, "only in B") for key in plan.dropped), *((key, "--prune-ema") for key in plan.pruned)]
    if left:
        sections["left out"] = [(_line("drop", None, key, why), "") for key, why in left]
    return sections


def _line(verb: str, alpha: float | None, key: str, reason: str) -> str:
    number = "–" if alpha is None else f"{alpha:.4g}"
    return f"{verb:6}{number:>7}  {printable(key)}  ({printable(reason)})"


def _network_order(plan: Plan) -> Callable[[Action], tuple[Any, ...]]:
    """What sorts keys by part, block and name, numbers in names being numbers."""
    places = {block: place for place, block in enumerate(plan.blocks)}
    layered = _layered(plan)

    def order(action: Action) -> tuple[Any, ...]:
        labels = plan.labels[action.key]
        rank = _LAYERED if labels.part in layered else _LATER.get(labels.part, _ENCODERS)
        return rank, labels.part, places.get(labels.block, -1), labels.block, _natural(action.key)

    return order


def _natural(key: str) -> list[tuple[int, str]]:
    """`layers.2` before `layers.10`; numbers are compared by length first, for they may be very long."""
    return [(len(word) if word.isdigit() else 0, word) for word in re.split(r"(\d+)", key)]


def _layered(plan: Plan) -> set[str]:
    """The parts that have blocks."""
    blocks = set(plan.blocks)
    return {labels.part for labels in plan.labels.values() if labels.block in blocks}


def _block(labels: Labels, layered: Collection[str]) -> str:
    """The block; of a part that has none, the part."""
    return labels.block if labels.part in layered else labels.part


def _print_alphas(plan: Plan, actions: Sequence[Action], console: Console) -> None:
    """The alphas by part, block or category, whichever tells them best; nothing where all are one."""
    rows = [
        (labels, action.alpha)
        for action in actions
        if action.alpha is not None and (labels := plan.labels[action.key]).counted
    ]
    if len({alpha for _, alpha in rows}) < 2:
        return
    layered = _layered(plan)
    tables = {
        "part": _ranges((labels.part, alpha) for labels, alpha in rows),
        "block": _ranges((_block(labels, layered), alpha) for labels, alpha in rows),
        "category": _ranges((labels.group.rpartition("/")[2], alpha) for labels, alpha in rows),
    }
    mixed = {axis: sum(low != high for low, high in t.values()) / len(t) for axis, t in tables.items()}
    # A part of many alphas tells nothing of them; a block at least how far they go.
    axis = "part" if not mixed["part"] else min("block", "category", key=lambda name: mixed[name])
    if plan.recipe.get("block_weights") is not None:
        axis = "block"
    console.print(Text(f"alpha by {axis}", style="bold"))
    cells = [
        (printable(name), f"{low:.4g}" if low == high else f"{low:.4g} … {high:.4g}")
        for name, (low, high) in tables[axis].items()
        if (low, high) != (0, 0)
    ]
    for line in _columns(cells, console.width):
        console.print(Text(spelled(line, console.encoding)), soft_wrap=True)
    if none := [name for name, alphas in tables[axis].items() if alphas == (0, 0)]:
        console.print(Text(f"0 in {list_some(none)}"), soft_wrap=True)
    console.print()


def _ranges(rows: Iterable[tuple[str, float]]) -> dict[str, tuple[float, float]]:
    """The least and the largest alpha by name, the names in the order in which they come."""
    found: dict[str, tuple[float, float]] = {}
    for name, alpha in rows:
        low, high = found.get(name, (alpha, alpha))
        found[name] = (min(low, alpha), max(high, alpha))
    return found


def _columns(cells: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names and values, as many to a line as fit, read line by line."""
    name, value = (max(len(cell[side]) for cell in cells) for side in (0, 1))
    texts = [f"{cell[0]:{name}} {cell[1]:{value}}" for cell in cells]
    count = max((width + _GAP) // (name + 1 + value + _GAP), 1)
    rows = [texts[start : start + count] for start in range(0, len(texts), count)]
    return [(" " * _GAP).join(row).rstrip() for row in rows]


def print_outcome(found: Forecast | None, verified: Verification | None) -> None:
    """What was measured of the written model, or what was predicted of it, if anything was."""
    if found is None and verified is None:
        return
    from analyzer.cli import forecasts  # what most merges do without is not imported for them

    if verified is not None:
        forecasts.print_verification(verified)
    elif found is not None:
        forecasts.print_forecast_line(found)


def print_json(plan: Plan, found: Forecast | None, verified: Verification | None = None) -> None:
    """The plan as one JSON document; what there is no scan for, or was not verified, is null."""
    prediction = None
    if found is not None:
        from analyzer.cli import forecasts

        prediction = forecasts.document(found)
    document = {
        "format": "mergescope.plan",
        "version": 1,
        "counts": dict(sorted(Counter(action.verb for action in plan.actions).items())),
        "warnings": plan.warnings,
        "only_in_a": plan.only_in_a,
        "only_in_b_dropped": plan.dropped,
        "pruned": plan.pruned,
        "shape_mismatch": plan.shape_mismatch,
        "recipe": plan.recipe,
        "prediction": prediction,
        "verification": None if verified is None else asdict(verified),
        "actions": plan.actions,
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def print_plan_summary(plan: Plan) -> None:
    """How many keys go which way, and what was left out."""
    console = OutputConsole()
    counts = Counter(action.verb for action in plan.actions)
    parts = [f"{counts[verb]:,} {name}" for verb, name in _VERBS.items() if counts[verb]]
    console.print(Text(f"{len(plan.actions):,} keys: {', '.join(parts)}"), soft_wrap=True)
    for what, keys in (
        ("kept, shapes differ", list(plan.shape_mismatch)),
        ("only in A, kept", list(plan.only_in_a)),
        ("only in B, left out", list(plan.dropped)),
        ("EMA copies, left out", list(plan.pruned)),
        ("only in B, added", [a.key for a in plan.actions if a.verb == "add"]),
    ):
        if keys:
            console.print(Text(f"{what}: {len(keys):,} ({list_some(keys)})"), soft_wrap=True)
