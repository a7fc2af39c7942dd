"""What a file of A says of itself, and a merge leaves true. Knows names, no values."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

from analyzer.recipes.history import FOREIGN

# Metadata that says what the file's bytes hash to, which a merge makes false:
# modelspec.hash_sha256, sshs_model_hash, sshs_legacy_hash, new_sd_model_hash …
_HASHES = re.compile(r"(^|[._])(hash|sha256)([._]|$)", re.IGNORECASE)
_QUANTIZED = "_quantization_metadata"  # ComfyUI's: {"layers": {name: {"format": …}}}


def still_true(metadata: Mapping[str, str], *, plain: Collection[str]) -> dict[str, str]:
    """What a file of A says of itself and a merge leaves true: no hashes, no recipe of another merge.

    `plain` are the weights that are not quantized any more, as the file calls them: what describes their
    codes goes. Recipes go into the history instead.
    """
    kept = {name: text for name, text in metadata.items() if not _HASHES.search(name) and name not in FOREIGN}
    if plain and _QUANTIZED in kept:
        left = _of_other_layers(kept.pop(_QUANTIZED), plain)
        kept |= {} if left is None else {_QUANTIZED: left}
    return kept


def _of_other_layers(text: str, plain: Collection[str]) -> str | None:
    """ComfyUI's description without these weights; None if no layer is left in it."""
    try:
        described = json.loads(text)
    except (ValueError, RecursionError):
        return None
    layers = described.get("layers") if isinstance(described, dict) else None
    if not isinstance(layers, dict):
        return None
    gone = {key.rpartition(".")[0] for key in plain} | set(plain)
    left = {name: layer for name, layer in layers.items() if name not in gone}
    return json.dumps(described | {"layers": left}) if left else None
