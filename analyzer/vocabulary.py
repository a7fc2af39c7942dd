"""The names that one model offers to selectors, and what a term made of them means there.

Owns the look-up of names on the axes, of ranges in network order and of globs on raw keys, and the
messages for what cannot be found. Knows nothing of how terms combine; `analyzer.selectors` does.
"""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from analyzer.errors import SelectorError
from analyzer.records import Labels

AXES = ("part", "block", "component", "kind")  # the axes of names; `key` is the axis of globs

# What people call the parts. VAE and Other need no entry: case aside, they are the parts' own names.
_ALIASES: Mapping[str, str] = {"clip": "text_encoder", "u-net": "unet"}
MAX_TERM = 400  # characters of one term: no key of a model is as long, and messages repeat the term
_LISTED = 8  # names of one axis that a message shows
_SHOWN = 120  # characters of each of them
_COMPARED = 1000  # names on either side of a misspelt one, in alphabetical order, that are compared with it
_EFFORT = 4_000_000  # steps that comparing takes on either side: the square of a name's length each
_SIMILARITY = 0.5  # difflib's ratio from which on a name is near: w1 is near w4


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a selector, looked up in one model."""

    text: str  # canonical: without its axis wherever the bare name says the same
    excludes: bool
    axis: str  # one of AXES, or "key"
    values: frozenset[str]  # casefolded names, any of which fits; on the axis "key" the glob as written


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All names of one model. Make it with `vocabulary`."""

    names: Mapping[str, Mapping[str, str]]  # axis -> casefolded name -> the model's spelling
    network: tuple[str, ...]  # blocks in network order
    keys: Sequence[str]

    def term(self, word: str) -> Term:
        """What one word of a selector means; SelectorError shows the way out where it means nothing."""
        if len(word) > MAX_TERM:
            raise SelectorError(
                f"the selector term {word[:60]!r}… has {len(word)} characters; {MAX_TERM} are the limit"
            )
        excludes = word.startswith("!")
        body = word.removeprefix("!")
        axis, colon, name = body.partition(":")
        axis = axis.casefold() if colon else ""
        name = name if colon else body
        if colon and axis not in (*AXES, "key"):
            raise SelectorError(
                f"unknown axis {axis!r} in the selector term {word!r}: the axes are {', '.join(AXES)} and key"
            )
        if not name:
            raise SelectorError(
                f"the selector term {word!r} names nothing: write the name right after it, as in '{word}NAME'"
            )
        if axis == "key":
            text, values = f"key:{name}", self._glob(name, word)
        elif ".." in name:
            text, values = self._range(name, axis, word)
        else:
            axis, spelling = self._name(name, axis, word)
            text, values = self._canonical(axis, spelling), frozenset((spelling.casefold(),))
        return Term("!" * excludes + text, excludes, axis or "block", values)

    def _name(self, name: str, axis: str, word: str) -> tuple[str, str]:
        """The axis of a name and its spelling there; `axis` is empty where the user gave none."""
        if axis:
            spelling = self.names[axis].get(name.casefold())
            return (axis, spelling) if spelling is not None else self._unknown(name, axis, word)
        found = self._axes(name)
        if not found:
            self._unknown(name, axis, word)
        if len(found) > 1:
            sign = "!" if word.startswith("!") else ""
            forms = " or ".join(repr(f"{sign}{each}:{spelling}") for each, spelling in found.items())
            raise SelectorError(f"the selector term {word!r} stands on several axes: write {forms}")
        return next(iter(found.items()))

    def _axes(self, name: str) -> dict[str, str]:
        """The axes on which a bare name stands, with its spelling on each."""
        folded = name.casefold()
        found = {axis: self.names[axis][folded] for axis in AXES if folded in self.names[axis]}
        # Only the spelling `Other` is the part: in any other, `other` may as well be the kind.
        if "part" in found and (folded == "vae" or name == "Other"):
            return {"part": found["part"]}
        return found

    def _canonical(self, axis: str, spelling: str) -> str:
        plain = ":" not in spelling and not spelling.startswith("!")
        return spelling if plain and self._axes(spelling) == {axis: spelling} else f"{axis}:{spelling}"

    def _range(self, name: str, axis: str, word: str) -> tuple[str, frozenset[str]]:
        """The canonical text of `first..last`, and its blocks."""
        if axis not in ("", "block"):
            raise SelectorError(f"the selector term {word!r} is a range, but only blocks have an order")
        ends = name.split("..")
        if len(ends) != 2 or not all(ends):
            raise SelectorError(
                f"the range {word!r} needs one block on either side of its dots: write FIRST..LAST"
            )
        first, last = (self._position(end, word) for end in ends)
        text = f"{self.network[min(first, last)]}..{self.network[max(first, last)]}"
        if first > last:
            raise SelectorError(f"the range {word!r} runs against the network's order: write {text!r}")
        return text, frozenset(block.casefold() for block in self.network[first : last + 1])

    def _position(self, block: str, word: str) -> int:
        """Where a block stands in network order."""
        folded = block.casefold()
        for position, known in enumerate(self.network):
            if folded == known.casefold():
                return position
        if folded not in self.names["block"]:
            self._unknown(block, "block", word)
        raise SelectorError(
            f"the block {block!r} of the range {word!r} has no place in the network's order: "
            f"write it as a term of its own"
        )

    def _glob(self, glob: str, word: str) -> frozenset[str]:
        matches = re.compile(fnmatch.translate(glob)).match
        if any(matches(key) for key in self.keys):
            return frozenset((glob,))
        near = _nearest(glob, self.keys, 0.6) or self.keys[:1]
        raise SelectorError(
            f"no key matches the selector term {word!r}, which must fit the whole key and its case: "
            f"keys look like {_listed(near)}"
        )

    def _unknown(self, name: str, axis: str, word: str) -> NoReturn:
        """Say that a name is unknown, and what the user may have meant."""
        what = f"unknown {axis} {name!r} in the selector term" if axis else "unknown selector term"
        raise SelectorError(f"{what} {word!r}: {self._way_out(name, axis)}")

    def _way_out(self, name: str, axis: str) -> str:
        elsewhere = self._axes(name)
        if elsewhere:
            return " or ".join(
                f"it is a {each} here, write {f'{each}:{spelled}'!r}" for each, spelled in elsewhere.items()
            )
        if name in self.keys:
            return f"for a raw key write {f'key:{name}'!r}"
        if any(sign in name for sign in "*?["):
            glob = f"key:*{name.strip('*')}*"
            return f"globs are for raw keys, write {glob!r}"
        axes = (axis,) if axis else AXES
        known = {folded: spelled for each in axes for folded, spelled in self.names[each].items()}
        near = _nearest(name.casefold(), known, _SIMILARITY)
        if near:
            return f"nearest are {_listed([known[folded] for folded in near])}"
        lists = (f"the {each}s are {_listed([*dict.fromkeys(self.names[each].values())])}" for each in axes)
        return "; ".join(lists)


def vocabulary(
    labels: Sequence[Labels], *, keys: Sequence[str], blocks: Sequence[str], lengths: Iterable[int]
) -> Vocabulary:
    """Collect the names of one model.

    `blocks` are its blocks in network order, whether or not a key lies in them. `lengths` are the
    numbers of segments for which runs of component segments are wanted as names.
    """
    names = {
        "part": _fold(sorted({each.part for each in labels})),
        "block": _fold([*blocks, *sorted({each.block for each in labels})]),
        "component": _fold(sorted(set(_runs({each.component for each in labels}, lengths)))),
        "kind": _fold(sorted({each.kind for each in labels})),
    }
    for alias, part in _ALIASES.items():
        if part in names["part"]:
            names["part"].setdefault(alias, names["part"][part])
    return Vocabulary(names, tuple(blocks), keys)


def _nearest(name: str, known: Iterable[str], cutoff: float) -> list[str]:
    """The three names most like one; of very many names only its neighbours are looked at."""
    ordered = sorted(known)
    place = bisect_left(ordered, name)
    # comparing with each of 100,000 names would take seconds, and if they are long minutes
    count = min(_COMPARED, _EFFORT // len(name) ** 2)
    return get_close_matches(name, ordered[max(place - count, 0) : place + count], n=3, cutoff=cutoff)


def _fold(names: Iterable[str]) -> dict[str, str]:
    """Casefolded name -> its spelling; the first of several spellings."""
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    return folded


def _runs(components: Iterable[str], lengths: Iterable[int]) -> Iterable[str]:
    """All runs of so many consecutive segments, as `attn2` and `attn2/to_k` are of `ff/attn2/to_k`."""
    wanted = sorted(set(lengths))
    for component in components:
        segments = component.split("/")
        for length in wanted:
            for start in range(len(segments) - length + 1):
                yield "/".join(segments[start : start + length])


def _listed(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many there are. Escaped, for they come from a file."""
    short = [name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…" for name in names[:_LISTED]]
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in short)
    return shown if len(names) <= _LISTED else f"{shown} … ({len(names)} in all)"
