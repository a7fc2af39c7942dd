"""The history in a merged file: nested, bounded, the same each time, broken by no stranger's file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import RecipeError
from analyzer.recipes.ancestry import MAX_LINES, describe, history_lines
from analyzer.recipes.document import METADATA_NAME, document, parse_document
from analyzer.recipes.history import (
    MAX_BYTES,
    MAX_FOREIGN,
    MAX_GENERATIONS,
    MAX_TEXT,
    Parent,
    Parents,
    inputs_of,
    parent_of,
    read_history,
    recipe_text,
)
from analyzer.recipes.recipe import Recipe
from analyzer.recipes.recorded_inputs import find_inputs, input_warnings
from analyzer.recipes.wish import RecordedModel

Write = Callable[..., Path]

PLAIN = document(Recipe(alpha=0.25))


def model(name: str) -> RecordedModel:
    """An input whose fingerprint follows from its name."""
    return RecordedModel(
        f"{name}.safetensors", len(name), f"sha256:{random.Random(name).randbytes(32).hex()}"
    )


def parent(name: str, own: str | None = None, **foreign: str) -> Parent:
    return Parent(model(name), own, foreign)


def merged(a: Parent, b: Parent, recipe: dict[str, Any] = PLAIN, **others: Any) -> str:
    """The entry of a merge of which nothing is dropped."""
    text, warnings = recipe_text(recipe, Parents(a, b, **others))
    assert () == warnings
    return text


def identity(name: str) -> dict[str, Any]:
    one = model(name)
    return {"name": one.name, "bytes": one.bytes, "fingerprint": one.fingerprint}


# --- What is written ---


def test_a_first_merge_names_its_inputs() -> None:
    """Nothing but what identifies them, and the weights of the further ones."""
    text = merged(parent("a"), parent("b"), base=parent("c"), models=((parent("d"), 0.5),), vae=parent("v"))
    found = json.loads(text)
    expected = {
        "a": identity("a"),
        "b": identity("b"),
        "base": identity("c"),
        "models": [identity("d") | {"weight": 0.5}],
        "vae": identity("v"),
    }
    assert expected == found["inputs"]
    assert ("mergescope.recipe", 1, {"method": "weighted_sum", "alpha": 0.25}) == (
        found["format"], found["version"], found["recipe"],
    )  # fmt: skip
    assert found["tool"].startswith("mergescope ")
    assert found == read_history(text)


def test_three_generations_nest() -> None:
    """Each input carries its whole entry, so the file alone tells where all of it came from."""
    first = merged(parent("a"), parent("b"))
    second = merged(parent("c"), parent("ab", first), document(Recipe(only="attn2")))
    third = merged(parent("cab", second), parent("d"), base=parent("ab", first))
    found = json.loads(third)
    grandparent = found["inputs"]["a"]["recipe"]
    assert "attn2" == grandparent["recipe"]["only"]
    assert "above" == grandparent["inputs"]["b"]["history"]  # told of the base, which is nearer
    assert json.loads(first) == found["inputs"]["base"]["recipe"]
    assert "recipe" not in found["inputs"]["b"]
    assert found == read_history(third)


def test_the_same_merge_gives_the_same_text() -> None:
    """Also of inputs whose metadata is written in another order."""
    first = merged(parent("a"), parent("b"))
    turned = json.dumps(dict(reversed(json.loads(first).items())), indent=3)
    texts = {merged(parent("ab", own), parent("c", mecha_recipe="x")) for own in (first, turned)}
    assert 1 == len(texts)


def test_recipes_of_other_tools_are_kept_as_text() -> None:
    """They say nothing that this tool could repeat, and much to a reader."""
    text = merged(parent("a", sd_merge_recipe='{"type": "webui"}', mecha_recipe="version 1\n…"), parent("b"))
    assert {"sd_merge_recipe": '{"type": "webui"}', "mecha_recipe": "version 1\n…"} == json.loads(text)[
        "inputs"
    ]["a"]["foreign"]
    again = merged(parent("m", text), parent("c"))
    assert "mecha_recipe" in json.loads(again)["inputs"]["a"]["recipe"]["inputs"]["a"]["foreign"]


def test_a_model_tells_all_of_itself(tmp_path: Path, write: Write) -> None:
    """Name, size and fingerprint; the entries of its metadata; and mergekit's file beside its weights."""
    path = write("m.safetensors", {"w": np.ones(3, np.float32)}, {METADATA_NAME: "x", "mecha_recipe": "y"})
    with open_checkpoint(path) as found:
        got = parent_of(found)
        assert RecordedModel("m.safetensors", path.stat().st_size, found.fingerprint()) == got.model
    assert ("x", {"mecha_recipe": "y"}) == (got.own, got.foreign)
    folder = tmp_path / "llm"
    folder.mkdir()
    path.rename(folder / "model.safetensors")
    (folder / "mergekit_config.yml").write_text("merge_method: ties\n", encoding="utf-8")
    with open_checkpoint(folder) as found:
        assert "merge_method: ties\n" == parent_of(found).foreign["mergekit_config.yml"]
    (folder / "mergekit_config.yml").write_bytes(b"\xff" * 9)
    with open_checkpoint(folder) as found:
        assert {"mecha_recipe": "y"} == parent_of(found).foreign


def test_the_name_of_the_current_folder(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model named "." has the name of its folder."""
    (tmp_path / "llm").mkdir()
    write("m.safetensors", {"w": np.ones(3, np.float32)}).rename(tmp_path / "llm" / "model.safetensors")
    monkeypatch.chdir(tmp_path / "llm")
    with open_checkpoint(Path()) as found:
        assert "llm" == parent_of(found).model.name


# --- Bounds ---


def chain(generations: int, recipe: dict[str, Any] = PLAIN) -> str:
    """A model into which others were merged one after the other."""
    text = merged(parent("m0"), parent("x0"), recipe)
    for number in range(1, generations):
        text, _ = recipe_text(recipe, Parents(parent(f"m{number}", text), parent(f"x{number}")))
    return text


def generations(text: str) -> int:
    """How many merges stand in each other."""

    def depth(found: dict[str, Any]) -> int:
        return 1 + max(
            (depth(entry["recipe"]) for _, entry in inputs_of(found) if "recipe" in entry), default=0
        )

    return depth(json.loads(text))


def entries(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All inputs of the tree."""
    for _, entry in inputs_of(found):
        yield entry
        if "recipe" in entry:
            yield from entries(entry["recipe"])


def test_very_long_lines_end_somewhere() -> None:
    """The oldest merges are left out, and it is said where."""
    text = chain(MAX_GENERATIONS + 10)
    assert MAX_GENERATIONS + 2 >= generations(text) >= MAX_GENERATIONS
    assert 1 == sum(entry.get("history") == "left out" for entry in entries(json.loads(text)))


def test_the_lists_of_alphas_go_first() -> None:
    """They are most of what a guided merge records, and its options say the same in short."""
    keys = tuple((f"model.diffusion_model.blocks.{n}.weight", n / 2000) for n in range(2000))
    recipe = document(Recipe(alphas=keys))
    first = merged(parent("a"), parent("b"), recipe)
    second = merged(parent("ab", first), parent("c"), recipe)
    text, warnings = recipe_text(recipe, Parents(parent("abc", second), parent("abd", second)))
    found = json.loads(text)
    assert 1 == len(warnings)
    assert len(json.dumps(found["inputs"])) < MAX_BYTES * 1.1
    assert 2000 == len(found["recipe"]["alphas"])  # the merge's own is kept whole
    younger, older = found["inputs"]["a"]["recipe"], found["inputs"]["a"]["recipe"]["inputs"]["a"]["recipe"]
    assert (2000, "left out") == (len(younger["recipe"]["alphas"]), older["recipe"]["alphas"])
    assert not any(entry.get("history") == "left out" for entry in entries(found))


def test_the_oldest_go_before_the_youngest() -> None:
    """What does not fit is cut down to name, size and fingerprint."""
    text = chain(20, document(Recipe(only="x" * 30_000)))
    found = json.loads(text)
    assert len(json.dumps(found["inputs"], separators=(",", ":"))) <= MAX_BYTES
    assert 8 <= generations(text) < 20
    (last,) = (entry for entry in entries(found) if entry.get("history") == "left out")
    assert identity(last["name"].removesuffix(".safetensors")) | {"history": "left out"} == last
    assert found == read_history(text)


def test_the_youngest_can_be_too_large_too() -> None:
    """Then the inputs alone are left, and the merge goes on."""
    own = merged(parent("x"), parent("y"), document(Recipe(only="x" * MAX_BYTES)))
    text, warnings = recipe_text(PLAIN, Parents(parent("a", own), parent("b", own)))
    assert ["left out", "left out"] == [entry["history"] for entry in entries(json.loads(text))]
    assert 1 == len(warnings)


def test_lines_that_meet_again_stay_linear() -> None:
    """A merge of two children of one pair tells of the pair once; thirty generations fit easily."""
    one, two = parent("one"), parent("two")
    for number in range(30):
        first, second = merged(one, two), merged(two, one)
        one, two = parent(f"one{number}", first), parent(f"two{number}", second)
    text = merged(one, two)
    assert len(text) < 60_000
    told = [entry["fingerprint"] for entry in entries(json.loads(text)) if "recipe" in entry]
    assert len(set(told)) == len(told) == 60


@given(st.integers(0, 10**6))
def test_random_histories_keep_their_bounds(seed: int) -> None:
    """Any tree of merges: sound, within its size, each model told once, and readable."""
    rng = random.Random(seed)
    pool = [parent(f"p{number}") for number in range(3)]
    for number in range(rng.randint(1, 12)):
        recipe = document(Recipe(only="x" * rng.choice([1, 5_000, 60_000]), alphas=(("k", 0.5),)))
        others = tuple((rng.choice(pool), 0.5) for _ in range(rng.randint(0, 2)))
        text, _ = recipe_text(recipe, Parents(rng.choice(pool), rng.choice(pool), models=others))
        pool.append(parent(f"q{number}", text))
        found = json.loads(text)
        assert len(json.dumps(found["inputs"], separators=(",", ":"))) <= MAX_BYTES
        assert found == read_history(text)
        assert len(describe(found)) <= MAX_LINES + 1


# --- Strangers ---

SOUND: dict[str, Any] = json.loads(merged(parent("x"), parent("y")))


def changed(*path: str, value: Any) -> str:
    """A sound entry with one place changed; lone surrogates and NaN as JSON can spell them."""
    found = json.loads(json.dumps(SOUND))
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(found)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


HOSTILE = {
    "no JSON": "an earlier merge",
    "nothing": "",
    "no object": "[]",
    "deep": '{"a":' * 100_000,
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "twice": '{"format": "mergescope.recipe", "format": "mergescope.recipe"}',
    "surrogate": "\ud800",
    "huge": "x" * (MAX_TEXT + 1),
    "other format": changed("format", value="mergescope.scan"),
    "newer": changed("version", value=2),
    "recipe no object": changed("recipe", value=[]),
    "deep recipe": changed("recipe", "only", value=nested(50)),
    "surrogate in a value": changed("recipe", "only", value="\udcff"),
    "surrogate in a name": changed("recipe", "\udcff", value=1),
    "infinite": changed("recipe", "alpha", value=0.5).replace("0.5", "1e999"),
    "not a number": changed("recipe", "alpha", value=float("nan")),
    "too large": changed("recipe", "alpha", value=10**400),
    "too large weight": changed("inputs", "a", "weight", value=-(10**400)),
    "tool no text": changed("tool", value=1),
    "inputs no object": changed("inputs", value=3),
    "no b": changed("inputs", "b", value=None),
    "models no list": changed("inputs", "models", value={}),
    "name no text": changed("inputs", "a", "name", value=3),
    "surrogate in an input": changed("inputs", "a", "name", value="\udcff"),
    "bytes no number": changed("inputs", "a", "bytes", value="3"),
    "no fingerprint": changed("inputs", "a", "fingerprint", value="sha256:x"),
    "infinite weight": changed("inputs", "a", "weight", value=0.5).replace("0.5", "1e999"),
    "nested nonsense": changed("inputs", "a", "recipe", value={"format": "mergescope.recipe"}),
}


@pytest.mark.parametrize("own", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_recipe_is_dropped_with_a_warning(own: str) -> None:
    """A merge of such a file goes on, and says what it leaves out."""
    text, warnings = recipe_text(PLAIN, Parents(parent("a", own), parent("b")))
    assert {"a": identity("a"), "b": identity("b")} == json.loads(text)["inputs"]
    assert ["a.safetensors: its recipe is left out of the history"] == [
        w.rpartition(": ")[0] for w in warnings
    ]
    assert all(w.isprintable() and len(w) < 500 for w in warnings)
    text.encode()
    assert read_history(own) is None
    assert ("mergescope.recipe in its metadata is no sound recipe",) == history_lines({METADATA_NAME: own})


def test_unknown_fields_of_a_sound_recipe_are_passed_over() -> None:
    """They may be anything, so they are not taken along; options of a later version stay."""
    own = changed("inputs", "a", "path", value="/home/me")
    own = json.dumps(
        json.loads(own) | {"secret": 1, "recipe": {"alpha": 0.5, "new_option": [1, {"x": None}]}}
    )
    found = json.loads(merged(parent("a", own), parent("b")))["inputs"]["a"]["recipe"]
    assert SOUND["inputs"] == found["inputs"]
    assert {"alpha": 0.5, "new_option": [1, {"x": None}]} == found["recipe"]
    assert "secret" not in found


def test_long_recipes_of_other_tools_are_dropped_with_a_warning() -> None:
    """Other tools' texts must be short; what nested ones hold is checked in silence."""
    text, warnings = recipe_text(
        PLAIN,
        Parents(parent("a", mecha_recipe="x" * (MAX_FOREIGN + 1), sd_merge_recipe="\ud800"), parent("b")),
    )
    assert {"a": identity("a"), "b": identity("b")} == json.loads(text)["inputs"]
    assert [
        "a.safetensors: its entry mecha_recipe is left out of the history: it is too long or no text",
        "a.safetensors: its entry sd_merge_recipe is left out of the history: it is too long or no text",
    ] == list(warnings)
    own = changed("inputs", "a", "foreign", value={"mecha_recipe": 3, "other": "x", "sd_merge_recipe": "y"})
    found = json.loads(merged(parent("a", own), parent("b")))["inputs"]["a"]["recipe"]["inputs"]["a"]
    assert {"sd_merge_recipe": "y"} == found["foreign"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from(["format", "version", "tool", "recipe", "inputs", "a", "b", "models", "foreign"]),
    json_values,
)
def test_any_change_is_kept_or_refused(place: str, value: Any) -> None:
    """No value in any place breaks a merge, nor what inspect says."""
    path = [place]
    if place in ("a", "b", "models"):
        path = ["inputs", place]
    elif place == "foreign":
        path = ["inputs", "a", "recipe"]
    own = changed(*path, value=value)
    text, _ = recipe_text(PLAIN, Parents(parent("a", own), parent("b")))
    text.encode()
    found = read_history(text)
    assert json.loads(text) == found
    assert all(line.isprintable() for line in history_lines({METADATA_NAME: text}))


# --- What people see ---


def test_a_plain_merge_is_described_by_its_shares() -> None:
    """One alpha for all keys is a share of either."""
    recipe = document(Recipe(alpha=0.3, base_alpha=0.3, position_ids="keep"))
    assert ("merged from a.safetensors (0.7) and b.safetensors (0.3) by weighted_sum",) == describe(
        json.loads(merged(parent("a"), parent("b"), recipe))
    )


def test_other_merges_are_described_by_their_options() -> None:
    """Method, other inputs, options; long lists are cut, alphas by key are counted."""
    recipe = document(
        Recipe(
            only="attn2",
            alpha=0.3,
            block_weights=tuple(n / 24 for n in range(25)),
            sets=(("attn1", 0.5), ("VAE", 0.0)),
            alphas=(("x", 1.0), ("y", 0.0)),
        )
    )
    text = merged(
        parent("a"), parent("b"), recipe, base=parent("c"), models=((parent("d"), 1.0),), vae=parent("v")
    )
    assert (
        "merged from a.safetensors, b.safetensors and d.safetensors by weighted_sum, base c.safetensors, "
        "VAE v.safetensors, only attn2, alpha 0.3, block-weights 0 0.0416667 0.0833333 0.125 0.166667 "
        "0.208333 0.25 0.291667…, set attn1=0.5 VAE=0.0, alphas of 2 keys",
    ) == describe(json.loads(text))


def test_a_tree_is_described_line_by_line() -> None:
    """The youngest merge first, each older one further to the right."""
    first = merged(parent("a"), parent("b", mecha_recipe="x"))
    second = merged(parent("ab", first), parent("c"), document(Recipe(only="attn2")))
    third = merged(parent("abc", second), parent("ab", first))
    assert (
        "merged from abc.safetensors (0.75) and ab.safetensors (0.25) by weighted_sum",
        "  abc.safetensors: merged from ab.safetensors and c.safetensors by weighted_sum, only attn2",
        "    ab.safetensors: as told elsewhere here",
        "  ab.safetensors: merged from a.safetensors (0.75) and b.safetensors (0.25) by weighted_sum",
        "    b.safetensors: holds a recipe of sd-mecha",
    ) == describe(json.loads(third))


def test_a_long_history_is_described_in_few_lines() -> None:
    """What is cut is counted."""
    lines = describe(json.loads(chain(40)))
    assert MAX_LINES + 1 == len(lines)
    assert "and 16 more lines: --json has all" == lines[-1]


def test_names_of_strangers_are_spelled_out() -> None:
    """No escape sequence of a file's name or options reaches a terminal."""
    own = changed("inputs", "a", "name", value="\x1b[31mred")
    own = json.dumps(json.loads(own) | {"recipe": {"only\n": "\x07" * 1000, "method": "\x1b"}})
    (line,) = history_lines({METADATA_NAME: own})
    assert line.isprintable()
    assert "\\x1b[31mred" in line
    assert len(line) < 500


def test_other_tools_are_named() -> None:
    """Each once, though the web UI and ComfyUI have two entries."""
    metadata = {"sd_merge_recipe": "x", "sd_merge_models": "y", "mecha_recipe": "z"}
    metadata |= {"prompt": "{}", "workflow": "{}"}
    assert (
        "holds a recipe of the Stable Diffusion web UI",
        "holds a recipe of sd-mecha",
        "holds a recipe of ComfyUI",
    ) == history_lines(metadata)
    assert () == history_lines({"format": "pt"})


# --- Repeating a merge ---


@pytest.fixture
def files(write: Write, tmp_path: Path) -> dict[str, Path]:
    """Five models, each in a folder of its own."""
    found = {}
    for number, name in enumerate(("a", "b", "c", "d", "v")):
        (tmp_path / name).mkdir()
        path = write(f"{name}.safetensors", {"w": np.full(3, number, np.float32)})
        found[name] = path.rename(tmp_path / name / path.name)
    return found


def recorded(files: dict[str, Path]) -> str:
    """The entry of a merge of the five."""
    parents = {}
    for name, path in files.items():
        with open_checkpoint(path) as found:
            parents[name] = parent_of(found)
    text, _ = recipe_text(
        document(Recipe(weights=(0.5,))),
        Parents(
            parents["a"], parents["b"], base=parents["c"], models=((parents["d"], 0.5),), vae=parents["v"]
        ),
    )
    return text


def test_a_merge_is_repeated_from_its_metadata(files: dict[str, Path]) -> None:
    """The other inputs are found by their names, wherever one of the folders has them."""
    wish = parse_document(recorded(files).encode(), source=Path("m"))
    found = find_inputs(wish, [path.parent for path in files.values()])
    assert (files["c"], (files["d"],), files["v"]) == (found.base, found.models, found.vae)
    assert (0.5,) == found.recipe.weights


def test_what_is_named_is_not_looked_for(files: dict[str, Path]) -> None:
    """A recipe may be applied to other models."""
    from dataclasses import replace

    wish = parse_document(recorded(files).encode(), source=Path("m"))
    named = replace(wish, base=Path("x"), models=(Path("y"),), vae=Path("z"))
    assert named == find_inputs(named, [])


def test_inputs_that_are_not_there_are_all_named(files: dict[str, Path]) -> None:
    """With the option that names them; one of the name with other contents is not taken."""
    wish = parse_document(recorded(files).encode(), source=Path("m"))
    files["a"].replace(files["c"])
    with pytest.raises(RecipeError) as caught:
        find_inputs(wish, [files["c"].parent, files["b"].parent])
    message = str(caught.value)
    assert (
        f"'c.safetensors' as --base, and {files['c']} has other contents; name it with --base PATH" in message
    )
    assert "'d.safetensors' as --model, which is not in " in message
    assert "name it with --model PATH=0.5, and all others" in message
    assert "'v.safetensors' as --vae" in message


@pytest.mark.parametrize(
    "name", ["../c/c.safetensors", "/etc/passwd", "..", ".", "c:c.safetensors", "a\\b", "a\0b"]
)
def test_a_recorded_name_leads_to_no_other_folder(files: dict[str, Path], name: str) -> None:
    """A name is one file's in one of the folders, whatever a stranger wrote."""
    found = json.loads(recorded(files))
    found["inputs"]["base"]["name"] = name
    wish = parse_document(json.dumps(found).encode(), source=Path("m"))
    with pytest.raises(RecipeError, match="which is not in any folder"):
        find_inputs(wish, [files["a"].parent])


def test_other_models_are_warned_of(files: dict[str, Path]) -> None:
    """A recipe may be applied to other models than those that it was made with, knowingly."""
    wish = parse_document(recorded(files).encode(), source=Path("m"))
    with open_checkpoint(files["a"]) as a, open_checkpoint(files["b"]) as b, open_checkpoint(files["c"]) as c:
        assert () == input_warnings(wish, a=a, b=b, base=c, models=())
        assert (
            f"A {files['b']} is not the model that the recipe was made with, a.safetensors",
            f"--base {files['a']} is not the model that the recipe was made with, c.safetensors",
            f"--model {files['b']} is not the model that the recipe was made with, d.safetensors",
        ) == input_warnings(wish, a=b, b=b, base=a, models=(b,))
        assert (
            "A and B stand the other way round than in the merge that the recipe is of",
        ) == input_warnings(wish, a=b, b=a, base=c)
