"""Group the keys of a scan along an axis and put the groups in order. Knows no torch and no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from analyzer.columns import SumColumns
from analyzer.errors import AnalyzerError
from analyzer.evaluation import evaluate, evaluate_key, require_measured
from analyzer.expressions import Condition
from analyzer.measures import Sums, add, add_sums
from analyzer.records import KeyScan, Labels, Scan
from analyzer.selectors import compile_selector, select
from analyzer.statistics import STATISTICS
from analyzer.verdicts import Verdict, verdict, worst

Axis = Literal["part", "block", "component", "kind"]
Depth = Literal["rank", "full"]
AXES: tuple[Axis, ...] = get_args(Axis)
CROSS = "*"  # between two axes: "block*component"
BETWEEN = " × "  # between the names of a group on two axes: "OUT05 × attn2"
Place: TypeAlias = tuple[str, ...]  # the labels of a group, one an axis
_MOST_AXES = 2
_OF_KINDS: tuple[Axis, ...] = ("part", "component")  # the axes on which a `_Kind` stands


@dataclass(frozen=True, slots=True)
class RankRow:
    """One group of keys. Its statistics come from its summed record, not from those of its keys."""

    name: str  # short: "attn2"
    selector: str  # hits the counted keys of this group: "component:transformer_blocks/attn2"
    keys: int
    sums: Sums
    statistics: Mapping[str, float | None]
    verdict: Verdict = "identical"  # of its key with the largest difference


@dataclass(frozen=True, slots=True)
class RankedKeys:
    """One group of a ranking with its keys."""

    row: RankRow
    keys: tuple[KeyScan, ...]  # in the scan's order


def rank(
    scan: Scan,
    *,
    axis: str = "component",
    by: str = "relative_change",
    depth: Depth = "rank",
    only: str | None = None,
    top: int | None = None,
) -> list[RankRow]:
    """The groups of one axis, the one that differs most first; undefined last, ties by name.

    `axis` is one of `AXES`, or two of them that are crossed: "block*component". Components group at the
    level that the architecture's rules mark, or with depth "full" at the leaves, among them the virtual
    rows of fused tensors. EMA copies, schedules, markers and integers are left out unless `only` names
    them. Raises AnalyzerError for an unknown axis or statistic or one that was not measured, SelectorError
    for a wrong or empty selection.
    """
    return [group.row for group in rank_keys(scan, axis=axis, by=by, depth=depth, only=only)[:top]]


def rank_keys(
    scan: Scan,
    *,
    axis: str = "component",
    by: str = "relative_change",
    depth: Depth = "rank",
    only: str | None = None,
) -> list[RankedKeys]:
    """The same with the keys of every group."""
    axes = crossed_axes(axis)
    require_measured([by], scan)
    rows = leaves(scan) if depth == "full" else scan.keys
    if only is None:
        chosen: Sequence[KeyScan] = counted(rows)
    else:
        chosen = select(only, rows=rows, blocks=scan.blocks)
    whole = whole_energy(scan)
    groups: dict[Place, list[KeyScan]] = {}
    for row in chosen:
        groups.setdefault(place(row, axes, depth), []).append(row)
    names = _names(groups)
    ranked, kinds = _kinds(chosen), _kinds([*counted(rows), *chosen])
    ranking = []
    for path, keys in groups.items():
        selector = _exact(ranked, kinds, scan.blocks, axes=axes, places=[path], depth=depth)
        ranking.append(RankedKeys(_rank_row(names[path], selector, keys, whole), tuple(keys)))
    sign = 1 if STATISTICS[by].ascending else -1

    def position(group: RankedKeys) -> tuple[bool, float, str]:
        value = group.row.statistics[by]
        return (value is None, 0.0 if value is None else sign * value, group.row.name)

    return sorted(ranking, key=position)


def crossed_axes(axis: str) -> tuple[Axis, ...]:
    """The one axis or the two that a name such as "block" or "block*component" stands for.

    Raises AnalyzerError for a name that is none, for an axis crossed with itself and for more than two.
    """
    axes = tuple(known for word in axis.split(CROSS) for known in AXES if known == word.strip())
    if len(axes) != axis.count(CROSS) + 1 or len(axes) > _MOST_AXES or len(set(axes)) < len(axes):
        raise AnalyzerError(
            f"unknown axis {axis!r}: choose one of {', '.join(AXES)}, or cross two: block{CROSS}component"
        )
    return axes


def place(row: KeyScan | _Kind, axes: Sequence[Axis], depth: Depth = "rank") -> Place:
    """The row's labels on these axes: ("OUT05", "transformer_blocks/attn2")."""
    return tuple(_label(row, axis, depth) for axis in axes)


def leaves(scan: Scan) -> tuple[KeyScan, ...]:
    """The scan's keys, with the virtual rows of a fused tensor in its place: their sums are its sums."""
    fused = {row.key for row in scan.virtual}
    return (*(row for row in scan.keys if row.key not in fused), *scan.virtual) if fused else scan.keys


def keys_where(scan: Scan, condition: Condition) -> list[KeyScan]:
    """The counted keys whose own statistics fulfil a condition, in the scan's order.

    Raises AnalyzerError where no key was compared: a condition that looked at nothing does not hold.
    """
    if not any(row.sums.n for row in scan.keys):
        raise AnalyzerError(
            f"the condition has nothing to look at: no key of {scan.a.path} could be compared with one of "
            f"{scan.b.path}; look at both with mergescope inspect"
        )
    require_measured(condition.names, scan)
    whole = whole_energy(scan)
    return [row for row in counted(scan.keys) if condition.holds(evaluate_key(row, total=whole))]


def counted(rows: Iterable[KeyScan]) -> list[KeyScan]:
    """The rows that enter totals: no EMA copies, schedules, markers or integers."""
    return [row for row in rows if row.labels.counted]


def total(rows: Iterable[KeyScan]) -> Sums:
    """The record of all counted rows together."""
    return SumColumns.of(row.sums for row in counted(rows)).total()


def whole_energy(scan: Scan) -> Sums:
    """Of the scan's record no more than what shares are shares of: the rest takes long for many keys."""
    return Sums(sum_dd=add([row.sums.sum_dd for row in counted(scan.keys)]))


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The shortest end of each path that no other path has: "attn2", or "attn2/to_q"."""
    ends = {path: _ends(path) for path in paths}
    often = Counter(end for tails in ends.values() for end in tails)
    return {path: next((end for end in tails if often[end] == 1), path) for path, tails in ends.items()}


def _names(places: Iterable[Place]) -> dict[Place, str]:
    """The groups' names for people: short ones, joined where two axes are crossed."""
    columns = [short_names(set(column)) for column in zip(*places, strict=True)]
    return {
        path: BETWEEN.join(names[label] for names, label in zip(columns, path, strict=True))
        for path in places
    }


def _ends(path: str) -> list[str]:
    """The last segment, the last two, … the whole path."""
    segments = path.split("/")
    return ["/".join(segments[-count:]) for count in range(1, len(segments) + 1)]


@dataclass(frozen=True, slots=True)
class _Kind:
    """All keys of one part and component, as one row for selectors to look at."""

    key: str
    labels: Labels


def exact_selector(scan: Scan, *, axis: Axis, paths: Sequence[str], depth: Depth = "rank") -> str:
    """A selector that hits the counted keys of these groups of one axis, and no others.

    A component's name also hits where it stands inside another path (`conv` of the U-Net, and the
    `conv` of a VAE's upsampler); then the groups' parts are named as well, and what is still left
    over is excluded.
    """
    kinds = _kinds(counted(scan.keys))
    places = [(path,) for path in paths]
    return _exact(kinds, kinds, scan.blocks, axes=[axis], places=places, depth=depth)


def _exact(
    ranked: Sequence[_Kind],
    kinds: Sequence[_Kind],
    blocks: Sequence[str],
    *,
    axes: Sequence[Axis],
    places: Sequence[Place],
    depth: Depth,
) -> str:
    """`exact_selector` for groups of the kinds that are `ranked`, among all `kinds` there are.

    Several places are of one axis. Blocks and kinds have names that hit nothing else; what components
    and parts need is found among the `_Kind`s, which have only those.
    """
    terms = {axis: dict.fromkeys(f"{axis}:{at[i]}" for at in places) for i, axis in enumerate(axes)}
    plain = [term for axis in axes if axis not in _OF_KINDS for term in terms[axis]]
    inside = [axis for axis in axes if axis in _OF_KINDS]
    selector = ",".join(term for axis in inside for term in terms[axis])
    if "component" in inside:
        wanted = {
            tuple(label for axis, label in zip(axes, at, strict=True) if axis in inside) for at in places
        }
        members = {k.labels for k in ranked if place(k, inside, depth) in wanted}
        if foreign := _foreign(selector, kinds, members, blocks):
            parts = sorted({labels.part for labels in members})
            if "part" not in inside and not {labels.part for labels in foreign} <= set(parts):
                selector = ",".join([*(f"part:{part}" for part in parts), selector])
        if foreign := _foreign(selector, kinds, members, blocks):
            selector += "".join(f",!component:{c}" for c in sorted({labels.component for labels in foreign}))
    return ",".join(filter(None, [*plain, selector]))


def _kinds(rows: Iterable[KeyScan]) -> list[_Kind]:
    """What components there are, of which part: few rows, whatever the number of keys."""
    found: dict[tuple[str, str, str, bool], Labels] = {}
    for row in rows:
        labels = row.labels
        kind = (labels.part, labels.component, labels.group, labels.counted)
        if kind not in found:
            found[kind] = _without_place(labels)
    return [_Kind("", labels) for labels in found.values()]


def _foreign(
    selector: str, kinds: Sequence[_Kind], members: set[Labels], blocks: Sequence[str]
) -> list[Labels]:
    compiled = compile_selector(selector, rows=kinds, blocks=blocks)
    return [k.labels for k in kinds if k.labels not in members and compiled.hits(k)]


def _without_place(labels: Labels) -> Labels:
    """The labels with what does not bear on components left out, so that few distinct ones remain."""
    return replace(labels, block="", kind="")


def _label(row: KeyScan | _Kind, axis: Axis, depth: Depth) -> str:
    if axis == "component":
        return row.labels.component if depth == "full" else row.labels.group
    label: str = getattr(row.labels, axis)
    return label


def _rank_row(name: str, selector: str, keys: Sequence[KeyScan], whole: Sums) -> RankRow:
    sums = add_sums(row.sums for row in keys)
    total = whole if all(row.labels.counted for row in keys) else None  # what is outside has no share of it
    values = evaluate(sums, total=total, keys=keys)
    return RankRow(name, selector, len(keys), sums, values, worst(verdict(row.sums) for row in keys))
