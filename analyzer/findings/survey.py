"""A scan grouped once, for all finders to look at. Knows records and sums, no sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from analyzer.columns import Places, SumColumns
from analyzer.findings.selecting import Selecting, selecting
from analyzer.formulas import relative_change
from analyzer.group_sums import group_sums
from analyzer.kinship import Kinships, Relation
from analyzer.measures import Sums
from analyzer.ranking import AXES, Axis, counted, short_names
from analyzer.records import KeyScan, Scan
from analyzer.verdicts import VERDICTS, Verdict, worst

NOISE: frozenset[Verdict] = frozenset({"cast", "rounding"})  # the verdicts that mean "only rounding differs"


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that stand together on an axis, their record, and what became of them."""

    path: str  # their label: "transformer_blocks/attn2", "vae", "OUT05"
    name: str  # for people: "attn2"; "component:vae" where a part of other keys is called "vae"
    keys: tuple[KeyScan, ...]
    sums: Sums  # without histograms, of which no finder asks
    counts: Mapping[Verdict, int]  # how many keys have which verdict; all four stand in it
    places: Places = field(compare=False, repr=False)  # of `keys` among all counted ones

    @property
    def worst(self) -> Verdict:
        """The verdict of its key with the largest difference."""
        return worst(name for name, count in self.counts.items() if count)

    @property
    def still(self) -> bool:
        """Whether something was compared, all of it in full, and nothing changed."""
        return self.worst == "identical" and self.sums.n == self.sums.numel > 0

    @property
    def only_rounding(self) -> bool:
        """Whether something differs, and nothing by more than a cast or rounding."""
        return self.worst in NOISE

    @property
    def moved(self) -> bool:
        """Whether it changed by more than rounding, by an amount that can be told."""
        return self.worst == "changed" and bool(relative_change(self.sums))


@dataclass(frozen=True, slots=True)
class Counted:
    """The counted keys of a scan, in its order, and what is asked of all of them at once."""

    rows: tuple[KeyScan, ...]
    columns: SumColumns
    verdicts: NDArray[np.uint8]  # of each the index in VERDICTS
    kinships: Kinships
    paths: Mapping[Axis, tuple[str, ...]]  # the labels on every axis, sorted
    codes: Mapping[Axis, Places]  # of each key the index in `paths`

    def by(self, axis: Axis, places: Places) -> dict[str, Places]:
        """These places by their keys' label on an axis, in its order; only of labels that one has."""
        codes = self.codes[axis][places]
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        labels = [self.paths[axis][code] for code in codes[order[starts]].tolist()]
        parted = np.split(places[order], starts[1:]) if len(starts) else []
        return dict(zip(labels, parted, strict=True))

    def touches(self, group: Group, parts: Collection[str]) -> bool:
        """Whether one of a group's keys lies in one of these parts."""
        return bool(parts) and any(row.labels.part in parts for row in group.keys)


@dataclass(frozen=True, slots=True)
class Survey:
    """A scan and its counted keys, as a whole and by part, component, block and kind."""

    scan: Scan
    counted: Counted
    whole: Group
    parts: tuple[Group, ...]
    components: tuple[Group, ...]
    blocks: tuple[Group, ...]  # those that block weights address, in network order
    kinds: tuple[Group, ...]
    changed: tuple[KeyScan, ...]  # the counted keys with the verdict "changed"
    places: Places  # of `changed` among all counted ones
    relation: Relation  # what those are to each other
    strange: frozenset[str]  # the parts of which what changed was replaced or trained apart
    related: tuple[Group, ...]  # the components that moved, without what was trained apart
    selecting: Selecting

    @property
    def axes(self) -> Mapping[Axis, tuple[Group, ...]]:
        """The groups of every axis, from coarse to fine."""
        return {"part": self.parts, "component": self.components, "block": self.blocks, "kind": self.kinds}

    def among_changed(self, axis: Axis) -> dict[str, Places]:
        """Where the keys with the verdict "changed" stand among the counted ones, by label."""
        return self.counted.by(axis, self.places)


def survey(scan: Scan, columns: SumColumns | None = None) -> Survey:
    """Group the counted keys of a scan, each sum formed once; `columns` are those of their sums, if known."""
    seen = _counted(counted(scan.keys), columns)
    groups = _told_apart({axis: _groups(seen, axis) for axis in AXES})
    blocks = {group.path: group for group in groups["block"]}
    places = np.flatnonzero(seen.verdicts == VERDICTS.index("changed"))
    whole = seen.kinships.relation(places)
    strange = frozenset(
        part
        for part, own in seen.by("part", places).items()
        if seen.kinships.relation(own).name == "unrelated"
    )
    return Survey(
        scan=scan,
        counted=seen,
        whole=_whole(seen),
        parts=groups["part"],
        components=groups["component"],
        blocks=tuple(blocks[path] for path in scan.blocks if path in blocks),
        kinds=groups["kind"],
        changed=tuple(seen.rows[place] for place in places.tolist()),
        places=places,
        relation=whole,
        strange=strange,
        related=_related(seen, groups["component"], strange, whole),
        selecting=selecting(scan),
    )


def _counted(rows: Sequence[KeyScan], columns: SumColumns | None) -> Counted:
    columns = SumColumns.of(row.sums for row in rows) if columns is None else columns
    # Of a new scan's keys, those with the same labels share one object: few, whatever the number of keys.
    known: dict[int, int] = {}
    seats = np.fromiter((known.setdefault(id(row.labels), len(known)) for row in rows), np.intp, len(rows))
    firsts = np.unique(seats, return_index=True)[1].tolist()
    labels = [rows[first].labels for first in firsts]
    paths: dict[Axis, tuple[str, ...]] = {}
    codes: dict[Axis, Places] = {}
    for axis in AXES:
        own = list(map(attrgetter("group" if axis == "component" else axis), labels))
        paths[axis] = tuple(sorted(set(own)))
        index = {path: code for code, path in enumerate(paths[axis])}
        codes[axis] = np.array([index[path] for path in own], np.intp)[seats]
    kinships = Kinships(rows, columns)
    return Counted(tuple(rows), columns, columns.verdict_codes(), kinships, paths, codes)


def _groups(seen: Counted, axis: Axis) -> tuple[Group, ...]:
    """The groups of one axis, by label."""
    paths, codes = seen.paths[axis], seen.codes[axis]
    kinds = len(VERDICTS)
    counts = np.bincount(codes * kinds + seen.verdicts, minlength=len(paths) * kinds).reshape(-1, kinds)
    names = short_names(paths)
    members = seen.by(axis, np.arange(len(seen.rows)))
    return tuple(
        Group(
            path,
            names[path],
            tuple([seen.rows[place] for place in places.tolist()]),
            sums,
            dict(zip(VERDICTS, own, strict=True)),
            places,
        )
        for (path, places), sums, own in zip(
            members.items(), group_sums(seen.columns, codes, len(paths)), counts.tolist(), strict=True
        )
    )


def _told_apart(groups: Mapping[Axis, tuple[Group, ...]]) -> dict[Axis, tuple[Group, ...]]:
    """The groups, each with its axis before its name where a coarser axis so calls other keys."""
    known: dict[str, Group] = {}
    found: dict[Axis, tuple[Group, ...]] = {}
    for axis, own in groups.items():
        found[axis] = tuple(
            replace(group, name=f"{axis}:{group.name}")
            if group.name in known and not np.array_equal(known[group.name].places, group.places)
            else group
            for group in own
        )
        known = {group.name: group for group in own} | known
    return found


def _whole(seen: Counted) -> Group:
    everywhere = np.arange(len(seen.rows))
    counts = np.bincount(seen.verdicts, minlength=len(VERDICTS)).tolist()
    (sums,) = group_sums(seen.columns, np.zeros_like(everywhere), 1)
    return Group("", "", seen.rows, sums, dict(zip(VERDICTS, counts, strict=True)), everywhere)


def _related(
    seen: Counted, components: Iterable[Group], strange: frozenset[str], whole: Relation
) -> tuple[Group, ...]:
    """The components that moved, without those that were replaced or trained apart, or lie in such a part.

    Of the latter it says nothing by how much they moved, or how. Where the models as a whole were trained
    apart, what is too small to tell is left out as well.
    """
    left_out = {"unrelated", None} if whole.name == "unrelated" else {"unrelated"}
    known = (g for g in components if g.moved and not seen.touches(g, strange))
    return tuple(g for g in known if seen.kinships.relation(g.places).name not in left_out)
