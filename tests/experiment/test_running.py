"""The loop over columns and seeds, against a subject that counts what it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from analyzer.errors import AnalyzerError
from analyzer.experiment.records import Column, Shown
from analyzer.experiment.running import run

A = Column("A", None, None, None)
B = Column("B", None, None, None, ("k", "l"))
ONE = Column("one", "one", None, None, ("k",))
TWO = Column("two", "two", None, None, ("l",))
COLUMNS = (A, B, ONE, TWO)
SEEDS = (3, 1)


@dataclass
class Fake:
    """A subject whose output tells the column and the seed; `fails` decides where it raises."""

    fails: Callable[[str, int | None], Exception | None] = lambda _label, _seed: None
    asked: list[tuple[str, int | None]] = field(default_factory=list)
    held: str = ""

    def take(self, column: Column) -> None:
        """Hold a column."""
        self._note(column.label, None)
        self.held = column.label

    def show(self, seed: int) -> Shown:
        """A picture of one pixel."""
        self._note(self.held, seed)
        return Shown(np.float32([len(self.held), seed]), np.zeros((1, 1, 3), np.uint8), 0.5)

    def close(self) -> None:
        """Nothing to let go of."""

    def _note(self, label: str, seed: int | None) -> None:
        self.asked.append((label, seed))
        error = self.fails(label, seed)
        if error is not None:
            raise error


class Kept(dict[tuple[str, int], Shown]):
    """A store in memory."""

    def load(self, column: Column, seed: int) -> Shown | None:
        """A cell that is there."""
        return self.get((column.label, seed))

    def save(self, column: Column, seed: int, shown: Shown) -> None:
        """Keep a cell."""
        self[column.label, seed] = shown


def failing(*cells: tuple[str, int | None], error: Exception | None = None) -> Fake:
    """A subject that fails there."""
    return Fake(lambda *cell: (error or RuntimeError("it broke")) if cell in cells else None)


def test_columns_come_one_after_the_other_and_are_taken_once() -> None:
    """All seeds of A, then of B, then of each category; the grid has them all."""
    subject = Fake()
    grid = run(subject, COLUMNS, SEEDS, Kept())
    assert [(c.label, seed) for c in COLUMNS for seed in (None, *SEEDS)] == subject.asked
    assert [(c.label, seed) for c in COLUMNS for seed in SEEDS] == list(grid)
    for (label, seed), cell in grid.items():
        assert isinstance(cell, Shown)
        assert [len(label), seed] == cell.output.tolist()


def test_an_unchanged_category_is_not_looked_at() -> None:
    """Its cells are A's, and took no time."""
    subject = Fake()
    grid = run(subject, COLUMNS, SEEDS, Kept(), unchanged={"one"})
    assert "one" not in {label for label, _ in subject.asked}
    for seed in SEEDS:
        of_a, own = grid["A", seed], grid["one", seed]
        assert isinstance(of_a, Shown)
        assert isinstance(own, Shown)
        assert own.output is of_a.output
        assert own.pixels is of_a.pixels
        assert (0.5, 0.0) == (of_a.seconds, own.seconds)


def test_after_an_interruption_only_what_is_missing_is_painted() -> None:
    """Ctrl-C goes through at once; the next run takes no column that is whole."""
    kept = Kept()
    stopped = failing(("one", 1), error=KeyboardInterrupt())  # type: ignore[arg-type]  # raised all the same
    with pytest.raises(KeyboardInterrupt):
        run(stopped, COLUMNS, SEEDS, kept)
    assert 5 == len(kept)
    subject = Fake()
    grid = run(subject, COLUMNS, SEEDS, kept)
    assert [("one", None), ("one", 1), ("two", None), ("two", 3), ("two", 1)] == subject.asked
    assert 8 == len(grid)


def test_a_cell_that_fails_leaves_the_others_and_is_tried_again() -> None:
    """Its message stands in its place, in one line, and is not kept."""
    kept = Kept()
    grid = run(failing(("one", 3), error=ValueError("too\n  large")), COLUMNS, SEEDS, kept)
    assert "ValueError: too large" == grid["one", 3]
    assert 7 == sum(isinstance(cell, Shown) for cell in grid.values())
    subject = Fake()
    assert isinstance(run(subject, COLUMNS, SEEDS, kept)["one", 3], Shown)
    assert [("one", None), ("one", 3)] == subject.asked


def test_a_column_that_cannot_be_taken_fails_as_a_whole() -> None:
    """And no more than that."""
    grid = run(failing(("one", None), error=AnalyzerError("a.bin: ends early")), COLUMNS, SEEDS, Kept())
    assert ["a.bin: ends early"] * 2 == [grid["one", seed] for seed in SEEDS]
    assert all(isinstance(grid["two", seed], Shown) for seed in SEEDS)


def test_messages_have_an_end() -> None:
    """A library may say pages."""
    grid = run(failing(("one", 3), error=ValueError("x" * 5000)), COLUMNS, SEEDS, Kept())
    message = grid["one", 3]
    assert isinstance(message, str)
    assert 300 == len(message)
    assert (
        "AssertionError" == run(failing(("one", 3), error=AssertionError()), COLUMNS, SEEDS, Kept())["one", 3]
    )


@pytest.mark.parametrize(("label", "asked"), [("A", 3), ("B", 6)])
def test_without_a_or_b_there_is_nothing_to_compare(label: str, asked: int) -> None:
    """That is said as soon as it is known, and not after hours."""
    subject = failing((label, 3), (label, 1))
    with pytest.raises(AnalyzerError, match=f"^nothing of {label} can be seen: RuntimeError: it broke$"):
        run(subject, COLUMNS, SEEDS, Kept())
    assert asked == len(subject.asked)


def test_one_seed_of_a_is_enough() -> None:
    """The other seed has no measures, and its pictures are there all the same."""
    grid = run(failing(("A", 3)), COLUMNS, SEEDS, Kept(), unchanged={"two"})
    assert "RuntimeError: it broke" == grid["A", 3] == grid["two", 3]
    assert isinstance(grid["one", 3], Shown)
    assert isinstance(grid["two", 1], Shown)


def test_all_categories_failing_is_an_error() -> None:
    """There is no experiment then."""
    with pytest.raises(AnalyzerError, match=r"^no category can be seen: RuntimeError: it broke$"):
        run(failing(("one", None), ("two", 3), ("two", 1)), COLUMNS, SEEDS, Kept())


def test_progress_counts_what_is_to_be_painted() -> None:
    """Neither what is there already nor what equals A; the time left is that of the rest."""
    kept, calls = Kept(), []
    run(Fake(), [A], SEEDS, kept)
    run(
        Fake(), COLUMNS, SEEDS, kept, unchanged={"two"},
        progress=lambda done, total, left: calls.append((done, total, left)),
    )  # fmt: skip
    assert [(n, 4) for n in range(5)] == [call[:2] for call in calls]
    lefts = [call[2] for call in calls]
    assert lefts[0] is None
    assert 0 == lefts[-1]
    assert all(left is not None and left >= 0 for left in lefts[1:])
