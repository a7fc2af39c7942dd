"""With a base: how what A learned beyond it goes together with what B learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Group, Survey
from analyzer.formulas import norm_a, norm_b
from analyzer.kinship import SAMPLE_ELEMENTS, can_tell
from analyzer.measures import Sums
from analyzer.records import Finding, KeyScan
from analyzer.task_formulas import (
    dominance,
    norm_task_a,
    norm_task_b,
    sign_conflict_expected,
    sign_conflict_fraction,
    support_overlap,
    task_cosine,
)

# One of two models did all the learning if it holds this share of both squared tasks.
ALONE = 0.99
# C is no base of a model of which at least so much lies this many times its own length or more away from it:
# what is unrelated and of equal length lies √2 away, a cosine of 0.5 makes 1. Judged key by key, of matrices
# alone: norm gains are close to 1 in any model, and long.
NO_BASE = 1.0
NO_BASE_SHARE = 0.5
# The tasks are much the same from the first cosine on, opposed from the second one down, and unrelated if
# within the third of zero.
SAME_TASK = 0.5
OPPOSED_TASKS = -0.1
UNRELATED_TASKS = 0.1
# A component is where they disagree most if its task cosine lies this far below the whole's.
DISAGREEMENT = 0.2
# Sign conflicts are worth a word if their share differs by this much from what the cosine makes expect. Of
# 1000 elements or more that both changed, chance alone moves it by a third of that.
CONFLICT_EXCESS = 0.05
# They changed different numbers if no more than this share of what either changed was changed by both.
LITTLE_OVERLAP = 0.1

Formula: TypeAlias = Callable[[Sums], float | None]


def find_tasks(survey: Survey) -> list[Finding]:
    """Who learned, whether the two learned the same, where they disagree, and whether on the same numbers."""
    whole = survey.whole.sums
    lead = dominance(whole)
    if lead is None:
        return []
    if stranger := _no_base(survey):
        return stranger
    if lead >= ALONE or lead <= 1 - ALONE:
        return [_alone(whole, lead)]
    found = [*_parts_of_one(survey), *_cosine(whole), *_most_opposed(survey)]
    return [*found, *_conflicts(whole), *_overlap(whole)]


def _no_base(survey: Survey) -> list[Finding]:
    """Whether most of A, or of B, lies as far from C as a stranger does: then no task means anything."""
    rows = [row for row in survey.whole.keys if row.sums.task and row.sums.task.n and can_tell(row)]
    elements = sum(row.sums.numel for row in rows)
    if not elements:
        return []
    sides = (("A", norm_task_a, norm_a), ("B", norm_task_b, norm_b))
    found = [(model, task, _far(rows, task, length) / elements) for model, task, length in sides]
    strangers = [(model, task, share) for model, task, share in found if share >= NO_BASE_SHARE]
    if not strangers:
        return []
    name, task, share = strangers[0]
    both = len(strangers) > 1
    least = wording.at_least(min(share for _, _, share in strangers)) if both else wording.share(share)
    text = (
        f"C is hardly the base of {'these two' if both else name}: the matrices that hold {least} of the "
        f"weights lie as far from C as {'either' if both else name} is long, or farther, as what shares no "
        "training does"
    )
    return [Finding(text, task.__name__, task(survey.whole.sums), "")]


def _far(rows: Sequence[KeyScan], task: Formula, length: Formula) -> int:
    """How many elements are in keys that lie their own length or farther from the base."""
    pairs = [(task(row.sums), length(row.sums), row.sums.numel) for row in rows]
    return sum(numel for t, own, numel in pairs if t and own and t >= NO_BASE * own)


def _alone(whole: Sums, lead: float) -> Finding:
    assert whole.task is not None
    still = whole.task.moved_a if lead >= ALONE else whole.task.moved_b
    other = "A" if lead >= ALONE else "B"
    rest = f"{other} equals the base" if not still else f"{other} hardly moved"
    return Finding(f"{_most(lead)} of the change since the base; {rest}", "dominance", lead, "")


def _most(lead: float) -> str:
    """Who did how much of the squared change, of a dominance near 0 or 1."""
    if lead >= ALONE:
        return f"B did {wording.share(lead)}"
    return f"A did all but {wording.share(lead)}" if lead else "A did 100%"


def _or_further(lead: float) -> str:
    """What follows the share of `_most`, where it is that of the part with the least such share."""
    if wording.share(lead).startswith(("more", "less")) or lead in (0.0, 1.0):
        return ""
    return " or more" if lead >= ALONE else " or less"


def _parts_of_one(survey: Survey) -> list[Finding]:
    """The parts that only one of the two changed."""
    leads = [(lead, part) for part in survey.parts if (lead := dominance(part.sums)) is not None]
    sides = ([p for p in leads if p[0] <= 1 - ALONE], [p for p in leads if p[0] >= ALONE])
    found = []
    for ones, least in zip(sides, (max, min), strict=True):
        if ones:
            lead = least(lead for lead, _ in ones)
            names = wording.names([part.name for _, part in ones])
            more = _or_further(lead) * (len(ones) > 1)
            selector = survey.selecting.groups("part", [part.path for _, part in ones])
            text = f"in {names} {_most(lead)}{more} of the change since the base"
            found.append(Finding(text, "dominance", lead, selector))
    return found


def _cosine(whole: Sums) -> list[Finding]:
    """Whether both learned the same; in words, for each range of the cosine."""
    cosine = task_cosine(whole)
    if cosine is None:
        return []
    if cosine >= SAME_TASK:
        what = "learned much the same: adding both overshoots, so merge with weights that sum to about 1"
    elif cosine <= OPPOSED_TASKS:
        what = "pull in opposite directions: a merge undoes some of both"
    elif abs(cosine) < UNRELATED_TASKS:
        what = "learned unrelated things: what both learned can be added"
    else:
        what = "learned partly the same"
    text = (
        f"since the base A and B {what} (task cosine {wording.cosine(cosine)}: 1 = the same, 0 = unrelated)"
    )
    return [Finding(text, "task_cosine", cosine, "")]


def _most_opposed(survey: Survey) -> list[Finding]:
    """The component in which the tasks go together least, if that is far less than on the whole."""
    whole = task_cosine(survey.whole.sums)
    groups = [(c, group) for group in survey.components if (c := _group_cosine(group)) is not None]
    if whole is None or not groups:
        return []
    lowest, group = min(groups, key=lambda pair: (pair[0], pair[1].path))
    if lowest > whole - DISAGREEMENT:
        return []
    text = (
        f"{group.name} is where A and B go together least: task cosine {wording.cosine(lowest)}, of the "
        f"whole {wording.cosine(whole)}"
    )
    return [Finding(text, "task_cosine", lowest, survey.selecting.groups("component", [group.path]))]


def _group_cosine(group: Group) -> float | None:
    """The task cosine of a component large enough that chance does not make it."""
    task = group.sums.task
    return task_cosine(group.sums) if task is not None and task.n >= SAMPLE_ELEMENTS else None


def _conflicts(whole: Sums) -> list[Finding]:
    """Sign conflicts, if there are clearly more or fewer than the cosine makes expect."""
    conflicts, expected = sign_conflict_fraction(whole), sign_conflict_expected(whole)
    if conflicts is None or expected is None or whole.task is None:
        return []
    if whole.task.moved_both < SAMPLE_ELEMENTS or abs(conflicts - expected) < CONFLICT_EXCESS:
        return []
    text = (
        f"of the numbers that both changed they moved {wording.share(conflicts)} in opposite directions, "
        f"{'more' if conflicts > expected else 'fewer'} than the {wording.share(expected)} to expect of "
        "tasks so alike"
    )
    return [Finding(text, "sign_conflict_fraction", conflicts, "")]


def _overlap(whole: Sums) -> list[Finding]:
    """Whether the two changed different numbers."""
    overlap = support_overlap(whole)
    if overlap is None or overlap > LITTLE_OVERLAP:
        return []
    text = (
        f"A and B changed different numbers: of those that either changed, both changed "
        f"{wording.share(overlap)}; "
        "there a merge can take both in full"
    )
    return [Finding(text, "support_overlap", overlap, "")]


TASKS = Finder(
    find_tasks,
    (
        Rule(
            "C is hardly the base of these two: the matrices that hold at least 98% of the weights lie as "
            "far from C as either is long, or farther, …",
            "norm_task_a is at least {NO_BASE} times norm_a, or norm_task_b norm_b, in keys with "
            "{NO_BASE_SHARE} or more of the elements, of those with a cosine that can tell anything; the "
            "sentences below are then left out",
            {"NO_BASE": NO_BASE, "NO_BASE_SHARE": NO_BASE_SHARE},
        ),
        Rule(
            "B did 99.5% of the change since the base; A hardly moved",
            "with --base: dominance at least {ALONE} for one of the two; the sentences below are then left "
            "out",
            {"ALONE": ALONE},
        ),
        Rule(
            "in text_encoder B did 99.5% of the change since the base",
            "dominance in a part at least {ALONE} for one of the two",
            {"ALONE": ALONE},
        ),
        Rule(
            "since the base A and B learned much the same / pull in opposite directions / learned unrelated "
            "things / learned partly the same",
            "task_cosine at least {SAME_TASK} / at most {OPPOSED_TASKS} / within {UNRELATED_TASKS} of 0 / "
            "between",
            {"SAME_TASK": SAME_TASK, "OPPOSED_TASKS": OPPOSED_TASKS, "UNRELATED_TASKS": UNRELATED_TASKS},
        ),
        Rule(
            "attn2 is where A and B go together least: task cosine −0.4, of the whole 0.2",
            "the lowest task_cosine of a component of {SAMPLE_ELEMENTS} elements or more is {DISAGREEMENT} "
            "or more below that of the whole",
            {"SAMPLE_ELEMENTS": SAMPLE_ELEMENTS, "DISAGREEMENT": DISAGREEMENT},
        ),
        Rule(
            "of the numbers that both changed they moved 48% in opposite directions, more than the 35% to "
            "expect …",
            "sign_conflict_fraction differs by {CONFLICT_EXCESS} or more from sign_conflict_expected, of "
            "{SAMPLE_ELEMENTS} elements or more that both changed",
            {"CONFLICT_EXCESS": CONFLICT_EXCESS, "SAMPLE_ELEMENTS": SAMPLE_ELEMENTS},
        ),
        Rule(
            "A and B changed different numbers: of those that either changed, both changed 3%",
            "support_overlap at most {LITTLE_OVERLAP}",
            {"LITTLE_OVERLAP": LITTLE_OVERLAP},
        ),
    ),
)
