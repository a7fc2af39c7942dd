"""The notation of key layouts, both ways. Knows names, and neither dtypes nor models.

One line says many keys: a pattern, a dtype, a shape.

    # a comment
    model.layers.{0..31}.self_attn.{k_proj,v_proj}.weight BF16 1024x4096
    v_pred F32 0
    logit_scale F32 -

`{0..31}` is a range of integers, both ends included; `{a,b}` is a choice, whose items may be ranges; what
stands in several braces is multiplied out. `-` is the shape of a scalar, `0` that of an empty tensor.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

Shape = tuple[int, ...]
Kind = tuple[str, Shape]  # dtype and shape
Row = tuple[tuple[str, ...], ...]  # what may stand in each place of a name

SEGMENTS = r"[^.]+|\."
DIGITS = r"\d+|\D+"  # for names that have lost their dots: averaged copies


def parse(lines: Iterable[str]) -> dict[str, Kind]:
    """The keys of these lines, in their order. A key that stands there twice is an error."""
    layout: dict[str, Kind] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, dtype, size = line.split()
        shape = () if size == "-" else tuple(int(n) for n in size.split("x"))
        for key in expand(pattern):
            if key in layout:
                raise ValueError(f"line {number}: {key} stands here a second time")
            layout[key] = (dtype, shape)
    return layout


def expand(pattern: str) -> Iterator[str]:
    """Every key that a pattern stands for; the last braces run fastest."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    if any(brace in piece for piece in pieces for brace in "{}"):
        raise ValueError(f"{pattern}: braces neither nest nor stay open")
    choices = [list(_choice(piece)) if odd % 2 else [piece] for odd, piece in enumerate(pieces)]
    return map("".join, itertools.product(*choices))


def compress(layout: Mapping[str, Kind], *, token: str = SEGMENTS) -> list[str]:
    """The lines that stand for exactly these keys.

    A key is a row of tokens. Rows that differ in one place alone become one row, numbers first: so layers
    that have the same members share their lines, and then members that have one dtype and shape do.
    """
    rows: list[tuple[Row, Kind]] = []
    for key, kind in layout.items():
        rows.append((tuple((t,) for t in re.findall(token, key)), kind))
    for numeric in (True, False):
        before = -1
        while before != len(rows):
            before = len(rows)
            for place in range(max((len(row) for row, _ in rows), default=0)):
                rows = _unite(rows, place, numeric=numeric)
    return [_line(row, kind) for row, kind in rows]


def _choice(text: str) -> Iterator[str]:
    for item in text.split(","):
        bounds = re.fullmatch(r"(\d+)\.\.(\d+)", item)
        if bounds is None:
            yield item
        else:
            yield from map(str, range(int(bounds[1]), int(bounds[2]) + 1))


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


def _line(row: Row, kind: Kind) -> str:
    dtype, shape = kind
    return f"{''.join(map(_spell, row))} {dtype} {'x'.join(map(str, shape)) or '-'}"


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
    spelled = (f"{a}..{b}" if b > a + 1 else ",".join(map(str, range(a, b + 1))) for a, b in runs)
    return "{" + ",".join(spelled) + "}"
