"""A scan on the GPU against what the bus can do: python tests/benchmarks/speed_cuda.py A B OUT.json [ROUNDS].

Writes a value and the figures behind it for each of: the pass as a share of the pinned host-to-device copy
rate, the share of its time in which kernels run, GPU memory of a whole process, and how far its numbers are
from the CPU's. Writes {} where torch finds no GPU. Part of `speed.py`.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_processes import tool

COPIED = 1 << 28  # bytes of one copy
COPIES = 20
POLLED = 0.02  # seconds between two looks at the memory in use

Found = dict[str, tuple[float | None, str]]


def main() -> None:
    """Measure, write."""
    import torch

    a, b, out = map(Path, sys.argv[1:4])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    found: Found = {}
    if torch.cuda.is_available():
        with tempfile.TemporaryDirectory() as folder:
            found["memory"] = memory_of_scan(a, b, Path(folder) / "cuda.json")
            subprocess.run(
                tool("scan", a, b, "-o", f"{folder}/cpu.json", "--quiet", "--device", "cpu"), check=True
            )
            scans = (json.loads((Path(folder) / f"{n}.json").read_bytes()) for n in ("cpu", "cuda"))
            worst, where = largest_difference(*scans)
            found["difference"] = (worst, where)
        found |= rate_of_pass(a, b, rounds)
    out.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def rate_of_pass(a: Path, b: Path, rounds: int) -> Found:
    """The pass in this process, in which the GPU is awake; a first one warms caches and is not counted."""
    from torch.profiler import ProfilerActivity, profile

    from analyzer.checkpoints import open_checkpoint
    from analyzer.scan import scan

    def seconds() -> float:
        with open_checkpoint(a) as first, open_checkpoint(b) as second:
            begun = time.perf_counter()
            scan(first, second, device="cuda:0")
            return time.perf_counter() - begun

    seconds()
    size = a.stat().st_size + b.stat().st_size
    taken = statistics.median(seconds() for _ in range(rounds))
    rate, copied = size / taken / 1e9, copy_rate() / 1e9
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        seconds()
    events = profiled.key_averages()
    busy = sum(event.self_device_time_total for event in events if not event.key.startswith(("Mem", "cuda")))
    return {
        "rate": (rate / copied, f"{rate:.1f} against {copied:.1f} GB/s, without start-up"),
        "busy": (busy / 1e6 / taken, f"{busy / 1e3:.0f} ms of {taken * 1e3:.0f} ms"),
    }


def copy_rate() -> float:
    """Bytes a second from pinned memory to the device."""
    import torch

    host = torch.empty(COPIED, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(COPIED, dtype=torch.uint8, device="cuda:0")
    device.copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(COPIES):
        device.copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    return COPIED * COPIES / (time.perf_counter() - begun)


def memory_of_scan(a: Path, b: Path, out: Path) -> tuple[float | None, str]:
    """MiB that the GPU has in use at the most while a scan runs, beyond what it had before."""
    before = _memory_in_use()
    if before is None:
        return None, "nvidia-smi is not there"
    seen, done = [before], threading.Event()

    def look() -> None:
        while not done.wait(POLLED):
            seen.append(_memory_in_use() or 0.0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        subprocess.run(tool("scan", a, b, "-o", out, "--quiet", "--device", "cuda:0"), check=True)
    finally:
        done.set()
        thread.join()
    return max(seen) - before, f"{len(seen)} looks while a scan ran"


def _memory_in_use() -> float | None:
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return float(done.stdout.split()[0])


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, str]:
    """How far two scans are apart at the most, relative to the larger of two numbers, and where.

    Of every sum and every statistic of every key, and of the totals. Undefined on one side only is
    infinitely far.
    """
    worst, where = 0.0, "all numbers are the same"
    numbers = dict(_numbers(second))
    for name, x in _numbers(first):
        y = numbers.get(name)
        if x is None or y is None:
            difference = 0.0 if x is y else math.inf
        else:
            difference = abs(x - y) / max(abs(x), abs(y)) if x != y else 0.0
        if difference > worst:
            worst, where = difference, f"{name[1]} of {name[0]}"
    return worst, where


def _numbers(scan: dict[str, Any]) -> Iterator[tuple[tuple[str, str], float | None]]:
    for row in scan["keys"]:
        for group in ("sums", "statistics"):
            for name, value in row[group].items():
                if value is None or isinstance(value, int | float):
                    yield (row["key"], name), value
    for name, value in scan["totals"]["statistics"].items():
        yield ("all keys", name), value


if __name__ == "__main__":
    main()
