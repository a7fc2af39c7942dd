"""Every kind of sentence is documented with its thresholds, and the README lists them all.

`MERGESCOPE_UPDATE_README=1` writes the table into the README instead of comparing it.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import analyzer.findings
from analyzer.findings import FINDERS
from analyzer.findings.finder import Finder, Rule

README = Path(__file__).resolve().parents[2] / "README.md"
TABLE = re.compile(r"(<!-- findings:.*?-->\n)(.*?)(<!-- end of findings -->)", re.DOTALL)
NO_THRESHOLDS = {"MOST_NAMED", "MATRIX_AXES", "TOP_SHARE", "MAD_TO_DEVIATION"}
RULES = [rule for finder in FINDERS for rule in finder.rules]


def findings_table() -> str:
    """The kinds of sentences as a Markdown table, in the order of importance."""
    lines = ["| sentence | said when |", "|---|---|"]
    lines += [f"| {cell(rule.sentence)} | {cell(rule.when)} |" for rule in RULES]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that is no Markdown, with what the statistics are called as code."""
    text = text.replace("|", r"\|").replace("<", r"\<")
    return re.sub(r"(?<!\w)(--\w[\w-]*|[a-z]+_[a-z0-9_]+)(?!\w)", r"`\1`", text)


def test_the_table_in_the_readme_is_that_of_the_code() -> None:
    """Every sentence, and when it is said."""
    text = README.read_text(encoding="utf-8")
    table = TABLE.search(text)
    assert table is not None
    if os.environ.get("MERGESCOPE_UPDATE_README"):
        README.write_text(TABLE.sub(lambda m: m[1] + findings_table() + m[3], text), encoding="utf-8")
    else:
        assert findings_table() == table[2]


def test_a_condition_holds_the_values_of_its_constants() -> None:
    """Each threshold that is declared is in the sentence, as the code has it."""
    for rule in RULES:
        fields = re.findall(r"{(\w+)}", rule.condition)
        assert set(rule.constants) == set(fields), rule.sentence
        assert "{" not in rule.when
        for value in rule.constants.values():
            assert f"{value:,g}" in rule.when


@pytest.mark.parametrize("name", [info.name for info in iter_modules(analyzer.findings.__path__)])
def test_a_constant_is_what_its_module_says(name: str) -> None:
    """The names in the rules are those in the code, with the same values; each finder is in the list."""
    module = import_module(f"analyzer.findings.{name}")
    finders = [value for value in vars(module).values() if isinstance(value, Finder)]
    for finder in finders:
        assert finder in FINDERS
        for rule in finder.rules:
            for constant, value in rule.constants.items():
                assert value == getattr(module, constant)


def test_every_threshold_is_documented() -> None:
    """A constant of a module of finders that is a number stands in one of its rules."""
    undocumented = []
    for finder in FINDERS:
        module = import_module(finder.find.__module__)
        shown = {name for rule in module_rules(module) for name in rule.constants}
        numbers = {
            name
            for name, value in vars(module).items()
            if name.isupper() and not name.startswith("_") and isinstance(value, int | float)
        }
        undocumented += sorted(numbers - shown - NO_THRESHOLDS)
    assert [] == undocumented


def module_rules(module: object) -> list[Rule]:
    finders = [value for value in vars(module).values() if isinstance(value, Finder)]
    return [rule for finder in finders for rule in finder.rules]
