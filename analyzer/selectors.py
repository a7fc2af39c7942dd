"""The language of `--only` and `--set`: `attn1,attn2,weight` is the weights of attn1 and attn2.

Owns how a selection is written and what it hits. Knows labels and raw keys, never files or tensors;
a name that the model at hand does not have is refused, not ignored.

A selector is terms between commas or spaces; a `!` before a term excludes. A term is one of

    attn2  attn2/to_k    a name: a part, a block, a kind, or consecutive segments of a component
    OUT03..OUT08         an inclusive range of blocks in network order
    component:attn2      a name or a range on a stated axis: part, block, component or kind
    key:*.attn2.to_?.*   a glob over the whole raw key; here, and only here, case matters

Terms of one axis unite, different axes intersect, exclusions are subtracted last. A selector of
exclusions alone starts from everything. `CLIP` and `U-Net` are the parts `text_encoder` and `unet`;
`VAE` is the part, not the block; `Other` in this spelling is the part, `other` may be the kind.

What counts in no total is hit only when asked for by name: EMA copies by their part or by key;
schedules, markers and integers by kind or key, by the part `other` that they are in, or by their own
name as a component: `schedule`, `marker`, `position_ids`. The name of a layer does not mean the masks
and scales that lie in it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from analyzer.errors import SelectorError
from analyzer.records import Labels
from analyzer.vocabulary import AXES, Term, vocabulary


class Labeled(Protocol):
    """What a selector looks at: a raw key and its labels."""

    @property
    def key(self) -> str:
        """The raw name in the file."""

    @property
    def labels(self) -> Labels:
        """Where the key stands on the axes."""


_SHOWN = 200  # characters of a selector that a message repeats

_SPECIAL = frozenset({"schedule", "marker", "training"})  # components that are names of their own

Row = TypeVar("Row", bound=Labeled)
_Test: TypeAlias = Callable[[Labeled], bool]


@dataclass(frozen=True, slots=True)
class Selector:
    """A selection, ready to be asked about one row after the other. Make it with `compile_selector`."""

    text: str  # canonical: two selectors of one model with the same text hit the same rows
    # axis -> whether any term of that axis fits the row
    _chosen: Mapping[str, _Test] = field(compare=False, repr=False)  # empty: everything that counts
    _excluded: Mapping[str, _Test] = field(compare=False, repr=False)
    _components: frozenset[str] = field(compare=False, repr=False)  # runs of segments that are chosen

    @property
    def axes(self) -> frozenset[str]:
        """The axes on which something is chosen; exclusions do not count."""
        return frozenset(self._chosen)

    def hits(self, row: Labeled) -> bool:
        """Whether the row is selected."""
        if not all(fits(row) for fits in self._chosen.values()):
            return False
        if not row.labels.counted and not self._asks_for_uncounted(row):
            return False
        return not any(fits(row) for fits in self._excluded.values())

    def _asks_for_uncounted(self, row: Labeled) -> bool:
        """Whether an uncounted row that fits on every chosen axis was asked for by name."""
        if row.labels.part == "ema":
            return "part" in self._chosen or "key" in self._chosen
        if row.labels.part == "other" and "part" in self._chosen:
            return True
        if not self._chosen.keys().isdisjoint(("kind", "key")):
            return True
        path = row.labels.component.casefold()
        own = row.key.rpartition(".")[2].casefold()
        if path not in _SPECIAL and path.rpartition("/")[2] != own:
            return False  # a mask or a scale: its component is the layer's, not its own
        return any(f"/{path}".endswith(f"/{run}") for run in self._components)


def compile_selector(text: str, *, rows: Sequence[Labeled], blocks: Sequence[str]) -> Selector:
    """Look up every term of a selector in one model.

    `rows` are all keys of the model, `blocks` its blocks in network order. SelectorError says which
    term is malformed, unknown or ambiguous, and what to write instead.
    """
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not words:
        raise SelectorError("the selector is empty: name what to select, such as 'attn2' or 'key:*'")
    names = vocabulary(
        [row.labels for row in rows],
        keys=[row.key for row in rows],
        blocks=blocks,
        lengths={1, *(word.count("/") + 1 for word in words)},
    )
    terms = sorted({names.term(word) for word in words}, key=_canonical_order)
    return Selector(
        text=",".join(term.text for term in terms),
        _chosen=_tests(term for term in terms if not term.excludes),
        _excluded=_tests(term for term in terms if term.excludes),
        _components=frozenset(
            run for term in terms if term.axis == "component" and not term.excludes for run in term.values
        ),
    )


def select(text: str, *, rows: Sequence[Row], blocks: Sequence[str]) -> tuple[Row, ...]:
    """The rows that a selector hits, in their order; SelectorError if it hits none."""
    selector = compile_selector(text, rows=rows, blocks=blocks)
    chosen = tuple(row for row in rows if selector.hits(row))
    if not chosen:
        raise SelectorError(
            f"the selector {_shortened(selector.text)!r} hits none of the {len(rows)} keys: "
            f"{_why_nothing(selector)}"
        )
    return chosen


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _why_nothing(selector: Selector) -> str:
    """What to look at when a selection is empty although all its names are known."""
    if len(selector._chosen) > 1:
        return f"a key must fit on each of the axes {', '.join(selector._chosen)}, so leave one of them out"
    if selector._excluded:
        return "its exclusions take away all that it chooses, so leave one of them out"
    return "this model has these blocks, but no key in them, so choose others"


def _canonical_order(term: Term) -> tuple[bool, int, str]:
    """Chosen before excluded, axes from coarse to fine, then by name."""
    return term.excludes, (*AXES, "key").index(term.axis), term.text


def _tests(terms: Iterable[Term]) -> Mapping[str, _Test]:
    """One test for every axis that the terms speak of."""
    values: dict[str, frozenset[str]] = {}
    for term in terms:
        values[term.axis] = values.get(term.axis, frozenset()) | term.values
    return {axis: _test(axis, wanted) for axis, wanted in values.items()}


def _test(axis: str, wanted: frozenset[str]) -> _Test:
    """Whether a row fits any of the wanted values; fast, for it runs on every row."""
    if axis == "part":
        return lambda row: row.labels.part.casefold() in wanted
    if axis == "block":
        return lambda row: row.labels.block.casefold() in wanted
    if axis == "kind":
        return lambda row: row.labels.kind.casefold() in wanted
    if axis == "key":
        globs = re.compile("|".join(fnmatch.translate(glob) for glob in sorted(wanted)))
        return lambda row: globs.match(row.key) is not None
    # slashes on both ends, so that only whole segments are found
    runs = tuple(f"/{run}/" for run in sorted(wanted))

    def fits_component(row: Labeled) -> bool:
        path = f"/{row.labels.component.casefold()}/"
        return any(run in path for run in runs)

    return fits_component
