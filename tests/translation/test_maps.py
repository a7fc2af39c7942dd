"""Map files say what they mean, and are refused where they cannot."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import AnalyzerError
from analyzer.layouts import Facet, maps, templates
from analyzer.layouts.maps import Map, Rule, load, parse
from analyzer.layouts.templates import Node, TemplateError, fits, insert, matches

FOLDER = files("analyzer.layouts")
MAPS = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".toml"))

TINY = """
name = "tiny"
title = "Tiny"

[placeholders]
n = "#"
side = "left|right"
rest = "**"

[[require]]
keys = ["old.{n}.{rest}"]

[[rule]]
unless = "new.{n}.off"
[rule.at]
"old.{n}" = "new.{n}"
[rule.names]
"one.{side}" = "first.{side}"
"all" = [{ word = "x", name = "x" }, { word = "y", name = "y", rows = 3 }]
"turned" = { name = "straight", transposed = true }

[[alias]]
[alias.names]
"older.{rest}" = "new.{rest}"
"""


def _hits(index: Node[Rule], name: str) -> list[tuple[tuple[Facet, ...], tuple[str, ...]]]:
    return [(rule.facets, captured) for rule, captured in matches(index, name.split("."))]


def _refusal(text: str) -> str:
    with pytest.raises(AnalyzerError) as caught:
        parse(text, source="tiny.toml")
    return str(caught.value)


@pytest.fixture(scope="module")
def tiny() -> Map:
    """The map of these tests."""
    return parse(TINY, source="tiny.toml")


@pytest.mark.parametrize("file", MAPS)
def test_the_maps_of_the_package_are_in_order(file: str) -> None:
    """Each is read without a complaint and bears the name of its file."""
    assert file == f"{load(FOLDER / file).name}.toml"


def test_modules_are_continued_by_names(tiny: Map) -> None:
    """A rule stands for every module with every name, words spelled out and numbers captured."""
    assert [((Facet("new.{n}.first.left"),), ("7",))] == _hits(tiny.forward, "old.7.one.left")
    assert [((Facet("old.{n}.one.right"),), ("7",))] == _hits(tiny.backward, "new.7.first.right")
    assert [] == _hits(tiny.forward, "old.7.one.up")
    assert [] == _hits(tiny.forward, "old.07.one.left")


def test_fused_and_transposed_tensors_go_one_way(tiny: Map) -> None:
    """Their parts have shares of the rows; no canonical tensor is one of them as a whole."""
    x, y = Facet("new.{n}.x", "x", 0, 1, 4), Facet("new.{n}.y", "y", 1, 4, 4)
    assert [((x, y), ("0",))] == _hits(tiny.forward, "old.0.all")
    assert [((Facet("new.{n}.straight", transposed=True),), ("0",))] == _hits(tiny.forward, "old.0.turned")
    assert [[], []] == [_hits(tiny.backward, name) for name in ("new.0.x", "new.0.straight")]


def test_an_alias_goes_one_way_and_says_so(tiny: Map) -> None:
    """What stands for the rest of a name is captured as it stands there."""
    [(rule, captured)] = matches(tiny.forward, ["older", "a", "0", "b"])
    assert (True, ("a.0.b",)) == (rule.alias, captured)
    assert [] == _hits(tiny.backward, "new.a")


def test_a_rule_holds_unless_a_tensor_is_there(tiny: Map) -> None:
    """The tensor's name is filled with what the rule captured."""
    [(rule, captured)] = matches(tiny.forward, ["old", "2", "turned"])
    assert [False, True] == [rule.holds(captured, {known}) for known in ("new.2.off", "new.1.off")]


MISTAKES = [
    ('name = "tiny"', "", "the file: name must be a text that is not empty, it is None"),
    ('title = "Tiny"', 'title = "Tiny"\nlabel = true', "the file: unknown field label;"),
    ('title = "Tiny"', 'title = "Tiny"\nlabels = 1', "the file: labels must be true or false, it is 1"),
    ('side = "left|right"', 'side = "left|"', "the file: 'left|' is none of #, **, a|b and 4..9"),
    ('side = "left|right"', 'side = "9..4"', "the file: '9..4' is none of"),
    ('side = "left|right"', "side = 3", "the file: side must be a text that is not empty, it is 3"),
    ('side = "left|right"', "", "rule 1: 'old.{n}.one.{side}' has {side}, which `placeholders` does not"),
    ('keys = ["old.{n}.{rest}"]', "keys = []", "require 1: keys must be a list of texts"),
    ('keys = ["old.{n}.{rest}"]', 'keys = ["{rest}.a"]', "require 1: '{rest}.a' goes on after {rest}"),
    ('keys = ["old.{n}.{rest}"]', 'keys = ["a..b"]', "require 1: 'a..b' has the segment '', neither a word"),
    ('keys = ["old.{n}.{rest}"]', 'keys = ["{n}.{n}"]', "require 1: '{n}.{n}' has one placeholder twice"),
    ('[[require]]\nkeys = ["old.{n}.{rest}"]', "", "the file: has no [[require]]"),
    ("[[rule]]\n", "[[rule]]\nwhere = 1\n", "rule 1: unknown field where; there is unless, at, names"),
    ('"new.{n}.off"', '"new.{rest}"', "rule 1: unless has rest, which 'old.{n}.one.{side}' has not"),
    ('"old.{n}" = "new.{n}"', '"old.{n}" = 3', "rule 1: at.old.{n} must be a text, it is 3"),
    ('"old.{n}" = "new.{n}"', '"old.{n}" = "new"', "'old.{n}.one.{side}' and 'new.first.{side}' must have"),
    ('"first.{side}"', '"first.{side}#x"', "rule 1: 'new.{n}.first.{side}#x' must end with #"),
    ('word = "y", name = "y"', 'word = "x", name = "y"', "rule 1: a fused tensor must have two parts"),
    ('word = "y", name = "y"', 'word = "y", name = "x"', "rule 1: a fused tensor must have two parts"),
    ('word = "x", name', 'name = "z", nom', "rule 1: unknown field nom; there is word, name, rows"),
    ("rows = 3", "rows = 0", "rule 1: rows must be an integer from 1 on, it is 0"),
    ("transposed = true", "transposed = 1", "rule 1: transposed must be true or false, it is 1"),
    ('{ name = "straight", transposed = true }', "3", "rule 1: must be a table, it is 3"),
    ('"older.{rest}"', '"old.{n}.turned"', "must have the same placeholders"),
    ("[[alias]]\n[alias.names]\n", "[[alias]]\n", "alias 1: unknown field older.{rest}"),
    (
        "[[alias]]\n[alias.names]\n",
        "[[rule]]\n[rule.names]\n'a.{n}' = 'b.{n}'\n'a.{n}' = 'c'",
        "not valid TOML",
    ),
    ("[placeholders]", "[placeholders", "tiny.toml: the map is not valid TOML"),
]


@pytest.mark.parametrize(("before", "after", "reason"), MISTAKES)
def test_a_mistake_is_named(before: str, after: str, reason: str) -> None:
    """One sentence: the file, the table in it, and what is wrong."""
    assert before in TINY
    message = _refusal(TINY.replace(before, after, 1))
    assert message.startswith("tiny.toml: ")
    assert reason in message


def test_two_rules_for_one_name_are_refused() -> None:
    """They would never be told apart; with different conditions they can be."""
    more = '[[rule]]\n[rule.names]\n"old.{n}.turned" = "new.{n}.b"\n'
    parse(TINY + more, source="tiny.toml")
    assert "rule 3: 'old.{n}.turned' has a rule already" in _refusal(TINY + more + more)


def test_all_problems_are_named_at_once() -> None:
    """A map is mended in one go."""
    text = TINY.replace("rows = 3", "rows = 0").replace("keys =", "key =")
    assert "require 1: unknown field key; there is keys; rule 1: rows must be" in _refusal(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or no text."""
    (tmp_path / "map.toml").write_bytes(b"\xff")
    for name in ("none.toml", "map.toml"):
        with pytest.raises(AnalyzerError, match=rf"{name}: cannot read the map"):
            maps.load(tmp_path / name)


SEGMENTS = st.sampled_from(["a", "b", "0", "1", "01", "{n}", "{m}", "{rest}"])
OPEN = {"n": ("#",), "m": ("#",), "rest": ("**",)}


def _fits_slowly(template: list[str], name: list[str]) -> bool:
    """Whether a name fits a template, one segment at a time."""
    if template == ["{rest}"]:
        return len(name) > 0
    if not template or not name:
        return template == name
    head = (
        name[0].isdecimal() and str(int(name[0])) == name[0] if "{" in template[0] else template[0] == name[0]
    )
    return head and _fits_slowly(template[1:], name[1:])


@given(
    st.lists(st.lists(SEGMENTS, min_size=1, max_size=4), max_size=8),
    st.lists(st.sampled_from(["a", "b", "0", "1", "01", "12"]), min_size=1, max_size=5),
)
def test_the_index_finds_what_fits(texts: list[list[str]], name: list[str]) -> None:
    """As many templates as a comparison with each of them finds, and none that it does not find."""
    kept = []
    for text in {".".join(text) for text in texts}:
        try:
            templates.check(text, OPEN)
        except TemplateError:
            continue
        kept.append(text)
    index: Node[str] = Node()
    for text in kept:
        insert(index, text, OPEN, text)
    expected = sorted(text for text in kept if _fits_slowly(text.split("."), name))
    found = matches(index, name)
    assert expected == sorted(text for text, _ in found)
    assert bool(expected) == fits(index, name)
    for text, captured in found:
        assert ".".join(name) == templates.fill(text, templates.holes(text), captured)
