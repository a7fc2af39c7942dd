"""A recovery in the terminal and as JSON. Knows what was found, no formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from analyzer.cli.rankings import Column, print_table
from analyzer.cli.summaries import model_line
from analyzer.cli.terminal import OutputConsole, is_fancy, list_some, printable, spelled, wrapped
from analyzer.records import ModelId
from analyzer.recovery import Group, Recovered, Recovery
from analyzer.recovery.fits import Fit, fit
from analyzer.recovery.grams import Gram
from analyzer.recovery.sentences import command, is_whole, sentences
from analyzer.recovery.summing import KeyGram

FORMAT, VERSION = "mergescope.recovery", 1
_HOPELESS = 0.9  # of what the merge changed is in no parent: no command comes near it
_SURE = 1e-3  # an alpha that is surer may be a number that somebody wrote
_AXIS_WORDS = {
    "block": ("block", "blocks"),
    "component": ("category", "categories"),
    "part": ("part", "parts"),
    "kind": ("kind", "kinds"),
}


def notes(recovery: Recovery) -> list[str]:
    """What was left out of the comparison, and what was odd about the files."""
    said = list(recovery.notes)
    for what, keys in (
        ("of A are not in the merge, or of another shape there", recovery.lacking),
        ("of the merge are not in A, and not looked at", recovery.added),
        ("are in A and in the merge alone, so they can only come from A", recovery.only_in_a),
        ("of A are not in C, so no alpha is told of them", recovery.without_c),
    ):
        if keys:
            said.append(f"{len(keys):,} keys {what}: {list_some(keys)}")
    return said


def print_recovery(recovery: Recovery, found: Recovered, tables: Mapping[str, Sequence[Group]]) -> None:
    """The models, what was found, the tables, and the command that makes the merge again."""
    console = OutputConsole()
    for name, model in _models(recovery).items():
        console.print(Text.assemble((f"{name}  ", "bold"), model_line(model)), soft_wrap=True)
    console.print()
    mark = "•" if is_fancy(console.encoding) else "-"
    for sentence in sentences(recovery, found):
        console.print(wrapped(spelled(sentence, console.encoding), width=console.width, mark=mark))
    for axis, groups in tables.items():
        _print_groups(groups, axis, found, console)
    again = command(recovery, found)
    if again is not None and found.whole.gram.moved and (found.whole.unexplained or 0.0) < _HOPELESS:
        console.print()
        console.print(
            Text("made again by:" if is_whole(found) else "the nearest that a merge of these comes:")
        )
        console.print(Text(printable(again)), soft_wrap=True)


def dumps(recovery: Recovery, found: Recovered, tables: Mapping[str, Sequence[Group]]) -> bytes:
    """The recovery as one JSON document; what is undefined or without an end is null."""
    made = found.made
    document = {
        "format": FORMAT,
        "version": VERSION,
        "tool": recovery.tool,
        "models": {name.lower(): asdict(model) for name, model in _models(recovery).items()},
        "form": found.form,
        "sentences": sentences(recovery, found),
        "whole": _group(found.whole),
        "groups": {axis: [_group(group) for group in groups] for axis, groups in tables.items()},
        "command": command(recovery, found),
        "recipe": made
        and {
            "alpha": made.alpha,
            "blocks": list(recovery.blocks) if made.block_weights is not None else None,
            "block_weights": made.block_weights,
            "preset": made.preset,
            "base_alpha": made.base_alpha,
            "sets": made.sets,
            "exact": made.exact,
            "left": made.left,
        },
        "gamma": found.gamma,
        "keys": [_key(recovery, row) for row in recovery.rows],
        "foreign": found.foreign_keys,
        "strange": [row.key for row in found.strange],
        "whole_numbers": [
            {"key": row.key, "equals_a": row.equals_a, "equals_b": row.equals_b}
            for row in recovery.equalities
        ],
        "not_in_m": recovery.lacking,
        "not_in_a": recovery.added,
        "not_in_b": recovery.only_in_a,
        "not_in_c": recovery.without_c,
        "notes": recovery.notes,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2)


def _models(recovery: Recovery) -> dict[str, ModelId]:
    known = {"M": recovery.m, "A": recovery.a, "B": recovery.b, "C": recovery.c}
    return {name: model for name, model in known.items() if model is not None}


def _print_groups(groups: Sequence[Group], axis: str, found: Recovered, console: Console) -> None:
    """A line for each group that can tell; of the others how many there are."""
    one, many = _AXIS_WORDS.get(axis, ("group", "groups"))
    equal = [group for group in groups if group.equal]
    shown = [group for group in groups if not group.equal]
    if shown:
        console.print()
        print_table([group.name for group in shown], _columns(shown, found), console)
    for what, hidden in (("A and B are equal", equal),):
        if hidden and found.form == "of B":
            count = f"{len(hidden):,} {'other ' if shown else ''}{one if len(hidden) == 1 else many}"
            console.print(Text(f"cannot tell in {count}: {what} there"), soft_wrap=True)


def _columns(groups: Sequence[Group], found: Recovered) -> list[Column]:
    columns = [
        Column("keys", [f"{group.keys:,}" for group in groups], left_out=2),
        Column("alpha", [_alpha(group) for group in groups]),
        Column("±", ["" if group.spread else _error(group.fit.error) for group in groups], left_out=3),
    ]
    if found.form == "sum":
        columns += [
            Column("gamma", [_value(group.gamma) for group in groups]),
            Column("±", [_error(group.fit.gamma_error) for group in groups], left_out=4),
        ]
    if any(group.spread for group in groups):
        columns.append(Column("its keys'", [_spread(group) for group in groups], left_out=1))
    parents = "A, B, C" if found.form != "of B" else "A, B"
    columns.append(Column(f"not of\n{parents}", [_share(group.unexplained) for group in groups]))
    if any(group.foreign for group in groups):
        columns.append(Column("foreign", [_share(group.foreign) for group in groups], left_out=5))
    return columns


def _alpha(group: Group) -> str:
    """The one alpha of all keys in full; a mean of several to four decimals."""
    if group.alpha is None:
        return "–"
    found = group.fit
    sure = found.error is not None and found.error < _SURE
    return f"{group.alpha:.6g}" if sure and not group.spread else f"{group.alpha:.4f}"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _error(error: float | None) -> str:
    if error is None:
        return "–"
    return f"{error:.0e}" if error < 1e-3 else f"{error:.3f}" if error < 10 else ">10"


def _spread(group: Group) -> str:
    return "" if group.spread is None else f"{group.spread[0]:.3g} … {group.spread[1]:.3g}"


def _share(share: float | None) -> str:
    if share is None:
        return "–"
    return "0" if share == 0 else "<0.1%" if share < 0.001 else f"{share:.1%}"


def _group(group: Group) -> dict[str, Any]:
    return {
        "labels": group.place,
        "name": group.name,
        "keys": group.keys,
        "numel": group.gram.numel,
        "alpha": group.alpha,
        "gamma": group.gamma,
        "spread": group.spread,
        "unexplained": group.unexplained,
        "foreign": group.foreign,
        "parents_equal": group.equal,
        "fit": _fit(group.fit),
        "sums": _sums(group.gram),
    }


def _key(recovery: Recovery, row: KeyGram) -> dict[str, Any]:
    labels = row.labels
    return {
        "key": row.key,
        "rows": row.word or None,
        "part": labels.part,
        "block": labels.block,
        "component": labels.component,
        "kind": labels.kind,
        "counted": labels.counted,
        "fit": _fit(fit(row.gram, three=recovery.c is not None)),
        "sums": _sums(row.gram),
    }


def _fit(found: Fit) -> dict[str, Any]:
    return {
        "alpha": found.alpha,
        "gamma": found.gamma,
        "low": found.low,
        "high": found.high,
        "error": _finite(found.error),
        "gamma_error": _finite(found.gamma_error),
        "together": found.together,
        "residual": _finite(found.residual),
        "unexplained": found.unexplained,
    }


def _sums(gram: Gram) -> dict[str, Any]:
    """What was summed; a bound or a rounding that is not known is null."""
    return {name: _finite(value) for name, value in asdict(gram).items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
