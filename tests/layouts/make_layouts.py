"""Write `*.layout` files: from the classes of transformers and diffusers, or from any list of keys.

    python tests/layouts/make_layouts.py [NAME …]    the layouts of MODELS below, or some of them
    python tests/layouts/make_layouts.py --compress  the notation of lines "key, tab, shape, tab, dtype"

The first form needs both libraries; it builds their models without values, on torch's meta device, with the
published configurations. Where published files have other names than the classes, `renamed` says which. The
layouts that are not in MODELS (single files in the names of the original repositories) came from lists of
keys. No test imports this module.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from notation import DIGITS, Kind, compress, expand

FOLDER = Path(__file__).resolve().parent

# --- Layouts and files ---


def save(
    name: str, about: str, layout: Mapping[str, Kind], *, averaged: Mapping[str, Kind] | None = None
) -> None:
    """Write one layout, below what is to be said about it."""
    lines = [f"# {line}" for line in about.strip().splitlines()] + compress(layout)
    if averaged:
        lines += compress(averaged, token=DIGITS)
    (FOLDER / f"{name}.layout").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(lines: Iterable[str]) -> dict[str, Kind]:
    layout = {}
    for line in lines:
        key, shape, dtype = line.rstrip("\n").split("\t")
        layout[key] = (dtype, tuple(int(n) for n in shape.split("x") if n))
    return layout


# --- The models ---


@dataclass(frozen=True, slots=True)
class Model:
    """One published model: its class, its configuration, and how its file differs from the class."""

    about: str
    cls: str
    config: Mapping[str, Any] = field(default_factory=dict)  # what differs from the class's defaults
    dtype: str = "BF16"
    renamed: Sequence[tuple[str, str]] = ()  # pattern and replacement, in this order
    left_out: str = r"^$"  # keys of the class that the file lacks
    added: Mapping[str, Kind] = field(default_factory=dict)  # in notation: keys that the class lacks
    stored: Callable[[dict[str, Kind]], dict[str, Kind]] = dict  # how the file holds them: quantised


def build(model: Model) -> dict[str, Kind]:
    """The keys of a published file, out of a class that has been given no values."""
    import diffusers
    import torch
    import transformers

    with torch.device("meta"):
        if hasattr(transformers, model.cls):
            cls = getattr(transformers, model.cls)
            module = cls(cls.config_class(**model.config))
        else:
            module = getattr(diffusers, model.cls)(**model.config)
    layout: dict[str, Kind] = {}
    for key, tensor in module.state_dict().items():
        if re.search(model.left_out, key):
            continue
        for pattern, replacement in model.renamed:
            key = re.sub(pattern, replacement, key)
        dtype = model.dtype if tensor.is_floating_point() else "I64"
        layout[key] = (dtype, tuple(tensor.shape))
    for pattern, kind in model.added.items():
        layout |= dict.fromkeys(expand(pattern), kind)
    return model.stored(layout)


def _fp8_in_blocks(layout: dict[str, Kind]) -> dict[str, Kind]:
    """DeepSeek's: a number for every 128 x 128 elements of a linear layer."""
    stored: dict[str, Kind] = {}
    for key, (dtype, shape) in layout.items():
        stored[key] = (dtype, shape)
        if re.search(r"(?<!eh)_proj(_with_mqa)?\.weight$", key):
            stored[key] = ("F8_E4M3", shape)
            stored[f"{key}_scale_inv"] = ("F32", tuple(-(-n // 128) for n in shape))
        elif key.endswith("e_score_correction_bias"):
            stored[key] = ("F32", shape)
    return stored


def _with_next_token(layout: dict[str, Kind]) -> dict[str, Kind]:
    """DeepSeek V3 predicts a second token with a layer more, behind the last."""
    last = {k.replace("layers.60.", "layers.61."): kind for k, kind in layout.items() if "layers.60." in k}
    embedding = layout["model.embed_tokens.weight"]
    width = embedding[1][1]
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        last[f"model.layers.61.{norm}.weight"] = ("BF16", (width,))
    last["model.layers.61.eh_proj.weight"] = ("BF16", (width, 2 * width))
    last["model.layers.61.embed_tokens.weight"] = embedding
    last["model.layers.61.shared_head.head.weight"] = embedding
    return _fp8_in_blocks(layout | last)


def _fp8_in_channels(layout: dict[str, Kind]) -> dict[str, Kind]:
    """What compressed-tensors stores: a number for every row of a linear layer."""
    stored = dict(layout)
    for key, (_, shape) in layout.items():
        if key.endswith("_proj.weight"):
            stored[key] = ("F8_E4M3", shape)
            stored[f"{key}_scale"] = ("BF16", (shape[0], 1))
    return stored


def _mxfp4(layout: dict[str, Kind]) -> dict[str, Kind]:
    """The experts of gpt-oss: 32 numbers of 4 bits and an exponent, rows first."""
    stored: dict[str, Kind] = {}
    for key, (dtype, shape) in layout.items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[key] = (dtype, shape)
            continue
        experts, inner, outer = shape
        stored[f"{key}_blocks"] = ("U8", (experts, outer, inner // 32, 16))
        stored[f"{key}_scales"] = ("U8", (experts, outer, inner // 32))
    return stored


def _gguf(layout: dict[str, Kind]) -> dict[str, Kind]:
    """The names and types of a Q4_K_M file: llama.cpp spends more bits on some values and outputs."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "mlp.down_proj": "ffn_down",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
    }
    stored: dict[str, Kind] = {}
    for key, (_, shape) in layout.items():
        for old, new in names.items():
            key = key.replace(old, new)
        layer = int(key.split(".")[1]) if key.startswith("blk.") else 0
        more = layer < 4 or layer >= 28 or (layer - 4) % 3 == 2  # use_more_bits, llama.cpp, for 32 layers
        fine = key == "output.weight" or (more and key.endswith(("attn_v.weight", "ffn_down.weight")))
        stored[key] = ("F32" if len(shape) == 1 else "Q6_K" if fine else "Q4_K", shape)
    return stored


LLAMA = "LlamaForCausalLM"
LLAMA31 = {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768, "num_attention_heads": 12}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER_UNET = SDXL_UNET | {
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}
SD_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pos_embed_max_size": 192,
}
CASCADE = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 1,
    "conditioning_dim": 2048,
    "block_out_channels": (2048, 2048),
    "num_attention_heads": (32, 32),
    "down_num_layers_per_block": (8, 24),
    "up_num_layers_per_block": (24, 8),
    "down_blocks_repeat_mappers": (1, 1),
    "up_blocks_repeat_mappers": (1, 1),
    "block_types_per_layer": (("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),) * 2,
    "clip_text_in_channels": 1280,
    "clip_text_pooled_in_channels": 1280,
    "clip_image_in_channels": 768,
    "kernel_size": 3,
    "dropout": (0.1, 0.1),
    "self_attn": True,
    "timestep_conditioning_type": ("sca", "crp"),
    "switch_level": (False,),
}
T5_BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
QWEN2_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
OLD_MULTIMODAL = [  # transformers moved these in 4.52; the files kept the names that they had
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.(vision_tower|vision_model|multi_modal_projector)\.", r"\1."),
    (r"^lm_head\.", "language_model.lm_head."),
]
TIED = r"^lm_head\.weight$"

MODELS: Mapping[str, Model] = {
    # diffusers, one file for each sub-model
    "sd15-unet-diffusers": Model(
        "stable-diffusion-v1-5, unet (diffusers, UNet2DConditionModel).",
        "UNet2DConditionModel",
        {"cross_attention_dim": 768},
        "F32",
    ),
    "sd21-unet-diffusers": Model(
        "stable-diffusion-2-1, unet (diffusers, UNet2DConditionModel): proj_in and proj_out are linear.",
        "UNet2DConditionModel",
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        "F32",
    ),
    "sdxl-unet-diffusers": Model(
        "stable-diffusion-xl-base-1.0, unet (diffusers, UNet2DConditionModel).",
        "UNet2DConditionModel",
        SDXL_UNET,
        "F16",
    ),
    "sdxl-refiner-unet-diffusers": Model(
        "stable-diffusion-xl-refiner-1.0, unet (diffusers, UNet2DConditionModel).",
        "UNet2DConditionModel",
        REFINER_UNET,
        "F16",
    ),
    "flux-dev-transformer-diffusers": Model(
        "FLUX.1-dev, transformer (diffusers, FluxTransformer2DModel).",
        "FluxTransformer2DModel",
        {"guidance_embeds": True},
    ),
    "flux-schnell-transformer-diffusers": Model(
        "FLUX.1-schnell, transformer (diffusers, FluxTransformer2DModel).", "FluxTransformer2DModel"
    ),
    "sd3-transformer-diffusers": Model(
        "stable-diffusion-3-medium-diffusers, transformer (diffusers, SD3Transformer2DModel).",
        "SD3Transformer2DModel",
        SD3,
        "F16",
    ),
    "sd35-large-transformer-diffusers": Model(
        "stable-diffusion-3.5-large, transformer (diffusers, SD3Transformer2DModel).",
        "SD3Transformer2DModel",
        SD3
        | {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "qk_norm": "rms_norm",
        },
    ),
    "pixart-sigma-transformer-diffusers": Model(
        "PixArt-Sigma-XL-2-1024-MS, transformer (diffusers, PixArtTransformer2DModel).",
        "PixArtTransformer2DModel",
        {"sample_size": 128},
        "F32",
    ),
    "wan21-t2v-transformer-diffusers": Model(
        "Wan2.1-T2V-14B-Diffusers, transformer (diffusers, WanTransformer3DModel).",
        "WanTransformer3DModel",
        dtype="F32",
    ),
    "qwen-image-transformer-diffusers": Model(
        "Qwen-Image, transformer (diffusers, QwenImageTransformer2DModel).", "QwenImageTransformer2DModel"
    ),
    "z-image-transformer-diffusers": Model(
        "Z-Image-Turbo, transformer (diffusers, ZImageTransformer2DModel).", "ZImageTransformer2DModel"
    ),
    "stable-cascade-prior-diffusers": Model(
        "stable-cascade-prior, prior (diffusers, StableCascadeUNet): stage C.", "StableCascadeUNet", CASCADE
    ),
    "lumina2-transformer-diffusers": Model(
        "Lumina-Image-2.0, transformer (diffusers, Lumina2Transformer2DModel).",
        "Lumina2Transformer2DModel",
        {"cap_feat_dim": 2304},
    ),
    "vae-diffusers": Model(
        "sd-vae-ft-mse and the VAE of Stable Diffusion (diffusers, AutoencoderKL), as files are saved today.",
        "AutoencoderKL",
        SD_VAE,
        "F32",
    ),
    "vae-diffusers-2022": Model(
        "stable-diffusion-v1-5, vae, as its file was saved in 2022: the attention has other names\n"
        "(diffusers, AttentionBlock until 0.17; models/modeling_utils.py still renames them).",
        "AutoencoderKL",
        SD_VAE,
        "F32",
        renamed=[
            (r"\.to_q\.", ".query."),
            (r"\.to_k\.", ".key."),
            (r"\.to_v\.", ".value."),
            (r"\.to_out\.0\.", ".proj_attn."),
        ],
    ),
    "vae-flux-diffusers": Model(
        "FLUX.1-dev, vae (diffusers, AutoencoderKL): 16 latent channels, no quant_conv.",
        "AutoencoderKL",
        SD_VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    ),
    "taesd-diffusers": Model(
        "madebyollin/taesd (diffusers, AutoencoderTiny).", "AutoencoderTiny", dtype="F16"
    ),
    "wan-vae": Model(
        "Wan2.1-T2V-14B-Diffusers, vae (diffusers, AutoencoderKLWan).", "AutoencoderKLWan", dtype="F32"
    ),
    # encoders of text and pictures
    "clip-l-transformers": Model(
        "CLIP ViT-L/14, text_encoder of stable-diffusion-v1-5 (transformers, CLIPTextModel).",
        "CLIPTextModel",
        CLIP_L,
        "F32",
        added={"text_model.embeddings.position_ids": ("I64", (1, 77))},
    ),
    "openclip-h-transformers": Model(
        "OpenCLIP ViT-H, text_encoder of stable-diffusion-2-1 (CLIPTextModel): 23 of 24 layers.",
        "CLIPTextModel",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
        "F32",
    ),
    "clip-g-transformers": Model(
        "OpenCLIP ViT-bigG, text_encoder_2 of stable-diffusion-xl-base-1.0 (CLIPTextModelWithProjection).",
        "CLIPTextModelWithProjection",
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "projection_dim": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
        },
        "F16",
    ),
    "clip-vit-full": Model(
        "openai/clip-vit-large-patch14, model.safetensors (transformers, CLIPModel).",
        "CLIPModel",
        {
            "projection_dim": 768,
            "text_config": CLIP_L,
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 224,
            },
        },
        "F32",
        added={
            "text_model.embeddings.position_ids": ("I64", (1, 77)),
            "vision_model.embeddings.position_ids": ("I64", (1, 257)),
        },
    ),
    "t5-xxl-encoder": Model(
        "T5 XXL 1.1, t5xxl_fp16.safetensors (comfyanonymous/flux_text_encoders; T5EncoderModel).",
        "T5EncoderModel",
        {
            "d_model": 4096,
            "d_ff": 10240,
            "num_layers": 24,
            "num_heads": 64,
            "feed_forward_proj": "gated-gelu",
        },
        "F16",
    ),
    "t5-base": Model(
        "google-t5/t5-base, pytorch_model.bin (transformers, T5ForConditionalGeneration): the embeddings\n"
        "stand there three times, and the head, which is tied, not at all.",
        "T5ForConditionalGeneration",
        T5_BASE,
        "F32",
        left_out=TIED,
    ),
    "siglip": Model(
        "google/siglip-base-patch16-224 (transformers, SiglipModel).", "SiglipModel", dtype="F32"
    ),
    "bert-base": Model(
        "google-bert/bert-base-uncased (transformers, BertForPreTraining): gamma and beta, as in 2018.",
        "BertForPreTraining",
        dtype="F32",
        renamed=[(r"LayerNorm\.weight$", "LayerNorm.gamma"), (r"LayerNorm\.bias$", "LayerNorm.beta")],
        left_out=r"^cls\.predictions\.decoder\.",
    ),
    "bert-base-bare": Model(
        "BAAI/bge-base-en-v1.5 (transformers, BertModel): no prefix, and position_ids.",
        "BertModel",
        dtype="F32",
        added={"embeddings.position_ids": ("I64", (1, 512))},
    ),
    "roberta-base": Model(
        "FacebookAI/roberta-base (transformers, RobertaForMaskedLM, with the pooler of 2019).",
        "RobertaForMaskedLM",
        {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        "F32",
        left_out=r"^lm_head\.decoder\.",
        added={
            "roberta.embeddings.position_ids": ("I64", (1, 514)),
            "roberta.pooler.dense.weight": ("F32", (768, 768)),
            "roberta.pooler.dense.bias": ("F32", (768,)),
        },
    ),
    "modernbert": Model(
        "answerdotai/ModernBERT-base (transformers, ModernBertForMaskedLM): Wqkv, and Wi of gate and value.",
        "ModernBertForMaskedLM",
        dtype="F32",
        left_out=r"^decoder\.weight$",
    ),
    "vit-base": Model(
        "google/vit-base-patch16-224 (transformers, ViTForImageClassification).",
        "ViTForImageClassification",
        {"num_labels": 1000},
        "F32",
    ),
    "whisper-small": Model(
        "openai/whisper-small (transformers, WhisperForConditionalGeneration).",
        "WhisperForConditionalGeneration",
        {
            "d_model": 768,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
        "F32",
        left_out=r"^proj_out\.",
    ),
    # language models
    "llama2-7b": Model(
        "meta-llama/Llama-2-7b-hf (transformers, LlamaForCausalLM), with the tables that files of 2023 hold.",
        LLAMA,
        dtype="F16",
        added={"model.layers.{0..31}.self_attn.rotary_emb.inv_freq": ("F16", (64,))},
    ),
    "llama31-8b": Model(
        "meta-llama/Llama-3.1-8B (transformers, LlamaForCausalLM).",
        LLAMA,
        LLAMA31,
    ),
    "llama31-8b-fp8-compressed-tensors": Model(
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic (compressed-tensors): a scale for every row.",
        LLAMA,
        LLAMA31,
        stored=_fp8_in_channels,
    ),
    "gguf-llama": Model(
        "llama-2-7b.Q4_K_M.gguf (ggml-org/llama.cpp, gguf-py/gguf/constants.py): names and block types of\n"
        "GGUF, with the axes in the order of torch.",
        LLAMA,
        stored=_gguf,
    ),
    "llama32-1b": Model(
        "meta-llama/Llama-3.2-1B (transformers, LlamaForCausalLM): lm_head is tied, and not there.",
        LLAMA,
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
        },
        left_out=TIED,
    ),
    "mistral-7b": Model(
        "mistralai/Mistral-7B-v0.1 (transformers, MistralForCausalLM).", "MistralForCausalLM"
    ),
    "mixtral-8x7b": Model(
        "mistralai/Mixtral-8x7B-v0.1 (transformers, MixtralForCausalLM).", "MixtralForCausalLM"
    ),
    "qwen2-7b": Model("Qwen/Qwen2-7B (transformers, Qwen2ForCausalLM).", "Qwen2ForCausalLM", QWEN2_7B),
    "qwen2-moe-57b": Model(
        "Qwen/Qwen2-57B-A14B (transformers, Qwen2MoeForCausalLM): a shared expert, with a gate.",
        "Qwen2MoeForCausalLM",
        QWEN2_7B
        | {
            "vocab_size": 151936,
            "moe_intermediate_size": 2560,
            "shared_expert_intermediate_size": 20480,
            "num_experts": 64,
            "num_experts_per_tok": 8,
        },
    ),
    "qwen3-8b": Model(
        "Qwen/Qwen3-8B (transformers, Qwen3ForCausalLM).",
        "Qwen3ForCausalLM",
        {"intermediate_size": 12288, "num_hidden_layers": 36, "num_key_value_heads": 8},
    ),
    "qwen3-moe-30b": Model(
        "Qwen/Qwen3-30B-A3B (transformers, Qwen3MoeForCausalLM).",
        "Qwen3MoeForCausalLM",
        {"num_hidden_layers": 48, "num_key_value_heads": 4, "head_dim": 128},
    ),
    "qwen25-vl-7b": Model(
        "Qwen/Qwen2.5-VL-7B-Instruct (transformers, Qwen2_5_VLForConditionalGeneration).",
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": QWEN2_7B,
            "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584, "intermediate_size": 3420},
            "tie_word_embeddings": False,
        },
        renamed=[(r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")],
    ),
    "gemma2-9b": Model(
        "google/gemma-2-9b-it (transformers, Gemma2ForCausalLM): four norms a layer, no lm_head.",
        "Gemma2ForCausalLM",
        {
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
        },
        left_out=TIED,
    ),
    "gemma3-1b": Model(
        "google/gemma-3-1b-it (transformers, Gemma3ForCausalLM): text only.",
        "Gemma3ForCausalLM",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
        },
        left_out=TIED,
    ),
    "gemma3-27b": Model(
        "google/gemma-3-27b-it (transformers, Gemma3ForConditionalGeneration): text and pictures.",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {
                "vocab_size": 262208,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "num_hidden_layers": 62,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
                "head_dim": 128,
            },
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
                "patch_size": 14,
                "vision_use_head": False,
            },
        },
        renamed=OLD_MULTIMODAL,
        left_out=TIED,
    ),
    "llava-15": Model(
        "llava-hf/llava-1.5-7b-hf (transformers, LlavaForConditionalGeneration).",
        "LlavaForConditionalGeneration",
        {"text_config": {"model_type": "llama", "vocab_size": 32064}},
        "F16",
        renamed=OLD_MULTIMODAL,
    ),
    "phi3-mini": Model(
        "microsoft/Phi-3-mini-4k-instruct (transformers, Phi3ForCausalLM): fused qkv_proj, gate_up_proj.",
        "Phi3ForCausalLM",
    ),
    "phi4": Model(
        "microsoft/phi-4 (transformers, Phi3ForCausalLM).",
        "Phi3ForCausalLM",
        {
            "vocab_size": 100352,
            "hidden_size": 5120,
            "intermediate_size": 17920,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 10,
        },
    ),
    "gpt2": Model(
        "openai-community/gpt2 (transformers, GPT2LMHeadModel, without its prefix): masks are stored, and\n"
        "linear layers as Conv1D, in columns.",
        "GPT2LMHeadModel",
        dtype="F32",
        renamed=[(r"^transformer\.", "")],
        left_out=TIED,
        added={"h.{0..11}.attn.bias": ("F32", (1, 1, 1024, 1024))},
    ),
    "gpt-neox-20b": Model(
        "EleutherAI/gpt-neox-20b (transformers, GPTNeoXForCausalLM), with the masks that its file holds.",
        "GPTNeoXForCausalLM",
        dtype="F16",
        added={
            "gpt_neox.layers.{0..43}.attention.bias": ("U8", (1, 1, 2048, 2048)),
            "gpt_neox.layers.{0..43}.attention.masked_bias": ("F16", ()),
            "gpt_neox.layers.{0..43}.attention.rotary_emb.inv_freq": ("F16", (12,)),
        },
    ),
    "falcon-7b": Model(
        "tiiuae/falcon-7b (transformers, FalconForCausalLM): 71 queries, a key and a value in one tensor.",
        "FalconForCausalLM",
        {"multi_query": True, "parallel_attn": True, "bias": False},
    ),
    "falcon-40b": Model(
        "tiiuae/falcon-40b (transformers, FalconForCausalLM): ln_attn and ln_mlp, eight groups of queries.",
        "FalconForCausalLM",
        {
            "hidden_size": 8192,
            "num_hidden_layers": 60,
            "num_attention_heads": 128,
            "num_kv_heads": 8,
            "new_decoder_architecture": True,
            "bias": False,
        },
    ),
    "deepseek-v3": Model(
        "deepseek-ai/DeepSeek-V3 (transformers, DeepseekV3ForCausalLM): 61 layers, 256 experts, fp8 with a\n"
        "scale for every 128 x 128 elements, and a layer 61 that predicts the token after the next.",
        "DeepseekV3ForCausalLM",
        stored=_with_next_token,
    ),
    "deepseek-v2-lite": Model(
        "deepseek-ai/DeepSeek-V2-Lite (transformers, DeepseekV2ForCausalLM): latent keys and values.",
        "DeepseekV2ForCausalLM",
        {
            "vocab_size": 102400,
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
    ),
    "llama4-scout": Model(
        "meta-llama/Llama-4-Scout-17B-16E (transformers, Llama4ForConditionalGeneration): experts in one\n"
        "tensor, transposed against linear layers.",
        "Llama4ForConditionalGeneration",
        {"text_config": {"num_hidden_layers": 48, "num_local_experts": 16, "interleave_moe_layer_step": 1}},
        renamed=OLD_MULTIMODAL[1:2],
    ),
    "gpt-oss-20b": Model(
        "openai/gpt-oss-20b (transformers, GptOssForCausalLM): experts in MXFP4, as blocks and scales.",
        "GptOssForCausalLM",
        {"num_hidden_layers": 24, "num_local_experts": 32},
        stored=_mxfp4,
    ),
    "gpt-oss-20b-bf16": Model(
        "gpt-oss-20b in BF16, as fine-tunes are (unsloth/gpt-oss-20b-BF16; transformers, GptOssForCausalLM).",
        "GptOssForCausalLM",
        {"num_hidden_layers": 24, "num_local_experts": 32},
    ),
    "olmo2": Model(
        "allenai/OLMo-2-1124-7B (transformers, Olmo2ForCausalLM): norms behind the layers.",
        "Olmo2ForCausalLM",
        {"vocab_size": 100352},
        "F32",
    ),
    "granite": Model(
        "ibm-granite/granite-3.1-8b-instruct (transformers, GraniteForCausalLM).",
        "GraniteForCausalLM",
        {
            "vocab_size": 49155,
            "intermediate_size": 12800,
            "num_hidden_layers": 40,
            "num_key_value_heads": 8,
        },
        left_out=TIED,
    ),
    "cohere": Model(
        "CohereForAI/c4ai-command-r-v01 (transformers, CohereForCausalLM): one norm a layer.",
        "CohereForCausalLM",
        dtype="F16",
        left_out=TIED,
    ),
}


def main(arguments: Sequence[str]) -> None:
    """Write the layouts that the command line names."""
    if arguments and arguments[0] == "--compress":
        print("\n".join(compress(_read(sys.stdin))))  # noqa: T201
        return
    for name in arguments or MODELS:
        save(name, MODELS[name].about, build(MODELS[name]))


if __name__ == "__main__":
    main(sys.argv[1:])
