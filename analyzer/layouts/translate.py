"""Translate the names of one network between its layouts. Knows which map holds, and how names are looked up.

Every answer is given whatever the names are: a network that no map knows, a part of a network and a mixture
of layouts are translated as far as a map reaches, and the rest keeps its names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from analyzer.layouts import maps
from analyzer.layouts.facets import Facet
from analyzer.layouts.maps import Heading, Map, Rule
from analyzer.layouts.templates import Node, fill, fits, matches

_Groups = Mapping[str, list[str]]  # names by their first segment


def canonical(names: Collection[str]) -> dict[str, tuple[Facet, ...]]:
    """For every name of one network, what it is canonically; a name that no map knows is itself.

    The facets of a tensor stand in the order of its rows and cover them exactly once. No two names share a
    facet: names that would (a file that holds two layouts at once) keep their own names.
    """
    known = frozenset(names)
    found = _map_of(known)
    if found is None:
        return {name: (Facet(name),) for name in names}
    facets = {name: _facets(name, found, known) for name in names}
    owners = Counter(facet.name for name in known for facet in facets[name])
    if len(owners) < owners.total():
        for name, parts in facets.items():
            if any(owners[part.name] > 1 for part in parts):
                facets[name] = (Facet(name),)
    return facets


def translates(names: Collection[str]) -> bool:
    """Whether a map holds for the network of these names; if none does, every name is canonical itself."""
    return _map_of(frozenset(names)) is not None


def original(names: Collection[str]) -> dict[str, str]:
    """The names of a diffusers U-Net or VAE in the original LDM layout, for labels.

    Empty if this is no such network, or has original names already. A name without a counterpart is left
    out; what the network should have and has not is not missed.
    """
    known = frozenset(names)
    found = _map_of(known)
    if not found or not found.labels or any(_is_original(name, found, known) for name in known):
        return {}
    labels: dict[str, str] = {}
    for name, parts in canonical(names).items():
        if len(parts) == 1 and (hit := _lookup(found.backward, parts[0].name, known)):
            labels[name] = hit[0].name
    return labels


def _is_original(name: str, found: Map, known: Collection[str]) -> bool:
    """Whether only the original layout has this name."""
    hit = _match(found.forward, name, known)
    return hit is not None and not hit[0].alias and _lookup(found.backward, name, known) is None


def _facets(name: str, found: Map, known: Collection[str]) -> tuple[Facet, ...]:
    return _lookup(found.forward, name, known) or (Facet(name),)


def _lookup(index: Node[Rule], name: str, known: Collection[str]) -> tuple[Facet, ...] | None:
    """What the first rule says that the name fits and that holds in a network of these names."""
    if not (hit := _match(index, name, known)):
        return None
    rule, captured = hit
    return tuple(_filled(facet, rule.names, captured) for facet in rule.facets) if captured else rule.facets


def _match(index: Node[Rule], name: str, known: Collection[str]) -> tuple[Rule, tuple[str, ...]] | None:
    for rule, captured in matches(index, name.split(".")):
        if rule.holds(captured, known):
            return rule, captured
    return None


def _filled(facet: Facet, names: tuple[str, ...], values: tuple[str, ...]) -> Facet:
    name = fill(facet.name, names, values)
    return Facet(name, facet.word, facet.first, facet.last, facet.of, facet.transposed)


def _map_of(names: Collection[str]) -> Map | None:
    """The first map that holds for a network of these names."""
    groups: dict[str, list[str]] = {}
    begins = _beginnings()
    for name in names if begins is None else [name for name in names if name.startswith(begins)]:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return next((load() for heading, load in _maps() if _holds(heading, groups)), None)


def _holds(candidate: Heading, groups: _Groups) -> bool:
    return all(_finds(evidence, groups) for evidence in candidate.required) and not any(
        _finds(evidence, groups) for evidence in candidate.refused
    )


def _finds(evidence: Node[bool], groups: _Groups) -> bool:
    """Whether one of the names is meant; few begin as evidence does, and only those are looked at."""
    firsts = groups if evidence.number or evidence.rest else evidence.words.keys() & groups.keys()
    return any(fits(evidence, name.split(".")) for first in firsts for name in groups[first])


@cache
def _beginnings() -> tuple[str, ...] | None:
    """With what the names begin that any map looks for; None if that can be anything."""
    roots = [root for heading, _ in _maps() for root in (*heading.required, *heading.refused)]
    if any(root.number or root.rest for root in roots):
        return None
    return tuple(sorted({word for root in roots for word in root.words}))


@cache
def _maps() -> tuple[tuple[Heading, Callable[[], Map]], ...]:
    """The maps that ship with the package, by file name; what is behind their headings at first use."""
    found = [file for file in files("analyzer.layouts").iterdir() if file.name.endswith(".toml")]
    return tuple(map(_candidate, sorted(found, key=lambda file: file.name)))


def _candidate(file: Traversable) -> tuple[Heading, Callable[[], Map]]:
    text = maps.read(file)
    return maps.parse_heading(text, source=str(file)), cache(lambda: maps.parse(text, source=str(file)))
