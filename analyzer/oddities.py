"""What is odd about a model file, one sentence each. Knows headers and labels; reads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass

import numpy as np

from analyzer.categories.names import MARKER, SCHEDULE, TRAINING
from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.dtypes import DTYPES
from analyzer.kernels.formats import FLOATS
from analyzer.records import Categorized, Network, TensorInfo

CLIP_POSITIONS = 77  # the length of CLIP's context, and so of its table of positions
_LISTED = 3
_INPUTS = {9: "inpainting", 8: "pix2pix"}  # channels of a Stable Diffusion's first layer


@dataclass(frozen=True, slots=True)
class Nonfinite:
    """What reading every value has shown."""

    counts: Mapping[str, int]  # key -> NaN and Inf
    positions: Mapping[str, bytes]  # key of CLIP's positions -> their bytes


def oddities(checkpoint: Checkpoint, found: Categorized, read: Nonfinite | None) -> tuple[str, ...]:
    """Sentences, the gravest first: broken values, broken tables, mixtures, leftovers, what was ignored."""
    return (
        *_broken(read),
        *_positions(checkpoint, read),
        *_mixtures(checkpoint, found),
        *_leftovers(checkpoint, found),
        *_kind_of_model(checkpoint, found),
        *_unknown(found),
        *checkpoint.notes,
    )


def _broken(read: Nonfinite | None) -> Iterator[str]:
    if read and read.counts:
        total = sum(read.counts.values())
        yield f"{total:,} values are NaN or Inf, in {_some(list(read.counts))}"


def _positions(checkpoint: Checkpoint, read: Nonfinite | None) -> Iterator[str]:
    """CLIP's positions are 0 … 76 as int64; a merge that averages all keys spoils them."""
    for key, info in checkpoint.infos.items():
        if key.rpartition(".")[2] != "position_ids" or info.numel != CLIP_POSITIONS:
            continue
        way_out = "merge with --position-ids reset puts them right"
        raw = read.positions.get(key) if read else None
        wrong = _wrong_positions(raw, info) if raw is not None else 0
        if wrong:
            yield f"{wrong} of the {CLIP_POSITIONS} values of {key} are wrong; {way_out}"
        elif info.dtype in FLOATS:
            yield f"{key} is {_label(info.dtype)} and not int64, as a careless cast leaves it; {way_out}"


def _wrong_positions(raw: bytes, info: TensorInfo) -> int:
    numpy_dtype = {"I64": "<i8", "I32": "<i4", "F32": "<f4", "F16": "<f2", "F64": "<f8"}.get(info.dtype)
    if info.dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif numpy_dtype:
        values = np.frombuffer(raw, numpy_dtype)
    else:
        return 0
    return int(np.count_nonzero(values != np.arange(CLIP_POSITIONS)))


def _mixtures(checkpoint: Checkpoint, found: Categorized) -> Iterator[str]:
    """Floating-point types that stand side by side in one part."""
    parts: dict[str, dict[str, int]] = {}
    for key, info in checkpoint.infos.items():
        labels = found.labels[key]
        if info.dtype in FLOATS and labels.counted:
            counts = parts.setdefault(labels.part, {})
            counts[info.storage] = counts.get(info.storage, 0) + 1
    for part, counts in sorted(parts.items()):
        if len(counts) > 1:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            listed = ", ".join(f"{_label(dtype)} ({_keys(count)})" for dtype, count in ordered)
            yield f"{part} mixes {listed}"


def _leftovers(checkpoint: Checkpoint, found: Categorized) -> Iterator[str]:
    doubles = [i for i in checkpoint.infos.values() if i.dtype == "F64" and found.labels[i.key].counted]
    if doubles:
        yield f"{_keys(len(doubles))} {_are(doubles)} fp64, twice the size of fp32 without any use"
    ema = [i for i in checkpoint.infos.values() if found.labels[i.key].part == "ema"]
    if ema:
        size = sum(i.nbytes for i in ema) / 1e6
        copies = "an EMA copy" if len(ema) == 1 else "EMA copies"
        yield f"{_keys(len(ema))} {_are(ema)} {copies} ({size:,.1f} MB), which generating does not need"


def _kind_of_model(checkpoint: Checkpoint, found: Categorized) -> Iterator[str]:
    names = {key.rpartition(".")[2] for key in checkpoint.infos}
    if "v_pred" in names:
        more = " and zero terminal SNR (ztsnr)" if "ztsnr" in names else ""
        yield f"is marked for v-prediction (v_pred){more}"
    for key, info in checkpoint.infos.items():
        if found.labels[key].component == "conv_in" and len(info.shape) == 4:
            channels = info.shape[1]
            if found.labels[key].part == "unet" and channels in _INPUTS:
                yield f"takes {channels} input channels, as {_INPUTS[channels]} models do"
    scaled = [i for i in checkpoint.infos.values() if i.encoded and i.storage.startswith("F8")]
    if scaled:
        yield f"{_keys(len(scaled))} {_are(scaled)} scaled fp8, compared as the values of code × scale"
    if found.architecture != "generic" and _is_tied(found):
        yield "stores no output head: it is tied to the token embedding"


def _is_tied(found: Categorized) -> bool:
    """Whether a language model has an embedding and no head of any kind, as tied ones are saved.

    A base model has none either, but has no word before its names; a classifier has another head.
    """
    names = list(found.networks[0].names.values()) if found.networks else []
    embedding = any(name.endswith((".embed_tokens.weight", ".wte.weight")) for name in names)
    head = any(not name.startswith(("model.", "transformer.")) for name in names)
    return embedding and not head


def unknown_keys(network: Network, found: Categorized) -> int:
    """How many keys of a network no rule knows. Markers and schedules are known by their names anywhere."""
    keys = [*network.names, *network.copies]
    plain = sum(found.labels[key].component not in (MARKER, SCHEDULE, TRAINING) for key in keys)
    return max(plain - network.known, 0)


def _unknown(found: Categorized) -> Iterator[str]:
    for network in found.networks:
        count = unknown_keys(network, found)
        if network.architecture != "generic" and count:
            yield (
                f"{_keys(count)} of the {network.title} {'is' if count == 1 else 'are'} known to no rule, "
                "and labelled by name alone"
            )


def _keys(count: int) -> str:
    return f"{count:,} key{'s' * (count != 1)}"


def _are(things: Sized) -> str:
    return "is" if len(things) == 1 else "are"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _label(dtype: str) -> str:
    return DTYPES[dtype].label if dtype in DTYPES else dtype
