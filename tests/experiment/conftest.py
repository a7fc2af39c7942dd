"""A pair of pocket models with random weights, in both layouts; made once for all tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class PocketPair:
    """Where two relatives lie: B is A with noise of a twentieth of each tensor's size added. All in fp16."""

    a: Path  # single files in the original layout
    b: Path
    folder_a: Path  # the same as diffusers folders
    folder_b: Path
    configs: Path  # a diffusers folder without weights


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these only lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="pip install transformers")


@pytest.fixture(scope="session")
def pocket_pair(tmp_path_factory: pytest.TempPathFactory) -> PocketPair:
    """Two random pocket models, as single files and as diffusers folders."""
    from analyzer.experiment.quiet import quiet
    from analyzer.pocket import folders

    root = tmp_path_factory.mktemp("pocket")
    pair = PocketPair(*(root / name for name in ("a.safetensors", "b.safetensors", "a", "b", "configs")))
    with quiet():
        pair.configs.mkdir()
        folders.write_configs(pair.configs)
        networks = _networks()
        _save(networks, pair.a, pair.folder_a)
        _perturb(networks)
        _save(networks, pair.b, pair.folder_b)
    return pair


def _networks() -> dict[str, Any]:
    from analyzer.pocket import networks
    from analyzer.pocket.words import byte_pairs

    torch.manual_seed(7)
    return {
        "unet": networks.unet(),
        "text_encoder": networks.text_encoder(len(byte_pairs()[0])),
        "vae": networks.vae(),
    }


def _perturb(networks: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for network in networks.values():
            for value in network.parameters():
                size = value.std() if value.numel() > 1 else value.abs()
                value += (0.05 * size + 0.01) * torch.randn(value.shape, generator=generator)


def _save(networks: dict[str, Any], file: Path, folder: Path) -> None:
    from analyzer.pocket import folders

    for network in networks.values():
        network.half()
    folders.single_file(networks["unet"], networks["text_encoder"], networks["vae"], file)
    folder.mkdir()
    folders.write_configs(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, network in networks.items():
            network.save_pretrained(folder / name)
    for network in networks.values():
        network.float()
