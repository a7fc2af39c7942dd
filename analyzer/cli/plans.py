"""A merge plan, as a person reads it before or after the merge."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click
import orjson
from rich.text import Text

from analyzer.cli.terminal import OutputConsole, list_some, printable
from analyzer.records import Plan

if TYPE_CHECKING:
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


def print_plan(plan: Plan, found: Forecast | None) -> None:
    """Every key with its action, alpha and reason, a line each, then the counts and what is predicted."""
    console = OutputConsole()
    for action in plan.actions:
        alpha = "–" if action.alpha is None else f"{action.alpha:.4g}"
        line = f"{action.verb:6}{alpha:>7}  {printable(action.key)}  ({printable(action.reason)})"
        console.print(Text(line, style="" if action.verb in ("keep", "cast") else "bold"), soft_wrap=True)
    for key in plan.dropped:
        console.print(Text(f"drop        –  {printable(key)}  (only in B)"), soft_wrap=True)
    for key in plan.pruned:
        console.print(Text(f"drop        –  {printable(key)}  (--prune-ema)"), soft_wrap=True)
    console.print()
    print_plan_summary(plan)
    if found is not None:
        from analyzer.cli import forecasts

        forecasts.print_forecast(found)


def print_outcome(found: Forecast | None, verified: Verification | None) -> None:
    """What was measured of the written model, or what was predicted of it, if anything was."""
    if found is None and verified is None:
        return
    from analyzer.cli import forecasts  # what most merges do without is not imported for them

    if verified is not None:
        forecasts.print_verification(verified)
    elif found is not None:
        forecasts.print_forecast_line(found)


def print_json(plan: Plan, found: Forecast | None) -> None:
    """The plan as one JSON document; without a scan there is no prediction."""
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
