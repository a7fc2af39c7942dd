"""Which tensors are averages of others (EMA), and of which. Knows names only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

# How the names of averages begin: the LDM code's, which drops the dots behind it, and others'.
_PREFIXES = ("model_ema.", "ema_model.", "ema.", "ema_params.")
MARKERS = frozenset(f"{prefix}{word}" for prefix in _PREFIXES for word in ("decay", "num_updates", "step"))

# Sub-models of a diffusers folder that training writes beside the live ones: `unet_ema`.
_FOLDER_SUFFIX = "_ema"

_DOTLESS = "diffusion_model"


def is_average(name: str, folder: str = "") -> bool:
    """Whether a tensor is an average, or belongs to the bookkeeping of averages."""
    return name.startswith(_PREFIXES) or folder.endswith(_FOLDER_SUFFIX)


def live_folder(folder: str) -> str:
    """The sub-model that a folder holds the averages of; any other folder is its own."""
    return folder.removesuffix(_FOLDER_SUFFIX)


def live_names(
    averages: Iterable[str], live: Iterable[str], restore: Callable[[str], str | None]
) -> dict[str, str]:
    """What each average copies: the key of the same file, else one restored by rule, else its own name.

    `restore` puts the dots back into a U-Net's name without dots.
    """
    twins = _dotless(live)
    return {name: _live_name(name, twins, restore) for name in averages}


def _dotless(live: Iterable[str]) -> dict[str, str]:
    """The live names by themselves without dots, as the LDM code names their averages."""
    table: dict[str, str] = {}
    for name in live:
        table.setdefault(name.removeprefix("model.").replace(".", ""), name)
    return table


def _live_name(name: str, twins: Mapping[str, str], restore: Callable[[str], str | None]) -> str:
    own = name[name.index(".") + 1 :]
    bare = own.removeprefix("module.").removeprefix("model.").replace(".", "")
    if twin := twins.get(bare):
        return twin
    if "." in own:
        return own
    if own.startswith(_DOTLESS) and (restored := restore(own.removeprefix(_DOTLESS))):
        return f"model.{_DOTLESS}.{restored}"
    # What can be restored without rules: the dot before the kind.
    return re.sub(r"(weight|bias)\Z", r".\1", own)
