"""The compiled loops that Python calls: what each takes, in which module it stands. Needs no compiler.

A layout names the arguments in order: `i8` and `f8` are numbers of 8 bytes, `u1[:]` and `f8[:,:]` are
C-contiguous arrays. To machine code they are handed over as a row of 8-byte words: a number is one, an array
is its address and then its shape.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Loop = Callable[..., Any]

_NUMBERS = {"i8": "q", "f8": "d"}
_NOTHING = ctypes.c_char * 0


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a loop."""

    dtype: str  # as numpy writes it
    axes: int  # 0: a number

    @property
    def words(self) -> str:
        """What it is handed over as, in the notation of `struct`."""
        return "Q" + "q" * self.axes if self.axes else _NUMBERS[self.dtype]


def arguments(layout: str) -> tuple[Argument, ...]:
    """The arguments that a layout names."""
    found = []
    for text in layout.split():
        match = re.fullmatch(r"([uif][18])(\[[:,]*\])?", text)
        assert match, text
        found.append(Argument(match[1], (match[2] or "").count(":")))
    return tuple(found)


# By module and by name. Every loop returns an integer.
ENTRY_POINTS: Mapping[str, Mapping[str, str]] = {
    "compiled_blend": {
        "blend": "u1[:] i8 u1[:] i8 f8[:,:] i8 f8 u1[:] i8 i8[:] f8[:]",
        "convert": "u1[:] i8 f8[:,:] i8 u1[:] i8 i8[:] f8[:]",
    },
    "compiled_sums": {
        "measure_batch": (
            "u1[:] u1[:] u1[:] i8[:,:] f8[:,:] f8[:,:] f8[:,:] f8[:,:] i8[:,:,:] f8[:,:] f8[:,:] f8[:]"
        ),
        "scratch_size": "i8",
    },
}


class NativeLoop:
    """Machine code at an address, called without the interpreter's lock. Safe to call from many threads."""

    def __init__(self, address: int, layout: str) -> None:
        self._function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(address)
        self._arguments = [(np.dtype(each.dtype), each.axes) for each in arguments(layout)]
        self._pack = struct.Struct("".join(each.words for each in arguments(layout))).pack

    def __call__(self, *given: Any) -> int:
        """What the loop returns. TypeError for an array of another dtype, number of axes or order."""
        words: list[Any] = []
        for value, (dtype, axes) in zip(given, self._arguments, strict=True):
            if axes == 0:
                words.append(value)
                continue
            if value.dtype != dtype or value.ndim != axes:
                raise TypeError(f"the loop takes {axes} axes of {dtype}, not {value.ndim} of {value.dtype}")
            words.append(_address(value))
            words += value.shape
        return int(self._function(self._pack(*words)))


def _address(array: NDArray[Any]) -> int:
    """Where its elements lie, one after another."""
    try:  # a quarter of the time that numpy takes to say so
        return ctypes.addressof(_NOTHING.from_buffer(array))  # type: ignore[arg-type]  # it has one, say 3.12's types
    except TypeError:  # read-only, or not contiguous
        if not array.flags.c_contiguous:
            raise
        return int(array.ctypes.data)
