"""Files without a name, parts that nobody builds any longer, and renaming over nothing or in exchange."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from analyzer.errors import OutputError
from analyzer.writing import system_calls, unfinished
from analyzer.writing.system_calls import exchange, rename_new, start_writing_out
from analyzer.writing.unfinished import new_file, new_folder, remove_abandoned, temporary_beside
from analyzer.writing.writer import Entry, create_safetensors, write_files

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
linux = pytest.mark.skipif(sys.platform != "linux", reason="O_TMPFILE")

Way = Callable[[pytest.MonkeyPatch], None]


def as_it_is(_patch: pytest.MonkeyPatch) -> None:
    """Whatever this system can."""


def no_unnamed_files(patch: pytest.MonkeyPatch) -> None:
    """A file system that refuses O_TMPFILE, as NFS does."""
    call = os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return call(path, flags, *rest, **named)  # type: ignore[call-overload]

    patch.setattr(os, "open", refuse)


def no_proc(patch: pytest.MonkeyPatch) -> None:
    """A place without /proc, such as a chroot."""
    patch.setattr(unfinished, "_in_proc", lambda _file: "/nowhere/self/fd/3")


def no_links(patch: pytest.MonkeyPatch) -> None:
    """A file system that makes unnamed files and gives them no name."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    patch.setattr(os, "link", refuse)


def no_special_renaming(patch: pytest.MonkeyPatch) -> None:
    """Named parts, and a system that renames in no other way than Python."""
    no_unnamed_files(patch)
    patch.setattr(system_calls, "_RENAMING", {})


def old_c_library(patch: pytest.MonkeyPatch) -> None:
    """Named parts, and a library without renameat2."""
    no_unnamed_files(patch)
    patch.setattr(
        system_calls, "_RENAMING", {sys.platform: system_calls._Renaming("no_such_function", -100, 1, 2)}
    )


def old_file_system(patch: pytest.MonkeyPatch) -> None:
    """Named parts, and a file system that does not know the flags: EINVAL, as for a flag that is none."""
    no_unnamed_files(patch)
    if sys.platform in system_calls._RENAMING:
        system = system_calls._RENAMING[sys.platform]
        other = system_calls._Renaming(system.function, system.here, 1 << 20, 1 << 20)
        patch.setattr(system_calls, "_RENAMING", {sys.platform: other})


WAYS = [as_it_is, no_unnamed_files, no_proc, no_links, no_special_renaming, old_c_library, old_file_system]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in turn by which a file may come about."""
    request.param(monkeypatch)
    return str(request.param.__name__)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, data: bytes, *, force: bool) -> None:
    """A new file, whole."""
    with new_file(path, shown=path, force=force) as file:
        file.write(data)


def test_a_file_appears_when_it_is_complete(tmp_path: Path, way: str) -> None:
    """Not before; with force in place of an earlier one, and nothing else is left."""
    path = tmp_path / "x"
    for force, data in ((False, b"one"), (True, b"two")):
        with new_file(path, shown=path, force=force) as file:
            file.write(data)
            assert b"one" == path.read_bytes() if force else not path.exists()
        assert (data, ["x"]) == (path.read_bytes(), names(tmp_path))


def test_what_appeared_meanwhile_is_not_replaced(tmp_path: Path, way: str) -> None:
    """Without force, whatever it is, also a link that leads nowhere; and nothing is left of ours."""
    makers: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b"theirs"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
    ]
    for number, make in enumerate(makers):
        path = tmp_path / str(number)
        with (
            pytest.raises(
                OutputError, match=r"appeared meanwhile\); name another, or replace it with --force"
            ),
            new_file(path, shown=path, force=False) as file,
        ):
            file.write(b"ours")
            make(path)
    assert (b"theirs", True, "nowhere") == (
        (tmp_path / "0").read_bytes(),
        (tmp_path / "1").is_dir(),
        str((tmp_path / "2").readlink()),
    )
    assert ["0", "1", "2"] == names(tmp_path)


def test_force_replaces_no_folder(tmp_path: Path, way: str) -> None:
    """A folder that appeared meanwhile stays, even with force."""
    path = tmp_path / "x"
    with pytest.raises(OutputError, match="cannot be written"), new_file(path, shown=path, force=True):
        path.mkdir()
    assert ["x"] == names(tmp_path)


def test_a_folder_that_vanishes(tmp_path: Path, way: str) -> None:
    """The folder of the output is removed while the block runs: one sentence."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "x"
    with pytest.raises(OutputError, match="create it first"), new_file(path, shown=path, force=False):
        for part in folder.iterdir():
            part.unlink()
        folder.rmdir()
    assert [] == names(tmp_path)


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """What the system calls no such file, as below /proc, is not said of a folder that is there."""
    monkeypatch.setattr(unfinished, "_open_unnamed", lambda _folder: None)

    def fail(*_arguments: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(unfinished, "_open_named", fail)
    path = tmp_path / "x"
    with (
        pytest.raises(OutputError, match=r"cannot be written .*; choose another place"),
        new_file(path, shown=path, force=False),
    ):
        pass


@posix
def test_what_has_its_name_is_synced_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The bytes before the name appears, the folder after: a loss of power takes neither."""
    path, call = tmp_path / "x", os.fsync
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        call(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(path, b"1", force=False)
    assert ((False, False), (True, True)) == (synced[0], synced[-1])


@linux
def test_an_unfinished_file_has_no_name(tmp_path: Path) -> None:
    """Where the file system can do it: so a process that is killed leaves nothing."""
    with new_file(tmp_path / "x", shown=tmp_path / "x", force=False) as file:
        file.write(b"x")
        assert [] == names(tmp_path)
    assert ["x"] == names(tmp_path)


def test_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A name in the current folder."""
    monkeypatch.chdir(tmp_path)
    for force in (False, True):
        write(Path("x"), b"1", force=force)
    rename_new(Path("x"), Path("y"))
    assert ["y"] == names(tmp_path)


def test_files_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """If the second cannot be written, the first is as it was."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"earlier")
    for working in (1, 2):  # calls before the disk breaks
        results = iter([None] * working)

        def fsync(_descriptor: int, results: Iterator[None] = results) -> None:
            if next(results, "broken"):
                raise OSError(errno.EIO, "broken")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(OutputError, match="two: cannot be written"):
                write_files({one: b"new", two: b"new"}, inputs=[])
        assert (b"earlier", ["one"]) == (one.read_bytes(), names(tmp_path))
    write_files({one: b"new", two: b"n" * 1_000_000}, inputs=[])
    assert ([3, 1_000_000], ["one", "two"]) == ([p.stat().st_size for p in (one, two)], names(tmp_path))


def test_nothing_is_written_into_a_file_that_is_closed(tmp_path: Path) -> None:
    """A thread that outlives the block, as after a second Ctrl-C, cannot write into another file."""
    with (
        pytest.raises(KeyboardInterrupt),
        create_safetensors(tmp_path / "x", [Entry("a", "U8", (4,), 4)], {}) as writer,
    ):
        raise KeyboardInterrupt
    with (tmp_path / "other").open("w+b") as other:  # gets the number that is free now
        with pytest.raises(ValueError, match="closed file"):
            writer.write(0, 0, np.ones(4, np.uint8))
        assert b"" == other.read()


def old_part(path: Path, *, folder: bool = False) -> Path:
    """A part of an hour ago that nobody holds."""
    if folder:
        (path / "unet").mkdir(parents=True)
        (path / "unet" / "x.safetensors").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    os.utime(path, (0, 0))
    return path


@posix
def test_abandoned_parts_are_removed(tmp_path: Path) -> None:
    """Files and folders; by the next output to the same folder, whatever that is called."""
    for folder in (False, True):
        old_part(temporary_beside(tmp_path / "x.safetensors"), folder=folder)
    with create_safetensors(tmp_path / "y.safetensors", [], {}):
        pass
    assert ["y.safetensors"] == names(tmp_path)
    remove_abandoned(tmp_path / "no such folder")


@posix
def test_parts_that_somebody_builds_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However old they look; and where replacing takes a name, that one too."""
    no_unnamed_files(monkeypatch)
    path = tmp_path / "x"
    with new_file(path, shown=path, force=False) as file, new_folder(temporary_beside(tmp_path / "y")):
        parts = names(tmp_path)
        for part in parts:
            os.utime(tmp_path / part, (0, 0))
        remove_abandoned(tmp_path)
        assert (2, parts) == (len(parts), names(tmp_path))
        file.write(b"done")
    assert (b"done", ["x"]) == (path.read_bytes(), names(tmp_path))


@posix
def test_what_is_no_abandoned_part_is_left_alone(tmp_path: Path) -> None:
    """A young one, another machine's, a link, other names, an earlier model that was moved aside."""
    mine = temporary_beside(tmp_path / "x")
    tag = mine.name.split("-")[1]
    young = temporary_beside(tmp_path / "x")
    young.write_bytes(b"young")
    other = f"{int(tag, 16) ^ 1:04x}"
    for name in (
        f".mergescope-{other}-0123abcd.part",
        f".mergescope-{tag}-0123abcd.earlier",
        f".mergescope-{tag}-0123abcd.part.txt",
        f".mergescope-{tag}-0123abcg.part",
        f"mergescope-{tag}-0123abcd.part",
        ".part",
        "model.safetensors",
    ):
        old_part(tmp_path / name)
    (tmp_path / f".mergescope-{tag}-00000000.part").symlink_to(tmp_path / "model.safetensors")
    before = names(tmp_path)
    remove_abandoned(tmp_path)
    assert before == names(tmp_path)
    os.utime(young, (0, 0))
    remove_abandoned(tmp_path)
    assert set(before) - {young.name} == set(names(tmp_path))


@posix
def test_parts_of_others_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that several users share."""
    part = old_part(temporary_beside(tmp_path / "x"))
    monkeypatch.setattr(os, "geteuid", lambda: part.stat().st_uid + 1)
    remove_abandoned(tmp_path)
    assert [part.name] == names(tmp_path)


def test_renaming_over_nothing(tmp_path: Path, way: str) -> None:
    """Of files and folders; nothing that stands there is lost, an empty folder neither."""
    for number, make in enumerate((lambda p: p.write_bytes(b"1"), lambda p: p.mkdir())):
        source, target, taken = (tmp_path / f"{name}{number}" for name in ("source", "target", "taken"))
        make(source)
        taken.mkdir()
        with pytest.raises(FileExistsError):
            rename_new(source, taken)
        assert (True, True) == (source.exists(), taken.is_dir())
        rename_new(source, target)
        assert (False, True) == (source.exists(), target.exists())
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "gone", tmp_path / "new")


def test_exchange(tmp_path: Path, way: str) -> None:
    """Two folders trade names, or nothing happens and it says so."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.mkdir()
        (path / path.name).touch()
    done = exchange(one, two)
    assert ((["two"], ["one"]) if done else (["one"], ["two"])) == (names(one), names(two))
    if way == "as_it_is" and sys.platform in ("linux", "darwin"):
        assert done
        with pytest.raises(FileNotFoundError):
            exchange(one, tmp_path / "gone")


def test_writing_out_is_a_wish(tmp_path: Path) -> None:
    """It changes no bytes, and what is no file is none of its business."""
    with (tmp_path / "x").open("w+b") as file:
        file.write(b"x" * 10_000)
        file.flush()
        start_writing_out(file.fileno())
        file.seek(0)
        assert b"x" * 10_000 == file.read()
    start_writing_out(1 << 20)
