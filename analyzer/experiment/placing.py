"""Where a model's tensors live in a loaded pipeline, and how values get there. Knows no columns and no files.

diffusers renames tensors while it loads a single file, splits fused ones and transposes some. So the
parameters of the pipeline are paired with the model's tensors as those of two models are, by what they mean;
and each place is proved: it must hold the value that our own reader finds in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.categories import categorize
from analyzer.checkpoints import Checkpoint
from analyzer.errors import AnalyzerError, PairingError
from analyzer.kernels.formats import FLOATS
from analyzer.pairing import Side, pair
from analyzer.records import Run, TensorInfo, View


@dataclass(frozen=True, slots=True)
class Spot:
    """Where elements of a model's tensor that follow one another live in the pipeline."""

    module: Any  # that owns the parameter: moving or casting a module may put another tensor in its place
    name: str
    start: int  # the first one's place in the model's tensor, in elements
    count: int
    offset: int  # the first one's place in the parameter, row-major, in elements
    view: View | None  # in which order they lie there; None: one after the other

    def tensor(self) -> Any:
        """The elements in the parameter, in the model's order; writing to them changes the pipeline."""
        parameter = getattr(self.module, self.name).detach()
        assert parameter.is_contiguous(), "elements are counted row by row"
        at = parameter.storage_offset() + self.offset
        if self.view is None:
            return parameter.as_strided((self.count,), (1,), at)
        shape, strides = (self.count // self.view.columns, self.view.columns), (self.view.stride, 1)
        if self.view.transposed:
            shape, strides = shape[::-1], strides[::-1]
        return parameter.as_strided(shape, strides, at)


Placing = Mapping[str, tuple[Spot, ...]]  # by the model's key


def place(model: Checkpoint, pipeline: Any) -> Placing:
    """Where each of the model's floating-point tensors lives; those without a place do not paint.

    Every parameter of the pipeline has its place in the model, and every place holds the model's value, cast
    to the parameter's dtype. Raises AnalyzerError if not: then the pipeline is another model.
    """
    parameters = dict(_parameters(pipeline))
    infos = {key: parameter.info for key, parameter in parameters.items()}
    sides = [Side(model.infos, str(model.path), categorize(model.infos.values()).networks)]
    sides.append(Side(infos, "the pipeline", categorize(infos.values()).networks))
    try:
        pairs = pair(*sides).pairs
    except PairingError as error:
        raise AnalyzerError(
            f"{model.path}: none of its tensors is found in the pipeline; {_WAY_OUT}"
        ) from error
    placing = {
        found.a.key: tuple(_spot(run, parameters[run.b.key]) for run in found.parts)
        for found in pairs
        if not found.partial and found.a.dtype in FLOATS
    }
    _require_all_placed(model, placing, parameters)
    _require_equal(model, placing)
    return placing


def read_tensor(model: Checkpoint, key: str) -> Any:
    """A floating-point tensor of the model, flat, in the dtype of its values."""
    info = model.infos[key]
    raw = np.empty(info.nbytes, np.uint8)
    model.read_into(info, 0, raw)
    return as_tensor(raw, info.dtype)


def as_tensor(raw: NDArray[np.uint8], dtype: str) -> Any:
    """Bytes seen as a flat tensor of torch; `dtype` is the safetensors name of a floating-point format."""
    import torch

    from analyzer.kernels.on_torch import TORCH_DTYPES

    if not raw.size:  # torch does not view nothing as a wider dtype
        return torch.empty(0, dtype=TORCH_DTYPES[dtype])
    return torch.from_numpy(raw).view(TORCH_DTYPES[dtype])


def put(spots: tuple[Spot, ...], values: Any) -> None:
    """Write the flat values of a model's tensor to its places, cast to the dtype that each has."""
    for spot in spots:
        target = spot.tensor()
        target.copy_(values[spot.start : spot.start + spot.count].reshape(target.shape))


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A tensor of one of the pipeline's networks."""

    module: Any
    name: str
    info: TensorInfo  # as if it lay in a file of its own, in fp32
    storage: int  # where its memory begins: the same for tied ones


def _parameters(pipeline: Any) -> Iterator[tuple[str, _Parameter]]:
    """All parameters and stored buffers of floating-point numbers, by component and name."""
    import torch

    for part, network in pipeline.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        for name, tensor in network.state_dict(keep_vars=True).items():
            if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
                continue
            owner, _, last = name.rpartition(".")
            key = f"{part}.{name}"
            info = TensorInfo(key, "F32", tuple(tensor.shape), 0, 4 * tensor.numel(), part=part)
            yield key, _Parameter(network.get_submodule(owner), last, info, tensor.data_ptr())


def _spot(run: Run, parameter: _Parameter) -> Spot:
    return Spot(
        parameter.module, parameter.name, run.start, run.b.numel, run.b.offset // run.b.itemsize, run.b.view
    )


def _require_all_placed(model: Checkpoint, placing: Placing, parameters: Mapping[str, _Parameter]) -> None:
    """A parameter that nothing in the model stands for was left as chance, or the library, made it."""
    seen = {(id(spot.module), spot.name) for spots in placing.values() for spot in spots}
    storages = {
        each.storage for each in parameters.values() if (id(each.module), each.name) in seen
    }  # tied ones are stored once, under either name
    lacking = [key for key, each in parameters.items() if each.storage not in storages and each.info.numel]
    if lacking:
        raise AnalyzerError(
            f"{model.path}: {len(lacking)} weights of the pipeline have no counterpart in it, such as "
            f"{lacking[0]}; {_WAY_OUT}"
        )


def _require_equal(model: Checkpoint, placing: Placing) -> None:
    """Every place must hold what the file holds."""
    for key, spots in placing.items():
        values = read_tensor(model, key)
        for spot in spots:
            there = spot.tensor()
            wanted = values[spot.start : spot.start + spot.count].reshape(there.shape)
            wanted = wanted.to(there.device).to(there.dtype)
            # What is not a number equals nothing, and is the same here and there all the same.
            if not bool(((wanted == there) | ((wanted != wanted) & (there != there))).all()):
                raise AnalyzerError(
                    f"{model.path}: the pipeline holds other values than {key}: diffusers changed them on "
                    f"loading, or took them from elsewhere; {_WAY_OUT}"
                )


_WAY_OUT = "give the --config of its own architecture, or the model in another layout"
