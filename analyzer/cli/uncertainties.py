"""A ranking with how sure it is, in the terminal: error bars, tiers, and the tests as sentences below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from analyzer.cli.rankings import (
    Column,
    difference,
    format_value,
    heading,
    print_table,
    telling,
    told_below,
)
from analyzer.cli.terminal import OutputConsole, is_fancy, printable, spelled, wrapped
from analyzer.outliers import Outlier
from analyzer.ranking import RankRow
from analyzer.statistics import STATISTICS
from analyzer.uncertainty import (
    EXACT,
    FEWEST_KEYS,
    KINDS,
    LEVEL,
    WIDE,
    Assessment,
    AxisTest,
    Border,
    GroupUncertainty,
)

_BAR_CELLS = 12
_DIGITS = 2  # the ends of an interval may lie close
_MOST_OUTLIERS = 5
_MOST_TESTS = 8  # how many borders between tiers are explained
_SMALLEST_P = 1e-99
_LARGEST_Z = 100


def print_ranking(
    ranking: Sequence[RankRow],
    assessment: Assessment,
    odd: Sequence[Outlier] = (),
    *,
    axis: str = "component",
    top: int | None = None,
    console: Console | None = None,
) -> None:
    """The groups of a ranking that was assessed, what the tests say of all of it, and `odd` keys.

    Groups are left out as they are from a plain ranking: `analyzer.cli.rankings.print_ranking`.
    """
    console = console or OutputConsole()
    fancy = is_fancy(console.encoding)
    places = telling(ranking, assessment.by)[:top]
    rows = [(ranking[place], assessment.rows[place]) for place in places]
    print_table([row.name for row, _ in rows], _columns(rows, assessment.by, fancy=fancy), console)
    notes = [*told_below(ranking, assessment.by, axis, top), *_borders(rows)]
    for sentence in notes:
        _print(sentence, console)
    _print_outliers(odd, console)
    for sentence in _sentences(assessment, [group for _, group in rows]):
        _print(sentence, console)


def _print(sentence: str, console: Console) -> None:
    mark = "•" if is_fancy(console.encoding) else "*"
    console.print(wrapped(spelled(sentence, console.encoding), width=console.width, mark=mark))


def _columns(rows: Sequence[tuple[RankRow, GroupUncertainty]], by: str, *, fancy: bool) -> list[Column]:
    values = [difference(by, row.statistics[by]) for row, _ in rows]
    ends = [difference(by, end) for _, group in rows for end in (group.low, group.high) if end is not None]
    # One wide interval must not make all bars short: it runs out of the picture instead.
    largest = min(max([*values, *ends], default=0.0), 2 * max(values, default=0.0))
    bars = [_error_bar(row.statistics[by], group, by, largest, fancy=fancy) for row, group in rows]
    tiers = ["–" if group.tier is None else str(group.tier) for _, group in rows]
    return [
        Column("keys", [f"{row.keys:,}" for row, _ in rows], left_out=1),
        Column(heading(by), [format_value(by, row.statistics[by], digits=_DIGITS) for row, _ in rows]),
        Column("", bars, left_out=3, bar=_BAR_CELLS),
        Column("95 % interval", [_interval(group, by) for _, group in rows]),
        Column("at rank", [_probability(group.rank_probability) for _, group in rows], left_out=2),
        Column("tier", tiers),
    ]


def _error_bar(value: float | None, group: GroupUncertainty, by: str, largest: float, *, fancy: bool) -> str:
    """Dark up to the lower end of the interval, grey to the value, light to the upper end."""
    if value is None or not largest:
        return ""
    middle = difference(by, value)
    low, high = middle, middle
    if group.low is not None and group.high is not None:
        low, high = sorted((difference(by, group.low), difference(by, group.high)))
        if group.low < (STATISTICS[by].neutral or 0.0) < group.high:
            low = 0.0  # to which side it differs is not known: nothing is sure
    cells = [min(round(end / largest * _BAR_CELLS), _BAR_CELLS) for end in (low, max(low, middle), high)]
    dark, grey, light = "█▓░" if fancy else "#=-"
    return dark * cells[0] + grey * (cells[1] - cells[0]) + light * max(cells[2] - cells[1], 0)


def _interval(group: GroupUncertainty, by: str) -> str:
    if group.low is None or group.high is None:
        return group.note or "–"
    low, high = (format_value(by, end, digits=_DIGITS) for end in (group.low, group.high))
    return f"{low} – {high}"


def _probability(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _borders(rows: Sequence[tuple[RankRow, GroupUncertainty]]) -> list[str]:
    """What tells the tiers apart: for each but the first one, which group of the tier above, and how."""
    found = [
        f"tier {(group.tier or 0) - 1} | {group.tier}: {group.border.group} before {row.name}, "
        f"{_test(group.border)}"
        for row, group in rows
        if group.border is not None and group.border.group in {row.name for row, _ in rows}
    ]
    sentences = found[:_MOST_TESTS]
    if len(found) > _MOST_TESTS:
        sentences.append(f"and {len(found) - _MOST_TESTS} more borders between tiers (--format json has all)")
    return sentences


def _test(border: Border) -> str:
    test = border.test
    if test is None:
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
            "of the keys; at rank: the share of resamples in which a group has its rank among the groups "
            "that have an interval"
        )
    else:
        sentences.append(f"{by} is an extreme of all keys, which has no bootstrap interval")
    if assessment.tests:
        sentences.append(
            "tier: a further one begins where an interval does not overlap with that of a group of the tier, "
            "or where keys can be told from those of its first or last group (Mann–Whitney, "
            f"p < {LEVEL} after Benjamini–Hochberg over {assessment.tests:,} "
            f"test{'s' if assessment.tests > 1 else ''}; effect: −1 … 1, 0 = alike)"
        )
    wide = sum(group.low is not None and (group.spread or 0.0) > WIDE for group in groups)
    if wide and STATISTICS[by].neutral is not None:
        sentences.append(
            f"in {wide} of these groups the changes of the keys spread by more than a factor of e^{WIDE:g}: "
            "there an interval holds the truth in about 87 % of cases, not in 95 %"
        )
    notes = {group.note for group in groups}
    if "nothing changed" in notes and by in KINDS:
        sentences.append("nothing changed: no interval, as keys that stayed say nothing of others like them")
    if "too few keys" in notes:
        sentences.append(f"too few keys: an interval or a test needs {FEWEST_KEYS}")
    if "rests on few keys" in notes:
        sentences.append("rests on few keys: one or two large ones carry nearly all of it")
    return sentences


def _print_outliers(odd: Sequence[Outlier], console: Console) -> None:
    """The keys that are out of line with their category, the most extreme first: one line each."""
    if not odd:
        return
    _print("out of line with their category (robust z-score, relative change):", console)
    for outlier in odd[:_MOST_OUTLIERS]:
        change = format_value("relative_change", outlier.value)
        line = f"  {_score(outlier.z):>10}  {change:>7}  {printable(outlier.key)}"
        console.print(Text(line), soft_wrap=True)  # a key stays in one piece, to be copied
    if len(odd) > _MOST_OUTLIERS:
        more = f"  and {len(odd) - _MOST_OUTLIERS:,} more (--format json has all)"
        console.print(Text(more), soft_wrap=True)


def _score(z: float) -> str:
    """Beyond 100 a score says no more than that: the category hardly spreads."""
    if abs(z) <= _LARGEST_Z:
        return f"{z:+.1f}"
    return f"above +{_LARGEST_Z}" if z > 0 else f"below -{_LARGEST_Z}"


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
