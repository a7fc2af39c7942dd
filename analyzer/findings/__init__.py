"""What a scan means, in plain sentences: each with its number, none without its evidence.

Every family of sentences is one module here and one entry or more in FINDERS. Each says when it speaks:
its thresholds are constants with names, and its rules hold them. The README's table is made from these.
"""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.columns import SumColumns
from analyzer.findings.blocks import ODD_BLOCK
from analyzer.findings.broken import NONFINITE
from analyzer.findings.directions import LOW_RANKS, TURNED_ROWS
from analyzer.findings.finder import Finder
from analyzer.findings.odd_keys import ODD_KEYS
from analyzer.findings.outside import OUTSIDE
from analyzer.findings.relations import RELATION
from analyzer.findings.shapes import CONCENTRATED, RESCALED, SPARSE
from analyzer.findings.sizes import EXTENT, SIZES
from analyzer.findings.stillness import ROUNDING, STILLNESS
from analyzer.findings.strangers import STRANGERS
from analyzer.findings.survey import survey
from analyzer.findings.tasks import TASKS
from analyzer.records import Finding, Scan

MOST_FINDINGS = 10  # more than that nobody reads

# In the order of importance: what says whether to merge at all, what to leave out, what to look at.
FINDERS: tuple[Finder, ...] = (
    RELATION,
    NONFINITE,
    STRANGERS,
    EXTENT,
    TASKS,
    LOW_RANKS,
    SIZES,
    STILLNESS,
    ROUNDING,
    ODD_BLOCK,
    ODD_KEYS,
    SPARSE,
    TURNED_ROWS,
    RESCALED,
    CONCENTRATED,
    OUTSIDE,
)


def findings(scan: Scan, columns: SumColumns | None = None) -> list[Finding]:
    """Plain sentences about a scan, the most important first, ten at most; at least the first one.

    `columns` are those of the counted keys' sums, if they are known already.
    """
    seen = survey(scan, columns)
    return _shortened(finder.find(seen) for finder in FINDERS)


def _shortened(families: Iterable[list[Finding]]) -> list[Finding]:
    """Ten at most: where there are more, the last sentences of the longest families are left out.

    So that no family with much to say silences another.
    """
    left = [list(family) for family in families]
    while sum(map(len, left)) > MOST_FINDINGS:
        longest = max(map(len, left))
        next(family for family in reversed(left) if len(family) == longest).pop()
    return [finding for family in left for finding in family]
