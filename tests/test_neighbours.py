"""Runs that lie side by side in the output go through one call, and come out as if each had gone alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analyzer.checkpoints.sources import FileSource
from analyzer.merging.steps import Span
from analyzer.merging.worker import Worker

KEYS = 40
SHAPES = [(3, 5), (7,), (1,), (), (0, 4), (16, 2)]
State = dict[str, np.ndarray]
Merge = Callable[..., tuple[Path, str]]


def tensors(seed: int, dtypes: list[str]) -> State:
    """Small tensors; the library writes wider dtypes first, so the order in the file depends on them."""
    rng = np.random.default_rng(seed)
    return {
        f"k{i:03}": np.asarray(rng.standard_normal(SHAPES[i % len(SHAPES)])).astype(dtypes[i % len(dtypes)])
        for i in range(KEYS)
    }


@pytest.fixture
def merge(run: Callable[..., Any], tmp_path: Path) -> Merge:
    """Merges two state dicts; returns where the result lies, and the warnings."""

    def merge(a: State, b: State, *options: str) -> tuple[Path, str]:
        save_file(a, tmp_path / "a.safetensors")
        save_file(b, tmp_path / "b.safetensors")
        models = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
        found = run("merge", *models, "-o", tmp_path / "o.safetensors", "--threads=1", *options)
        assert 0 == found.code, found.err
        return tmp_path / "o.safetensors", found.err

    return merge


@pytest.mark.parametrize("dtypes_a", [["f2"], ["f4"], ["f2", "f4"], ["f8", "f2", "f2"]])
@pytest.mark.parametrize("dtypes_b", [["f2"], ["f4", "f4", "f2"]])
def test_every_tensor_is_what_numpy_makes_of_it(
    merge: Merge, dtypes_a: list[str], dtypes_b: list[str]
) -> None:
    """Scalars, empty tensors and neighbours of other dtypes among them; the orders in the files differ."""
    a, b = tensors(0, dtypes_a), tensors(1, dtypes_b)
    found = load_file(merge(a, b, "--alpha=0.25", "--set", "key:k00*=1", "--set", "key:k01*=0")[0])
    assert a.keys() == found.keys()
    for key, x in a.items():
        alpha = {"k00": 1.0, "k01": 0.0}.get(key[:3], 0.25)
        wide, y = x.astype("f8"), b[key].astype("f8")
        expected = y if alpha == 1 else wide + alpha * (y - wide)
        np.testing.assert_array_equal(expected.astype(x.dtype), found[key], key)


def test_a_change_of_dtype_goes_through_one_call_too(merge: Merge) -> None:
    """Of what is kept, taken and merged."""
    a, b = tensors(0, ["f2"]), tensors(1, ["f2"])
    found = load_file(
        merge(a, b, "--alpha=0.5", "--set", "key:k00*=1", "--set", "key:k01*=0", "--dtype=fp32")[0]
    )
    for key, x in a.items():
        alpha = {"k00": 1.0, "k01": 0.0}.get(key[:3], 0.5)
        wide, y = x.astype("f8"), b[key].astype("f8")
        np.testing.assert_array_equal((wide + alpha * (y - wide)).astype("f4"), found[key], key)


def test_what_is_not_finite_is_counted_by_key(merge: Merge) -> None:
    """Whether it is computed or taken; what is kept is no news."""
    a, b = tensors(0, ["f2"]), tensors(1, ["f2"])
    b["k006"][1, 2] = np.nan
    b["k012"][:2] = np.inf
    a["k018"][0, 0] = np.nan
    options = [f"--set=key:{key}" for key in ("k012=1", "k013=1", "k018=0", "k019=0")]
    out, warnings = merge(a, b, "--alpha=0.5", *options)
    assert "1 values of 'k006' are NaN or Inf" in warnings
    assert "10 values of 'k012' are NaN or Inf" in warnings
    assert 2 == warnings.count("are NaN or Inf")
    np.testing.assert_array_equal(b["k012"], load_file(out)["k012"])


def test_what_is_clipped_is_counted_by_key(merge: Merge) -> None:
    """A value beyond fp8's largest."""
    a, b = tensors(0, ["f2"]), tensors(1, ["f2"])
    b["k006"][1, 2] = 4000.0
    _, warnings = merge(a, b, "--alpha=0.5", "--dtype=fp8_e4m3")
    assert "1 values of 'k006' are clipped" in warnings
    assert 1 == warnings.count("are clipped")


@pytest.mark.parametrize("alpha", [0, 1])
def test_what_is_copied_is_read_once_whatever_it_holds(
    alpha: int, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled fp8 has the format's largest number in every tensor: copied it is no sign of clipping."""
    import torch
    from safetensors.torch import save_file as save_torch

    models = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for seed, path in enumerate(models):
        state = {f"k{i}": torch.tensor([448.0, seed, -448.0, i]).to(torch.float8_e4m3fn) for i in range(9)}
        save_torch(state, path)
    reads: list[int] = []
    run_worker, read = Worker.run, FileSource.read_into

    def run_alone(self: Worker, batch: list[Span], buffers: list[Any]) -> int:
        reads.clear()
        return run_worker(self, batch, buffers)

    def read_into(self: FileSource, offset: int, buffer: memoryview) -> None:
        reads.append(len(buffer))
        read(self, offset, buffer)

    monkeypatch.setattr(Worker, "run", run_alone)
    monkeypatch.setattr(FileSource, "read_into", read_into)
    out = tmp_path / "o.safetensors"
    assert 0 == run("merge", *models, "-o", out, "--threads=1", "--alpha", alpha).code
    assert [9 * 4] == reads
    assert models[alpha].read_bytes()[-36:] == out.read_bytes()[-36:]


def test_neighbours_are_read_and_written_together(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group of all that is merged alike, and where the files' orders agree one read of each."""
    groups: list[int] = []
    reads: list[int] = []
    write, read = Worker._write_together, FileSource.read_into

    def write_together(self: Worker, spans: Sequence[Span], buffers: list[Any]) -> bool:
        groups.append(len(spans))
        reads.clear()
        return write(self, spans, buffers)

    def read_into(self: FileSource, offset: int, buffer: memoryview) -> None:
        reads.append(len(buffer))
        read(self, offset, buffer)

    monkeypatch.setattr(Worker, "_write_together", write_together)
    monkeypatch.setattr(FileSource, "read_into", read_into)
    a, b = tensors(0, ["f2"]), tensors(1, ["f2"])
    merge(a, b, "--alpha=0.5")
    assert [sum(x.size > 0 for x in a.values())] == groups
    assert [sum(x.nbytes for x in a.values())] * 2 == reads[:2]
