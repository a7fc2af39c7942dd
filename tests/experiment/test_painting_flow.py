"""Painting with a model of another build: a transformer, a flow, packed latents, two text encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.painting import open_painter
from analyzer.experiment.pipelines import denoiser, is_pocket, load_pipeline, native_size
from analyzer.experiment.quiet import quiet
from analyzer.experiment.records import A, B, Column, Conditions, Shown
from analyzer.experiment.samplers import default_sampler
from analyzer.merge import plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

CONDITIONS = Conditions("a woman", "", (1,), 2, "euler", 3.5, 16, 24, "cpu", "fp32", 1.0)


def flux() -> Any:
    """A pipeline of Flux with tiny random networks."""
    import diffusers
    import transformers
    from tokenizers import Tokenizer, models

    from analyzer.pocket import folders

    words = folders.tokenizer()
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    clip = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        **ends,
    )
    t5 = transformers.T5Config(vocab_size=4, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=transformers.CLIPTextModel(clip),
        tokenizer=words,
        text_encoder_2=transformers.T5EncoderModel(t5),
        tokenizer_2=transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<pad>": 2}, unk_token="<unk>")),
            pad_token="<pad>",
            unk_token="<unk>",
            model_max_length=8,
        ),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
        ),
        vae=diffusers.AutoencoderKL(
            sample_size=16,
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=2,
            norm_num_groups=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.0609,
            scaling_factor=1.5035,
        ),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two relatives."""
    root = tmp_path_factory.mktemp("flux")
    torch.manual_seed(1)
    with quiet():
        pipeline = flux()
        pipeline.save_pretrained(root / "a")
        with torch.no_grad():
            for network in (pipeline.transformer, pipeline.text_encoder_2, pipeline.vae):
                for value in network.parameters():
                    value += 0.05 * torch.randn(value.shape)
        pipeline.save_pretrained(root / "b")
    return root / "a", root / "b"


def paint(inputs: Inputs, column: Column) -> Shown:
    """One picture of a column, by a pipeline of its own."""
    painter = open_painter(inputs, CONDITIONS, pipeline=load_pipeline(inputs.a, dtype="fp32", device="cpu"))
    painter.take(column)
    shown = painter.show(1)
    painter.close()
    return shown


def test_column_b_paints_what_b_paints(folders: tuple[Path, Path]) -> None:
    """All of B inside A's pipeline: the very pictures of B's own pipeline."""
    with open_checkpoint(folders[0]) as a, open_checkpoint(folders[1]) as b:
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


def test_what_the_pipeline_says_of_itself(folders: tuple[Path, Path]) -> None:
    """Its size, its denoiser, its samplers; and its dtype, whatever diffusers makes of it."""
    with open_checkpoint(folders[0]) as a:
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
