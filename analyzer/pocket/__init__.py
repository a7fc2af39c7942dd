"""The pocket pair that ships with the package: a tiny Stable Diffusion and its fine-tune.

Owns where the two files lie, and imports nothing heavy. What they are stands in `README.md`, their data in
`analyzer.pocket.captions` and `analyzer.pocket.portraits`, their training in `analyzer.pocket.train`.
"""

from importlib.resources import files
from pathlib import Path

BASE_NAME = "base.safetensors"
FINE_TUNE_NAME = "fine-tune.safetensors"


def base_path() -> Path:
    """A: the model trained on softly shaded portraits."""
    return _shipped(BASE_NAME)


def fine_tune_path() -> Path:
    """B: A, trained on with drawn portraits, flat and outlined."""
    return _shipped(FINE_TUNE_NAME)


def _shipped(name: str) -> Path:
    # Wheels are installed unpacked, so that the resource is a file with a path.
    return Path(str(files(__name__) / name))
