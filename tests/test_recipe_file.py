"""Recipes as TOML and as metadata: what is written reads back the same, and every mistake is named."""

from __future__ import annotations

import contextlib
import json
import math
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import RecipeError
from analyzer.methods import METHODS
from analyzer.recipes import options
from analyzer.recipes.document import METADATA_NAME, document, parse_document
from analyzer.recipes.options import OPTIONS
from analyzer.recipes.recipe import DTYPES, Guide, Recipe
from analyzer.recipes.recipe_file import MAX_BYTES, parse_toml, read_recipe, write_recipe
from analyzer.recipes.toml_text import to_toml
from analyzer.recipes.wish import RecordedModel, Wish, override

Write = Callable[..., Path]

HERE = Path("folder/recipe.toml")
MODEL = {"name": "a.safetensors", "bytes": 12, "fingerprint": f"sha256:{'0' * 64}"}

# --- Random recipes ---

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = texts.map(str.strip).filter(bool)
floats = st.floats(allow_nan=False, allow_infinity=False)


def pairs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    """(name, value), each name once."""
    return st.dictionaries(names, values, max_size=3).map(lambda found: tuple(found.items()))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


guides = st.builds(
    Guide,
    where=maybe(names),
    top=maybe(st.integers(1, 10**6)),
    by=names,
    axis=names,
    budget=maybe(floats),
    match=maybe(st.tuples(names, floats)),
    alpha_from=maybe(names),
    per=maybe(names),
)
recipes = st.builds(
    Recipe,
    method=st.sampled_from(sorted(METHODS)),
    only=maybe(names),
    alpha=maybe(floats),
    block_weights=maybe(
        st.lists(floats, min_size=1, max_size=30).map(tuple) | st.sampled_from(["GRAD_V", "é"])
    ),
    base_alpha=maybe(floats),
    sets=pairs(floats),
    position_ids=st.sampled_from([None, "keep", "reset"]),
    only_in_b=st.sampled_from(["drop", "add"]),
    dtype=st.sampled_from(sorted(DTYPES)),
    dtypes=pairs(st.sampled_from(sorted(DTYPES))),
    parameters=pairs(floats),
    guide=guides,
    alphas=st.dictionaries(texts, floats, max_size=5).map(lambda found: tuple(sorted(found.items()))),
    text_encoder=st.sampled_from([None, "keep-a", "keep-b"]),
    prune_ema=st.booleans(),
)


@given(recipes, st.lists(st.text(max_size=20), max_size=3))
def test_toml_reads_back_as_the_same_recipe(recipe: Recipe, comments: list[str]) -> None:
    """Whatever the names, and to the last bit of every number; comments of any kind are in nobody's way."""
    text = write_recipe(Wish(recipe), folder=Path(), comments=comments)
    assert recipe == parse_toml(text, source=HERE).recipe
    assert recipe.method == tomllib.loads(text)["method"]


@given(recipes)
def test_metadata_reads_back_as_the_same_recipe(recipe: Recipe) -> None:
    """Only a base alpha that is the alpha of everything is no option of its own."""
    if isinstance(recipe.block_weights, str):
        recipe = replace(recipe, block_weights="GRAD_V")  # no file says of which other one a name was
    text = json.dumps({"recipe": document(recipe), "inputs": {"a": MODEL, "b": MODEL}}, allow_nan=False)
    found = parse_document(text.encode(), source=HERE).recipe
    if recipe.block_weights is None and recipe.base_alpha == recipe.alpha:
        assert found.base_alpha is None
        assert recipe.alpha == found.alpha
    else:
        assert recipe == found


@given(recipes)
def test_a_recipe_is_written_alike_each_time(recipe: Recipe) -> None:
    """The text depends on the recipe alone, and a second reading and writing changes nothing."""
    text = write_recipe(Wish(recipe), folder=Path())
    again = write_recipe(parse_toml(text, source=Path("r.toml")), folder=Path())
    assert text == again


# --- What people write ---

WRITTEN = """
# everything that there is
format = "mergescope.recipe"
version = 1
a = "one.safetensors"
b = "two.safetensors"
method = "weighted_sum"
alpha = 1
only = "U-Net,OUT03..OUT08"
block_weights = [0, 0.5, 1]
base-alpha = 0
set = ["attn2=0.5", "key:*=x.weight = .25"]
param = {density = 0.2}
where = "relative_change > 0.03"
top = 12
by = "cosine"
axis = "block"
budget = 0.05
per = "block"
match = "cosine=0.98"
alpha-from = "relative_change / 2"
position-ids = "reset"
only-in-b = "add"
dtype = ["fp16", "vae=fp32"]
dtypes = ["attn2=bf16"]
text-encoder = "keep-b"
prune-ema = true
base = "../c.safetensors"
model = ["d=e.safetensors=0.3", "sub/f=1"]
vae = "/models/vae.pt"
scan = "scan.json"
presets = "my.tsv"
[alphas]
"0.3" = ["z", "a"]
"1" = ["m"]
"""


def test_all_that_a_file_may_say() -> None:
    """Dashes and underscores are alike, the last "=" divides, paths start at the recipe's folder."""
    wish = parse_toml(WRITTEN, source=HERE)
    guide = Guide(
        "relative_change > 0.03",
        12,
        "cosine",
        "block",
        0.05,
        ("cosine", 0.98),
        "relative_change / 2",
        "block",
    )
    expected = Recipe(
        method="weighted_sum",
        only="U-Net,OUT03..OUT08",
        alpha=1.0,
        block_weights=(0.0, 0.5, 1.0),
        base_alpha=0.0,
        sets=(("attn2", 0.5), ("key:*=x.weight", 0.25)),
        position_ids="reset",
        only_in_b="add",
        dtype="fp16",
        dtypes=(("vae", "fp32"), ("attn2", "bf16")),
        parameters=(("density", 0.2),),
        weights=(0.3, 1.0),
        guide=guide,
        alphas=(("a", 0.3), ("m", 1.0), ("z", 0.3)),
        text_encoder="keep-b",
        prune_ema=True,
    )
    assert expected == wish.recipe
    assert Path("folder/../c.safetensors") == wish.base
    assert (Path("folder/d=e.safetensors"), Path("folder/sub/f")) == wish.models
    assert Path("/models/vae.pt") == wish.vae
    assert (Path("folder/scan.json"), Path("folder/my.tsv")) == (wish.scan, wish.presets)
    fields = {option.field for option in OPTIONS.values()} - {"weights"}
    assert fields == set(wish.given)
    assert wish.recorded is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("set = {attn2 = 0.5, 'OUT03..OUT08' = 1}", Recipe(sets=(("attn2", 0.5), ("OUT03..OUT08", 1.0)))),
        ("set = 'attn2=1e-3'", Recipe(sets=(("attn2", 1e-3),))),
        ("block-weights = '0, .5,1'", Recipe(block_weights=(0.0, 0.5, 1.0))),
        ("block-weights = 'GRAD_V'", Recipe(block_weights="GRAD_V")),
        ("dtype = ['vae=fp32']", Recipe(dtypes=(("vae", "fp32"),))),
        ("dtypes = {vae = 'fp32'}", Recipe(dtypes=(("vae", "fp32"),))),
        ("param = ['density=0.5']", Recipe(parameters=(("density", 0.5),))),
        ("match = {cosine = 0.9}", Recipe(guide=Guide(match=("cosine", 0.9)))),
        ("", Recipe()),
    ],
)
def test_other_ways_to_say_it(line: str, expected: Recipe) -> None:
    """Lists may be tables, read in their order, and one entry needs no brackets."""
    assert expected == parse_toml(line, source=HERE).recipe


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alpha = ", "not valid TOML"),
        ("x = " + "[" * 5000, "not valid TOML"),
        ("alpah = 0.5", "unknown option 'alpah': nearest are alpha"),
        ("block_weight = 'X'", "nearest are block-weights"),
        ("qqqq = 1", "there is method, base"),
        ("weights = [1]", "unknown option 'weights'"),
        ("base-alpha = 1\nbase_alpha = 1", "base_alpha stands twice"),
        ("alpha = '0.5'", "alpha must be a finite number, it is '0.5'"),
        ("alpha = true", "alpha must be a finite number, it is True"),
        ("alpha = nan", "alpha must be a finite number, it is nan"),
        ("alpha = inf", "alpha must be a finite number, it is inf"),
        (f"alpha = 1{'0' * 400}", "alpha must be a finite number"),
        ("base_alpha = []", "base_alpha must be a finite number"),
        ("method = 'weigthed_sum'", "did you mean weighted_sum?"),
        ("method = 3", "method must be one of"),
        ("only = ''", "only must be a text that is not empty"),
        ("only = ['attn2']", "only must be a text"),
        ("block-weights = []", "it is empty"),
        ("block-weights = [0.5, 'x']", "block-weights must be a finite number, it is 'x'"),
        ("block-weights = 0.5", "block-weights must be a text"),
        ("set = ['attn2']", "such as 'attn2=0.5', it holds 'attn2'"),
        ("set = ['=0.5']", "it holds '=0.5'"),
        ("set = ['attn2=']", "it holds 'attn2='"),
        ("set = [0.5]", "it holds 0.5"),
        ("set = ['attn2=half']", "set of 'attn2' must be a finite number, it is 'half'"),
        ("set = ['attn2=inf']", "set of 'attn2' must be a finite number"),
        ("set = ['attn2=1e999']", "set of 'attn2' must be a finite number"),
        ("set.attn2.to_k = 1", "set of 'attn2' must be a finite number, it is {'to_k': 1}"),
        ("param = ['d=1', 'd=2']", "param names one parameter twice"),
        ("param = {d = 'much'}", "param of 'd' must be a finite number"),
        ("top = 0", "top must be an integer from 1 on"),
        ("top = 2.0", "top must be an integer from 1 on"),
        ("top = true", "top must be an integer from 1 on"),
        ("match = ['cosine=0.9', 'cosine=0.8']", "must be one statistic"),
        ("match = 'cosine'", "such as 'cosine=0.98'"),
        ("position-ids = 'reset '", "position-ids must be one of keep, reset"),
        ("only-in-b = 'added'", "only-in-b must be one of drop, add"),
        ("text-encoder = 'a'", "text-encoder must be one of keep-a, keep-b"),
        ("prune-ema = 1", "prune-ema must be true or false"),
        ("dtype = 'fp8'", "dtype must be one of keep, fp16"),
        ("dtypes = ['vae=float']", "dtypes of 'vae' must be one of keep"),
        ("dtype = ['fp16', 3]", "dtype must be one of keep"),
        ("model = ['c.safetensors']", "model must be an array of texts such as"),
        ("base = 3", "base must be a text"),
        ('base = "a\\u0000b"', "is no path"),
        ("alphas = 3", "alphas must be a table"),
        ("[alphas]\n0.3 = ['x']", "alphas must be a list of keys at each quoted alpha"),
        ("[alphas]\nx = ['x']", "alphas must have quoted numbers as names"),
        ("[alphas]\n'1' = ['x']\n'2' = ['x']", "alphas has two alphas for 'x'"),
        ("format = 'mergescope.scan'", "format must be 'mergescope.recipe'"),
        ("version = 'one'", "version must be 1"),
        ("version = 2", "newer than this mergescope; update it"),
        ("a = 3", "a must be a text"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, complaint: str) -> None:
    """One sentence with the file and the key."""
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert message.isprintable()
    assert len(message) < 1500


def test_all_mistakes_at_once() -> None:
    """Who has three mistakes is told of three."""
    with pytest.raises(RecipeError) as caught:
        parse_toml("alpha = 'x'\ntop = 0\nonyl = 'attn2'", source=HERE)
    assert all(word in str(caught.value) for word in ("alpha must", "top must", "nearest are only"))


def test_a_long_stranger_is_cut() -> None:
    """A message stays readable, whatever stands in the file."""
    with pytest.raises(RecipeError) as caught:
        parse_toml("\n".join(f"'{'x' * 500}{n}\\u001b' = 1" for n in range(300)), source=HERE)
    assert len(str(caught.value)) < 2500


def test_block_weights_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    """Its path starts at the recipe's folder; a preset's name is none, nor is what is no file."""
    (tmp_path / "weights.txt").write_text("0,0.5,1", encoding="utf-8")
    (tmp_path / "GRAD_V").write_text("0,0.5,1", encoding="utf-8")
    source = tmp_path / "r.toml"
    for text, expected in (
        ("weights.txt", str(tmp_path / "weights.txt")),
        ("GRAD_V", "GRAD_V"),
        ("MINE", "MINE"),
        ("x" * 10_000, "x" * 10_000),
        ("a\\u0000b", "a\0b"),
    ):
        wish = parse_toml(f'block-weights = "{text}"', source=source)
        assert expected == wish.recipe.block_weights


# --- What a file may be ---


def test_a_file_too_large_is_no_recipe(tmp_path: Path) -> None:
    """It is not read to its end."""
    path = tmp_path / "r.toml"
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    with pytest.raises(RecipeError, match="the most for a recipe"):
        read_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        f"block-weights = '{'1' * 300_000}x'",
        f"block-weights = '0,{'1' * 300_000}x'",
        f"set = ['attn2={'1' * 300_000}x']",
        f"param = {{density = '{'1' * 300_000}x'}}",
        f"match = 'cosine={'1' * 300_000}x'",
        f"[alphas]\n'{'1' * 300_000}x' = ['key']",
    ],
    ids=["weights", "more weights", "set", "param", "match", "alphas"],
)
def test_what_is_long_is_read_at_once(text: str) -> None:
    """No value takes a time that grows with the square of its length."""
    start = time.process_time()
    with contextlib.suppress(RecipeError):
        parse_toml(text, source=HERE)
    assert time.process_time() - start < 2


def test_only_the_first_unknown_names_are_told_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look-up compares with every option, and a file of a megabyte holds a hundred thousand names."""
    asked: list[str] = []
    monkeypatch.setattr(options, "get_close_matches", lambda name, known, n: asked.extend(known and [name]))
    with pytest.raises(RecipeError, match=r"unknown option 'x0': .* and \d+ more"):
        parse_toml("".join(f"x{number} = 0\n" for number in range(500)), source=HERE)
    assert [f"x{number}" for number in range(20)] == asked


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused in a sentence."""
    path = tmp_path / "r.toml"
    path.write_bytes(b"# \xff\xfe")
    with pytest.raises(RecipeError, match="is no text"):
        read_recipe(path)


def test_an_editors_mark_is_passed_over(tmp_path: Path) -> None:
    """Editors of Windows write a byte order mark."""
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfalpha = 0.5\r\n")
    assert 0.5 == read_recipe(path).recipe.alpha


@pytest.mark.parametrize("name", ["none.toml", "folder"])
def test_no_file_or_no_model(tmp_path: Path, name: str) -> None:
    """A name that leads nowhere, and a folder without a model."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecipeError, match=name):
        read_recipe(tmp_path / name)


def test_an_empty_file_is_an_empty_recipe(tmp_path: Path) -> None:
    """All of it may come from the command line."""
    path = tmp_path / "r.toml"
    path.write_bytes(b"")
    assert Wish(Recipe()) == read_recipe(path)


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "format": "mergescope.recipe",
        "version": 1,
        "tool": "mergescope 1",
        "recipe": {"method": "weighted_sum", "alpha": 0.25, "set": ["attn2=1"], "weights": [0.5]},
        "inputs": {
            "a": MODEL,
            "b": MODEL | {"name": "b.safetensors"},
            "base": MODEL | {"name": "c.safetensors"},
            "models": [MODEL | {"name": "d.safetensors", "weight": 0.5}],
        },
    } | changes


def test_a_merged_file_is_a_recipe(tmp_path: Path, write: Write) -> None:
    """What its metadata says, under any name of the file; so does the same text by itself."""
    text = json.dumps(entry())
    merged = write("merged.toml", {"w": np.zeros(3, np.float32)}, {METADATA_NAME: text})
    alone = tmp_path / "recipe.txt"
    alone.write_text(f"\n {text}", encoding="utf-8")
    wish = read_recipe(merged)
    assert wish == read_recipe(alone)
    assert Recipe(alpha=0.25, sets=(("attn2", 1.0),), weights=(0.5,)) == wish.recipe
    assert {"method", "alpha", "sets", "weights"} == set(wish.given)
    assert wish.recorded is not None
    assert RecordedModel("c.safetensors", 12, MODEL["fingerprint"]) == wish.recorded.base
    assert ("a.safetensors", "b.safetensors") == (wish.recorded.a.name, wish.recorded.b.name)
    assert ["d.safetensors"] == [model.name for model in wish.recorded.models]
    assert wish.recorded.vae is None


def test_a_model_that_was_not_merged_here(write: Write) -> None:
    """It says where a recipe would be."""
    path = write("m.safetensors", {"w": np.zeros(3, np.float32)}, {"format": "pt"})
    with pytest.raises(RecipeError, match="holds no recipe"):
        read_recipe(path)


def test_a_broken_model(tmp_path: Path) -> None:
    """What is wrong with it is said as an error of the recipe."""
    path = tmp_path / "m.safetensors"
    path.write_bytes((9).to_bytes(8, "little") + b'{"w": 123')
    with pytest.raises(RecipeError, match=r"m\.safetensors"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read"),
        ("[" * 9, "not valid TOML"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"recipe": {}, "recipe": {}}', "stands twice"),
        ('{"recipe": {"alpha": NaN}}', "is not JSON"),
        (entry(format="x"), "format must be"),
        (entry(version=7), "newer than this mergescope"),
        (entry(recipe=[]), "recipe must be an object"),
        (entry(recipe={"alhpa": 1}), "unknown option 'alhpa': nearest are alpha"),
        (entry(recipe={"base": "/etc/passwd"}), "unknown option 'base'"),
        (
            entry(recipe={"block_weights": "/etc/passwd"}),
            "block_weights '/etc/passwd' is no preset that ships",
        ),
        (entry(recipe={"only": "\ud800"}), "not Unicode"),
        (entry(recipe={"weights": []}), "weights must be as many"),
        (entry(recipe={"weights": 3}), "weights must be an array"),
        (entry(inputs=[]), "inputs must be an object"),
        (entry(inputs={"a": MODEL}), "input b must be an object"),
        (entry(inputs={"a": MODEL | {"name": 1}, "b": MODEL}), "the name of input a"),
        (entry(inputs={"a": MODEL | {"bytes": -1}, "b": MODEL}), "the bytes of input a"),
        (entry(inputs={"a": MODEL | {"fingerprint": "md5:1"}, "b": MODEL}), "the fingerprint of input a"),
        (entry(inputs={"a": MODEL, "b": MODEL, "models": {}}), "models must be a list"),
    ],
)
def test_mistakes_in_metadata(tmp_path: Path, text: Any, complaint: str) -> None:
    """Metadata comes from strangers: nothing of it is believed unseen."""
    path = tmp_path / "r.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


# --- Writing ---


def test_paths_start_at_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was relative stays so, and leads to the same file from where the recipe lies."""
    (tmp_path / "models").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path / "models")
    wish = Wish(
        Recipe(weights=(0.5,)), base=Path("c.safetensors"), models=(Path("sub/d"),), vae=tmp_path / "vae.pt"
    )
    text = write_recipe(wish, folder=Path("../recipes"))
    table = tomllib.loads(text)
    assert "../models/c.safetensors" == table["base"]
    assert ["../models/sub/d=0.5"] == table["model"]
    assert (tmp_path / "vae.pt").as_posix() == table["vae"]
    again = parse_toml(text, source=Path("../recipes/r.toml"))
    assert again.base is not None
    assert Path("c.safetensors").resolve() == again.base.resolve()


def test_paths_lead_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is a link has another parent than its name says."""
    (tmp_path / "far" / "recipes").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "recipes", target_is_directory=True)
    (tmp_path / "c").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    text = write_recipe(Wish(Recipe(), base=Path("c")), folder=Path("link"))
    base = parse_toml(text, source=Path("link/r.toml")).base
    assert base is not None
    assert base.exists()


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(alpha=math.inf),
        Recipe(base_alpha=math.nan),
        Recipe(block_weights=(0.0, math.inf)),
        Recipe(sets=(("attn2", math.inf),)),
        Recipe(only="\ud800"),
        Recipe(sets=((" attn2", 1.0),)),
        Recipe(alphas=(("\udfff", 1.0),)),
        Recipe(guide=Guide(match=("cosine", -math.inf))),
    ],
)
def test_what_no_file_can_hold(recipe: Recipe) -> None:
    """Neither TOML nor metadata is written of it."""
    with pytest.raises(RecipeError, match="cannot be written"):
        write_recipe(Wish(recipe), folder=Path())
    with pytest.raises(RecipeError, match="cannot be written"):
        document(recipe)


def test_what_could_not_be_read_again_is_not_written() -> None:
    """Alphas for very many keys stay in the metadata of the merged model."""
    alphas = tuple((f"{'x' * 100}{n}", 0.5) for n in range(MAX_BYTES // 100))
    with pytest.raises(RecipeError, match="repeat the merge from the model"):
        write_recipe(Wish(Recipe(alphas=alphas)), folder=Path())


def test_a_written_file_is_readable() -> None:
    """The head tells where it comes from, numbers stand side by side, texts below each other."""
    recipe = Recipe(
        alpha=0.5,
        block_weights=tuple(round(0.04 * n, 2) for n in range(25)),
        sets=(
            ("attn2", 0.5),
            ("key:model.diffusion_model.*.weight", 0.1),
            ("OUT03..OUT08,attn1,attn2,weight,!bias", 1.0),
        ),
        parameters=(("density", 0.2),),
        alphas=(("b", 0.5), ("a", 0.5)),
    )
    expected = """# mergescope 1
# A: a.safetensors

format = "mergescope.recipe"
version = 1
method = "weighted_sum"
param = {density = 0.2}
alpha = 0.5
block-weights = [
    0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4, 0.44, 0.48, 0.52, 0.56, 0.6,
    0.64, 0.68, 0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96,
]
set = [
    "attn2=0.5",
    "key:model.diffusion_model.*.weight=0.1",
    "OUT03..OUT08,attn1,attn2,weight,!bias=1.0",
]

[alphas]
"0.5" = ["a", "b"]
"""
    assert expected == write_recipe(
        Wish(recipe), folder=Path(), comments=["mergescope 1", "A: a.safetensors"]
    )


scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | texts
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=3), max_leaves=8
)


@given(st.dictionaries(texts, values, max_size=5))
def test_toml_is_what_the_standard_library_reads(table: dict[str, Any]) -> None:
    """Texts, numbers, flags, lists and tables of them under any name; the order of tables may change."""
    assert table == tomllib.loads(to_toml(table))


# --- Anything ---

OPTION = st.sampled_from([*OPTIONS, "format", "version", "a", "b"])


@given(st.dictionaries(OPTION | texts, values, max_size=4))
def test_any_table_is_a_recipe_or_an_error(table: dict[str, Any]) -> None:
    """No value of any option is anything else than read or refused in a printable sentence."""
    for read in (
        lambda: parse_toml(to_toml(table), source=HERE),
        lambda: parse_document(json.dumps(entry(recipe=table)).encode(), source=HERE),
    ):
        try:
            wish = read()
        except RecipeError as error:
            assert str(error).isprintable()
        else:
            assert isinstance(wish.recipe, Recipe)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_recipe_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Nothing that a file may hold comes out as another error."""
    path = tmp_path_factory.mktemp("any") / "r"
    path.write_bytes(content)
    with contextlib.suppress(RecipeError):
        read_recipe(path)


# --- The command line over the file ---


def test_options_replace_each_other_one_by_one() -> None:
    """What is not said on the command line stays as the file says."""
    wish = parse_toml("alpha = 0.5\nonly = 'attn2'\nbase = 'c'\ntop = 3", source=HERE)
    got = override(wish, {"alpha": 0.1, "only": None, "by": "cosine", "sets": (), "vae": Path("v")})
    assert Recipe(alpha=0.1, only="attn2", guide=Guide(top=3, by="cosine")) == got.recipe
    assert (Path("folder/c"), Path("v")) == (got.base, got.vae)
    assert {"alpha", "only", "base", "top", "by", "vae"} == set(got.given)


def test_zero_and_false_are_said() -> None:
    """Only None and an empty list mean that an option was not given."""
    wish = parse_toml("alpha = 0.5\nprune-ema = true", source=HERE)
    assert Recipe(alpha=0.0) == override(wish, {"alpha": 0.0, "prune_ema": False}).recipe


def test_lists_are_joined_and_the_command_line_wins() -> None:
    """--set has the last word on what it selects, and takes nothing else back."""
    wish = parse_toml(
        "set = ['attn2=0.5', 'VAE=0']\nparam = {density = 0.2, k = 1}\ndtypes = ['vae=fp32']", source=HERE
    )
    got = override(
        wish,
        {
            "sets": (("attn2", 0.3),),
            "parameters": (("k", 2.0),),
            "dtypes": (("unet", "bf16"),),
            "dtype": "fp16",
        },
    ).recipe
    assert (("VAE", 0.0), ("attn2", 0.3)) == got.sets
    assert (("density", 0.2), ("k", 2.0)) == got.parameters
    assert ("fp16", (("vae", "fp32"), ("unet", "bf16"))) == (got.dtype, got.dtypes)


def test_models_are_taken_as_a_whole() -> None:
    """Two lists of models and weights make no third one."""
    wish = parse_toml("model = ['c=0.1', 'd=0.2']", source=HERE)
    got = override(wish, {"models": ((Path("e"), 0.5),)})
    assert ((Path("e"),), (0.5,)) == (got.models, got.recipe.weights)


def test_one_target_takes_the_place_of_another() -> None:
    """Of budget, match and alpha-from there can be one."""
    wish = parse_toml("budget = 0.05\nper = 'block'\nwhere = 'cosine < 1'", source=HERE)
    got = override(wish, {"match": ("cosine", 0.9)}).recipe.guide
    assert Guide(match=("cosine", 0.9), per="block", where="cosine < 1") == got


def test_one_choice_takes_the_place_of_another() -> None:
    """--where drops the recipe's top with what belongs to it, and --top its where."""
    ranked = parse_toml("top = 3\nby = 'cosine'\naxis = 'block'\nbudget = 0.1\nper = 'part'", source=HERE)
    got = override(ranked, {"where": "cosine < 0.9"})
    assert Guide(where="cosine < 0.9", budget=0.1, per="part") == got.recipe.guide
    assert {"where", "budget", "per"} == set(got.given)
    assert Guide(top=4, by="cosine", axis="block") == replace(
        override(ranked, {"top": 4}).recipe.guide, budget=None, per=None
    )
    chosen = parse_toml("where = 'cosine < 0.9'", source=HERE)
    assert Guide(top=2, axis="block") == override(chosen, {"top": 2, "axis": "block"}).recipe.guide


def test_another_method_leaves_what_it_has_no_use_for() -> None:
    """Parameters, base and further models of the recipe's method; what is said with it stays."""
    text = "method = 'ties'\nbase = 'c'\nmodel = ['d=0.3']\nparam = {density = 0.2}\nalpha = 0.5"
    wish = parse_toml(text, source=HERE)
    plain = override(wish, {"method": "weighted_sum"})
    assert (Recipe(alpha=0.5), None, ()) == (plain.recipe, plain.base, plain.models)
    assert {"method", "alpha"} == set(plain.given) - {"parameters"}
    dare = override(wish, {"method": "dare_linear", "parameters": (("seed", 3.0),)})
    assert (("density", 0.2), ("seed", 3.0)) == dare.recipe.parameters
    assert (Path("folder/c"), (Path("folder/d"),), (0.3,)) == (dare.base, dare.models, dare.recipe.weights)
    wrong = override(wish, {"method": "weighted_sum", "base": Path("c")})
    assert Path("c") == wrong.base
    assert "ties" == override(wish, {"method": "ties"}).recipe.method
    assert wish.recipe.parameters == override(wish, {"method": "none such"}).recipe.parameters


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"only": "attn2"}, True),
        ({"sets": (("attn2", 1.0),)}, True),
        ({"dtype": "fp16"}, True),
        ({"alpha": 0.5}, False),
        ({"block_weights": "GRAD_V"}, False),
        ({"where": "cosine < 1"}, False),
        ({"per": "block"}, False),
        ({"scan": Path("s.json")}, False),
    ],
)
def test_recorded_alphas_give_way_to_what_they_came_from(given: dict[str, Any], kept: bool) -> None:
    """Else the option would do nothing, and nobody would know why."""
    recipe = Recipe(guide=Guide(budget=0.1), alphas=(("k", 0.5),))
    assert kept == bool(override(Wish(recipe), given).recipe.alphas)


def test_a_resolved_base_alpha_follows_another_alpha() -> None:
    """A merged file records the base alpha that came of --alpha; another --alpha is meant for all keys."""
    inputs = {"a": MODEL, "b": MODEL}
    text = json.dumps(
        entry(recipe={"method": "weighted_sum", "alpha": 0.3, "base_alpha": 0.3}, inputs=inputs)
    )
    assert Recipe(alpha=0.5) == override(parse_document(text.encode(), source=HERE), {"alpha": 0.5}).recipe


def test_a_resolved_base_alpha_follows_other_block_weights() -> None:
    """A number for BASE among the new ones is not overruled by the old."""
    recipe = {"method": "weighted_sum", "block_weights": [0.5, 1], "base_alpha": 0.5}
    wish = parse_document(
        json.dumps(entry(recipe=recipe, inputs={"a": MODEL, "b": MODEL})).encode(), source=HERE
    )
    assert 0.5 == wish.recipe.base_alpha
    assert Recipe(block_weights="X") == override(wish, {"block_weights": "X"}).recipe
    assert 0.1 == override(wish, {"block_weights": "X", "base_alpha": 0.1}).recipe.base_alpha
