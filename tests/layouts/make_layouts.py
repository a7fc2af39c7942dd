"""Write `*.layout` files: from the classes of transformers and diffusers, or from any list of keys.

    python tests/layouts/make_layouts.py [NAME …]    the layouts that models.toml has, or some of them
    python tests/layouts/make_layouts.py --compress  the notation of lines "key, tab, shape, tab, dtype"

The first form needs both libraries; it builds their models without values, on torch's meta device, with the
published configurations. The layouts that are not in models.toml (single files in the names of the original
repositories) came from lists of keys. No test imports this module.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from notation import DIGITS, Kind, compress, expand

FOLDER = Path(__file__).resolve().parent

Table = Mapping[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Write the layouts that the command line names."""
    if arguments and arguments[0] == "--compress":
        layout = _read(sys.stdin)
        averaged = {key: layout.pop(key) for key in list(layout) if key.startswith("model_ema.")}
        print("\n".join(compress(layout) + compress(averaged, token=DIGITS)))  # noqa: T201
        return
    models = tomllib.loads((FOLDER / "models.toml").read_text(encoding="utf-8"))
    for name in arguments or models:
        about = models[name]["about"].splitlines()
        lines = [f"# {line}" for line in about] + compress(build(_whole(models, name)))
        (FOLDER / f"{name}.layout").write_text("\n".join(lines) + "\n", encoding="utf-8")


def build(model: Table) -> dict[str, Kind]:
    """The keys of a published file, out of a class that has been given no values."""
    import diffusers
    import torch
    import transformers

    config = model.get("config", {}) | dict.fromkeys(model.get("unset", ()))
    with torch.device("meta"):
        if hasattr(transformers, model["class"]):
            cls = getattr(transformers, model["class"])
            module = cls(cls.config_class(**config))
        else:
            module = getattr(diffusers, model["class"])(**config)
    layout: dict[str, Kind] = {}
    for key, tensor in module.state_dict().items():
        if "left_out" in model and re.search(model["left_out"], key):
            continue
        dtype = model.get("dtype", "BF16") if tensor.is_floating_point() else "I64"
        layout[_renamed(key, model.get("renamed", ()))] = (dtype, tuple(tensor.shape))
    for pattern, dtype, shape in model.get("added", ()):
        layout |= dict.fromkeys(expand(pattern), (dtype, _shape(shape)))
    return STORED[model["stored"]](layout) if "stored" in model else layout


def _whole(models: Mapping[str, Table], name: str) -> Table:
    """A table, with what it takes from the one that it is like."""
    own = models[name]
    if "like" not in own:
        return own
    other = models[own["like"]]
    return {**other, **own, "config": {**other.get("config", {}), **own.get("config", {})}}


def _renamed(key: str, rules: Iterable[Sequence[str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _read(lines: Iterable[str]) -> dict[str, Kind]:
    rows = (line.rstrip("\n").split("\t") for line in lines)
    return {key: (dtype, _shape(shape)) for key, shape, dtype in rows}


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("x")) if text not in {"", "-"} else ()


# --- Quantised files ---


def _fp8_in_blocks(layout: dict[str, Kind]) -> dict[str, Kind]:
    """DeepSeek's: a number for every 128 x 128 elements of a linear layer."""
    stored: dict[str, Kind] = {}
    for key, (dtype, shape) in layout.items():
        stored[key] = (dtype, shape)
        if re.search(r"(?<!eh)_proj(_with_mqa)?\.weight$", key):
            stored[key] = ("F8_E4M3", shape)
            stored[f"{key}_scale_inv"] = ("F32", tuple(-(-n // 128) for n in shape))
        elif key.endswith("e_score_correction_bias"):
            stored[key] = ("F32", shape)
    return stored


def _with_next_token(layout: dict[str, Kind]) -> dict[str, Kind]:
    """DeepSeek V3 predicts a second token with a layer more, behind the last."""
    last = {k.replace("layers.60.", "layers.61."): kind for k, kind in layout.items() if "layers.60." in k}
    embedding = layout["model.embed_tokens.weight"]
    width = embedding[1][1]
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        last[f"model.layers.61.{norm}.weight"] = ("BF16", (width,))
    last["model.layers.61.eh_proj.weight"] = ("BF16", (width, 2 * width))
    last["model.layers.61.embed_tokens.weight"] = embedding
    last["model.layers.61.shared_head.head.weight"] = embedding
    return _fp8_in_blocks(layout | last)


def _fp8_in_channels(layout: dict[str, Kind]) -> dict[str, Kind]:
    """What compressed-tensors stores: a number for every row of a linear layer."""
    stored = dict(layout)
    for key, (_, shape) in layout.items():
        if key.endswith("_proj.weight"):
            stored[key] = ("F8_E4M3", shape)
            stored[f"{key}_scale"] = ("BF16", (shape[0], 1))
    return stored


def _mxfp4(layout: dict[str, Kind]) -> dict[str, Kind]:
    """The experts of gpt-oss: 32 numbers of 4 bits and an exponent, rows first."""
    stored: dict[str, Kind] = {}
    for key, (dtype, shape) in layout.items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[key] = (dtype, shape)
            continue
        experts, inner, outer = shape
        stored[f"{key}_blocks"] = ("U8", (experts, outer, inner // 32, 16))
        stored[f"{key}_scales"] = ("U8", (experts, outer, inner // 32))
    return stored


def _gguf(layout: dict[str, Kind]) -> dict[str, Kind]:
    """The names and types of a Q4_K_M file: llama.cpp spends more bits on some values and outputs."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "mlp.down_proj": "ffn_down",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
    }
    stored: dict[str, Kind] = {}
    for key, (_, shape) in layout.items():
        for old, new in names.items():
            key = key.replace(old, new)
        layer = int(key.split(".")[1]) if key.startswith("blk.") else 0
        more = layer < 4 or layer >= 28 or (layer - 4) % 3 == 2  # use_more_bits, llama.cpp, for 32 layers
        fine = key == "output.weight" or (more and key.endswith(("attn_v.weight", "ffn_down.weight")))
        stored[key] = ("F32" if len(shape) == 1 else "Q6_K" if fine else "Q4_K", shape)
    return stored


STORED: Mapping[str, Callable[[dict[str, Kind]], dict[str, Kind]]] = {
    "with_next_token": _with_next_token,
    "fp8_in_channels": _fp8_in_channels,
    "mxfp4": _mxfp4,
    "gguf": _gguf,
}

if __name__ == "__main__":
    main(sys.argv[1:])
