"""Paint with one mixture of two models after the other: weights are swapped in place in one pipeline."""

from __future__ import annotations

from typing import Any

from analyzer.experiment.records import Column, Conditions, Shown
from analyzer.merging.inputs import Inputs


def open_painter(
    inputs: Inputs, conditions: Conditions, *, pipeline: Any, threads: int | None = None
) -> Painter:
    """A painter that holds column A; `pipeline` is what `load_pipeline(inputs.a, …)` gave, and becomes its.

    `inputs` stay open while it paints. Raises AnalyzerError if a weight of A is not found in the pipeline,
    the sampler is unknown or does not fit, or the size is none that the pipeline can paint.
    """
    return Painter(inputs, conditions, pipeline, threads)


class Painter:
    """The `Subject` of pictures."""

    def __init__(
        self, inputs: Inputs, conditions: Conditions, pipeline: Any, threads: int | None = None
    ) -> None:
        raise NotImplementedError

    def take(self, column: Column) -> None:
        """Hold the weights of this column; every tensor that it does not name is A's, bit for bit."""
        raise NotImplementedError

    def show(self, seed: int) -> Shown:
        """Paint with the weights that are held."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the pipeline."""
        raise NotImplementedError
