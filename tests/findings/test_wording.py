"""Numbers as people read them are rounded, but never to something that is not so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.findings import wording
from analyzer.kinship import DISTANT_COSINE, FINE_TUNE_COSINE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0%"),
        (1e-9, "less than 0.01%"),
        (0.0123, "1.2%"),
        (0.5, "50%"),
        (0.994, "99%"),
        (0.996, "99.6%"),
        (0.9999, "99.99%"),
        (0.999999, "more than 99.99%"),
        (1.0, "100%"),
    ],
)
def test_shares(value: float, text: str) -> None:
    """All is all, and nothing is nothing."""
    assert text == wording.share(value)


@given(st.floats(0, 1))
def test_a_share_is_all_or_nothing_only_if_it_is(value: float) -> None:
    """Of every number between 0 and 1."""
    assert (value == 1) is (wording.share(value) == "100%")
    assert (value == 0) is (wording.share(value) == "0%")


def test_bounds() -> None:
    """What is "more than" is not "at least" besides, nor "at most less than"."""
    assert ["at least 60%", "more than 99.99%", "100%"] == [*map(wording.at_least, (0.6, 0.999999, 1.0))]
    assert ["0%", "less than 0.01%", "at most 3%"] == [*map(wording.at_most, (0.0, 1e-9, 0.03))]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-9, "less than 0.0001% of its length"),
        (0.0123, "1.2% of its length"),
        (0.3, "30% of its length"),
        (1.5, "150% of its length"),
        (2.0, "2.0 times its length"),
        (1234.5, "1,234 times its length"),
    ],
)
def test_changes(value: float, text: str) -> None:
    """In percent below twice the length, in times from there on."""
    assert text == wording.change(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.95, "0.950"),
        (0.9, "0.900"),
        (0.8999999, "just below 0.9"),
        (0.89995, "0.89995"),
        (0.1000001, "just above 0.1"),
        (0.99999, "0.99999"),
        (0.99999999, "just below 1"),
        (1.0, "1.000"),
        (0.0, "0.000"),
        (1e-7, "1e-07"),
        (-0.25, "-0.250"),
    ],
)
def test_cosines(value: float, text: str) -> None:
    """As many digits as it takes to see on which side of a threshold it is."""
    assert text == wording.cosine(value)


@given(st.floats(-1, 1) | st.floats(0.8999, 0.9001) | st.floats(0.0999, 0.1001) | st.floats(0.999, 1))
def test_a_cosine_is_never_shown_on_the_wrong_side(value: float) -> None:
    """What is read is no threshold, and no 0 or 1, unless it is that."""
    text = wording.cosine(value)
    for mark in (-1.0, 0.0, 1.0, DISTANT_COSINE, FINE_TUNE_COSINE):
        assert (value == mark) is (not text.startswith("just") and float(text) == mark)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c", "d"], "a, b, c and d"),
        (["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
    ],
)
def test_lists(names: list[str], text: str) -> None:
    """One more than is listed is written out, for "and 1 more" is no shorter."""
    assert text == wording.names(names)


def test_ratios_counts_and_lengths() -> None:
    """Few digits, plurals, and which way a length changed."""
    assert ["0.71", "1.00", "346", "1,234", "1e-03"] == [
        *map(wording.ratio, (0.71, 1.0, 346.2, 1234.0, 0.001))
    ]
    assert ["1 key", "1,131 keys"] == [wording.count(1), wording.count(1131)]
    assert ["10% longer", "20% shorter"] == [wording.stretch(1.1), wording.stretch(0.8)]
    assert "0 ± 0.004" == wording.chance(0.0041)
