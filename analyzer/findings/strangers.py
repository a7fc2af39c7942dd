"""Where the kinship differs inside two models: a swapped VAE, a replaced head, a part trained apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.columns import Places
from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.survey import Survey
from analyzer.formulas import radial_share, relative_change
from analyzer.group_sums import group_sums
from analyzer.kinship import DISTANT_COSINE, FINE_TUNE_COSINE, SAMPLE_ELEMENTS, Relation
from analyzer.records import Finding

AUTOENCODER = "vae"  # the part that fine-tunes of image models leave as it is
# Another VAE was put in if it moved by at least this: bf16 and back leaves a relative change of about 0.002
# (spacing 2⁻⁷ to 2⁻⁸ of the value), fp16 one of 0.0002. And not if it and all else were multiplied by the
# same number: both moved alike within this factor, this share of it by length.
AUTOENCODER_CHANGE = 0.01
ALIKE_FACTOR = 1.25
RESCALED_SHARE = 0.5


def find_strangers(survey: Survey) -> list[Finding]:
    """The parts whose kinship is not that of the whole, and components trained anew in a relative."""
    if survey.relation.name is None:
        return []
    changed, kinships = survey.among_changed("part"), survey.counted.kinships
    parts = {part: kinships.relation(own) for part, own in changed.items() if len(changed) > 1}
    told = [(part, own) for part, own in parts.items() if own.chance is not None]
    found = []
    for name, opposed in (
        ("unrelated", False),
        ("unrelated", True),
        ("distant", False),
        ("fine-tune", False),
    ):
        others = [
            (part, own)
            for part, own in told
            if (own.name, own.opposed) == (name, opposed) != (survey.relation.name, survey.relation.opposed)
        ]
        if others:
            found.append(_differing_parts(survey, others))
    found += [finding for part, own in changed.items() for finding in _anew(survey, part, own)]
    return [*found, *_other_autoencoder(survey, parts.get(AUTOENCODER))]


def _other_autoencoder(survey: Survey, own: Relation | None) -> list[Finding]:
    """A VAE that is a relative and changed beside other parts: fine-tunes of it are swapped for it."""
    if own is None or own.name != "fine-tune" or survey.relation.name != "fine-tune":
        return []
    (part,) = [group for group in survey.parts if group.path == AUTOENCODER]
    if not _moved_for_itself(survey):
        return []
    changed = part.counts["changed"]
    text = (
        f"{part.name} changed as well ({changed:,} of {wording.evidence(own, len(part.keys))}): training "
        "an image model leaves it as it is, so another one was probably put in"
    )
    return [Finding(text, "cosine", own.cosine, survey.selecting.groups("part", [part.path]))]


def _moved_for_itself(survey: Survey) -> bool:
    """Whether the VAE moved by more than rounding and back leaves, and was not only rescaled as all else."""
    # group 0 is the VAE, 1 all else that changed, 2 what did not
    groups = np.full(len(survey.counted.rows), 2)
    groups[survey.places] = [row.labels.part != AUTOENCODER for row in survey.changed]
    inside, outside, _ = group_sums(survey.counted.columns, groups, 3)
    own, others = relative_change(inside), relative_change(outside)
    if own is None or own < AUTOENCODER_CHANGE:
        return False
    rescaled = all((radial_share(sums) or 0.0) >= RESCALED_SHARE for sums in (inside, outside))
    alike = others is not None and others / ALIKE_FACTOR <= own <= others * ALIKE_FACTOR
    return not (rescaled and alike)


def _differing_parts(survey: Survey, others: Sequence[tuple[str, Relation]]) -> Finding:
    """One sentence for all parts of one kinship, with the evidence of each."""
    others = sorted(others, key=lambda other: (other[1].cosine or 0.0, other[0]))
    one = len(others) == 1
    verb, them = ("was", "it") if one else ("were", "them")
    whole = f"take {them} from one model, whole"
    what = {
        "unrelated": f"point{'s' * one} the other way, as if B were −A there; {whole}"
        if others[0][1].opposed
        else f"{verb} replaced or trained apart; {whole}",
        "distant": f"{verb} trained far apart",
        "fine-tune": f"{verb} fine-tuned, unlike the rest, and can be merged",
    }[others[0][1].name or ""]
    each = wording.names([f"{part} ({wording.evidence(own)})" for part, own in others])
    selector = survey.selecting.groups("part", [part for part, _ in others])
    return Finding(f"{each} {what}", "cosine", others[0][1].cosine, selector)


def _anew(survey: Survey, part: str, places: Places) -> list[Finding]:
    """Of the changed keys of one part, the components that are unrelated in what is a fine-tune otherwise.

    Matrices alone are judged: gains have cosines near 1 whatever they come from, and biases any.
    """
    kinships = survey.counted.kinships
    if kinships.relation(places).name != "fine-tune":
        return []
    groups = survey.counted.by("component", places[kinships.telling[places]])
    relations = [(path, kinships.relation(own)) for path, own in groups.items()]
    strange = [(path, own) for path, own in relations if own.name == "unrelated"]
    if not strange:
        return []
    strange.sort(key=lambda each: (each[1].cosine or 0.0, each[0]))
    names = {group.path: group.name for group in survey.components}
    each = wording.names([f"{names[path]} ({wording.evidence(own)})" for path, own in strange])
    verb = "was" if len(strange) == 1 else "were"
    text = f"{each} {verb} replaced or trained anew, while the rest of {part} is a fine-tune"
    selector = survey.selecting.groups("component", [path for path, _ in strange])
    return [Finding(text, "cosine", strange[0][1].cosine, selector)]


STRANGERS = Finder(
    find_strangers,
    (
        Rule(
            "vae was replaced or trained apart; … was trained far apart; … was fine-tuned, unlike the "
            "rest; … points the other way, as if B were −A there",
            "the kinship of a part, by the thresholds of the first sentence, is another than that of the "
            "whole",
        ),
        Rule(
            "vae changed as well (140 of 248 keys, median cosine 0.981, …): training an image model leaves "
            "it as it is, so another one was probably put in",
            "the part vae and another one changed, the median cosine of either is at least "
            "{FINE_TUNE_COSINE}, the relative_change of vae is at least {AUTOENCODER_CHANGE}; and not if vae "
            "and the rest moved alike, within {ALIKE_FACTOR} times, with a radial_share of at least "
            "{RESCALED_SHARE} each",
            {
                "FINE_TUNE_COSINE": FINE_TUNE_COSINE,
                "AUTOENCODER_CHANGE": AUTOENCODER_CHANGE,
                "ALIKE_FACTOR": ALIKE_FACTOR,
                "RESCALED_SHARE": RESCALED_SHARE,
            },
        ),
        Rule(
            "lm_head was replaced or trained anew, while the rest of transformer is a fine-tune",
            "in a part that is a fine-tune the median cosine of a component's matrices of {SAMPLE_ELEMENTS} "
            "elements or more is below {DISTANT_COSINE}",
            {"SAMPLE_ELEMENTS": SAMPLE_ELEMENTS, "DISTANT_COSINE": DISTANT_COSINE},
        ),
    ),
)
