"""The grid of an experiment as one PNG: columns A, B and the categories, rows seeds. Knows no files.

Drawn from the data document, whose numbers stand above the columns, and the pictures' pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from analyzer.errors import AnalyzerError
from analyzer.experiment.measures import Picture
from analyzer.experiment.records import A, B

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


Pictures = Mapping[tuple[str, int], Picture]

_SMALL, _LARGE = 192, 320  # pixels: smaller pictures are enlarged, larger ones reduced, by whole factors
_COLUMNS = 10  # side by side; further ones stand below
_GAP, _MARGIN = 8, 16
_TEXT, _HEADING = (14, 18), (16, 20)  # pixels: of the letters, and of a line
_LINES = 4  # of a column's name
_LONGEST = 1000  # characters of a message or a prompt
_BREAKS = ",_/: "  # after which a name may go on in the next line
_PAPER, _INK, _FAINT, _EMPTY = "#ffffff", "#1c1c1e", "#5f6368", "#eceff1"


@dataclass(frozen=True, slots=True)
class _Type:
    """What is written with."""

    font: Any  # one of Pillow's
    line: int  # height, in pixels

    @staticmethod
    def of(size: tuple[int, int]) -> _Type:
        """Of letters and lines of this height; Pillow brings the letters, so they are the same everywhere."""
        from PIL import ImageFont

        return _Type(ImageFont.load_default(size[0]), size[1])


@dataclass(frozen=True, slots=True)
class _Grid:
    """What stands in the cells, how large they are, and what is written with."""

    pictures: Pictures
    failed: Mapping[tuple[str, int], str]  # what went wrong
    seeds: Sequence[int]
    cell: tuple[int, int]  # (width, height)
    gutter: int  # width of the column of seeds
    heading: _Type
    text: _Type

    @property
    def height(self) -> int:
        """Of all rows, with the gaps between them."""
        return len(self.seeds) * (self.cell[1] + _GAP)

    def row(self, index: int) -> int:
        """Where a row begins, below the heads."""
        return index * (self.cell[1] + _GAP)

    def column(self, index: int) -> int:
        """Where a column begins."""
        return _MARGIN + self.gutter + index * (self.cell[0] + _GAP)


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands above a column."""

    label: str
    name: Sequence[str]  # the label, in lines
    numbers: Sequence[str]

    @property
    def height(self) -> int:
        """Of its lines."""
        return len(self.name) * _HEADING[1] + len(self.numbers) * _TEXT[1]


def contact_sheet(data: Mapping[str, Any], pictures: Pictures) -> bytes:
    """The bytes of a PNG; of a cell without a picture the sheet has what the document says went wrong.

    Tiny pictures are enlarged and large ones reduced by whole factors, so pixels stay what they are.
    Raises AnalyzerError if there is no picture at all.
    """
    if not pictures:
        raise AnalyzerError("a contact sheet needs pictures, and there are none: leave out --sheet")
    from PIL import Image, ImageDraw

    grid = _grid(data, pictures)
    heads = _heads(data, grid)
    bands = [heads[start : start + _COLUMNS] for start in range(0, len(heads), _COLUMNS)]
    width = grid.column(min(len(heads), _COLUMNS)) - _GAP + _MARGIN
    title = [line for text in _titles(data) for line in _wrap(text, grid.text, width - 2 * _MARGIN)]
    height = 2 * _MARGIN + len(title) * grid.text.line
    height += sum(_tallest(band) + _GAP + grid.height + _MARGIN for band in bands)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _write(draw, (_MARGIN, _MARGIN), title, grid.text, _FAINT) + _MARGIN
    for band in bands:
        start = y + _tallest(band) + _GAP
        _draw_band(sheet, draw, start, band, grid)
        y = start + grid.height + _MARGIN
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _grid(data: Mapping[str, Any], pictures: Pictures) -> _Grid:
    text = _Type.of(_TEXT)
    failed = {(row["selector"], row["seed"]): row["error"] for row in data["rows"] if row["error"]}
    for parents in data["parents"]:
        sides = ((A, parents["error_a"]), (B, parents["error_b"]))
        failed |= {(label, parents["seed"]): error for label, error in sides if error}
    seeds = [parents["seed"] for parents in data["parents"]]
    sizes = [_shown_size(picture) for picture in pictures.values()]
    cell = max(width for width, _ in sizes), max(height for _, height in sizes)
    gutter = round(max(text.font.getlength(_seed_name(seed)) for seed in seeds)) + _GAP
    return _Grid(pictures, failed, seeds, cell, gutter, _Type.of(_HEADING), text)


def _factors(picture: Picture) -> tuple[int, int]:
    """(by how much it is enlarged, by how much it is reduced); one of the two is 1."""
    longest = max(picture.shape[:2])
    return max(_SMALL // longest, 1), -(-longest // _LARGE)


def _shown_size(picture: Picture) -> tuple[int, int]:
    """(width, height) on the sheet."""
    larger, smaller = _factors(picture)
    height, width = (-(-side * larger // smaller) for side in picture.shape[:2])
    return width, height


def _shown(picture: Picture) -> Image:
    from PIL import Image

    larger, smaller = _factors(picture)
    image = Image.fromarray(picture)
    if larger > 1:
        return image.resize(_shown_size(picture), Image.Resampling.NEAREST)
    return image.reduce(smaller)


def _titles(data: Mapping[str, Any]) -> Iterator[str]:
    """What the models are, and what they painted."""
    names = {side: PurePath(data["models"][side]["path"]).name for side in ("a", "b")}
    conditions = data["conditions"]
    yield (
        f"A: {names['a']} · B: {names['b']} · each other column: A with what is named from B, "
        f"alpha {conditions['alpha']:g} · {conditions['sampler']}, {conditions['steps']} steps, "
        f"cfg {conditions['cfg']:g}, {conditions['width']} x {conditions['height']}"
    )
    for title, prompt in (("Prompt", conditions["prompt"]), ("Negative", conditions["negative_prompt"])):
        text = " ".join(prompt.split())
        if text:
            yield f"{title}: {text[:_LONGEST]}" + "…" * (len(text) > _LONGEST)


def _heads(data: Mapping[str, Any], grid: _Grid) -> list[_Head]:
    means = {(entry["selector"], entry["measure"]): entry["mean"] for entry in data["summary"]}
    heads = [_Head(label, [label], []) for label in (A, B)]
    for column in data["columns"]:
        label = column["selector"]
        numbers = [
            f"{title} {_number(means.get((label, measure)))}"
            for measure, title in (("toward_b", "toward B"), ("neither", "neither"))
        ]
        heads.append(_Head(label, _wrap(label, grid.heading, grid.cell[0])[:_LINES], numbers))
    return heads


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _tallest(heads: Sequence[_Head]) -> int:
    return max(head.height for head in heads)


def _draw_band(sheet: Image, draw: ImageDraw, start: int, heads: Sequence[_Head], grid: _Grid) -> None:
    """Columns side by side, whose pictures begin at `start`, and their heads above."""
    for index, seed in enumerate(grid.seeds):
        _write(draw, (_MARGIN, start + grid.row(index)), [_seed_name(seed)], grid.text, _FAINT)
    for column, head in enumerate(heads):
        x = grid.column(column)
        # Short heads stand lower, next to their pictures.
        y = _write(draw, (x, start - _GAP - head.height), head.name, grid.heading, _INK)
        _write(draw, (x, y), head.numbers, grid.text, _FAINT)
        for index, seed in enumerate(grid.seeds):
            place = x, start + grid.row(index)
            picture = grid.pictures.get((head.label, seed))
            if picture is not None:
                sheet.paste(_shown(picture), place)
            else:
                _draw_failure(draw, place, grid.failed.get((head.label, seed), "no picture"), grid)


def _draw_failure(draw: ImageDraw, place: tuple[int, int], message: str, grid: _Grid) -> None:
    (x, y), (width, height) = place, grid.cell
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=_EMPTY)
    fitting = max((height - 2 * _GAP) // grid.text.line, 1)
    lines = _wrap(message[:_LONGEST], grid.text, width - 2 * _GAP)[:fitting]
    _write(draw, (x + _GAP, y + _GAP), lines, grid.text, _INK)


def _seed_name(seed: int | None) -> str:
    return "" if seed is None else f"seed {seed}"


def _write(draw: ImageDraw, place: tuple[int, int], lines: Sequence[str], face: _Type, colour: str) -> int:
    """Lines of text from a place on; where they end below."""
    x, y = place
    for line in lines:
        draw.text((x, y), line, fill=colour, font=face.font)
        y += face.line
    return y


def _wrap(text: str, face: _Type, width: int) -> list[str]:
    """Lines no wider than so many pixels, broken after a comma, slash … or, if there is none, anywhere."""
    rest = "".join(sign if sign.isprintable() else "?" for sign in text)
    lines = []
    while rest:
        end = 1
        while end < len(rest) and face.font.getlength(rest[: end + 1]) <= width:
            end += 1
        if end < len(rest):
            end = max(rest.rfind(sign, 0, end) + 1 for sign in _BREAKS) or end
        lines.append(rest[:end].strip())
        rest = rest[end:]
    return lines
