"""Memory and time of extreme models: python tests/benchmarks/many_keys.py [--keys N] [--gigabytes F] [DIR].

Scans and merges two models of 100,000 keys of 1,000 elements, two of one 5 GB tensor, and small ones of both
kinds beside them, in processes of their own. The inputs are sparse files, so only the outputs take space in
DIR; each is removed before the next is written. `--profile` shows where the time of the many keys goes.
What a key costs where values differ, with the program's start, is measured by `speed.py --only keys`.
Linux only. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "safety"))

from measuring_memory import Measured, measure, write_sparse

ELEMENTS = 1_000  # of each of many keys
WIDTH = 1 << 20  # of the one tensor
Shapes = Mapping[str, tuple[int, ...]]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    parser.add_argument("--keys", type=int, default=100_000, metavar="N")
    parser.add_argument("--gigabytes", type=float, default=5.0, metavar="F")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.profile:
            _profile(Path(folder), options.keys)
            return
        _compare(Path(folder), options)


def _compare(folder: Path, options: argparse.Namespace) -> None:
    rows = max(1, round(options.gigabytes * 1e9 / 2 / WIDTH))
    cases: list[tuple[str, int, Shapes]] = [
        ("few keys", options.keys // 100, _many(options.keys // 100)),
        ("many keys", options.keys, _many(options.keys)),
        ("a small tensor", 1, {"w": (4, WIDTH)}),
        ("a large tensor", 1, {"w": (rows, WIDTH)}),
    ]
    needed = max(options.gigabytes * 1e9, options.keys * ELEMENTS * 2.5)
    if shutil.disk_usage(folder).free < 2 * needed:
        sys.exit(f"{folder}: {2 * needed / 1e9:.0f} GB are needed; name another folder")
    _say(f"{'case':<16}{'action':<20}{'keys':>9}{'GB':>8}{'peak MB':>9}{'s':>8}{'µs a key':>10}{'GB/s':>7}")
    for name, keys, shapes in cases:
        for action in ("scan", "merge --alpha=0.5", "merge --alpha=0"):
            size, found = _run(folder, shapes, action.split(), options.threads)
            each = found.seconds / keys * 1e6 if keys > 1 else 0
            _say(
                f"{name:<16}{action:<20}{keys:>9,}{size / 1e9:>8.2f}{found.peak / 1e6:>9.0f}"
                f"{found.seconds:>8.2f}{each:>10.0f}{size / 1e9 / found.seconds:>7.2f}"
            )


def _run(folder: Path, shapes: Shapes, action: Sequence[str], threads: int) -> tuple[int, Measured]:
    """How large one model is, and what a command takes that reads two and writes its result."""
    a, b, out = (folder / f"{name}.safetensors" for name in "abo")
    size = write_sparse(a, shapes, "F16", 2)
    write_sparse(b, shapes, "F16", 2)
    try:
        command, *words = action
        return size, measure(command, a, b, "-o", out, *words, f"--threads={threads}", "--quiet")
    finally:
        for path in (a, b, out):
            path.unlink(missing_ok=True)


def _profile(folder: Path, keys: int) -> None:
    """The functions that take longest in scanning, planning and merging many keys, on one thread."""
    from analyzer.cli import mergescope

    a, b, out = (folder / f"{name}.safetensors" for name in "abo")
    for path in (a, b):
        write_sparse(path, _many(keys), "F16", 2)
    common = [a, b, "-o", out, "--threads=1", "--quiet"]
    merge = ["merge", *common, "--alpha=0.5", "--force"]
    steps = {"scan": ["scan", *common], "plan": [*merge, "--dry-run", "--json"], "plan and write": merge}
    for title, arguments in steps.items():
        profile = cProfile.Profile()
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            profile.runcall(mergescope.main, [*map(str, arguments)], standalone_mode=False)
        _say(f"\n{title}: {keys:,} keys")
        pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("cumulative").print_stats(45)


def _many(keys: int) -> Shapes:
    return {
        f"model.layers.{i // 8}.mlp.experts.{i % 8}.up_proj.weight": (10, ELEMENTS // 10) for i in range(keys)
    }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
