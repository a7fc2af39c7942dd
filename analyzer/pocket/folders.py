"""The pocket models as files: one in the original layout (LDM), or a diffusers folder rebuilt from it.

Knows names and configs; the widths are those of `analyzer.pocket.networks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.layouts import original
from analyzer.pocket import networks
from analyzer.pocket.words import END, START, byte_pairs

_UNET, _VAE, _TEXT = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.text_model.",
)


def tokenizer() -> Any:
    """CLIP's tokenizer with the pocket models' own words."""
    from transformers import CLIPTokenizer

    vocabulary, merges = byte_pairs()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=networks.TOKENS)


def write_configs(folder: Path) -> None:
    """A diffusers folder without weights: what `from_single_file(…, config=folder)` asks for."""
    import diffusers
    import transformers

    scheduler = diffusers.PNDMScheduler(**networks.SCHEDULE)
    scheduler.save_pretrained(folder / "scheduler")
    words = tokenizer()
    words.save_pretrained(folder / "tokenizer")
    networks.unet().save_config(folder / "unet")
    networks.vae().save_config(folder / "vae")
    networks.text_encoder(len(words)).config.save_pretrained(folder / "text_encoder")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": [transformers.__name__, "CLIPTextModel"],
        "tokenizer": [transformers.__name__, "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def single_file(unet: Any, text_encoder: Any, vae: Any, path: Path) -> None:
    """Write three networks into one fp16 file with the names of Stable Diffusion 1.x, its tables included."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: value.half() for name, value in _ldm(unet, text_encoder, vae).items()}
    tensors[f"{_TEXT}embeddings.position_ids"] = torch.arange(77)[None]
    tensors |= _tables()
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, path, metadata={"format": "pt"})


def _ldm(unet: Any, text_encoder: Any, vae: Any) -> dict[str, Any]:
    """The weights of the three networks by their names in the original layout."""
    found = {}
    for prefix, network in ((_UNET, unet), (_VAE, vae)):
        own = network.state_dict()
        names = original(own)
        for name, value in own.items():
            old = names.get(name, name)
            if ".attn_1." in old and value.ndim == 2:  # the original's projections are convolutions of 1 × 1
                value = value[:, :, None, None]
            found[prefix + old] = value
    for name, value in text_encoder.state_dict().items():
        found[_TEXT + name.removeprefix("text_model.")] = value
    return found


def _tables() -> Mapping[str, Any]:
    """The tables of the noise schedule that original files carry, fp32."""
    import torch

    s = networks.SCHEDULE
    betas = (
        torch.linspace(
            s["beta_start"] ** 0.5, s["beta_end"] ** 0.5, s["num_train_timesteps"], dtype=torch.float64
        )
        ** 2
    )
    cumulated = torch.cumprod(1 - betas, 0)
    before = torch.cat((torch.ones(1, dtype=torch.float64), cumulated[:-1]))
    variance = betas * (1 - before) / (1 - cumulated)
    tables = {
        "betas": betas,
        "alphas_cumprod": cumulated,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": cumulated.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulated).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulated).log(),
        "sqrt_recip_alphas_cumprod": (1 / cumulated).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / cumulated - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - cumulated),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - cumulated),
    }
    return {name: table.float() for name, table in tables.items()}


_ = START, END
