"""Tell a difference from a model by the names of its keys: LoRA, LyCORIS and their like. Reads no values.

Such a file holds what is to be added to a model, mostly as factors of a product; comparing it with a
model, or merging it into one as if it were one, gives numbers without a meaning. The names are those
that kohya's sd-scripts, LyCORIS, PEFT, diffusers and ComfyUI write.
https://github.com/huggingface/peft, src/peft/utils/save_and_load.py
https://github.com/KohakuBlueleaf/LyCORIS, lycoris/modules
https://github.com/comfyanonymous/ComfyUI, comfy/weight_adapter
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from analyzer.errors import CheckpointError

_END = r"(?:\.(?!weight$)(?P<adapter>[^.]+))?(?:\.weight)?$"  # PEFT puts the adapter's name before `weight`

# What it is -> how its keys end. The first that fits names the key.
_ENDINGS = {
    "a LoHa (LyCORIS)": re.compile(rf"[._]hada_(?:[wt]\d)(?:_[ab])?{_END}"),
    "a LoKr (LyCORIS)": re.compile(rf"[._]lokr_(?:[wt]\d)(?:_[ab])?{_END}"),
    "an OFT adapter": re.compile(rf"[._](?:oft_(?:blocks|diag|R|r)|boft_[RSs]){_END}"),
    "an IA3 adapter": re.compile(rf"\.(?:ia3_l|on_input){_END}"),
    "a LoRA": re.compile(
        r"[._]lora\d*(?:_linear_layer)?[._]"  # XLabs numbers them: proj_lora1
        rf"(?:up|down|mid|A|B|a|b|embedding_[AB]|magnitude_vector){_END}"
    ),
    "a set of weight differences": re.compile(rf"\.(?:diff|diff_b|w_norm|b_norm){_END}"),
}
# Only a key in which this is found can have one of the endings; most models have no such key.
_HINT = re.compile(r"lora|hada_|lokr_|oft_|ia3_l|on_input|\.diff(?:_b)?(?:\.|$)|\.[wb]_norm")
# The same for all keys together, each ended by a line break.
_HINTS = (
    *("lora", "hada_", "lokr_", "oft_", "ia3_l", "on_input", ".w_norm", ".b_norm"),
    *(".diff.", ".diff\n", ".diff_b"),
)
_PREFIX = re.compile(
    r"(?:lora|lycoris|oft|boft)_(?:unet|te\d?|transformer|prior|text_encoder_?\d?|llm)[._]|lycoris_"
)
_PREFIXES = ("lora_", "lycoris_", "oft_", "boft_")  # with which it begins
_COMPANIONS = frozenset({"alpha", "dora_scale", "scale", "scalar", "rescale", "reshape_weight", "bias"})
_CONTROL_MARKER = "lora_controlnet"  # an empty key in Stability's Control-LoRAs
_EMBEDDING_SETS = ({"clip_l"}, {"clip_g"}, {"clip_l", "clip_g"}, {"emb_params"})

_UNMERGED = (
    "is a model with a LoRA that PEFT has attached and not merged, so its weights are not those that it "
    "works with; call merge_and_unload() and save the result, then compare that"
)


def refuse_difference(path: Path, keys: Collection[str]) -> None:
    """CheckpointError, with the way out, if these are the keys of a difference and not of a model."""
    what = _describe(keys)
    if what is not None:
        raise CheckpointError(f"{path}: {what}")


def refuse_adapter(path: Path) -> None:
    """The same of a folder in which PEFT stored an adapter and nothing else."""
    raise CheckpointError(f"{path}: {_sentence('a LoRA or another adapter')}")


def _describe(keys: Collection[str]) -> str | None:
    if _is_embedding(keys):
        return (
            "is a textual inversion, a few vectors for new words, and not a model; it changes no weights, so "
            "there is nothing to compare it with: name a model"
        )
    if _CONTROL_MARKER in keys:
        return _sentence("a Control-LoRA")
    text = "\n".join((*keys, ""))
    if not any(hint in text for hint in _HINTS) and not any(key.startswith(_PREFIXES) for key in keys):
        return None  # most models: nothing below could find anything
    kinds: Counter[str] = Counter()
    stems: set[str] = set()
    adapters: set[str] = set()
    rest: list[str] = []
    for key in keys:
        kind, found = _ending(key)
        if found is None:
            rest.append(key)
        else:
            kinds[kind] += 1
            stems.add(key[: found.start()])
            adapters.add(found["adapter"] or "")
    if kinds and any(".base_layer." in key for key in keys):
        # Phi-4-multimodal is published like this: the model works only with both of its adapters.
        return _UNMERGED if len(adapters) == 1 else None
    beside = sum(_PREFIX.match(key) is not None or _is_companion(key, stems) for key in rest)
    if 2 * (kinds.total() + beside) <= len(keys):
        return None
    return _sentence(kinds.most_common(1)[0][0] if kinds else "a LoRA")


def _sentence(what: str) -> str:
    return (
        f"is {what}: a difference and not a model; apply it to its base model first, for instance with the "
        "tool that made it, and compare the result"
    )


def _ending(key: str) -> tuple[str, re.Match[str] | None]:
    """What a key with this ending belongs to."""
    if _HINT.search(key):
        for kind, ending in _ENDINGS.items():
            if found := ending.search(key):
                return kind, found
    return "", None


def _is_companion(key: str, stems: Collection[str]) -> bool:
    """Whether it is a scale that lies beside the factors of the same layer."""
    stem, _, name = key.rpartition(".")
    return name in _COMPANIONS and stem in stems


def _is_embedding(keys: Collection[str]) -> bool:
    """One or two vectors under the names that textual inversions have, or `<word>` as diffusers has it."""
    return (
        set(keys) in _EMBEDDING_SETS
        or (len(keys) > 0 and all(key.startswith("string_to_") for key in keys))
        or (len(keys) > 0 and all(key.startswith("<") and key.endswith(">") for key in keys))
    )
