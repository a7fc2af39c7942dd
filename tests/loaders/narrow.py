"""Narrow models with all layers of the real ones, built by diffusers and transformers from a seed.

Also the single files that they would be in the layouts of the original codes, whose names ComfyUI, the WebUI
and diffusers' single-file loader expect. Tests import this module; it needs both libraries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from analyzer.layouts import original

Tensors = dict[str, torch.Tensor]

WORDS = ("a", "b", "c", "cat")


def sd1(folder: Path, *, seed: int) -> Path:
    """Stable Diffusion 1.5 with 16 channels where the real one has 320, and all of its layers but CLIP's."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32, 32),
        norm_num_groups=8,
        layers_per_block=2,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=_vae(scale=0.18215),
        text_encoder=CLIPTextModel(_clip(hidden=16)),
        tokenizer=_tokenizer(folder.parent),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def sdxl(folder: Path, *, seed: int) -> Path:
    """Stable Diffusion XL with 16 channels where the real one has 320, and all of its layers but depth."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=48,  # those of both text encoders
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(scale=0.13025),
        text_encoder=CLIPTextModel(_clip(hidden=16)),
        text_encoder_2=CLIPTextModelWithProjection(_clip(hidden=32, hidden_act="gelu", projection_dim=32)),
        tokenizer=_tokenizer(folder.parent),
        tokenizer_2=_tokenizer(folder.parent),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def networks(pipeline: object) -> dict[str, Tensors]:
    """The tensors of every sub-model of a pipeline that was loaded."""
    found = {}
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        module = getattr(pipeline, name, None)
        if isinstance(module, torch.nn.Module):
            found[name] = dict(module.state_dict())
    return found


def saved(folder: Path) -> dict[str, Tensors]:
    """The tensors of every sub-model as its files in a diffusers folder hold them."""
    return {
        part.name: {k: v for file in sorted(part.glob("*.safetensors")) for k, v in load_file(file).items()}
        for part in sorted(folder.iterdir())
        if part.is_dir() and any(part.glob("*.safetensors"))
    }


def single_sd1(folder: Path) -> Tensors:
    """The same weights under the names of the original LDM code."""
    parts = saved(folder)
    clip = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in parts["text_encoder"].items()}
    prefix = "cond_stage_model.transformer."
    return {
        **_ldm(parts["unet"], "model.diffusion_model."),
        **_ldm(parts["vae"], "first_stage_model."),
        **{prefix + name: tensor for name, tensor in clip.items()},
        f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None],
        "alphas_cumprod": torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0),
    }


def single_sdxl(folder: Path) -> Tensors:
    """The same weights under the names of the original SGM code, the second text encoder as OpenCLIP's."""
    parts = saved(folder)
    clip = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in parts["text_encoder"].items()}
    prefix = "conditioner.embedders.0.transformer."
    return {
        **_ldm(parts["unet"], "model.diffusion_model."),
        **_ldm(parts["vae"], "first_stage_model."),
        **{prefix + name: tensor for name, tensor in clip.items()},
        f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None],
        **_open_clip(parts["text_encoder_2"], "conditioner.embedders.1.model."),
    }


def write(path: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> Path:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, {"format": "pt", **metadata})
    return path


def cast(tensors: Tensors, dtype_of: Callable[[str], torch.dtype]) -> Tensors:
    """Floating-point tensors in other dtypes, by key."""
    return {k: v.to(dtype_of(k)) if v.is_floating_point() else v for k, v in tensors.items()}


def _vae(*, scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        scaling_factor=scale,
    )


def _clip(*, hidden: int, **more: object) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 + len(WORDS),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **more,
    )


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Knows a few words; the file format is CLIP's."""
    words = ["<|startoftext|>", "<|endoftext|>", *(f"{word}</w>" for word in WORDS)]
    source = folder / "tokenizer-source"
    source.mkdir(parents=True, exist_ok=True)
    (source / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=77)


def _ldm(tensors: Tensors, prefix: str) -> Tensors:
    """A U-Net or a VAE under its original names; the VAE's attention is made of convolutions there."""
    names = original(list(tensors))
    assert len(names) == len(tensors), sorted(tensors.keys() - names.keys())
    renamed = {}
    for key, tensor in tensors.items():
        name = names[key]
        convolution = prefix.startswith("first_stage") and ".attn_1." in name and tensor.ndim == 2
        renamed[prefix + name] = tensor[:, :, None, None] if convolution else tensor
    return renamed


def _open_clip(tensors: Tensors, prefix: str) -> Tensors:
    """A CLIP text encoder as OpenCLIP has it: q, k and v fused, the projection transposed."""
    result = {
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": tensors["text_model.final_layer_norm.weight"],
        "ln_final.bias": tensors["text_model.final_layer_norm.bias"],
        "text_projection": tensors["text_projection.weight"].T,
        "logit_scale": torch.tensor(4.6055),
    }
    for layer in range(sum(key.endswith("layer_norm1.bias") for key in tensors)):
        one, other = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            rows = [tensors[f"{one}.self_attn.{x}_proj.{end}"] for x in "qkv"]
            result[f"{other}.attn.in_proj_{end}"] = torch.cat(rows)
            for name, new in _OPEN_CLIP.items():
                result[f"{other}.{new}.{end}"] = tensors[f"{one}.{name}.{end}"]
    return {prefix + key: tensor for key, tensor in result.items()}


_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
