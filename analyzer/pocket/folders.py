"""The pocket models as files: one in the original layout (LDM), or a diffusers folder rebuilt from it.

Knows names and configs; the widths are those of `analyzer.pocket.networks`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.errors import CheckpointError, OutputError
from analyzer.layouts import original
from analyzer.pocket import networks, noise_schedule
from analyzer.pocket.words import byte_pairs
from analyzer.quiet import diffusers_library, quiet
from analyzer.writing.system_calls import rename_new
from analyzer.writing.unfinished import new_folder, output_errors, temporary_beside
from analyzer.writing.writer import write_files

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer.text_model."
_POSITIONS = f"{_TEXT}embeddings.position_ids"


def recognises(model: Checkpoint) -> bool:
    """Whether it is a pocket model, a file or a folder: told by the size of its table of words."""
    tables = [info.shape for key, info in model.infos.items() if key.endswith(".token_embedding.weight")]
    return tables == [(len(byte_pairs()[0]), networks.TEXT_WIDTH)]


def tokenizer() -> Any:
    """CLIP's tokenizer with the pocket models' own words."""
    from transformers import CLIPTokenizer

    vocabulary, merges = byte_pairs()
    build: Any = CLIPTokenizer  # whose annotation knows no pairs
    return build(vocab=vocabulary, merges=merges, model_max_length=networks.TOKENS)


def write_configs(folder: Path) -> None:
    """A diffusers folder without weights: what `from_single_file(…, config=folder)` asks for.

    `folder` may exist; files of these names in it are replaced. Draws no random numbers.
    """
    import diffusers
    import torch

    words = tokenizer()
    schedulers: Any = diffusers.PNDMScheduler
    schedulers.from_config(networks.SCHEDULE).save_pretrained(folder / "scheduler")
    _save_tokenizer(words, folder / "tokenizer")
    with torch.device("meta"):  # no weights, and no random numbers for them
        networks.unet().save_config(folder / "unet")
        networks.vae().save_config(folder / "vae")
        networks.text_encoder(len(words)).config.save_pretrained(folder / "text_encoder")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def single_file(unet: Any, text_encoder: Any, vae: Any, path: Path) -> None:
    """Write three networks into one fp16 file with the names of Stable Diffusion 1.x, its tables included.

    A file at `path` is replaced, at once and whole.
    """
    import torch
    from safetensors.torch import save

    tensors = {name: value.half() for name, value in _ldm(unet, text_encoder, vae).items()}
    tensors[_POSITIONS] = torch.arange(networks.TEXT["max_position_embeddings"])[None]
    tensors |= noise_schedule.tables()
    content = save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata={"format": "pt"})
    write_files({path: content}, inputs=())


def rebuild(folder: Path, file: Path) -> None:
    """Write the diffusers folder of a pocket model's single file, with diffusers' own conversion.

    The values are the file's, in fp32: of an fp16 folder that is opened without a dtype, transformers would
    keep the fp16 and diffusers would not, and the two do not mix. The folder appears whole or not at all.
    Raises OutputError if something stands there already, CheckpointError if the file is no pocket model, and
    AnalyzerError if the libraries are missing.
    """
    if os.path.lexists(folder):
        raise OutputError(f"{folder}: exists already; name another folder")
    diffusers: Any = diffusers_library("rebuilding a folder")
    with open_checkpoint(file) as model:
        _require_pocket(model)
    unfinished = temporary_beside(folder)
    with ExitStack() as stack:
        stack.enter_context(output_errors(folder))
        stack.enter_context(new_folder(unfinished))
        stack.enter_context(quiet())
        configs, built = unfinished / "configs", unfinished / "built"
        write_configs(configs)
        build = diffusers.StableDiffusionPipeline
        pipeline = build.from_single_file(str(file), config=str(configs), local_files_only=True)
        pipeline.save_pretrained(built)
        _save_tokenizer(pipeline.tokenizer, built / "tokenizer")
        for weights in built.rglob("*.safetensors"):  # which the library lets nobody but their owner read
            shutil.copymode(built / "model_index.json", weights)
        rename_new(built, folder)


def _save_tokenizer(words: Any, folder: Path) -> None:
    """In the form of transformers 5 and in that of its predecessors, which know no other."""
    words.save_pretrained(folder)
    vocabulary, merges = byte_pairs()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _require_pocket(model: Checkpoint) -> None:
    """Refuse what diffusers would fail on, and what it would unpickle: files of another name."""
    import torch

    if not recognises(model) or model.path.suffix != ".safetensors":
        raise CheckpointError(
            f"{model.path}: is no pocket model in one .safetensors file; name one, such as "
            "analyzer.pocket.base_path()"
        )
    with torch.device("meta"):
        vocabulary = len(byte_pairs()[0])
        whole = _ldm(networks.unet(), networks.text_encoder(vocabulary), networks.vae())
    for key, value in whole.items():
        if key not in model.infos or model.infos[key].shape != tuple(value.shape):
            raise CheckpointError(
                f"{model.path}: is no whole pocket model, {key!r} is missing or has another shape; name one "
                "that holds all of it"
            )


def _ldm(unet: Any, text_encoder: Any, vae: Any) -> Mapping[str, Any]:
    """The weights of the three networks by their names in the original layout."""
    found = {}
    for prefix, network in ((_UNET, unet), (_VAE, vae)):
        own = network.state_dict()
        names = original(own)
        for name, value in own.items():
            old = names[name]
            if ".attn_1." in old and value.ndim == 2:  # the original's projections are convolutions of 1 × 1
                value = value[:, :, None, None]
            found[prefix + old] = value
    for name, value in text_encoder.state_dict().items():
        found[_TEXT + name.removeprefix("text_model.")] = value
    return found
