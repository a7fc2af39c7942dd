"""Which architectures there are: those that ship with the package, and those that a user adds.

Of every rule file that ships no more is looked at than words: its heading is read where a model has them,
and the whole of it where the model turns out to be of that architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from analyzer.categories import rulefiles
from analyzer.categories.rules import Heading, Rules
from analyzer.categories.templates import TemplateError
from analyzer.errors import AnalyzerError


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture that a model may be of."""

    read_heading: Callable[[], Heading]
    rules: Callable[[], Rules]
    source: str  # the file, for messages; "" of those that ship
    hints: tuple[frozenset[str], ...] = (frozenset(),)  # a network of it has all segments of one of these

    @property
    def heading(self) -> Heading:
        """What tells whether a network is of this architecture."""
        return self.read_heading()

    def fit(self, tensors: Sequence[tuple[str, int]], words: Set[str]) -> bool:
        """True if a network with these names and numbers of axes is of this architecture.

        `words` are the segments of the names. By them alone most architectures are out of the question.
        """
        return any(hint <= words for hint in self.hints) and self.heading.fit(tensors, words)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All architectures that models are held against, the user's own first."""

    candidates: tuple[Candidate, ...]
    demanded: Candidate | None = None  # must fit some network of a model

    @property
    def own(self) -> tuple[Candidate, ...]:
        """The user's."""
        return tuple(candidate for candidate in self.candidates if candidate.source)


@cache
def architectures() -> tuple[Rules, ...]:
    """The rules of every architecture that ships with the package, by file name."""
    return tuple(candidate.rules() for candidate in shipped().candidates)


@cache
def shipped() -> RuleBook:
    """What ships with the package."""
    return RuleBook(tuple(_shipped(name) for name in _names()))


def rule_book(folder: Path | None = None, *, demanded: Path | None = None) -> RuleBook:
    """What ships, and before it the rule files of a user's folder and the file that must be used.

    A file of the name of one that ships replaces it. Raises AnalyzerError for a file that is wrong, and
    for two in the folder that describe an architecture of one name.
    """
    own = [_candidate(demanded)] if demanded is not None else []
    if folder is not None and folder.is_dir():
        own += _of_folder(folder, [candidate.heading.name for candidate in own])
    names = {candidate.heading.name for candidate in own}
    rest = [candidate for candidate in shipped().candidates if candidate.heading.name not in names]
    return RuleBook((*own, *rest), own[0] if demanded is not None else None)


def _of_folder(folder: Path, taken: Sequence[str]) -> list[Candidate]:
    """The architectures in a user's folder, without those whose names a file on the command line has."""
    found: dict[str, Candidate] = {}
    for file in sorted(folder.glob("*.toml")):
        try:
            candidate = _candidate(file)
        except AnalyzerError as error:
            raise AnalyzerError(f"{error} (mend this file, or move it out of its folder)") from error
        name = candidate.heading.name
        if name in found:
            raise AnalyzerError(
                f"{file}: describes {name!r}, as {found[name].source} does; rename one of them, or move it "
                "out of the folder"
            )
        found[name] = candidate
    return [candidate for name, candidate in found.items() if name not in taken]


def require_used(book: RuleBook, used: Sequence[str], *, model: str) -> None:
    """AnalyzerError if the file that the user named fits no network of the model."""
    if book.demanded is not None and book.demanded.heading.name not in used:
        raise AnalyzerError(
            f"{book.demanded.source}: these rules fit no network of {model}: every [[require]] must find one "
            "of its keys, and no [[refuse]] may; compare them with mergescope inspect"
        )


def _candidate(file: Path) -> Candidate:
    rules = rulefiles.load(file, library=_text)
    return Candidate(lambda: rules.heading, lambda: rules, str(file))


def _shipped(name: str) -> Candidate:
    return Candidate(
        lambda: _heading(name), lambda: _rules(name), "", rulefiles.hints_of_heading(_text(name))
    )


@cache
def _heading(name: str) -> Heading:
    return rulefiles.parse_heading(_text(name), source=f"{name}.toml")


@cache
def _rules(name: str) -> Rules:
    return rulefiles.parse(_text(name), source=f"{name}.toml", library=_text)


@cache
def _text(name: str) -> str:
    if name not in _names():
        raise TemplateError(f"extends {name!r}; there are {', '.join(_names())}")
    return rulefiles.read(files("analyzer").joinpath("architectures", f"{name}.toml"))


@cache
def _names() -> tuple[str, ...]:
    folder = files("analyzer").joinpath("architectures")
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))
