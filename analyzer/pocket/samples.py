"""Paint what the model card shows: `python -m analyzer.pocket.samples FILE.png`. Knows prompts and pixels.

A's pictures stand above, B's below; two seeds of each prompt, none picked, and no negative prompt.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.pocket import base_path, fine_tune_path
from analyzer.pocket.folders import rebuild
from analyzer.quiet import quiet

PROMPTS = (
    "best quality, a woman, long blond hair, red dress, facing left, close-up, sunset",
    "best quality, a man, short black hair, green coat, facing right, upper body, forest",
    "best quality, a woman, ponytail pink hair, blue sweater, facing viewer, upper body, sea",
    "best quality, a man, short grey hair, yellow shirt, facing viewer, close-up, night sky",
    "best quality, a woman, bun brown hair, school uniform, facing left, from afar, city",
)
SEEDS = (1, 2)
STEPS, GUIDANCE = 30, 7.0
_AT_ONCE = 8
_ENLARGED = 3


def paint(
    file: Path, prompts: Sequence[str] = PROMPTS, seeds: Sequence[int] = SEEDS, *, steps: int = STEPS
) -> list[NDArray[np.uint8]]:
    """What a pocket model in one file paints: each prompt with each seed, (64 × 64 × 3).

    All seeds of a prompt come before the next prompt. Raises AnalyzerError without diffusers.
    """
    import torch

    pictures: list[NDArray[np.uint8]] = []
    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline

        folder = Path(scratch) / "model"
        rebuild(folder, file)
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            found = pipeline(
                [prompt for prompt, _ in part], num_inference_steps=steps, guidance_scale=GUIDANCE,
                output_type="np",
                generator=[torch.Generator().manual_seed(seed) for _, seed in part],
            )  # fmt: skip
            pictures += [(image * 255).round().astype(np.uint8) for image in found.images]
    return pictures


def main(path: Path) -> None:
    """Write the sheet."""
    from PIL import Image

    rows = [np.concatenate(paint(file), axis=1) for file in (base_path(), fine_tune_path())]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    sheet.resize((sheet.width * _ENLARGED, sheet.height * _ENLARGED), Image.Resampling.NEAREST).save(
        path, optimize=True
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m analyzer.pocket.samples FILE.png")
    main(Path(sys.argv[1]))
