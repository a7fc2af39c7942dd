"""Files and folders that are not there before they are complete. Knows bytes and names, no models.

Where the system can do it (Linux, `O_TMPFILE`), a file has no name at all while it is written, and
whatever ends the process ends the file. Elsewhere, and for folders, it is built beside its target under
a hidden name, which a killed process leaves behind. Who builds it holds a lock on it, so the next output
to the same folder can tell those that nobody builds any longer, and removes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from analyzer.errors import OutputError
from analyzer.writing.system_calls import rename_new

_NEW_FILE_MODE = 0o666  # what open() asks for; the user's umask takes its share
_NEWBORN_SECONDS = 5.0  # a part may exist for a moment before its maker holds it
_COPY_BYTES = 1 << 20


@contextlib.contextmanager
def new_file(path: Path, *, shown: Path, force: bool) -> Iterator[FileIO]:
    """A file, open for writing, that appears at `path` when the block ends well; messages call it `shown`.

    It is synced before and its folder after; its permissions are those that the user's umask leaves. If
    anything goes wrong, an interrupt included, nothing is left. What stands at `path` is replaced at once
    and whole if `force` says so, and else never, even if it appeared while the block ran. Raises OutputError.
    """
    temporary = temporary_beside(path)
    try:
        with output_errors(shown):
            unnamed = _open_unnamed(path.parent)
            file = unnamed or _open_named(temporary)
        with file:
            yield file
            with output_errors(shown):
                os.fsync(file.fileno())
                if unnamed:
                    _give_name(unnamed, temporary, path, force=force)
                else:
                    if sys.platform == "win32":  # which renames no open file
                        file.close()
                    _put_in_place(temporary, path, force=force)
    finally:  # an interrupt comes here too; after the renaming there is nothing to remove
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(temporary: Path) -> Iterator[None]:
    """Make a folder that is held while the block runs, and remove what the block leaves of it."""
    descriptor = None
    try:
        temporary.mkdir()
        if sys.platform != "win32":  # which opens no folders, and has no such locks
            with contextlib.suppress(OSError):
                descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
                _hold(descriptor)
        yield
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """A name beside the target that nobody uses, short enough wherever the target's is."""
    return path.with_name(f".mergescope-{_host():04x}-{secrets.token_hex(4)}.part")


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder: this user's and this machine's parts nobody holds.

    Locks need not be seen from other machines, so what those build is left alone. Does nothing where
    there are no such locks (Windows, most network file systems).
    """
    pattern = re.compile(rf"\.mergescope-{_host():04x}-[0-9a-f]{{8}}\.part")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):  # BlockingIOError: somebody builds it
                _remove_if_abandoned(path)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or linked there durable, where folders can be synced."""
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """OutputError, in one sentence about the output, for what the system says of a file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "the disk is full; free some space or write elsewhere (nothing was left behind)"
        elif error.errno == errno.EFBIG:
            problem = "is larger than a file may be there (FAT: 4 GB; see also ulimit -f); write elsewhere"
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            problem = "too many files are open at once; allow more (ulimit -n), or close other programs"
        elif error.errno == errno.ENOENT and not path.parent.is_dir():
            problem = f"the folder {path.parent} does not exist; create it first"
        elif error.errno == errno.EEXIST:
            problem = "cannot be written (it appeared meanwhile); name another, or replace it with --force"
        else:
            problem = f"cannot be written ({error.strerror or error}); choose another place"
        raise OutputError(f"{path}: {problem}") from error


def _open_unnamed(folder: Path) -> FileIO | None:
    """A file without a name; None where there are none, or where they could not be given one later."""
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, _NEW_FILE_MODE)
    except OSError:  # EOPNOTSUPP, EISDIR or ENOENT; what else is wrong, the other way runs into as well
        return None
    file = FileIO(descriptor, "r+")
    if not Path(_in_proc(file)).exists():
        file.close()
        return None
    _hold(descriptor)  # for the moment in which it has a hidden name
    return file


def _open_named(temporary: Path) -> FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = FileIO(os.open(temporary, flags, _NEW_FILE_MODE), "r+")
    _hold(file.fileno())
    return file


def _in_proc(file: FileIO) -> str:
    return f"/proc/self/fd/{file.fileno()}"


def _give_name(file: FileIO, temporary: Path, path: Path, *, force: bool) -> None:
    """Make an unnamed file appear. Linux links over nothing, so replacing takes a name in between."""
    try:
        _link(file, path)
    except FileExistsError:
        if not force:
            raise
    except OSError:
        pass  # a file system that makes unnamed files and links none; or the next step fails as well
    else:
        return
    try:
        _link(file, temporary)
    except OSError:
        with _open_named(temporary) as copy:
            file.seek(0)
            shutil.copyfileobj(file, copy, _COPY_BYTES)
            os.fsync(copy.fileno())
    _put_in_place(temporary, path, force=force)


def _link(file: FileIO, path: Path) -> None:
    # Only if it is given a descriptor of a folder does Python call linkat(), which follows the link in
    # /proc, and not link(), which does not. Which one does not matter, since the name is absolute.
    os.link(_in_proc(file), path, src_dir_fd=file.fileno(), follow_symlinks=True)


def _put_in_place(temporary: Path, path: Path, *, force: bool) -> None:
    if force:
        temporary.replace(path)
    else:
        rename_new(temporary, path)


def _hold(descriptor: int) -> None:
    """Lock a file or a folder until it is closed, or until the process ends, however it does."""
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):  # a file system without locks; nobody removes parts there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_if_abandoned(path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _NEWBORN_SECONDS:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(status.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


def _host() -> int:
    name = "" if sys.platform == "win32" else os.uname().nodename
    return zlib.crc32(os.fsencode(name)) & 0xFFFF
