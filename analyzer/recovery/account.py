"""What a recovery comes to: alphas by group, how the merge was made, and what of it is foreign.

Knows sums and labels, no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from analyzer.ranking import Depth, crossed_axes, short_names
from analyzer.recovery.fits import Fit, beyond_rounding, fit, of_difference, without_third
from analyzer.recovery.grams import Gram, add_grams
from analyzer.recovery.reconstruction import Reconstruction, allowed, reconstruct, whole_keys
from analyzer.recovery.shared_values import Interval, most_shared, simplest
from analyzer.recovery.summing import KeyGram, Recovery

# "of B": A + alpha·(B − A). "difference": A + alpha·(B − C). "sum": A + alpha·(B − A) + gamma·(C − A).
Form = Literal["of B", "difference", "sum"]

_NOISE = 4.0  # times what rounding leaves
_AS_GOOD = 1.02  # a simpler form may leave so much more than one with a number more a key
_NARROW = 0.01  # a range of alphas in which the simplest may be meant
_NEARLY_ALL = 0.999  # of the elements that can tell
_FEW = 3  # categories that are worth naming
_MOST = 0.8  # of what is left
_SMALL = 0.5  # of the parents' difference: what holds more of it holds most of anything


@dataclass(frozen=True, slots=True)
class Group:
    """The keys of one label, or of two that are crossed, together."""

    place: tuple[str, ...]  # the labels, one an axis
    name: str  # for people: short
    keys: int
    gram: Gram
    fit: Fit
    alpha: float | None  # the simplest number that all its keys allow; if there is none, the fit's
    gamma: float | None  # likewise; None without a third parent
    # The lowest and the highest alpha of its keys, if no single one is allowed by all
    spread: tuple[float, float] | None
    unexplained: float | None  # of ‖m − a‖², each key fitted by itself; None: nothing moved
    foreign: float | None  # the share of ‖m − a‖² where the parents are equal; None: nothing moved

    @property
    def equal(self) -> bool:
        """Whether the parents hold the same values."""
        return self.gram.n == self.gram.still


@dataclass(frozen=True, slots=True)
class Recovered:
    """How a merge came about."""

    form: Form
    whole: Group
    made: Reconstruction | None  # None: no key can tell, or gamma differs from key to key
    gamma: float | None  # of the form "sum", if all keys have the same
    foreign_keys: tuple[str, ...]  # in which the parents are equal, and the merge is not
    strange: tuple[KeyGram, ...]  # keys of which much is in no parent
    where: tuple[str, ...]  # the few categories that hold most of what is in no parent; () of none
    parts: int  # how many there are
    neither: tuple[str, ...]  # integer keys that hold neither parent's values


def recovered(recovery: Recovery) -> Recovered:
    """What the sums of a merge and its parents come to."""
    keys = whole_keys(recovery.rows)
    form = _form(keys) if recovery.c else "of B"
    rows = formed = _in_form(keys, form)
    gamma = _gamma(keys) if form == "sum" else None
    if gamma is not None:
        rows = [replace(row, gram=without_third(row.gram, gamma)) for row in keys]
    return Recovered(
        form=form,
        whole=_group((), "", keys, form),
        made=None if form == "sum" and gamma is None else reconstruct(rows, recovery.blocks),
        gamma=gamma,
        foreign_keys=tuple(row.key for row in keys if _is_foreign(row.gram)),
        strange=tuple(row for row in formed if fit(row.gram, three=form == "sum").is_strange),
        where=_where(formed, three=form == "sum"),
        parts=len({row.labels.part for row in keys}),
        neither=tuple(row.key for row in recovery.equalities if not row.equals_a and not row.equals_b),
    )


def _where(keys: Sequence[KeyGram], *, three: bool) -> tuple[str, ...]:
    """The few categories in which most of what is left lies, if they are not most of the model."""
    left: dict[str, float] = {}
    size: dict[str, float] = {}
    for row in keys:
        found, group = fit(row.gram, three=three), row.labels.group
        left[group] = left.get(group, 0.0) + max(found.left - found.rounding, 0.0)
        size[group] = size.get(group, 0.0) + row.gram.dd
    ordered = sorted(left, key=lambda group: -left[group])[:_FEW]
    enough, whole = 0.0, sum(left.values())
    for count, group in enumerate(ordered, start=1):
        enough += left[group]
        if enough > _MOST * whole:
            chosen = ordered[:count]
            names = short_names(left)
            small = sum(size[name] for name in chosen) < _SMALL * sum(size.values())
            return tuple(names[name] for name in chosen) if small else ()
    return ()


def _is_foreign(gram: Gram) -> bool:
    return gram.n == gram.still and gram.foreign > 0


def groups(recovery: Recovery, form: Form, *, axis: str, depth: Depth = "rank") -> list[Group]:
    """The groups of an axis, or of two that are crossed ("block*component"), in the order of the network.

    Components group at the level that rankings use, or with depth "full" at the leaves, the rows of fused
    tensors among them. Raises AnalyzerError for an unknown axis.
    """
    axes = crossed_axes(axis)
    found: dict[tuple[str, ...], list[KeyGram]] = {}
    rows = [row for row in recovery.rows if row.labels.counted and row.gram.n]
    for row in rows if depth == "full" else whole_keys(rows):
        found.setdefault(tuple(_label(row, name, depth) for name in axes), []).append(row)
    columns = [short_names(set(column)) for column in zip(*found, strict=True)]
    order = {block: place for place, block in enumerate(recovery.blocks)}
    ordered = sorted(found) if "block" not in axes else sorted(
        found, key=lambda place: order.get(place[axes.index("block")], -1)
    )  # fmt: skip
    if "block" not in axes:
        ordered = list(found)
    return [
        _group(
            place,
            " × ".join(names[label] for names, label in zip(columns, place, strict=True)),
            found[place],
            form,
        )
        for place in ordered
    ]


def _label(row: KeyGram, axis: str, depth: Depth) -> str:
    if axis == "component":
        if depth == "rank":
            return row.labels.group
        return f"{row.labels.component}/{row.word}" if row.word else row.labels.component
    label: str = getattr(row.labels, axis)
    return label


def _group(place: tuple[str, ...], name: str, keys: Sequence[KeyGram], form: Form) -> Group:
    rows = _in_form(keys, form)
    gram = add_grams(row.gram for row in rows)
    three = form == "sum"
    found = fit(gram, three=three)
    fits = [fit(row.gram, three=three) for row in rows]
    alpha, spread = _number(
        found, gram.numel, [(row.gram.numel, each) for row, each in zip(rows, fits, strict=True)]
    )
    gamma, _ = _number(
        _of_third(found),
        gram.numel,
        [(row.gram.numel, _of_third(each)) for row, each in zip(rows, fits, strict=True)],
    )
    left, rounding = sum(each.left for each in fits), sum(each.rounding for each in fits)
    something = any(each.moved > 0 and not each.only_rounded for each in fits)
    unexplained = beyond_rounding(left, rounding, gram.ee) if something else None
    foreign = sum(row.gram.foreign_ee for row in rows if _is_foreign(row.gram))
    return Group(
        place=place,
        name=name,
        keys=len({row.key for row in keys}),
        gram=gram,
        fit=found,
        alpha=alpha,
        gamma=gamma,
        spread=spread,
        unexplained=unexplained,
        foreign=foreign / gram.ee if something else None,
    )


def _number(
    found: Fit, numel: int, fits: Sequence[tuple[int, Fit]]
) -> tuple[float | None, tuple[float, float] | None]:
    """The number that stands for a group, and the spread of its keys if one is not enough.

    `fits` are those of its keys, with how many elements each has.
    """
    ranges = [interval for count, each in fits if (interval := allowed(each, count)) is not None]
    values = [each.alpha for _, each in fits if each.alpha is not None]
    shared = most_shared(ranges)
    if shared is None or not values:
        return found.alpha, None
    if shared.weight < sum(each.weight for each in ranges) * (1 - 1e-12):
        return found.alpha, (min(values), max(values))
    own = allowed(found, numel)
    low, high = shared.low, shared.high
    if own is not None and own.low <= high and low <= own.high:
        low, high = max(low, own.low), min(high, own.high)
    return (simplest(low, high) if high - low < _NARROW else found.alpha), None


def _in_form(keys: Sequence[KeyGram], form: Form) -> list[KeyGram]:
    if form != "difference":
        return list(keys)
    return [replace(row, gram=of_difference(row.gram)) for row in keys]


def _form(keys: Sequence[KeyGram]) -> Form:
    """The simplest form that leaves as little of a merge as one with two numbers a key."""
    both = [fit(row.gram, three=True) for row in keys]
    rounding = sum(each.rounding for each in both)
    enough = max(
        _AS_GOOD * sum(each.left for each in both), _NOISE * rounding if rounding < float("inf") else 0
    )
    if sum(fit(row.gram).left for row in keys) <= enough:
        return "of B"
    if sum(fit(of_difference(row.gram)).left for row in keys) <= enough:
        return "difference"
    return "sum"


def _gamma(keys: Sequence[KeyGram]) -> float | None:
    """The gamma of nearly all keys that can tell; None where they have several."""
    fits = [(row.gram.numel, fit(row.gram, three=True)) for row in keys]
    return _of_nearly_all([found for numel, each in fits if (found := allowed(_of_third(each), numel))])


def _of_third(found: Fit) -> Fit:
    """The fit with the third parent's number in the place of the second's."""
    return replace(found, alpha=found.gamma, error=found.gamma_error)


def _of_nearly_all(ranges: Sequence[Interval]) -> float | None:
    shared = most_shared(ranges)
    if shared is None or shared.weight < _NEARLY_ALL * sum(each.weight for each in ranges):
        return None
    return simplest(shared.low, shared.high)
