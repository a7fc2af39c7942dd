"""Painting with a model of another build: a transformer, a flow, packed latents, two text encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.painting import open_painter
from analyzer.experiment.pipelines import denoiser, is_pocket, load_pipeline, native_size
from analyzer.experiment.records import A, B, Column, Conditions, Shown
from analyzer.experiment.samplers import default_sampler
from analyzer.merge import plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

CONDITIONS = Conditions("a woman", "", (1,), 2, "euler", 3.5, 16, 24, "cpu", "fp32", 1.0)


def paint(inputs: Inputs, column: Column) -> Shown:
    """One picture of a column, by a pipeline of its own."""
    painter = open_painter(inputs, CONDITIONS, pipeline=load_pipeline(inputs.a, dtype="fp32", device="cpu"))
    painter.take(column)
    shown = painter.show(1)
    painter.close()
    return shown


def test_column_b_paints_what_b_paints(flux_pair: tuple[Path, Path]) -> None:
    """All of B inside A's pipeline: the very pictures of B's own pipeline."""
    with open_checkpoint(flux_pair[0]) as a, open_checkpoint(flux_pair[1]) as b:
        assert not is_pocket(a)
        inputs = Inputs(a, b)
        recipe = Recipe(alpha=1.0)
        mixed = paint(inputs, Column(B, None, recipe, plan_merge(inputs, recipe)))
        own = paint(Inputs(b, a), Column(A, None, None, None))
        other = paint(inputs, Column(A, None, None, None))
    assert (6 * 4, 2 * 2 * 2) == own.output.shape  # patches of 2 × 2 latents of two channels
    assert (24, 16, 3) == own.pixels.shape
    np.testing.assert_array_equal(own.output, mixed.output)
    np.testing.assert_array_equal(own.pixels, mixed.pixels)
    assert not np.array_equal(own.output, other.output)


def test_what_the_pipeline_says_of_itself(flux_pair: tuple[Path, Path]) -> None:
    """Its size, its denoiser, its samplers; and its dtype, whatever diffusers makes of it."""
    with open_checkpoint(flux_pair[0]) as a:
        pipeline = load_pipeline(a, dtype="bf16", device="cpu")
        assert (256, 256) == native_size(pipeline)
        assert pipeline.transformer is denoiser(pipeline)
        assert "euler" == default_sampler(pipeline)
        assert torch.bfloat16 == next(denoiser(pipeline).parameters()).dtype
        narrow = replace(CONDITIONS, width=18, dtype="bf16")
        with pytest.raises(AnalyzerError, match="multiples of 4, such as 16x24"):
            open_painter(Inputs(a, a), narrow, pipeline=pipeline)
        ancestral = replace(CONDITIONS, sampler="euler_a", dtype="bf16")
        with pytest.raises(AnalyzerError, match="follows a flow"):
            open_painter(Inputs(a, a), ancestral, pipeline=pipeline)
