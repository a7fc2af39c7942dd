"""How fast, in how little memory: python tests/benchmarks/speed.py [--only LINE,…] [--folder DIR].

Each line makes its models in DIR, runs whole processes in turn, takes medians, and prints what is wanted,
what was measured, and the figures behind it:

    scan     SD 1.5 against SuperMerger's and a hand-written loop: time, numbers a key, memory
    merge    SD 1.5 against MBW's loop, sd-mecha and cp: time, memory
    cold     nothing cached, against cat; what the disk and the page cache can give
    sizes    pairs of 1 to 20 GB a model: memory, and time against size
    threads  throughput against --threads
    keys     100,000 keys of 1,000 elements against one tensor of their bytes: time a key, memory
    start    a report, the help, and the first run that compiles
    cuda     on a GPU: against the bus, memory, and the CPU's numbers

With --folder, models and results (speed.json) stay there, and a later run goes on with them. With
--write-readme the table, the plots and tests/benchmarks/speed.json are written from all results so far. Linux
and macOS; what the system does not offer is left out, and says so. Not collected by pytest;
`tests/test_speed.py` tries it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from speed_drawing import Curve, chart
from speed_lines import LINES, Setting
from speed_processes import describe_machine
from speed_results import PICTURES, TARGETS, Results, load_for, markdown, write_readme

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> None:
    """Parse, measure, print, write."""
    options = _parse()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        _work(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _work(options, Path(folder))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(LINES), metavar="LINE,…", help="default: all of them")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="default: a temporary one, removed after")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each command (3)")
    parser.add_argument(
        "--gigabytes", default="1,2,5,10,20", metavar="F,…",
        help="sizes of one model of a pair (1,2,5,10,20); three times the largest must be free in DIR",
    )  # fmt: skip
    parser.add_argument("--keys", type=int, default=100_000, metavar="N", help="many of them (100000)")
    parser.add_argument("--threads", default="1,2,4,8", metavar="N,…", help="numbers of threads (1,2,4,8)")
    parser.add_argument("--keep-cache", action="store_true", help="do not empty the whole page cache")
    parser.add_argument("--on-disk", action="store_true", help="write merges to DIR, not to memory")
    parser.add_argument("--divisor", type=int, default=1, metavar="N", help="shorter axes, to try this out")
    parser.add_argument(
        "--write-readme", action="store_true", help="README, plots, tests/benchmarks/speed.json"
    )
    options = parser.parse_args()
    options.lines = [name for name in options.only.split(",") if name]
    if unknown := [name for name in options.lines if name not in LINES]:
        parser.error(f"{', '.join(unknown)}: lines are {', '.join(LINES)}")
    if options.rounds < 1 or options.keys < 1:
        parser.error("--rounds and --keys: at least 1")
    try:
        options.gigabytes = [float(text) for text in options.gigabytes.split(",")]
        options.threads = [int(text) for text in options.threads.split(",")]
    except ValueError as error:
        parser.error(f"--gigabytes, --threads: {error}")
    return options


def _work(options: argparse.Namespace, folder: Path) -> None:
    file = folder / "speed.json"
    results = load_for(file, describe_machine(folder))
    setting = Setting(
        folder, options.rounds, options.gigabytes, options.keys, options.threads,
        options.divisor, not options.keep_cache, not options.on_disk,
    )  # fmt: skip
    for line in options.lines:
        LINES[line](setting, results)
        results.save(file)
        for name in TARGETS:
            if name.startswith(f"{line}."):
                _say(results.line(name))
    if options.write_readme:
        publish(results, root=ROOT)


def publish(results: Results, *, root: Path) -> None:
    """Write table, plots and record into a checkout of the project."""
    results.save(root / "tests" / "benchmarks" / "speed.json")
    for name, picture in pictures(results).items():
        (root / ".github" / "images" / name).write_text(picture, encoding="utf-8")
    write_readme(root / "README.md", markdown(results))


def pictures(results: Results) -> dict[str, str]:
    """The plots that the results so far allow, by file name."""
    drawn: dict[str, tuple[str, str, list[Curve]]] = {}
    if rows := results.curves.get("sizes"):
        curves = [Curve(name, [(row["gigabytes"], row[name]) for row in rows]) for name in ("scan", "merge")]
        drawn["sizes"] = "GB of both models", "seconds", curves
    if rows := results.curves.get("threads"):
        ceiling = [(0.0, rows[0]["cat"]), (rows[-1]["threads"], rows[0]["cat"])]
        curves = [
            Curve("scan", [(row["threads"], row["scan"]) for row in rows]),
            Curve("cat, page cache", ceiling, reference=True),
        ]
        drawn["threads"] = "--threads", "GB/s", curves
    return {PICTURES[name][1]: chart(PICTURES[name][0], *rest) for name, rest in drawn.items()}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
