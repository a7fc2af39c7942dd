"""What changed outside the totals: copies, tables and markers, which no merge by arithmetic touches."""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.errors import SelectorError
from analyzer.findings import wording
from analyzer.findings.finder import Finder, Rule
from analyzer.findings.selecting import keys_selector
from analyzer.findings.survey import Survey
from analyzer.records import Finding, KeyScan, Scan
from analyzer.selectors import select
from analyzer.verdicts import verdict

POSITION_IDS = "position_ids"  # of CLIP, which `merge --position-ids reset` mends
AVERAGES = "ema"  # the part of the averaged copies


def find_outside(survey: Survey) -> list[Finding]:
    """The keys that count in no total and changed: position ids and tables, then averaged copies."""
    changed = [row for row in survey.scan.keys if not row.labels.counted and verdict(row.sums) == "changed"]
    copies = [row for row in changed if row.labels.part == AVERAGES]
    others = [row for row in changed if row.labels.part != AVERAGES]
    found = []
    if others:
        found.append(_others_finding(survey.scan, others))
    if copies:
        found.append(_copies_finding(survey.scan, copies))
    return found


def _others_finding(scan: Scan, rows: Sequence[KeyScan]) -> Finding:
    names = list(dict.fromkeys(row.key.rpartition(".")[2] for row in rows))
    ids = names == [POSITION_IDS]
    way_out = "; merge --position-ids reset makes them 0 … 76 again" if ids else ""
    text = f"outside the totals {wording.names(names)} changed too ({wording.count(len(rows))}){way_out}"
    return Finding(text, "count", float(len(rows)), _selector(scan, names, rows))


def _copies_finding(scan: Scan, rows: Sequence[KeyScan]) -> Finding:
    text = f"the averaged copies (EMA) changed too, in {wording.count(len(rows))}; they count in no total"
    return Finding(text, "count", float(len(rows)), _selector(scan, [f"part:{AVERAGES}"], rows))


def _selector(scan: Scan, names: Sequence[str], rows: Sequence[KeyScan]) -> str:
    """These names, if they hit these rows and no others; else the rows' keys, if they are few."""
    wanted = tuple(row.key for row in rows)
    for terms in (names, [f"component:{name}" for name in names]):
        text = ",".join(terms)
        try:
            found = select(text, rows=scan.keys, blocks=scan.blocks)
        except SelectorError:
            continue
        if wanted == tuple(row.key for row in found):
            return text
    return keys_selector(wanted)


OUTSIDE = Finder(
    find_outside,
    (
        Rule(
            "outside the totals position_ids changed too (1 key); merge --position-ids reset makes them "
            "0 … 76 again",
            "the verdict on a key that counts in no total (table, marker, integer) is changed",
        ),
        Rule(
            "the averaged copies (EMA) changed too, in 686 keys; they count in no total",
            "the same of a key of the part ema",
        ),
    ),
)
