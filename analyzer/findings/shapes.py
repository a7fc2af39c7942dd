"""What kind of change it is: of length alone, of few numbers, in few of them most of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from analyzer.columns import Places
from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Group, Survey
from analyzer.formulas import TOP_SHARE, changed_fraction, norm_ratio, radial_share, top_energy_share
from analyzer.kinship import SAMPLE_ELEMENTS
from analyzer.measures import Sums
from analyzer.records import Finding

# A component is rescaled rather than re-aimed if a change of length explains this share of Σd². Of a random
# change it explains about 1/n.
RESCALED_SHARE = 0.5
# Only few numbers changed if no more than this share of those in the keys that changed: gradient descent
# moves them all, but for those whose steps the storage cannot hold.
FEW_CHANGED = 0.05
# The change sits in few numbers if the 1 % that changed most hold this share of Σd²; of a Gaussian change
# they hold 0.085. Of fewer elements, 1 % would be a handful.
CONCENTRATED_SHARE = 0.5
CONCENTRATED_ELEMENTS = 10_000


def find_rescaled(survey: Survey) -> list[Finding]:
    """The components of which mostly the length changed."""
    groups = _with(survey.related, radial_share, SAMPLE_ELEMENTS, lambda value: value >= RESCALED_SHARE)
    if not groups:
        return []
    lowest = min(value for value, _ in groups)
    factors = [factor for _, group in groups if (factor := norm_ratio(group.sums)) is not None]
    lengths = list(dict.fromkeys(wording.stretch(factor) for factor in (min(factors), max(factors))))
    several = len(groups) > 1
    how_much = (
        f"{wording.at_least(lowest)} of the change of each"
        if several
        else f"{wording.share(lowest)} of the change"
    )
    text = (
        f"{_names(groups)} {_was(groups)} rescaled rather than re-aimed ({' to '.join(lengths)}): "
        f"{how_much} is one of length"
    )
    return [Finding(text, "radial_share", lowest, _selector(survey, groups))]


def find_sparse(survey: Survey) -> list[Finding]:
    """Whether only few of the numbers changed: everywhere, or in some components."""
    rows, elements, changed = _differing(survey, survey.places)
    fraction = changed / elements if rows else None
    if fraction is not None and fraction <= FEW_CHANGED:
        keys = f"the {rows:,} keys" if rows > 1 else "the one key"
        text = (
            f"only {wording.share(fraction)} of the numbers in {keys} that changed differ, "
            "as after training with a mask, or where steps are smaller than the storage can hold"
        )
        return [Finding(text, "changed_fraction", fraction, "")]
    groups = []
    for group in survey.components:
        _, elements, changed = _differing(survey, group.places)
        if group.moved and elements >= SAMPLE_ELEMENTS and changed / elements <= FEW_CHANGED:
            groups.append((changed / elements, group))
    if not groups:
        return []
    groups.sort(key=lambda pair: -pair[1].sums.sum_dd)
    highest = max(value for value, _ in groups)
    share = wording.at_most(highest) if len(groups) > 1 else f"only {wording.share(highest)}"
    text = f"in the keys of {_names(groups)} that changed {share} of the numbers differ"
    return [Finding(text, "changed_fraction", highest, _selector(survey, groups))]


def _differing(survey: Survey, places: Places) -> tuple[int, int, int]:
    """Of the keys at these places those in which something differs: how many, their n, and what differs."""
    columns = survey.counted.columns
    changed = columns.column("changed")[places]
    elements = columns.column("n")[places][changed > 0]
    return len(elements), int(elements.sum()), int(changed.sum())


def find_concentrated(survey: Survey) -> list[Finding]:
    """The components in whose keys the change sits in few of the numbers, though many changed.

    Judged key by key: in a component whose keys are of different scales some hold all the change.
    """
    found = []
    for group in survey.related:
        shares = [
            share
            for row in group.keys
            if row.sums.numeric >= CONCENTRATED_ELEMENTS
            and (changed_fraction(row.sums) or 0.0) > FEW_CHANGED
            and (share := top_energy_share(row.sums)) is not None
        ]
        if shares and median(shares) >= CONCENTRATED_SHARE:
            found.append((median(shares), group))
    if not found:
        return []
    found.sort(key=lambda pair: -pair[1].sums.sum_dd)
    lowest = min(value for value, _ in found)
    several = len(found) > 1
    how_much = f"{wording.at_least(lowest)} of it each" if several else f"{wording.share(lowest)} of it"
    text = (
        f"the change of {_names(found)} sits in few numbers: in the median key the {TOP_SHARE:.0%} that "
        f"changed most hold {how_much}"
    )
    return [Finding(text, "top_energy_share", lowest, _selector(survey, found))]


_Valued = Sequence[tuple[float, Group]]


def _with(
    groups: Sequence[Group],
    formula: Callable[[Sums], float | None],
    size: int,
    holds: Callable[[float], bool],
) -> list[tuple[float, Group]]:
    """The groups that moved, have `size` elements, and a value that holds; those with most of Σd² first."""
    large = [group for group in groups if group.moved and group.sums.numel >= size]
    valued = [(value, group) for group in large if (value := formula(group.sums)) is not None]
    return sorted((pair for pair in valued if holds(pair[0])), key=lambda pair: -pair[1].sums.sum_dd)


def _names(groups: _Valued) -> str:
    return wording.names([group.name for _, group in groups])


def _was(groups: _Valued) -> str:
    return "was" if len(groups) == 1 else "were"


def _selector(survey: Survey, groups: _Valued) -> str:
    return survey.selecting.groups("component", [group.path for _, group in groups])


RESCALED = Finder(
    find_rescaled,
    (
        Rule(
            "norm1 was rescaled rather than re-aimed (5% longer): 81% of the change is one of length",
            "radial_share of a component of {SAMPLE_ELEMENTS} elements or more is at least {RESCALED_SHARE}",
            {"SAMPLE_ELEMENTS": SAMPLE_ELEMENTS, "RESCALED_SHARE": RESCALED_SHARE},
        ),
    ),
)
SPARSE = Finder(
    find_sparse,
    (
        Rule(
            "only 0.3% of the numbers in the 128 keys that changed differ, as after training with a mask, …",
            "changed_fraction of the keys that changed, together, is at most {FEW_CHANGED}; else of those of "
            "a component, if they have {SAMPLE_ELEMENTS} elements or more",
            {"FEW_CHANGED": FEW_CHANGED, "SAMPLE_ELEMENTS": SAMPLE_ELEMENTS},
        ),
    ),
)
CONCENTRATED = Finder(
    find_concentrated,
    (
        Rule(
            "the change of embeddings sits in few numbers: in the median key the 1% that changed most hold "
            "80% of it",
            "the median top_energy_share of a component's keys of {CONCENTRATED_ELEMENTS} elements or more "
            "and a changed_fraction above {FEW_CHANGED} is at least {CONCENTRATED_SHARE}",
            {
                "CONCENTRATED_ELEMENTS": CONCENTRATED_ELEMENTS,
                "CONCENTRATED_SHARE": CONCENTRATED_SHARE,
                "FEW_CHANGED": FEW_CHANGED,
            },
        ),
    ),
)
