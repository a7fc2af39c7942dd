"""Rankings in the terminal: bars that start where nothing differs, formats of the table, whole columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest
from rich.console import Console

from analyzer.cli.rankings import difference, format_value, heading, print_ranking
from analyzer.cli.terminal import spelled
from analyzer.measures import Sums
from analyzer.ranking import RankRow
from analyzer.statistics import STATISTICS


def row(name: str, **values: float) -> RankRow:
    """A group that changed, with these statistics; the others are undefined."""
    statistics = dict.fromkeys(STATISTICS) | values
    return RankRow(name, f"component:{name}", 3, Sums(numel=1200), statistics, "changed")


def table(ranking: Sequence[RankRow], by: str, *, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """The lines of a ranking on a terminal of that width."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    print_ranking(ranking, by=by, console=Console(width=width, file=file, highlight=False))
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


@pytest.mark.parametrize(("by", "values"), [
    ("cosine", [-0.5, 0.25, 0.9]), ("task_cosine", [-1.0, 0.0, 1.0]), ("row_cosine_min", [-0.2, 0.5, 0.99]),
    ("row_cosine_p05", [0.1, 0.2, 0.3]), ("row_cosine_median", [0.9, 0.95, 1.0]),
    ("lora_rank", [1, 4, 16]), ("stable_rank", [1.5, 2.5, 9.0]), ("rank_90", [2, 3, 4]),
    ("relative_change", [0.5, 0.2, 0.0]), ("energy_share", [0.7, 0.2, 0.1]), ("dominance", [0.9, 0.5, 0.1]),
])  # fmt: skip
def test_the_first_group_has_the_longest_bar(by: str, values: list[float]) -> None:
    """Whichever way a statistic runs: bars become shorter down the ranking."""
    ranking = [row(name, **{by: value}) for name, value in zip("abc", values, strict=True)]
    lines = [line for line in table(ranking, by) if line[:1] in "abc" and line]
    lengths = [sum(line.count(sign) for sign in "█▏▎▍▌▋▊▉") for line in lines]
    assert (3, 8) == (len(lengths), lengths[0])
    assert sorted(lengths, reverse=True) == lengths
    assert lengths[0] > lengths[2]


@pytest.mark.parametrize(
    ("by", "value", "expected"),
    [
        ("norm_ratio", 1.0, 0), ("norm_ratio", 0.75, 0.25), ("cosine", -1.0, 2), ("lora_rank", 4, 0.25),
        ("mean_a", -2.0, 2), ("relative_change", None, 0), ("stable_rank", inf, 0),
    ],
)  # fmt: skip
def test_a_bar_starts_where_nothing_differs(by: str, value: float | None, expected: float) -> None:
    """Of lengths at 0, of cosines and ratios at 1, of ranks at infinity."""
    assert expected == difference(by, value)


@pytest.mark.parametrize(
    ("by", "value", "text"),
    [
        ("lora_rank", 4.0, "4"), ("lora_rank", 4.5, "4.5"), ("rank_90", 1234.0, "1.2k"), ("numel", 12, "12"),
        ("dominance", 0.0015, "0.1%"), ("support_overlap", 0.25, "25.0%"), ("radial_share", 1e-5, "<0.1%"),
        ("energy_share", 0.0, "0"), ("cosine", 0.5, "0.5000"), ("rms_delta", 2e-5, "2.0e-05"),
        ("stable_rank", 123.0, "123.0"), ("cosine", None, "–"),
    ],
)  # fmt: skip
def test_numbers_shares_and_counts(by: str, value: float | None, text: str) -> None:
    """As the table of statistics says, not as a list beside it."""
    assert text == format_value(by, value)


def test_every_share_lies_between_nothing_and_all() -> None:
    """What is written in per cent has a range that ends at 1; what is counted has whole values."""
    for name, statistic in STATISTICS.items():
        share = statistic.range.endswith("… 1") and statistic.range.startswith("0")
        assert share == (statistic.format == "share"), name
        assert (statistic.unit == "elements" or "rank" in name) == (
            statistic.format == "count" or name == "stable_rank"
        )


@pytest.mark.parametrize("by", STATISTICS)
def test_headings_have_two_lines_at_most(by: str) -> None:
    """However long the title is; short ones have one."""
    lines = heading(by).split("\n")
    assert len(lines) <= 2
    assert max(map(len, lines)) <= 12


@pytest.mark.parametrize(
    "by", ["dominance", "row_cosine_median", "relative_change", "sign_conflict_expected"]
)
def test_a_name_comes_before_a_column(by: str) -> None:
    """At 80 columns every line fits, and no name is cut below 16 characters."""
    full = {"cosine": -0.001, "norm_ratio": 1.0003, "changed_fraction": 1.0, "energy_share": 0.15}
    full |= {"relative_change": 7.2e-4, by: 0.4246}
    ranking = [replace(row(f"{'a_very_long_name' * 2}{i}", **full), keys=1234) for i in range(3)]
    lines = table(ranking, by)
    assert all(len(line) <= 80 for line in lines)
    names = [line.split()[0] for line in lines if line.startswith("a_very")]
    assert all(len(name) >= 16 and "…" in name for name in names)
    assert 3 == len(set(names))
    short = table([row("ff", **full)], by)
    assert "Δ² share" in short[0] + short[1]  # a short name leaves room for all


@pytest.mark.parametrize("width", [30, 40, 50, 60])
def test_a_narrow_terminal_keeps_the_ordering_statistic(width: int) -> None:
    """The other statistics go first, then the bars, then sizes and counts; never the value."""
    ranking = [row("transformer_blocks", relative_change=0.4246, cosine=0.9)]
    lines = table(ranking, "relative_change", width=width)
    assert all(len(line) <= width for line in lines)
    assert "0.4246" in lines[-1]
    assert 1 == len([line for line in lines if "…" in line or "transformer_blocks" in line])


def test_the_signs_of_this_program_have_ascii_names() -> None:
    """In headings and ranges of all statistics; a name from a file stays as it is."""
    assert "a - b ... eps^2, p != 1" == spelled("a − b … ε², p ≠ 1", "ascii")
    assert "ε" == spelled("ε", "UTF-8")
    assert "größe" == spelled("größe", "cp1252")
    for by in STATISTICS:
        assert spelled(heading(by), "ascii").isascii()
    ranking = [row("a_name_that_is_too_long_for_its_column", relative_change=0.5)]
    lines = table(ranking, "relative_change", encoding="ascii")
    assert not any("?" in line for line in lines)
    assert "~" in lines[-1]
    assert "#" * 8 in lines[-1]
