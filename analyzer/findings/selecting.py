"""The shortest selector that hits what a longer one hits. Knows labels, no numbers."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from analyzer.errors import SelectorError
from analyzer.ranking import Axis, exact_selector
from analyzer.records import KeyScan, Scan
from analyzer.selectors import compile_selector
from analyzer.vocabulary import MAX_TERM

# With more kinds of keys than this, as only files of strange names have, trying names takes too long.
MOST_KINDS = 2000
# What is left out is named instead of what is meant, if that takes less than this share of the terms.
FEWER = 0.5
MOST_NAMED = 3  # keys that are named one by one; a longer selector nobody reads


@dataclass(frozen=True, slots=True)
class Selecting:
    """One key of every kind that a scan has: what selectors are tried on. Make it with `selecting`."""

    specimens: Scan

    def groups(self, axis: Axis, paths: Sequence[str]) -> str:
        """The shortest selector for the counted keys of these groups of one axis; "" of none.

        Components by the last segments of their paths where those say the same ("attn2"), after the
        names of their parts where that is needed ("vae,conv"), and else as `exact_selector` has it.
        Blocks that follow each other become a range. It hits exactly what the exact one hits.
        """
        if not paths:
            return ""
        exact = exact_selector(self.specimens, axis=axis, paths=paths)
        wanted = self._hits(exact) if len(self.specimens.keys) <= MOST_KINDS else None
        if not wanted:
            return exact
        terms = list(dict.fromkeys(self._shortest(axis, path, wanted) for path in paths))
        found = _with_ranges(terms, self.specimens.blocks) if axis == "block" else ",".join(terms)
        if self._hits(found) != wanted:
            found = (axis == "component" and self._inside_parts(paths, wanted)) or exact
        without = self._all_but(axis, paths, wanted)
        return without if without and without.count(",") + 1 < FEWER * (found.count(",") + 1) else found

    def _all_but(self, axis: Axis, paths: Sequence[str], wanted: frozenset[int]) -> str:
        """The selector that excludes the other groups of the axis; "" if that hits something else."""
        if axis == "block":  # these do not hold all keys
            return ""
        place: Callable[[KeyScan], str] = attrgetter(f"labels.{'group' if axis == 'component' else axis}")
        others = {place(row) for row in self.specimens.keys if row.labels.counted} - set(paths)
        unwanted = self._hits("key:*") or frozenset()
        terms = [f"!{self._shortest(axis, path, unwanted - wanted)}" for path in sorted(others)]
        found = ",".join(terms)
        return found if terms and self._hits(found) == wanted else ""

    def _shortest(self, axis: Axis, path: str, wanted: frozenset[int]) -> str:
        """The shortest name of a group that hits nothing but what is wanted; else its whole path."""
        for name in _ends(path) if axis == "component" else [path]:
            for term in (name, f"{axis}:{name}"):
                if (hits := self._hits(term)) and hits <= wanted:
                    return term
        return f"{axis}:{path}"

    def _inside_parts(self, paths: Sequence[str], wanted: frozenset[int]) -> str:
        """The components by their last segments, inside the parts that they are in; "" if that hits more."""
        parts = sorted({self.specimens.keys[place].labels.part for place in wanted})
        whole = [(part, self._hits(f"part:{part}") or wanted) for part in parts]
        inside = [self._shortest("part", part, hits) for part, hits in whole]
        for length in range(1, max(path.count("/") for path in paths) + 2):
            names = dict.fromkeys("/".join(path.split("/")[-length:]) for path in paths)
            for prefix in ("", "component:"):
                found = ",".join([*inside, *(f"{prefix}{name}" for name in names)])
                if self._hits(found) == wanted:
                    return found
        return ""

    def _hits(self, selector: str) -> frozenset[int] | None:
        """The places of the specimens that a selector hits; None where it means nothing, or two things."""
        rows = self.specimens.keys
        try:
            compiled = compile_selector(selector, rows=rows, blocks=self.specimens.blocks)
        except SelectorError:
            return None
        return frozenset(place for place, row in enumerate(rows) if compiled.hits(row))


def selecting(scan: Scan) -> Selecting:
    """Take one key of every kind: all that names of parts, components and kinds can tell apart.

    And one of every block: the name of a block hits all counted keys in it, and those alone.
    """
    kinds: dict[object, KeyScan] = {}
    known: set[int] = set()
    for row in scan.keys:
        labels = row.labels
        if (
            id(labels) in known
        ):  # equal ones are one object in a new scan, and no two that live are told alike
            continue
        if labels.counted:
            known.add(id(labels))
        # of what does not count a selector asks whether the component is the key's own name
        own = labels.counted or labels.component.rpartition("/")[2] == row.key.rpartition(".")[2]
        kinds.setdefault((labels.part, labels.component, labels.group, labels.kind, labels.counted, own), row)
        kinds.setdefault(labels.block, row)
    return Selecting(replace(scan, keys=tuple({row.key: row for row in kinds.values()}.values()), virtual=()))


def keys_selector(keys: Sequence[str]) -> str:
    """A selector for these keys alone; "" if there are too many, or if no selector can name one of them."""
    terms = [f"key:{glob.escape(key)}" for key in keys[: MOST_NAMED + 1]]
    if len(terms) > MOST_NAMED or any(len(term) > MAX_TERM or re.search(r"[,\s]", term) for term in terms):
        return ""
    return ",".join(terms)


def _ends(path: str) -> Iterator[str]:
    """The last segment, the last two, … the whole path."""
    segments = path.split("/")
    for count in range(1, len(segments) + 1):
        yield "/".join(segments[-count:])


def _with_ranges(terms: Sequence[str], blocks: Sequence[str]) -> str:
    """Blocks in network order, those that follow each other as "first..last"."""
    places = {block: place for place, block in enumerate(blocks)}
    if not all(term in places for term in terms):
        return ",".join(terms)
    runs: list[list[str]] = []
    for term in sorted(terms, key=lambda term: places[term]):
        if runs and places[runs[-1][-1]] + 1 == places[term]:
            runs[-1].append(term)
        else:
            runs.append([term])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
