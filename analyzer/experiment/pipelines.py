"""Load the text-to-image pipeline of a model that is open for reading. Knows diffusers, and no grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyzer.checkpoints import Checkpoint


def is_pocket(model: Checkpoint) -> bool:
    """Whether it is a pocket model: told by the size of its token embedding, before anything is loaded."""
    raise NotImplementedError


def load_pipeline(model: Checkpoint, *, config: Path | None = None, dtype: str, device: str) -> Any:
    """The `diffusers` pipeline that paints with the weights of `model`, on `device` ("cpu", "cuda:0", "mps").

    `config` is a diffusers folder of the architecture, for single files; its weights are not needed. `dtype`
    is "fp32", "fp16" or "bf16". Raises AnalyzerError in one sentence for what is no text-to-image model,
    a missing extra, or a missing or wrong `config`.
    """
    raise NotImplementedError


def native_size(pipeline: Any) -> tuple[int, int]:
    """Width and height in pixels of what the pipeline paints if it is told no size."""
    raise NotImplementedError
