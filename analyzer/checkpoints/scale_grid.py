"""Which scale belongs to which element of a tensor. Knows shapes and numbers, no names and no files.

A grid of scales lies over its tensor: along every axis a scale covers one element, a block of them or
the whole axis. How the shapes tell:

- one scale in all: for the whole tensor;
- the tensor's leading sizes, with or without ones behind: per row, or per stacked expert;
- as many axes as the tensor: per axis blocks of 128, the last one possibly cut short, as DeepSeek V3
  has them, or else blocks that divide the axis evenly.

https://github.com/deepseek-ai/DeepSeek-V3/blob/main/inference/kernel.py (weight_dequant)
https://github.com/vllm-project/compressed-tensors (per tensor, per channel, per group, per block)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scales = NDArray[np.float32]

_BLOCK = 128
_MX_GROUP = 32  # elements that share a scale in the MX formats
_MX_TILE = (128, 4)  # rows and columns of scales that lie together where a matrix unit reads them


@dataclass(frozen=True, slots=True, eq=False)
class ScaleGrid:
    """The scales of a tensor of at least one axis and one element."""

    shape: tuple[int, ...]  # of the tensor
    scales: Scales  # as many axes
    blocks: tuple[int, ...]  # elements that one scale covers along every axis

    @property
    def uniform(self) -> float | None:
        """The scale, if there is only one."""
        return float(self.scales.flat[0]) if self.scales.size == 1 else None

    def factors(self, start: int, count: int) -> NDArray[np.float64]:
        """The scale of every element from `start` on, in row-major order."""
        columns, block = self.shape[-1], self.blocks[-1]
        flat = self.scales.reshape(-1, self.scales.shape[-1])
        out = np.empty(count, np.float64)
        done = 0
        while done < count:
            row, column = divmod(start + done, columns)
            left = count - done
            rows = left // columns if column == 0 else 0
            if rows:  # whole rows
                width = columns
            else:  # a part of one
                rows, width = 1, min(columns - column, left)
            places = np.arange(column, column + width) // block
            # Many rows share a row of the grid, which is spread over the columns once.
            used, which = np.unique(self._grid_rows(row, rows), return_inverse=True)
            spread = flat[used] if flat.shape[1] == 1 else flat[used[:, None], places]
            out[done : done + rows * width].reshape(rows, width)[:] = spread[which]
            done += rows * width
        return out

    def _grid_rows(self, first: int, count: int) -> NDArray[np.intp]:
        """The row of the grid, its leading axes taken together, for `count` rows of the tensor."""
        outer = self.shape[:-1]
        if not outer:
            return np.zeros(count, np.intp)
        axes = np.unravel_index(np.arange(first, first + count), outer)
        places = tuple(axis // block for axis, block in zip(axes, self.blocks, strict=False))
        return np.ravel_multi_index(places, self.scales.shape[:-1])


def fit_scales(shape: tuple[int, ...], scales: Scales) -> ScaleGrid | None:
    """The grid that the scales are for a tensor of that shape; None if no convention fits."""
    shape = shape or (1,)
    if scales.size == 1:
        return ScaleGrid(shape, scales.reshape((1,) * len(shape)), shape)
    sizes = list(scales.shape)
    while len(sizes) > len(shape) and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) < len(shape):
        if tuple(sizes) != shape[: len(sizes)]:
            return None
        sizes += [1] * (len(shape) - len(sizes))
    if len(sizes) != len(shape):
        return None
    blocks = tuple(_block(size, number) for size, number in zip(shape, sizes, strict=True))
    if 0 in blocks or any(n not in (1, s) for s, n in zip(shape[:-2], sizes[:-2], strict=True)):
        return None
    return ScaleGrid(shape, scales.reshape(sizes), blocks)


def fit_tiled_scales(shape: tuple[int, ...], scales: Scales) -> ScaleGrid | None:
    """The grid of scales of an MX format that lie in the order in which a matrix unit reads them.

    There is a scale for 32 elements of a row. Rows are filled up to a multiple of 128 and columns to
    one of 4; the tiles of 128 × 4 stand row by row, and in a tile the rows r, r + 32, r + 64 and
    r + 96 stand side by side. https://docs.nvidia.com/cuda/cublas/#d-block-scaling-factors-layout
    """
    if len(shape) != 2:
        return None
    rows, columns = shape[0], -(-shape[1] // _MX_GROUP)
    tiles = (-(-rows // _MX_TILE[0]), -(-columns // _MX_TILE[1]))
    if scales.size != tiles[0] * tiles[1] * 512:
        return None
    by_row = scales.reshape(*tiles, 32, 4, 4).transpose(0, 3, 2, 1, 4)  # tile row, quarter, row; tile, column
    plain = by_row.reshape(tiles[0] * _MX_TILE[0], tiles[1] * _MX_TILE[1])[:rows, :columns]
    return ScaleGrid(shape, np.ascontiguousarray(plain), (1, _MX_GROUP))


def _block(size: int, number: int) -> int:
    """How many of `size` elements each of `number` scales covers; 0 if that cannot be."""
    if number and -(-size // _BLOCK) == number:
        return _BLOCK
    return size // number if number and size % number == 0 else 0
