"""Which networks a model file holds: a U-Net, its text encoders and its VAE, a language model beside eyes.

Knows the words that tools put before a network's own names; refuses to know what lies inside. Inside,
a network has the same names wherever it came from, so that one set of rules serves them all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

DENOISER = "denoiser"  # what it is called, `unet` or `transformer`, its architecture tells
MAIN = "main"  # a network that no word announces, or a language model beside an image encoder
OTHER = "other"

MAX_ENCODERS = 16  # text encoders of one file; HiDream has the most, four
MAX_WRAPPERS = 4  # words around a whole network; `model.model.` is the most that is seen


@dataclass(frozen=True, slots=True)
class Region:
    """The keys that form one network."""

    role: str  # DENOISER, MAIN, or a part: "vae", "text_encoder_2", "image_encoder", OTHER
    names: Mapping[str, str]  # raw key -> the name inside the network


def dissect(names: Mapping[str, str], folders: Mapping[str, str]) -> list[Region]:
    """The networks of a model, the one that gives the blocks first.

    `names` are raw keys and what `unwrap` has left of them; `folders` tells the keys that lie in a
    sub-model of a diffusers folder, and which.
    """
    regions: dict[str, dict[str, str]] = {}
    encoders = _encoders(names.values())
    for key, name in names.items():
        if folder := folders.get(key):
            role, inside = _folder_role(folder), name.removeprefix(f"{folder}.")
        else:
            role, inside = _place(name, encoders)
        regions.setdefault(role, {})[key] = inside
    if DENOISER in regions and MAIN in regions:
        regions[OTHER] = regions.get(OTHER, {}) | regions.pop(MAIN)
    found = [Region(role, inside) for role, inside in regions.items()]
    return sorted(found, key=lambda region: (_rank(region.role), -len(region.names), region.role))


def unwrap(keys: Iterable[str]) -> dict[str, str]:
    """The keys without what training put around the model: `module.`, `_orig_mod.`, `base_model.model.`.

    A key whose bare name another key has keeps its own.
    """
    keys = list(keys)
    bare = {key: _unwrapped(key) for key in keys}
    if len(set(bare.values())) < len(bare):
        owners: dict[str, list[str]] = {}
        for key, name in bare.items():
            owners.setdefault(name, []).append(key)
        bare = {key: name if owners[name] == [key] else key for key, name in bare.items()}
        if len(set(bare.values())) < len(bare):  # a bare name is that which another key keeps
            return {key: key for key in keys}
    return bare


def variants(names: Collection[str]) -> Iterable[int]:
    """How many letters all names of a network can do without: 0, and those of a word that wraps them all."""
    yield 0
    length = 0
    first = next(iter(names), "")
    for _ in range(MAX_WRAPPERS):
        match = _COMMON.match(first, length)
        if not match or not all(name.startswith(match[0], length) for name in names):
            return
        length = match.end()
        yield length


def _unwrapped(key: str) -> str:
    if "module." not in key and "_orig_mod." not in key and "base_" not in key:  # nearly all
        return key
    name = _TRAINING.sub("", key)
    return name.replace("._orig_mod.", ".").replace(".base_layer.", ".")


def _place(name: str, encoders: Mapping[str, str]) -> tuple[str, str]:
    """The role of the network that a name lies in, and its name there."""
    if not (match := _REGION.match(name)):
        return MAIN, name
    kind = match.lastgroup or MAIN
    inside = name[match.end() :]
    if kind == "encoder":
        role = encoders.get(_encoder_word(match[0]))
        return (role, inside) if role else (OTHER, name)
    if kind == "numbered":
        return match[0].removesuffix("."), inside
    return _ROLES[kind], inside


def _encoders(names: Iterable[str]) -> dict[str, str]:
    """The parts of the text encoders of a checkpoint, by the words before their names, in their order.

    No more than a model may have: each is compared with all of another model's.
    """
    words = {_encoder_word(m[0]) for name in names if (m := _REGION.match(name)) and m.lastgroup == "encoder"}
    ordered = sorted(words, key=lambda word: (_ENCODERS.index(word) if word in _ENCODERS else 99, word))
    kept = ordered[:MAX_ENCODERS]
    return {word: "text_encoder" + (f"_{n}" if n > 1 else "") for n, word in enumerate(kept, 1)}


def _encoder_word(prefix: str) -> str:
    """What tells the text encoders of one file apart: `clip_g` of `text_encoders.clip_g.transformer.`."""
    words = prefix.split(".")
    return words[2] if words[0] == "conditioner" else words[1] if words[0] == "text_encoders" else words[0]


def _folder_role(folder: str) -> str:
    """A sub-model's name is its part; averages are copies, and the caller knows them by their name."""
    return DENOISER if folder in ("unet", "transformer") else folder


def _rank(role: str) -> int:
    """Networks whose blocks a merge addresses come first."""
    order = (DENOISER, MAIN, "prior", "decoder")
    return order.index(role) if role in order else len(order)


_TRAINING = re.compile(r"^(?:module\.|_orig_mod\.|base_model\.model\.|base_model\.)+")

# Words around a whole network that is on its own in its file.
_COMMON = re.compile(r"(?:model|net|network|transformer|module)\.")

_ROLES = {
    "denoiser": DENOISER,
    "vae": "vae",
    "main": MAIN,
    "image": "image_encoder",
    "audio": "audio_encoder",
}

_REGION = re.compile(
    r"(?P<denoiser>(?:model\.)?diffusion_model\.|unet\.)"
    r"|(?P<vae>first_stage_model\.|vae\.)"
    r"|(?P<encoder>cond_stage_model\.(?:transformer\.|model\.)?"
    r"|conditioner\.embedders\.(?:0|[1-9][0-9]{0,3})\.(?:transformer\.|model\.)?"
    r"|text_encoders\.[A-Za-z0-9_-]+\.(?=[^.]+\.|logit_scale$|spiece_model$)"
    r"(?:transformer\.|model\.(?!layers\.|embed_tokens\.|norm\.))?|te\.)"
    r"|(?P<numbered>text_encoder(?:_[1-9])?\.)"
    r"|(?P<main>(?:model\.)?language_model\.)"
    r"|(?P<image>(?:model\.)?(?:vision_tower|visual|vision_model|image_encoder)\.|(?=visual_projection\.))"
)

# ComfyUI's names, in the order in which diffusers numbers the text encoders of SD 3 and Flux.
_ENCODERS = ("clip_l", "clip_h", "clip_g", "t5xxl", "t5base")
