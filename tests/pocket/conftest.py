"""Pocket models with random weights: those that ship, as far as names, shapes and files go."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before either library is imported: nothing is ever looked for on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

# However pytest imports: the keys of published models are read from here.
sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))


@dataclass(frozen=True)
class Random:
    """A pocket model that was never trained."""

    file: Path
    unet: Any
    text_encoder: Any
    vae: Any


@pytest.fixture(scope="session")
def libraries() -> None:
    """Skips where diffusers or transformers is missing."""
    for library in ("diffusers", "transformers"):
        pytest.importorskip(library, reason=f"needs {library}: pip install 'mergescope[pocket]'")


@pytest.fixture(scope="session")
def random_model(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Random:
    """Weights from a seed, in one file as a training writes it."""
    import torch

    from analyzer.pocket import networks
    from analyzer.pocket.folders import single_file, tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet, text_encoder, vae = networks.unet(), networks.text_encoder(len(tokenizer())), networks.vae()
    file = tmp_path_factory.mktemp("pocket") / "random.safetensors"
    single_file(unet, text_encoder, vae, file)
    return Random(file, unet, text_encoder, vae)


@pytest.fixture(scope="session")
def random_pair(random_model: Random) -> tuple[Path, Path]:
    """A, and B that differs from it in every floating-point weight but the VAE's, as a fine-tune does."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(2)
    tensors = load_file(random_model.file)
    for key, value in tensors.items():
        if value.dtype == torch.float16 and not key.startswith("first_stage_model."):
            step = torch.randn(value.shape, generator=generator) * 0.02
            tensors[key] = (value.float() + step).half()
    b = random_model.file.with_name("tuned.safetensors")
    save_file(tensors, b, metadata={"format": "pt"})
    return random_model.file, b


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers are so small that torch's threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
