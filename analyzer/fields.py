"""Read a TOML table field by field, and collect what is wrong with it. Knows no rules.

What stands in the file is repeated in messages, so that they can be understood, and cut, so that they can
be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class FieldError(ValueError):
    """A field cannot be read as it must be; the message is the reason alone, its caller knows the place."""


_MAX_REASON = 300  # characters
_MAX_LENGTH = 1000  # characters of all problems: who has more of them has one and the same many times


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, for reading it field by field; every complaint is a FieldError."""

    where: str  # for messages: "rule 3", "place input"
    name: str  # its number or name alone
    fields: Any  # what stands there; `only` makes sure that it is a table

    def only(self, *allowed: str) -> None:
        """Refuse what is no table, and every field that is not one of these."""
        if not isinstance(self.fields, dict):
            raise FieldError(f"must be a table, it is {self.fields!r}")
        if unknown := sorted(set(self.fields) - set(allowed)):
            raise FieldError(f"unknown field {', '.join(unknown)}; there is {', '.join(allowed)}")

    def text(self, field: str, default: str | None = None) -> str:
        """A text; only a default may be empty."""
        value = self.fields.get(field, default)
        if not isinstance(value, str) or (not value and field in self.fields):
            raise FieldError(f"{field} must be a text that is not empty, it is {value!r}")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts that is not empty; the texts may be."""
        value = self.fields.get(field)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise FieldError(f"{field} must be a list of texts that is not empty, it is {value!r}")
        return tuple(value)

    def number(self, field: str) -> int | None:
        """An integer from 0 on, None if the field is missing."""
        value = self.fields.get(field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise FieldError(f"{field} must be an integer from 0 on, it is {value!r}")
        return value

    def flag(self, field: str) -> bool:
        """True or false, false if the field is missing."""
        value = self.fields.get(field, False)
        if not isinstance(value, bool):
            raise FieldError(f"{field} must be true or false, it is {value!r}")
        return value

    def share(self, field: str) -> int:
        """An integer from 1 on, 1 if the field is missing."""
        value = self.fields.get(field, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise FieldError(f"{field} must be an integer from 1 on, it is {value!r}")
        return value

    def entries(self, field: str) -> dict[str, Any]:
        """A table that is not empty, whatever it holds."""
        value = self.fields.get(field)
        if not isinstance(value, dict) or not value:
            raise FieldError(f"{field} must be a table that is not empty, it is {value!r}")
        return value

    def rows(self, field: str) -> list[Table]:
        """The tables of an array of tables, `[[field]]`, numbered from 1."""
        value = self.fields.get(field, [])
        rows = value if isinstance(value, list) else [value]
        return [Table(f"{field} {number}", str(number), row) for number, row in enumerate(rows, 1)]

    def tables(self, field: str) -> list[Table]:
        """The named tables below a field, `[field.name]`."""
        value = self.fields.get(field, {})
        items = value.items() if isinstance(value, dict) else [("", value)]
        return [Table(f"{field}.{name}", name, table) for name, table in items]


def collect(tables: Iterable[Table], read: Callable[[Table], T], problems: list[str]) -> list[T]:
    """What `read` makes of each table; what it complains about is added to `problems`."""
    results: list[T] = []
    for table in tables:
        try:
            results.append(read(table))
        except FieldError as error:
            problems.append(f"{brief(table.where)}: {brief(str(error))}")
    return results


def brief(text: str) -> str:
    """A piece of a message: what the file holds stands in it, and may be of any length and on many lines."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:_MAX_REASON])
    return plain if len(text) <= _MAX_REASON else f"{plain}…"


def listed(problems: Sequence[str]) -> str:
    """All problems, or as many as can be read, and how many more there are."""
    shown, length = 0, 0
    while shown < len(problems) and length <= _MAX_LENGTH:
        length += len(problems[shown])
        shown += 1
    more = f"; and {len(problems) - shown} more" if shown < len(problems) else ""
    return "; ".join(problems[:shown]) + more
