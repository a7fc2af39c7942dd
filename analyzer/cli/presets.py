"""`mergescope presets`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analyzer.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from analyzer.blocks.presets import PresetRow

_NAME = 26  # characters of the longest that ships
_SHORTEST_NAME = 8  # on a terminal that is too narrow for all
_CELLS = 25  # of a drawn curve
_LEVELS = "▁▂▃▄▅▆▇█"
_DIGITS = "0123456789"  # where the terminal has no such signs


@click.command()
@click.argument("name", required=False)
@click.option(
    "--blocks",
    type=click.IntRange(min=1, max=10_000),
    default=25,
    show_default=True,
    metavar="N",
    help="How many blocks the model has: 25 SD 1 and 2, 19 SDXL, 57 Flux.",
)
@click.option(
    "--presets", "file", type=options.FILE, metavar="FILE", help="Those of this file, .tsv or .toml, instead."
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, and nothing else.")
@options.quiet
def presets(name: str | None, blocks: int, file: Path | None, as_json: bool, quiet: bool) -> None:
    """List the presets for --block-weights, or show the numbers of one.

    \b
    mergescope presets
    mergescope presets wrap12 --blocks 19
    """  # noqa: D301 - click wants the character that \b stands for
    import orjson

    from analyzer.cli import terminal

    del quiet  # there are neither progress nor warnings to hold back
    rows = _rows(name, blocks, file)
    with terminal.pipe_may_close():
        if as_json:
            document = {"format": "mergescope.presets", "version": 1, "presets": rows}
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        elif name is not None:
            print_preset(rows[0])
        else:
            print_presets(rows)


def print_presets(rows: Sequence[PresetRow], console: Console | None = None) -> None:
    """A line for each: its name, its curve from the first block to the last, what it does.

    A terminal that is too narrow for the last shows none of them, and one that is still narrower cuts names.
    """
    from analyzer.cli.terminal import OutputConsole, is_fancy, printable, shorten, spelled

    console = console or OutputConsole()
    fancy = is_fancy(console.encoding)
    room = min(_NAME, max(console.width - _CELLS - 1, _SHORTEST_NAME))
    meanings = [spelled(row.meaning, console.encoding) for row in rows]
    told = _NAME + _CELLS + 2 + max(map(len, meanings), default=0) <= console.width
    for row, meaning in zip(rows, meanings, strict=True):
        name = spelled(printable(row.name), console.encoding)
        line = shorten(name, room, mark="…" if fancy else "~")
        line.pad_right(room - len(line) + 1)
        drawn = curve(row.numbers, fancy=fancy)
        line.append(drawn, "cyan")
        if told:
            line.append(f"{' ' * (_CELLS - len(drawn))} {meaning}")
        console.print(line, soft_wrap=True)


def print_preset(row: PresetRow, console: Console | None = None) -> None:
    """One preset: what it does, its formula, its curve, and its numbers as --block-weights takes them."""
    from rich.text import Text

    from analyzer.blocks.presets import symbols
    from analyzer.cli.terminal import OutputConsole, is_fancy, printable, spelled

    console = console or OutputConsole()
    lines = [(f"{printable(row.name)}  {row.meaning}", "bold")]
    if row.formula:
        lines += [(f"alpha = {row.formula}", "")]
        lines += [(f"{letter}: {meaning}", "") for letter, meaning in symbols(row.formula).items()]
    lines += [(note, "") for note in row.notes]
    lines += [(curve(row.numbers, fancy=is_fancy(console.encoding)), "cyan")]
    lines += [(",".join(f"{number:.10g}" for number in row.numbers), "")]
    for text, style in lines:
        console.print(Text(spelled(text, console.encoding), style), soft_wrap=True)


def curve(numbers: Sequence[float], *, fancy: bool) -> str:
    """Numbers of 0 … 1 as signs of that height, or as digits 0 … 9; of many blocks 25 at even distances."""
    levels = _LEVELS if fancy else _DIGITS
    if len(numbers) > _CELLS:
        last = len(numbers) - 1
        numbers = [numbers[round(cell * last / (_CELLS - 1))] for cell in range(_CELLS)]
    return "".join(levels[round(min(max(number, 0.0), 1.0) * (len(levels) - 1))] for number in numbers)


def _rows(name: str | None, blocks: int, file: Path | None) -> Sequence[PresetRow]:
    """All presets, or the one of that name; of a file, if one is given."""
    from analyzer.blocks import preset_files
    from analyzer.blocks import presets as shipped

    if file is None:
        return shipped.rows(blocks) if name is None else (shipped.row(name, blocks),)
    own = preset_files.read_presets(file)
    rows = tuple(shipped.PresetRow(n, f"{len(x)} number{'s' * (len(x) != 1)}", "", x) for n, x in own.items())
    if name is None:
        return rows
    chosen = tuple(row for row in rows if shipped.fold(row.name) == shipped.fold(name))
    return chosen or (shipped.row(name, blocks),)
