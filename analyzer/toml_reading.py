"""Parse TOML that strangers wrote. Knows nothing of what it means."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from analyzer.fields import FieldError, brief

MAX_PARTS = 50  # of one dotted name

_BETWEEN_NAMES = re.compile(r"[,=\[\]{}#\r\n]")


def parse_toml(text: str) -> dict[str, Any]:
    """The document; FieldError with the reason, and the line where there is one, for what is no TOML.

    Refused as well are names of more than MAX_PARTS parts, as in a.b.c: the time that tomllib takes for
    one grows with the third power of their number, 19 seconds for 64 KiB of them (Python 3.11). That a
    text or a comment holds as many words with points between them is refused with them.
    """
    if any(_parts(piece) > MAX_PARTS for piece in _BETWEEN_NAMES.split(text)):
        raise FieldError(f"a name has more than {MAX_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; nesting
        raise FieldError(brief(str(error))) from error


def _parts(piece: str) -> int:
    if piece.count(".") < MAX_PARTS:  # nearly all
        return 0
    return sum(not part.isspace() and part != "" for part in piece.split("."))
