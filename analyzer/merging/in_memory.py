"""The tensors that a merge would write, one by one in memory: for who wants to run the model, not keep it.

The bytes are those of `analyzer.merge.merge`, by the same steps. Knows no files and no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.blending import open_blender
from analyzer.merging.carrying_out import blender_threads, carry_out_one
from analyzer.merging.inputs import Inputs
from analyzer.merging.steps import Step, steps_of
from analyzer.merging.surveying import survey_for, survey_steps
from analyzer.merging.worker import Worker
from analyzer.methods import METHODS
from analyzer.model_folder import OutputFile
from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan

# A's key, the safetensors name of the dtype ("F16"), the shape, and the bytes: little-endian, row-major.
MergedTensor: TypeAlias = tuple[str, str, tuple[int, ...], NDArray[np.uint8]]


def merged_tensors(
    inputs: Inputs,
    plan: Plan,
    recipe: Recipe,
    *,
    keys: Collection[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Iterator[MergedTensor]:
    """What the merge comes to, a tensor at a time in the plan's order; each has memory of its own.

    `keys` are those wanted, of the plan's (default: all). One tensor is computed when it is asked for, so
    that no more than one is held. What a file would hold encoded (scaled fp8) comes as those codes. Raises
    CheckpointError if an input ends early, DeviceError for a device that is not there.
    """
    every = [action.key for action in plan.actions]
    wanted = set(every) if keys is None else set(keys)
    assert wanted <= set(every), "keys that the plan does not have"
    files = [OutputFile("", tuple(every), plan.metadata)]
    all_steps = steps_of(files, inputs, plan, recipe)
    steps = [step for step in all_steps if step.action.key in wanted]
    blender = open_blender(device) if not all(step.copies for step in steps) else None
    threads = blender_threads(blender, threads)
    known: Mapping[str, Any] = {}
    # Some methods ask what all tensors are like, the unwanted ones too.
    survey, surveyed = survey_for(recipe, all_steps)
    if blender is not None and survey is not None and surveyed:
        known = survey_steps(survey, surveyed, blender, threads=threads)
    for step in steps:
        memory = _Memory(step)
        worker = Worker(METHODS[recipe.method], known, blender, [memory])
        carry_out_one(replace(step, index=0), worker, blender, threads=threads)
        yield step.action.key, step.entry.dtype, step.entry.shape, memory.data


class _Memory:
    """Takes the bytes of one tensor."""

    def __init__(self, step: Step) -> None:
        self.data = np.empty(step.entry.nbytes, np.uint8)

    def write(self, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Copy bytes of the tensor to where they belong."""
        assert index == 0
        self.data[offset : offset + len(data)] = data

    def position(self, index: int, offset: int = 0) -> int:
        """The byte's place in the tensor."""
        assert index == 0
        return offset
