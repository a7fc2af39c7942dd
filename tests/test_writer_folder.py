"""The folder writer: whole or not at all, and what it refuses to write over."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from analyzer.errors import CheckpointError, OutputError
from analyzer.writing import folder_writer
from analyzer.writing.folder_writer import Folder, WeightFile, check_folder, create_folder
from analyzer.writing.writer import Entry

ENTRY = Entry("w", "F32", (2,), 8)
BYTES = np.frombuffer(np.array([1, 2], np.float32).tobytes(), np.uint8)


def folder(copies: Mapping[str, Path] | None = None) -> Folder:
    """Two files of weights, one of them in a sub-folder, a text and what is to be copied."""
    weights = [WeightFile(name, [ENTRY], {"file": name}) for name in ("a.safetensors", "unet/b.safetensors")]
    return Folder(weights, {"index.json": b"{}"}, copies or {})


def write(path: Path, content: Folder, *, force: bool = False) -> None:
    with create_folder(path, content, force=force) as writers:
        for writer in writers:
            writer.write(0, 0, BYTES)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_everything_is_there(tmp_path: Path) -> None:
    """Weights, texts and copies; permissions are the user's, and links become files."""
    source, link = tmp_path / "source.txt", tmp_path / "link.txt"
    source.write_text("text" * 1_000_000)
    source.chmod(0o400)
    link.symlink_to(source)
    old = os.umask(0o027)
    try:
        write(tmp_path / "out", folder({"deep/er/copy.txt": link}))
    finally:
        os.umask(old)
    out = tmp_path / "out"
    assert {"a.safetensors", "unet/b.safetensors", "index.json", "deep/er/copy.txt"} == tree(out).keys()
    np.testing.assert_array_equal([1, 2], load_file(out / "unet" / "b.safetensors")["w"])
    assert source.read_bytes() == (out / "deep/er/copy.txt").read_bytes()
    assert not (out / "deep/er/copy.txt").is_symlink()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in out.rglob("*") if p.is_file()}
    assert ({0o640}, 0o750) == (modes, stat.S_IMODE(out.stat().st_mode))
    assert {"out", "source.txt", "link.txt"} == {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException, *, earlier: bool) -> None:
    """An exception or an interrupt removes what was built, and an earlier folder is as it was."""
    out = tmp_path / "out"
    if earlier:
        out.mkdir()
        (out / "old.txt").write_text("old")
    with pytest.raises(type(error)), create_folder(out, folder(), force=earlier) as writers:
        writers[0].write(0, 0, BYTES)
        raise error
    assert ([out] if earlier else []) == list(tmp_path.iterdir())
    assert not earlier or {"old.txt": b"old"} == tree(out)


def test_an_earlier_folder_is_replaced_whole(tmp_path: Path) -> None:
    """Nothing of it is left, beside or in the new one."""
    out = tmp_path / "out"
    write(out, folder({}))
    (out / "stray.txt").write_text("x")
    write(out, folder(), force=True)
    assert {"a.safetensors", "unet/b.safetensors", "index.json"} == tree(out).keys()
    assert [out] == list(tmp_path.iterdir())


def test_the_earlier_folder_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the second of the two renames fails, the first is undone."""
    out = tmp_path / "out"
    write(out, folder())
    before = tree(out)
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if target == out:
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(folder_writer, "exchange", lambda _one, _two: False)
    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OutputError, match="cannot be written"):
        write(out, folder(), force=True)
    assert (before, [out]) == (tree(out), list(tmp_path.iterdir()))


def test_a_full_disk_shows_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files together must fit, the copied ones too."""
    text = tmp_path / "text.txt"
    text.write_bytes(b"x" * 1000)
    asked: list[int] = []
    monkeypatch.setattr(folder_writer, "check_space", lambda _folder, size: asked.append(size))
    write(tmp_path / "out", folder({"text.txt": text}))
    assert [sum(map(len, tree(tmp_path / "out").values()))] == asked
    monkeypatch.undo()
    huge = Folder([WeightFile("a.safetensors", [Entry("a", "F32", (1 << 60,), 1 << 62)], {})], {}, {})
    with pytest.raises(OutputError, match="disk is full"), create_folder(tmp_path / "o", huge, force=False):
        pytest.fail("the block must not be entered")
    assert {"out", "text.txt"} == {p.name for p in tmp_path.iterdir()}


def test_what_cannot_be_copied_is_an_error(tmp_path: Path) -> None:
    """A file that has gone since it was listed; nothing is left behind."""
    with pytest.raises(CheckpointError, match="no such file"):
        write(tmp_path / "out", folder({"x": tmp_path / "gone"}))
    assert [] == list(tmp_path.iterdir())


def refusal(path: Path, *inputs: Path, force: bool = True) -> str:
    files = [i for i in inputs if i.is_file()]
    folders = [i for i in inputs if i.is_dir()]
    files += [f for i in folders for f in i.iterdir() if f.is_file()]
    with pytest.raises(OutputError) as caught:
        check_folder(path, files=files, folders=folders, force=force)
    return str(caught.value)


def model(root: Path, *names: str) -> Path:
    """Empty files under these names; a slash at the end makes a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"")
    return root


def test_inputs_and_what_is_around_them_are_never_written(tmp_path: Path) -> None:
    """The input, a folder in it, a parent of it; through links, and through those that its files are."""
    blobs = model(tmp_path / "cache" / "blobs", "123")
    a = model(tmp_path / "models" / "a", "config.json")
    (a / "model.safetensors").symlink_to(blobs / "123")
    link = tmp_path / "link"
    link.symlink_to(a)
    for path in (a, a / "new", link / "new", tmp_path / "models" / ".." / "models" / "a"):
        assert "is the input" in refusal(path, a), path
    for path in (tmp_path / "models", tmp_path / "cache", blobs, tmp_path):
        assert "holds the input" in refusal(path, a), path
    check_folder(tmp_path / "models" / "b", files=list(a.iterdir()), folders=[a], force=False)


@pytest.mark.parametrize("name", ["out.ckpt", "out.bin", ".", "..", "/"])
def test_names_that_are_no_folders(name: str) -> None:
    """A pickle's name, or no name at all."""
    assert "is no name for a folder" in refusal(Path(name))


def test_places_where_no_folder_can_be(tmp_path: Path) -> None:
    """A file, a link, and a folder that does not exist."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    assert "is not a folder but a file or a link" in refusal(tmp_path / "file")
    assert "is not a folder but a file or a link" in refusal(tmp_path / "link")
    assert "does not exist" in refusal(tmp_path / "no" / "out")


def test_an_existing_folder_needs_force(tmp_path: Path) -> None:
    """Even an empty one."""
    assert "--force" in refusal(model(tmp_path / "out"), force=False)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["model.safetensors"],
        ["config.json", "model.safetensors", "model.fp16.safetensors", "onnx/x.onnx", "extra.safetensors"],
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ],
        ["model_index.json", "unet/config.json"],
    ],
)
def test_a_model_may_be_replaced(tmp_path: Path, names: list[str]) -> None:
    """A folder that is empty or plainly one model."""
    check_folder(model(tmp_path / "out", *names), files=[], folders=[], force=True)


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["one.safetensors", "two.safetensors"],
        ["one.safetensors", "holiday/picture.png"],
        ["config.json", "package.json", "src/main.py"],
        ["config.json", "model.safetensors", ".git/HEAD"],
        [".hidden"],
    ],
)
def test_anything_else_is_not_replaced(tmp_path: Path, names: list[str]) -> None:
    """Documents, a collection of models, a project, a repository: force is not enough."""
    assert "is not plainly the folder of one model" in refusal(model(tmp_path / "out", *names))


def test_force_is_needed_at_the_end_too(tmp_path: Path) -> None:
    """A folder that appears while the merge runs is not replaced."""
    out = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="cannot be written"),
        create_folder(out, folder(), force=False),
    ):
        model(out, "notes.txt")
    assert ({"notes.txt": b""}, [out]) == (tree(out), list(tmp_path.iterdir()))
