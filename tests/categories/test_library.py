"""Architectures of a user's own: read like those that ship, put before them, and refused with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analyzer.categories import categorize, require_used, rule_book, rulefiles, shipped
from analyzer.categories.library import Candidate, RuleBook
from analyzer.errors import AnalyzerError
from analyzer.records import TensorInfo

OWN = """
name = "bricks"
title = "Bricks"
part = "transformer"
blocks = ["L.."]

[[require]]
keys = ["wall.#.brick.*"]

[places.layer]
at = ["wall.{n:#}"]
block = "L{n:02}"

[[rule]]
places = ["layer"]
key = "brick.*"
component = "masonry/brick"
group = 1
"""
BRICKS = ["wall.0.brick.weight", "wall.1.brick.bias"]
LLAMA = [
    *(f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkvo"),
    *(f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    *(f"model.layers.0.{name}_layernorm.weight" for name in ("input", "post_attention")),
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
]


def infos(*keys: str) -> list[TensorInfo]:
    return [TensorInfo(key, "F16", (2, 2), 0, 8) for key in keys]


def own_file(folder: Path, text: str = OWN, name: str = "own.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("candidate", shipped().candidates, ids=lambda candidate: candidate.heading.name)
def test_hints_are_the_words_of_the_first_requirement(candidate: Candidate) -> None:
    """Told from the text, without reading it as TOML; none may say more than the file does."""
    keys = candidate.heading.required[0].keys
    words = [{s.values[0] for s in key if s.values is not None and s.name is None} for key in keys]
    assert words == list(candidate.hints)


@pytest.mark.parametrize(
    "text", [OWN.replace("[[require]]", "[[require]] # a comment"), "name = 'x'", "", "]"]
)
def test_without_a_hint_every_network_may_fit(text: str) -> None:
    """A text that is written otherwise is read as TOML."""
    assert (frozenset(),) == rulefiles.hints_of_heading(text)


def refusal(folder: Path | None = None, *, demanded: Path | None = None) -> str:
    with pytest.raises(AnalyzerError) as caught:
        rule_book(folder, demanded=demanded)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_a_folder_there_is_what_ships(tmp_path: Path) -> None:
    """Most users have no folder of rules; one that is empty changes nothing either."""
    assert shipped().candidates == rule_book(None).candidates == rule_book(tmp_path / "none").candidates
    assert shipped().candidates == rule_book(tmp_path).candidates
    assert () == rule_book(tmp_path).own


def test_a_file_of_the_folder_is_always_known(tmp_path: Path) -> None:
    """Its rules label the models that they fit, and no others."""
    own_file(tmp_path)
    book = rule_book(tmp_path)
    found = categorize(infos(*BRICKS), book=book)
    assert ("bricks", "Bricks", ("L00", "L01")) == (found.architecture, found.title, found.blocks)
    labels = found.labels["wall.1.brick.bias"]
    assert ("L01", "masonry/brick", "masonry", "bias") == (
        *(labels.block, labels.component, labels.group, labels.kind),
    )
    assert "llama" == categorize(infos(*LLAMA), book=book).architecture
    assert "generic" == categorize(infos(*BRICKS)).architecture


def test_only_toml_files_of_the_folder_are_read(tmp_path: Path) -> None:
    """Notes and copies may lie beside the rules."""
    own_file(tmp_path, "this is no TOML", name="notes.txt")
    own_file(tmp_path, "nor is this", name="own.toml.bak")
    assert () == rule_book(tmp_path).own


def test_a_file_of_the_name_of_one_that_ships_replaces_it(tmp_path: Path) -> None:
    """There is one Llama, and it is the user's."""
    text = OWN.replace('"bricks"', '"llama"').replace("wall.#.brick.*", "model.layers.#.mlp.up_proj.weight")
    text = text.replace("wall.{n:#}", "model.layers.{n:#}").replace("brick.*", "**")
    own_file(tmp_path, text)
    book = rule_book(tmp_path)
    assert ["Bricks"] == [c.heading.title for c in book.candidates if c.heading.name == "llama"]
    assert len(shipped().candidates) == len(book.candidates)
    found = categorize(infos(*LLAMA), book=book)
    assert ("llama", "Bricks") == (found.architecture, found.title)
    assert "masonry/brick" == found.labels[LLAMA[0]].component


def test_the_users_own_comes_before_what_fits_as_well(tmp_path: Path) -> None:
    """Under a name of its own too: whoever writes rules means them."""
    text = OWN.replace("wall.#.brick.*", "model.layers.#.mlp.up_proj.weight").replace(
        "wall.{n:#}", "model.layers.{n:#}"
    )
    book = rule_book(tmp_path, demanded=own_file(tmp_path / "x", text))
    assert "bricks" == categorize(infos(*LLAMA), book=book).architecture


def test_own_rules_may_continue_those_that_ship(tmp_path: Path) -> None:
    """What the file does not say is the other file's; what it says of a place holds in both."""
    text = """
name = "long-llama"
title = "Long Llama"
blocks = ["L.."]
extends = ["llama"]

[[require]]
keys = ["model.layers.#.memory.*"]

[places.layer]
at = ["model.layers.{n:#}"]
block = "L{n:02}"

[[rule]]
places = ["layer"]
key = "memory.*"
component = "memory"
"""
    book = rule_book(tmp_path, demanded=own_file(tmp_path / "x", text))
    found = categorize(infos(*LLAMA, "model.layers.0.memory.weight"), book=book)
    assert "long-llama" == found.architecture
    assert "memory" == found.labels["model.layers.0.memory.weight"].component
    plain = categorize(infos(*LLAMA)).labels
    assert {key: plain[key].component for key in LLAMA} == {key: found.labels[key].component for key in LLAMA}
    assert 0 == sum(len(n.names) - n.known for n in found.networks)


@pytest.mark.parametrize(
    ("extends", "reason"),
    [
        ('["no-such-thing"]', "extends 'no-such-thing'; there are "),
        ('["bricks"]', "extends 'bricks'; there are "),
        ('["../llama"]', "extends '../llama'; there are "),
        ('["llama", "llama"]', "extends names one file twice"),
        ('"llama"', "extends must be a list"),
        ("[]", "extends must be a list"),
    ],
)
def test_what_cannot_be_continued_is_named(tmp_path: Path, extends: str, reason: str) -> None:
    """Only files that ship can be, each once: not the file itself, and no path."""
    path = own_file(tmp_path, OWN.replace('title = "Bricks"', f'title = "Bricks"\nextends = {extends}'))
    for message in (refusal(tmp_path), refusal(demanded=path)):
        assert message.startswith(f"{path}: ")
        assert reason in message


def test_a_bad_file_is_named_with_rule_and_reason(tmp_path: Path) -> None:
    """Whichever way it came; one in the folder is not passed over in silence."""
    path = own_file(tmp_path, OWN.replace("group = 1", "group = 7"))
    expected = f"{path}: rule 1: group = 7 is not within 1 … the segments of 'masonry/brick'"
    assert expected == refusal(demanded=path)
    assert f"{expected} (mend this file, or move it out of its folder)" == refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name = \xff", "cannot read the rules ('utf-8' codec can't decode byte 0xff"),
        (b"name = ", "the rules are not valid TOML"),
        (b"", "the file: has no [[rule]]"),
        (b"#" * (rulefiles.MAX_BYTES + 1), f"has more than {rulefiles.MAX_BYTES} bytes"),
        (b"\x89PNG\r\n\x1a\n\0\0", "cannot read the rules"),
    ],
)
def test_what_is_no_rule_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Other encodings, other formats, other files by mistake."""
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    for message in (refusal(tmp_path), refusal(demanded=path)):
        assert message.startswith(f"{path}: ")
        assert reason in message


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, nothing at all, a name that cannot be; and a pipe, which is not waited for."""
    folder = tmp_path / "rules" / "x.toml"
    folder.mkdir(parents=True)
    assert "is no regular file; give a TOML file" in refusal(folder.parent)
    assert "is no regular file; give a TOML file" in refusal(demanded=folder)
    assert "No such file" in refusal(demanded=tmp_path / "none.toml")
    assert "null byte" in refusal(demanded=tmp_path / "a\0.toml")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.toml")
        assert "is no regular file" in refusal(demanded=tmp_path / "pipe.toml")


def test_rules_that_must_be_used_must_fit(tmp_path: Path) -> None:
    """Naming a file for a model that it does not describe is a mistake, and said so."""
    path = own_file(tmp_path / "x")
    book = rule_book(demanded=path)
    require_used(book, ["bricks"], model="m")
    require_used(rule_book(path.parent), ["llama"], model="m")  # of the folder: known, not demanded
    require_used(RuleBook(()), [], model="m")
    with pytest.raises(AnalyzerError) as caught:
        require_used(book, ["llama", "generic"], model="m.safetensors")
    assert str(caught.value).startswith(f"{path}: these rules fit no network of m.safetensors: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('at = ["{a:0..999}.{b:0..999}.{c:0..999}"]\nblock = "L{a}{b}{c}"', "can give more than 10000 names"),
        (f'at = ["{".".join("#" * 100)}"]', "has more than 40 segments"),
        (f'at = ["{{a:{"|".join(f"w{n}" for n in range(1001))}}}"]', "{a} is one of more than 1000 words"),
    ],
    ids=["blocks", "segments", "words"],
)
def test_places_that_would_take_for_ever_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    """A short file can ask for more than there is time and memory for."""
    closed = OWN.replace('blocks = ["L.."]', 'blocks = ["M00"]')
    path = own_file(tmp_path, closed.replace('at = ["wall.{n:#}"]\nblock = "L{n:02}"', text))
    assert reason in refusal(demanded=path)


def test_blocks_without_end_are_refused(tmp_path: Path) -> None:
    """A few letters could name millions."""
    blocks = ", ".join(f'"{letter}0..{letter}9999"' for letter in "ABCDEFGH")
    path = own_file(tmp_path, OWN.replace('"L.."', f'"L..", {blocks}'))
    assert f"{path}: the file: blocks has more than 10000 names" == refusal(demanded=path)


def test_places_times_rules_are_limited(tmp_path: Path) -> None:
    """Every rule at every place is a pattern; an index of all that begin with any word is no larger."""
    places = ", ".join(f'"a{n}"' for n in range(3000))
    rules = "".join(
        f'[[rule]]\nplaces = ["layer"]\nkey = "x{n}"\ncomponent = "x"\nblock = "BASE"\n' for n in range(30)
    )
    path = own_file(tmp_path, OWN.replace('"wall.{n:#}"', places).replace("L{n:02}", "BASE") + rules)
    assert "up to here there are more than 50000 words and numbers" in refusal(demanded=path)
    spread = f'at = ["{{w:{"|".join(f"w{n}" for n in range(999))}}}", "*"]'
    rules = "".join(
        f'[[rule]]\nplaces = ["layer"]\nkey = "{"x." * (n % 30)}x"\ncomponent = "x"\n' for n in range(30)
    )
    text = OWN.replace('at = ["wall.{n:#}"]', spread).replace("L{n:02}", "BASE")
    assert "bricks" == rule_book(demanded=own_file(tmp_path, text + rules)).own[0].heading.name
    many = "".join(f'[[rule]]\nplaces = ["open"]\nkey = "x.{n}"\ncomponent = "x"\n' for n in range(600))
    many = f'{text}{rules}[places.open]\nat = ["{"*." * 37}*"]\n{many}'
    assert "has too many places, and rules that begin with any word" in refusal(
        demanded=own_file(tmp_path, many)
    )


def test_messages_stay_short_whatever_the_file_holds(tmp_path: Path) -> None:
    """Long values, line breaks and hundreds of mistakes make one line that can be read."""
    long = OWN.replace("brick.*", "[" * 5000, 1)
    many = OWN + "".join('[[rule]]\nplaces = ["nowhere"]\nkey = "a"\ncomponent = "a"\n' for _ in range(300))
    odd = OWN.replace("[places.layer]", '[places."a\\nb"]\nat = 3\n[places.layer]')
    for text in (long, many, odd):
        assert len(refusal(demanded=own_file(tmp_path, text))) < 2000
    message = refusal(demanded=own_file(tmp_path, many))
    assert message.endswith(f"; and {300 - message.count('there is no place')} more")
    assert message.count("there is no place") > 10


def test_putting_dots_back_never_takes_long(tmp_path: Path) -> None:
    """Rules with many open segments are not tried on names that have lost their dots."""
    text = OWN.replace("wall.{n:#}", "wall.{n:#}." + ".".join("*" * 8))
    rules = rulefiles.load(own_file(tmp_path, text))
    assert rules.restore_dots("wall1" + "a" * 150 + "brickweight") is None
    assert "wall.1.brick.weight" == rulefiles.load(own_file(tmp_path)).restore_dots("wall1brickweight")


def test_a_bad_file_in_the_folder_comes_with_a_way_out(tmp_path: Path) -> None:
    """It stops every command, so the message says how to get on without it."""
    own_file(tmp_path, "x = ")
    assert refusal(tmp_path).endswith("(mend this file, or move it out of its folder)")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them holds would depend on the order of the folder; a file that is named outright wins."""
    own_file(tmp_path, name="a.toml")
    own_file(tmp_path, name="b.toml")
    assert "b.toml: describes 'bricks', as" in refusal(tmp_path)
    (tmp_path / "b.toml").unlink()
    demanded = own_file(tmp_path / "elsewhere")
    assert [str(demanded)] == [candidate.source for candidate in rule_book(tmp_path, demanded=demanded).own]
