"""How the scales and markers of quantized weights are called, and which weight each of them is for.

Knows names only. Which of them mean what is told in `analyzer.checkpoints.scaled`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

NETWORK_MARKER = "scaled_fp8"  # for all weights of a network, beside its first words

# Models have learned vectors under these names too, such as the scales of a QK norm: only what is one
# number is the scale of a quantized output or of a cache.
ALSO_LEARNED = frozenset({"k_scale", "output_scale", "q_scale", "v_scale"})

# What a quantized tensor's codes are multiplied with and what says so: no weights, since they mean
# nothing by themselves.
SCALES = ALSO_LEARNED | {
    "absmax",
    "activation_scale",
    "comfy_quant",
    "input_scale",
    "kv_scale",
    "nested_absmax",
    "nested_quant_map",
    "pre_quant_scale",
    "quant_map",
    "scale_input",
    "scale_weight",
    "scale_weight_tensor",
    "scales",
    "weight_scale",
    "weight_scale_2",
    "weight_scale_inv",
    "zeros",
    NETWORK_MARKER,
}

# Of stacked experts, whose tensors have no suffix: `down_proj_scale` is the scale of `down_proj`.
_ENDINGS = ("_activation_scale", "_input_scale", "_proj_scale", "_scale_inv", "_weight_scale")

# What a scale's name has after the weight's. Only beside such a weight does `_scale` say anything.
_AFTER_WEIGHT = ("_activation_scale", "_input_scale", "_scale", "_scale_inv", "_weight_scale")


# What the names of `scale_keys` end with.
_OF_CODES = (".scale_weight", "_scale", "_scale_inv")


def is_scale_word(word: str) -> bool:
    """Whether the last word of a name is that of a scale or a marker of a quantized weight."""
    return word in SCALES or word.endswith(_ENDINGS)


def scale_keys(key: str) -> tuple[str, ...]:
    """The names that the scale of a tensor's codes can have."""
    stem, _, last = key.rpartition(".")
    older = (f"{stem}.scale_weight",) if stem and last == "weight" else ()
    return (*older, f"{key}_scale", f"{key}_scale_inv")


def may_have_scales(keys: Iterable[str]) -> bool:
    """Whether one of the names can be that of the scale of another tensor's codes."""
    return any(key.endswith(_OF_CODES) for key in keys)


def weights_scaled_by(scale: str, *, numbers: int) -> Iterator[str]:
    """The names that a weight can have to which a scale or marker of this name and size belongs."""
    stem, dot, last = scale.rpartition(".")
    if last in SCALES and (numbers == 1 or last not in ALSO_LEARNED):
        yield f"{stem}{dot}weight"
    for ending in _AFTER_WEIGHT:
        if last.endswith(ending):
            yield scale.removesuffix(ending)
