"""Whole processes measured by the kernel's own account, cold and warm caches, and what machine this is.

This and all of `speed.py` use the standard library alone: on Linux the peak of a child counts from what its
parent held when it was started, so the parent has to stay small. Linux and macOS.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Command = Sequence[object]

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
LIBRARIES = ("mergescope", "numpy", "numba", "torch", "safetensors")


@dataclass(frozen=True)
class Run:
    """One finished process."""

    wall: float  # seconds, from its start to its end
    processor: float  # seconds of user and system time
    peak: int  # bytes of memory at the most
    stderr: str


@dataclass(frozen=True)
class Sample:
    """Several runs of one command."""

    runs: tuple[Run, ...]

    @property
    def wall(self) -> float:
        """Median, seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def processor(self) -> float:
        """Median, seconds."""
        return statistics.median(run.processor for run in self.runs)

    @property
    def peak(self) -> int:
        """The largest of all runs, bytes."""
        return max(run.peak for run in self.runs)


def run(command: Command, environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; ends this program if it fails."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        text = stderr.read().decode(errors="replace")
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(words)}\n{text}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * PEAK_UNIT, text)


def interleave(
    commands: Mapping[str, Command], rounds: int, *, before: Callable[[], object] | None = None
) -> dict[str, Sample]:
    """Each command `rounds` times, in turn, so that a slow minute of the machine is shared by all.

    `before` is called before every run. Without it the files are in the page cache, which a run of each
    command that is not counted sees to.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    if before is None:
        for command in commands.values():
            run(command)
    for _ in range(rounds):
        for name, command in commands.items():
            os.sync()  # nobody waits for the pages that the one before left to be written
            if before is not None:
                before()
            runs[name].append(run(command))
    return {name: Sample(tuple(found)) for name, found in runs.items()}


def tool(*arguments: object) -> list[object]:
    """The command line of `mergescope …`, as a user starts it in this environment."""
    script = Path(sys.executable).with_name("mergescope")
    start: list[object] = [script] if script.is_file() else [sys.executable, "-I", "-m", "analyzer"]
    return [*start, *arguments]


def script(name: str, *arguments: object) -> list[object]:
    """The command line of a script in this folder."""
    return [sys.executable, Path(__file__).with_name(name), *arguments]


def may_drop_all() -> bool:
    """Whether this machine lets us empty the page cache, programs and all."""
    return os.access(DROP_CACHES, os.W_OK)


def drop_all() -> None:
    """Empty the page cache."""
    os.sync()
    DROP_CACHES.write_text("3")


def drop_files(*paths: Path) -> None:
    """Have the kernel forget these files' pages. Only a request, and pages in use elsewhere stay."""
    os.sync()  # pages that wait to be written stay too
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def describe_machine(folder: Path) -> dict[str, str]:
    """Processor, memory, file system and versions; nothing that tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, {file_system(folder)}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in LIBRARIES)]
        ),
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|flags)\s*: (.*)$", text, re.MULTILINE))
    vectors = next(
        (name for name in ("avx512f", "avx2", "avx") if name in found.get("flags", "").split()), ""
    )
    named = {"avx512f": " with AVX-512", "avx2": " with AVX2", "avx": " with AVX"}
    return found.get("model name", platform.machine()).strip() + named.get(vectors, "")


def file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown file system"
    mounts = [(line.split()[4], line.split(" - ")[1].split()[0]) for line in lines]
    place = folder.resolve()
    holding = [m for m in mounts if place.is_relative_to(m[0])]
    return max(holding, key=lambda mount: len(mount[0]))[1]
