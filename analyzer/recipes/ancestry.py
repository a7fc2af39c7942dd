"""The history of a merged model as short lines for people, the youngest merge first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analyzer.fields import brief
from analyzer.recipes.document import METADATA_NAME
from analyzer.recipes.history import FOREIGN, Document, inputs_of, read_history

MAX_LINES = 24

_LONGEST = 60  # characters of one option's value
_ROLES = {"base": "base", "vae": "VAE"}
_PLAIN = {"method", "alpha", "base_alpha", "position_ids"}  # the options of a merge that two weights describe


def history_lines(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What a model's metadata says of its making; none if it says nothing.

    Names and options come from a file, with their control characters spelled out.
    """
    lines: list[str] = []
    text = metadata.get(METADATA_NAME)
    if text is not None:
        document = read_history(text)
        lines += [f"{METADATA_NAME} in its metadata is no sound recipe"] if document is None else []
        lines += describe(document) if document is not None else []
    return (*lines, *(f"holds {_recipe_of(tool)}" for tool in _tools(metadata)))


def describe(document: Document) -> tuple[str, ...]:
    """A merge, and below it, further to the right, those that its inputs came from; at most MAX_LINES.

    `document` is sound, as `read_history` gives it.
    """
    lines = list(_lines(document, "", 0))
    more = len(lines) - MAX_LINES
    return tuple(lines if more <= 0 else [*lines[:MAX_LINES], f"and {more} more lines: --json has all"])


def _lines(document: Document, name: str, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{name}{_merge(document)}"
    for _, entry in inputs_of(document):
        name = f"{brief(entry['name'])}: "
        if "recipe" in entry:
            yield from _lines(entry["recipe"], name, depth + 1)
        elif entry.get("history") == "above":
            yield f"{'  ' * (depth + 1)}{name}as told elsewhere here"
        elif entry.get("history") == "left out":
            yield f"{'  ' * (depth + 1)}{name}its history is left out"
        for tool in _tools(entry.get("foreign", {})):
            yield f"{'  ' * (depth + 1)}{name}holds {_recipe_of(tool)}"


def _tools(texts: Mapping[str, str]) -> list[str]:
    """The other tools that left recipes, each once."""
    return list(dict.fromkeys(tool for name, tool in FOREIGN.items() if name in texts))


def _recipe_of(tool: str) -> str:
    return f"a recipe of {tool}"


def _merge(document: Document) -> str:
    """One merge in one sentence."""
    options = document["recipe"]
    inputs = list(inputs_of(document))
    names = {side: [brief(entry["name"]) for s, entry in inputs if s == side] for side, _ in inputs}
    merged = [*names["a"], *names["b"], *names.get("models", [])]
    said = {name: value for name, value in options.items() if name not in ("method", "weights")}
    if weights := _weights(options, inputs):
        merged = [f"{name} ({weight:.4g})" for name, weight in zip(merged, weights, strict=True)]
        said = {}
    if said.get("base_alpha") == said.get("alpha"):
        said.pop("base_alpha", None)
    if said.get("position_ids") == "keep":
        said.pop("position_ids")
    others = [f"{role} {names[side][0]}" for side, role in _ROLES.items() if side in names]
    method = brief(str(options.get("method", "weighted_sum")))
    parts = [method, *others, *(_option(name, value) for name, value in said.items())]
    return f"merged from {', '.join(merged[:-1])} and {merged[-1]} by {', '.join(parts)}"


def _weights(options: Mapping[str, Any], inputs: list[tuple[str, Document]]) -> list[float] | None:
    """The shares of A and B, where nothing but one alpha was said."""
    alpha = options.get("alpha")
    plain = options.keys() <= _PLAIN and options.get("method", "weighted_sum") == "weighted_sum"
    same = options.get("base_alpha", alpha) == alpha and options.get("position_ids", "keep") == "keep"
    if not plain or not same or not isinstance(alpha, int | float) or any(s == "models" for s, _ in inputs):
        return None
    return [1 - alpha, alpha]


def _option(name: str, value: Any) -> str:
    """An option and its value, cut where it is long."""
    label = brief(name.replace("_", "-"))
    if name == "alphas":
        count = sum(map(len, value.values())) if isinstance(value, dict) and _are_lists(value) else 0
        return f"alphas of {count:,} keys" if count else "alphas by key"
    text = brief(_text(value))
    return f"{label} {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}"


def _are_lists(value: Mapping[str, Any]) -> bool:
    return all(isinstance(item, list) for item in value.values())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in value.items())
    return str(value)
