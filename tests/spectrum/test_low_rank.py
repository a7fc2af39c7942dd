"""When a second, wider look at a matrix is worth its time, and what few numbers say."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.low_rank import CLOSE, Limits, may_be_low, summarize, without_few_rows
from analyzer.measures import Sums
from analyzer.records import Spectrum

LOOK = 176  # values of a first look


def test_a_flat_spectrum_needs_no_second_look() -> None:
    """The value at `CLOSE` bounds all others: 256 of 4096 equal ones cannot hold 90 %."""
    assert not may_be_low(np.ones(LOOK), 4096.0, Limits(1e-9, 1e-9), 4096)


def test_what_the_first_look_settles_needs_no_second() -> None:
    """Eight directions and rounding: found."""
    squares = np.array([1.0] * 8 + [1e-9] * (LOOK - 8))
    assert not may_be_low(squares, 8.0, Limits(1e-8, 1e-3), 4096)


def test_ranks_beyond_the_close_values_need_a_second_look() -> None:
    """A hundred equal directions, of which the first look saw all."""
    squares = np.array([1.0] * 100 + [1e-9] * (LOOK - 100))
    assert may_be_low(squares, 100.0, None, 4096)


def test_equal_values_of_which_a_few_were_seen_need_a_second_look() -> None:
    """What the first look does not account for is more than its last close value allows."""
    squares = np.array([1.0] * 16 + [1e-12] * (LOOK - 16))
    assert may_be_low(squares, 100.0, None, 4096)


def test_small_directions_beyond_the_close_values_need_a_second_look() -> None:
    """The first values leave no more than rounding in all, and yet more than rounding in a direction."""
    squares = np.array([1.0] * CLOSE + [0.001] * 10 + [1e-9] * (LOOK - CLOSE - 10))
    assert may_be_low(squares, 40.01, Limits(1e-6, 0.1), 4096)


def test_statistics_of_few_numbers() -> None:
    """By hand: σ² of 8, 1 and 1."""
    squares = np.array([8.0, 1.0, 1.0])
    assert Spectrum(1.25, 2, 0.8, None) == summarize(squares, 10.0, None, size=3, close=3)
    assert Spectrum(1.25, None, 0.8, None) == summarize(squares, 10.0, None, size=3, close=1)


def test_a_lora_has_at_most_half_of_the_directions() -> None:
    """One of two directions is a LoRA of rank 1; two of three are none."""
    limits = Limits(0.5, 0.5)
    assert 1 == summarize(np.array([8.0, 0.1]), 8.1, limits, size=2, close=2).lora_rank
    assert summarize(np.array([8.0, 1.0, 0.1]), 9.1, limits, size=3, close=3).lora_rank is None
    assert summarize(np.array([0.1, 0.1]), 0.2, limits, size=2, close=2).lora_rank is None
    assert summarize(np.array([8.0, 0.4, 0.4, 0.4]), 9.2, limits, size=4, close=4).lora_rank is None


@pytest.mark.parametrize(("changed", "expected"), [(3 * 768, None), (3 * 768 + 1, 3)])
def test_a_few_rows_that_changed_are_no_lora(changed: int, expected: int | None) -> None:
    """Three rows of 768 hold 2304 numbers; one more that changed lies elsewhere."""
    sums = Sums(numel=320 * 768, n=320 * 768, numeric=320 * 768, changed=changed)
    assert expected == without_few_rows(Spectrum(2.0, 3, 0.5, 3), sums, (320, 768)).lora_rank
