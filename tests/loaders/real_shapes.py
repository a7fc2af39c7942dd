"""Files with all keys of published ones, in which the shapes that loaders look at are the real ones."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from detection import Model, Tensor, comfyui, webui

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts


class Looked(Mapping[str, Tensor]):
    """A model that remembers which shapes were asked for."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.keys_read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        tensor = self._model[key]
        self.keys_read.add(key)
        return tensor

    def __contains__(self, key: object) -> bool:
        return key in self._model

    def __iter__(self) -> Iterator[str]:
        return iter(self._model)

    def __len__(self) -> int:
        return len(self._model)


def build(name: str, path: Path, *, seed: int, keep: Collection[str] = ()) -> Path:
    """A file with all keys of a published one; shapes that loaders look at, or to `keep`, are as there."""
    looked = Looked(layouts.load(name))
    comfyui(looked)
    webui(looked)
    rng = np.random.default_rng(seed)
    tensors = layouts.tiny(name, seed=seed)
    for key in sorted(looked.keys_read | set(keep) & layouts.load(name).keys()):
        if layouts.load(name)[key][0] not in ("I64", "I32", "U8"):
            tensors[key] = rng.standard_normal(layouts.load(name)[key][1], np.float32)
    return layouts.write(name, path, tensors)
