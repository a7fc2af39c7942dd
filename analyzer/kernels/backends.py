"""How much the kernels take at a time, and what can go wrong around them: compiler, cache, GPU."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import DeviceError

BLOCK = 1024  # elements that stay in the first-level cache: two blocks of fp64 are 16 KiB
# 128 Ki elements: two fp32 chunks are 1 MiB, which stays in the second-level cache of two cores.
CPU_CHUNK = 1 << 17
# A scan reads more at a time: with small chunks its threads wait for the interpreter's lock more than for
# memory (1.96 s against 1.55 s for two models of 2.1 GB, two threads).
SCAN_CHUNK = 1 << 20
# A GPU needs millions of elements to be busy; a dozen fp64 temporaries of 4 Mi are below 0.5 GiB.
GPU_CHUNK = 1 << 22


def aligned_zeros(count: int) -> NDArray[np.float64]:
    """So many zeros, from the beginning of a line of the cache on: no vector lies across two."""
    memory = np.zeros(count + 8)
    start = -(memory.ctypes.data // 8) % 8
    return memory[start : start + count]


def has_numba() -> bool:
    """Whether the compiled loops can be used with this interpreter."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):  # the loops are no Python that could run
        return False
    return importlib.util.find_spec("numba") is not None


@contextlib.contextmanager
def cache_errors() -> Iterator[None]:
    """DeviceError where the compiled loops cannot be stored or read, with the way out."""
    try:
        yield
    except OSError as error:
        raise DeviceError(
            f"the compiled loops cannot be kept in numba's cache folder ({error.strerror or error}): "
            "free some space there, or name another folder in the environment variable NUMBA_CACHE_DIR"
        ) from error


@contextlib.contextmanager
def device_errors(device: str) -> Iterator[None]:
    """DeviceError where a GPU fails, as when another program holds its memory, with the way out."""
    try:
        yield
    except RuntimeError as error:  # torch's out-of-memory and CUDA errors are such
        if device == "cpu":
            raise
        reason = str(error).splitlines()[0]
        raise DeviceError(f"{device} failed ({reason}): use --device cpu") from error
