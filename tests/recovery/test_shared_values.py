"""The value that most intervals share, against trying every end; and the simplest number of a range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from analyzer.recovery.shared_values import Interval, most_shared, simplest

intervals = st.lists(
    st.tuples(st.integers(-9, 9), st.integers(0, 9), st.integers(1, 5)).map(
        lambda t: Interval(t[0], t[0] + t[1], t[2])
    ),
    max_size=12,
)


@given(intervals)
def test_most_shared_holds_the_heaviest_set(ranges: list[Interval]) -> None:
    """Some lowest end is always among the best numbers, so trying all of them is an oracle."""
    found = most_shared(ranges)
    if not ranges:
        assert found is None
        return
    assert found is not None
    weights = {at.low: sum(each.weight for each in ranges if each.holds(at.low)) for at in ranges}
    assert max(weights.values()) == found.weight
    for value in (found.low, found.high):
        assert found.weight == sum(each.weight for each in ranges if each.holds(value))


@given(st.integers(-4000, 4000), st.integers(0, 3), st.floats(0, 0.4))
def test_the_simplest_number_is_found(numerator: int, digits: int, share: float) -> None:
    """A number of few decimals in a narrow range around it."""
    value = numerator / 10**digits
    width = 1e-5
    found = simplest(value - share * width, value + (1 - share) * width)
    assert value == found


def test_a_range_without_a_short_number_gives_its_middle() -> None:
    """To eight decimals."""
    assert 0.33333333 == simplest(1 / 3 - 1e-12, 1 / 3 + 1e-12)
    assert "0.0" == str(simplest(-0.2, 0.1))
