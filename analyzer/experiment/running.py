"""Look at every column under every seed: what is there is not painted again, what fails fails alone.

Knows no pictures and no files; what shows and what keeps are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from analyzer.errors import AnalyzerError
from analyzer.experiment.records import A, B, Column, Shown, Subject

Grid: TypeAlias = Mapping[tuple[str, int], Shown | str]  # by column's label and seed; a failed cell's message
# Cells shown, cells to be shown, and how many seconds that will take still; None while nobody knows.
Progress: TypeAlias = Callable[[int, int, float | None], None]

_LONGEST = 300  # characters of a message


class Store(Protocol):
    """Where finished cells are kept."""

    def load(self, column: Column, seed: int) -> Shown | None:
        """A cell that is there."""

    def save(self, column: Column, seed: int, shown: Shown) -> None:
        """Keep a cell."""


def run(
    subject: Subject,
    columns: Sequence[Column],
    seeds: Sequence[int],
    store: Store,
    *,
    unchanged: Collection[str] = (),
    progress: Progress = lambda _done, _total, _left: None,
) -> Grid:
    """Every cell of the grid, column by column, in the order of `columns`: A first, then B.

    A column whose label is `unchanged` is A's, and is not looked at. Whatever goes wrong in a cell is its
    message in the grid. Raises AnalyzerError where A or B failed under every seed, as soon as that is known,
    or where all the other columns did.
    """
    job = _Job(subject, store, progress)
    for column in columns:
        if column.label not in unchanged:
            job.look_up(column, seeds)
    job.progress(0, job.total, None)
    for column in columns:
        if column.label in unchanged:
            job.grid |= {(column.label, seed): _instantly(job.grid[A, seed]) for seed in seeds}
        else:
            job.show(column, seeds)
        if column.label in (A, B):
            _require_one(job.grid, [column], seeds, f"nothing of {column.label} can be seen")
    others = [column for column in columns if column.label not in (A, B)]
    if others:
        _require_one(job.grid, others, seeds, "no category can be seen")
    return {(column.label, seed): job.grid[column.label, seed] for column in columns for seed in seeds}


@dataclass(slots=True)
class _Job:
    """How far it is."""

    subject: Subject
    store: Store
    progress: Progress
    grid: dict[tuple[str, int], Shown | str] = field(default_factory=dict)
    total: int = 0  # cells to be shown
    done: int = 0
    spent: float = 0.0  # seconds

    def look_up(self, column: Column, seeds: Sequence[int]) -> None:
        """Take what the store has of a column, and count what it has not."""
        for seed in seeds:
            shown = self.store.load(column, seed)
            if shown is None:
                self.total += 1
            else:
                self.grid[column.label, seed] = shown

    def show(self, column: Column, seeds: Sequence[int]) -> None:
        """Look at the seeds of a column that are missing."""
        missing = [seed for seed in seeds if (column.label, seed) not in self.grid]
        if not missing:
            return
        started = time.monotonic()
        try:
            self.subject.take(column)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one model, the others are left
            self.grid |= dict.fromkeys(((column.label, seed) for seed in missing), _message(error))
            self._count(len(missing), started)
            return
        for seed in missing:
            self.grid[column.label, seed] = self._shown(column, seed)
            self._count(1, started)
            started = time.monotonic()

    def _shown(self, column: Column, seed: int) -> Shown | str:
        try:
            shown = self.subject.show(seed)
        except Exception as error:  # noqa: BLE001 - whatever a pipeline or a probe raises, the others are left
            return _message(error)
        self.store.save(column, seed, shown)
        return shown

    def _count(self, cells: int, started: float) -> None:
        self.done += cells
        self.spent += time.monotonic() - started
        self.progress(self.done, self.total, self.spent / self.done * (self.total - self.done))


def _instantly(cell: Shown | str) -> Shown | str:
    return cell if isinstance(cell, str) else replace(cell, seconds=0.0)


def _require_one(grid: Grid, columns: Sequence[Column], seeds: Sequence[int], what: str) -> None:
    """AnalyzerError unless some cell of the columns shows something."""
    cells = [grid[column.label, seed] for column in columns for seed in seeds]
    messages = [cell for cell in cells if isinstance(cell, str)]
    if len(messages) == len(cells):
        raise AnalyzerError(f"{what}: {messages[0]}")


def _message(error: Exception) -> str:
    """A sentence about what went wrong, in one line."""
    text = " ".join(str(error).split())
    if not isinstance(error, AnalyzerError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
