"""Write `*.layout` files: from the classes of transformers and diffusers, or from any list of keys.

    python tests/layouts/make_layouts.py [NAME …]     the layouts of MODELS below, or some of them
    python tests/layouts/make_layouts.py --compress   lines "key shape dtype" from stdin, as notation to stdout

The first form needs both libraries; it builds their models without values, on torch's meta device, with the
published configurations. Where published files have other names than the classes, `renamed` says which. No
test imports this module, and its classes need a library that is no dependency of the project.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SEGMENTS = r"[^.]+|\."
DIGITS = r"\d+|\D+"  # for names that have lost their dots: averaged copies

Shape = tuple[int, ...]
Kind = tuple[str, Shape]  # dtype and shape
Layout = Mapping[str, Kind]
Row = tuple[tuple[str, ...], ...]  # what may stand in each place of a name


# --- The notation ---


def compress(layout: Layout, *, token: str = SEGMENTS) -> list[str]:
    """The lines that stand for exactly these keys.

    A key is a row of tokens. Rows that differ in one place alone become one row, numbers first: so layers
    that have the same members share their lines, and then members that have one dtype and shape do.
    """
    rows = [(tuple((t,) for t in re.findall(token, key)), kind) for key, kind in layout.items()]
    for numeric in (True, False):
        before = -1
        while before != len(rows):
            before = len(rows)
            for place in range(max(len(row) for row, _ in rows)):
                rows = _unite(rows, place, numeric=numeric)
    return [f"{''.join(map(_spell, row))} {dtype} {'x'.join(map(str, shape)) or '-'}" for row, (dtype, shape) in rows]


def save(name: str, about: str, layout: Layout, *, averaged: Layout | None = None) -> None:
    """Write one layout, below what is to be said about it."""
    lines = [f"# {line}" for line in about.strip().splitlines()] + compress(layout)
    if averaged:
        lines += compress(averaged, token=DIGITS)
    (FOLDER / f"{name}.layout").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _unite(rows: list[tuple[Row, Kind]], place: int, *, numeric: bool) -> list[tuple[Row, Kind]]:
    united: dict[object, tuple[Row, Kind]] = {}
    for row, kind in rows:
        number = place < len(row) and all(t.isdigit() for t in row[place])
        if place >= len(row) or (numeric and not number):
            united[row, kind] = (row, kind)
            continue
        rest = (place, row[:place], row[place + 1 :], kind, number)
        known = united[rest][0][place] if rest in united else ()
        united[rest] = ((*row[:place], known + row[place], *row[place + 1 :]), kind)
    return list(united.values())


def _spell(choice: tuple[str, ...]) -> str:
    if len(choice) == 1:
        return choice[0]
    if not all(t.isdigit() and str(int(t)) == t for t in choice):
        return "{" + ",".join(choice) + "}"
    runs: list[list[int]] = []
    for n in sorted(map(int, choice)):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return "{" + ",".join(str(a) if a == b else f"{a},{b}" if b == a + 1 else f"{a}..{b}" for a, b in runs) + "}"


def _read(lines: Iterable[str]) -> dict[str, Kind]:
    layout = {}
    for line in lines:
        key, shape, dtype = line.rstrip("\n").split("\t")
        layout[key] = (dtype, tuple(int(n) for n in shape.split("x") if n))
    return layout
