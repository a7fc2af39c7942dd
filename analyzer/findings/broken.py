"""Values that are no numbers."""

from __future__ import annotations

from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.selecting import keys_selector
from analyzer.findings.survey import Survey
from analyzer.records import Finding


def find_nonfinite(survey: Survey) -> list[Finding]:
    """NaN and Inf on either side, in all keys, those outside the totals too."""
    found = []
    broken = [row for row in survey.scan.keys if row.sums.nonfinite_a or row.sums.nonfinite_b]
    for side in ("a", "b"):
        name = f"nonfinite_{side}"
        bad = [row for row in broken if getattr(row.sums, name)]
        if bad:
            total = sum(getattr(row.sums, name) for row in bad)
            others = len(bad) - 1
            more = f" and {wording.count(others, 'more key')}" if others else ""
            values = "value that is" if total == 1 else "values that are"
            text = f"{side.upper()} holds {total:,} {values} NaN or Inf, in {bad[0].key!r}{more}: left out"
            found.append(Finding(text, name, float(total), keys_selector([row.key for row in bad])))
    return found


NONFINITE = Finder(
    find_nonfinite,
    (Rule("B holds 2,468 values that are NaN or Inf, in 'out.weight' and 1 more key: left out", "any is"),),
)
