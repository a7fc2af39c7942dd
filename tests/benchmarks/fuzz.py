"""Hostile input by the ten thousand: python tests/benchmarks/fuzz.py [--inputs N] [--seed S] [--only TARGET].

Every input must be read, or be refused with one printable sentence, in bounded time and memory; nothing
may be run, written, imported or mapped, and no file outside the input's own folder may be opened. What
breaks this is made as small as hypothesis can make it, and printed. Ends with a table.

Not collected by pytest; `tests/test_fuzz_smoke.py` runs a few inputs of every target.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import faulthandler
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_files
import fuzz_merges
import fuzz_pickles
import fuzz_texts
import fuzz_watch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from analyzer.categories import architectures, categorize
from analyzer.cli.terminal import printable
from analyzer.errors import AnalyzerError

SECONDS = 2.0  # of one input; the slowest on an idle machine take a tenth
HANG_SECONDS = 120  # then the process shows where it is, and ends
PEAK_BYTES, PEAK_TIMES = 32 << 20, 20  # what an input may take: so much, and so many times its own size
SENTENCE = 2000  # characters
_BATCH = 500  # inputs: hypothesis remembers all of one run

Prepare = Callable[[Path, Any], tuple[Callable[[], object], int]]


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed: how inputs are drawn, and what is done with one."""

    inputs: int  # in a whole run
    strategy: Callable[[Path], SearchStrategy[Any]]
    prepare: Prepare  # writes the input; gives the call that is watched, and the input's size in bytes


TARGETS = {
    "safetensors": Target(10_000, lambda _: fuzz_files.headers(), fuzz_files.prepare_file("m.safetensors")),
    "index": Target(7_000, lambda _: fuzz_files.indexes(), fuzz_files.prepare_index),
    "folder": Target(3_000, lambda _: fuzz_files.folders(), fuzz_files.prepare_folder),
    "pickle": Target(
        10_000,
        lambda folder: fuzz_pickles.pickles(folder / fuzz_pickles.CANARY),
        fuzz_files.prepare_file("m.ckpt"),
    ),
    "gguf": Target(7_000, lambda _: fuzz_files.ggufs(), fuzz_files.prepare_file("m.gguf")),
    "scales": Target(3_000, lambda _: fuzz_files.scaled(), fuzz_files.prepare_file("m.safetensors")),
    "rules": Target(4_000, lambda _: fuzz_texts.rule_files(), fuzz_texts.prepare_rules),
    "keys": Target(2_000, lambda _: fuzz_texts.keys(), fuzz_texts.prepare_keys),
    "selectors": Target(4_000, lambda _: fuzz_texts.selections(), fuzz_texts.prepare_selector),
    "expressions": Target(4_000, lambda _: fuzz_texts.expressions(), fuzz_texts.prepare_expression),
    "recipes": Target(6_000, lambda _: fuzz_merges.recipes(), fuzz_merges.prepare_recipe),
    "presets": Target(4_000, lambda _: fuzz_merges.presets(), fuzz_merges.prepare_presets),
    "histories": Target(6_000, lambda _: fuzz_merges.histories(), fuzz_merges.prepare_history),
    "scans": Target(4_000, lambda _: fuzz_merges.scans(), fuzz_merges.prepare_scan),
}


@dataclass(slots=True)
class Tally:
    """What became of a target's inputs."""

    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0  # seconds
    peak: int = 0  # bytes
    resident: int | None = (
        None  # bytes of memory that the whole run added to the process, hypothesis' own too
    )

    @property
    def inputs(self) -> int:
        return self.refused + self.accepted


def run(name: str, *, inputs: int, number: int, folder: Path) -> Tally:
    """So many inputs of one target; raises what an input did that it must not do."""
    target, tally = TARGETS[name], Tally()
    home = folder / name
    home.mkdir()
    _warm_up(target, home)
    fuzz_watch.reset_resident_peak()
    before = fuzz_watch.resident_peak()

    for batch in range(0, inputs, _BATCH):
        _draw(
            target.strategy(home),
            lambda drawn: _one(target, tally, home, drawn),
            inputs=min(_BATCH, inputs - batch),
            number=number * 1_000_000 + batch,
        )
    after = fuzz_watch.resident_peak()
    tally.resident = None if before is None or after is None else after - before
    return tally


def _draw(strategy: SearchStrategy[Any], use: Callable[[Any], None], *, inputs: int, number: int) -> None:
    """Draw so many inputs from a seed, and make small what fails."""

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=strategy)
    def every(drawn: Any) -> None:
        use(drawn)

    every()


def _warm_up(target: Target, home: Path) -> None:
    """Let modules that are imported at first use be imported, and caches be filled."""
    for codec in ("cp437", "latin-1", "raw_unicode_escape", "unicode_escape"):  # what pickles and zips use
        codecs.lookup(codec)
    architectures()
    for name in ("sd15-unet-diffusers", "flux-dev-transformer-diffusers"):  # the maps between layouts
        categorize(fuzz_texts.layouts.infos(name))

    def try_one(drawn: Any) -> None:
        call, _ = target.prepare(home, drawn)
        with contextlib.suppress(AnalyzerError):
            call()

    _draw(target.strategy(home), try_one, inputs=20, number=0)


def _one(target: Target, tally: Tally, home: Path, drawn: Any) -> None:
    call, size = target.prepare(home, drawn)
    message, watch = _watched(call, home)
    if watch.seconds > SECONDS:  # once more: the machine may have been busy
        message, watch = _watched(call, home)
    assert not watch.violations, watch.violations
    assert not fuzz_watch.TOUCHED, "a pickle called something"
    assert not (home / fuzz_pickles.CANARY).exists(), "a pickle ran something"
    assert watch.seconds <= SECONDS, f"took {watch.seconds:.1f} s"
    allowed = PEAK_BYTES + PEAK_TIMES * size
    assert watch.peak <= allowed, f"took {watch.peak} bytes of memory for an input of {size}"
    if message is None:
        tally.accepted += 1
    else:
        tally.refused += 1
        _check_sentence(message)
    tally.slowest = max(tally.slowest, watch.seconds)
    tally.peak = max(tally.peak, watch.peak)


def _watched(call: Callable[[], object], home: Path) -> tuple[str | None, fuzz_watch.Watch]:
    """The message if the input was refused, and what the call did."""
    message = None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        with fuzz_watch.watched(home) as watch:
            try:
                call()
            except AnalyzerError as error:
                message = str(error)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return message, watch


def _check_sentence(message: str) -> None:
    assert message, "an empty message"
    assert "\n" not in message, f"more than one line: {message!r}"
    assert len(message) <= SENTENCE, f"{len(message)} characters: {message[:300]!r}"
    shown = printable(message)
    assert shown.isprintable(), repr(shown)
    shown.encode()
    assert not shown.endswith((" ", ":")), f"an unfinished sentence: {message!r}"


def main() -> int:
    """Run all targets, or one, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, help="of every target; default: as many as each has")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(TARGETS))
    options = parser.parse_args()
    start, total = time.monotonic(), 0
    _print(*("target", "inputs", "refused", "accepted", "slowest ms", "peak MiB", "RSS MiB"))
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else list(TARGETS):
            count = TARGETS[name].inputs if options.inputs is None else options.inputs
            tally = run(name, inputs=count, number=options.seed, folder=Path(folder))
            total += tally.inputs
            resident = "–" if tally.resident is None else f"{tally.resident / 2**20:.1f}"
            counts = (f"{number:,}" for number in (tally.inputs, tally.refused, tally.accepted))
            _print(name, *counts, f"{tally.slowest * 1e3:.1f}", f"{tally.peak / 2**20:.1f}", resident)
    seconds = time.monotonic() - start
    _print(
        f"{total:,} inputs with seed {options.seed} in {seconds:.0f} s: nothing ran, nothing else was opened"
    )
    return 0


def _print(first: str, *cells: str) -> None:
    sys.stdout.write(f"{first:<12}{''.join(f'{cell:>12}' for cell in cells)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
