"""Memory does not grow with the size of tensors, and with the number of keys only by what names them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from measuring_memory import measure, write_sparse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")

THREADS = "--threads=2"


def merge(folder: Path, shapes: dict[str, tuple[int, ...]], *options: str) -> int:
    """The peak, in bytes, of the merge of two models with these tensors."""
    paths = [folder / f"{name}.safetensors" for name in "abo"]
    for path in paths[:2]:
        write_sparse(path, shapes, "F16", 2)
    found = measure("merge", *paths[:2], "-o", paths[2], THREADS, "--quiet", "--force", *options)
    paths[2].unlink()
    return found.peak


def test_one_large_tensor(tmp_path: Path) -> None:
    """An eighth of a gigabyte in one tensor takes what 8 MB take, but for a few buffers."""
    small = merge(tmp_path, {"w": (4, 1 << 20)}, "--alpha=0.5")
    large = merge(tmp_path, {"w": (64, 1 << 20)}, "--alpha=0.5")
    assert large - small < 16_000_000


@pytest.mark.parametrize("options", [("--alpha=0.5",), ("--alpha=0",)])
def test_many_keys(tmp_path: Path, options: tuple[str, ...]) -> None:
    """5,000 keys take a few kilobytes each: the two headers, the plan, the new header."""
    few, many = (
        merge(tmp_path, {f"layers.{i}.linear.weight": (10, 10) for i in range(count)}, *options)
        for count in (200, 5_200)
    )
    assert (many - few) / 5_000 < 10_000
