"""The rules of one architecture: how to know it, and where each of its keys stands.

Knows compiled templates and names; refuses to read files (`analyzer/categories/rulefiles.py` does, and
describes the format) and to judge dtypes and shapes beyond a number of axes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from analyzer.categories.names import Position, clean, path
from analyzer.categories.templates import Segment, any_matcher, dotless_matcher, fill, matcher


@dataclass(frozen=True, slots=True)
class Rule:
    """What to say of the keys that match."""

    number: int  # its place in the file, from 1
    part: str
    block: str  # a template
    component: str  # a template
    group: int  # leading segments of the component by which rankings group
    owner: str = ""  # the file that it stands in, where that is another one (`extends`)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One rule at one place."""

    rule: Rule
    first: tuple[str, ...] | None  # what the first segment can be; None if open
    segments: tuple[Segment, ...]
    open_name: str | None  # the capture of one segment or more, if the template ends with one
    compiled: Callable[[], re.Pattern[str]]  # at first use, since most patterns of a file never are

    @property
    def depth(self) -> int:
        """Segments of the keys that it matches; the fewest if the end is open."""
        return len(self.segments)

    @property
    def open_end(self) -> bool:
        """Whether its last segment stands for one segment or more."""
        return self.segments[-1].open_end

    def match(self, key: str) -> re.Match[str] | None:
        """The match of a whole key."""
        return self.compiled().fullmatch(key)

    def match_dotless(self, name: str) -> re.Match[str] | None:
        """The match of a key that was written without its dots; its groups are the segments."""
        dotless = dotless_matcher(self.segments)
        return dotless.fullmatch(name) if dotless else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sort of tensor whose presence tells architectures apart."""

    keys: tuple[tuple[Segment, ...], ...]
    axes: int | None  # None: any number of axes
    compiled: Callable[
        [], re.Pattern[str]
    ]  # at first use, since most architectures have none of a model's words

    def found(self, tensors: Iterable[tuple[str, int]], words: Collection[str]) -> bool:
        """True if one of the names, given with their numbers of axes, is of this sort.

        `words` are their segments.
        """
        if not any(_can_be_of(key, words) for key in self.keys):
            return False
        match = self.compiled().fullmatch
        return any(match(name) for name, axes in tensors if self.axes in (None, axes))


@dataclass(frozen=True, slots=True)
class Example:
    """A key, and where the rules must put it."""

    key: str
    position: Position


# For 0, 1, 2 … segments in a key, and for its first segment, the patterns that can match it. The last
# entry holds for all longer keys, "" for all other first segments.
Index = tuple[dict[str, tuple[Pattern, ...]], ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """What tells whether a network is of an architecture: read for all of them, so it is kept short."""

    name: str
    title: str
    part: str  # of a network that no word before its keys announces
    blocks: tuple[str, ...]  # in network order; "L.." stands for all L00, L01 … that a model has
    required: tuple[Evidence, ...]
    refused: tuple[Evidence, ...]

    def fit(self, tensors: Sequence[tuple[str, int]], words: Collection[str] | None = None) -> bool:
        """True if a network with these names and numbers of axes is of this architecture.

        `words` are the segments of the names, if they are known already.
        """
        known = words_of(tensors) if words is None else words
        return (
            bool(self.required)
            and all(evidence.found(tensors, known) for evidence in self.required)
            and not any(evidence.found(tensors, known) for evidence in self.refused)
        )

    def in_order(self, found: Collection[str]) -> tuple[str, ...]:
        """The blocks in network order: all that are listed, and of open stems those that were found."""
        names: list[str] = []
        for entry in self.blocks:
            stem = entry.removesuffix("..")
            if stem == entry:
                names.append(entry)
            else:
                own = [block for block in found if _NUMBERED.sub("", block) == stem]
                names += sorted(own, key=lambda block: (len(block), block))
        return tuple(names)


@dataclass(frozen=True, slots=True)
class Rules:
    """One architecture, ready for use."""

    heading: Heading
    patterns: tuple[Pattern, ...]  # in the order of the file: the first that matches wins
    index: Index
    examples: tuple[Example, ...]

    @property
    def name(self) -> str:
        """Short, for files and options."""
        return self.heading.name

    def position(self, key: str) -> Position | None:
        """Where the first rule that matches puts a key; None if no rule knows it."""
        for pattern in self._candidates(key):
            if match := pattern.match(key):
                return _position(pattern, match)
        return None

    def rule_of(self, key: str) -> Rule | None:
        """The first rule that matches a key; None if no rule knows it."""
        return next((p.rule for p in self._candidates(key) if p.match(key)), None)

    def restore_dots(self, name: str) -> str | None:
        """The key that is `name` with its dots put back; None if no rule knows it."""
        for pattern in self.patterns if len(name) <= _MAX_DOTLESS else ():
            if match := pattern.match_dotless(name):
                return ".".join(match.groups())
        return None

    def _candidates(self, key: str) -> tuple[Pattern, ...]:
        by_first = self.index[min(key.count(".") + 1, len(self.index) - 1)]
        return by_first.get(key.partition(".")[0]) or by_first[""]


def words_of(tensors: Iterable[tuple[str, int]]) -> frozenset[str]:
    """All segments of these names."""
    return frozenset(word for name, _ in tensors for word in name.split("."))


def evidence_of(keys: Iterable[Sequence[Segment]], axes: int | None) -> Evidence:
    """The sort of tensor that one of these key templates means."""
    templates = tuple(map(tuple, keys))
    return Evidence(templates, axes, cache(lambda: any_matcher(templates)))


def pattern_of(rule: Rule, segments: Sequence[Segment]) -> Pattern:
    """A rule at one place: `segments` are the place's and the rule's."""
    segments, last = tuple(segments), segments[-1]
    open_name = last.name if last.open_end else None
    return Pattern(rule, segments[0].values, segments, open_name, cache(lambda: matcher(segments)))


def build_index(patterns: Sequence[Pattern]) -> Index:
    """The patterns by what can be seen of a key at once, each list in their order."""
    return tuple(
        _by_first([p for p in patterns if p.depth == depth or (p.open_end and p.depth < depth)])
        for depth in range(_deepest(patterns) + 2)
    )


def index_size(patterns: Sequence[Pattern]) -> int:
    """How many entries an index has at most, beside one for every word that a pattern begins with."""
    words = {word for pattern in patterns for word in pattern.first or ()}
    return len(words) * sum(not pattern.first for pattern in patterns) * (_deepest(patterns) + 2)


def _can_be_of(key: Sequence[Segment], words: Collection[str]) -> bool:
    """Whether each segment that is one of some words is one of these."""
    return all(s.values is None or any(value in words for value in s.values) for s in key)


def _by_first(fitting: Sequence[Pattern]) -> dict[str, tuple[Pattern, ...]]:
    open_ones = [place for place, pattern in enumerate(fitting) if not pattern.first]
    places: dict[str, list[int]] = {"": []}
    for place, pattern in enumerate(fitting):
        for word in pattern.first or ():
            places.setdefault(word, []).append(place)
    return {w: tuple(fitting[place] for place in sorted({*own, *open_ones})) for w, own in places.items()}


def _deepest(patterns: Sequence[Pattern]) -> int:
    return max((pattern.depth for pattern in patterns), default=0)


def _position(pattern: Pattern, match: re.Match[str]) -> Position:
    raw = match.groupdict()
    words = {n: path(value)[0] if n == pattern.open_name else clean(value) for n, value in raw.items()}
    rule = pattern.rule
    component = fill(rule.component, words)
    group = "/".join(component.split("/", rule.group)[: rule.group])
    return Position(rule.part, fill(rule.block, raw), component, group)


_NUMBERED = re.compile(r"[0-9]+\Z")

# Longer names are not tried without dots: the search is not linear in the length, and no model has them.
_MAX_DOTLESS = 200
