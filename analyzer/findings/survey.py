"""A scan grouped once, for all finders to look at. Knows records and sums, no sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analyzer.findings.selecting import Selecting, selecting
from analyzer.formulas import relative_change
from analyzer.kinship import Relation, relation
from analyzer.measures import Sums, add_sums
from analyzer.ranking import Axis, counted, short_names
from analyzer.records import KeyScan, Scan
from analyzer.verdicts import VERDICTS, Verdict, verdict, worst

NOISE: frozenset[Verdict] = frozenset({"cast", "rounding"})  # the verdicts that mean "only rounding differs"


@dataclass(frozen=True, slots=True)
class Group:
    """Keys that stand together on an axis, their record, and what became of them."""

    path: str  # their label: "transformer_blocks/attn2", "vae", "OUT05"
    name: str  # for people: "attn2"
    keys: tuple[KeyScan, ...]
    sums: Sums
    counts: Mapping[Verdict, int]  # how many keys have which verdict; all four stand in it

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
class Survey:
    """A scan and its counted keys, as a whole and by part, component, block and kind."""

    scan: Scan
    whole: Group
    parts: tuple[Group, ...]
    components: tuple[Group, ...]
    blocks: tuple[Group, ...]  # those that block weights address, in network order
    kinds: tuple[Group, ...]
    changed: tuple[KeyScan, ...]  # the counted keys with the verdict "changed"
    relation: Relation  # what those are to each other
    strange: frozenset[str]  # the parts of which what changed was replaced or trained apart
    related: tuple[Group, ...]  # the components that moved, without what was trained apart
    selecting: Selecting

    @property
    def axes(self) -> Mapping[Axis, tuple[Group, ...]]:
        """The groups of every axis, from coarse to fine."""
        return {"part": self.parts, "component": self.components, "block": self.blocks, "kind": self.kinds}


def survey(scan: Scan) -> Survey:
    """Group the counted keys of a scan, each sum formed once.

    The keys are first put together by all of their labels that matter, and the groups of every axis are
    made of those few records.
    """
    rows = counted(scan.keys)
    verdicts = [verdict(row.sums) for row in rows]
    cells: dict[tuple[str, str, str, str], list[tuple[KeyScan, Verdict]]] = {}
    for row, name in zip(rows, verdicts, strict=True):
        labels = row.labels
        place = (labels.part, labels.group, labels.block, labels.kind)
        cells.setdefault(place, []).append((row, name))
    sums = {place: add_sums(row.sums for row, _ in members) for place, members in cells.items()}

    def grouped(axis: int, order: Sequence[str] | None = None) -> tuple[Group, ...]:
        paths = sorted({place[axis] for place in cells}) if order is None else order
        names = short_names(paths)
        places: dict[str, list[tuple[str, str, str, str]]] = {}
        for place in cells:
            places.setdefault(place[axis], []).append(place)
        return tuple(
            _group(
                path,
                names[path],
                [member for place in places[path] for member in cells[place]],
                [sums[place] for place in places[path]],
            )
            for path in paths
            if path in places
        )

    changed = tuple(row for row, name in zip(rows, verdicts, strict=True) if name == "changed")
    components, whole = grouped(1), relation(changed)
    parts = by_label(changed, lambda row: row.labels.part)
    strange = frozenset(part for part, rows in parts.items() if relation(rows).name == "unrelated")
    return Survey(
        scan=scan,
        whole=_group("", "", list(zip(rows, verdicts, strict=True)), list(sums.values())),
        parts=grouped(0),
        components=components,
        blocks=grouped(2, scan.blocks),
        kinds=grouped(3),
        changed=changed,
        relation=whole,
        strange=strange,
        related=_related(components, strange, whole),
        selecting=selecting(scan),
    )


def by_label(rows: Iterable[KeyScan], label: Callable[[KeyScan], str]) -> dict[str, list[KeyScan]]:
    """These rows by one of their labels, in its order."""
    members: dict[str, list[KeyScan]] = {}
    for row in rows:
        members.setdefault(label(row), []).append(row)
    return dict(sorted(members.items()))


def _related(components: Iterable[Group], strange: frozenset[str], whole: Relation) -> tuple[Group, ...]:
    """The components that moved, without those that were replaced or trained apart, or lie in such a part.

    Of the latter it says nothing by how much they moved, or how. Where the models as a whole were trained
    apart, what is too small to tell is left out as well.
    """
    left_out = {"unrelated", None} if whole.name == "unrelated" else {"unrelated"}
    known = (g for g in components if g.moved and strange.isdisjoint(row.labels.part for row in g.keys))
    return tuple(g for g in known if relation(g.keys).name not in left_out)


def _group(path: str, name: str, members: Sequence[tuple[KeyScan, Verdict]], sums: Sequence[Sums]) -> Group:
    found = Counter(name for _, name in members)
    counts = {name: found[name] for name in VERDICTS}
    return Group(path, name, tuple(row for row, _ in members), add_sums(sums), counts)
