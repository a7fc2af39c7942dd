"""How large the change is: of the whole, and of the components that moved most, least, or hold most of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Group, Survey
from analyzer.formulas import energy_share, relative_change
from analyzer.kinship import DISTANT_COSINE
from analyzer.records import Finding

# The component that moved most did so if by this factor more than the median of the other ones, which is
# more than twice the Σd² for its length; the one that moved least if by that factor less, a quarter of it.
MOST_FACTOR = 1.5
LEAST_FACTOR = 2.0
# A component holds much of the change if at least this share of Σd², a large part of what a merge can act
# on, and at least so many times its share of the numbers that changed, so that it is not merely large.
ENERGY_SHARE = 0.25
ENERGY_FACTOR = 2.0
# A component must have this share of the elements of all that moved to be judged by how far it did: the few
# numbers of gains and biases move most or least as a matter of course, and bear little on a merge.
LARGE_SHARE = 0.001
ALIKE = 3  # so many components or more must have moved alike to be worth a word


def find_extent(survey: Survey) -> list[Finding]:
    """How far the weights of two relatives lie apart. Of models trained apart that says nothing."""
    found = survey.relation
    value = relative_change(survey.whole.sums)
    if found.cosine is None or found.cosine < DISTANT_COSINE or not value:
        return []
    changed, keys = survey.whole.counts["changed"], len(survey.whole.keys)
    how_many = f"{changed:,} of {wording.count(keys)}" if changed < keys else f"all {wording.count(keys)}"
    text = f"as a whole the weights moved by {wording.change(value, 'their')}; {how_many} changed"
    return [Finding(text, "relative_change", value, "")]


def find_sizes(survey: Survey) -> list[Finding]:
    """What moved most by its own length, what else holds much of the change, and what moved least."""
    moved = survey.related
    elements = sum(group.sums.numel for group in moved)
    large = [group for group in moved if group.sums.numel >= LARGE_SHARE * elements]
    if len(moved) < 2 or not large:  # one group alone moves neither most nor least
        return []
    most, least = max(large, key=_change), min(large, key=_change)
    found = []
    if _change(most) >= MOST_FACTOR * _others(most, moved):
        share = energy_share(most.sums, survey.whole.sums)
        holds = f"; it holds {wording.share(share)} of all change" if share else ""
        found.append(_change_finding(survey, most, moved, "most", holds))
    found += [finding for group, finding in _holds_most(survey, moved) if not found or group is not most]
    if _change(least) * LEAST_FACTOR <= _others(least, moved):
        found.append(_change_finding(survey, least, moved, "least", ""))
    return found or _alike(large)


def _alike(large: Sequence[Group]) -> list[Finding]:
    """That no component stands out by how far it moved, where there are enough of them to say so."""
    if len(large) < ALIKE:
        return []
    changes = sorted(map(_change, large))
    low, high = wording.amount(changes[0]), wording.amount(changes[-1])
    spread = f"by {low}" if low == high else f"by {low} to {high}"
    text = f"no category moved much more or less than the others: all {len(large):,} {spread} of their length"
    return [Finding(text, "relative_change", median(changes), "")]


def _change_finding(survey: Survey, group: Group, moved: Sequence[Group], how: str, more: str) -> Finding:
    text = (
        f"{group.name} moved {how}, by {wording.change(_change(group))} (the median of the others: "
        f"{wording.amount(_others(group, moved))}){more}"
    )
    selector = survey.selecting.groups("component", [group.path])
    return Finding(text, "relative_change", _change(group), selector)


def _holds_most(survey: Survey, moved: Sequence[Group]) -> list[tuple[Group, Finding]]:
    """The component with the largest share of Σd² of those that hold much more than their share."""
    whole = survey.whole.sums
    found = []
    for group in moved:
        share, size = energy_share(group.sums, whole) or 0.0, group.sums.changed / whole.changed
        if share >= max(ENERGY_SHARE, ENERGY_FACTOR * size):
            found.append((share, size, group))
    if not found:
        return []
    share, size, group = max(found, key=lambda each: each[0])
    text = (
        f"{group.name} holds {wording.share(share)} of all change in {wording.share(size)} of the numbers "
        "that changed"
    )
    selector = survey.selecting.groups("component", [group.path])
    return [(group, Finding(text, "energy_share", share, selector))]


def _change(group: Group) -> float:
    """The relative change of a group that moved, which is never zero."""
    return relative_change(group.sums) or 0.0


def _others(group: Group, moved: Sequence[Group]) -> float:
    return median(_change(other) for other in moved if other is not group)


EXTENT = Finder(
    find_extent,
    (
        Rule(
            "as a whole the weights moved by 12% of their length; 882 of 1,130 keys changed",
            "the two are relatives: the median cosine of the first sentence is at least {DISTANT_COSINE}",
            {"DISTANT_COSINE": DISTANT_COSINE},
        ),
    ),
)
SIZES = Finder(
    find_sizes,
    (
        Rule(
            "attn2 moved most, by 30% of its length (the median of the others: 10%); it holds 49% of all "
            "change",
            "the largest relative_change of the components with {LARGE_SHARE} or more of the elements is at "
            "least {MOST_FACTOR} times the median of the other components that changed",
            {"LARGE_SHARE": LARGE_SHARE, "MOST_FACTOR": MOST_FACTOR},
        ),
        Rule(
            "ff holds 49% of all change in 12% of the numbers that changed",
            "energy_share of a component is at least {ENERGY_SHARE} and {ENERGY_FACTOR} times its share of "
            "the numbers that changed, the largest of several, and it is not the one that moved most",
            {"ENERGY_SHARE": ENERGY_SHARE, "ENERGY_FACTOR": ENERGY_FACTOR},
        ),
        Rule(
            "in_layers moved least, by 2% of its length (the median of the others: 10%)",
            "the smallest relative_change of the components with {LARGE_SHARE} or more of the elements, "
            "times {LEAST_FACTOR}, is at most the median of the other components that changed",
            {"LARGE_SHARE": LARGE_SHARE, "LEAST_FACTOR": LEAST_FACTOR},
        ),
        Rule(
            "no category moved much more or less than the others: all 18 by 9% to 11% of their length",
            "{ALIKE} components or more with {LARGE_SHARE} or more of the elements changed, and none of the "
            "three sentences above is said",
            {"ALIKE": ALIKE, "LARGE_SHARE": LARGE_SHARE},
        ),
    ),
)
