"""The template language of the rule files: which keys a template means, and what to write for them.

A key template is a dotted path; every segment stands for one whole segment of a key:

    input_blocks      this word
    *                 any one segment
    #                 any integer, written without leading zeros
    **                one segment or more; only at the end
    {name}            any one segment, captured
    {name:#}          any integer, captured
    {name:0..11}      an integer of this range, captured
    {name:q|k|v}      one of these words, captured
    {name:**}         one segment or more, captured; only at the end

Knows strings; refuses everything that is not anchored at both ends of a segment. A mistake in a
template is a TemplateError with the reason; its caller knows the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

from analyzer.fields import FieldError


class TemplateError(FieldError):
    """A template cannot be read; the message is the reason alone."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a key template."""

    pattern: str  # a regular expression without groups
    name: str | None = None  # under which it is captured
    values: tuple[str, ...] | None = None  # all that it can be; None if open
    open_end: bool = False  # stands for one segment or more

    @property
    def numeric(self) -> bool:
        """True if it can only be an integer."""
        return self.pattern == _WILD["#"] or all(v.isdecimal() for v in self.values or ("x",))


def parse(text: str) -> tuple[Segment, ...]:
    """The segments of a key template; none of the empty template."""
    parts = _split(text) if text else []
    if len(parts) > MAX_SEGMENTS:
        raise TemplateError(f"{text!r} has more than {MAX_SEGMENTS} segments")
    segments = tuple(map(_segment, parts))
    if any(segment.open_end for segment in segments[:-1]):
        raise TemplateError(f"`**` stands before the end of {text!r}")
    names = [segment.name for segment in segments if segment.name]
    if len(names) != len(set(names)):
        raise TemplateError(f"{text!r} captures one name twice")
    return segments


def matcher(segments: tuple[Segment, ...]) -> re.Pattern[str]:
    """The keys that a template means, for `fullmatch`; captures are named groups."""
    return re.compile(r"\.".join(f"(?P<{s.name}>{s.pattern})" if s.name else s.pattern for s in segments))


def any_matcher(templates: Iterable[Sequence[Segment]]) -> re.Pattern[str]:
    """The keys that one of the templates means, for `fullmatch`; nothing is captured."""
    return re.compile("|".join(r"\.".join(s.pattern for s in segments) for segments in templates))


@cache
def dotless_matcher(segments: tuple[Segment, ...]) -> re.Pattern[str] | None:
    """The same keys written without dots, for `fullmatch`; the groups are the segments of the key.

    None for a template with so many open segments that finding their borders could take for ever, or with
    an open end. Where two numbers meet, the first takes as many digits as it can leave the second one with:
    `100` is 10.0 and `10` is 1.0. An open segment begins with a letter there, or no border could be found
    at all.
    """
    if segments[-1].open_end or sum(segment.values is None for segment in segments) > _MAX_BORDERLESS:
        return None
    return re.compile("".join(f"({_WORD if s.pattern == _ANY else s.pattern})" for s in segments))


def fill(text: str, captures: Mapping[str, str]) -> str:
    """`text` with `{name}` replaced by its capture; `{name:02}` pads with zeros to two digits."""
    if "{" not in text:  # most are plain, and searching them would take most of the time
        return text
    return _HOLE.sub(lambda hole: captures[hole[1]].zfill(int(hole[2] or 0)), text)


def holes(text: str) -> set[str]:
    """The names that `fill` needs for `text`."""
    found = {hole[1] for hole in _HOLE.finditer(text)}
    if "{" in (bare := _HOLE.sub("", text)) or "}" in bare:
        raise TemplateError(f"{text!r} has a brace that is no placeholder: write {{name}} or {{name:02}}")
    return found


def fillings(text: str, segments: Sequence[Segment]) -> Iterator[str]:
    """Everything that `fill` can make of `text` with the captures of a key template."""
    names = sorted(holes(text))
    ranges: list[tuple[str, ...]] = []
    for name in names:
        values = next((s.values for s in segments if s.name == name), None)
        if values is None:
            raise TemplateError(f"{text!r} needs {{{name}}} with a range such as {{{name}:0..11}} in the key")
        ranges.append(values)
    if prod(map(len, ranges)) > MAX_FILLINGS:
        raise TemplateError(f"{text!r} can give more than {MAX_FILLINGS} names")
    for values in product(*ranges):
        yield fill(text, dict(zip(names, values, strict=True)))


def _split(text: str) -> list[str]:
    """The parts between the dots; the two dots of a range inside braces do not split."""
    parts = _PART.findall(text)
    if ".".join(parts) != text:
        raise TemplateError(f"{text!r} has an empty segment or an unclosed brace")
    return parts


def _segment(part: str) -> Segment:
    if part in _WILD:
        return Segment(_WILD[part], open_end=part == "**")
    if not part.startswith("{"):
        return Segment(re.escape(_word(part)), values=(part,))
    if not (hole := _CAPTURE.fullmatch(part)):
        raise TemplateError(f"{part!r} must be one placeholder such as {{name}}, {{name:#}} or {{name:a|b}}")
    name, spec = hole[1], hole[2]
    if (spec := spec or "*") in _WILD:
        return Segment(_WILD[spec], name, open_end=spec == "**")
    values = _range(spec) if ".." in spec else tuple(_word(word) for word in spec.split("|"))
    if len(values) > _MAX_RANGE:
        raise TemplateError(f"{{{name}}} is one of more than {_MAX_RANGE} words")
    # Longest first: without dots, 10 must be tried before 1.
    pattern = "|".join(re.escape(v) for v in sorted(values, key=lambda v: (-len(v), v)))
    return Segment(f"(?:{pattern})", name, values)


def _range(spec: str) -> tuple[str, ...]:
    ends = _RANGE.fullmatch(spec)
    if not ends or not int(ends[1]) <= int(ends[2]) < int(ends[1]) + _MAX_RANGE:
        raise TemplateError(f"{spec!r} is not a range: write 0..11, at most {_MAX_RANGE} long")
    return tuple(str(n) for n in range(int(ends[1]), int(ends[2]) + 1))


def _word(text: str) -> str:
    if not _LITERAL.fullmatch(text):
        raise TemplateError(f"{text!r} is neither a word nor a placeholder: a placeholder is a whole segment")
    return text


MAX_SEGMENTS = 40  # of a template; keys have up to 15
MAX_FILLINGS = 10_000  # names that one template can give

_ANY = r"[^.]+"
_WORD = r"[A-Za-z_][A-Za-z0-9_]*?"
_WILD = {"*": _ANY, "#": r"(?:0|[1-9][0-9]*)", "**": r"[^.]+(?:\.[^.]+)*"}
_MAX_RANGE = 1000
_MAX_BORDERLESS = 3  # open segments side by side without dots: the search takes the length to this power
_PART = re.compile(r"(?:\{[^{}]*\}|[^.{}])+")
_CAPTURE = re.compile(r"\{([a-z][a-z_]*)(?::([^{}]+))?\}")
_LITERAL = re.compile(r"[A-Za-z0-9_-]+")
_RANGE = re.compile(r"([0-9]{1,6})\.\.([0-9]{1,6})")
_HOLE = re.compile(r"\{([a-z][a-z_]*)(?::0([1-9]))?\}")
