"""The plain values of an experiment, and what it asks of that which it shows. Knows no torch and no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analyzer.recipes.recipe import Recipe
from analyzer.records import Plan

A, B = "A", "B"  # the labels of the first two columns


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which pictures are painted; the same for every column."""

    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    steps: int
    sampler: str  # a name of `analyzer.experiment.samplers.SAMPLERS`
    cfg: float  # scale of classifier-free guidance; 1 is none
    width: int  # pixels
    height: int
    device: str  # "cpu", "cuda:0", "mps"
    dtype: str  # of weights and activations: "fp32", "fp16", "bf16"
    alpha: float  # of what a column takes from B


@dataclass(frozen=True, slots=True)
class Column:
    """One model of the grid: A with what a selector takes from B; or A, or B, themselves."""

    label: str  # "A", "B", or the selector as it was given: "attn1,attn2"
    selector: str | None  # as the merge is given it: "unet,attn1"; None for A and B
    recipe: Recipe | None  # None for A
    plan: Plan | None  # what the recipe comes to; None for A
    keys: tuple[str, ...] = ()  # of A, in its order: what is taken from B


@dataclass(frozen=True, slots=True)
class Shown:
    """What one model shows for one seed."""

    output: NDArray[np.float32]  # the final latents, (channels × height × width), or a probe's output
    pixels: NDArray[np.uint8] | None  # (height × width × 3), RGB; None of a probe
    seconds: float


class Subject(Protocol):
    """A pair of models in memory, of which one mixture at a time can be looked at."""

    def take(self, column: Column) -> None:
        """Hold the weights of this column; every tensor that it does not name is A's, bit for bit."""

    def show(self, seed: int) -> Shown:
        """Paint, or probe, with the weights that are held."""

    def close(self) -> None:
        """Let go of the models."""
