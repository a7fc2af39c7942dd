"""What takes the bytes of a merge: a file that is being written, or memory. Knows neither."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sink(Protocol):
    """Takes the bytes of tensors in any order and from any thread."""

    def write(self, index: int, offset: int, data: NDArray[np.uint8]) -> None:
        """Put bytes of tensor `index` where they belong, `offset` bytes into it.

        They may go on into the tensors that lie behind it, as `position` has them. What is not copied
        here is written over once this returns.
        """

    def position(self, index: int, offset: int = 0) -> int:
        """Where a byte of tensor `index` stands; tensors that follow one another may be written together."""
