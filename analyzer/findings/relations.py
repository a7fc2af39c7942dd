"""What the two models are to each other, and how that is known: the first sentence of every scan."""

from __future__ import annotations

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import NOISE, Group, Survey
from analyzer.formulas import change_to_rounding
from analyzer.kernels.formats import FLOATS
from analyzer.kinship import (
    DISTANT_COSINE,
    FINE_TUNE_COSINE,
    OPPOSED_COSINE,
    SAMPLE_ELEMENTS,
    Relation,
    can_tell,
)
from analyzer.ranking import Axis
from analyzer.records import Finding
from analyzer.verdicts import ROUNDING_RATIO, verdict

# Two models with more keys without a partner than this share of the compared ones are not called identical:
# one of them holds a network that the other lacks, not a table more or less.
UNPAIRED_SHARE = 0.1
# Where what changed is less than this share of all elements, the models are not trained apart, a piece is:
# most of them is equal.
PIECE_SHARE = 0.5
_TITLES = {"fine-tune": "relatives", "distant": "distant relatives", "unrelated": "trained apart"}


def find_relation(survey: Survey) -> list[Finding]:
    """The one sentence that every scan has: identical, only rounding, or the kinship with its evidence."""
    if not any(row.sums.changed for row in survey.changed):
        if any(survey.whole.counts[name] for name in NOISE):
            return [_only_rounding(survey)]
        if any(row.sums.n for row in survey.whole.keys):
            return [Finding(_sameness(survey), "changed_fraction", 0.0, "")]
        return [Finding("kinship cannot be told: no weights could be compared", "cosine", None, "")]
    found = survey.relation
    if found.cosine is None:
        return [_only_small(survey)]
    if found.name == "unrelated" and _is_piece(survey):
        return [_replaced_piece(survey, found)]
    evidence = f"the {_voters(survey, found)} is {wording.cosine(found.cosine)}"
    return [Finding(_kinship_text(found, evidence), "cosine", found.cosine, "")]


def _kinship_text(found: Relation, evidence: str) -> str:
    """What the models are to each other, what says so, and what would say otherwise."""
    assert found.name is not None
    title = "opposed" if found.opposed else _TITLES[found.name]
    chance = f"chance alone gives {wording.chance(found.chance)}" if found.chance else ""
    fine = f"a fine-tune {FINE_TUNE_COSINE:g} or more"
    if not chance:  # no matrix is among the evidence
        return (
            f"{title}, as far as this can be told: {evidence}; but these are gains and biases, "
            "which are alike in any two models"
        )
    if found.opposed:
        return (
            f"opposed: {evidence} ({chance}, {fine}), as if B were −A, or nearly; in a weighted sum of the "
            "two one cancels the other"
        )
    return {
        "fine-tune": f"relatives: {evidence} ({chance}), as between a model and its fine-tune",
        "distant": f"distant relatives: {evidence} ({chance}, {fine}); expect a merge to lose quality",
        "unrelated": (
            f"trained apart: {evidence} ({chance}, {fine}), as between models that share no training; "
            "merging them is pointless, a weighted sum of the two is neither"
        ),
    }[found.name]


def _only_small(survey: Survey) -> Finding:
    """No cosine of what changed has a say; what did not change may have one."""
    same = [row for row in survey.whole.keys if can_tell(row) and verdict(row.sums) != "changed"]
    if same and all(row.sums.numel < SAMPLE_ELEMENTS for row in survey.changed):
        noise = " by more than rounding" if any(survey.whole.counts[name] for name in NOISE) else ""
        text = (
            f"relatives: nothing changed{noise} in {wording.count(len(same))} of {SAMPLE_ELEMENTS:,} "
            f"elements and more; the {len(survey.changed):,} that changed are smaller"
        )
        return Finding(text, "count", float(len(same)), "")
    text = (
        f"kinship cannot be told: no key that changed has {SAMPLE_ELEMENTS:,} elements and a direction "
        "in both models"
    )
    return Finding(text, "cosine", None, "")


def _voters(survey: Survey, found: Relation) -> str:
    """What the evidence is of: "median cosine of the 12 keys that changed", and what is left out of them."""
    large = "" if found.keys == len(survey.changed) else f" of {SAMPLE_ELEMENTS:,} elements and more"
    noise = " by more than rounding" if any(survey.whole.counts[name] for name in NOISE) else ""
    whose = f"median cosine of the {found.keys:,} keys" if found.keys > 1 else "cosine of the one key"
    return f"{whose}{large} that changed{noise}"


def _is_piece(survey: Survey) -> bool:
    """Whether what changed is the smaller part of all elements."""
    return sum(row.sums.numel for row in survey.changed) < PIECE_SHARE * survey.whole.sums.numel


def _replaced_piece(survey: Survey, found: Relation) -> Finding:
    """Only some keys are strangers, and the rest did not change: where they are."""
    parts = [g for g in survey.parts if g.counts["changed"]]
    groups = [g for g in survey.components if g.counts["changed"]]
    # a part that changed all over is named itself, else a head or an embedding
    all_over = all(part.counts["changed"] == len(part.keys) for part in parts)
    heads = not all_over and len(groups) <= wording.LISTED
    axis: Axis = "component" if heads else "part"
    where = groups if heads else parts
    selector = survey.selecting.groups(axis, [group.path for group in where])
    noise = any(survey.whole.counts[name] for name in NOISE)
    rest = "in the rest only rounding differs" if noise else "the rest of the weights is identical"
    how = "points the other way, as if it were −A" if found.opposed else "was replaced or trained apart"
    text = (
        f"what changed ({len(survey.changed):,} of {wording.count(len(survey.whole.keys))}, in "
        f"{wording.names([each.name for each in where])}) {how}: {wording.evidence(found)}; {rest}"
    )
    return Finding(text, "cosine", found.cosine, selector)


def _only_rounding(survey: Survey) -> Finding:
    """What was rounded to what, with the counts of the verdicts and how the difference compares."""
    whole = survey.whole
    beside = _beside(survey)
    place = "" if _is_whole(survey) else " in the weights that could be compared"
    text = f"only rounding differs{place}: {_how_rounded(whole)} ({wording.verdict_counts(whole.counts)}"
    text += f"; beside them stand keys: {beside})" if beside else ")"
    ratio = change_to_rounding(whole.sums)
    if ratio is None:
        return Finding(text, "count", float(sum(whole.counts[name] for name in NOISE)), "")
    text += f"; the difference is {wording.ratio(ratio)} times what rounding alone would leave"
    return Finding(text, "change_to_rounding", ratio, "")


def _how_rounded(group: Group) -> str:
    """Say "B is A stored as fp16", if one cast explains all; else that they are equal but for rounding."""
    rows = [row for row in group.keys if verdict(row.sums) in NOISE]
    dtypes = {(row.dtype_a, row.dtype_b) for row in rows}
    if group.worst == "cast" and len(dtypes) == 1:
        a, b = dtypes.pop()
        if a in FLOATS and b in FLOATS and FLOATS[a].precision != FLOATS[b].precision:
            fine, coarse, dtype = (
                ("A", "B", b) if FLOATS[b].precision < FLOATS[a].precision else ("B", "A", a)
            )
            return f"{coarse} is {fine} stored as {DTYPES[dtype].label}"
    return "the two models hold the same weights, rounded differently"


def _sameness(survey: Survey) -> str:
    """How equal two models are in which no weight changed."""
    exceptions = _beside(survey)
    if not exceptions:
        return "identical: the two models hold the same values"
    return (
        f"{'identical: ' if _is_whole(survey) else ''}all weights that could be compared are equal; beside "
        f"them stand keys: {exceptions}"
    )


def _is_whole(survey: Survey) -> bool:
    """Whether the two were compared in full, but for a few keys without a partner."""
    scan = survey.scan
    unpaired = max(len(scan.only_in_a), len(scan.only_in_b)) + len(scan.shape_mismatch)
    broken = any(row.sums.n != row.sums.numel for row in scan.keys)
    return not broken and unpaired <= UNPAIRED_SHARE * len(scan.keys)


def _beside(survey: Survey) -> str:
    """What stands beside weights of which none changed."""
    scan = survey.scan
    outside = [verdict(row.sums) for row in scan.keys if not row.labels.counted]
    kinds = [
        (len(scan.only_in_a), "only in A"),
        (len(scan.only_in_b), "only in B"),
        (len(scan.shape_mismatch), "of different shape"),
        (outside.count("changed"), "outside the totals that changed"),
        (sum(outside.count(name) for name in NOISE), "outside the totals that were rounded"),
        (sum(1 for row in scan.keys if row.sums.n != row.sums.numel), "with NaN or Inf"),
    ]
    return ", ".join(f"{count:,} {what}" for count, what in kinds if count)


RELATION = Finder(
    find_relation,
    (
        Rule(
            "identical: the two models hold the same values",
            "no value of any counted key differs, and at most {UNPAIRED_SHARE} of the keys have no partner: "
            "else only that the weights that could be compared are equal",
            {"UNPAIRED_SHARE": UNPAIRED_SHARE},
        ),
        Rule(
            "only rounding differs: B is A stored as fp16",
            "the verdict on every counted key is identical, cast or rounding (‖B − A‖ at most "
            "{ROUNDING_RATIO} times what rounding leaves)",
            {"ROUNDING_RATIO": ROUNDING_RATIO},
        ),
        Rule(
            "relatives: …, as between a model and its fine-tune",
            "median cosine, weighted by elements, at least {FINE_TUNE_COSINE}, of the keys with the verdict "
            "changed and {SAMPLE_ELEMENTS} elements or more; or smaller ones alone changed",
            {"FINE_TUNE_COSINE": FINE_TUNE_COSINE, "SAMPLE_ELEMENTS": SAMPLE_ELEMENTS},
        ),
        Rule(
            "distant relatives: …",
            "that cosine at least {DISTANT_COSINE}, below {FINE_TUNE_COSINE}",
            {"DISTANT_COSINE": DISTANT_COSINE, "FINE_TUNE_COSINE": FINE_TUNE_COSINE},
        ),
        Rule(
            "trained apart: …",
            "that cosine below {DISTANT_COSINE}, and {PIECE_SHARE} of all elements or more in keys that "
            "changed",
            {"DISTANT_COSINE": DISTANT_COSINE, "PIECE_SHARE": PIECE_SHARE},
        ),
        Rule(
            "opposed: …, as if B were −A, or nearly",
            "that cosine at most {OPPOSED_COSINE} instead; of less than {PIECE_SHARE} of all elements it is "
            "said that what changed points the other way",
            {"OPPOSED_COSINE": OPPOSED_COSINE, "PIECE_SHARE": PIECE_SHARE},
        ),
        Rule(
            "what changed (1 of 290 keys, in lm_head) was replaced or trained apart: …",
            "that cosine below {DISTANT_COSINE}, and less than {PIECE_SHARE} of all elements in keys that "
            "changed",
            {"DISTANT_COSINE": DISTANT_COSINE, "PIECE_SHARE": PIECE_SHARE},
        ),
    ),
)
