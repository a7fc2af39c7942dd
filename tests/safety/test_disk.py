"""Disks that fill up or break, and inputs that cannot be read or shrink, in the middle of a merge."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crashing import server, tree
from safetensors.numpy import save_file

from analyzer.errors import OutputError
from analyzer.writing.writer import Entry, create_safetensors

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX calls")
ELEMENTS = 1_500_000  # of each of two tensors in fp16: 6 MB, several batches
SENTENCE = re.compile(r"\nError: (/[^\n]*)\n$")  # the last line, and where it begins with a path


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Two models in a folder."""
    home = tmp_path / "in"
    home.mkdir()
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        tensors = {f"layers.{i}.weight": rng.standard_normal(ELEMENTS, np.float32) for i in range(2)}
        save_file({k: v.astype(np.float16) for k, v in tensors.items()}, home / f"{name}.safetensors")
    return home / "a.safetensors", home / "b.safetensors"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output in an empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.safetensors"


def failing(name: str, number: int, after: int) -> Callable[..., Any]:
    """A call of the system that fails from some call on."""
    call, count = getattr(os, name), 0

    def fail(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return fail


@posix
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space or write elsewhere (nothing was left behind)"),
        (errno.EDQUOT, "the disk is full; free some space or write elsewhere (nothing was left behind)"),
        (errno.EIO, "cannot be written (Input/output error); choose another place"),
        (errno.EFBIG, "is larger than a file may be there (FAT: 4 GB; see also ulimit -f); write elsewhere"),
    ],
)
def test_a_disk_that_fails_while_writing(
    run: Callable[..., Any],
    models: tuple[Path, Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    words: str,
    *,
    earlier: bool,
) -> None:
    """At any write: one sentence, exit code 1, nothing left, an earlier output as it was."""
    before = tree(models[0].parent)
    if earlier:
        out.write_bytes(b"earlier")
    rng = random.Random(number)
    for after in {0, *(rng.randrange(1, 12) for _ in range(3))}:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing("pwrite", number, after))
            found = run("merge", *models, "-o", out, "--alpha=0.5", "--force", "--quiet")
        assert (1, "", f"Error: {out}: {words}\n") == (found.code, found.out, found.err), after
        assert ({"o.safetensors": b"earlier"} if earlier else {}) == tree(out.parent)
    assert before == tree(models[0].parent)


@posix
@pytest.mark.parametrize("name", ["fsync", "link", "replace"])
def test_a_disk_that_fails_at_the_end(
    run: Callable[..., Any], models: tuple[Path, Path], out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """When the finished file is synced, linked or renamed; a link that cannot be made is done without."""
    out.write_bytes(b"earlier")
    monkeypatch.setattr(os, name, failing(name, errno.EIO, 0))
    if name == "link":  # another way is found
        monkeypatch.setattr(os, "replace", failing("replace", errno.EIO, 0))
    found = run("merge", *models, "-o", out, "--alpha=0.5", "--force", "--quiet")
    expected = f"Error: {out}: cannot be written (Input/output error); choose another place\n"
    assert (1, expected) == (found.code, found.err)
    assert {"o.safetensors": b"earlier"} == tree(out.parent)


@posix
def test_a_disk_that_fails_where_the_recipe_is_saved(
    run: Callable[..., Any], models: tuple[Path, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the two files is there: not the model without its recipe, either."""
    recipe, call = out.with_name("r.toml"), os.fsync

    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size < 1000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        call(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    found = run("merge", *models, "-o", out, "--alpha=0.5", "--save-recipe", recipe, "--quiet")
    expected = f"Error: {recipe}: cannot be written (Input/output error); choose another place\n"
    assert (1, expected, {}) == (found.code, found.err, tree(out.parent))


@posix
def test_a_file_system_that_cannot_link(
    run: Callable[..., Any], models: tuple[Path, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file, by way of a copy."""
    assert 0 == run("merge", *models, "-o", out, "--alpha=0.5").code
    expected = tree(out.parent)
    out.unlink()
    monkeypatch.setattr(os, "link", failing("link", errno.EPERM, 0))
    assert 0 == run("merge", *models, "-o", out, "--alpha=0.5").code
    assert expected == tree(out.parent)


@posix
@pytest.mark.parametrize("side", [0, 1])
def test_an_input_that_cannot_be_read(
    run: Callable[..., Any],
    models: tuple[Path, Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
) -> None:
    """A bad sector in the middle of either: where, what and what to do; nothing is left."""
    if not hasattr(os, "preadv"):
        pytest.skip("no preadv")
    bad, call = models[side].stat().st_ino, os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if os.fstat(descriptor).st_ino == bad and offset <= 4_000_000 < offset + sum(map(len, buffers)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(descriptor, buffers, offset, flags)

    before = tree(models[0].parent)
    monkeypatch.setattr(os, "preadv", preadv)
    found = run("merge", *models, "-o", out, "--alpha=0.5", "--quiet")
    assert 1 == found.code
    assert re.fullmatch(
        rf"Error: {re.escape(str(models[side]))}: cannot be read at byte \d+: input/output error.*\n",
        found.err,
    )
    assert ({}, before) == (tree(out.parent), tree(models[0].parent))


@posix
@pytest.mark.parametrize("side", [0, 1])
def test_an_input_that_shrinks(
    run: Callable[..., Any],
    models: tuple[Path, Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
) -> None:
    """Somebody truncates it while tensors are written: no crash (files are not mapped), nothing left."""
    other, call, count = tree(models[0].parent, but=[models[side].name]), os.pwrite, 0

    def pwrite(descriptor: int, data: memoryview, position: int) -> int:
        nonlocal count
        count += 1
        if count == 3:
            os.truncate(models[side], 3_000_000)
        return call(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    found = run("merge", *models, "-o", out, "--alpha=0.5", "--quiet", "--threads=1")
    assert (1, True) == (found.code, f"Error: {models[side]}: ended early, at byte 3000000" in found.err)
    assert ({}, other) == (tree(out.parent), tree(models[0].parent, but=[models[side].name]))


@posix
def test_a_limit_on_the_size_of_files(models: tuple[Path, Path], out: Path, tmp_path: Path) -> None:
    """`ulimit -f` at random sizes: the real call of the system fails, in the middle of the work."""
    rng = random.Random(0)
    with server(tmp_path / "log.txt") as merges:
        for _ in range(10):
            limit = rng.randrange(1, models[0].stat().st_size)
            setup = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
            found = merges.run("merge", *models, "-o", out, "--alpha=0.5", "--quiet", setup=setup)
            assert (1, {}) == (found.code, tree(out.parent)), found.text
            assert f"Error: {out}: is larger than a file may be there" in found.text


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount") if sys.platform == "linux" else None
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(
    run: Callable[..., Any], models: tuple[Path, Path], small_disk: Path, tmp_path: Path
) -> None:
    """Before the work where it can be known, and in the middle of it where another takes the space."""
    out, hog = small_disk / "o.safetensors", small_disk / "hog"
    hog.write_bytes(bytes(4_000_000))
    found = run("merge", *models, "-o", out, "--alpha=0.5", "--quiet")
    words = f"{out}: the disk is full; free some space or write elsewhere (nothing was left behind)"
    assert (1, f"Error: {words}\n", ["hog"]) == (found.code, found.err, names(small_disk))
    hog.unlink()
    with (
        pytest.raises(OutputError, match=re.escape(words)),
        create_safetensors(out, [Entry("a", "U8", (6_000_000,), 6_000_000)], {}) as writer,
    ):
        writer.write(0, 0, np.ones(1_000_000, np.uint8))
        hog.write_bytes(bytes(5_000_000))
        writer.write(0, 1_000_000, np.ones(5_000_000, np.uint8))
    assert ["hog"] == names(small_disk)
    assert 5_000_000 == hog.stat().st_size


def test_abandoned_parts_make_room(
    run: Callable[..., Any], models: tuple[Path, Path], small_disk: Path, tmp_path: Path
) -> None:
    """What a killed process left does not stand in the way of the next."""
    from analyzer.writing.unfinished import temporary_beside

    out = small_disk / "o.safetensors"
    part = temporary_beside(out)
    part.write_bytes(bytes(5_000_000))
    os.utime(part, (0, 0))
    assert 0 == run("merge", *models, "-o", out, "--alpha=0.5", "--quiet").code
    assert ["o.safetensors"] == names(small_disk)
