"""Which of the things that a torch pickle held are the model's tensors. Reads no files.

Training frameworks wrap the state dict and add epochs, optimizers and callbacks around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.checkpoints.checkpoint import require_key, shown
from analyzer.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# Under which keys frameworks put the state dict. The first that holds tensors is taken; of plain and
# averaged weights side by side, `params_ema` is what the upscalers that use these names publish.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "params_ema", "params", "ema")


def named_tensors(path: Path, loaded: object) -> dict[str, torch.Tensor]:
    """The tensors of the state dict, by key, in its order; CheckpointError if there are none.

    Takes the dict under the first of WRAPPERS that holds tensors, else the loaded object itself.
    A dict of tensors inside it counts as a prefix: {"encoder": {"weight": …}} is "encoder.weight".
    What is not a tensor, or has a name that is not text, is left out: epochs, learning rates.
    """
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: holds a {type(loaded).__name__} where a dict of named tensors should be; "
            "save the model's state dict"
        )
    wrapped = (_flatten(path, dict.get(loaded, name)) for name in WRAPPERS)
    tensors = next(filter(None, wrapped), None) or _flatten(path, loaded)
    if not tensors:
        raise CheckpointError(f"{path}: holds no named tensors; save the model's state dict")
    for key in tensors:
        require_key(path, key)
    return tensors


def _flatten(path: Path, state: object) -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for key, tensor in _leaves(state, prefix=""):
        if key in flat:
            raise CheckpointError(f"{path}: two tensors are both named {shown(key)}; rename one of them")
        flat[key] = tensor
    return flat


def _leaves(state: object, *, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if not isinstance(state, dict):
        return
    # Through the class: a pickle may give an OrderedDict attributes that hide its own methods.
    for name, value in dict.items(state):
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(name, str) and not prefix:
            yield from _leaves(value, prefix=f"{name}.")
