"""Scans and rankings as CSV and JSON rows for other programs. Full precision, undefined left empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from analyzer.evaluation import evaluate_key
from analyzer.outliers import Outlier
from analyzer.ranking import RankRow, total
from analyzer.records import Scan
from analyzer.statistics import STATISTICS
from analyzer.verdicts import verdict

if TYPE_CHECKING:  # scipy takes half a second to import
    from analyzer.uncertainty import Assessment, GroupUncertainty


def keys_csv(scan: Scan) -> str:
    """One line a key: names, labels, shape ("320x4x3x3"), dtypes and every statistic."""
    whole = total(scan.keys)
    labels = ("part", "block", "component", "kind")
    head = ["key", "key_b", *labels, "shape", "dtype_a", "dtype_b", "verdict", *STATISTICS]
    rows = []
    for row in scan.keys:
        names = [row.key, row.key_b, *(getattr(row.labels, label) for label in labels)]
        shape = "x".join(map(str, row.shape))
        values = evaluate_key(row, total=whole)
        rows.append(
            [
                *names,
                shape,
                row.dtype_a,
                row.dtype_b,
                verdict(row.sums),
                *(values[name] for name in STATISTICS),
            ]
        )
    return _csv(head, rows)


def ranking_csv(ranking: Sequence[RankRow], assessment: Assessment | None = None) -> str:
    """One line a group: name, selector, number of keys, the verdict on them together and every statistic.

    With an assessment also how sure the ordering statistic is, in the columns of `UNCERTAINTY`; empty
    where it is not known.
    """
    head = ["name", "selector", "keys", "verdict", *STATISTICS]
    rows = [
        [r.name, r.selector, r.keys, r.verdict, *(r.statistics[name] for name in STATISTICS)] for r in ranking
    ]
    if assessment is None:
        return _csv(head, rows)
    # The rows may be the first few of the ranking that was assessed.
    sure = [list(_uncertainty(group).values()) for group in assessment.rows[: len(rows)]]
    return _csv([*head, *UNCERTAINTY], [[*row, *more] for row, more in zip(rows, sure, strict=True)])


def ranking_document(
    ranking: Sequence[RankRow],
    *,
    axis: str,
    by: str,
    assessment: Assessment | None = None,
    outliers: Sequence[Outlier] = (),
) -> dict[str, Any]:
    """The ranking as a JSON document; undefined is null.

    With an assessment every row has a further "uncertainty", with the entries of `UNCERTAINTY`, and the
    document has one with what holds for all rows, and the keys that are out of line with their category.
    """
    rows: list[dict[str, Any]] = [
        {"name": r.name, "selector": r.selector, "keys": r.keys, "verdict": r.verdict, **r.statistics}
        for r in ranking
    ]
    document = {"format": "mergescope.ranking", "version": 1, "axis": axis, "by": by, "rows": rows}
    if assessment is not None:
        for row, group in zip(rows, assessment.rows, strict=False):
            row["uncertainty"] = _uncertainty(group)
        axis_test = assessment.axis_test
        document["uncertainty"] = {
            "confidence": assessment.confidence,
            "resamples": assessment.resamples,
            "tests": assessment.tests,
            "kruskal_wallis": asdict(axis_test) if axis_test else None,
        }
        document["outliers"] = [asdict(outlier) for outlier in outliers]
    return document


# What is known of how sure a group's place is, beside its statistics.
UNCERTAINTY: Mapping[str, str] = {
    "sample_keys": "keys that have a value of their own: the sample",
    "low": "lower end of the 95 % interval; empty where there is none",
    "high": "upper end",
    "note": 'why there is no interval: "nothing changed", "1 key", "too few keys", "rests on few keys"',
    "rank_probability": "share of the resamples in which it has its rank among the groups that have an "
    "interval; groups of one value share their ranks",
    "tier": "from 1; a further one begins with a group whose interval is disjoint from any of the tier, or "
    "whose keys can be told from those of its first or last group",
    "border": "of the first group of a further tier: a group of the tier above that it can be told from",
    "border_p_adjusted": "of the test between these two; empty where they are told apart by their intervals",
    "border_effect": "of that test",
    "next": "the group that this one was tested against: the next one that has a tier",
    "next_keys": "how many keys of that one have a value",
    "u": "Mann–Whitney U: how many pairs of keys (this, next) this one wins",
    "p": "of the Mann–Whitney test, two-sided",
    "p_adjusted": "by Benjamini and Hochberg, over all tests that were made",
    "effect": "rank-biserial correlation (Cliff's delta), −1 … 1",
    "spread": "standard deviation of ln(relative_change) of its keys; above 0.5 the interval is too narrow",
}


def _uncertainty(group: GroupUncertainty) -> dict[str, Any]:
    """The entries of `UNCERTAINTY`, in their order."""
    test, border = group.next, group.border
    told = border.test if border else None
    values = (
        *(group.keys, group.low, group.high, group.note or None, group.rank_probability, group.tier),
        *(border.group if border else None, *((told.p_adjusted, told.effect) if told else (None, None))),
        *((test.other, test.keys[1], test.u, test.p, test.p_adjusted, test.effect) if test else (None,) * 6),
        group.spread,
    )
    return dict(zip(UNCERTAINTY, values, strict=True))


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines end in LF; a cell with any line break in it is quoted, a lone CR included."""
    lines = []
    for row in (head, *rows):
        line = io.StringIO()
        # The csv module quotes the characters of its line terminator only, so that must hold both.
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)
