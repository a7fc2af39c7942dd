"""What `mergescope inspect` shows, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from analyzer.checkpoints.dtypes import DTYPES
from analyzer.cli.terminal import OutputConsole, human_bytes, human_count, printable, shorten, wrapped
from analyzer.inspection import Inspection, Tally
from analyzer.ranking import short_names

_NUMBERS = 3  # columns of them, behind the name
_SHORTEST_NAME = 12
_COMPONENTS = 24  # how many a table shows before it says "and N more"


def as_json(found: Inspection) -> bytes:
    """All of it as one document."""
    document: dict[str, Any] = {
        "format": "mergescope.inspection",
        "version": 1,
        "path": found.path,
        "container": found.format,
        "files": found.files,
        "bytes": found.bytes,
        "fingerprint": found.fingerprint,
        "architecture": found.architecture,
        "title": found.title,
        "keys": found.total.keys,
        "elements": found.total.elements,
        "parts": [
            {"part": p.tally.name, "architecture": p.architecture, "title": p.title, **_numbers(p.tally)}
            | {"unknown": p.unknown}
            for p in found.parts
        ],
        "blocks": [{"block": t.name, **_numbers(t)} for t in found.blocks],
        "components": [{"component": t.name, **_numbers(t)} for t in found.components],
        "dtypes": [{"dtype": t.name, **_numbers(t)} for t in found.dtypes],
        "ema": None if found.ema is None else _numbers(found.ema),
        "uncounted": None if found.uncounted is None else _numbers(found.uncounted),
        "oddities": list(found.oddities),
        "history": list(found.history),
        "metadata": dict(found.metadata),
        "nonfinite": None if found.nonfinite is None else dict(found.nonfinite),
    }
    if found.selected is not None:
        document["selected"] = [
            {
                "key": row.key,
                "part": row.labels.part,
                "block": row.labels.block,
                "component": row.labels.component,
                "kind": row.labels.kind,
                "counted": row.labels.counted,
                "dtype": row.dtype,
                "shape": list(row.shape),
            }
            for row in found.selected
        ]
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def print_inspection(found: Inspection) -> None:
    """The whole model, top down."""
    console = OutputConsole()
    head = f"{printable(found.path)}  {human_bytes(found.bytes)}  {found.title}"
    console.print(Text(head, style="bold"), soft_wrap=True)
    files = f"{found.files} files, " if found.files > 1 else ""
    console.print(
        f"{found.format}, {files}{found.total.keys:,} keys, {human_count(found.total.elements)} elements"
    )
    for line in found.history:
        console.print(Text(printable(line)), soft_wrap=True)
    fancy = console.encoding.startswith("utf")
    if found.oddities:
        console.print()
    for oddity in found.oddities:
        console.print(wrapped(oddity, width=console.width, mark="•" if fancy else "-"))
    console.print()
    names = {part.tally.name: part.title for part in found.parts}
    console.print(_table("part", [p.tally for p in found.parts], console.width, notes=names))
    console.print()
    console.print(_block_lines(found.blocks, console.width))
    console.print()
    shown = found.components[:_COMPONENTS]
    short = short_names([tally.name for tally in found.components])
    console.print(_table("component", shown, console.width, short=short))
    if len(found.components) > len(shown):
        console.print(f"and {len(found.components) - len(shown)} more: --json lists all")


def print_selected(found: Inspection) -> None:
    """Every key that the selector hits, a line each, and how many there are."""
    console = OutputConsole()
    rows = found.selected or ()
    for row in rows:
        shape = "×".join(map(str, row.shape)) or "scalar"
        labels = row.labels
        line = (
            f"{printable(row.key)}  {labels.part} {labels.block} {labels.component} {labels.kind}  "
            f"{row.dtype} {shape}"
        )
        console.print(Text(line), soft_wrap=True)
    console.print(f"{len(rows):,} of {found.total.keys:,} keys")


def _numbers(tally: Tally) -> dict[str, Any]:
    return {
        "keys": tally.keys,
        "elements": tally.elements,
        "bytes": tally.bytes,
        "dtypes": dict(tally.dtypes),
    }


def _table(
    heading: str,
    tallies: Sequence[Tally],
    width: int,
    *,
    notes: dict[str, str] | None = None,
    short: dict[str, str] | None = None,
) -> Table:
    """Groups, a line each. A narrow terminal shows fewer columns, and no number is cut."""
    headings = ["keys", "elements", "size", "dtypes", *(["architecture"] if notes else [])]
    rows = [
        [f"{t.keys:,}", human_count(t.elements), human_bytes(t.bytes), _dtypes(t)]
        + ([notes[t.name]] if notes else [])
        for t in tallies
    ]
    names = [printable((short or {}).get(t.name, t.name)) for t in tallies]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    # A title can do with less: its end is left out.
    least = [*widths[:-1], min(widths[-1], _SHORTEST_NAME)] if notes else widths
    shown = len(headings)
    while shown > 1 and sum(least[:shown]) + 2 * shown + _SHORTEST_NAME > width:
        shown -= 1
    room = max(width - sum(least[:shown]) - 2 * shown, _SHORTEST_NAME)
    longest = min(max(map(len, [heading, *names])), room)
    last = max(least[shown - 1], min(widths[shown - 1], least[shown - 1] + room - longest))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(heading, no_wrap=True)
    for column, title in enumerate(headings[:shown]):
        table.add_column(
            title,
            justify="right" if column < _NUMBERS else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=last if column == shown - 1 else widths[column],
        )
    for name, cells in zip(names, rows, strict=True):
        table.add_row(shorten(name, longest), *map(Text, cells[:shown]))
    return table


def _dtypes(tally: Tally) -> str:
    """The types of a group, the commonest first."""
    ordered = sorted(tally.dtypes.items(), key=lambda item: (-item[1], item[0]))
    labels = [DTYPES[name].label if name in DTYPES else name for name, _ in ordered]
    return " + ".join(labels) if len(labels) < 3 else f"{labels[0]} + {len(labels) - 1} more"


def _block_lines(blocks: Sequence[Tally], width: int) -> Text:
    """Blocks and their sizes in network order, as many to a line as fit: there may be a hundred."""
    cells = [f"{t.name} {human_count(t.elements):>6}" for t in blocks if t.keys]
    widest = max(map(len, cells), default=0) + 3
    per_line = max(width // widest, 1)
    rows = [cells[start : start + per_line] for start in range(0, len(cells), per_line)]
    lines = ["".join(cell.ljust(widest) for cell in row).rstrip() for row in rows]
    missing = [t.name for t in blocks if not t.keys]
    lines += [f"without keys: {', '.join(missing)}"] if missing else []
    return Text.assemble(("blocks\n", "bold"), "\n".join(lines))
