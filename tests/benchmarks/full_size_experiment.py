"""Run the experiment on a pair as large as SD 1.5: `python tests/benchmarks/full_size_experiment.py DIR`.

Makes two diffusers folders of random fp16 weights (860 million parameters in the U-Net; B is A and a little
more), 4.3 GB, if DIR has none yet, and paints one step of one seed with A, with B and with each category at
512 × 512. Shows nothing worth looking at: that shapes and memory hold. Prints the seconds, the largest memory
of the process, and what it measured.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from analyzer.pocket import folders

# The networks of Stable Diffusion 1.5, as its diffusers folder describes them.
UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "projection_dim": 768,
    "hidden_act": "quick_gelu",
}  # fmt: skip
EACH = ("attn1", "attn2", "ff", "skip_connection", "weight", "bias")


SHOWN = ("selector", "toward_b", "neither", "ssim_a", "seconds", "error")


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def make(folder: Path, *, moved: float) -> None:
    """A folder of random weights; `moved` of every tensor's deviation is added to what the seed gives."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folders.write_configs(folder)
    parts = {
        "unet": lambda: UNet2DConditionModel(**UNET),
        "vae": lambda: AutoencoderKL(**VAE),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**TEXT)),
    }
    for name, build in parts.items():
        torch.manual_seed(0)
        model = build()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in model.parameters():
                if moved and value.numel() > 1:
                    value += moved * value.std() * torch.randn(value.shape, generator=generator)
        model.half().save_pretrained(folder / name)


def main() -> None:
    """Make what is missing, run, print."""
    base = Path(sys.argv[1])
    pair = base / "sd15-a", base / "sd15-b"
    for folder, moved in zip(pair, (0.0, 0.1), strict=True):
        if not folder.exists():
            make(folder, moved=moved)
    data = base / "experiment.json"
    command = [
        sys.executable,
        "-m",
        "analyzer",
        "experiment",
        *map(str, pair),
        "-o",
        str(base / "experiment.html"),
    ]
    command += ["--data", str(data), "--steps", "1", "--seeds", "1", "--quiet"]
    command += [word for selector in EACH for word in ("--each", selector)]
    began = time.monotonic()
    subprocess.run(command, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    say(f"{time.monotonic() - began:.0f} s, {peak:.1f} GiB at most")
    for row in json.loads(data.read_text())["rows"]:
        say(", ".join(f"{name} {row[name]}" for name in SHOWN))


if __name__ == "__main__":
    main()
