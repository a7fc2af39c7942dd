"""How much work a scan and a merge do for a byte and for a key: counted, never timed.

The bounds are half as much again as what was counted: whoever doubles the work breaks them.
"""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.batches import Batch, BatchSums
from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.checkpoints.sources import AbstractSource, FileSource
from analyzer.kernels.backends import SCAN_CHUNK, has_numba
from analyzer.measures import Sums
from analyzer.measuring import Measured, Models, Piece, measure_pieces
from analyzer.merge import merge, plan_merge
from analyzer.merging.inputs import Inputs
from analyzer.recipes.recipe import Recipe
from analyzer.scan import scan
from analyzer.sums import CompiledMeasurer
from analyzer.writing.writer import SafetensorsWriter

Write = Callable[..., Path]

KEYS = 2000
MORE = 1.5  # what a bound leaves above what was counted
SPANS = 256  # of a batch

pytestmark = pytest.mark.skipif(not has_numba(), reason="the compiled loops are what is counted")


class CountingSource(AbstractSource):
    """A file that keeps account of what is read of it."""

    def __init__(self, source: AbstractSource) -> None:
        assert isinstance(source, FileSource)
        self.source = source
        self.reads: list[tuple[int, int]] = []  # first byte, and the one behind the last

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, offset + len(buffer)))
        self.source.read_into(offset, buffer)

    def close(self) -> None:
        self.source.close()


def counted(checkpoint: Checkpoint) -> tuple[Checkpoint, CountingSource]:
    """The same open file, whose reads are counted from now on."""
    source = CountingSource(checkpoint.sources[0])
    return replace(checkpoint, sources=(source,)), source


def bytes_read(reads: list[tuple[int, int]]) -> np.ndarray:
    """How often every byte was read, from byte 0 on."""
    edges = np.zeros(max(end for _, end in reads) + 1, np.int64)
    for start, end in reads:
        edges[start] += 1
        edges[end] -= 1
    return np.cumsum(edges)[:-1]


def expected_reads(checkpoint: Checkpoint, keys: list[str]) -> np.ndarray:
    """Once for every byte of these tensors."""
    return bytes_read(
        [(info.offset, info.offset + info.nbytes) for info in map(checkpoint.infos.__getitem__, keys)]
    )


@pytest.fixture(autouse=True)
def _no_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints read samples of every tensor; what is counted here is the pass over all of it."""
    monkeypatch.setattr(Checkpoint, "fingerprint", lambda _self: "sha256:")


@pytest.fixture
def varied(write: Write) -> tuple[Path, Path]:
    """More than one chunk, a few elements, none, integers, matrices; one lies elsewhere in B."""
    rng = np.random.default_rng(3)
    a = {
        "long": rng.standard_normal(2 * SCAN_CHUNK + 3, np.float32).astype(np.float16),
        "matrix": rng.standard_normal((70, 30)),
        "single": rng.standard_normal(SCAN_CHUNK - 7, np.float32),
        "odd": rng.standard_normal(7, np.float32).astype(np.float16),
        "none": np.empty((0, 4), np.float32),
        "scalar": np.array(0.5),
        "ids": rng.integers(0, 99, 1001).astype(np.int32),
        "mask": rng.integers(0, 2, 33).astype(np.bool_),
        "double": rng.standard_normal(SCAN_CHUNK // 2 + 5),
    }
    b = {key: np.asarray(x + 1, np.float32 if key == "odd" else x.dtype) for key, x in a.items()}
    return write("a.safetensors", a), write("b.safetensors", b)


def small(write: Write) -> tuple[Path, Path]:
    """2000 keys of 1000 elements."""
    rng = np.random.default_rng(4)
    keys = [f"layers.{i}.linear.weight" for i in range(KEYS)]
    a = {key: rng.standard_normal((10, 100), np.float32).astype(np.float16) for key in keys}
    b = {key: (x + np.float16(0.01) * x[::-1]).astype(np.float16) for key, x in a.items()}
    return write("a.safetensors", a), write("b.safetensors", b)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_scan_reads_every_byte_once(varied: tuple[Path, Path], threads: int) -> None:
    """All bytes of all tensors of both files, none of them twice."""
    with open_checkpoint(varied[0]) as a, open_checkpoint(varied[1]) as b:
        (counted_a, source_a), (counted_b, source_b) = counted(a), counted(b)
        scan(counted_a, counted_b, threads=threads)
        for model, source in ((a, source_a), (b, source_b)):
            np.testing.assert_array_equal(expected_reads(model, list(model.infos)), bytes_read(source.reads))


def test_a_scan_of_a_selection_reads_nothing_else(varied: tuple[Path, Path]) -> None:
    """Neither the neighbours of what is selected, nor what lies between."""
    with open_checkpoint(varied[0]) as a, open_checkpoint(varied[1]) as b:
        (counted_a, source_a), (counted_b, source_b) = counted(a), counted(b)
        scan(counted_a, counted_b, only="key:odd,key:matrix,key:ids")
        for model, source in ((a, source_a), (b, source_b)):
            expected = expected_reads(model, ["odd", "matrix", "ids"])
            np.testing.assert_array_equal(expected, bytes_read(source.reads))


def test_small_tensors_are_read_and_measured_together(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """For 256 keys one read of each model and one call of the compiled loop."""
    calls: list[int] = []
    measure_batch = CompiledMeasurer.measure_batch

    def counting(self: CompiledMeasurer, batch: Batch, scratch: np.ndarray) -> BatchSums:
        calls.append(len(batch.spans))
        return measure_batch(self, batch, scratch)

    paths = small(write)
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        (counted_a, source_a), (counted_b, source_b) = counted(a), counted(b)
        with monkeypatch.context() as patched:
            patched.setattr(CompiledMeasurer, "measure_batch", counting)
            scan(counted_a, counted_b)
    measured = [count for count in calls if count > 1]  # one call of nothing loads the loop
    assert KEYS == sum(measured)
    for number in (len(measured), len(source_a.reads), len(source_b.reads)):
        assert number <= MORE * KEYS / SPANS


def test_calls_and_objects_of_a_key_are_few(write: Write) -> None:
    """Function calls of the pass, Python's own among them, and objects that are left, for every key."""
    paths = small(write)
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        models = Models(a, b)
        pieces = [Piece(info, b.infos[key], None, info.numel) for key, info in a.infos.items()]
        measure_pieces(models, pieces, threads=1)  # what is imported and compiled but once
        before = sys.getallocatedblocks()
        found = measure_pieces(models, pieces, threads=1)
        blocks = sys.getallocatedblocks() - before
        assert len(found) == KEYS
        calls = count_calls(lambda: measure_pieces(models, pieces, threads=1))
    assert blocks / KEYS < MORE * BLOCKS
    assert calls / KEYS < MORE * CALLS


def count_calls(work: Callable[[], object]) -> int:
    """How many functions are called, of Python and of its extensions, on any thread begun on the way."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


CALLS = 30  # of a key
BLOCKS = 32
RECORD = 2100  # bytes, of which 1200 are bins


def test_the_record_of_a_key_is_small(write: Write) -> None:
    """Two kilobytes for the sums and the histograms of a small tensor."""
    paths = small(write)
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        pieces = [Piece(info, b.infos[key], None, info.numel) for key, info in a.infos.items()]
        measure_pieces(Models(a, b), pieces[:9])
        tracemalloc.start()
        try:
            sums: list[Sums] = [found.sums for found in measure_pieces(Models(a, b), pieces)]
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert len(sums) == KEYS
    assert held / KEYS < RECORD


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_buffers_of_a_pass_are_bounded(write: Write, dtype: type[Any]) -> None:
    """64 MiB for two threads, with a base, whatever the elements and however short the rows."""
    values = np.ones((4 * SCAN_CHUNK, 2), dtype)
    path = write("a.safetensors", {"w": values, "v": values[: SCAN_CHUNK // 2]})
    with open_checkpoint(path) as a, open_checkpoint(path) as b, open_checkpoint(path) as c:
        pieces = [Piece(info, info, info, info.numel) for info in a.infos.values()]
        measure_pieces(Models(a, b, c), pieces[1:], threads=1)
        tracemalloc.start()
        try:
            found: list[Measured] = measure_pieces(Models(a, b, c), pieces, threads=2)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert 9 * SCAN_CHUNK == sum(each.sums.n for each in found)
    assert peak < 64 << 20


@pytest.mark.parametrize("recipe", [Recipe(alpha=0.5), Recipe(only="attn2"), Recipe(alpha=0.0)])
def test_a_merge_reads_and_writes_every_byte_once(
    unet: Callable[[int], dict[str, np.ndarray]],
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: Recipe,
) -> None:
    """Of A what is kept or mixed, of B what is mixed or taken; of the output all."""
    written: list[tuple[int, int]] = []
    put = SafetensorsWriter._put

    def recorded(self: SafetensorsWriter, view: memoryview, position: int) -> None:
        written.append((position, position + len(view)))
        put(self, view, position)

    monkeypatch.setattr(SafetensorsWriter, "_put", recorded)
    paths = write("a.safetensors", unet(0)), write("b.safetensors", unet(1))
    out = tmp_path / "out.safetensors"
    with open_checkpoint(paths[0]) as a, open_checkpoint(paths[1]) as b:
        (counted_a, source_a), (counted_b, source_b) = counted(a), counted(b)
        inputs = Inputs(counted_a, counted_b)
        plan = plan_merge(inputs, recipe)
        merge(inputs, plan, recipe, out=out)
        verbs = {action.key: action.verb for action in plan.actions}
        needed = {
            "a": [key for key, verb in verbs.items() if verb in ("keep", "merge")],
            "b": [key for key, verb in verbs.items() if verb in ("merge", "take")],
        }
        for model, source, keys in ((a, source_a, needed["a"]), (b, source_b, needed["b"])):
            if keys:
                np.testing.assert_array_equal(expected_reads(model, keys), bytes_read(source.reads))
            else:
                assert [] == source.reads
    assert [1] * out.stat().st_size == bytes_read(written).tolist()
