"""Run batches of work on a few threads, each with its own reused buffers. Knows not what the work is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Task = TypeVar("Task")
State = TypeVar("State")
Progress = Callable[[int, int], None]  # bytes done so far, bytes in all

_MOST_THREADS = 16  # unless more are asked for: as many outrun any disk, and each takes memory
_POLL_SECONDS = 0.1  # how often progress is reported and an interrupt noticed


def run_batches(
    batches: Iterable[Task],
    work: Callable[[Task, State], int],
    *,
    state: Callable[[], State],
    threads: int | None,
    total: int,
    progress: Progress,
) -> None:
    """Call `work(batch, state)` for every batch; it returns the bytes that it dealt with.

    Batches are taken one by one as threads get free, so they may be made on the way. `state()` is
    called once a thread, for buffers. `threads` defaults to `usual_threads`. The first exception, or an
    interrupt, stops all threads before it is raised.
    """
    runner = _Runner(batches, work)
    workers = threads or usual_threads()
    progress(0, total)
    with ThreadPoolExecutor(workers, thread_name_prefix="mergescope") as pool:
        pending = {pool.submit(runner.run, state) for _ in range(workers)}
        try:
            while pending:
                done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                progress(runner.done, total)
        finally:
            runner.stop.set()
    progress(total, total)


def usual_threads() -> int:
    """One a processor that this process may use, 16 at most."""
    return min(usable_processors(), _MOST_THREADS)


def usable_processors() -> int:
    """How many processors this process may run on: fewer than the machine has, in many containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_batches(tasks: Iterable[Task], *, size: Callable[[Task], int], limit: int) -> Iterator[list[Task]]:
    """Tasks in runs of about `limit` bytes: taking work must cost little beside doing it."""
    batch: list[Task] = []
    held = 0
    for task in tasks:
        batch.append(task)
        held += size(task)
        if held >= limit:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Runner:
    """Which batch is next, and how much is done; shared by the threads."""

    def __init__(self, batches: Iterable[Task], work: Callable[[Task, State], int]) -> None:
        self.done = 0
        self.stop = threading.Event()
        self._queue = iter(batches)
        self._work: Callable[..., int] = work
        self._lock = threading.Lock()

    def run(self, make_state: Callable[[], State]) -> None:
        """Take batches until there are none left, or until another thread has failed."""
        state: State | None = None
        while not self.stop.is_set():
            with self._lock:
                batch = next(self._queue, None)
            if batch is None:
                return
            if state is None:  # a thread that finds nothing to do needs no buffers
                state = make_state()
            size = self._work(batch, state)
            with self._lock:
                self.done += size
