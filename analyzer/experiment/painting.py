"""Paint with one mixture of two models after the other: weights are swapped in place in one pipeline.

Knows the pipeline as `analyzer.experiment.pipelines` loads it, and no files, grid or measures. What a column
holds are the values that `mergescope merge` would write for its recipe.
"""

from __future__ import annotations

import gc
import inspect
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from analyzer.errors import AnalyzerError
from analyzer.experiment import noise
from analyzer.experiment.pipelines import denoiser
from analyzer.experiment.placing import as_tensor, place, put, read_tensor
from analyzer.experiment.records import Column, Conditions, Shown
from analyzer.experiment.samplers import set_sampler
from analyzer.kernels.backends import device_errors
from analyzer.merging.in_memory import merged_tensors
from analyzer.merging.inputs import Inputs
from analyzer.methods import METHODS
from analyzer.quiet import quiet

_SMALL = 1 << 24  # parameters of a denoiser that one thread paints with as fast as several


def open_painter(
    inputs: Inputs, conditions: Conditions, *, pipeline: Any, threads: int | None = None
) -> Painter:
    """A painter that holds column A; `pipeline` is what `load_pipeline(inputs.a, …)` gave, and becomes its.

    `inputs` stay open while it paints. `threads` are those of the CPU, for the merge and for painting
    (default: what both take by themselves, and one for painting with a small model). Raises AnalyzerError
    if a weight of A is not found in the pipeline, the sampler is unknown or does not fit, or the size is none
    that the pipeline can paint.
    """
    processor = getattr(pipeline, "image_processor", None)  # knows of latents that are packed by twos
    factor = processor.config.vae_scale_factor if processor else pipeline.vae_scale_factor
    _check_size(conditions, factor)
    with quiet():
        set_sampler(pipeline, conditions.sampler)
        noise.steady_latents(pipeline)
        return Painter(inputs, conditions, pipeline, threads)


class Painter:
    """The `Subject` of pictures."""

    def __init__(
        self, inputs: Inputs, conditions: Conditions, pipeline: Any, threads: int | None = None
    ) -> None:
        self._inputs, self._conditions, self._pipeline = inputs, conditions, pipeline
        self._threads = threads
        small = sum(each.numel() for each in denoiser(pipeline).parameters()) <= _SMALL
        self._painting_threads = threads or (1 if small else None)
        self._placing = place(inputs.a, pipeline)
        self._held: dict[str, Hashable] = {}  # key -> what was done with it, where that is not nothing

    def take(self, column: Column) -> None:
        """Hold the weights of this column; every tensor that it does not name is A's, bit for bit.

        Only what differs from the weights that are held is computed and written. Raises CheckpointError if
        a model ends early; the next column is right all the same.
        """
        wanted = _changes(column, self._placing)
        for key in [key for key in self._held if key not in wanted]:
            put(self._placing[key], read_tensor(self._inputs.a, key))
            del self._held[key]
        fresh = [key for key, change in wanted.items() if change is None or self._held.get(key) != change]
        if not fresh:
            return
        assert column.plan is not None
        assert column.recipe is not None
        tensors = merged_tensors(self._inputs, column.plan, column.recipe, keys=fresh, threads=self._threads)
        for key, dtype, _, raw in tensors:
            self._held[key] = None  # until all of it is there
            put(self._placing[key], as_tensor(raw, dtype))
            self._held[key] = wanted[key]

    def show(self, seed: int) -> Shown:
        """Paint with the weights that are held.

        The output are the final latents as the denoiser leaves them, without a batch axis; they are what
        the pipeline's own VAE then makes pixels of. NaN and Inf stay what they are.
        """
        import torch

        started = time.monotonic()
        last: list[Any] = []

        def keep(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            last[:] = [values["latents"]]
            return values

        errors, threads = device_errors(self._conditions.device), _threads(self._painting_threads)
        with quiet(), torch.inference_mode(), threads, errors:
            found = self._pipeline(
                **_arguments(self._pipeline, self._conditions),
                generator=noise.generator(seed),
                output_type="pil",
                callback_on_step_end=keep,
            )
            output = last[0][0].float().cpu().numpy()
        pixels = np.array(found.images[0].convert("RGB"))
        return Shown(output, pixels, time.monotonic() - started)

    def close(self) -> None:
        """Let go of the pipeline and of the memory that it takes."""
        import torch

        self._pipeline, self._placing = None, {}
        gc.collect()  # the pipeline and the functions that were put into it refer to one another
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute on so many threads; None: on as many as it takes.

    Where a step takes a millisecond, threads that wait for one another on a busy machine take far longer: a
    picture of a small model took 16 s with two of them, and half a second with one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _changes(column: Column, placed: Any) -> dict[str, Hashable]:
    """What becomes of each key that is not A's, of those that paint; equal values: equal weights.

    None where it cannot be told without computing: methods that look at more than the tensor's elements.
    """
    if column.plan is None or column.recipe is None:
        return {}
    recipe = column.recipe
    plain = METHODS[recipe.method].fused
    return {
        action.key: (action.verb, action.alpha, action.dtype, recipe.method) if plain else None
        for action in column.plan.actions
        if action.key in placed and action.verb != "keep"
    }


def _arguments(pipeline: Any, conditions: Conditions) -> dict[str, Any]:
    """The conditions, as far as a pipeline of this kind asks for them."""
    wanted = {
        "prompt": conditions.prompt,
        "negative_prompt": conditions.negative_prompt,
        "num_inference_steps": conditions.steps,
        "guidance_scale": conditions.cfg,
        "width": conditions.width,
        "height": conditions.height,
    }
    accepted = inspect.signature(pipeline.__call__).parameters
    return {name: value for name, value in wanted.items() if name in accepted}


def _check_size(conditions: Conditions, factor: int) -> None:
    width, height = conditions.width, conditions.height
    if width < factor or height < factor or width % factor or height % factor:
        raise AnalyzerError(
            f"--size {width}x{height}: this model paints sizes that are multiples of {factor}, such as "
            f"{max(round(width / factor), 1) * factor}x{max(round(height / factor), 1) * factor}"
        )
