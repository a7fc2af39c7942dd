"""How large the change is: of the whole, and of the components that moved most, least, or hold most of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Group, Survey
from analyzer.formulas import energy_share, relative_change
from analyzer.kinship import DISTANT_COSINE
from analyzer.measures import add_sums
from analyzer.records import Finding

# The components that moved most did so if each moved by this factor more than the median of the other ones,
# which is more than twice the Σd² for its length; those that moved least if by that factor less, a quarter.
MOST_FACTOR = 1.5
LEAST_FACTOR = 2.0
# Between those and the next one lies at least this factor. Where one is followed closely by others they are
# named together, as many as a list holds, or nothing is said.
GAP_FACTOR = 1.25
MOST_LEADERS = 4
# A component holds much of the change if at least this share of Σd², a large part of what a merge can act
# on, and at least so many times its share of the numbers that changed, so that it is not merely large.
ENERGY_SHARE = 0.25
ENERGY_FACTOR = 2.0
# A component must have this share of the elements of all that moved to be judged by how far it did: the few
# numbers of gains and biases move most or least as a matter of course, and bear little on a merge.
LARGE_SHARE = 0.001
# So many large components or more must have moved alike, within this factor, to be worth a word.
ALIKE = 3
ALIKE_FACTOR = 1.5


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
    large = sorted((g for g in moved if g.sums.numel >= LARGE_SHARE * elements), key=_change, reverse=True)
    if len(moved) < 2 or not large:  # one group alone moves neither most nor least
        return []
    most = _leading(large, lambda near, far: near / far, MOST_FACTOR)
    least = _leading(large[::-1], lambda near, far: far / near, LEAST_FACTOR)
    found = []
    if most:
        share = energy_share(add_sums(group.sums for group in most), survey.whole.sums)
        holds = (
            f"; {'they hold' if most[1:] else 'it holds'} {wording.share(share)} of all change"
            if share
            else ""
        )
        found.append(_change_finding(survey, most, large, "most", holds))
    found += [finding for group, finding in _holds_most(survey, moved) if group not in most]
    if least and len(most) + len(least) < len(large):  # else the one says the other
        found.append(_change_finding(survey, least, large, "least", ""))
    return found or _alike(large)


def _leading(
    ordered: Sequence[Group], ratio: Callable[[float, float], float], factor: float
) -> Sequence[Group]:
    """The first few that lie apart from the next one, and by a factor from the middle of all others."""
    changes = [_change(group) for group in ordered]
    for count in range(1, min(MOST_LEADERS, len(ordered) // 2) + 1):
        last, others = changes[count - 1], changes[count:]
        if ratio(last, others[0]) >= GAP_FACTOR and ratio(last, median(others)) >= factor:
            return ordered[:count]
    return []


def _alike(large: Sequence[Group]) -> list[Finding]:
    """That no component stands out by how far it moved, where there are enough of them to say so."""
    changes = sorted(map(_change, large))
    if len(large) < ALIKE or changes[-1] > ALIKE_FACTOR * changes[0]:
        return []
    text = (
        f"none of the {len(large):,} large categories moved much more or less than the others: all "
        f"by {_span(changes)} of their length"
    )
    return [Finding(text, "relative_change", median(changes), "")]


def _change_finding(
    survey: Survey, named: Sequence[Group], large: Sequence[Group], how: str, more: str
) -> Finding:
    changes = sorted(map(_change, named))
    names = wording.names([group.name for group in named])
    length = wording.change(changes[0]) if len(named) == 1 else f"{_span(changes)} of their length"
    others = median(_change(group) for group in large if group not in named)
    beyond = max if how == "most" else min
    outdone = beyond(survey.related, key=_change) not in named  # by a small one, which is not named
    among = f" of the {len(large):,} large categories" if outdone else ""
    text = (
        f"{names} moved {how}{among}, by {length} (the median of the others: {wording.amount(others)}){more}"
    )
    selector = survey.selecting.groups("component", [group.path for group in named])
    return Finding(text, "relative_change", _change(named[0]), selector)


def _span(changes: Sequence[float]) -> str:
    """From the first to the last of sorted changes: "9% to 11%", or "10%" of such as read alike."""
    low, high = wording.amount(changes[0]), wording.amount(changes[-1])
    return low if low == high else f"{low} to {high}"


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
            "of the components with {LARGE_SHARE} or more of the elements that changed, one, or up to "
            "{MOST_LEADERS} and half of them together: relative_change at least {MOST_FACTOR} times the "
            "median of the others and {GAP_FACTOR} times the next one",
            {
                "LARGE_SHARE": LARGE_SHARE,
                "MOST_LEADERS": MOST_LEADERS,
                "MOST_FACTOR": MOST_FACTOR,
                "GAP_FACTOR": GAP_FACTOR,
            },
        ),
        Rule(
            "ff holds 49% of all change in 12% of the numbers that changed",
            "energy_share of a component is at least {ENERGY_SHARE} and {ENERGY_FACTOR} times its share of "
            "the numbers that changed, the largest of several, and it is not among those that moved most",
            {"ENERGY_SHARE": ENERGY_SHARE, "ENERGY_FACTOR": ENERGY_FACTOR},
        ),
        Rule(
            "in_layers moved least, by 2% of its length (the median of the others: 10%)",
            "the same from below: {LEAST_FACTOR} times it is at most the median of the others, "
            "{GAP_FACTOR} times it at most the next one",
            {"LEAST_FACTOR": LEAST_FACTOR, "GAP_FACTOR": GAP_FACTOR},
        ),
        Rule(
            "none of the 18 large categories moved much more or less than the others: all by 9% to 11% of "
            "their length",
            "{ALIKE} components or more with {LARGE_SHARE} or more of the elements changed, the largest "
            "relative_change is at most {ALIKE_FACTOR} times the smallest, and none of the three sentences "
            "above is said",
            {"ALIKE": ALIKE, "LARGE_SHARE": LARGE_SHARE, "ALIKE_FACTOR": ALIKE_FACTOR},
        ),
    ),
)
