"""Two small checkpoints of a Stable Diffusion 1.x on disk, with all that a merge has to tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

_UNET = "model.diffusion_model."
_TEXT = "cond_stage_model.transformer.text_model."
_VAE = "first_stage_model."
_BLOCKS = (
    "input_blocks.1.",
    "input_blocks.2.",
    "input_blocks.4.",
    "middle_block.",
    "output_blocks.3.",
    "output_blocks.5.",
    "output_blocks.11.",
)


def write(folder: Path, *, seed: int) -> tuple[Path, Path]:
    """A and B: fp16 mostly, the text encoder in fp32, the VAE in bf16; keys that pair in part or not at all.

    Some components are the same in both, and the bits of some step lie below what a save keeps.
    """
    rng = torch.Generator().manual_seed(seed)
    a: dict[str, torch.Tensor] = {}
    b: dict[str, torch.Tensor] = {}
    for key, shape, rate, dtype in _keys():
        value = torch.randn(shape, generator=rng) * 0.05
        step = torch.randn(shape, generator=rng) * 0.05 * rate
        a[key], b[key] = value.to(dtype), (value + step).to(dtype)
    ids = torch.arange(77)[None]
    a[f"{_TEXT}embeddings.position_ids"] = b[f"{_TEXT}embeddings.position_ids"] = ids
    a["betas"], b["betas"] = torch.linspace(0.1, 0.2, 10), torch.linspace(0.1, 0.3, 10)
    b[f"{_UNET}input_blocks.0.0.weight"] = torch.randn((16, 9, 3, 3), generator=rng).half()
    a["model_ema.decay"] = torch.tensor(0.99)
    b["extra.weight"] = torch.ones(3)
    paths = folder / "model a.safetensors", folder / "it's b.safetensors"
    for path, tensors in zip(paths, (a, b), strict=True):
        save_file(tensors, path)
    return paths


def _keys() -> Iterator[tuple[str, tuple[int, ...], float, torch.dtype]]:
    """Key, shape, rate of change and dtype of what both models hold."""
    yield f"{_UNET}input_blocks.0.0.weight", (16, 4, 3, 3), 0.1, torch.float16
    yield f"{_UNET}time_embed.0.weight", (32, 16), 0.03, torch.float16
    yield f"{_UNET}out.2.weight", (4, 16, 3, 3), 0.02, torch.float16
    for place, name in enumerate(_BLOCKS):
        resnet, inner = f"{_UNET}{name}0.", f"{_UNET}{name}1."
        layer = f"{inner}transformer_blocks.0."
        rate = 0.02 * (place + 1)
        for key, size, share in (
            (f"{resnet}in_layers.2", (16, 16, 3, 3), 0.3),
            (f"{resnet}out_layers.3", (16, 16, 3, 3), 0.4),
            (f"{inner}proj_in", (16, 16, 1, 1), 0.2),
            (f"{layer}attn1.to_out.0", (16, 16), 1.0),
            (f"{layer}attn2.to_out.0", (16, 24), 3.0),
            (f"{layer}ff.net.2", (16, 64), 0.7),
            (f"{layer}norm1", (64,), 0.01),
        ):
            yield f"{key}.weight", size, rate * share, torch.float16
            yield f"{key}.bias", (16,), rate * share / 2, torch.float16
        yield f"{layer}attn2.to_k.weight", (16, 24), 2 * rate, torch.float16
        yield f"{layer}attn1.to_q.weight", (16, 16), rate, torch.float16
    yield f"{_UNET}input_blocks.3.0.op.weight", (16, 16, 3, 3), 0.05, torch.float16
    yield f"{_UNET}output_blocks.5.2.conv.weight", (16, 16, 3, 3), 0.05, torch.float16
    for number in range(2):
        layer = f"{_TEXT}encoder.layers.{number}."
        for name, shape in (("self_attn.q_proj", (16, 16)), ("mlp.fc1", (32, 16)), ("layer_norm1", (16,))):
            yield f"{layer}{name}.weight", shape, 0.01 * (number + 1), torch.float32
            yield f"{layer}{name}.bias", shape[:1], 0.004, torch.float32
    yield f"{_TEXT}embeddings.token_embedding.weight", (200, 16), 0.0, torch.float32
    yield f"{_VAE}encoder.conv_in.weight", (16, 3, 3, 3), 0.001, torch.bfloat16
    yield f"{_VAE}decoder.up.1.upsample.conv.weight", (16, 16, 3, 3), 0.05, torch.bfloat16
    yield f"{_VAE}decoder.conv_out.bias", (3,), 0.2, torch.bfloat16
    yield (
        "model_ema.diffusion_modelinput_blocks11transformer_blocks0attn2to_kweight",
        (16, 24),
        0.1,
        torch.float32,
    )
