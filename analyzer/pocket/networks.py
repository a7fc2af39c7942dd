"""The networks of the pocket models: those of Stable Diffusion 1.5, narrow. Knows no files and no training.

Widths and counts stand here and nowhere else. What `StableDiffusionPipeline` reads from its folders (configs,
vocabulary) is made from them by `analyzer.pocket.folders`.
"""

from __future__ import annotations

from typing import Any

LATENT_CHANNELS = 4
SAMPLE_SIZE = 8  # of the latents; a picture has eight times as many pixels a side
TEXT_WIDTH = 64
TOKENS = 32  # that a prompt is padded or cut to; the position table has CLIP's 77
SCALING_FACTOR = 0.18215  # latents times this have a variance of about one, as in Stable Diffusion 1.x

UNET: dict[str, Any] = {
    "sample_size": SAMPLE_SIZE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": [32, 48, 64, 64],
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 8,  # heads, in diffusers' naming of the time
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE: dict[str, Any] = {
    "sample_size": 8 * SAMPLE_SIZE,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": [16, 24, 32, 32],
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": SCALING_FACTOR,
}
TEXT: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": TEXT_WIDTH,
    "hidden_act": "quick_gelu",
}
SCHEDULE: dict[str, Any] = {  # as Stable Diffusion 1.5's own scheduler_config.json has it
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def unet() -> Any:
    """A `UNet2DConditionModel` with random weights: 686 tensors, 2.8 million parameters."""
    from diffusers import UNet2DConditionModel

    build: Any = UNet2DConditionModel
    return build(**UNET)


def vae() -> Any:
    """An `AutoencoderKL` with random weights: 248 tensors, 0.4 million parameters."""
    from diffusers import AutoencoderKL

    build: Any = AutoencoderKL
    return build(**VAE)


def text_encoder(vocabulary: int) -> Any:
    """A `CLIPTextModel` with random weights for that many tokens: 196 tensors, 0.4 million parameters.

    The two last tokens begin and end a text, as CLIP's do.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    build: Any = CLIPTextConfig
    first, last = vocabulary - 2, vocabulary - 1
    return CLIPTextModel(
        build(vocab_size=vocabulary, bos_token_id=first, eos_token_id=last, pad_token_id=last, **TEXT)
    )
