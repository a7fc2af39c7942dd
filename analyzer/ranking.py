"""Group the keys of a scan along an axis and put the groups in order. Knows no torch and no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from analyzer.errors import AnalyzerError
from analyzer.expressions import Condition
from analyzer.records import KeyScan, Labels, Scan, Sums, add_sums
from analyzer.selectors import compile_selector, select
from analyzer.statistics import STATISTICS, evaluate

Axis = Literal["part", "block", "component", "kind"]
Depth = Literal["rank", "full"]


@dataclass(frozen=True, slots=True)
class RankRow:
    """One group of keys. Its statistics come from its summed record, not from those of its keys."""

    name: str  # short: "attn2"
    selector: str  # hits the counted keys of this group: "component:transformer_blocks/attn2"
    keys: int
    sums: Sums
    statistics: Mapping[str, float | None]


def rank(
    scan: Scan,
    *,
    axis: Axis = "component",
    by: str = "relative_change",
    depth: Depth = "rank",
    only: str | None = None,
    top: int | None = None,
) -> list[RankRow]:
    """The groups of one axis, the one that differs most first; undefined last, ties by name.

    Components group at the level that the architecture's rules mark, or with depth "full" at the
    leaves, among them the virtual rows of fused tensors. EMA copies, schedules, markers and integers are
    left out unless `only` names them. Raises AnalyzerError for an unknown statistic, SelectorError for a
    wrong or empty selection.
    """
    if by not in STATISTICS:
        raise AnalyzerError(f"unknown statistic {by!r}: choose one of {', '.join(STATISTICS)}")
    rows = leaves(scan) if depth == "full" else scan.keys
    if only is None:
        chosen: Sequence[KeyScan] = counted(rows)
    else:
        chosen = select(only, rows=rows, blocks=scan.blocks)
    whole = total(scan.keys)
    groups: dict[str, list[KeyScan]] = {}
    for row in chosen:
        groups.setdefault(_place(row, axis, depth), []).append(row)
    names = short_names(groups)
    ranked, kinds = _kinds(chosen), _kinds([*counted(rows), *chosen])
    ranking = []
    for path, keys in groups.items():
        selector = _exact(ranked, kinds, scan.blocks, axis=axis, paths=[path], depth=depth)
        ranking.append(_rank_row(names[path], selector, keys, whole))
    sign = 1 if STATISTICS[by].ascending else -1

    def position(row: RankRow) -> tuple[bool, float, str]:
        value = row.statistics[by]
        return (value is None, 0.0 if value is None else sign * value, row.name)

    return sorted(ranking, key=position)[:top]


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
    whole = total(scan.keys)
    return [row for row in counted(scan.keys) if condition.holds(evaluate(row.sums, total=whole))]


def counted(rows: Iterable[KeyScan]) -> list[KeyScan]:
    """The rows that enter totals: no EMA copies, schedules, markers or integers."""
    return [row for row in rows if row.labels.counted]


def total(rows: Iterable[KeyScan]) -> Sums:
    """The record of all counted rows together."""
    return add_sums(row.sums for row in counted(rows))


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The shortest end of each path that no other path has: "attn2", or "attn2/to_q"."""
    ends = {path: _ends(path) for path in paths}
    often = Counter(end for tails in ends.values() for end in tails)
    return {path: next((end for end in tails if often[end] == 1), path) for path, tails in ends.items()}


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
    return _exact(kinds, kinds, scan.blocks, axis=axis, paths=paths, depth=depth)


def _exact(
    ranked: Sequence[_Kind],
    kinds: Sequence[_Kind],
    blocks: Sequence[str],
    *,
    axis: Axis,
    paths: Sequence[str],
    depth: Depth,
) -> str:
    """`exact_selector` for groups of the kinds that are `ranked`, among all `kinds` there are."""
    selector = ",".join(f"{axis}:{path}" for path in paths)
    if axis != "component":
        return selector
    members = {k.labels for k in ranked if _place(k, axis, depth) in paths}
    if foreign := _foreign(selector, kinds, members, blocks):
        parts = sorted({labels.part for labels in members})
        if not {labels.part for labels in foreign} <= set(parts):
            selector = ",".join([*(f"part:{part}" for part in parts), selector])
    if foreign := _foreign(selector, kinds, members, blocks):
        selector += "".join(f",!component:{c}" for c in sorted({labels.component for labels in foreign}))
    return selector


def _kinds(rows: Iterable[KeyScan]) -> list[_Kind]:
    """What components there are, of which part: few rows, whatever the number of keys."""
    return [_Kind("", labels) for labels in {_without_place(row.labels): None for row in rows}]


def _foreign(
    selector: str, kinds: Sequence[_Kind], members: set[Labels], blocks: Sequence[str]
) -> list[Labels]:
    compiled = compile_selector(selector, rows=kinds, blocks=blocks)
    return [k.labels for k in kinds if k.labels not in members and compiled.hits(k)]


def _without_place(labels: Labels) -> Labels:
    """The labels with what does not bear on components left out, so that few distinct ones remain."""
    return replace(labels, block="", kind="")


def _place(row: KeyScan | _Kind, axis: Axis, depth: Depth) -> str:
    if axis == "component":
        return row.labels.component if depth == "full" else row.labels.group
    place: str = getattr(row.labels, axis)
    return place


def _rank_row(name: str, selector: str, keys: Sequence[KeyScan], whole: Sums) -> RankRow:
    sums = add_sums(row.sums for row in keys)
    total = whole if all(row.labels.counted for row in keys) else None  # what is outside has no share of it
    return RankRow(name, selector, len(keys), sums, evaluate(sums, total=total))
