"""Sources whose bytes are computed: fp32 values of tensors that a file holds in another encoding.

Knows no file formats. A source of values belongs to one tensor, whose first element is its byte 0; it
holds no values, and computes those that are asked for in blocks of bounded size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.sources import AbstractSource

BLOCK_ELEMENTS = 1 << 16  # computed at a time: some hundred KiB of fp32 and fp64, for the second-level cache

Values = NDArray[np.float32]
_ITEMSIZE = 4


class AbstractEncodedSource(AbstractSource):
    """The values of one tensor, which can also be turned back into what its file holds."""

    @abstractmethod
    def encode(self, start: int, values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], int]:
        """The stored bytes for the tensor's elements from `start` on, and how many values were clipped.

        Rounds to the nearest, ties to even, and stops at the largest finite value of the encoding:
        a finite value that would round beyond it is clipped.
        """

    @abstractmethod
    def factors(self, start: int, count: int) -> NDArray[np.float64] | float:
        """What the stored numbers are multiplied with, from element `start` on; one number if it is one."""


def fill(buffer: memoryview, offset: int, compute: Callable[[int, int], Values]) -> None:
    """Fill the buffer with the tensor's little-endian fp32 bytes from its byte `offset` on.

    `compute(start, count)` gives `count` values from element `start` on. It is asked for runs that
    begin at multiples of BLOCK_ELEMENTS, but for the first, and are no longer than that.
    """
    end = offset + len(buffer)
    first, last = offset // _ITEMSIZE, -(-end // _ITEMSIZE)
    while first < last:
        count = min(BLOCK_ELEMENTS - first % BLOCK_ELEMENTS, last - first)
        raw = compute(first, count).astype("<f4", copy=False).view(np.uint8)
        begin = first * _ITEMSIZE
        low, high = max(begin, offset), min(begin + len(raw), end)
        buffer[low - offset : high - offset] = raw[low - begin : high - begin].data
        first += count
