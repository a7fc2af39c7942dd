"""What did not change, or only by rounding, while something else did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Group, Survey
from analyzer.formulas import change_to_rounding, changed_fraction
from analyzer.measures import add_sums
from analyzer.ranking import Axis
from analyzer.records import Finding
from analyzer.verdicts import VERDICTS

# Where no more groups than this changed, and fewer than stood still, those that changed are named instead.
FEW_MOVED = 4
# A group is spoken of if at least this share of its keys was not in one before.
NEWS_SHARE = 0.1

_NOUNS: Mapping[Axis, str] = {"component": "categories", "block": "blocks", "kind": "kinds of keys"}


def find_stillness(survey: Survey) -> list[Finding]:
    """The parts without any change, then components, blocks and kinds of which most is news."""
    if not _some_number_changed(survey):
        return []
    found = []
    told: set[str] = set()  # the keys of which it is known already
    for axis, groups in survey.axes.items():
        still = [g for g in groups if g.still and _is_news(g, told)]
        moved = [g for g in groups if not g.still]
        if not still or not moved:  # blocks do not hold all keys: none of them may have moved
            continue
        told.update(row.key for group in still for row in group.keys)
        few = len(moved) <= FEW_MOVED and len(moved) < len(groups) - len(moved)
        changed = all(group.worst == "changed" and group.sums.changed for group in moved)
        if axis in _NOUNS and few and changed:
            found.append(_confined(survey, axis, moved, [g for g in groups if g.still]))
        else:
            found.append(_unchanged(survey, axis, still))
    return found


def _some_number_changed(survey: Survey) -> bool:
    """Whether more than rounding differs, and more than values that are no numbers."""
    return any(row.sums.changed for row in survey.changed)


def _is_news(group: Group, told: set[str]) -> bool:
    return sum(row.key not in told for row in group.keys) >= NEWS_SHARE * len(group.keys)


def _unchanged(survey: Survey, axis: Axis, still: Sequence[Group]) -> Finding:
    keys = [row for group in still for row in group.keys]
    same = all(row.dtype_a == row.dtype_b for row in keys)
    how = "equal values" if same else "equal values, stored in another dtype"
    selector = survey.selecting.groups(axis, [group.path for group in still])
    names = selector if ".." in selector else wording.names([group.name for group in still])
    text = f"nothing changed in {names} ({wording.count(len(keys))}, {how})"
    return Finding(text, "changed_fraction", 0.0, selector)


def _confined(survey: Survey, axis: Axis, moved: Sequence[Group], still: Sequence[Group]) -> Finding:
    names = wording.names([group.name for group in moved])
    keys = wording.count(sum(len(group.keys) for group in still))
    fraction = changed_fraction(add_sums(group.sums for group in moved))
    text = (
        f"of the {_NOUNS[axis]} only {names} changed; nothing changed in the {len(still):,} others ({keys})"
    )
    selector = survey.selecting.groups(axis, [group.path for group in moved])
    return Finding(text, "changed_fraction", fraction, selector)


def find_rounding(survey: Survey) -> list[Finding]:
    """The parts in which only rounding differs, and inside the others the components."""
    if not _some_number_changed(survey):
        return []
    parts = [part for part in survey.parts if part.only_rounding]
    told = {row.key for part in parts for row in part.keys}
    components = [g for g in survey.components if g.only_rounding and _is_news(g, told)]
    axes: tuple[tuple[Axis, list[Group]], ...] = (("part", parts), ("component", components))
    found = []
    for axis, groups in axes:
        if not groups:
            continue
        sums = add_sums(group.sums for group in groups)
        counts = {name: sum(group.counts[name] for group in groups) for name in VERDICTS}
        text = (
            f"in {wording.names([group.name for group in groups])} only rounding differs "
            f"({wording.verdict_counts(counts)})"
        )
        ratio = change_to_rounding(sums)
        selector = survey.selecting.groups(axis, [group.path for group in groups])
        found.append(
            Finding(text, "count", float(sum(counts.values())), selector)
            if ratio is None
            else Finding(
                f"{text}; the difference is {wording.ratio(ratio)} times what rounding alone would leave",
                "change_to_rounding",
                ratio,
                selector,
            )
        )
    return found


STILLNESS = Finder(
    find_stillness,
    (
        Rule(
            "nothing changed in vae (248 keys, equal values)",
            "every element of every counted key of a part, component, block of the network or kind is equal, "
            "while something else changed; those of which less than {NEWS_SHARE} is news are left out",
            {"NEWS_SHARE": NEWS_SHARE},
        ),
        Rule(
            "of the categories only attn1 and attn2 changed; nothing changed in the 20 others (900 keys)",
            "the same, where at most {FEW_MOVED} changed and fewer than did not",
            {"FEW_MOVED": FEW_MOVED},
        ),
    ),
)
ROUNDING = Finder(
    find_rounding,
    (
        Rule(
            "in vae only rounding differs (240 keys equal after a cast, 8 identical)",
            "the verdict on every counted key of a part or component is identical, cast or rounding, not all "
            "of them identical, while another key changed",
        ),
    ),
)
