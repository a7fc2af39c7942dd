"""Do what the steps of a merge say, on a few threads, in runs that fit the buffers. Knows no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from analyzer.blending import AbstractBlender
from analyzer.merging.steps import Span, Step, spans_of
from analyzer.merging.worker import Worker, buffers_for
from analyzer.streaming import Progress, in_batches, run_batches

_BATCH_BYTES = 1 << 21
_COPY_CHUNK = 1 << 17  # elements, where nothing is computed: what is copied stays in a processor's own cache


def blender_threads(blender: AbstractBlender | None, threads: int | None) -> int | None:
    """How many threads are asked for, or keep the blender busy; None: what `run_batches` takes."""
    return threads or (blender.threads if blender else None)


def carry_out(
    steps: Sequence[Step],
    worker: Worker,
    blender: AbstractBlender | None,
    *,
    threads: int | None,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Compute every step and hand its bytes to the worker's sinks; without `blender` all steps copy.

    `progress` is told bytes of the output.
    """
    run_batches(
        in_batches(_spans(steps, worker, blender), size=lambda span: span.nbytes, limit=_BATCH_BYTES),
        worker.run,
        state=buffers_for(steps, _chunk(worker, blender)),
        threads=threads,
        total=sum(step.entry.nbytes for step in steps),
        progress=progress,
    )


def carry_out_one(
    step: Step, worker: Worker, blender: AbstractBlender | None, *, threads: int | None
) -> None:
    """The same for one step: in this thread if it is small, since to wake another takes longer."""
    if step.entry.nbytes > _BATCH_BYTES:
        carry_out([step], worker, blender, threads=threads)
    elif spans := list(_spans([step], worker, blender)):
        most = max(span.count for span in spans)
        worker.run(spans, buffers_for([step], most)())


def _chunk(worker: Worker, blender: AbstractBlender | None) -> int:
    """Elements of one run."""
    if blender is None:
        return _COPY_CHUNK
    return blender.fused_chunk if worker.fused else blender.chunk


def _spans(steps: Iterable[Step], worker: Worker, blender: AbstractBlender | None) -> Iterator[Span]:
    """The runs of all steps."""
    chunk = _chunk(worker, blender)
    # Encoders hold fp64 in several forms, as methods in NumPy do.
    encoded = blender.chunk if blender else 0
    return (span for step in steps for span in spans_of(step, encoded if step.encoder else chunk))
