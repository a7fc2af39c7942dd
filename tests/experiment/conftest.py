"""Pairs of small models with random weights, made once for all tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

# Outputs of equal weights are compared bit for bit. On some processors MKL's sums depend on where in memory
# their terms lie, unless it is told before its first sum that they must not.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


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
    from analyzer.pocket import folders
    from analyzer.quiet import quiet

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


@pytest.fixture(scope="session")
def flux_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two relatives of another build, as folders: a pipeline of Flux that is loaded in no time."""
    from analyzer.quiet import quiet

    root = tmp_path_factory.mktemp("flux")
    torch.manual_seed(1)
    with quiet():
        pipeline = _flux()
        pipeline.save_pretrained(root / "a")
        with torch.no_grad():
            for network in (pipeline.transformer, pipeline.text_encoder_2, pipeline.vae):
                for value in network.parameters():
                    value += 0.05 * torch.randn(value.shape)
        pipeline.save_pretrained(root / "b")
    return root / "a", root / "b"


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


def _flux() -> Any:
    """A pipeline of Flux with tiny random networks."""
    import diffusers
    import transformers
    from tokenizers import Tokenizer, models

    from analyzer.pocket import folders

    words = folders.tokenizer()
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    clip = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        **ends,
    )
    t5 = transformers.T5Config(vocab_size=4, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=transformers.CLIPTextModel(clip),
        tokenizer=words,
        text_encoder_2=transformers.T5EncoderModel(t5),
        tokenizer_2=transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<pad>": 2}, unk_token="<unk>")),
            pad_token="<pad>",
            unk_token="<unk>",
            model_max_length=8,
        ),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
        ),
        vae=diffusers.AutoencoderKL(
            sample_size=16,
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=2,
            norm_num_groups=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.0609,
            scaling_factor=1.5035,
        ),
    )
