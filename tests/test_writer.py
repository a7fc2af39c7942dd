"""The safetensors writer: what it writes, and what it refuses and leaves behind when it fails."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from analyzer.errors import OutputError
from analyzer.writing import writer as writer_module
from analyzer.writing.folder_writer import check_folder
from analyzer.writing.writer import (
    Entry,
    check_files,
    check_target,
    create_safetensors,
    files_ready,
    layout_of,
    write_files,
)

NUMPY = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}


def entry(key: str, array: np.ndarray) -> Entry:
    """The description of an array."""
    name = {np.dtype(v): k for k, v in NUMPY.items()}[array.dtype]
    return Entry(key, name, array.shape, array.nbytes)


def write_all(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays back to front and in two pieces each, as threads might."""
    entries = [entry(k, a) for k, a in arrays.items()]
    with create_safetensors(path, entries, metadata) as writer:
        for index, array in reversed(list(enumerate(arrays.values()))):
            raw = np.frombuffer(array.tobytes(), np.uint8)
            half = len(raw) // 2
            writer.write(index, half, raw[half:])
            writer.write(index, 0, raw[:half])


@settings(max_examples=50)
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(sorted(NUMPY)), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=8,
    ),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
    names=st.lists(st.text(min_size=1, max_size=12), min_size=8, max_size=8, unique=True),
)
def test_the_reference_library_reads_what_we_write(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[str, list[int]]],
    metadata: dict[str, str],
    names: list[str],
) -> None:
    """Any names, dtypes, shapes and metadata come back equal, whatever the alignment."""
    path = tmp_path_factory.mktemp("w") / "out.safetensors"
    rng = np.random.default_rng(0)
    names = [n for n in names if n != "__metadata__" and n.isprintable()] or ["x"]
    arrays = {
        name: rng.integers(0, 100, shape).astype(NUMPY[dtype])
        for name, (dtype, shape) in zip(names, shapes, strict=False)
    }
    metadata = {k: v for k, v in metadata.items() if (k + v).isprintable()}
    write_all(path, arrays, metadata)
    loaded = load_file(path)
    assert arrays.keys() == loaded.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, loaded[name])
        assert array.dtype == loaded[name].dtype
    with safe_open(path, "np") as file:
        assert metadata == (file.metadata() or {})


def test_header_keeps_the_order_given(tmp_path: Path) -> None:
    """The header lists tensors as they came, also where the data must be laid out otherwise."""
    arrays = {"z": np.arange(3, dtype=np.uint8), "a": np.arange(2, dtype=np.int64)}
    path = tmp_path / "out.safetensors"
    write_all(path, arrays, {})
    header = path.read_bytes()[8:]
    assert header.index(b'"z"') < header.index(b'"a"')
    np.testing.assert_array_equal(arrays["a"], load_file(path)["a"])


@given(
    st.dictionaries(st.text().filter(lambda key: key != "__metadata__"), st.sampled_from([(), (0,), (2, 3)])),
    st.dictionaries(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)), max_size=2),
)
def test_the_header_is_the_text_that_json_makes_of_it(
    shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]
) -> None:
    """Whatever characters stand in the names; what is not valid Unicode in the metadata becomes "?"."""
    entries = [Entry(key, "F32", shape, 4 * math.prod(shape)) for key, shape in shapes.items()]
    document: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for entry in entries:
        offsets = [at, at := at + entry.nbytes]
        document[entry.key] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": offsets}
    expected = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    assert expected == layout_of(entries, metadata).header[8:].rstrip(b" ")


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_a_tensor_named_as_the_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    """No reader would open the file, so it is not written."""
    with (
        pytest.raises(OutputError, match="a tensor is named __metadata__"),
        create_safetensors(tmp_path / "o.safetensors", [Entry("__metadata__", "U8", (1,), 1)], metadata),
    ):
        pass
    assert [] == list(tmp_path.iterdir())


def test_permissions_are_the_users(tmp_path: Path) -> None:
    """The umask decides, as for any file that a user creates, and not 0600."""
    old = os.umask(0o027)
    try:
        write_all(tmp_path / "out.safetensors", {"a": np.zeros(2, np.float32)}, {})
    finally:
        os.umask(old)
    assert 0o640 == stat.S_IMODE((tmp_path / "out.safetensors").stat().st_mode)


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    """An exception or an interrupt in the middle removes the temporary file, and OUT never appears."""
    with (
        pytest.raises(type(error)),
        create_safetensors(tmp_path / "out.safetensors", [Entry("a", "F32", (2,), 8)], {}) as writer,
    ):
        writer.write(0, 0, np.zeros(4, np.uint8))
        raise error
    assert [] == list(tmp_path.iterdir())


def test_a_failure_keeps_the_earlier_file(tmp_path: Path) -> None:
    """Replacing a file is all or nothing."""
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"earlier")
    with pytest.raises(RuntimeError), create_safetensors(path, [Entry("a", "F32", (2,), 8)], {}):
        raise RuntimeError
    assert b"earlier" == path.read_bytes()


def test_a_full_disk_shows_before_the_work(tmp_path: Path) -> None:
    """A file larger than the free space is refused at once, in one sentence, with nothing left."""
    entries = [Entry("a", "F32", (1 << 60,), 1 << 62)]
    with (
        pytest.raises(OutputError, match="disk is full"),
        create_safetensors(tmp_path / "o.safetensors", entries, {}),
    ):
        pytest.fail("the block must not be entered")
    assert [] == list(tmp_path.iterdir())


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from a write, as when another program takes the space, cleans up too."""

    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(OutputError, match="disk is full"),
        create_safetensors(tmp_path / "o.safetensors", [Entry("a", "F32", (2,), 8)], {}) as writer,
    ):
        monkeypatch.setattr(os, "pwrite", no_space)
        writer.write(0, 0, np.zeros(8, np.uint8))
    assert [] == list(tmp_path.iterdir())


def test_targets_that_must_not_be_written(tmp_path: Path) -> None:
    """An input, a link to it, a folder, an existing file, another format, a folder that is not there."""
    model = tmp_path / "a.safetensors"
    model.write_bytes(b"x")
    soft, hard = tmp_path / "soft.safetensors", tmp_path / "hard.safetensors"
    soft.symlink_to(model)
    hard.hardlink_to(model)
    (tmp_path / "d.safetensors").mkdir()
    circle = tmp_path / "circle.safetensors"
    circle.symlink_to(circle.name)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"y")
    for path, force, words in (
        (model, True, "is the input"),
        (soft, True, "is the input"),
        (hard, True, "is the input"),
        (tmp_path / "d.safetensors", True, "is a folder"),
        (other, False, "--force"),
        (circle, False, "--force"),
        (tmp_path / "x.ckpt", True, r"name the output x\.safetensors"),
        (Path(), True, r"name the output merged\.safetensors"),
        (tmp_path / "no" / "x.safetensors", True, "does not exist"),
    ):
        with pytest.raises(OutputError, match=words):
            check_target(path, inputs=[model], force=force)
    check_target(other, inputs=[model], force=True)
    check_target(circle, inputs=[model], force=True)
    assert b"x" == model.read_bytes()


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a folder or a report in it; but what is no file there is the business of who made it."""
    asked = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    words = f"the folder {tmp_path} cannot be written to; choose another place"
    with pytest.raises(OutputError, match=re.escape(words)):
        check_target(tmp_path / "o.safetensors", inputs=[], force=True)
    with pytest.raises(OutputError, match=re.escape(words)):
        check_folder(tmp_path / "o", files=[], folders=[], force=True)
    with pytest.raises(OutputError, match=re.escape(words)):
        check_files([tmp_path / "p.html"], inputs=[])
    assert {(tmp_path, os.W_OK | os.X_OK)} == set(asked)
    check_files([Path(os.devnull)], inputs=[])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_that_go_with_other_work(tmp_path: Path) -> None:
    """They are there when the work has ended well, and not when it has failed."""
    page = tmp_path / "p.html"
    page.write_text("old")
    with pytest.raises(ValueError, match="work"), files_ready({page: b"new"}, inputs=[]):
        raise ValueError("work")
    assert ("old", ["p.html"]) == (page.read_text(), names(tmp_path))
    with files_ready({page: b"new"}, inputs=[]):
        assert "old" == page.read_text()
    assert ("new", ["p.html"]) == (page.read_text(), names(tmp_path))


def test_reports_replace_files_but_never_an_input(tmp_path: Path) -> None:
    """A scan or page replaces an earlier one; through whatever link, it is no input."""
    page, model, link = tmp_path / "p.html", tmp_path / "m.safetensors", tmp_path / "l.html"
    page.write_text("old")
    model.write_bytes(b"model")
    link.symlink_to(model)
    write_files({page: b"new"}, inputs=[model])
    assert b"new" == page.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        write_files({link: b"new"}, inputs=[model])
    with pytest.raises(OutputError, match="does not exist"):
        check_files([tmp_path / "no" / "p.html"], inputs=[])
    assert b"model" == model.read_bytes()
    assert {"p.html", "m.safetensors", "l.html"} == {p.name for p in tmp_path.iterdir()}


def test_the_disk_is_told_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that so many bytes were written; so that not all of them are waited for at the end."""
    calls: list[int] = []
    monkeypatch.setattr(writer_module, "_WRITE_OUT_BYTES", 1000)
    monkeypatch.setattr(writer_module, "start_writing_out", calls.append)
    with create_safetensors(tmp_path / "o.safetensors", [Entry("a", "U8", (5000,), 5000)], {}) as writer:
        for start in range(0, 5000, 500):
            writer.write(0, start, np.zeros(500, np.uint8))
    assert 5 == len(calls)
