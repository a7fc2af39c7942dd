"""A ranking with how sure it is, in the terminal: error bars, tiers, and the tests as sentences below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analyzer.cli.rankings import difference, format_value, heading
from analyzer.cli.terminal import OutputConsole, printable, shorten, wrapped
from analyzer.outliers import Outlier
from analyzer.ranking import RankRow
from analyzer.uncertainty import (
    EXACT,
    FEWEST_KEYS,
    KINDS,
    LEVEL,
    Assessment,
    AxisTest,
    Comparison,
    GroupUncertainty,
)

_BAR_CELLS = 12
_SHORTEST_NAME = 8
_MOST_OUTLIERS = 5
_MOST_TESTS = 8  # how many borders between tiers are explained
_SMALLEST_P = 1e-99


def print_ranking(
    ranking: Sequence[RankRow],
    assessment: Assessment,
    odd: Sequence[Outlier] = (),
    *,
    console: Console | None = None,
) -> None:
    """The first groups of the ranking that was assessed, what the tests say of all of it, and `odd` keys."""
    console = console or OutputConsole()
    fancy = console.encoding.startswith("utf")
    groups = assessment.rows[: len(ranking)]
    console.print(_table(ranking, groups, assessment.by, width=console.width, fancy=fancy))
    for sentence in [*_borders(ranking, groups), *_outliers(odd), *_sentences(assessment, groups)]:
        console.print(wrapped(sentence, width=console.width, mark="•" if fancy else "*"))


def _table(
    ranking: Sequence[RankRow], groups: Sequence[GroupUncertainty], by: str, *, width: int, fancy: bool
) -> Table:
    values = [difference(by, row.statistics[by]) for row in ranking]
    ends = [difference(by, end) for group in groups for end in (group.low, group.high) if end is not None]
    # One wide interval must not make all bars short: it runs out of the picture instead.
    largest = min(max([*values, *ends], default=0.0), 2 * max(values, default=0.0))
    rows = [
        [
            f"{row.keys:,}",
            format_value(by, row.statistics[by]),
            _error_bar(row.statistics[by], group, by, largest, fancy=fancy),
            _interval(group, by, fancy=fancy),
            _probability(group.rank_probability),
            "–" if group.tier is None else str(group.tier),
        ]
        for row, group in zip(ranking, groups, strict=True)
    ]
    heads = ["keys", heading(by), "", "95 % interval", "at rank", "tier"]
    bar = heads.index("")
    widths = [
        max(_BAR_CELLS if place == bar else len(word) for word in [*head.split("\n"), *column])
        for place, (head, *column) in enumerate(zip(heads, *rows, strict=True))
    ]
    room = max(width - sum(widths) - len(widths) - 1, _SHORTEST_NAME)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == bar else "right", no_wrap=True)
    for row, cells in zip(ranking, rows, strict=True):
        styles = ["cyan" if place == bar else "" for place in range(len(cells))]
        name = shorten(printable(row.name), room)
        table.add_row(name, *(Text(*cell) for cell in zip(cells, styles, strict=True)))
    return table


def _error_bar(value: float | None, group: GroupUncertainty, by: str, largest: float, *, fancy: bool) -> str:
    """Dark up to the lower end of the interval, grey to the value, light to the upper end."""
    if value is None or not largest:
        return ""
    middle = difference(by, value)
    low, high = middle, middle
    if group.low is not None and group.high is not None:
        low, high = sorted((difference(by, group.low), difference(by, group.high)))
        if group.low < 0 < group.high and by.startswith("mean_"):
            low = 0.0  # the sign is not known: nothing is sure
    cells = [min(round(end / largest * _BAR_CELLS), _BAR_CELLS) for end in (low, max(low, middle), high)]
    dark, grey, light = "█▓░" if fancy else "#=-"
    return dark * cells[0] + grey * (cells[1] - cells[0]) + light * max(cells[2] - cells[1], 0)


def _interval(group: GroupUncertainty, by: str, *, fancy: bool) -> str:
    if group.low is None or group.high is None:
        return group.note or "–"
    dash = "–" if fancy else "-"
    low, high = (format_value(by, end) for end in (group.low, group.high))
    return f"{low} {dash} {high}"


def _probability(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _borders(ranking: Sequence[RankRow], groups: Sequence[GroupUncertainty]) -> list[str]:
    """What tells the tiers apart: the test at each border between two."""
    apart = [
        (row, group, group.next)
        for row, group in zip(ranking, groups, strict=True)
        if group.next is not None and group.next.apart
    ]
    sentences = [
        f"tier {group.tier} | {(group.tier or 0) + 1}: {row.name} before {test.other}, {_test(test)}"
        for row, group, test in apart[:_MOST_TESTS]
    ]
    if len(apart) > _MOST_TESTS:
        sentences.append(f"and {len(apart) - _MOST_TESTS} more borders between tiers (--format json has all)")
    return sentences


def _test(test: Comparison) -> str:
    if not test.told_by_keys:
        return "their intervals do not overlap"
    return f"{_p(test.p_adjusted)}, effect {test.effect:+.2f} ({test.keys[0]} and {test.keys[1]} keys)"


def _sentences(assessment: Assessment, groups: Sequence[GroupUncertainty]) -> list[str]:
    """What the columns mean, and whether the groups differ at all; nothing that does not apply."""
    by = assessment.by
    if by in EXACT:
        return [f"{by} is counted, not estimated: there is nothing to be unsure of"]
    sentences = []
    if assessment.axis_test is not None:
        sentences.append(_axis(assessment.axis_test))
    if by in KINDS:
        sentences.append(
            f"95 % interval: for other keys like these, from {assessment.resamples:,} bootstrap resamples "
            "of the keys; at rank: the share of resamples in which a group has its rank"
        )
    else:
        sentences.append(f"{by} is an extreme of all keys, which has no bootstrap interval")
    tests = sum(group.next is not None for group in assessment.rows)
    if tests:
        sentences.append(
            "tier: neighbours share one unless their intervals do not overlap or their keys can be told "
            f"apart (Mann–Whitney, p < {LEVEL} after Benjamini–Hochberg over {tests} "
            f"test{'s' if tests > 1 else ''}; effect: −1 … 1, 0 = alike)"
        )
    notes = {group.note for group in groups}
    if "too few keys" in notes:
        sentences.append(f"too few keys: an interval or a test needs {FEWEST_KEYS}")
    if "rests on few keys" in notes:
        sentences.append("rests on few keys: one or two large ones carry nearly all of it")
    return sentences


def _outliers(odd: Sequence[Outlier]) -> list[str]:
    """The keys that are out of line with their category, the most extreme first."""
    sentences = [
        f"out of line with the other weights of {outlier.category.rpartition('/')[2]}: {outlier.key}, "
        f"relative change {outlier.value:.3g}, robust z-score {outlier.z:+.1f}"
        for outlier in odd[:_MOST_OUTLIERS]
    ]
    if len(odd) > _MOST_OUTLIERS:
        sentences.append(f"and {len(odd) - _MOST_OUTLIERS} more keys out of line (--format json has all)")
    return sentences


def _axis(test: AxisTest) -> str:
    verdict = "the groups differ" if test.p < LEVEL else "it cannot be told whether the groups differ"
    return (
        f"{verdict}: Kruskal–Wallis over {test.groups} groups and {test.keys:,} keys, "
        f"H = {test.h:.1f}, {_p(test.p)}, ε² = {test.effect:.2f}"
    )


def _p(value: float) -> str:
    if value < _SMALLEST_P:
        return "p<1e-99"
    return f"p = {value:.3f}" if value >= 0.001 else f"p = {value:.0e}"
