"""The table of what is measured and of what is wanted of it; results as JSON and as Markdown.

Knows nothing of how anything is measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "mergescope.speed"
MARKERS = re.compile(r"(<!-- speed: .*?-->\n)(.*?)(<!-- end of speed -->)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """A row of the table."""

    text: str
    limit: float | None = None  # None: nothing is asked of it
    unit: str = ""  # ratios have none
    at_least: bool = False  # the limit is a lower one

    def is_met(self, value: float) -> bool:
        """Whether a measured value is within the limit."""
        if self.limit is None:
            return True
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def wish(self) -> str:
        """The limit in words, empty if there is none."""
        if self.limit is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {shown(self.limit, self.unit)}"


# In the order of the table. What stands before the dot is the line of `speed.py` that measures it.
TARGETS: dict[str, Target] = {
    "scan.supermerger": Target("scan: time, of SuperMerger's loop", 0.35),
    "scan.by-hand": Target("scan: time, of the hand-written loop", 0.20),
    "scan.numbers-supermerger": Target("scan: numbers a key, of SuperMerger's", 10, "×", at_least=True),
    "scan.numbers-by-hand": Target("scan: numbers a key, of the hand-written loop's", 10, "×", at_least=True),
    "scan.peak": Target("scan: peak memory", 450, "MiB"),
    "merge.mbw": Target("merge, alpha 0.5, all keys: time, of MBW's loop", 0.5),
    "merge.sd-mecha": Target("merge, alpha 0.5, all keys: time, of sd-mecha", 0.15),
    "merge.cp": Target("merge, attn2 only: time, of `cp A`", 1.5),
    "merge.peak": Target("merge: peak memory", 450, "MiB"),
    "cold.all": Target("scan, nothing cached: throughput, of `cat A B`", 0.9, at_least=True),
    "cold.files": Target("scan, files not cached: throughput, of `cat A B`", 0.9, at_least=True),
    "cold.warm": Target("scan, files cached: throughput, of `cat A B`"),
    "cold.roofline": Target("page cache: read bandwidth, of the disk's", None, "×"),
    "sizes.scan-peak": Target("scan of the largest pair: peak memory", 450, "MiB"),
    "sizes.merge-peak": Target("merge of the largest pair: peak memory", 450, "MiB"),
    "sizes.scan-growth": Target("scan: time a byte, farthest from the median of all sizes", 15, "%"),
    "sizes.merge-growth": Target("merge: time a byte, farthest from the median of all sizes", 15, "%"),
    "threads.speed-up": Target("scan: throughput with all cores, of one thread's", None, "×"),
    "keys.scan": Target("many keys: scan, beyond the bytes", 100, "µs a key"),
    "keys.merge": Target("many keys: merge, beyond the bytes", 100, "µs a key"),
    "keys.scan-peak": Target("many keys: peak memory of the scan", 450, "MiB"),
    "keys.merge-peak": Target("many keys: peak memory of the merge", 450, "MiB"),
    "start.report": Target("report from a scan of SDXL", 1.5, "s"),
    "start.help": Target("`mergescope --help`", 0.2, "s"),
    "start.compile-scan": Target("first scan after installing: compiling", 5, "s"),
    "start.compile-merge": Target("first merge after installing: compiling", 5, "s"),
    "start.notices": Target("of these two, those that say so", 2, "", at_least=True),
    "cuda.rate": Target("CUDA: scan, of the pinned host-to-device copy rate", 0.8, at_least=True),
    "cuda.busy": Target("CUDA: share of that time in which kernels run"),
    "cuda.memory": Target("CUDA: GPU memory, context included", 1536, "MiB"),
    "cuda.difference": Target("CUDA: largest relative difference from the CPU's numbers", 1e-6),
}

# What a curve shows, and the file that it is drawn into
PICTURES = {
    "sizes": ("Time against size, nothing cached", "speed-sizes.svg"),
    "threads": ("Throughput of a scan against threads", "speed-threads.svg"),
}


@dataclass
class Results:
    """What was measured so far, by the names of `TARGETS`."""

    machine: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # the figures behind a value, or why there is none
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # what is drawn

    def add(self, name: str, value: float, note: str = "") -> str:
        """Keep a value, and return its line."""
        self.values[name], self.notes[name] = value, note
        return self.line(name)

    def leave_out(self, name: str, why: str) -> str:
        """Keep why there is no value, and return that line."""
        self.values.pop(name, None)
        self.notes[name] = why
        return self.line(name)

    def line(self, name: str) -> str:
        """One row for the terminal."""
        return "  ".join(part for part in cells(name, self) if part)

    def save(self, path: Path) -> None:
        """Write it all as JSON."""
        document = {"format": FORMAT, "version": 1, **vars(self)}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Read what `save` wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document.pop("format", None) != FORMAT or document.pop("version") != 1:
        raise ValueError(f"{path}: not results of speed.py")
    return Results(**document)


def load_for(path: Path, machine: Mapping[str, str]) -> Results:
    """The results to go on with: those of this file if they are of the same machine, else none."""
    if path.is_file() and (found := load(path)).machine == machine:
        return found
    return Results(dict(machine))


def cells(name: str, results: Results) -> tuple[str, str, str, str]:
    """What, wanted, measured, and the figures behind it."""
    target, note = TARGETS[name], results.notes.get(name, "")
    if name not in results.values:
        return target.text, target.wish, "–", note
    value = results.values[name]
    measured = shown(value, target.unit)
    return target.text, target.wish, measured if target.is_met(value) else f"{measured}, **missed**", note


def shown(value: float, unit: str) -> str:
    """A number in a table, with three digits or with all of its whole ones."""
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit in ("×", "%") else f"{digits} {unit}".strip()


def markdown(results: Results) -> str:
    """Machine and table."""
    said = "; ".join(results.machine.values())
    lines = [f"Measured on: {said}.", ""] if said else []
    lines += ["| what | wanted | measured | from |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells(name, results))} |" for name in TARGETS]
    for curve, (title, name) in PICTURES.items():
        if results.curves.get(curve):
            lines += ["", f"![{title}](.github/images/{name})"]
    return "\n".join(lines) + "\n"


def write_readme(readme: Path, text: str) -> None:
    """Put the text between the two markers of a README."""
    old = readme.read_text(encoding="utf-8")
    new, count = MARKERS.subn(lambda m: m[1] + text + m[3], old)
    if count != 1:
        raise ValueError(f"{readme}: the two markers of the speed table are not there, once")
    readme.write_text(new, encoding="utf-8")
