"""Batches on threads: all done once, progress that only rises, and a stop that stops every thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import streaming
from analyzer.streaming import in_batches, run_batches

# Many seconds of work if nothing stops it; what stops after a failure has done next to none of it.
ENDLESS = range(5_000_000)
PATIENCE = 30  # seconds until a test that waits for another thread gives up

Steps = list[tuple[int, int]]


def workers() -> list[threading.Thread]:
    """The threads of this package that are still alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("mergescope")]


@pytest.mark.parametrize("threads", [1, 2, 5, 64, None])
def test_every_batch_is_done_once(threads: int | None) -> None:
    """Whatever the number of threads, each batch reaches `work` once, and no thread is left behind."""
    done: list[int] = []

    def work(batch: int, state: None) -> int:
        done.append(batch)
        return 0

    run_batches(range(40), work, state=lambda: None, threads=threads, total=0, progress=lambda *_: None)
    assert list(range(40)) == sorted(done)
    assert [] == workers()


@pytest.mark.parametrize(
    ("threads", "processors", "started"), [(None, 64, 16), (None, 3, 3), (20, 64, 20), (5, 2, 5)]
)
def test_sixteen_threads_at_most_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, processors: int, started: int
) -> None:
    """Each has buffers: a machine of many processors must not need more memory than another."""
    monkeypatch.setattr(streaming, "usable_processors", lambda: processors)
    together = threading.Barrier(started)
    seen: set[int] = set()

    def work(batch: int, state: None) -> int:
        seen.add(threading.get_ident())
        return together.wait(PATIENCE) or 1  # none is done before so many are at work

    batches = range(3 * started)
    run_batches(batches, work, state=lambda: None, threads=threads, total=1, progress=lambda *_: None)
    assert started == len(seen)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_progress_rises_and_ends_at_the_total(threads: int) -> None:
    """The bytes that `work` returns add up; the last report says that all is done."""
    steps: Steps = []
    run_batches(
        range(1000),
        lambda batch, _: batch,
        state=lambda: None,
        threads=threads,
        total=sum(range(1000)),
        progress=lambda *step: steps.append(step),
    )
    assert sorted(steps) == steps
    assert {sum(range(1000))} == {total for _, total in steps}
    assert sum(range(1000)) == steps[-1][0]


def test_progress_is_reported_while_work_goes_on() -> None:
    """A report comes before the work is done, and says how much of it is."""
    steps: Steps = []
    two_done, reported = threading.Event(), threading.Event()

    def work(batch: int, state: None) -> int:
        if batch == 2:
            two_done.set()
            assert reported.wait(PATIENCE)
        return 10

    def progress(done: int, total: int) -> None:
        steps.append((done, total))
        if two_done.is_set():
            reported.set()

    run_batches(range(3), work, state=lambda: None, threads=1, total=30, progress=progress)
    assert (20, 30) in steps
    assert (30, 30) == steps[-1]


def test_no_batches_are_done_at_once() -> None:
    """Nothing to do ends with one complete report, and `work` is never called."""
    steps: Steps = []
    nothing: Sequence[int] = []
    run_batches(
        nothing,
        lambda batch, _: 1 // 0,
        state=lambda: None,
        threads=3,
        total=0,
        progress=lambda *step: steps.append(step),
    )
    assert (0, 0) == steps[-1]


@pytest.mark.parametrize(("threads", "batches"), [(1, 30), (3, 30), (8, 2), (None, 500)])
def test_each_thread_makes_its_state_once_and_keeps_it(threads: int | None, batches: int) -> None:
    """Buffers cost memory: there are never more than threads, nor than batches, nor shared ones."""
    users: dict[int, set[int]] = {}
    made: list[object] = []

    def state() -> object:
        made.append(object())
        return made[-1]

    def work(batch: int, mine: object) -> int:
        users.setdefault(id(mine), set()).add(threading.get_ident())
        return 1

    run_batches(range(batches), work, state=state, threads=threads, total=batches, progress=lambda *_: None)
    assert 1 <= len(made) <= min(threads or os.cpu_count() or 1, batches)
    assert all(len(threads_of_one) == 1 for threads_of_one in users.values())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_exception_stops_all_threads_and_is_raised(threads: int) -> None:
    """The others finish the batch in their hands; the caller gets the very exception."""
    failure = OSError("the disk is gone")
    together = threading.Barrier(threads)
    done: list[int] = []

    def work(batch: int, state: None) -> int:
        if batch < threads:
            together.wait(PATIENCE)  # so that all threads are at work when one of them fails
        if batch == 0:
            raise failure
        done.append(batch)
        return 1

    with pytest.raises(OSError, match="the disk is gone") as caught:
        run_batches(ENDLESS, work, state=lambda: None, threads=threads, total=1, progress=lambda *_: None)
    assert failure is caught.value
    assert len(done) < len(ENDLESS) // 10
    assert [] == workers()


def test_a_state_that_cannot_be_made_is_raised() -> None:
    """No room for buffers is an error like any other, not a thread that quietly does nothing."""

    def state() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        run_batches(range(3), lambda batch, _: 1, state=state, threads=2, total=3, progress=lambda *_: None)
    assert [] == workers()


def test_an_interrupt_while_waiting_stops_all_threads() -> None:
    """Ctrl-C reaches the main thread, where progress is reported: the workers end before it is raised."""
    interrupted = threading.Event()
    done: list[int] = []

    def work(batch: int, state: None) -> int:
        if batch >= 4:
            interrupted.wait(PATIENCE)
        done.append(batch)
        return 1

    def progress(_done: int, _total: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batches(ENDLESS, work, state=lambda: None, threads=2, total=len(ENDLESS), progress=progress)
    assert len(done) < len(ENDLESS) // 10
    assert [] == workers()


@given(sizes=st.lists(st.integers(0, 50)), limit=st.integers(1, 100))
def test_batches_are_the_tasks_in_order_and_no_longer_than_needed(sizes: list[int], limit: int) -> None:
    """Nothing is lost or reordered; a batch ends with the task that fills it, the last one excepted."""
    tasks = list(enumerate(sizes))
    batches = list(in_batches(tasks, size=lambda task: task[1], limit=limit))
    assert tasks == [task for batch in batches for task in batch]
    held = [[size for _, size in batch] for batch in batches]
    assert all(batch for batch in held)
    assert all(sum(batch) >= limit for batch in held[:-1])
    assert all(sum(batch[:-1]) < limit for batch in held)


def test_batches_are_made_one_at_a_time() -> None:
    """Tasks may be an iterator; a batch is handed out before the task behind it is looked at."""
    tasks = iter([3, 3, 1])
    batches = in_batches(tasks, size=lambda task: task, limit=5)
    assert [3, 3] == next(batches)
    assert 1 == next(tasks)
