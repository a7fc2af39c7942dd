"""Reading ahead: what is brought in, how far, and that nothing depends on it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer import readahead
from analyzer.readahead import Readahead, is_cached

SIZE = 100_000
STEP = 10_000

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reads ahead")


class Asked:
    """The pieces that were asked of the system, instead of asking it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cached: bool = False) -> None:
        self.pieces: list[tuple[str, int, int]] = []
        self.dropped: list[tuple[int, int]] = []
        monkeypatch.setattr(readahead, "STEP", STEP)
        monkeypatch.setattr(readahead, "_is_cached", lambda *_: cached)
        monkeypatch.setattr(os, "sendfile", self._send)
        monkeypatch.setattr(
            os, "posix_fadvise", lambda _, start, count, __: self.dropped.append((start, count))
        )

    def _send(self, _null: int, file: int, start: int, count: int) -> int:
        self.pieces.append((Path(f"/proc/self/fd/{file}").readlink().name, start, count))
        return count


def finish(ahead: Readahead) -> None:
    """Wait until the thread has ended."""
    assert ahead.thread is not None
    ahead.thread.join(10)
    assert not ahead.thread.is_alive()


@pytest.fixture
def models(tmp_path: Path) -> list[list[Path]]:
    """A file of ten steps, and a model of two files of five."""
    a, b, c = (tmp_path / name for name in "abc")
    a.write_bytes(bytes(SIZE))
    b.write_bytes(bytes(SIZE // 2))
    c.write_bytes(bytes(SIZE // 2))
    return [[a], [b, c]]


@linux
def test_every_byte_of_every_file_is_brought_in_once(
    models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files from their start to their end, without overlap."""
    asked = Asked(monkeypatch)
    with Readahead() as ahead:
        ahead.begin(models)
        ahead.begin(models)  # begins only once
        finish(ahead)
    for path in (file for model in models for file in model):
        mine = [(start, count) for name, start, count in asked.pieces if name == path.name]
        assert [(start, STEP) for start in range(0, path.stat().st_size, STEP)] == mine


@linux
def test_models_go_at_the_same_pace(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read together is brought in together: the files of a model one after the other."""
    asked = Asked(monkeypatch)
    with Readahead() as ahead:
        ahead.begin(models)
        finish(ahead)
    assert ["a", "b"] * 5 + ["a", "c"] * 5 == [name for name, _, _ in asked.pieces]


@linux
def test_what_is_cached_is_passed_over(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm file costs a few questions."""
    asked = Asked(monkeypatch, cached=True)
    with Readahead() as ahead:
        ahead.begin(models)
        finish(ahead)
    assert [] == asked.pieces


@linux
def test_no_further_ahead_than_the_window(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model larger than the memory does not push itself out of it: the thread waits for the reader."""
    asked = Asked(monkeypatch)
    monkeypatch.setattr(readahead, "_WINDOW", 4 * STEP)
    with Readahead() as ahead:
        ahead.begin(models)
        assert ahead.thread is not None
        ahead.thread.join(0.05)
        assert ahead.thread.is_alive()
        assert 4 == len(asked.pieces)
        ahead.reached(SIZE, 2 * SIZE)  # half of it
        ahead.thread.join(0.05)
        assert 4 + 10 == len(asked.pieces)
        ahead.reached(1, 2 * SIZE)  # a further pass begins anew, the reading ahead does not
        ahead.reached(2 * SIZE, 2 * SIZE)
        finish(ahead)
    assert 20 == len(asked.pieces)


@linux
@pytest.mark.parametrize(("memory", "dropped"), [(4 * SIZE - 1, 20), (4 * SIZE, 0)])
def test_models_that_fill_half_of_the_memory_are_dropped_behind_the_reader(
    memory: int, dropped: int, models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' files stay cached, and a pair that fits stays cached for the merge that follows."""
    asked = Asked(monkeypatch)
    monkeypatch.setattr(readahead, "_memory", lambda: memory)
    monkeypatch.setattr(readahead, "_LINGER", 0)
    with Readahead() as ahead:
        ahead.reached(1, 1)
        ahead.begin(models)
        finish(ahead)
    assert dropped == len(asked.dropped)


@linux
def test_an_end_of_the_reader_is_the_end(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that fails does not leave a thread that goes on reading."""
    Asked(monkeypatch)
    monkeypatch.setattr(readahead, "_WINDOW", STEP)
    with pytest.raises(KeyError), Readahead() as ahead:
        ahead.begin(models)
        raise KeyError
    finish(ahead)


@linux
def test_what_cannot_be_read_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, a folder, a pipe, a name that cannot be: nothing happens."""
    asked = Asked(monkeypatch)
    os.mkfifo(tmp_path / "pipe")
    with Readahead() as ahead:
        ahead.begin([[tmp_path / "none"], [tmp_path], [tmp_path / "pipe"], [Path("a\0b")]])
        finish(ahead)
    assert [] == asked.pieces


@linux
@pytest.mark.parametrize("call", ["sendfile", "preadv"])
def test_a_system_that_refuses_a_call_is_no_error(
    call: str, models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems cannot: then the reader reads by itself."""

    def refuse(*_arguments: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, call, refuse)
    with Readahead() as ahead:
        ahead.begin(models)
        finish(ahead)


@linux
def test_a_file_system_that_cannot_tell_what_is_cached_is_left_alone(
    models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may cache nothing, and would read everything twice; what would have to wait is not cached."""
    tell = readahead._is_cached
    refusal: list[OSError] = [OSError(errno.EOPNOTSUPP, "Operation not supported")]

    def refuse(*_arguments: object) -> int:
        raise refusal[0]

    asked = Asked(monkeypatch)
    monkeypatch.setattr(readahead, "_is_cached", tell)
    monkeypatch.setattr(os, "preadv", refuse)
    for error, expected in ((refusal[0], 0), (BlockingIOError(errno.EAGAIN, "Try again"), 20)):
        refusal[0] = error
        assert not is_cached(models[0][0])
        with Readahead() as ahead:
            ahead.begin(models)
            finish(ahead)
        assert expected == len(asked.pieces)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_happens(
    platform: str, models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is started where there is no such call."""
    monkeypatch.setattr(sys, "platform", platform)
    with Readahead() as ahead:
        ahead.begin(models)
        ahead.reached(0, 0)
    assert ahead.thread is None


def test_without_the_call_nothing_is_said_to_be_cached(
    models: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be told, False."""
    monkeypatch.delattr(os, "preadv", raising=False)
    assert not is_cached(models[0][0])
    assert not is_cached(models[0][0].with_name("none"))


@linux
def test_a_file_just_written_is_cached(models: list[list[Path]]) -> None:
    """What was written lies in the cache until memory is needed; file systems that cannot tell say no."""
    with models[0][0].open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError:
            pytest.skip("this file system cannot tell")
    assert is_cached(models[0][0])


@linux
def test_the_real_call_ends(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own sendfile takes a regular file to nowhere."""
    monkeypatch.setattr(readahead, "_is_cached", lambda *_: False)
    with Readahead() as ahead:
        ahead.begin(models)
        finish(ahead)


def test_reading_ahead_needs_no_numpy() -> None:
    """It begins before the imports that take long."""
    code = "import sys, analyzer.readahead; sys.exit('numpy' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


@linux
def test_progress_leads_the_reading(models: list[list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the first report, and every report goes on to whoever wants it."""
    asked = Asked(monkeypatch)
    seen: list[tuple[int, int]] = []
    with Readahead() as ahead:
        progress = ahead.led_by(lambda *step: seen.append(step), models)
        assert ahead.thread is None
        progress(0, SIZE)
        progress(SIZE, SIZE)
        finish(ahead)
    assert [(0, SIZE), (SIZE, SIZE)] == seen
    assert 20 == len(asked.pieces)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the files with which reading ahead was begun, a list for each time."""
    begun: list[list[str]] = []

    def begin(_ahead: Readahead, models: Sequence[Sequence[Path]]) -> None:
        begun.append([path.name for files in models for path in files])

    monkeypatch.setattr(Readahead, "begin", begin)
    return begun


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ((), ["a", "b"]),
        (("--only", "attn2"), ["a"]),
        (("--only", "attn1,attn2,ff"), ["a", "b"]),
        (("--alpha", "1"), ["b"]),
        (("--method", "slerp"), []),  # surveys the models first
    ],
)
def test_a_merge_reads_ahead_what_it_reads_once_from_end_to_end(
    options: tuple[str, ...],
    files: list[str],
    run: Callable[..., Any],
    unet: Callable[[int], dict[str, np.ndarray]],
    write: Callable[..., Path],
    tmp_path: Path,
    begun: list[list[str]],
) -> None:
    """A and B only where most of them is used; nothing for a plan."""
    a, b = write("a", unet(0)), write("b", unet(1))
    common = ("merge", a, b, "-o", tmp_path / "out.safetensors", "--alpha", "0.5", *options)
    assert 0 == run(*common, "--dry-run").code
    assert [] == begun
    assert 0 == run(*common).code
    assert files == begun[0]


@pytest.mark.parametrize(("warm", "before"), [(True, True), (False, False)])
def test_a_scan_reads_ahead_early_only_if_the_program_itself_is_cached(
    warm: bool,
    before: bool,
    run: Callable[..., Any],
    write: Callable[..., Path],
    begun: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a cold start the imports would wait for the disk behind the models: then with the pass."""
    monkeypatch.setattr(readahead, "is_cached", lambda _: warm)
    a, damaged = write("a", {"w": np.ones((3, 4), np.float32)}), write("b", {"w": np.ones(2, np.float32)})
    damaged.write_bytes(b"no model")
    assert 1 == run("scan", a, damaged).code
    assert before == bool(begun)
    begun.clear()
    assert 0 == run("scan", a, a).code
    assert ["a", "a"] == begun[0]


def test_a_selection_is_not_read_ahead(
    run: Callable[..., Any], write: Callable[..., Path], begun: list[list[str]]
) -> None:
    """It leaves out most of the files."""
    a = write("a", {"w.weight": np.ones((3, 4), np.float32)})
    assert 0 == run("scan", a, a, "--only", "weight").code
    assert [] == begun
