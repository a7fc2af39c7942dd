"""Machine code on disk: where it is kept, and whether a file may be trusted to be what was once written.

What is read here is run. A file counts only if it belongs to this user or to the system's, if nobody else can
write to it, and if its digest is that of its content; else it is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"mergescope loops 1\n"
_DIGEST = hashlib.sha256
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def source_stamp(folder: Path = Path(__file__).parent) -> str:
    """What tells one state of the loops' source from another: a digest of the folder and of `measures.py`."""
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.py")), folder.parent / "measures.py"):
        if path.is_file():  # not so inside of an archive
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_code(name: str) -> bytes | None:
    """What was stored under a name; None if nothing sound was."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            content = _read_own(folder / name)
            if content is not None:
                return content
    return None


def write_code(name: str, content: bytes) -> None:
    """Store it in the first folder that takes it, all of it or nothing; where none does it is not kept."""
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(folder / name, _MAGIC + _DIGEST(content).digest() + content)
        except OSError:  # read-only, full, no such folder: the next one
            continue
        return


def _folders() -> Iterator[Path]:
    """What the user names to numba, and that alone; else beside this package, then the user's own cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        yield Path(named)
        return
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield _user_cache() / "mergescope"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _read_own(path: Path) -> bytes | None:
    with path.open("rb") as file:
        if not _is_own(os.fstat(file.fileno())):
            return None
        stored = file.read()
    start = len(_MAGIC) + _DIGEST().digest_size
    content = stored[start:]
    return content if stored[:start] == _MAGIC + _DIGEST(content).digest() else None


def _is_own(status: os.stat_result) -> bool:
    """Whether nobody but this user, or who installs programs, can have written it."""
    if not hasattr(os, "geteuid"):  # Windows: its folders belong to one user
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_WRITE


def _write_whole(path: Path, content: bytes) -> None:
    # Made readable for this user only.
    handle, made = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(made).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise
