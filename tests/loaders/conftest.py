"""Real loaders: small models that diffusers and transformers themselves have built and saved."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before either library is imported: nothing is ever looked for on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

# However pytest imports: test modules import `narrow` by name.
sys.path.append(str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def narrow() -> Any:
    """The module of that name; skips where a library is missing. Imported late, for both take seconds."""
    for library in ("diffusers", "transformers"):
        pytest.importorskip(library, reason=f"needs {library}: pip install diffusers transformers")
    return importlib.import_module("narrow")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers are so small that torch's threads would only wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def narrow_sd1(narrow: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two narrow Stable Diffusion 1.5 of different seeds, as diffusers folders in fp32."""
    root = tmp_path_factory.mktemp("sd1")
    return narrow.sd1(root / "a", seed=1), narrow.sd1(root / "b", seed=2)


@pytest.fixture(scope="session")
def narrow_sdxl(narrow: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two narrow Stable Diffusion XL of different seeds, as diffusers folders in fp32."""
    root = tmp_path_factory.mktemp("sdxl")
    return narrow.sdxl(root / "a", seed=1), narrow.sdxl(root / "b", seed=2)
