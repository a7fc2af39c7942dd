"""Open .gguf files, for reading alone. Knows ggml's types; the values of quantized ones come from `gguf`.

Tensors of whole elements (F32, F16, BF16, integers) are read in place. The others appear as fp32, and
their blocks are dequantized as they are read, by the `gguf` package that llama.cpp publishes: an
optional dependency, imported only where it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.checkpoint import Checkpoint, shown
from analyzer.checkpoints.encodings import BLOCK_ELEMENTS, Values, fill
from analyzer.checkpoints.gguf_header import MAGIC, GgufHeader, GgufTensor, read_gguf_header
from analyzer.checkpoints.sources import AbstractSource, FileSource
from analyzer.errors import CheckpointError
from analyzer.records import TensorInfo

_AGAIN = "the file is damaged, get it again"
_NAMED = 5  # tensors in a message

Dequantize = Callable[[NDArray[np.uint8]], Values]  # whole blocks -> the values of their elements


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How ggml stores elements: in blocks of a number of elements and a number of bytes."""

    name: str
    elements: int
    bytes: int

    @property
    def plain(self) -> bool:
        """Whether the elements are stored as such, under the name that safetensors has for them."""
        return self.elements == 1


# By ggml's number. Numbers that are missing were given up before any file had them, or are newer.
# https://github.com/ggml-org/ggml/blob/master/include/ggml.h
GGML_TYPES = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 40),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
}


def looks_like_gguf(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a GGUF file."""
    return head.startswith(MAGIC)


def open_gguf(source: FileSource) -> Checkpoint:
    """The checkpoint that the file holds; CheckpointError says what is wrong with it, or missing here."""
    header = read_gguf_header(source)
    stored = _stored(source, header)
    _check_layout(source, stored.values())
    dequantizers = _dequantizers(source, header, stored)
    infos: dict[str, TensorInfo] = {}
    sources: list[AbstractSource] = [source]
    for tensor in header.tensors:
        info = stored[tensor.name]
        if tensor.code in dequantizers:
            kind, dequantize = GGML_TYPES[tensor.code], dequantizers[tensor.code]
            infos[info.key] = TensorInfo(
                info.key, "F32", info.shape, 0, 4 * info.numel, len(sources), encoded=info
            )
            sources.append(DequantizedSource(source, info, kind, dequantize))
        else:
            infos[info.key] = info
    return Checkpoint(
        path=source.path,
        format="gguf",
        files=(source.path,),
        bytes=source.size,
        metadata=MappingProxyType(dict(header.texts)),
        infos=MappingProxyType(infos),
        header=header.raw,
        sources=tuple(sources),
        notes=tuple(_notes(source.path.name, header)),
    )


class DequantizedSource(AbstractSource):
    """The fp32 values of a quantized tensor of the file. They cannot be quantized again."""

    def __init__(
        self, source: FileSource, stored: TensorInfo, kind: GgmlType, dequantize: Dequantize
    ) -> None:
        assert BLOCK_ELEMENTS % kind.elements == 0
        self._source = source
        self._stored = stored
        self._kind = kind
        self._dequantize = dequantize

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Dequantize the blocks that hold the bytes from `offset` on."""
        fill(buffer, offset, self._values)

    def close(self) -> None:
        """Nothing: the file belongs to the checkpoint."""

    def _values(self, start: int, count: int) -> Values:
        """Elements start … start + count − 1, which need not begin or end a block."""
        first, last = start // self._kind.elements, -(-(start + count) // self._kind.elements)
        blocks = np.empty((last - first) * self._kind.bytes, np.uint8)
        self._source.read_into(self._stored.offset + first * self._kind.bytes, blocks.data)
        with np.errstate(all="ignore"):  # a block's scale may be Inf or NaN, and its values are so then
            values = self._dequantize(blocks)
        return values[start - first * self._kind.elements :][:count]


def _stored(source: FileSource, header: GgufHeader) -> dict[str, TensorInfo]:
    """Every tensor as it lies in the file, each checked by itself."""
    infos: dict[str, TensorInfo] = {}
    for tensor in header.tensors:
        if tensor.name in infos:
            raise CheckpointError(f"{source.path}: {shown(tensor.name)} stands twice in the header; {_AGAIN}")
        infos[tensor.name] = _info(source, header, tensor)
    return infos


def _info(source: FileSource, header: GgufHeader, tensor: GgufTensor) -> TensorInfo:
    kind = GGML_TYPES.get(tensor.code)
    if kind is None:
        raise CheckpointError(
            f"{source.path}: {shown(tensor.name)} is of ggml's type {tensor.code}, which is not known here; "
            "use a file of the same model in F16, BF16 or Q8_0"
        )
    row = tensor.shape[-1] if tensor.shape else 1
    if row % kind.elements:
        raise CheckpointError(
            f"{source.path}: {shown(tensor.name)} has rows of {row} elements, which are no whole blocks of "
            f"{kind.name}, {kind.elements} elements each; {_AGAIN}"
        )
    if tensor.offset % header.alignment:
        raise CheckpointError(
            f"{source.path}: {shown(tensor.name)} begins at {tensor.offset}, which is no multiple of "
            f"{header.alignment} as the header demands; {_AGAIN}"
        )
    count = prod(tensor.shape)
    nbytes, offset = count // kind.elements * kind.bytes, header.start + tensor.offset
    if offset + nbytes > source.size:
        raise CheckpointError(
            f"{source.path}: truncated: {shown(tensor.name)} should end at byte {offset + nbytes}, the file "
            f"has {source.size}; download it again"
        )
    original = header.shapes.get(tensor.name)
    shape = tensor.shape if original is None or not _agrees(original, count) else original
    return TensorInfo(tensor.name, kind.name, shape, offset, nbytes)


def _agrees(shape: tuple[int, ...], count: int) -> bool:
    return all(size >= 0 for size in shape) and prod(shape) == count


def _check_layout(source: FileSource, infos: Iterable[TensorInfo]) -> None:
    """No two tensors may share a byte; gaps between them are padding."""
    ordered = sorted((i for i in infos if i.nbytes), key=lambda i: i.offset)
    for one, two in pairwise(ordered):
        if one.offset + one.nbytes > two.offset:
            raise CheckpointError(f"{source.path}: {shown(one.key)} and {shown(two.key)} overlap; {_AGAIN}")


def _dequantizers(
    source: FileSource, header: GgufHeader, stored: dict[str, TensorInfo]
) -> dict[int, Dequantize]:
    """How to dequantize every quantized type that the file has, by ggml's number."""
    names: dict[int, list[str]] = {}
    for tensor in header.tensors:
        if not GGML_TYPES[tensor.code].plain:
            names.setdefault(tensor.code, []).append(shown(stored[tensor.name].key))
    if not names:
        return {}
    quantized = [name for group in names.values() for name in group]
    try:
        package = importlib.import_module("gguf")
    except ImportError as error:
        raise CheckpointError(
            f"{source.path}: holds quantized tensors ({_listed(quantized)}), which need the package gguf "
            f"({error}); pip install 'mergescope[gguf]'"
        ) from error
    found: dict[int, Dequantize] = {}
    for code, group in sorted(names.items()):
        dequantize = _dequantizer(package, code)
        if dequantize is None:
            raise CheckpointError(
                f"{source.path}: holds tensors of type {GGML_TYPES[code].name} ({_listed(group)}), which the "
                "installed package gguf cannot dequantize; upgrade it, or use a file of another type"
            )
        found[code] = dequantize
    return found


def _dequantizer(package: Any, code: int) -> Dequantize | None:
    """What turns blocks of a type into values; None if the package cannot."""
    kind = GGML_TYPES[code]
    try:
        qtype = package.GGMLQuantizationType(code)
        # Blocks of zeros are values too. The first call also builds the type's tables, before any thread.
        probe = package.quants.dequantize(np.zeros(kind.bytes, np.uint8), qtype)
    except (NotImplementedError, ValueError):  # ValueError: the package is older than the type
        return None
    if probe.shape != (kind.elements,):
        return None

    def dequantize(blocks: NDArray[np.uint8]) -> Values:
        values: Values = package.quants.dequantize(blocks, qtype)
        return values

    return dequantize


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _notes(name: str, header: GgufHeader) -> Iterable[str]:
    parts = header.numbers.get("split.count", 1)
    if parts > 1:
        number = header.numbers.get("split.no", 0) + 1
        yield f"{name}: is file {number} of {parts} that make up one model, and only this one is read"
    tensors = {tensor.name: prod(tensor.shape) for tensor in header.tensors}
    wrong = [
        shown(key)
        for key, shape in header.shapes.items()
        if key in tensors and not _agrees(shape, tensors[key])
    ]
    if wrong:
        yield f"{name}: original shapes that do not fit their tensors are left aside: {_listed(wrong)}"
