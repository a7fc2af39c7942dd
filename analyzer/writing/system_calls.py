"""Calls of the system that Python has no function for: two ways to rename, and one to write out.

Where a system, or a file system, does not have one, the functions here say so or do without.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_UNABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_WRITE = 2  # SYNC_FILE_RANGE_WRITE


@dataclass(frozen=True, slots=True)
class _Renaming:
    """What one system calls it; both take the same arguments."""

    function: str
    here: int  # AT_FDCWD: names are relative to the current folder
    no_replace: int  # RENAME_NOREPLACE, RENAME_EXCL
    exchange: int  # RENAME_EXCHANGE, RENAME_SWAP


_RENAMING = {
    "linux": _Renaming("renameat2", -100, 1, 2),  # man 2 rename; Linux 3.15, glibc 2.28
    "darwin": _Renaming("renameatx_np", -2, 4, 2),  # man 2 rename; macOS 10.12
}


def rename_new(source: Path, target: Path) -> None:
    """Rename, over nothing: raises FileExistsError if something stands there, be it an empty folder.

    Where the system cannot promise that, it looks before; what appears in between may be replaced.
    """
    system = _RENAMING.get(sys.platform)
    if system and _rename(system, source, target, system.no_replace):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def exchange(one: Path, two: Path) -> bool:
    """Let two files or folders, both of which exist, trade names in one step; False if that cannot be."""
    system = _RENAMING.get(sys.platform)
    return system is not None and _rename(system, one, two, system.exchange)


def start_writing_out(descriptor: int) -> None:
    """Have the system bring to the disk what was written to a file, and do not wait for it.

    It would begin only after some seconds, or when it is told to finish. Does nothing but on Linux.
    """
    if sys.platform == "linux" and (function := _function("sync_file_range")):
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        function(descriptor, 0, 0, _WRITE)  # the whole file; what fails here fails again where it counts


def _rename(system: _Renaming, source: Path, target: Path, flags: int) -> bool:
    """Whether it was done; False where it cannot be done at all. Raises OSError if it failed."""
    function = _function(system.function)
    if function is None:
        return False
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if function(system.here, os.fsencode(source), system.here, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library, or None in one that does not have it."""
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
