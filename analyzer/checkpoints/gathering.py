"""Read many runs of elements at once, neighbours together. Knows no formats and no keys' meaning.

A model of many small tensors costs a system call for each if they are read one by one, which takes longer
than to measure them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from analyzer.checkpoints.checkpoint import Checkpoint
from analyzer.records import TensorInfo

# Of a tensor: the first byte wanted, how many bytes, and the bytes of an element.
Extent: TypeAlias = tuple[TensorInfo, int, int, int]

ALIGNMENT = 8  # bytes: of the first byte of every read in the buffer, and so the most that a read may waste


def room_for(nbytes: int, extents: int) -> int:
    """How many bytes a buffer needs for so many extents of so many bytes in all."""
    return nbytes + extents * (ALIGNMENT - 1)


def read_together(checkpoint: Checkpoint, extents: Sequence[Extent], buffer: NDArray[np.uint8]) -> list[int]:
    """Read all extents into the buffer; return at which byte of it each begins, a multiple of its itemsize.

    Those that lie one behind the other in one source are read by one call, in whatever order they are
    named. A view is read by itself. Raises CheckpointError if a file ends early or cannot be read.
    """
    memory = buffer.data
    places = [0] * len(extents)
    source = -1  # of the read that is being gathered; −1: none
    begin = end = 0  # in the source
    target = used = 0  # in the buffer: where the read goes, and how much is taken
    for i in _in_file_order(extents):
        info, start, nbytes, itemsize = extents[i]
        at = info.offset + start
        if at != end or info.source != source or info.view is not None or used % itemsize:
            if source >= 0:
                checkpoint.sources[source].read_into(begin, memory[target:used])
            target = used = used + -used % ALIGNMENT
            source, begin, end = (info.source, at, at) if info.view is None else (-1, 0, -1)
            if info.view is not None:
                checkpoint.read_into(info, start, memory[used : used + nbytes])
        places[i] = used
        used += nbytes
        end += nbytes
    if source >= 0:
        checkpoint.sources[source].read_into(begin, memory[target:used])
    return places


def _in_file_order(extents: Sequence[Extent]) -> Sequence[int]:
    places = [(info.source, info.offset + start) for info, start, _, _ in extents]
    return sorted(range(len(extents)), key=places.__getitem__)
