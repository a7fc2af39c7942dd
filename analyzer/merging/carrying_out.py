"""Do what the steps of a merge say, on a few threads, in runs that fit the buffers. Knows no files."""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.blending import AbstractBlender
from analyzer.merging.steps import Step, spans_of
from analyzer.merging.worker import Worker, buffers_for
from analyzer.streaming import Progress, in_batches, run_batches

BATCH_BYTES = 1 << 21
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
    chunk, encoded = _COPY_CHUNK, 0
    if blender is not None:
        encoded = blender.chunk  # encoders hold fp64 in several forms, as methods in NumPy do
        chunk = blender.fused_chunk if worker.fused else blender.chunk
    spans = (span for step in steps for span in spans_of(step, encoded if step.encoder else chunk))
    run_batches(
        in_batches(spans, size=lambda span: span.nbytes, limit=BATCH_BYTES),
        worker.run,
        state=buffers_for(steps, chunk),
        threads=threads,
        total=sum(step.entry.nbytes for step in steps),
        progress=progress,
    )
