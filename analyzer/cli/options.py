"""Options that several commands share, declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    from analyzer.categories import RuleBook

Command = TypeVar("Command", bound=Callable[..., Any])

# Whether a path will do is for the library to say: in its words, and with exit code 1.
MODEL = click.Path(path_type=Path, readable=False)
FILE = click.Path(path_type=Path, readable=False)


def quiet(command: Command) -> Command:
    """--quiet, for every command."""

    def announce(_context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        from analyzer.cli import terminal  # not for --help, which comes without rich

        terminal.announce(not value)
        return value

    text = "No progress, no warnings, no summary."
    return click.option("-q", "--quiet", is_flag=True, help=text, callback=announce)(command)


def compute(command: Command) -> Command:
    """--device and --threads, for every command that touches tensors."""
    command = click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Default: one a processor, 16 at most."
    )(command)
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="Where to compute.",
    )(command)


def only(command: Command) -> Command:
    """--only SELECTOR."""
    return click.option(
        "--only",
        metavar="SELECTOR",
        help="Which keys: attn2  attn1,attn2,weight  U-Net,OUT03..OUT08  '!bias'  'key:*.to_k.*'",
    )(command)


def rules(command: Command) -> Command:
    """--rules FILE."""
    return click.option(
        "--rules",
        type=FILE,
        metavar="FILE.toml",
        help=f"An architecture of your own; those in {rules_folder()} are always known.",
    )(command)


def rules_folder() -> Path:
    """Where a user's own architectures lie."""
    return Path(click.get_app_dir("mergescope")) / "architectures"


def rule_book(demanded: Path | None) -> RuleBook:
    """All architectures: those that ship, the user's, and the file that the command names."""
    from analyzer import categories

    return categories.rule_book(rules_folder(), demanded=demanded)


def set_option(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """'SELECTOR=F' as (selector, F); the last "=" divides, for a glob may hold one."""
    pairs = []
    for text in values:
        selector, sign, number = text.rpartition("=")
        try:
            pairs.append((selector.strip(), float(number)))
        except ValueError:
            sign = ""
        if not sign or not selector.strip():
            raise AnalyzerError(f"--set {text!r}: write a selector and an alpha, as in --set 'attn2=0.5'")
    return tuple(pairs)
