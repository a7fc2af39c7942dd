"""Machine code on disk: where it is kept, and whether a file may be trusted to be what was once written.

What is read here is run. A file counts only if it belongs to this user or to the system's, if nobody else can
write to it, and if its digest is that of its name and content; else it is as if it were not there.
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
_HEAD = len(_MAGIC) + _DIGEST().digest_size
_MODE = 0o644  # what the system's user compiled, as for a container's image, serves everybody
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Beside the loops' folder: numbers that are their constants.
_COMPILED_IN = ("measures.py", "float_formats.py")


def source_stamp(folder: Path = Path(__file__).parent) -> str:
    """What tells one state of the loops' source from another: a digest of all that is compiled in.

    Empty where there is no source to read, as inside of an archive.
    """
    paths = [*sorted(folder.glob("*.py")), *(folder.parent / name for name in _COMPILED_IN)]
    sources = [path.read_bytes() for path in paths if path.is_file()]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16] if sources else ""


def read_code(name: str) -> bytes | None:
    """What was stored under a name; None if nothing sound was."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            stored = _read_own(folder / name)
            content = stored[_HEAD:]
            if stored == _sealed(name, content):
                return content
    return None


def write_code(name: str, content: bytes) -> None:
    """Store it in the first folder that takes it, all of it or nothing; where none does it is not kept."""
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if _is_anothers(folder / name):  # in a folder that users share: each would replace the other's
                continue
            _write_whole(folder / name, _sealed(name, content))
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
        yield user_cache() / "mergescope"


def user_cache() -> Path:
    """Where this user's programs keep what they can make again; RuntimeError for a user without a home."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _sealed(name: str, content: bytes) -> bytes:
    """The content of a file: it is sound under this name alone."""
    return _MAGIC + _DIGEST(name.encode() + b"\n" + content).digest() + content


def _read_own(path: Path) -> bytes:
    """What a file holds; nothing if others can have written it."""
    with path.open("rb") as file:
        return file.read() if _is_own(os.fstat(file.fileno())) else b""


def _is_own(status: os.stat_result) -> bool:
    """Whether nobody but this user, or who installs programs, can have written it."""
    if not hasattr(os, "geteuid"):  # Windows: its folders belong to one user
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_WRITE


def _is_anothers(path: Path) -> bool:
    try:
        return hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()
    except FileNotFoundError:
        return False


def _write_whole(path: Path, content: bytes) -> None:
    handle, made = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(made).chmod(_MODE)
        Path(made).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(made).unlink()
        raise
