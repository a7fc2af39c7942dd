"""The weights of one column after the other, as a probe wants them: in memory, or as files.

Knows no probes. What it holds is what `analyzer.merge.merge` would write, bit for bit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints import Checkpoint
from analyzer.checkpoints.dtypes import DTYPES
from analyzer.errors import AnalyzerError
from analyzer.experiment.records import Column
from analyzer.merge import merge, plan_merge
from analyzer.merging.in_memory import merged_tensors
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import torch


class StateInMemory:
    """A's tensors in memory, with those in place of them that a column has otherwise.

    Takes the memory of one model and of one tensor more: what a column changes is computed tensor by
    tensor, and read again from A's file for the next one.
    """

    def __init__(self, inputs: Inputs, *, threads: int | None = None) -> None:
        self._inputs, self._threads = inputs, threads
        self._tensors: dict[str, torch.Tensor] = {}  # in A's order
        self._changed: set[str] = set()
        self._column: Column | None = None

    def take(self, column: Column) -> None:
        """Hold this column's tensors."""
        self._column = column
        a = self._inputs.a
        changed = set()
        if column.plan is not None:
            changed = {action.key for action in column.plan.actions if action.verb != "keep"}
        missing = a.infos.keys() - self._tensors.keys()  # all of them at first
        for key in a.infos:
            if key in missing or (key in self._changed and key not in changed):
                self._tensors[key] = _tensor_of_a(a, key)
        self._changed = changed
        if column.plan is None or not changed:
            return
        assert column.recipe is not None
        assert changed <= a.infos.keys(), "a column of the experiment has A's keys"
        for key, dtype, shape, data in merged_tensors(
            self._inputs, column.plan, column.recipe, keys=changed, threads=self._threads
        ):
            self._tensors[key] = _tensor(key, dtype, shape, data)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors under A's keys, in A's order: a mapping of the caller's own, of what is held here."""
        return dict(self._tensors)

    def mend(self) -> str | None:
        """If somebody wrote into the tensors, read them all anew; the key of the first one, else None."""
        # torch counts what is done to a tensor in place, for the sake of its gradients.
        written = next((key for key, tensor in self._tensors.items() if tensor._version), None)
        if written is not None and self._column is not None:
            self._tensors, self._changed = {}, set()
            self.take(self._column)
        return written

    def close(self) -> None:
        """Let go of everything."""
        self._tensors, self._changed, self._column = {}, set(), None


class ModelOnDisk:
    """A's own files, or a temporary copy with what a column has otherwise, written as a merge writes it.

    Takes the room of one model in the folder for temporary files (TMPDIR says which).
    """

    def __init__(self, inputs: Inputs, *, threads: int | None = None) -> None:
        self._inputs, self._threads = inputs, threads
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def take(self, column: Column) -> Path:
        """Where this column's model lies, until the next is taken: a folder, or a file if A is one.

        Of A itself that is A, unless its weights are no safetensors: it is then written like the others.
        """
        self.close()
        plan, recipe = column.plan, column.recipe
        if plan is None or recipe is None:
            if _is_safetensors(self._inputs.a):
                return own_place(self._inputs.a)
            recipe = Recipe(alpha=0.0)
            plan = plan_merge(self._inputs, recipe)
        self._folder = tempfile.TemporaryDirectory(prefix="mergescope-probe-")
        a = self._inputs.a
        name = "model" if a.folder is not None else f"{a.files[0].stem}.safetensors"
        out = Path(self._folder.name) / name
        merge(self._inputs, plan, recipe, out=out, threads=self._threads)
        return out

    def close(self) -> None:
        """Remove the temporary copy."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def own_place(a: Checkpoint) -> Path:
    """A's folder, or its file."""
    return a.folder if a.folder is not None else a.files[0]


def _is_safetensors(a: Checkpoint) -> bool:
    return {shard.format for shard in a.shards} <= {"safetensors"} if a.shards else a.format == "safetensors"


def _tensor_of_a(a: Checkpoint, key: str) -> torch.Tensor:
    info = a.infos[key]
    stored = info.encoded or info
    data = np.empty(stored.nbytes, np.uint8)
    a.read_into(stored, 0, data)
    return _tensor(key, stored.dtype, stored.shape, data)


def _tensor(key: str, dtype: str, shape: tuple[int, ...], data: NDArray[np.uint8]) -> torch.Tensor:
    """The bytes as a tensor, without a copy."""
    import torch

    found = getattr(torch, DTYPES[dtype].torch, None) if dtype in DTYPES else None
    if found is None:
        raise AnalyzerError(
            f"{key!r} is of type {dtype}, which torch {torch.__version__} has not; let the probe take "
            "model_dir alone"
        )
    return torch.from_numpy(data).view(found).reshape(shape)
