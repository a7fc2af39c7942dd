"""Open .ckpt, .pt, .pth and .bin: what torch.save wrote. Runs no code from the file.

The pickle inside goes through torch's own weights-only loader, never through any other. A zip
archive is loaded without its data onto the "meta" device, where tensors have shapes and no values;
their bytes are then read from the file like those of a safetensors file. Into memory go only

- views that are not contiguous, as row-major copies;
- records that were compressed by another tool, and pickles of torch before 1.6, which are no archives;
- whole archives for a torch too old to tell which storage a tensor uses, and those with a tensor that
  has no storage in the file.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from analyzer.checkpoints.checkpoint import Checkpoint, shown
from analyzer.checkpoints.dtypes import BY_TORCH_NAME, DTYPES
from analyzer.checkpoints.refusal import explain_refusal
from analyzer.checkpoints.sources import AbstractSource, FileSource, MemorySource
from analyzer.checkpoints.torch_archive import Archive, read_archive, without_data
from analyzer.checkpoints.torch_leftovers import NAMES, stand_ins
from analyzer.checkpoints.torch_screen import refuse_bombs
from analyzer.checkpoints.torch_state import named_tensors
from analyzer.errors import CheckpointError
from analyzer.records import TensorInfo

if TYPE_CHECKING:
    import torch

# Copies may be larger than the file, since a view can repeat its elements, but not by more than this.
MAX_REPEATED_BYTES = 64 << 20

_OLD_PICKLES = 5  # before 1.6: signature, protocol, system, the state dict, and the keys of its storages
_EXPLAINED_BYTES = 1 << 20  # how much of a pickle is searched for why torch refused it
_ZIP = b"PK\x03\x04"
# A damaged pickle fails in whatever operation of torch or Python it happens to reach.
_LOAD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_Opened = tuple[list[TensorInfo], list[AbstractSource]]


def looks_like_torch(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a zip archive or a pickle of protocol 2 to 5."""
    return head.startswith(_ZIP) or (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"))


def open_torch(source: FileSource) -> Checkpoint:
    """The checkpoint that the file holds; CheckpointError if it is damaged, or more than weights."""
    path = source.path
    head = source.read(0, min(len(_ZIP), source.size))
    if not looks_like_torch(head):
        raise CheckpointError(
            f"{path}: is neither a zip archive nor a pickle, and so no torch checkpoint; download it again"
        )
    archive = read_archive(source) if head == _ZIP else None
    infos, sources = _open_tensors(source, archive)
    return Checkpoint(
        path=path,
        format="torch",
        files=(path,),
        bytes=source.size,
        metadata=MappingProxyType({}),
        infos=MappingProxyType({info.key: info for info in infos}),
        header=archive.pickle if archive else _listing(infos),
        sources=tuple(sources),
    )


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as a view of a storage, all in elements but `itemsize`."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    first: int
    place: int  # where torch found the storage; -1 if it did not tell
    stored: int  # bytes of the storage, as the pickle has it

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.itemsize

    @property
    def end(self) -> int:
        """One past the last element that the view touches."""
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.first + reach + 1 if prod(self.shape) else self.first

    @property
    def row_major(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return not prod(self.shape)
            expected *= size
        return True


def _open_tensors(source: FileSource, archive: Archive | None) -> _Opened:
    """The tensors, in place where possible, with everything that the loader can raise made a sentence."""
    try:
        _screen(source, archive)
        opened = _in_place(source, archive) if archive else None
        return opened or _in_memory(source)
    except pickle.UnpicklingError as error:
        explained = min(source.size, _EXPLAINED_BYTES)
        start = archive.pickle[:_EXPLAINED_BYTES] if archive else source.read(0, explained)
        raise CheckpointError(f"{source.path}: {explain_refusal(str(error), start)}") from error
    except _LOAD_ERRORS as error:
        raise CheckpointError(
            f"{source.path}: is damaged, or no torch checkpoint ({type(error).__name__}: "
            f"{shown(str(error))}); download it again, or save its state dict as safetensors"
        ) from error


def _screen(source: FileSource, archive: Archive | None) -> None:
    """CheckpointError if loading the pickle would take for ever, or all memory; raises what torch raises."""
    if archive:
        stream: BinaryIO = io.BytesIO(archive.pickle)
        reason = refuse_bombs(stream, size=source.size, pickles=1, stand_ins=NAMES)
    else:
        with source.stream() as stream:
            reason = refuse_bombs(stream, size=source.size, pickles=_OLD_PICKLES, stand_ins=NAMES)
    if reason is not None:
        raise CheckpointError(f"{source.path}: {reason}")


def _in_place(source: FileSource, archive: Archive) -> _Opened | None:
    """Tensors that are read from the archive when asked for; None if they have to be loaded."""
    stream, places = without_data(archive)
    try:
        loaded = _load(stream, "meta")
    except RuntimeError:
        return None  # an older torch misses the data, or a tensor has no "meta" form: loading will tell
    views = [_view(source.path, key, t) for key, t in named_tensors(source.path, loaded).items()]
    if any(v.place not in places for v in views):
        return None
    infos: list[TensorInfo] = []
    sources: list[AbstractSource] = [source, *archive.blocks]
    budget = source.size + MAX_REPEATED_BYTES
    for v in views:
        record = places[v.place]
        inside = min(v.first, *v.strides, 0) == 0 and v.end * v.itemsize <= record.nbytes
        if not inside or v.stored != record.nbytes:
            raise CheckpointError(
                f"{source.path}: {shown(v.key)} does not fit the {record.nbytes} bytes stored for it; "
                "the file is damaged, get it again"
            )
        start = record.offset + v.first * v.itemsize
        if v.row_major:
            infos.append(TensorInfo(v.key, v.dtype, v.shape, start, v.nbytes, record.source))
        else:
            budget = _spend(source.path, v, budget)
            infos.append(TensorInfo(v.key, v.dtype, v.shape, 0, v.nbytes, len(sources)))
            sources.append(MemorySource(_row_major_copy(sources[record.source], v, start)))
    return infos, sources


def _in_memory(source: FileSource) -> _Opened:
    """Tensors that are loaded at once."""
    import torch

    infos: list[TensorInfo] = []
    sources: list[AbstractSource] = [source]
    budget = source.size + MAX_REPEATED_BYTES
    # Through a stream without a file descriptor torch does not try its oldest format, a tar file, in
    # which the weights-only loader before 2.6 could be made to run code (CVE-2025-32434); and a name
    # that ends in .safetensors does not send it elsewhere.
    with source.stream() as stream:
        loaded = _load(stream, "cpu")
    for key, tensor in named_tensors(source.path, loaded).items():
        v = _view(source.path, key, tensor)
        if tensor.is_meta:
            raise CheckpointError(
                f"{source.path}: {shown(key)} was saved without its values, from the meta device; save the "
                "model with its weights loaded"
            )
        budget = _spend(source.path, v, budget)
        flat = torch.Tensor.detach(tensor).reshape(-1).view(torch.uint8)
        infos.append(TensorInfo(v.key, v.dtype, v.shape, 0, v.nbytes, len(sources)))
        sources.append(MemorySource(flat.numpy().data))
    return infos, sources


def _load(stream: BinaryIO, device: str) -> object:
    """What the pickle holds; raises whatever torch raises."""
    import torch

    with (
        warnings.catch_warnings(),
        torch.serialization.safe_globals([*stand_ins()]),
    ):
        warnings.simplefilter("ignore")  # about old formats; what matters to the user is raised
        return torch.load(stream, map_location=device, weights_only=True)


def _view(path: Path, key: str, tensor: torch.Tensor) -> _View:
    """The tensor's geometry; CheckpointError if its values are not simply its storage's bytes.

    Methods are called through the class: a pickle may give a tensor attributes that hide them.
    """
    import torch

    dtype = BY_TORCH_NAME.get(str(tensor.dtype).removeprefix("torch."))
    unusual = {
        "sparse": tensor.layout is not torch.strided and not tensor.is_nested,
        "nested": tensor.is_nested,
        "quantized": tensor.is_quantized,
        f"of dtype {tensor.dtype}": dtype is None,
    }
    what = next((name for name, holds in unusual.items() if holds), None)
    # Last, because the kinds above have no such bits.
    if what is None and (torch.Tensor.is_conj(tensor) or torch.Tensor.is_neg(tensor)):
        what = "a conjugate or negative that was never computed"
    if what is not None or dtype is None:
        raise CheckpointError(
            f"{path}: {shown(key)} is {what}, which this version does not read; save it as a plain tensor"
        )
    storage = torch.Tensor.untyped_storage(tensor)
    return _View(
        key=key,
        dtype=dtype,
        shape=tuple(tensor.shape),
        strides=tuple(torch.Tensor.stride(tensor)),
        first=int(torch.Tensor.storage_offset(tensor)),
        place=getattr(storage, "_checkpoint_offset", -1),
        stored=storage.nbytes(),
    )


def _spend(path: Path, view: _View, budget: int) -> int:
    """What is left of the memory for copies after this one: a small file must not ask for a large copy."""
    if view.nbytes > budget:
        raise CheckpointError(
            f"{path}: {shown(view.key)} unfolds to more memory than its file has bytes; "
            "save a contiguous copy of it"
        )
    return budget - view.nbytes


def _row_major_copy(source: AbstractSource, view: _View, start: int) -> memoryview:
    dtype = np.dtype(DTYPES[view.dtype].raw)
    block = np.empty(view.end - view.first, dtype)
    source.read_into(start, block.view(np.uint8).data)
    strides = tuple(stride * dtype.itemsize for stride in view.strides)
    strided = np.lib.stride_tricks.as_strided(block, view.shape, strides, writeable=False)
    return np.ascontiguousarray(strided).reshape(-1).view(np.uint8).data


def _listing(infos: list[TensorInfo]) -> bytes:
    """What describes the tensors of a pickle that has no separate header."""
    return json.dumps([[info.key, info.dtype, info.shape] for info in infos]).encode()
