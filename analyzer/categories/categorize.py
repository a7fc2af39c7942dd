"""Label every key of a model on the four axes: part, block, component, kind.

Knows names, dtypes and numbers of axes; refuses to look at sizes and values: a narrow SD 1.5 is an
SD 1.5. What an architecture's names mean stands in `analyzer/architectures/`, one TOML each
(`analyzer/categories/rulefiles.py` describes the format); models and keys that no file knows get what their
names tell (`analyzer/categories/generic.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files

from analyzer.categories import generic
from analyzer.categories.names import BASE, MARKER, SCHEDULE, VAE, Position, judge, last_words, special
from analyzer.categories.rulefiles import load
from analyzer.categories.rules import Rules
from analyzer.records import Categorized, Labels, TensorInfo

EMA = "model_ema."  # how the names of the LDM code's moving averages begin


def categorize(infos: Iterable[TensorInfo], *, rules: Rules | None = None) -> Categorized:
    """The labels of every key; `rules` are used without asking whether they fit the model."""
    infos = tuple(infos)
    copies = [info.key for info in infos if info.key.startswith(EMA) and info.key not in _EMA_MARKERS]
    twins = _dotless(info.key for info in infos) if copies else {}
    for candidate in (rules,) if rules else architectures():
        live = {key: _live_name(key, twins, candidate.restore_dots) for key in copies}
        if rules or candidate.fit([(live.get(info.key, info.key), len(info.shape)) for info in infos]):
            labels = _label_all(infos, live, _locator(candidate))
            return Categorized(candidate.name, candidate.title, candidate.blocks, labels)
    live = {key: _live_name(key, twins, _restore_kind) for key in copies}
    layout = generic.survey(live.get(info.key, info.key) for info in infos)
    labels = _label_all(infos, live, lambda name: generic.position(name, layout))
    return Categorized("generic", generic.TITLE, layout.blocks, labels)


@cache
def architectures() -> tuple[Rules, ...]:
    """The rules of every architecture that ships with the package, by file name."""
    folder = files("analyzer").joinpath("architectures")
    found = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return tuple(load(file) for file in sorted(found, key=lambda file: file.name))


def _label_all(
    infos: Iterable[TensorInfo], live: Mapping[str, str], locate: Callable[[str], Position]
) -> dict[str, Labels]:
    """The labels of all tensors; `live` tells the keys that EMA copies copy."""
    labels = cache(Labels)  # few differ: equal ones are one object
    return {info.key: labels(*_axes(info, live.get(info.key, info.key), locate)) for info in infos}


def _axes(
    info: TensorInfo, name: str, locate: Callable[[str], Position]
) -> tuple[str, str, str, str, str, bool]:
    """The fields of `Labels` for one tensor; `name` is its key, or the key of what it copies."""
    copy = info.key.startswith(EMA)
    if word := special(name, empty=0 in info.shape) or (MARKER if name in _EMA_MARKERS else None):
        part = "other" if word == SCHEDULE else generic.part_of(name)[0] or "other"
        return "ema" if copy else part, VAE if part == "vae" else BASE, word, "other", word, False
    part, block, component, group = locate(name)
    kind, counted = judge(last_words(name), info.dtype, len(info.shape))
    return "ema" if copy else part, block, component, kind, group, counted and not copy


def _locator(rules: Rules) -> Callable[[str], Position]:
    """Positions by rules; what they do not know gets what its name tells, but no block of a network."""
    unknown = generic.Layout()
    return lambda name: rules.position(name) or generic.position(name, unknown)


def _dotless(keys: Iterable[str]) -> dict[str, str]:
    """The live keys by their names without dots, as the LDM code names their EMA copies."""
    table: dict[str, str] = {}
    for key in keys:
        if not key.startswith(EMA):
            table.setdefault(key.removeprefix("model.").replace(".", ""), key)
    return table


def _live_name(key: str, twins: Mapping[str, str], restore_dots: Callable[[str], str | None]) -> str:
    """The key that an EMA copy copies: of the same file, else by rule, else what stands behind `EMA`."""
    name = key.removeprefix(EMA)
    return twins.get(name.replace(".", "")) or restore_dots(name) or name


def _restore_kind(name: str) -> str | None:
    """What can be restored without rules: the dot before the kind."""
    return None if "." in name else re.sub(r"(weight|bias)\Z", r".\1", name)


_EMA_MARKERS = frozenset({f"{EMA}decay", f"{EMA}num_updates"})
