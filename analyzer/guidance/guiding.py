"""What a scan says of a merge: which keys to take from B, and how much of them. Knows no weights.

A choice (`where`, `top`) says which keys; a setting (`budget`, `match`, `alpha_from`) says how far they
go. One of each may be combined.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analyzer.errors import RecipeError
from analyzer.evaluation import evaluate_key, require_asked, require_measured
from analyzer.expressions import Formula, parse_expression, parse_formula
from analyzer.guidance.matching import match_alpha, require_target, unmoved
from analyzer.measures import add_sums
from analyzer.ranking import RankedKeys, counted, crossed_axes, keys_where, rank_keys, whole_energy
from analyzer.recipes.recipe import Guide
from analyzer.records import KeyScan, Scan
from analyzer.statistics import STATISTICS

_NAMED = 3  # groups or keys that a note names
_SHOWN = 60  # characters of an expression in a reason
_UNDEFINED = "undefined, A is kept"


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a scan says of the keys of A. Names no key that the scan did not measure."""

    chosen: frozenset[str] | None  # A's keys that `where` or `top` choose; None: neither was asked
    choice: str  # "--where relative_change > 0.03", for reasons; "" without a choice
    alphas: Mapping[str, float]  # of every counted key of the scan, in 0 … 1; empty without a setting
    reasons: Mapping[str, str]  # of the same keys: "--budget 0.03: attn2 moved by 0.3"
    notes: tuple[str, ...]  # a sentence each, for the user


@dataclass(frozen=True, slots=True)
class _Setting:
    """The alpha of one group, or of one key."""

    alpha: float
    detail: str  # why: "moved by 0.3"
    # "undefined": 0 because there was nothing to compute it from; "missed": not what was asked for
    outcome: str = ""


_Named = tuple[str, Sequence[KeyScan], _Setting]  # the name of a group, its keys, its alpha


def guide_by(scan: Scan, guide: Guide, *, movable: Collection[str] | None = None) -> Guidance:
    """The keys that a scan chooses and the alphas that it gives, by A's key.

    `movable` are A's keys that the merge may change at all (None: all of them): `match` takes the others
    as they stand in A. Keys that count in no total get nothing, but for those that repeat a
    counted one (a tied head): they get what that one has. Raises RecipeError for a guide that contradicts
    itself, chooses no key or is undefined throughout; AnalyzerError for a statistic that is unknown or was
    not measured, and for an unknown axis; SelectorError for an expression that does not parse.
    """
    check(guide)
    twins = _twins(scan)
    chosen, choice, notes = _choose(scan, guide)
    option, settings = "", list[_Named]()
    if guide.budget is not None:
        option, settings = f"--budget {guide.budget:.12g}", _by_budget(scan, guide, guide.budget)
    elif guide.match is not None:
        option = f"--match {guide.match[0]}={guide.match[1]:.12g}"
        settings = _by_match(scan, guide, guide.match, _fixed(scan, chosen, movable))
    elif guide.alpha_from is not None:
        option, settings = f"--alpha-from {_short(guide.alpha_from)}", _by_formula(scan, guide)
    alphas: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, keys, setting in settings:
        reason = f"{option}: {name} {setting.detail}" if name else f"{option}: {setting.detail}"
        for row in keys:
            for key in (row.key, *twins.get(row.key, ())):
                alphas[key], reasons[key] = setting.alpha, reason
    if option:
        notes += _remarks(option, settings, chosen)
    if chosen is not None:
        chosen = chosen.union(*(twins.get(key, ()) for key in chosen))
    return Guidance(chosen, choice, alphas, reasons, tuple(notes))


def check(guide: Guide) -> None:
    """RecipeError if a guide contradicts itself or names what no scan has; SelectorError for its texts."""
    if guide.where is not None and guide.top is not None:
        raise RecipeError("--where and --top both choose keys: give one of them")
    settings = {"--budget": guide.budget, "--match": guide.match, "--alpha-from": guide.alpha_from}
    asked = [name for name, value in settings.items() if value is not None]
    if len(asked) > 1:
        raise RecipeError(f"{' and '.join(asked)} both set the alphas: give one of them")
    if guide.per is not None and not asked:
        raise RecipeError("--per says what --budget, --match or --alpha-from goes by: give one of them")
    if guide.top is None and (guide.by, guide.axis) != (Guide().by, Guide().axis):
        raise RecipeError("--by and --axis say what --top N orders: give it as well")
    if guide.top is not None and guide.top < 1:
        raise RecipeError(f"--top {guide.top}: choose one group or more")
    if guide.budget is not None and not 0 <= guide.budget < float("inf"):
        raise RecipeError(
            f"--budget {guide.budget:g}: the most that a group may move, as a share of its norm, is a "
            "number of 0 or more, such as 0.03"
        )
    for axis in (guide.axis, guide.per):
        if axis is not None:
            crossed_axes(axis)
    require_asked([guide.by], base=True, spectrum=True)
    if guide.match is not None:
        require_target(*guide.match)
    if guide.where is not None:
        parse_expression(guide.where, names=STATISTICS)
    if guide.alpha_from is not None:
        parse_formula(guide.alpha_from, names=STATISTICS)


def _choose(scan: Scan, guide: Guide) -> tuple[frozenset[str] | None, str, list[str]]:
    """The keys that `where` or `top` choose, which of them that was, and what there is to say of it."""
    if guide.where is not None:
        condition = parse_expression(guide.where, names=STATISTICS)
        chosen = frozenset(row.key for row in keys_where(scan, condition))
        if not chosen:
            raise RecipeError(
                f"--where {_short(guide.where)} holds for no key of the scan: look at the values with "
                "mergescope rank"
            )
        return chosen, f"--where {_short(guide.where)}", []
    if guide.top is None:
        return None, "", []
    choice = f"--top {guide.top} --by {guide.by} --axis {guide.axis}"
    ranking = rank_keys(scan, axis=guide.axis, by=guide.by)
    defined = [group for group in ranking if group.row.statistics[guide.by] is not None]
    if not defined:
        raise RecipeError(f"--top {guide.top}: {guide.by} is undefined for every {guide.axis} of the scan")
    chosen = frozenset(row.key for group in defined[: guide.top] for row in group.keys)
    notes = []
    if len(defined) < guide.top:
        notes.append(f"{choice}: there are only {len(defined)} groups that have a {guide.by}")
    return chosen, choice, notes


def _by_budget(scan: Scan, guide: Guide, budget: float) -> list[_Named]:
    """min(1, budget / relative_change) of each group, as `rank` prints it."""

    def setting(group: RankedKeys) -> _Setting:
        change = group.row.statistics["relative_change"]
        if change is None:
            return _Setting(0.0, _UNDEFINED, "undefined")
        # budget / change may overflow to inf, where a change is next to nothing
        alpha = min(1.0, budget / change) if change else 1.0
        return _Setting(alpha, f"moved by {change:.3g}" if change else "did not move")

    return _per_group(scan, guide, setting)


def _by_match(scan: Scan, guide: Guide, match: tuple[str, float], fixed: Collection[str]) -> list[_Named]:
    """The alpha at which each group has the wanted statistic, if the keys in `fixed` stay as A has them."""
    statistic, value = match

    def setting(group: RankedKeys) -> _Setting:
        if any(row.key in fixed for row in group.keys):
            sums = add_sums(unmoved(row.sums) if row.key in fixed else row.sums for row in group.keys)
        else:
            sums = group.row.sums
        found = match_alpha(sums, statistic, value)
        if found is None:
            return _Setting(0.0, _UNDEFINED, "undefined")
        if sums.sum_dd == 0:
            return _Setting(1.0, "did not move")
        if found.reached:
            return _Setting(found.alpha, f"has it at alpha {found.alpha:.4g}")
        return _Setting(found.alpha, f"comes to {found.value:.6g} at alpha {found.alpha:.4g}", "missed")

    return _per_group(scan, guide, setting)


def _by_formula(scan: Scan, guide: Guide) -> list[_Named]:
    """What the formula gives for each group, or for each key where no axis is asked for, within 0 … 1."""
    assert guide.alpha_from is not None
    formula = parse_formula(guide.alpha_from, names=STATISTICS)
    require_measured(formula.names, scan)
    if guide.per is not None:
        return _per_group(scan, guide, lambda group: _of_formula(formula, group.row.statistics))
    whole = whole_energy(scan)
    rows = counted(scan.keys)
    return [("", [row], _of_formula(formula, evaluate_key(row, total=whole))) for row in rows]


def _of_formula(formula: Formula, statistics: Mapping[str, float | None]) -> _Setting:
    value = formula.value(statistics)
    if value is None:
        return _Setting(0.0, _UNDEFINED, "undefined")
    return _Setting(min(max(value, 0.0), 1.0), f"comes to {value:.4g}")


def _per_group(scan: Scan, guide: Guide, setting: Callable[[RankedKeys], _Setting]) -> list[_Named]:
    groups = rank_keys(scan, axis=guide.per or "component")
    return [(group.row.name, group.keys, setting(group)) for group in groups]


def _remarks(option: str, settings: Sequence[_Named], chosen: frozenset[str] | None) -> list[str]:
    """What the user should know of the alphas. RecipeError if every one of them is undefined."""
    used = [
        (name or keys[0].key, setting)
        for name, keys, setting in settings
        if chosen is None or any(row.key in chosen for row in keys)
    ]
    undefined = [name for name, setting in used if setting.outcome == "undefined"]
    if len(undefined) == len(used):
        raise RecipeError(f"{option} is undefined for every key that it is asked of: nothing would be merged")
    missed = [(name, setting) for name, setting in used if setting.outcome == "missed"]
    notes = []
    if missed:
        listed = _listed(f"{name} ({setting.detail})" for name, setting in missed)
        notes.append(f"{option} has no solution between 0 and 1 for {listed}")
    if undefined:
        notes.append(f"{option} is undefined for {_listed(undefined)}: alpha 0")
    if all(setting.alpha == 0 for _, setting in used):
        notes.append(f"{option} comes to alpha 0 everywhere: nothing is merged")
    return notes


def _fixed(scan: Scan, chosen: frozenset[str] | None, movable: Collection[str] | None) -> frozenset[str]:
    """The keys that no alpha of a group can move, whatever it is."""
    return frozenset(
        row.key
        for row in scan.keys
        if row.slice is not None  # a tensor that was compared in part is never merged
        or (chosen is not None and row.key not in chosen)
        or (movable is not None and row.key not in movable)
    )


def _twins(scan: Scan) -> dict[str, list[str]]:
    """By counted key, those that repeat its tensor in both models, which is why they count in no total."""
    rest = [r for r in scan.keys if not r.labels.counted and r.labels.part != "ema" and r.sums.numeric]
    if not rest:
        return {}
    first: dict[tuple[object, ...], KeyScan] = {}
    for row in counted(scan.keys):
        first.setdefault(_measures(row), row)
    found: dict[str, list[str]] = {}
    for row in rest:
        twin = first.get(_measures(row))
        if twin is not None and twin.sums == row.sums:
            found.setdefault(twin.key, []).append(row.key)
    return found


def _measures(row: KeyScan) -> tuple[object, ...]:
    """What two rows of one tensor have in common, in short."""
    return row.shape, row.sums.sum_aa, row.sums.sum_bb, row.sums.sum_dd


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _NAMED
    return ", ".join(known[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
