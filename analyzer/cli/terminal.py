"""The terminal itself: progress, warnings, numbers and names as people read them. Knows no records."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from analyzer.errors import OutputError

_SHORTEST_LINE = 8
_LISTED = 3  # how many keys a summary names before it says "and N more"
# The signs of headings, tables and sentences. A table is laid out after they are replaced.
_ASCII = str.maketrans(
    {"–": "-", "−": "-", "±": "+/-", "×": "x", "·": "*", "√": "sqrt ", "Σ": "sum ", "σ": "sigma"}
    | {"ε": "eps", "‖": "|", "²": "^2", "₁": "1", "ᵢ": "_i", "π": "pi", "≥": ">=", "≤": "<=", "≠": "!="}
    | {"½": "1/2", "θ": "theta", "β": "beta", "Δ": "d"}
    | {"…": "...", "→": "->", "•": "*", "“": '"', "”": '"', "’": "'", "«": '"', "»": '"'}
)


def printable(text: str) -> str:
    """The text with control characters spelled out: names come from strangers' files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_fancy(encoding: str) -> bool:
    """Whether a stream of this encoding shows every sign: UTF-8 and its like."""
    return encoding.lower().startswith("utf")


def spelled(text: str, encoding: str) -> str:
    """The text with this program's own signs written in ASCII, for a stream that cannot show them all."""
    return text if is_fancy(encoding) else text.translate(_ASCII)


def warn(text: str) -> None:
    """One warning on stderr."""
    _say(f"warning: {text}", style="yellow")


def warner(*, quiet: bool) -> Callable[[str], None]:
    """What says a warning on stderr, or nothing where nothing is to be said."""
    return (lambda _text: None) if quiet else warn


def remark(text: str) -> None:
    """One sentence on stderr that is no warning."""
    _say(text)


class _Announcer(logging.Handler):
    """Says on stderr what the library logs as information: that it compiles, once."""

    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


def announce(wanted: bool) -> None:
    """Whether what the library has to say beside its results is said."""
    log = logging.getLogger("analyzer")
    for handler in [each for each in log.handlers if isinstance(each, _Announcer)]:
        log.removeHandler(handler)
    if wanted:
        log.addHandler(_Announcer(logging.INFO))
        log.setLevel(logging.INFO)


def _say(text: str, style: str = "") -> None:
    console = Console(stderr=True, highlight=False)
    console.print(Text(spelled(printable(text), console.encoding), style), soft_wrap=True)


class OutputConsole(Console):
    """Standard output; who reads it may close it early, and `pipe_may_close` deals with that."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Say so, where rich itself would end the process with an exit code of its own."""
        raise BrokenPipeError


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """For printing results: `… | head` has seen enough when it has, which is no error of the command."""
    try:
        yield
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OutputError(f"standard output: cannot be written ({error.strerror}); redirect it") from error


@contextlib.contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback (bytes done, bytes in all) that draws a bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what), BarColumn(bar_width=None), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def wrapped(text: str, *, width: int, mark: str, style: str = "") -> Text:
    """A sentence behind a mark, with a hanging indent."""
    lines = textwrap.wrap(printable(text), max(width - 2, _SHORTEST_LINE))
    return Text("\n".join([f"{mark} {lines[0]}", *(f"  {line}" for line in lines[1:])]), style)


def print_written(files: Sequence[Path]) -> None:
    """Where the results are."""
    console = OutputConsole()
    for file in files:
        console.print(Text(f"wrote {printable(str(file))}"), soft_wrap=True)


def human_count(count: int) -> str:
    """1234567 as "1.2M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def human_bytes(count: int) -> str:
    """Decimal units, as disks and download pages count."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def list_some(keys: Sequence[str]) -> str:
    """The first few keys, and how many more there are."""
    more = f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    return ", ".join(printable(key) for key in keys[:_LISTED]) + more


def shorten(name: str, width: int, *, mark: str = "…") -> Text:
    """The name, with its middle left out where it is too long: both ends tell names apart."""
    if len(name) > width:
        tail = (width - 1) // 2
        name = f"{name[: width - 1 - tail]}{mark}{name[len(name) - tail :]}"
    return Text(name)
