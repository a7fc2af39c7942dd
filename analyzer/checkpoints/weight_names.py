"""What the names of the files in a model folder say about them. Reads names, opens nothing.

Names as transformers and diffusers write them: `model.safetensors`, `pytorch_model.bin`,
`diffusion_pytorch_model.safetensors`; shards `model-00001-of-00003.safetensors` and their index
`model.safetensors.index.json`; a variant `model.fp16.safetensors`, its shards
`model.fp16-00001-of-00003.safetensors` (older: `model-00001-of-00003.fp16.safetensors`) and its index
`model.safetensors.index.fp16.json` (older: `model.safetensors.fp16.index.json`).
https://github.com/huggingface/diffusers, src/diffusers/pipelines/pipeline_loading_utils.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt")  # the first is preferred
FOREIGN_SUFFIXES = (".onnx", ".msgpack", ".h5", ".ot", ".tflite", ".mlmodel", ".mlpackage")

_STANDARD = ("model", "pytorch_model", "diffusion_pytorch_model")
# After a standard name whatever stands between two dots is a variant; after others only these, since
# a dot may be part of a version: "sd_xl_base_1.0".
_VARIANTS = frozenset({"fp16", "fp32", "bf16", "fp8", "fp8_e4m3fn", "fp8_e5m2", "int8", "ema", "non_ema"})

_ANY_SUFFIX = "|".join(suffix[1:] for suffix in SUFFIXES)
_SHARD = re.compile(
    rf"(?P<stem>.+)-(?P<number>\d{{3,6}})-of-(?P<total>\d{{3,6}})(\.(?P<variant>[^.]+))?\.(?P<suffix>{_ANY_SUFFIX})",
    re.IGNORECASE,
)
_INDEX = re.compile(
    rf"(?P<stem>.+?)\.(?P<suffix>{_ANY_SUFFIX})(\.(?P<old_variant>[^.]+))?\.index(\.(?P<variant>[^.]+))?\.json",
    re.IGNORECASE,
)
_SINGLE = re.compile(rf"(?P<stem>.+)\.(?P<suffix>{_ANY_SUFFIX})", re.IGNORECASE)

# What training and other runtimes leave beside the weights, under the suffixes of weights.
_NO_WEIGHTS = re.compile(
    r"(training_args|openvino_.*|optimi[sz]er.*|scheduler.*|scaler.*|sampler.*|rng_state.*|random_states.*"
    r"|.*optim_states)\.[a-z]+",
    re.IGNORECASE,
)
_ADAPTER = re.compile(r"(adapter_model|pytorch_lora_weights)\b.*", re.IGNORECASE)
_SLICE = re.compile(r"consolidated\.\d+\.pth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file that holds weights, or the index of such files, as its name has it."""

    name: str
    family: str  # the same for files that hold one model in different forms
    variant: str  # "fp16", "non_ema" …; "" for the files without one
    suffix: str  # of the weights: ".safetensors" also for an index of such files
    standard: bool  # named as transformers and diffusers name a folder's own model
    index: bool = False
    shard: tuple[int, int] | None = None  # number and total


def weight_file(name: str) -> WeightFile | None:
    """What the name says; None if it is not the name of weights."""
    if _NO_WEIGHTS.fullmatch(name) or _ADAPTER.fullmatch(name):
        return None
    if found := _INDEX.fullmatch(name):
        variant = found["variant"] or found["old_variant"]
        return _weight_file(name, found, variant, index=True)
    if found := _SHARD.fullmatch(name):
        shard = int(found["number"]), int(found["total"])
        return _weight_file(name, found, found["variant"], shard=shard)
    if found := _SINGLE.fullmatch(name):
        return _weight_file(name, found, None)
    return None


def is_index(name: str) -> bool:
    """Whether an index of shards has such a name."""
    return _INDEX.fullmatch(name) is not None


def is_adapter(name: str) -> bool:
    """Whether PEFT and diffusers store a LoRA under this name."""
    return _ADAPTER.fullmatch(name) is not None


def are_slices(names: Sequence[str]) -> bool:
    """Whether these are several `consolidated.NN.pth`: each a part of every tensor."""
    return len(names) > 1 and all(_SLICE.fullmatch(name) for name in names)


def _weight_file(
    name: str,
    found: re.Match[str],
    variant: str | None,
    *,
    index: bool = False,
    shard: tuple[int, int] | None = None,
) -> WeightFile:
    stem, suffix = found["stem"], f".{found['suffix'].lower()}"
    if variant is None:
        head, _, tail = stem.rpartition(".")
        if head.lower() in _STANDARD or (head and tail.lower() in _VARIANTS):
            stem, variant = head, tail
    family = stem.lower().replace("pytorch_", "")
    return WeightFile(
        name=name,
        # A GGUF is mostly quantised: never taken for a copy of the file beside it.
        family=f"{family}.gguf" if suffix == ".gguf" else family,
        variant=variant or "",
        suffix=suffix,
        standard=stem.lower() in _STANDARD,
        index=index,
        shard=shard,
    )
