"""The options of a merge as plain values under their names: what recipe files and metadata hold.

One table serves both, so that an option reads alike wherever it stands. A value that cannot be read is a
FieldError with the reason alone. Knows no files, and not whether options go together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from analyzer.fields import FieldError, brief
from analyzer.methods import METHODS
from analyzer.recipes.recipe import DTYPES, Guide, Recipe

Home = Literal["recipe", "guide", "path"]  # what holds the option: a Recipe, its Guide, or a list of files

# No digit can be read in two ways: what fails would be tried in all of them, a megabyte of digits for hours.
_NUMBER = r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*"
_NUMBERS = re.compile(rf"{_NUMBER}(,{_NUMBER})+")
_HINTED = 20  # unknown names that are told which are near: each is compared with all there are


@dataclass(frozen=True, slots=True)
class Option:
    """One option: the field that holds it, and how its value is read and written."""

    field: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    home: Home = "recipe"


def read_values(table: Mapping[str, Any], allowed: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """(option -> value as its record has it, one sentence for each problem).

    Names may have dashes or underscores alike, and must be among `allowed`, which have dashes.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for written, value in _without_lists_of_dtypes(table).items():
        name = written.replace("_", "-")
        if name not in allowed:
            problems.append(_unknown(written, allowed if len(problems) < _HINTED else ()))
        elif name in values:
            problems.append(f"{brief(written)} stands twice, with dashes and with underscores")
        else:
            try:
                values[name] = OPTIONS[name].read(value)
            except FieldError as error:
                problems.append(f"{brief(written)} {brief(str(error))}")
    return values, problems


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe with these values of options; what is no option of a recipe is passed over."""
    own: dict[str, Any] = {}
    guide: dict[str, Any] = {}
    for name, value in values.items():
        option = OPTIONS[name]
        if option.home != "path":
            (own if option.home == "recipe" else guide)[option.field] = value
    return Recipe(**own, guide=Guide(**guide))


def plain_values(recipe: Recipe) -> dict[str, Any]:
    """Every option of a recipe that is not at its default, and always the method, in the table's order.

    Raises FieldError for a number that is not finite, and for a text that is not Unicode.
    """
    plain = Recipe()
    values = {}
    for name, option in OPTIONS.items():
        if option.home == "path":
            continue
        mine, default = (recipe, plain) if option.home == "recipe" else (recipe.guide, plain.guide)
        value = getattr(mine, option.field)
        if name != "method" and value == getattr(default, option.field):
            continue
        try:
            values[name] = option.write(value)
        except FieldError as error:
            raise FieldError(f"{name} {error}") from error
    return values


def read_text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise FieldError(f"must be a text that is not empty, it is {value!r}")
    return write_text(value)


def write_text(value: str) -> str:
    """The text, if a file can hold it."""
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, out of a damaged name
        raise FieldError(f"holds {value!r}, which is not Unicode") from error
    return value


def _read_number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of 400 digits
        number = math.inf
    return _finite(number, value)


def _finite(number: float, written: Any = None) -> float:
    if not math.isfinite(number):
        raise FieldError(f"must be a finite number, it is {number if written is None else written!r}")
    return number


def _read_count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FieldError(f"must be an integer from 1 on, it is {value!r}")
    return value


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError(f"must be true or false, it is {value!r}")
    return value


def _one_of(names: Collection[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            near = get_close_matches(value, names, n=1) if isinstance(value, str) else []
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise FieldError(f"must be one of {', '.join(names)}, it is {value!r}{hint}")
        return value

    return read


def _read_weights(value: Any) -> tuple[float, ...] | str:
    """Numbers, as an array or as on the command line, or the name of a preset."""
    if isinstance(value, list) and value:
        return tuple(_read_number(item) for item in value)
    if isinstance(value, list):
        raise FieldError("must be the name of a preset or an array of numbers, it is empty")
    text = read_text(value)
    return tuple(float(number) for number in text.split(",")) if _NUMBERS.fullmatch(text) else text


def _write_weights(value: tuple[float, ...] | str) -> list[float] | str:
    return write_text(value) if isinstance(value, str) else [_finite(number) for number in value]


def _entries(value: Any, form: str) -> list[tuple[str, Any]]:
    """(what stands before the last "=", what stands behind it) of texts, or the entries of a table."""
    if isinstance(value, dict):
        return [(read_text(name).strip(), item) for name, item in value.items()]
    entries = []
    for text in value if isinstance(value, list) else [value]:
        # The last "=" divides, as on the command line, for a glob and a path may hold one.
        name, sign, item = text.rpartition("=") if isinstance(text, str) else ("", "", "")
        if not sign or not name.strip() or not item.strip():
            raise FieldError(f"must be an array of texts such as {form!r}, it holds {text!r}")
        entries.append((write_text(name).strip(), item.strip()))
    return entries


def _spelled(item: Any, name: str) -> float:
    """A number, or a text that is one."""
    if isinstance(item, str) and re.fullmatch(_NUMBER, item):
        item = float(item)
    try:
        return _read_number(item)
    except FieldError as error:
        raise FieldError(f"of {name!r} {error}") from error


def _read_named_numbers(form: str) -> Callable[[Any], tuple[tuple[str, float], ...]]:
    def read(value: Any) -> tuple[tuple[str, float], ...]:
        return tuple((name, _spelled(item, name)) for name, item in _entries(value, form))

    return read


def _write_named_numbers(value: tuple[tuple[str, float], ...]) -> list[str]:
    return [f"{_named(name)}={_finite(number)!r}" for name, number in value]


def _named(name: str) -> str:
    """A name that comes back the same from in front of an equals sign."""
    if not name or name != name.strip():
        raise FieldError(f"holds the name {name!r}, which is empty or has spaces around it")
    return write_text(name)


def _read_dtypes(value: Any) -> tuple[tuple[str, str], ...]:
    read = _one_of(DTYPES)
    pairs = []
    for name, item in _entries(value, "vae=fp32"):
        try:
            pairs.append((name, read(item)))
        except FieldError as error:
            raise FieldError(f"of {name!r} {error}") from error
    return tuple(pairs)


def _without_lists_of_dtypes(table: Mapping[str, Any]) -> dict[str, Any]:
    """On the command line `--dtype` has both meanings; an array of `dtype` is taken apart here."""
    table = dict(table)
    value, others = table.get("dtype"), table.get("dtypes", [])
    if isinstance(value, list) and isinstance(others, list) and all(isinstance(v, str) for v in value):
        del table["dtype"]
        if plain := [text for text in value if "=" not in text]:
            table["dtype"] = plain[-1]
        table["dtypes"] = [*(text for text in value if "=" in text), *others]
    return table


def _read_parameters(value: Any) -> tuple[tuple[str, float], ...]:
    parameters = _read_named_numbers("density=0.2")(value)
    if len(dict(parameters)) < len(parameters):
        raise FieldError("names one parameter twice")
    return parameters


def _write_parameters(value: tuple[tuple[str, float], ...]) -> dict[str, float]:
    return {_named(name): _finite(number) for name, number in value}


def _read_match(value: Any) -> tuple[str, float]:
    entries = _read_named_numbers("cosine=0.98")(value)
    if len(entries) != 1:
        raise FieldError(f"must be one statistic and its value, as in 'cosine=0.98', it is {value!r}")
    return entries[0]


def _write_match(value: tuple[str, float]) -> str:
    return _write_named_numbers((value,))[0]


def _read_alphas(value: Any) -> tuple[tuple[str, float], ...]:
    """{"0.3": [keys]} as (key, alpha), sorted by key."""
    if not isinstance(value, dict) or not value:
        raise FieldError(f"must be a table of alphas and the keys that have them, it is {value!r}")
    alphas: dict[str, float] = {}
    for number, keys in value.items():
        if not re.fullmatch(_NUMBER, number):
            raise FieldError(f"must have quoted numbers as names, one is {number!r}")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise FieldError(f"must be a list of keys at each quoted alpha, at {number!r} it is {keys!r}")
        for key in keys:
            if alphas.setdefault(write_text(key), _spelled(number, "a list of keys")) != float(number):
                raise FieldError(f"has two alphas for {key!r}")
    return tuple(sorted(alphas.items()))


def _write_alphas(value: tuple[tuple[str, float], ...]) -> dict[str, list[str]]:
    groups: dict[float, list[str]] = {}
    for key, alpha in sorted(value):
        groups.setdefault(_finite(alpha) + 0.0, []).append(write_text(key))
    return {repr(alpha): keys for alpha, keys in sorted(groups.items())}


def _read_numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise FieldError(f"must be an array of numbers, it is {value!r}")
    return tuple(_read_number(item) for item in value)


def _unknown(name: str, allowed: Collection[str]) -> str:
    near = get_close_matches(name[:100].replace("_", "-").lower(), allowed, n=3)
    known = f"nearest are {', '.join(near)}" if near else f"there is {', '.join(allowed)}"
    return f"unknown option {brief(repr(name))}" + (f": {known}" if allowed else "")


def _text(field: str, home: Home = "recipe") -> Option:
    return Option(field, read_text, write_text, home)


def _number(field: str, home: Home = "recipe") -> Option:
    return Option(field, _read_number, _finite, home)


def _choice(field: str, names: Collection[str]) -> Option:
    return Option(field, _one_of(names), write_text)


# In the order in which they are written. `model`, a list of PATH=WEIGHT, is a list of files with numbers;
# metadata has `weights` instead, for it names no paths.
OPTIONS: Mapping[str, Option] = {
    "method": _choice("method", METHODS),
    "base": _text("base", "path"),
    "model": Option("models", _read_named_numbers("c.safetensors=0.3"), _write_named_numbers, "path"),
    "weights": Option("weights", _read_numbers, lambda value: [_finite(number) for number in value]),
    "param": Option("parameters", _read_parameters, _write_parameters),
    "only": _text("only"),
    "alpha": _number("alpha"),
    "base-alpha": _number("base_alpha"),
    "block-weights": Option("block_weights", _read_weights, _write_weights),
    "presets": _text("presets", "path"),
    "scan": _text("scan", "path"),
    "where": _text("where", "guide"),
    "top": Option("top", _read_count, int, "guide"),
    "by": _text("by", "guide"),
    "axis": _text("axis", "guide"),
    "budget": _number("budget", "guide"),
    "match": Option("match", _read_match, _write_match, "guide"),
    "alpha-from": _text("alpha_from", "guide"),
    "per": _text("per", "guide"),
    "set": Option("sets", _read_named_numbers("attn2=0.5"), _write_named_numbers),
    "vae": _text("vae", "path"),
    "text-encoder": _choice("text_encoder", ("keep-a", "keep-b")),
    "position-ids": _choice("position_ids", ("keep", "reset")),
    "only-in-b": _choice("only_in_b", ("drop", "add")),
    "prune-ema": Option("prune_ema", _read_flag, bool),
    "dtype": _choice("dtype", DTYPES),
    "dtypes": Option("dtypes", _read_dtypes, lambda value: [f"{_named(n)}={dtype}" for n, dtype in value]),
    "alphas": Option("alphas", _read_alphas, _write_alphas),
}
