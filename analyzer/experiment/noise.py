"""Noise that depends on the seed alone: drawn in fp32 on the CPU, whatever a pipeline computes in and where.

torch draws other numbers on a GPU than on the CPU, and in some versions others in fp16 than in fp32.
diffusers draws in the dtype of the weights, on the generator's device; so a generator of the CPU goes in, and
fp32 is asked for where noise is drawn: for the first latents, and in the steps of samplers that add some.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any


def generator(seed: int) -> Any:
    """The source of all noise of one picture."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def steady_latents(pipeline: Any) -> None:
    """Let the pipeline draw its first latents in fp32, and round them to its dtype afterwards."""
    prepare = pipeline.prepare_latents
    signature = inspect.signature(prepare)

    @functools.wraps(prepare)
    def steady(*args: Any, **options: Any) -> Any:
        import torch

        call = signature.bind(*args, **options)
        dtype = call.arguments["dtype"]
        call.arguments["dtype"] = torch.float32
        return _as_dtype(prepare(*call.args, **call.kwargs), dtype)

    pipeline.prepare_latents = steady


def steady_scheduler(kind: type) -> type:
    """The same scheduler that takes each step in fp32, noise included, and rounds what comes of it."""
    step = kind.step  # type: ignore[attr-defined] # all schedulers have it

    @functools.wraps(step)  # pipelines look at which arguments it takes
    def steady(self: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **options: Any) -> Any:
        found = step(self, model_output.float(), timestep, sample.float(), *args, **options)
        if isinstance(found, tuple):
            return _as_dtype(found, sample.dtype)
        found.prev_sample = found.prev_sample.to(sample.dtype)
        return found

    return type(kind.__name__, (kind,), {"step": steady, "__module__": kind.__module__})


def _as_dtype(found: Any, dtype: Any) -> Any:
    """The latents in a dtype; of several things the first are the latents."""
    if isinstance(found, tuple):
        return (found[0].to(dtype), *found[1:])
    return found.to(dtype)
