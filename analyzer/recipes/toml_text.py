"""Write flat TOML for people: tables in one line, arrays in as many as they need. Knows no options.

Of the TOML that tomllib reads, this is what recipes need: texts, numbers, flags, arrays and tables of them,
and comments. The one thing that it does beyond a library is the layout: 25 block weights take two lines and
not 25. https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def to_toml(values: Mapping[str, Any], *, comments: Sequence[str] = ()) -> str:
    """The values as a TOML text, tables of arrays last, under a head of comments.

    Takes texts without lone surrogates, finite floats, integers, flags, and lists and mappings of them.
    """
    sections = {name: value for name, value in values.items() if _is_section(value)}
    lines = [f"# {_one_line(comment)}".rstrip() for comment in comments]
    lines += [""] if comments else []
    lines += [_line(name, value) for name, value in values.items() if name not in sections]
    for name, table in sections.items():
        lines += ["", f"[{_key(name)}]", *(_line(inner, value) for inner, value in table.items())]
    return "\n".join(lines) + "\n"


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, list) for item in value.values())


def _line(name: str, value: Any) -> str:
    line = f"{_key(name)} = {_value(value)}"
    if len(line) <= _WIDTH or not isinstance(value, list):
        return line
    rows: list[str] = []
    for item in map(_value, value):
        # Numbers stand side by side, texts below each other.
        if rows and not item.startswith('"') and len(rows[-1]) + len(item) + 2 <= _WIDTH:
            rows[-1] += f" {item},"
        else:
            rows.append(f"    {item},")
    return "\n".join([f"{_key(name)} = [", *rows, "]"])


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # the shortest text that reads back as the same number
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + "}"
    return f"[{', '.join(map(_value, value))}]"


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(sign: str) -> str:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x20 or ord(sign) == 0x7F else sign


def _one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
