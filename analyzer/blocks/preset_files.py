"""A user's own presets, read from a file; and numbers as people write them in a row.

Three formats are read. Tab-separated lines, as the merge-block-weighted extension keeps them (name, tab,
numbers with commas; a heading is optional) and SuperMerger (26 numbers, BASE first; in older files with
a colon in place of the tab):

    MY_PRESET<tab>0,0.25,0.5,0.75,1

and TOML, for files whose names end in .toml:

    MY_PRESET = [0, 0.25, 0.5, 0.75, 1]

How many numbers a model needs is not known here. Nothing in a file is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path

from analyzer.blocks.presets import fold
from analyzer.errors import RecipeError
from analyzer.fields import FieldError, brief, listed
from analyzer.toml_reading import parse_toml

MAX_BYTES = 1 << 20  # of a file of presets: two thousand of them

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NUMBERS = re.compile(r"[\s,0-9.eE+-]*\d[\s,0-9.eE+-]*", re.ASCII)  # as they begin a line without a name
_LINE_END = re.compile(r"\r\n|\r|\n")  # and no other of those that splitlines knows, as editors count
_TOML_KEY = re.compile(r"""[ \t]*(?:\[[ \t]*)?(?:"([^"]*)"|'([^']*)'|([\w-]+))[ \t]*[=.\]]""", re.ASCII)
_LONGEST_NAME = 100  # characters
_HEADING = ("preset_name", "preset_weights")
_EXAMPLE = "write a name, a tab and numbers, as in MY_PRESET<tab>0,0.5,1 (or TOML: MY_PRESET = [0, 0.5, 1])"


def read_presets(path: Path) -> Mapping[str, tuple[float, ...]]:
    """The presets of a file by their names as they stand there, in the file's order; all numbers finite.

    RecipeError, with the lines, for a file that is no such file, holds no preset, or gives two presets
    one name (whatever its case and - or _); the same preset twice is no mistake.
    """
    try:
        text = read_small(path, limit=MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise RecipeError(f"{path}: cannot read presets ({brief(str(error))}); {_EXAMPLE}") from error
    found: dict[str, tuple[float, ...]] = {}
    spellings: dict[str, str] = {}
    problems: list[str] = []
    entries = _toml_entries(path, text) if path.suffix.lower() == ".toml" else _line_entries(text)
    for where, name, written in entries:
        try:
            numbers = _preset(name, written)
            spelling = spellings.setdefault(fold(name), name)
            if found.setdefault(spelling, numbers) != numbers:
                raise FieldError(f"{name} stands there before, with other numbers")
        except FieldError as error:
            problems.append(f"{where}: {brief(str(error))}")
    if not found and not problems:
        problems.append("holds no preset")
    if problems:
        raise RecipeError(f"{path}: {listed(problems)}; {_EXAMPLE}")
    return found


def read_numbers(text: str) -> tuple[float, ...]:
    """Finite numbers separated by commas or white space; FieldError says which is none."""
    words = re.split(r"\s*,\s*|\s+", text.strip())
    return tuple(_number(word, place) for place, word in enumerate(words, start=1))


def read_small(path: Path, *, limit: int) -> str:
    """The text of an ordinary file of at most `limit` bytes; OSError or ValueError for what is none."""
    if not path.is_file():  # a pipe would be waited for, a device has no end
        raise OSError("no such file" if not path.exists() else "not an ordinary file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"more than {limit:,} bytes")
    return content.decode("utf-8-sig")


def _preset(name: str, written: object) -> tuple[float, ...]:
    """The numbers of one entry, which a TOML file gives as a list and the others as a text."""
    if _NUMBERS.fullmatch(name[:_LONGEST_NAME]):
        raise FieldError("begins with a number where a name is expected")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise FieldError(f"{name!r} is no name of 1 to {_LONGEST_NAME} letters and signs")
    if not written or not isinstance(written, str | list):
        raise FieldError(f"{name} has no numbers behind it")
    try:
        if isinstance(written, str):
            return read_numbers(written)
        return tuple(_plain_number(value, place) for place, value in enumerate(written, start=1))
    except FieldError as error:
        raise FieldError(f"{name}: {error}") from error


def _number(word: str, place: int) -> float:
    if _NUMBER.fullmatch(word) is None:
        raise FieldError(f"number {place} is {brief(repr(word))}")
    return _finite(float(word), word, place)


def _plain_number(value: object, place: int) -> float:
    if isinstance(value, dict | list):  # of any depth
        raise FieldError(f"number {place} is a {'table' if isinstance(value, dict) else 'list'}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FieldError(f"number {place} is {brief(repr(value))}")
    try:
        number = float(value)
    except OverflowError as error:  # an integer of hundreds of digits
        raise FieldError(f"number {place} is too large") from error
    return _finite(number, str(value), place)


def _finite(number: float, word: str, place: int) -> float:
    if not isfinite(number):
        raise FieldError(f"number {place} is {brief(word)}, which is not finite")
    return number


def _line_entries(text: str) -> Iterator[tuple[str, str, object]]:
    """Where, name and numbers of each line that is neither empty nor a comment nor the heading."""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, numbers = line.partition("\t" if "\t" in line else ":")
        name, numbers = name.strip(), numbers.strip().strip('"')
        if (fold(name), fold(numbers)) != _HEADING:
            yield f"line {number}", name, numbers


def _toml_entries(path: Path, text: str) -> Iterator[tuple[str, str, object]]:
    """The same of a TOML file; a text is no list of numbers there."""
    try:
        document = parse_toml(text)
    except FieldError as error:
        raise RecipeError(f"{path}: is not valid TOML: {error}; {_EXAMPLE}") from error
    places: dict[str, str] = {}
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if match := _TOML_KEY.match(line):
            places.setdefault(match[1] or match[2] or match[3], f"line {number}")
    for name, value in document.items():
        yield places.get(name, f"preset {brief(name)}"), name, value if isinstance(value, list) else None
