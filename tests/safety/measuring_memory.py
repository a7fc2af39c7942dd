"""Merges of sparse files, which take no space, and what memory they take. Linux only."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CODE = """
import sys, time
import analyzer.cli
start = time.perf_counter()
code = analyzer.cli.run()
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print()
print("measured", int(status["VmHWM"].split()[0]) * 1024, seconds)
sys.exit(code)
"""


@dataclass(frozen=True)
class Measured:
    """What a merge took."""

    peak: int  # bytes of memory in use at the most, all of Python included
    seconds: float  # without the start of Python
    text: str  # what it printed


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, itemsize: int) -> int:
    """A safetensors file that is all zeros and holes; returns how many bytes of data it seems to hold."""
    header: dict[str, object] = {}
    position = 0
    for key, shape in shapes.items():
        size = itemsize
        for length in shape:
            size *= length
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + position)
    return position


def measure(*arguments: object) -> Measured:
    """Run `mergescope …` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    *text, last = done.stdout.splitlines()
    _, peak, seconds = last.split()
    return Measured(int(peak), float(seconds), "\n".join(text) + done.stderr)
