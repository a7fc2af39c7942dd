"""Digests of files from bytes that come in any order, from any thread, with gaps and overlaps."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.checkpoints import hashing, open_checkpoint
from analyzer.checkpoints.hashing import FileHasher, ModelHasher
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

SIZE = 5000
CONTENT = np.random.default_rng(3).bytes(SIZE)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class CountingSource(FileSource):
    """Counts the bytes that are read from the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.count = 0

    def fill(self, offset: int, buffer: memoryview) -> None:
        self.count += len(buffer)
        super().fill(offset, buffer)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random bytes."""
    path = tmp_path_factory.mktemp("hashing") / "file"
    path.write_bytes(CONTENT)
    return path


def read(source: FileSource, start: int, count: int) -> None:
    """As a pass reads: into a buffer that is used again."""
    buffer = bytearray(count)
    source.read_into(start, memoryview(buffer))
    buffer[:] = bytes(count)


def hashed(path: Path) -> tuple[CountingSource, FileHasher]:
    """A source, and who hashes what is read of it."""
    source = CountingSource(path)
    hasher = FileHasher(source)
    source.watch = hasher.take
    return source, hasher


@settings(max_examples=200)
@given(
    reads=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 1500)), max_size=20),
    held=st.sampled_from([0, 1, 700, 10_000]),
)
def test_the_digest_does_not_depend_on_what_is_read(
    path: Path, reads: list[tuple[int, int]], held: int
) -> None:
    """Reads in any order, twice or never, with little room for what comes early: it is the file's digest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "HELD_BYTES", held)
        source, hasher = hashed(path)
        for start, count in reads:
            read(source, start, min(count, SIZE - start))
        assert DIGEST == hasher.digest()
        source.close()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("held", [1, 64, 10_000])
def test_threads_bring_the_bytes_together(
    path: Path, threads: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the threads overtake each other; and none waits for ever."""
    monkeypatch.setattr(hashing, "HELD_BYTES", held)
    source, hasher = hashed(path)
    places = iter(range(0, SIZE, 10))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                start = next(places, None)
            if start is None:
                return
            read(source, start, 10)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    assert DIGEST == hasher.digest()
    source.close()


def test_bytes_that_come_in_order_are_read_once(path: Path) -> None:
    """Nothing is read for the digest but what nobody else reads: here the first 100 bytes and the last."""
    source, hasher = hashed(path)
    for start in range(100, SIZE - 100, 100):
        read(source, start, 100)
    assert DIGEST == hasher.digest()
    assert SIZE == source.count
    source.close()


def test_little_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the end to the start, as a file of another order is read: no more is held than there is room."""
    monkeypatch.setattr(hashing, "HELD_BYTES", 300)
    source, hasher = hashed(path)
    for start in range(SIZE - 100, -100, -100):
        read(source, start, 100)
        assert hasher.held_bytes <= 300
    assert DIGEST == hasher.digest()
    source.close()


def test_little_is_held_of_a_model_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose header nobody brings holds what follows; when others come, it gives that up."""
    from safetensors.numpy import save_file

    monkeypatch.setattr(hashing, "HELD_BYTES", 2500)
    shards = {f"t{i}": f"model-{i + 1:05}-of-00008.safetensors" for i in range(8)}
    for key, name in shards.items():
        save_file({key: np.frombuffer(CONTENT[:1000], np.uint8)}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with open_checkpoint(tmp_path) as model:
        hasher = ModelHasher(model)
        for info in model.infos.values():
            model.read_into(info, 0, memoryview(bytearray(info.nbytes)))
            assert sum(each.held_bytes for each in hasher._files.values()) < 2500
        found = hasher.digests()
    assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()} == found


def test_a_file_that_ends_early_is_an_error_for_one_and_no_trap_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap that cannot be read is told once; another thread that brings bytes does not wait."""
    monkeypatch.setattr(hashing, "HELD_BYTES", 1)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    source, hasher = hashed(path)
    path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="ended early"):
            hasher.take(100, memoryview(bytes(100)))
    source.close()


def test_a_model_in_a_folder_has_a_digest_a_file(tmp_path: Path) -> None:
    """By the names in the folder, the index among them; a single file has one digest alone."""
    from safetensors.numpy import save_file

    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, name in enumerate(names):
        save_file({f"t{i}": np.full((3, 4), i, np.float32)}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {{"t0": "{names[0]}", "t1": "{names[1]}"}}}}')
    expected = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    with open_checkpoint(tmp_path) as model:
        assert expected == ModelHasher(model).digests()
    with open_checkpoint(index) as model:
        assert expected == ModelHasher(model).digests()
    with open_checkpoint(tmp_path / names[0]) as model:
        assert expected[names[0]] == ModelHasher(model).digests()
