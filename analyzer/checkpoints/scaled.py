"""Scaled fp8: weights whose values are the stored fp8 numbers times a scale that is stored beside them.

Without its scale such a weight means nothing, so it is read as fp32 values, computed on the way. Which
keys are scales is told by their names:

- `X.scale_weight`, ComfyUI's older files: https://github.com/comfyanonymous/ComfyUI, comfy/utils.py
- `X.weight_scale`, ComfyUI, compressed-tensors, ModelOpt: ComfyUI's QUANTIZATION.md
- `X.weight_scale_inv`, DeepSeek V3 and what follows it; a factor too, whatever its name says:
  https://github.com/deepseek-ai/DeepSeek-V3, inference/fp8_cast_bf16.py
- `X_scale`, `X_scale_inv`, for experts that are stacked in a tensor X without a suffix: transformers
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.checkpoint import Checkpoint, shown
from analyzer.checkpoints.encodings import AbstractEncodedSource, Values, fill
from analyzer.checkpoints.scale_grid import ScaleGrid, Scales, fit_scales, fit_tiled_scales
from analyzer.checkpoints.sources import AbstractSource
from analyzer.kernels.formats import FLOATS, eight_bit_values, rounding_parameters
from analyzer.records import TensorInfo
from analyzer.scale_names import NETWORK_MARKER, is_scale_word, may_have_scales, scale_keys, weights_scaled_by

_FP8 = frozenset({"F8_E4M3", "F8_E5M2"})
_OTHER_QUANTIZED = frozenset({"I8", "U8", "I32"})  # whole, or several packed into one
_SECOND_SCALES = ("scale_weight_tensor", "weight_scale_2", "pre_quant_scale")
_POWERS_OF_TWO = frozenset({"F8_E8M0", "U8"})  # U8: exponents that were stored before they had a dtype
_TILED = "mxfp8"  # ComfyUI's name of the format whose scales do not lie row by row
_MARKER, _MARKERS = "comfy_quant", "_quantization_metadata"
_MAX_MARKER_BYTES = 4096
_FEW_BYTES = 4096  # a scale of a tiny weight may take more than the weight
_NAMED = 3


def is_scale(key: str) -> bool:
    """Whether a key is, by its name, a scale or a marker of a quantized weight and not a weight."""
    return is_scale_word(key.rpartition(".")[2])


def scales_in_use(infos: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The scales and markers of the weights that are read as code × scale, each with such a weight.

    A marker of a whole network is among them if that has no quantized weight but these. Keys that are
    only called like a scale are not.
    """
    encoded = sorted(key for key, info in infos.items() if info.encoded)
    found: dict[str, str] = {}
    if not encoded:
        return found
    others = sorted(key for key, info in infos.items() if _is_left_as_codes(infos, info))
    weights = frozenset(encoded)
    for key, info in infos.items():
        if key.rpartition(".")[2] == NETWORK_MARKER:
            network = key.removesuffix(NETWORK_MARKER)
            weight = None if _first_in(network, others) else _first_in(network, encoded)
        else:
            weight = next((w for w in weights_scaled_by(key, numbers=info.numel) if w in weights), None)
        if weight is not None:
            found[key] = weight
    return found


def left_as_codes(infos: Mapping[str, TensorInfo]) -> frozenset[str]:
    """The quantized weights whose scales are not understood, and which stay as they are stored."""
    return frozenset(key for key, info in infos.items() if _is_left_as_codes(infos, info))


def with_scales(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with every fp8 weight that has a scale as fp32 values; the same one if none has.

    A weight whose scale is not understood stays as it is, and a note says so. Scales are read here;
    CheckpointError if that fails.
    """
    if not may_have_scales(checkpoint.infos):
        return checkpoint
    infos = dict(checkpoint.infos)
    sources: list[AbstractSource] = list(checkpoint.sources)
    left: dict[str, list[str]] = {}
    layers = _marked_layers(checkpoint.metadata)
    for info in checkpoint.infos.values():
        scales = [checkpoint.infos[name] for name in scale_keys(info.key) if name in checkpoint.infos]
        if not scales or not info.numel or info.encoded or info.view:
            continue
        if info.dtype in _FP8:
            grid = _grid(checkpoint, info, scales, layers)
            if isinstance(grid, ScaleGrid):
                infos[info.key] = _as_values(info, len(sources))
                sources.append(ScaledSource(checkpoint.sources[info.source], info, grid))
            else:
                left.setdefault(grid, []).append(shown(info.key))
        elif info.dtype in _OTHER_QUANTIZED:
            left.setdefault("only fp8 weights are scaled here", []).append(shown(info.key))
    if not left and len(sources) == len(checkpoint.sources):
        return checkpoint
    return replace(
        checkpoint,
        infos=MappingProxyType(infos),
        sources=tuple(sources),
        notes=(*checkpoint.notes, *(_note(checkpoint.path.name, why, keys) for why, keys in left.items())),
    )


class ScaledSource(AbstractEncodedSource):
    """The fp32 values of a tensor that is stored as fp8, each the product with its scale, rounded once."""

    def __init__(self, source: AbstractSource, stored: TensorInfo, grid: ScaleGrid) -> None:
        self._source = source
        self._stored = stored
        self._grid = grid

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Compute the values that the bytes from `offset` on belong to."""
        fill(buffer, offset, self._values)

    def encode(self, start: int, values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], int]:
        """The fp8 numbers that give these values with the tensor's own scales; see the base class.

        NaN stays NaN, with one code for all of them, and Inf becomes NaN where fp8 has none (e4m3).
        """
        with np.errstate(all="ignore"):
            quotients = values.astype(np.float64) / self.factors(start, len(values))
        # A zero is a zero, even if its scale is one too.
        quotients = np.where(np.isnan(quotients) & (values == 0), values, quotients)
        return _round_to_fp8(quotients, np.isinf(values), self._stored.dtype)

    def factors(self, start: int, count: int) -> NDArray[np.float64] | float:
        """The scale of every element; one number if they share it."""
        uniform = self._grid.uniform
        return self._grid.factors(start, count) if uniform is None else uniform

    def close(self) -> None:
        """Nothing: the source of the stored bytes belongs to the checkpoint."""

    def _values(self, start: int, count: int) -> Values:
        codes = np.empty(count, np.uint8)
        self._source.read_into(self._stored.offset + start, codes.data)
        with np.errstate(all="ignore"):  # beyond fp32, values are Inf
            table, factors = _values_of(self._stored.dtype), self.factors(start, count)
            if isinstance(factors, float):
                return (table * factors).astype(np.float32)[codes]
            products: NDArray[np.float64] = table[codes] * factors
            return products.astype(np.float32)


def _is_left_as_codes(infos: Mapping[str, TensorInfo], info: TensorInfo) -> bool:
    """Whether a weight has a scale that is not understood, and stays as it is stored."""
    if info.encoded or info.dtype not in _FP8 | _OTHER_QUANTIZED:
        return False
    return any(name in infos for name in scale_keys(info.key))


def _first_in(network: str, keys: list[str]) -> str | None:
    """The first of sorted keys that begin with a network's words; files may hold many markers."""
    at = bisect_left(keys, network)
    return keys[at] if at < len(keys) and keys[at].startswith(network) else None


def _as_values(info: TensorInfo, source: int) -> TensorInfo:
    return TensorInfo(info.key, "F32", info.shape, 0, 4 * info.numel, source, info.part, encoded=info)


def _grid(
    checkpoint: Checkpoint, info: TensorInfo, scales: list[TensorInfo], layers: Mapping[str, object]
) -> ScaleGrid | str:
    """The scales of a weight over its elements, or why they cannot be applied."""
    scale, stem = scales[0], info.key.rpartition(".")[0]
    if len(scales) > 1 or any(f"{stem}.{name}" in checkpoint.infos for name in _SECOND_SCALES):
        return "they have more than one scale"
    if scale.dtype not in ("F32", "F16", "BF16", *_POWERS_OF_TWO):
        return f"their scales are of type {scale.dtype}"
    if scale.nbytes > max(info.nbytes, _FEW_BYTES):
        return "their scales are larger than they are"
    arrangement = _arrangement(checkpoint, stem, layers) if scale.dtype in _POWERS_OF_TWO else ""
    if arrangement not in ("", _TILED):
        return f"their format {shown(arrangement)} is not known"
    fit = fit_tiled_scales if arrangement else fit_scales
    return fit(info.shape, _read_scales(checkpoint, scale)) or "the shapes of their scales fit no convention"


def _read_scales(checkpoint: Checkpoint, info: TensorInfo) -> Scales:
    """A small tensor's values, in its shape; all that its dtype can hold, fp32 can."""
    raw = np.empty(info.nbytes, np.uint8)
    checkpoint.read_into(info, 0, raw)
    if info.dtype == "F32":
        values = raw.view("<f4")
    elif info.dtype == "F16":
        values = raw.view("<f2").astype(np.float32)
    elif info.dtype == "BF16":
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:  # an exponent; 255 is NaN
        powers = np.ldexp(1.0, raw.astype(np.int32) - 127)
        values = np.where(raw == 255, np.nan, powers).astype(np.float32)
    return values.reshape(info.shape)


def _arrangement(checkpoint: Checkpoint, stem: str, layers: Mapping[str, object]) -> str:
    """ComfyUI's name of a layer's format, from a tensor beside the weight or the metadata; "" if none."""
    marker = checkpoint.infos.get(f"{stem}.{_MARKER}")
    if marker is not None and marker.dtype == "U8" and marker.nbytes <= _MAX_MARKER_BYTES:
        raw = np.empty(marker.nbytes, np.uint8)
        checkpoint.read_into(marker, 0, raw)
        return _format_in(_parsed(raw.tobytes()))
    return _format_in(layers.get(stem))


def _marked_layers(metadata: Mapping[str, str]) -> Mapping[str, object]:
    """What ComfyUI wrote about the layers into the metadata, by the layer's name."""
    layers = _parsed(metadata.get(_MARKERS, "").encode(errors="replace")).get("layers")
    return layers if isinstance(layers, dict) else {}


def _parsed(text: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _format_in(layer: object) -> str:
    name = layer.get("format") if isinstance(layer, Mapping) else None
    return name if isinstance(name, str) else ""


@cache
def _values_of(dtype: str) -> NDArray[np.float64]:
    return eight_bit_values(dtype)


@cache
def _limits_of(dtype: str) -> NDArray[np.float64]:
    """From which magnitude on a number is rounded to the next code, for every finite code."""
    magnitudes = _values_of(dtype)[:128]
    finite = magnitudes[np.isfinite(magnitudes)]
    beyond = 2 * finite[-1] - finite[-2]
    middles: NDArray[np.float64] = (finite + np.append(finite[1:], beyond)) / 2
    # A tie goes to the even code: up from an odd one.
    odd = np.arange(len(finite)) % 2 == 1
    limits: NDArray[np.float64] = np.where(odd, middles, np.nextafter(middles, np.inf))
    return limits


def _round_to_fp8(
    numbers: NDArray[np.float64], infinite: NDArray[np.bool_], dtype: str
) -> tuple[NDArray[np.uint8], int]:
    """The nearest codes, and how many finite numbers lie beyond all; `infinite` are those that are not."""
    limits = _limits_of(dtype)
    largest = len(limits) - 1
    codes = np.searchsorted(limits, np.abs(numbers), side="right")
    undefined = np.isnan(numbers)
    clipped = int(np.count_nonzero((codes > largest) & ~infinite & ~undefined))
    nan = int(rounding_parameters(dtype)[-1])
    infinity = largest + 1 if FLOATS[dtype].infinite else nan
    codes = np.where(infinite, infinity, np.minimum(codes, largest))
    codes = np.where(np.signbit(numbers), codes | 0x80, codes)
    is_nan = undefined | (infinite & (infinity == nan))
    return np.where(is_nan, nan, codes).astype(np.uint8), clipped


def _note(name: str, why: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return (
        f"{name}: quantized weights are compared as they are stored, without their scales, since {why}: "
        f"{', '.join(keys[:_NAMED])}{more}"
    )
