"""Hostile files that a merge is guided by: recipes, presets, histories in metadata, scans."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_texts
import numpy as np
from fuzz_bytes import ANY_JSON, NAMES, edited, edited_json, edited_text
from fuzz_files import SOUND
from hypothesis import strategies as st

from analyzer import scanfile
from analyzer.blocks.preset_files import read_presets
from analyzer.blocks.presets import PRESETS
from analyzer.blocks.weights import alphas_by_block, parse
from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.guidance.guiding import check as check_guide
from analyzer.guidance.guiding import guide_by
from analyzer.planning.alphas import Alphas, Dtypes, Row
from analyzer.ranking import rank
from analyzer.recipes.ancestry import history_lines
from analyzer.recipes.document import METADATA_NAME, document, parse_document
from analyzer.recipes.history import Parent, Parents, read_history, recipe_text
from analyzer.recipes.options import OPTIONS
from analyzer.recipes.recipe import Guide, Recipe, check
from analyzer.recipes.recipe_file import read_recipe, write_recipe
from analyzer.recipes.recorded_inputs import find_inputs
from analyzer.recipes.wish import RecordedModel, Wish, override
from analyzer.scan import scan

Call = Callable[[], object]

_TEXT = """\
# everything that there is
format = "mergescope.recipe"
version = 1
a = "a.safetensors"

method = "ties"
base = "../models/c.safetensors"
model = ["d.safetensors=0.3", "e=f.safetensors=-1"]
param = {density = 0.2}

only = "U-Net,OUT03..OUT08"
alpha = 0.5
base-alpha = 0
block-weights = "GRAD_V"
set = ["attn2=0.3", "VAE=0"]

scan = "scan.json"
where = "relative_change > 0.03 and cosine < 0.99"
match = "cosine=0.98"
alpha_from = "1 - cosine"
per = "block"

vae = "vae.safetensors"
text-encoder = "keep-a"
position-ids = "reset"
only-in-b = "add"
prune-ema = true
dtype = ["fp16", "vae=fp32"]

[alphas]
"0.3" = ["first.weight", "second.weight"]
"""
_WORDS = (
    *("1" * 60_000 + "x", "9" * 5000, "1e999", "-", "=", "a=b=c", "=1", "x=", "0x1", "nan", "inf", "\u0663"),
    *("." * 60, "a." * 60, "[" * 5000, "{a=" * 3000, "'", '"""', "\u0000", "\ud7ff", "\u202e", "../" * 40),
    *("key:" + "*a" * 60, "2**" * 60, "(" * 60, "weighted_sum", "GRAD_V", "0,0.5,1", "0 " * 9000),
    *("alpha = 1", "[alphas]", "[[set]]", "set = 1", "dtype = []", "top = 0", "top = 9999999999", "/dev"),
    *("2026-01-01", "\x1b[31m", "x" * 100_000, "".join(f"\nalpha-{i} = 0" for i in range(5000))),
)  # fmt: skip

# --- Recipes ---


@st.composite
def recipes(draw: st.DrawFn) -> bytes:
    """A recipe in TOML, or the JSON of a metadata entry, or something like one."""
    kind = draw(st.sampled_from(["toml", "toml", "values", "json", "bytes"]))
    if kind == "json":
        return edited_json(draw, _entry()).encode(errors="surrogatepass")
    if kind == "bytes":
        return edited(draw, _TEXT.encode())
    if kind == "values":
        return _values(draw).encode(errors="surrogatepass")
    return edited_text(draw, _TEXT, _WORDS).encode(errors="surrogatepass")


def _values(draw: st.DrawFn) -> str:
    """A sound text of one option or more, each with any value."""
    value = st.one_of(
        ANY_JSON.map(lambda v: json.dumps(v)),  # much of it is TOML too
        st.sampled_from(_WORDS).map(json.dumps),
        st.sampled_from(_WORDS),
    )
    names = draw(st.lists(st.sampled_from([*OPTIONS, "a", "format"]), min_size=1, max_size=4, unique=True))
    return "".join(f"{name} = {draw(value)}\n" for name in names)


def prepare_recipe(folder: Path, content: bytes) -> tuple[Call, int]:
    """Read it, put a command line over it, resolve its names on a model, and write it again."""
    path = folder / "r.toml"
    path.write_bytes(content)

    def use() -> None:
        wish = read_recipe(path)
        _resolve(wish)
        _resolve(override(wish, {"alpha": 0.5, "top": 3, "sets": (("attn2", 1.0),)}))

    return use, len(content)


def _resolve(wish: Wish) -> None:
    with suppress(AnalyzerError):
        check(wish.recipe, base=wish.base is not None, models=len(wish.models))
    with suppress(AnalyzerError):
        check_guide(wish.recipe.guide)
    found, blocks = fuzz_texts.models()[0]
    rows = [Row(row.key, row.labels) for row in found]
    with suppress(AnalyzerError):
        alphas = Alphas(wish.recipe, rows, blocks)
        for row in rows:
            alphas.of(row)
    with suppress(AnalyzerError):
        dtypes = Dtypes(wish.recipe, rows, blocks)
        for row in rows:
            dtypes.wanted(row)
    document(wish.recipe)
    write_recipe(wish, folder=Path(), comments=["x"])


# --- Presets ---

_TSV = "preset_name\tpreset_weights\nGRAD\t" + ",".join(["0.25"] * 25) + "\n# x\nOLD:0 0.5 1\n"
_PRESETS_TOML = 'MINE = [0, 0.5, 1]\n"with space" = [1.0]\n\n'


@st.composite
def presets(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name of a file, and presets in it or something like them."""
    name, text = draw(
        st.sampled_from([("p.tsv", _TSV), ("p.toml", _PRESETS_TOML), ("p.txt", "0,0.25,0.5,0.75,1\n")])
    )
    if draw(st.booleans()):
        return name, edited(draw, text.encode())
    return name, edited_text(draw, text, _WORDS).encode(errors="surrogatepass")


_BLOCKS = (
    [*(f"IN{i:02}" for i in range(12)), "M00", *(f"OUT{i:02}" for i in range(12))],
    [f"L{i:02}" for i in range(7)],
    [],
)


def prepare_presets(folder: Path, drawn: tuple[str, bytes]) -> tuple[Call, int]:
    """Read the file as presets, and as numbers, and lay what is found over blocks."""
    name, content = drawn
    path = folder / name
    path.write_bytes(content)

    def use() -> None:
        with suppress(AnalyzerError):
            for blocks in _BLOCKS:
                alphas_by_block(parse(str(path)), blocks)
        with suppress(AnalyzerError):
            parse(content.decode("utf-8", "replace").replace("/", "").replace(".", "") + "\n")
        found = read_presets(path)
        for each in [*found, *PRESETS][:50]:
            with suppress(AnalyzerError):
                alphas_by_block(parse(each, user=found), _BLOCKS[0])

    return use, len(content)


# --- Histories ---


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "bytes": len(SOUND), "fingerprint": f"sha256:{'0' * 64}"}


def _entry() -> dict[str, Any]:
    """A sound entry of two generations that says all that can be said."""
    first = _document(Recipe(alpha=0.3), {"a": _model("x"), "b": _model("y") | {"foreign": {"prompt": "{}"}}})
    recipe = Recipe(
        method="task_arithmetic", alpha=0.5, block_weights=(0.1, 0.2), sets=(("attn2", 1.0),),
        parameters=(("density", 0.2),), weights=(0.3,), alphas=(("k", 0.1), ("l", 0.2)),
        guide=Guide(budget=0.05),
    )  # fmt: skip
    inputs = {
        "a": _model("m.safetensors") | {"recipe": first},
        "b": _model("b.safetensors") | {"history": "above"},
        "base": _model("c.safetensors"),
        "models": [_model("d.safetensors") | {"weight": 0.3}],
        "vae": _model("v.safetensors"),
    }
    return _document(recipe, inputs)


def _document(recipe: Recipe, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": "mergescope.recipe",
        "version": 1,
        "tool": "mergescope 1",
        "recipe": document(recipe),
        "inputs": dict(inputs),
    }


@st.composite
def histories(draw: st.DrawFn) -> str:
    """A metadata entry, with a name that leads elsewhere or another oddity in it."""
    entry = _entry()
    kind = draw(st.sampled_from(["name", "option", "any"]))
    if kind == "name":
        side = draw(st.sampled_from(["base", "vae", "models"]))
        named = _model(draw(st.one_of(st.sampled_from(NAMES), st.text(max_size=8))))
        entry["inputs"][side] = [named] if side == "models" else named
        return json.dumps(entry)
    if kind == "option":
        plain = entry["inputs"]["a"]["recipe"]
        option = draw(st.sampled_from([*plain["recipe"], "base_alpha", "alphas", "set", "x"]))
        odd = st.one_of(ANY_JSON, st.sampled_from([10**400, -(10**4000), 1 << 63, 1e308, 5e-324, -0.0]))
        plain["recipe"][option] = draw(odd)
        return json.dumps(draw(st.sampled_from([plain, entry])))
    if draw(st.integers(0, 9)) == 0:
        for _ in range(draw(st.sampled_from([3, 70, 150]))):
            entry = _document(Recipe(alpha=0.5), {"a": _model("a") | {"recipe": entry}, "b": _model("b")})
    return edited_json(draw, entry)


def prepare_history(folder: Path, text: str) -> tuple[Call, int]:
    """Tell it, take it over into a merge, repeat it from files beside it."""
    for name in ("m.safetensors", "c.safetensors"):
        (folder / name).write_bytes(SOUND)
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "m.safetensors").write_bytes(SOUND)

    def use() -> None:
        lines = history_lines({METADATA_NAME: text})
        assert all(line.isprintable() for line in lines)
        own = Parent(RecordedModel("a", 1, f"sha256:{'1' * 64}"), text)
        for parents in (Parents(own, own), Parents(own, Parent(own.model, None), models=((own, 0.5),))):
            told, _ = recipe_text({"alpha": 0.5}, parents)
            assert read_history(told) is not None
        find_inputs(parse_document(text.encode(errors="replace"), source=Path("m.safetensors")), [folder])

    return use, len(text)


# --- Scans ---


@cache
def _scan() -> dict[str, Any]:
    """The scan of two small models, with a base."""
    import tempfile

    from safetensors.numpy import save_file

    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.safetensors" for name in "abc"]
        for path in paths:
            keys = ("layers.0.self_attn.q_proj.weight", "layers.1.mlp.up_proj.weight", "lm_head.weight")
            save_file({key: rng.standard_normal((4, 5)).astype(np.float16) for key in keys}, path)
        a, b, c = map(open_checkpoint, paths)
        with a, b, c:
            found = scanfile.dumps(scan(a, b, base=c))
    loaded: dict[str, Any] = json.loads(found)
    return loaded


@st.composite
def scans(draw: st.DrawFn) -> bytes:
    """A scan file with something odd in it."""
    if draw(st.integers(0, 9)) == 0:
        return edited(draw, json.dumps(_scan()).encode())
    if draw(st.booleans()):
        return edited_json(draw, _scan()).encode(errors="surrogatepass")
    found = json.loads(json.dumps(_scan()))
    for row in found["keys"]:
        for name in draw(st.lists(st.sampled_from([*row["sums"]]), max_size=3)):
            row["sums"][name] = draw(st.sampled_from([0, 1, -1, 1e308, 5e-324, 2**53, None, 0.5, -1e308]))
    return json.dumps(found).encode()


_GUIDES = (
    Guide(budget=0.05),
    Guide(budget=0.05, per="block"),
    Guide(match=("cosine", 0.98)),
    Guide(match=("relative_change", 0.01), per="part"),
    Guide(alpha_from="1 - cosine"),
    Guide(alpha_from="relative_change / norm_ratio", per="block"),
    Guide(top=2),
    Guide(top=1, by="task_cosine", axis="block*component"),
    Guide(where="relative_change > 0.03 and cosine < 0.99"),
)


def prepare_scan(folder: Path, content: bytes) -> tuple[Call, int]:
    """Load it, rank it, be guided by it, write it again."""
    path = folder / "s.json"
    path.write_bytes(content)

    def use() -> None:
        found = scanfile.load(path)
        movable = {row.key for row in found.keys}
        for guide in _GUIDES:
            with suppress(AnalyzerError):
                guidance = guide_by(found, guide, movable=movable)
                assert all(alpha == alpha for alpha in guidance.alphas.values()), "an alpha that is NaN"
        for axis in ("part", "block", "component", "kind"):
            with suppress(AnalyzerError):
                rank(found, axis=axis)
        scanfile.dumps(found)

    return use, len(content)
