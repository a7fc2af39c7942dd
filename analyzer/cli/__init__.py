"""The `mergescope` command: options in, one library call, message and exit code out.

The only place that catches AnalyzerError, prints, or exits. Commands import what they need inside
their functions, so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from analyzer import __version__
from analyzer.cli.demo import demo
from analyzer.cli.experiment import experiment
from analyzer.cli.inspect import inspect
from analyzer.cli.merge import merge
from analyzer.cli.methods import methods
from analyzer.cli.presets import presets
from analyzer.cli.rank import rank
from analyzer.cli.recover import recover
from analyzer.cli.report import report
from analyzer.cli.scan import scan
from analyzer.errors import AnalyzerError

_INTERRUPTED = 130
# Objects made between two collections, and how many of those between two of what was left. To look through
# the records of 100,000 keys again and again takes 24 µs a key, and hardly any are garbage in circles.
_OBJECTS = (1_000_000, 50, 50)
_FILES = (65_536, 10_240)  # open at once; macOS refuses the first


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mergescope")
def mergescope() -> None:
    """Show what differs between two models, and merge only what you choose.

    \b
    mergescope scan a.safetensors b.safetensors -o scan.json   measure once
    mergescope rank scan.json --axis block                     look from any side
    mergescope report scan.json -o report.html                 look at all of it
    mergescope merge a.safetensors b.safetensors -o c.safetensors --only attn2
    mergescope experiment a.safetensors b.safetensors -o experiment.html
    mergescope recover merged.safetensors a.safetensors b.safetensors
    mergescope inspect a.safetensors                           what a model holds
    mergescope demo                                            try all of it now
    """  # noqa: D301 - click wants the character that \b stands for


for _command in (scan, rank, report, merge, experiment, recover, inspect, presets, methods, demo):
    mergescope.add_command(_command)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 wrong input, 2 wrong usage, 3 --fail-on, 130 interrupted."""
    for name in ("SIGTERM", "SIGHUP"):  # a polite kill, a closed terminal; nohup ignores the latter
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    _allow_many_files()
    gc.set_threshold(*_OBJECTS)
    # numpy's and scipy's libraries start a thread for each processor, which waits in a busy loop for the
    # matrix products that no command has for it. To be said before they are imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run())


def run() -> int:
    """Run the command line in this process and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a sign shows another, and goes on
            stream.reconfigure(errors="replace")
    try:
        code = mergescope.main(prog_name="mergescope", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (AnalyzerError, OSError) as error:
        from analyzer.cli.terminal import printable

        click.echo(f"Error: {printable(str(error))}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error.__cause__
        said = str(cause) if isinstance(cause, KeyboardInterrupt) else ""  # by a command that can go on
        click.echo(said or "Interrupted; no unfinished output was left behind.", err=True)
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _allow_many_files() -> None:
    """Every shard of both models stays open, and macOS gives 256 files to a program that asks for none."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in _FILES:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with suppress(OSError, ValueError):  # the system may know another limit than it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """A polite kill cleans up like Ctrl-C."""
    raise KeyboardInterrupt
