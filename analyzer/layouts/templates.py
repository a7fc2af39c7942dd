"""Name templates with placeholders, and an index that finds the templates that a name fits.

A template is a dotted path; each segment is a word or a placeholder in braces. What a placeholder stands for
is said once, for all templates of a file:

    "#"                any integer, written without leading zeros
    "**"               one segment or more; only at the end of a template
    "weight|bias"      one of these words
    "4..9"             an integer of this range

Knows strings, nothing of what they name. A mistake in a template is a TemplateError with the reason; its
caller knows the place. Rule files have a template language of their own (`analyzer/categories/templates.py`),
made for one pattern at a time; here one walk over a name must answer for all templates of a map.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Generic, TypeVar

from analyzer.fields import FieldError

T = TypeVar("T")

Placeholders = Mapping[str, tuple[str, ...]]  # the words that each stands for; (ANY,) or (REST,) if open

ANY, REST = "#", "**"


class TemplateError(FieldError):
    """A template cannot be read; the message is the reason alone."""


def stands_for(spec: str) -> tuple[str, ...]:
    """What a placeholder with this specification stands for."""
    if spec in (ANY, REST):
        return (spec,)
    if ends := _RANGE.fullmatch(spec):
        words = tuple(str(number) for number in range(int(ends[1]), int(ends[2]) + 1))
    else:
        words = tuple(spec.split("|"))
    if not words or len(words) > _MAX_WORDS or not all(_WORD.fullmatch(word) for word in words):
        raise TemplateError(f"{spec!r} is none of #, **, a|b and 4..9, with at most {_MAX_WORDS} words")
    return words


def holes(text: str) -> tuple[str, ...]:
    """The placeholders of a template, in order."""
    return tuple(_HOLE.findall(text))


def check(text: str, placeholders: Placeholders) -> None:
    """Refuse what is no template, or has a placeholder that nothing explains or that stands wrong."""
    segments = text.split(".")
    for number, segment in enumerate(segments, 1):
        hole = _HOLE.fullmatch(segment)
        if hole and hole[1] not in placeholders:
            raise TemplateError(f"{text!r} has {segment}, which `placeholders` does not explain")
        if hole and placeholders[hole[1]] == (REST,) and number < len(segments):
            raise TemplateError(f"{text!r} goes on after {segment}, which stands for all that follows")
        if not hole and not _WORD.fullmatch(segment):
            raise TemplateError(f"{text!r} has the segment {segment!r}, neither a word nor a placeholder")
    if len(names := holes(text)) != len(set(names)):
        raise TemplateError(f"{text!r} has one placeholder twice")


def variants(texts: Sequence[str], placeholders: Placeholders) -> Iterator[tuple[str, ...]]:
    """The texts for every choice of words for their closed placeholders, the same in all texts."""
    used = {name for text in texts for name in holes(text)}
    closed = sorted(name for name in used if placeholders[name][0] not in (ANY, REST))
    for words in product(*(placeholders[name] for name in closed)):
        yield tuple(fill(text, closed, words) for text in texts)


def fill(text: str, names: Sequence[str], values: Sequence[str]) -> str:
    """The text with its placeholders replaced by values."""
    for name, value in zip(names, values, strict=True):
        text = text.replace(f"{{{name}}}", value)
    return text


@dataclass(slots=True)
class Node(Generic[T]):
    """A place in the index: what can stand there next, and what ends there."""

    words: dict[str, Node[T]] = field(default_factory=dict)
    number: Node[T] | None = None
    ends: list[T] = field(default_factory=list)
    rest: list[T] = field(default_factory=list)  # what ends here whatever follows


def insert(root: Node[T], text: str, placeholders: Placeholders, value: T) -> None:
    """Add what a template holds; its placeholders are all open."""
    node = root
    for segment in text.split("."):
        hole = _HOLE.fullmatch(segment)
        if not hole:
            node = node.words.setdefault(segment, Node())
        elif placeholders[hole[1]] == (REST,):
            node.rest.append(value)
            return
        else:
            node.number = node.number or Node()
            node = node.number
    node.ends.append(value)


def matches(root: Node[T], segments: Sequence[str]) -> list[tuple[T, tuple[str, ...]]]:
    """What the templates that a name fits hold, the most exact first, and what was captured."""
    found: list[tuple[T, tuple[str, ...]]] = []
    _walk(root, segments, 0, (), found)
    return found


def fits(node: Node[T], segments: Sequence[str]) -> bool:
    """Whether a name fits one of the templates."""
    for number, segment in enumerate(segments, 1):
        if node.rest:
            return True
        after = node.words.get(segment)
        if node.number and _NUMBER.fullmatch(segment):
            if after and fits(after, segments[number:]):
                return True
            after = node.number
        if not after:
            return False
        node = after
    return bool(node.ends)


def _walk(
    node: Node[T],
    segments: Sequence[str],
    at: int,
    captured: tuple[str, ...],
    found: list[tuple[T, tuple[str, ...]]],
) -> None:
    """Add what the templates below a node hold that the segments from `at` on fit."""
    while at < len(segments):
        segment = segments[at]
        word = node.words.get(segment)
        number = node.number if node.number and _NUMBER.fullmatch(segment) else None
        if number or node.rest:
            if word:
                _walk(word, segments, at + 1, captured, found)
            if number:
                _walk(number, segments, at + 1, (*captured, segment), found)
            if node.rest:
                rest = (*captured, ".".join(segments[at:]))
                found.extend((value, rest) for value in node.rest)
            return
        if not word:
            return
        node, at = word, at + 1
    found.extend((value, captured) for value in node.ends)


_MAX_WORDS = 200
_RANGE = re.compile(r"([0-9]{1,3})\.\.([0-9]{1,3})")
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_HOLE = re.compile(r"\{([a-z][a-z_]*)\}")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
