"""Watches what one call does: which files it opens, what it would run, its time and its memory.

Python tells an audit hook of every file that is opened, every module that is imported and everything that
is executed, in this process, by whatever code: https://peps.python.org/pep-0578/. A hook cannot be taken
away again, so there is one, and it looks only while `watched` is entered.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# What reading a model must not do. The beginnings of audit events:
# https://docs.python.org/3/library/audit_events.html
_FORBIDDEN = (
    *("exec", "compile", "import", "code.__new__", "marshal.", "pickle.find_class", "ctypes.", "mmap."),
    *("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "pty."),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.putenv", "os.unsetenv", "os.kill", "shutil.", "socket.", "urllib.", "webbrowser."),
)

TOUCHED: list[str] = []  # what `touch` was called with: nothing in a model file may call it


def touch(*arguments: object) -> None:
    """What hostile pickles try to call."""
    TOUCHED.append(repr(arguments))


@dataclass(slots=True)
class Watch:
    """What a call has done."""

    folder: Path  # files below it may be read
    seconds: float = 0.0  # of this process
    peak: int = 0  # bytes that Python's allocators held at most, NumPy's arrays among them
    violations: list[str] = field(default_factory=list)


_watches: list[Watch] = []  # the one that looks, or none


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    """Watch what is done inside; files may only be read, and only below the folder."""
    _install()
    watch = Watch(folder.resolve())
    gc.disable()  # what it collects is not this call's doing
    tracemalloc.start()
    _watches.append(watch)
    start = time.process_time()
    try:
        yield watch
    finally:
        watch.seconds = time.process_time() - start
        _watches.clear()
        watch.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.enable()


_installed: list[bool] = []


def _install() -> None:
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watches:
        return
    watch = _watches[0]
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        inside = isinstance(path, int) or watch.folder in Path(os.fsdecode(path)).resolve().parents  # type: ignore[arg-type]  # a path of any kind
        if writes or not inside:
            watch.violations.append(f"opened {path!r} as {mode!r}")
    elif event.startswith(_FORBIDDEN):
        watch.violations.append(f"{event} {arguments!r}"[:300])


def resident_peak() -> int | None:
    """The most bytes of real memory that this process had since `reset_resident_peak`; None but on Linux."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return None


def reset_resident_peak() -> None:
    """Count from what the process has now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
