"""One function for each line of `speed.py`: makes its models, runs whole processes, adds to the results."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import speed_processes as processes
from peers import COMPUTED
from speed_processes import Command, Sample, interleave, script, tool
from speed_results import TARGETS, Results

MIB = 1 << 20
IN_MEMORY = ("tmpfs", "ramfs")
GPU_SIGNS = ("/dev/nvidiactl", "/dev/dxg")  # without one of these, torch is not asked
QUIET = ("--quiet", "--device", "cpu")
EMPTY = 1e-3  # "gigabytes" of the pair whose scan is all start-up: one short layer
REPORTED = "sdxl-base-sgm"
SHORT = 32  # so many times shorter are the axes of models of which only the keys matter


@dataclass(frozen=True)
class Setting:
    """How much is measured, and where."""

    folder: Path  # for models, and for merges that memory does not hold
    rounds: int
    gigabytes: Sequence[float]  # sizes of one model of a pair
    keys: int
    threads: Sequence[int]
    divisor: int = 1  # of the axes of published layouts; above 1 only to try this out
    may_drop_all: bool = True  # empty the whole page cache, where the system lets us
    in_memory: bool = True  # write merges to /dev/shm where there is room

    def pair(self, kind: str, name: str, *options: object) -> tuple[Path, Path]:
        """Two models of this kind, written unless they are there, by another process: ours stays small."""
        a, b = (self.folder / f"{name}-{side}.safetensors" for side in "ab")
        processes.run(script("pairs.py", kind, a, b, *options))
        return a, b

    def layout(self, kind: str, divisor: int = 1) -> tuple[Path, Path]:
        """Two models of a published layout."""
        divisor *= self.divisor
        return self.pair(kind, f"{kind}-{divisor}", "--divisor", divisor)

    def ways_to_drop(self, *paths: Path) -> dict[str, Callable[[], None]]:
        """How these files can be made cold here, the thorough way first: with all else, or they alone."""
        if processes.file_system(self.folder) in IN_MEMORY:
            return {}
        ways: dict[str, Callable[[], None]] = {}
        if self.may_drop_all and processes.may_drop_all():
            ways["all"] = processes.drop_all
        if hasattr(os, "posix_fadvise"):
            ways["files"] = lambda: processes.drop_files(*paths)
        return ways

    def place_for(self, size: int) -> Path:
        """Where a merge of this size is written: to memory, so that the disk's mood does not decide."""
        memory = Path("/dev/shm")
        if self.in_memory and memory.is_dir() and shutil.disk_usage(memory).free > 2 * size:
            return memory
        return self.folder


def scan(setting: Setting, results: Results) -> None:
    """Scan of SD 1.5 against two loops that people use, page cache warm."""
    a, b = setting.layout("sd15-ldm")
    out = setting.folder / "scan.json"
    peers = {name: script("peers.py", name, a, b) for name in COMPUTED}
    found = interleave({"scan": tool("scan", a, b, "-o", out, *QUIET), **peers}, setting.rounds)
    done = subprocess.run(script("peers.py", "count", out), check=True, capture_output=True, text=True)
    counts = json.loads(done.stdout)
    plain = counts["statistics"] + counts["sums"]
    ours = f"{counts['statistics']} statistics, {counts['sums']} sums, {counts['bins']} bins of histograms"
    for name, computed in COMPUTED.items():
        results.add(f"scan.{name}", *_ratio(found["scan"], found[name]))
        note = f"{ours}, against {computed}; {plain / computed:.3g}× without the bins"
        results.add(f"scan.numbers-{name}", sum(counts.values()) / computed, note)
    results.add("scan.peak", found["scan"].peak / MIB, _peaks(found, peers))


def merge(setting: Setting, results: Results) -> None:
    """Merges of SD 1.5 against MBW's loop, sd-mecha and `cp`, page cache warm."""
    a, b = setting.layout("sd15-ldm")
    with tempfile.TemporaryDirectory(dir=setting.place_for(a.stat().st_size)) as folder:
        out = Path(folder) / "merged.safetensors"
        peers = {"mbw": script("peers.py", "mbw", a, b, out)}
        if importlib.util.find_spec("sd_mecha") is not None:
            peers["sd-mecha"] = script("peers.py", "sd-mecha", a, b, out)
        common = ("merge", a, b, "-o", out, "--force", *QUIET)
        found = interleave({"merge": tool(*common, "--alpha=0.5"), **peers}, setting.rounds)
        copied = interleave({"merge": tool(*common, "--only", "attn2"), "cp": ("cp", a, out)}, setting.rounds)
    for name in peers:
        results.add(f"merge.{name}", *_ratio(found["merge"], found[name]))
    if "sd-mecha" not in peers:
        results.leave_out("merge.sd-mecha", "sd-mecha is not installed")
    results.add("merge.cp", *_ratio(copied["merge"], copied["cp"]))
    results.add("merge.peak", max(found["merge"].peak, copied["merge"].peak) / MIB, _peaks(found, peers))


def cold(setting: Setting, results: Results) -> None:
    """Scan of SD 1.5 against `cat` of the same files, cold and warm; what the disk and the cache can give."""
    a, b = setting.layout("sd15-ldm")
    size = (a.stat().st_size + b.stat().st_size) / 1e9
    commands = {"scan": tool("scan", a, b, "-o", setting.folder / "scan.json", *QUIET), "cat": ("cat", a, b)}
    drops = setting.ways_to_drop(a, b)
    if "all" not in drops:
        results.leave_out("cold.all", "the page cache was not emptied: takes root, on Linux, and a disk")
    if "files" not in drops:
        results.leave_out("cold.files", "not dropped from the cache: takes posix_fadvise, and a disk")
    processes.run(commands["scan"])  # compiles on a fresh machine
    rates = {}
    for name, drop in drops.items():
        found = interleave(commands, setting.rounds, before=drop)
        results.add(f"cold.{name}", found["cat"].wall / found["scan"].wall, _rates(found, size))
        rates[name] = size / found["cat"].wall
    found = interleave(commands, setting.rounds)
    results.add("cold.warm", found["cat"].wall / found["scan"].wall, _rates(found, size))
    if rates:
        disk, cache = next(iter(rates.values())), size / found["cat"].wall
        results.add("cold.roofline", cache / disk, f"{cache:.2f} against {disk:.2f} GB/s, by `cat`")


def sizes(setting: Setting, results: Results) -> None:
    """Scans and merges of ever larger pairs, all cold: memory, and time a byte beyond the start-up."""
    free = shutil.disk_usage(setting.folder).free
    fitting = [size for size in sorted(setting.gigabytes) if 3.1e9 * size < free]  # two models and a merge
    if not fitting:
        for name in (name for name in TARGETS if name.startswith("sizes.")):
            results.leave_out(name, f"{free / 1e9:.0f} GB of disk are too few")
        return
    _, start = _measure_size(setting, "--gigabytes", EMPTY, "--divisor", SHORT)
    rows = []
    for size in fitting:
        how, row = _measure_size(setting, "--gigabytes", size, "--divisor", setting.divisor)
        rows.append(row)
    left_out = [f"{size:g} GB" for size in setting.gigabytes if size not in fitting]
    remark = f"{how}; no disk for {', '.join(left_out)}" if left_out else how
    for name in ("scan", "merge"):
        _add_growth(results, name, start, rows, remark)
    results.curves["sizes"] = rows


def _measure_size(setting: Setting, *options: object) -> tuple[str, dict[str, float]]:
    """How the pair was made cold, what it takes to scan and to merge it, and how large both models are."""
    a, b = setting.pair("layers", "layers", *options)
    out = setting.folder / "merged.safetensors"
    how, drop = next(iter(setting.ways_to_drop(a, b).items()), ("none", None))
    commands = {
        "scan": tool("scan", a, b, "-o", setting.folder / "scan.json", *QUIET),
        "merge": tool("merge", a, b, "-o", out, "--alpha=0.5", "--force", *QUIET),
    }
    if EMPTY in options:
        interleave(commands, 1)  # compiles on a fresh machine
    found = interleave(commands, setting.rounds, before=drop)
    row = {"gigabytes": (a.stat().st_size + b.stat().st_size) / 1e9}
    for name, sample in found.items():
        row |= {name: sample.wall, f"{name}_processor": sample.processor, f"{name}_peak": sample.peak / MIB}
    for path in (a, b, out):
        path.unlink()  # before the next, larger ones
    return {"all": "nothing cached", "files": "files not cached", "none": "all cached"}[how], row


def threads(setting: Setting, results: Results) -> None:
    """Scan of SD 1.5 by 1, 2, 4 … threads, page cache warm."""
    a, b = setting.layout("sd15-ldm")
    size = (a.stat().st_size + b.stat().st_size) / 1e9
    counts = sorted({1, *setting.threads})
    commands = {str(n): tool("scan", a, b, *QUIET, "--threads", n) for n in counts}
    found = interleave({**commands, "cat": ("cat", a, b)}, setting.rounds)
    cores = os.cpu_count() or 1
    rates = {n: size / found[str(n)].wall for n in counts}
    best = max((n for n in counts if n <= cores), default=1)
    note = ", ".join(f"{n}: {rate:.2f} GB/s" for n, rate in rates.items())
    results.add("threads.speed-up", rates[best] / rates[1], f"threads {note}")
    cache = size / found["cat"].wall
    results.curves["threads"] = [{"threads": n, "scan": rates[n], "cat": cache} for n in counts]


def keys(setting: Setting, results: Results) -> None:
    """Many small tensors against one tensor of as many bytes: what a key costs, page cache warm."""
    options = ("--keys", setting.keys)
    pairs = {kind: setting.pair(kind, f"{kind}-{setting.keys}", *options) for kind in ("keys", "tensor")}
    size = pairs["keys"][0].stat().st_size
    with tempfile.TemporaryDirectory(dir=setting.place_for(size)) as folder:
        commands: dict[str, Command] = {}
        for kind, (a, b) in pairs.items():
            out = Path(folder) / f"{kind}.safetensors"
            commands[f"scan {kind}"] = tool("scan", a, b, "-o", setting.folder / f"{kind}.json", *QUIET)
            commands[f"merge {kind}"] = tool("merge", a, b, "-o", out, "--alpha=0.5", "--force", *QUIET)
        found = interleave(commands, setting.rounds)
    for name in ("scan", "merge"):
        many, one = found[f"{name} keys"], found[f"{name} tensor"]
        note = f"{setting.keys:,} keys {many.wall:.2f} s, one tensor of their bytes {one.wall:.2f} s"
        results.add(f"keys.{name}", (many.wall - one.wall) / setting.keys * 1e6, note)
        results.add(f"keys.{name}-peak", many.peak / MIB, f"one tensor {one.peak / MIB:.0f} MiB")


def start(setting: Setting, results: Results) -> None:
    """What needs no weights: a report, the help; and what the first run takes that compiles."""
    a, b = setting.layout(REPORTED, SHORT)
    scan_file, report = setting.folder / "report.json", setting.folder / "report.html"
    processes.run(tool("scan", a, b, "-o", scan_file, *QUIET))
    commands = {"report": tool("report", scan_file, "-o", report), "help": tool("--help")}
    found = interleave(commands, setting.rounds)
    results.add("start.report", found["report"].wall, f"{_peaks(found, ['report'])}; all keys, short axes")
    results.add("start.help", found["help"].wall)
    compiling = {
        "scan": tool("scan", a, b, "-o", scan_file, "--device", "cpu"),
        "merge": tool("merge", a, b, "-o", report.with_suffix(".safetensors"), "--alpha=0.5", "--force"),
    }
    said = 0
    for name, command in compiling.items():
        seconds, first = [], []
        for _ in range(setting.rounds):
            with tempfile.TemporaryDirectory(dir=setting.folder) as cache:
                runs = [processes.run(command, {"NUMBA_CACHE_DIR": cache}) for _ in range(2)]
            seconds.append(runs[0].wall - runs[1].wall)
            first.append(runs[0].wall)
        notice = next((line for line in runs[0].stderr.splitlines() if "compil" in line.lower()), "")
        said += bool(notice)
        note = (
            f"whole run {statistics.median(first):.2f} s; {f'says “{notice}”' if notice else 'says nothing'}"
        )
        results.add(f"start.compile-{name}", statistics.median(seconds), note)
    results.add("start.notices", said)


def cuda(setting: Setting, results: Results) -> None:
    """Scan on a GPU, files cached, against what the bus can copy to it; its memory, and its numbers."""
    names = [name for name in TARGETS if name.startswith("cuda.")]
    if not any(Path(path).exists() for path in GPU_SIGNS):
        for name in names:
            results.leave_out(name, "no GPU")
        return
    a, b = setting.layout("sd15-ldm")
    found_in = setting.folder / "cuda.json"
    processes.run(script("speed_cuda.py", a, b, found_in, setting.rounds))
    found = json.loads(found_in.read_text(encoding="utf-8"))
    for name in names:
        value, note = found.get(name.removeprefix("cuda."), (None, "no GPU that torch can use"))
        if value is None:
            results.leave_out(name, note)
        else:
            results.add(name, value, note)


LINES: dict[str, Callable[[Setting, Results], None]] = {
    "scan": scan,
    "merge": merge,
    "cold": cold,
    "sizes": sizes,
    "threads": threads,
    "keys": keys,
    "start": start,
    "cuda": cuda,
}


def farthest_from_median(values: Sequence[float]) -> float:
    """The largest |x / median − 1| of some positive numbers."""
    middle = statistics.median(values)
    return max(abs(value / middle - 1) for value in values)


def _add_growth(
    results: Results, name: str, start: dict[str, float], rows: list[dict[str, float]], remark: str
) -> None:
    """What one command took on pairs of all sizes, `start` being the pair of next to nothing."""
    peaks = ", ".join(f"{row['gigabytes']:.3g} GB {row[f'{name}_peak']:.0f} MiB" for row in rows)
    results.add(f"sizes.{name}-peak", rows[-1][f"{name}_peak"], f"both models {peaks}")
    each, computing = (
        [(row[column] - start[column]) / (row["gigabytes"] - start["gigabytes"]) for row in rows]
        for column in (name, f"{name}_processor")
    )
    if min(each) <= 0:
        results.leave_out(f"sizes.{name}-growth", "these pairs are too small to tell")
        return
    waited, worked = (", ".join(f"{s:.2f}" for s in found) for found in (each, computing))
    note = f"{waited} s/GB beyond a start of {start[name]:.2f} s, of processors {worked} s/GB; {remark}"
    results.add(f"sizes.{name}-growth", 100 * farthest_from_median(each), note)


def _ratio(ours: Sample, theirs: Sample) -> tuple[float, str]:
    """Time of ours over theirs, and both."""
    return ours.wall / theirs.wall, f"{ours.wall:.2f} s / {theirs.wall:.2f} s"


def _rates(found: dict[str, Sample], gigabytes: float) -> str:
    return " against ".join(f"{gigabytes / found[name].wall:.2f}" for name in ("scan", "cat")) + " GB/s"


def _peaks(found: dict[str, Sample], names: Sequence[str] | dict[str, list[object]]) -> str:
    return ", ".join(f"{name} {found[name].peak / MIB:.0f} MiB" for name in names)
