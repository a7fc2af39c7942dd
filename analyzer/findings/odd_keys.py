"""The keys that moved unlike the other keys of their category."""

from __future__ import annotations

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.selecting import MOST_NAMED, keys_selector
from analyzer.findings.survey import Survey
from analyzer.outliers import CHANCE, FEWEST_KEYS, LEAST_FACTOR, outliers
from analyzer.ranking import short_names
from analyzer.records import Finding


def find_odd_keys(survey: Survey) -> list[Finding]:
    """The most extreme outlier and how many there are, among the categories that are relatives."""
    related = {group.path for group in survey.related}
    odd = [
        outlier for outlier in outliers(survey.scan, survey.counted.columns) if outlier.category in related
    ]
    if not odd:
        return []
    first = odd[0]
    names = short_names(group.path for group in survey.components)
    others = len(odd) - 1
    more = f"; {wording.count(others, 'more key')} stand{'s' * (others == 1)} out" if others else ""
    text = (
        f"{first.key} stands out among the weights of {names[first.category]}: it moved by "
        f"{wording.change(first.value)}, a robust z-score of {first.z:+.1f}{more}"
    )
    shown = [outlier.key for outlier in odd] if len(odd) <= MOST_NAMED else [first.key]
    return [Finding(text, "relative_change", first.value, keys_selector(shown))]


ODD_KEYS = Finder(
    find_odd_keys,
    (
        Rule(
            "unet.out.weight stands out among the weights of out: it moved by 90% of its length, a robust "
            "z-score of +12.0; 2 more keys stand out",
            "of {FEWEST_KEYS} weights or more of a category that changed, a robust z-score (median, MAD) of "
            "the logarithm of relative_change that chance gives to any key of a scan with a probability "
            "below {CHANCE}, and a factor beyond {LEAST_FACTOR} from the median; none of what was replaced "
            "or trained apart",
            {"FEWEST_KEYS": FEWEST_KEYS, "CHANCE": CHANCE, "LEAST_FACTOR": LEAST_FACTOR},
        ),
    ),
)
