"""Rule files say what they mean, and are refused where they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.categories import architectures, categorize, rule_book, rulefiles
from analyzer.categories.rulefiles import load, parse
from analyzer.categories.rules import Example, Rules
from analyzer.errors import AnalyzerError
from analyzer.records import Labels, TensorInfo

EXAMPLES = [(rules, example) for rules in architectures() for example in rules.examples]

TINY = """
name = "tiny"
title = "Tiny"
blocks = ["A0..A2", "M00"]

[[require]]
keys = ["net.{n:2..2}.**"]
axes = 4

[[refuse]]
keys = ["other.*", "odd.**"]

[places.net]
at = ["net.{n:0..2}", "{n:0..2}"]
part = "unet"
block = "A{n}"

[[rule]]
places = ["net"]
key = "{kind:q|k}.{side}.*"
component = "attn/{kind}/{side}"
group = 2

[[rule]]
places = ["net"]
key = "{rest:**}"
component = "{rest}"
block = "M00"
"""


@pytest.mark.parametrize(("rules", "example"), EXAMPLES, ids=[example.key for _, example in EXAMPLES])
def test_examples_of_rule_files_replay(rules: Rules, example: Example) -> None:
    """Every architecture puts its own examples where it says."""
    assert example.position == rules.position(example.key)


@pytest.mark.parametrize("rules", architectures(), ids=lambda rules: rules.name)
def test_every_rule_has_an_example(rules: Rules) -> None:
    """A rule that the rules before it shadow, or that matches nothing, shows up here."""
    rows = [rule for example in rules.examples if (rule := rules.rule_of(example.key)) and not rule.owner]
    own = {pattern.rule.number for pattern in rules.patterns if not pattern.rule.owner}
    assert sorted(own) == sorted({rule.number for rule in rows})


def test_the_file_that_the_documentation_shows_does_what_it_says() -> None:
    """The format's description is itself a rule file, with an example that replays."""
    lines = [line[4:] for line in (rulefiles.__doc__ or "").splitlines() if line.startswith("    ")]
    rules = parse("\n".join(lines), source="documentation")
    assert 1 == len(rules.examples)
    assert rules.examples[0].position == rules.position(rules.examples[0].key)


def test_rules_say_where_a_key_stands() -> None:
    """Captures fill the block and the component; the first rule that matches wins."""
    rules = parse(TINY, source="tiny")
    assert ("A0", "A1", "A2", "M00") == rules.heading.blocks
    assert ("unet", "A1", "attn/q/left", "attn/q") == rules.position("net.1.q.left.weight")
    assert ("unet", "A2", "attn/k/left", "attn/k") == rules.position("2.k.left.bias")
    assert ("unet", "M00", "v/left", "v") == rules.position("net.0.v.3.left.weight")
    hits = [rules.rule_of(f"net.0.{key}") for key in ("q.left.weight", "q.weight")]
    assert [1, 2] == [rule.number for rule in hits if rule]


@pytest.mark.parametrize(
    "key", ["net.3.q.a.weight", "net.01.q.a.weight", "xnet.1.q", "net.1", "", ".", "net.1.q.a."]
)
def test_rules_match_whole_segments_only(key: str) -> None:
    """Another number, a longer word or a missing segment is another key."""
    assert parse(TINY, source="tiny").position(key) is None


def test_rules_may_begin_with_any_segment() -> None:
    """An open first segment matches beside spelled ones."""
    rules = parse(TINY.replace('at = ["net', 'at = ["*.{n:0..2}", "net'), source="t")
    assert ("unet", "A1", "attn/q/left", "attn/q") == rules.position("any.1.q.left.weight")
    assert rules.position("any.1.q.left.weight") == rules.position("net.1.q.left.weight")


def test_integers_have_no_leading_zeros() -> None:
    """7 and 07 are two keys; they must not pass for one layer."""
    rules = parse(TINY.replace("{side}.*", "{side:#}.*"), source="t")
    assert ("unet", "A1", "attn/q/7", "attn/q") == rules.position("net.1.q.7.weight")
    assert ("unet", "M00", "q", "q") == rules.position("net.1.q.07.weight")


def test_rules_know_their_models() -> None:
    """Every `require` must be there, with its number of axes, and no `refuse`."""
    rules = parse(TINY, source="tiny")
    sign = ("net.2.q.left.weight", 4)
    assert rules.heading.fit([("x", 1), sign])
    assert not rules.heading.fit([("net.2.q.left.weight", 2)])
    assert not rules.heading.fit([("net.1.q.left.weight", 4)])
    assert not rules.heading.fit([sign, ("odd.a.b", 1)])
    assert not rules.heading.fit([])


def test_rules_of_the_user_are_used_as_they_are(tmp_path: Path) -> None:
    """A file without conditions fits any model; what it does not know gets what its name tells."""
    file = tmp_path / "own.toml"
    file.write_text(TINY.replace("[[require]]\nkeys", "[[refuse]]\nkeys"), encoding="utf-8")
    found = categorize(
        [TensorInfo(key, "F16", (2, 2), 0, 0) for key in ("net.0.q.left.bias", "head.weight")],
        book=rule_book(demanded=file),
    )
    assert ("tiny", "Tiny", ("A0", "A1", "A2", "M00")) == (found.architecture, found.title, found.blocks)
    assert Labels("unet", "A0", "attn/q/left", "bias", "attn/q") == found.labels["net.0.q.left.bias"]
    assert Labels("other", "BASE", "head", "weight", "head") == found.labels["head.weight"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('name = "tiny"', "", "the file: name must be a text"),
        ('title = "Tiny"', "title = 3", "the file: title must be a text"),
        ('"A0..A2"', '"A0..B2"', "the file: blocks has 'A0..B2'"),
        ('"A0..A2"', '"A0..A2", "A1"', "the file: blocks names one block twice"),
        ('name = "tiny"', 'name = "tiny"\ncolour = 1', "the file: unknown field colour"),
        ("axes = 4", "axes = -1", "require 1: axes must be an integer"),
        ("axes = 4", "axes = true", "require 1: axes must be an integer"),
        ('keys = ["other.*", "odd.**"]', "keys = []", "refuse 1: keys must be a list"),
        ('"odd.**"', '"odd.**.x"', "refuse 1: `**` stands before the end"),
        ('part = "unet"', 'part = "U-Net"', "places.net: part 'U-Net'"),
        (
            'at = ["net.{n:0..2}", ',
            'at = ["net..{n:0..2}", ',
            "places.net: 'net..{n:0..2}' has an empty segment",
        ),
        ('block = "A{n}"', 'block = "B{n}"', "rule 1: 'B{n}' can give B0"),
        ('block = "A{n}"', 'block = "A{m}"', "rule 1: 'A{m}' needs {m} with a range"),
        ('"{n:0..2}"]', '"{n:0..3}"]', "rule 1: 'A{n}' can give A3"),
        ('"{n:0..2}"]', '"{n}"]', "rule 1: 'A{n}' needs {n} with a range"),
        (
            'places = ["net"]\nkey = "{kind',
            'places = ["nets"]\nkey = "{kind',
            "rule 1: there is no place 'nets'",
        ),
        ("{kind:q|k}.", "{kind:q|k}x.", "rule 1: '{kind:q|k}x' must be one placeholder"),
        ("{kind:q|k}.", "{kind:}{.", "has an empty segment or an unclosed brace"),
        ("{kind:q|k}.", "{kind:q k}.", "rule 1: 'q k' is neither a word"),
        ("{kind:q|k}.", "{kind:9..1}.", "rule 1: '9..1' is not a range"),
        ("{kind:q|k}.", "{n:q|k}.", "captures one name twice"),
        ('"attn/{kind}/{side}"', '"attn/{kin}/{side}"', "rule 1: the key captures no kin"),
        ('"attn/{kind}/{side}"', '"attn//{side}"', "rule 1: component 'attn//{side}' must not"),
        ('"attn/{kind}/{side}"', '"other/{side}"', "rule 1: component 'other/{side}' must not"),
        ('"attn/{kind}/{side}"', '"a,b/{side}"', "rule 1: component 'a,b/{side}' must not"),
        ('"attn/{kind}/{side}"', '"attn/{side"', "rule 1: '{side' has a brace"),
        ("group = 2", "group = 4", "rule 1: group = 4 is not within"),
        ("group = 2", "group = 0", "rule 1: group = 0 is not within"),
        ("group = 2", "groups = 2", "rule 1: unknown field groups"),
        ('component = "{rest}"', "", "rule 2: component must be a text"),
    ],
)
def test_bad_rules_are_refused_with_file_number_and_reason(old: str, new: str, reason: str) -> None:
    """Every mistake is found when the file is loaded, never while a model is read."""
    assert old in TINY
    with pytest.raises(AnalyzerError) as caught:
        parse(TINY.replace(old, new, 1), source="my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert reason in str(caught.value)


def test_bad_rules_are_all_named_at_once() -> None:
    """One round of corrections is enough."""
    text = (
        TINY.replace("group = 2", "group = 9")
        .replace('"{rest}"', '"{rust}"')
        .replace("axes = 4", 'axes = "4"')
    )
    with pytest.raises(AnalyzerError, match=r"^t: require 1: .*; rule 1: .*; rule 2: ") as caught:
        parse(text, source="t")
    assert 2 == str(caught.value).count("; rule")


@pytest.mark.parametrize("text", ["x = ", 'name = "a"', "rule = 3", "places = 3", "rule = [3]", "", "[rule]"])
def test_files_that_hold_no_rules_are_refused(text: str) -> None:
    """What is not TOML, or is TOML about something else, is one sentence for the user."""
    with pytest.raises(AnalyzerError, match=r"^t: "):
        parse(text, source="t")


def test_missing_rule_file_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(AnalyzerError, match=r"none\.toml: cannot read the rules"):
        load(tmp_path / "none.toml")


@given(
    template=st.text(alphabet="ab.{}:|*#01/", max_size=12), component=st.text(alphabet="ab{}/:", max_size=8)
)
def test_any_template_is_read_or_refused(template: str, component: str) -> None:
    """No key template and no component makes the loader fail in another way."""
    text = TINY.replace("{kind:q|k}.{side}.*", template).replace("attn/{kind}/{side}", component)
    position, message = None, ""
    try:
        position = parse(text, source="t").position("net.1.zz.y.weight")
    except AnalyzerError as error:
        message = str(error)
    # The last rule knows every key there, so that only a refused file leaves this one without a place.
    assert (position is None) == message.startswith("t: rule 1: ")
