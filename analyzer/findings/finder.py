"""What a finder is: a function that looks at a scan, and the rules that it goes by, for people to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from analyzer.findings.survey import Survey
from analyzer.records import Finding


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of sentence, and when it is said."""

    sentence: str  # an example
    condition: str  # with the constants' names in braces
    constants: Mapping[str, float] = field(default_factory=dict)  # by the names that they have in the code

    @property
    def when(self) -> str:
        """The condition with the constants' values in it."""
        return self.condition.format_map({name: f"{value:,g}" for name, value in self.constants.items()})


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds sentences of one family: none without its evidence, the most important first."""

    find: Callable[[Survey], list[Finding]]
    rules: tuple[Rule, ...]
