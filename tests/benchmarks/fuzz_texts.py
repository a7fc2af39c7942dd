"""Hostile texts and names: rule files, selectors, expressions, and the keys of models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from fuzz_bytes import edited_text
from hypothesis import strategies as st

from analyzer.categories import categorize, rulefiles
from analyzer.categories.library import shipped
from analyzer.errors import AnalyzerError
from analyzer.expressions import parse_expression, parse_formula
from analyzer.records import Labels, TensorInfo
from analyzer.selectors import select
from analyzer.statistics import STATISTICS

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts

Call = Callable[[], object]

TINY = (
    (rulefiles.__doc__ or "")
    .partition("describes them:\n")[2]
    .partition("\n`extends")[0]
    .replace("\n    ", "\n")
)


_SHIPPED = {
    file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
    for file in files("analyzer").joinpath("architectures").iterdir()
    if file.name.endswith(".toml")
}
# The shortest rule files that ship, and the one of the documentation.
_TEXTS = (*[TINY] * 8, *sorted(_SHIPPED.values(), key=len)[:12])

_WORDS = (
    *("**", "*", "#", "{n}", "{n:#}", "{n:**}", "{n:0..999}", "{n:0..9999999}", "{n:9..1}", "{a:x|y|z}"),
    *("{", "}", "{n:" + "|".join(map(str, range(900))) + "}", "." * 40, "*." * 60, "{a:#}.{b:#}.{c:#}."),
    *("..", "'", '"""', "A0..A9999", "L..", "BASE", "VAE", "\\u0000", "weight", "other/", "{rest}", "{n:02}"),
    *("{n:09}", "(?:a+)+$", "[[rule]]", "[[require]]", "[places.x]", "extends = ['llama']", "axes = 99"),
    *("extends = ['tiny', 'tiny']", "group = 9", "group = -1", "part = 'vae'", "1e999", "9" * 5000),
    *("[" * 5000, "{a=" * 3000, "# \u0000", "inf"),
)  # fmt: skip


@st.composite
def rule_files(draw: st.DrawFn) -> str:
    """The text of a rule file."""
    if draw(st.integers(0, 3)) == 0:
        return _generated(draw)
    return edited_text(draw, draw(st.sampled_from(_TEXTS)), _WORDS)


def _generated(draw: st.DrawFn) -> str:
    """A file in which every field is sound by itself, or nearly."""
    word = st.sampled_from(["a", "layers", "b-c", "weight", "0", "x_y"])
    hole = st.sampled_from(
        ["{n:0..11}", "{n:#}", "{m:0..999}", "{k:0..999}", "{x:q|k|v}", "{r}", "*", "#", "{x:qk|q|k}"]
    )
    odd = st.one_of(st.text(alphabet="ab{}:|.#*", max_size=5), st.just("**"), st.just("{n:0..99999}"))
    segment = st.one_of(word, word, hole, hole, odd) if draw(st.booleans()) else st.one_of(word, hole)
    template = st.tuples(
        st.lists(segment, min_size=1, max_size=8).map(".".join), st.sampled_from(["", "", ".**", ".{s:**}"])
    )
    template = template.map("".join)
    component = st.lists(
        st.sampled_from(["a", "{x}", "{r}", "{s}", "{n}", "b-c", "ff"]), min_size=1, max_size=3
    ).map("/".join)
    block = st.sampled_from(["M00", "M00", "A{n}", "L{n:02}", "A{n}{m}", "A{m}{k}{n}", "{n}", "BASE", "VAE"])
    blocks = st.lists(
        st.sampled_from(["M00", "A0..A11", "L..", "B0..B9999"]), min_size=1, max_size=3, unique=True
    )
    lines = ['name = "t"', 'title = "T"', "part = " + draw(st.sampled_from(["'unet'", "'vae'"]))]
    lines.append(f"blocks = {draw(blocks)!r}")
    for kind in draw(st.lists(st.sampled_from(["require", "refuse"]), max_size=2)):
        lines += [f"[[{kind}]]", f"keys = {draw(st.lists(template, min_size=1, max_size=2))!r}"]
    lines += [
        "[places.p]",
        f"at = {draw(st.lists(template.filter(lambda t: '**' not in t), min_size=1, max_size=2))!r}",
    ]
    lines.append(f"block = {draw(block)!r}")
    for _ in range(draw(st.integers(1, 3))):
        lines += [
            "[[rule]]",
            "places = ['p']",
            f"key = {draw(template)!r}",
            f"component = {draw(component)!r}",
        ]
    return "\n".join(lines)


def _library(name: str) -> str:
    return _SHIPPED[name] if name in _SHIPPED else rulefiles.no_library(name)


_PROBES = (
    *(
        "model.input_blocks.4.attn2.to_out.0.bias",
        "layers.1.q.weight",
        "a.b.c.d.e",
        "net.1.zz.y.weight",
        "",
        ".",
    ),
    *("a." * 60 + "weight", "1" * 300, "a" * 5000, "layers." + "9" * 400),
)
_DOTLESS = ("input_blocks41transformer_blocks0attn2to_qweight", "a" * 300, "layers1" * 40, "_0" * 150)


def prepare_rules(_folder: Path, text: str) -> tuple[Call, int]:
    """Parse the rules and hold some keys against them."""

    def use() -> None:
        rules = rulefiles.parse(text, source="own.toml", library=_library)
        rules.heading.fit([(probe, 2) for probe in _PROBES])
        for probe in _PROBES:
            rules.position(probe)
        for probe in _DOTLESS:
            rules.restore_dots(probe)

    return use, len(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Row:
    """What a selector looks at."""

    key: str
    labels: Labels


@cache
def models() -> tuple[tuple[tuple[Row, ...], tuple[str, ...]], ...]:
    """Every seventh key of real models, and their blocks."""
    found_models = []
    for name in ("sd15-ldm", "sdxl-base-sgm", "flux-dev-bfl", "qwen3-moe-30b", "sd15-ldm-ema"):
        infos = layouts.infos(name)[::7][:400]
        found = categorize(infos)
        found_models.append((tuple(Row(info.key, found.labels[info.key]) for info in infos), found.blocks))
    return tuple(found_models)


@st.composite
def selections(draw: st.DrawFn) -> tuple[int, str]:
    """A number of a model, and a selector."""
    number = draw(st.integers(0, 4))
    rows, blocks = models()[number]
    names = sorted(
        {
            word
            for row in rows
            for word in (row.labels.part, row.labels.block, row.labels.kind, row.labels.component)
        }
    )
    word = st.one_of(
        st.sampled_from(names),
        st.sampled_from(names).flatmap(lambda name: st.sampled_from(name.split("/"))),
        st.sampled_from(rows).map(lambda row: f"key:{row.key}"),
        st.tuples(st.sampled_from(blocks or ["M00"]), st.sampled_from(blocks or ["M00"])).map("..".join),
        st.text(max_size=10),
        st.sampled_from(
            [
                *("", "!", "!!a", ":", "part:", "key:", "key:*", "key:" + "*a" * 60, "key:[", "key:[!-]"),
                *("..", "a..", "a..b..c", "CLIP", "U-Net", "VAE", "Other", "other", "x:y", "L00..L05"),
                *("a" * 5000, "a/" * 190, "key:" + "?" * 390, "key:" + "[a-z]" * 70, "\x00", "\ud800", "İ"),
                *("ß", "Kk", "!key:*", "!VAE"),
            ]
        ),
    )  # fmt: skip
    signed = st.tuples(
        st.sampled_from(["", "", "", "!", "part:", "block:", "component:", "kind:"]), word
    ).map("".join)
    return number, draw(st.sampled_from([",", " ", ", ", "\n"])).join(
        draw(st.lists(signed, min_size=1, max_size=5))
    )


def prepare_selector(_folder: Path, drawn: tuple[int, str]) -> tuple[Call, int]:
    """Select, key by key."""
    number, text = drawn
    rows, blocks = models()[number]
    return lambda: select(text, rows=rows, blocks=blocks), len(text) + 200 * len(rows)


_TOKENS = st.one_of(
    st.sampled_from([*STATISTICS][:12]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/", "**", "(", ")", ",", "and", "or"]),
    st.sampled_from(["not", "abs", "log", "log10", "sqrt", "min", "max", "0", "1", "0.03", "1e308"]),
    st.sampled_from(["1e-400", "1e999", ".5", "5.", "9**9**9", "=", "&", "!", "^", "≤", "−", "λ"]),
    st.sampled_from(["(" * 60, ")" * 60, "-" * 60, "not " * 60, "2**" * 60, "9" * 400, "min(" * 30]),
    st.sampled_from(["a" * 3000, "0x1", "x__", "__import__", "'a'"]),
    st.text(max_size=4),
)  # fmt: skip


_FORMULAS = st.recursive(
    st.one_of(st.sampled_from([*STATISTICS]), st.sampled_from(["0", "0.03", "1e308", ".5", "1e-300", "-2"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " - ", " * ", " / ", " ** ", "*"]), inner).map("".join),
        st.tuples(st.sampled_from(["log(", "sqrt(", "abs(", "(", "-("]), inner, st.just(")")).map("".join),
        st.tuples(st.just("max("), inner, st.just(", "), inner, st.just(")")).map("".join),
    ),
    max_leaves=12,
)
_CONDITIONS = st.tuples(_FORMULAS, st.sampled_from([" < ", " >= ", " == ", " < 1 < "]), _FORMULAS).map(
    "".join
)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """An expression, or nearly one."""
    if draw(st.booleans()):
        joined = st.tuples(_CONDITIONS, st.sampled_from([" and ", " or not "]), _CONDITIONS).map("".join)
        return draw(st.one_of(_FORMULAS, _CONDITIONS, joined))
    return draw(st.sampled_from([" ", " ", ""])).join(draw(st.lists(_TOKENS, max_size=12)))


_VALUES = (
    dict.fromkeys(STATISTICS, 0.5),
    dict.fromkeys(STATISTICS, None),
    dict.fromkeys(STATISTICS, 1e308),
    dict.fromkeys(STATISTICS, -0.0),
    dict.fromkeys(STATISTICS, "identical"),
)


def prepare_expression(_folder: Path, text: str) -> tuple[Call, int]:
    """Parse it as a condition and as a number, and ask it about some statistics."""

    def use() -> None:
        try:
            formula = parse_formula(text, names=STATISTICS)
        except AnalyzerError:
            condition = parse_expression(text, names=STATISTICS)
            for values in _VALUES:
                condition.holds(values)
        else:
            for values in _VALUES:
                formula.value(values)

    return use, len(text)


@cache
def _all_names() -> tuple[tuple[str, ...], ...]:
    chosen = (
        "sd15-ldm-ema",
        "sdxl-base-sgm",
        "flux-dev-bfl",
        "llama31-8b",
        "deepseek-v3",
        "bert-base",
        "wan21-t2v-14b-original",
    )
    return tuple(tuple(info.key for info in layouts.infos(name)[::17][:60]) for name in chosen)


@st.composite
def keys(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Names of tensors and their numbers of axes: real ones, real ones changed, and others."""
    real = draw(st.sampled_from(_all_names()))
    odd = (
        "model_ema." + "a" * 290,
        "model_ema.diffusion_model" + "0" * 280,
        "model_ema." + "_0" * 140,
        "." * 200,
    )
    odd += (
        "module." * 60 + "x",
        "_orig_mod." * 30,
        "9" * 4500,
        "layers." + "1" * 300 + ".x",
        "\u202e",
        "a\nb",
        "",
    )
    names = draw(st.lists(st.sampled_from(real), min_size=1, max_size=20))
    for _ in range(draw(st.integers(0, 6))):
        name = draw(st.one_of(st.sampled_from(real), st.sampled_from(odd), st.text(max_size=20)))
        cut = draw(st.integers(0, len(name)))
        word = draw(
            st.sampled_from(
                ["", ".", "..", "0", "999", "weight", "model.", "unet.", "module.", "model_ema.", "é"]
            )
        )
        names.append(
            draw(st.sampled_from([name[:cut] + word + name[cut:], word + name, name[:cut] + name[cut + 1 :]]))
        )
    return [(name, draw(st.sampled_from([0, 1, 2, 4]))) for name in dict.fromkeys(names)]


def prepare_keys(_folder: Path, named: Sequence[tuple[str, int]]) -> tuple[Call, int]:
    """Label every key, then select all of them."""
    infos = [TensorInfo(name, "F16", (2,) * axes, 0, 2 << axes) for name, axes in named]

    def use() -> None:
        found = categorize(infos, book=shipped())
        rows = [Row(info.key, found.labels[info.key]) for info in infos]
        select("key:*", rows=rows, blocks=found.blocks)

    return use, sum(len(name) + 200 for name, _ in named)
