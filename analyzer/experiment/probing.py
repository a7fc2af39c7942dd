"""Ask a function of the user's own about one model after the other. Knows no pictures and no measures.

`--probe MODULE:FUNCTION` imports that module and runs that function: code that the user has named, in this
process and with its rights. What it returns takes the place of a picture's latents.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from analyzer import __version__
from analyzer.checkpoints import Checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment.probe_functions import ProbeFunction, find_probe
from analyzer.experiment.probe_weights import ModelOnDisk, StateInMemory, own_place
from analyzer.experiment.records import Column, Shown
from analyzer.merging.inputs import Inputs
from analyzer.model_folder import companions

_LIBRARIES = ("numpy", "torch", "transformers")
_WANTED = "return one array of numbers: of NumPy or torch, or nested lists"


def open_prober(
    text: str,
    inputs: Inputs,
    *,
    prompts: Sequence[str] = (),
    device: str = "cpu",
    dtype: str = "fp32",
    threads: int | None = None,
) -> Prober:
    """Import the probe that `text` names, and so run its module. Reads nothing of the models yet.

    The function is given what it names among its parameters:
    - `state_dict`: dict of the mixed model's tensors under A's keys, as torch tensors in the computer's
      memory, with the dtypes of A's files. One model is held; whoever builds a network of copies holds two.
    - `model_dir`: where the mixed model lies as files, a folder or a single one like A (`str`); beside
      `state_dict` it is A's own folder, for configurations and tokenizers.
    - `prompts`: tuple of texts, empty if none was given; `device` and `dtype`: "cuda:0" and "fp16", for
      whoever follows them; `seed`: a whole number. Without `seed` it is asked once for each model.

    `threads` are those of the merges. Raises AnalyzerError as `find_probe` does.
    """
    return Prober(
        find_probe(text), inputs, prompts=tuple(prompts), device=device, dtype=dtype, threads=threads
    )


class Prober:
    """A `Subject` that shows what a function returns for the weights that are held.

    `identity` is a digest (hex) of what an output depends on beside the weights and the seed: the probe's
    name and the text of its module, what of prompts, device and dtype it takes, the versions of the
    libraries, and of files beside A's weights their sizes and times; of what that module imports nothing.
    """

    def __init__(
        self,
        function: ProbeFunction,
        inputs: Inputs,
        *,
        prompts: tuple[str, ...],
        device: str,
        dtype: str,
        threads: int | None,
    ) -> None:
        self._function, self._a = function, inputs.a
        self._given: dict[str, object] = {"prompts": prompts, "device": device, "dtype": dtype}
        self.identity = _identity(function, self._given, inputs.a)
        self._state = StateInMemory(inputs, threads=threads) if "state_dict" in function.takes else None
        self._disk = ModelOnDisk(inputs, threads=threads) if self._state is None else None
        self._shapes: dict[int | None, tuple[int, ...]] = {}  # by seed: of the models shown so far

    @property
    def seeded(self) -> bool:
        """Whether what is shown depends on the seed; if not, one look at each model is all there is."""
        return "seed" in self._function.takes

    def take(self, column: Column) -> None:
        """Hold the weights of this column; every tensor that it does not name is A's, bit for bit.

        Raises what a merge raises: CheckpointError, or OutputError where there is no room for files.
        """
        if self._state is not None:
            self._state.take(column)
            folder = own_place(self._a)
            self._given["model_dir"] = str(folder if folder.is_dir() else folder.parent)
        else:
            assert self._disk is not None
            self._given["model_dir"] = str(self._disk.take(column))

    def show(self, seed: int) -> Shown:
        """What the function returns, as fp32 in its own shape.

        Raises AnalyzerError if it fails, if that is no array of finite numbers or has another shape than
        another model's, and if it wrote into the tensors that it was given.
        """
        given = {**self._given, "seed": seed}
        if self._state is not None:
            given["state_dict"] = self._state.tensors()
        started = time.perf_counter()
        try:
            found = self._function(given)
        finally:
            seconds = time.perf_counter() - started
            written = self._state.mend() if self._state is not None else None
        try:
            _require_unwritten(written)
            output = _array(found)
            _require_shape(output, self._shapes.setdefault(seed if self.seeded else None, output.shape))
        except AnalyzerError as error:
            raise AnalyzerError(f"--probe {self._function.text}: {error}") from error
        return Shown(output, None, seconds)

    def close(self) -> None:
        """Let go of the weights, and remove what was written for the function."""
        for weights in (self._state, self._disk):
            if weights is not None:
                weights.close()


def _identity(function: ProbeFunction, given: Mapping[str, object], a: Checkpoint) -> str:
    content = function.source.read_bytes() if function.source and function.source.is_file() else b""
    versions = [__version__]
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{library} {version(library)}")
    taken = sorted((name, value) for name, value in given.items() if name in function.takes)
    beside = _beside(a) if "model_dir" in function.takes else []
    said = repr((function.text, taken, versions, beside)).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + said).hexdigest()


def _beside(a: Checkpoint) -> list[tuple[str, int, int]]:
    """Configurations and tokenizers that a probe may read, as far as the system tells one from another."""
    folder = a.folder or a.files[0].parent
    paths = companions(a).copies.values() if a.folder else folder.glob("*.json")
    found = [(path.relative_to(folder).as_posix(), path.stat()) for path in paths if path.is_file()]
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)


def _require_unwritten(key: str | None) -> None:
    if key is not None:
        raise AnalyzerError(
            f"changes {key!r} of state_dict in place, which the next models share; let it change a clone: "
            "state_dict[key].clone()"
        )


def _require_shape(output: NDArray[np.float32], before: tuple[int, ...]) -> None:
    if output.shape != before:
        raise AnalyzerError(
            f"returned an array of shape {output.shape}, and {before} for another model, so that the two "
            "cannot be compared; return the same shape for all"
        )


def _array(found: object) -> NDArray[np.float32]:
    """What a probe returned, in fp32; AnalyzerError for what is no array of finite numbers."""
    values = _as_numpy(found)
    if values.dtype.kind not in "biuf":
        kind = type(found).__name__
        raise AnalyzerError(f"returned what is no array of real numbers ({kind}); {_WANTED}")
    if not values.size:
        raise AnalyzerError(f"returned an array without a number (shape {values.shape}); {_WANTED}")
    with np.errstate(over="ignore"):
        output = np.array(values, np.float32)  # a copy: the function may use its array again
    if bad := int(output.size - np.count_nonzero(np.isfinite(output))):
        raise AnalyzerError(
            f"returned {bad} of {output.size} values that are NaN, Inf or too large for fp32; return finite "
            "numbers"
        )
    return output


def _as_numpy(found: object) -> NDArray[np.generic]:
    try:
        torch = sys.modules.get("torch")  # whoever returns a tensor has imported it
        if torch is not None and isinstance(found, torch.Tensor):
            tensor = found.detach().cpu()
            return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
        return np.asarray(found)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise AnalyzerError(f"returned what is no array ({reason}); {_WANTED}") from error
