"""The README is true: its commands run, its Python runs, its tables are those of the code.

`MERGESCOPE_UPDATE_README=1` writes the generated table into the README instead of comparing it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analyzer.categories import architectures
from analyzer.categories.rulefiles import parse
from analyzer.cli import mergescope
from analyzer.methods import METHODS
from analyzer.recipes.recipe_file import parse_toml
from analyzer.statistics import STATISTICS

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (mergescope .*)$", TEXT, re.MULTILINE)
TOML = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
TABLE = re.compile(r"(<!-- statistics:.*?-->\n)(.*?)(<!-- end of statistics -->)", re.DOTALL)
METHODS_TABLE = re.compile(r"(<!-- methods:.*?-->\n)(.*?)(<!-- end of methods -->)", re.DOTALL)
ARCHITECTURES = re.compile(r"(<!-- architectures:.*?-->\n)(.*?)(<!-- end of architectures -->)", re.DOTALL)


def statistics_table() -> str:
    """The statistics as a Markdown table, from the one table that defines them."""
    lines = ["| name | formula | unit | range | meaning | source |", "|---|---|---|---|---|---|"]
    for name, s in STATISTICS.items():
        symbol = s.symbol.replace("|", r"\|")
        lines.append(f"| `{name}` | {symbol} | {s.unit} | {s.range} | {s.meaning} | {s.source} |")
    return "\n".join(lines) + "\n"


def architectures_table() -> str:
    """The architectures as a Markdown table, from the files that describe them."""
    lines = ["| network | part | blocks | name |", "|---|---|---|---|"]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for rules in architectures():
        heading = rules.heading
        names = [f"{block[:-2]}00 …" if block.endswith("..") else block for block in heading.blocks]
        blocks = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]}"
        rows.setdefault((heading.title, heading.part, blocks), []).append(f"`{heading.name}`")
    for (title, part, blocks), own in sorted(rows.items(), key=lambda row: row[0][0].lower()):
        lines.append(f"| {title} | `{part}` | {blocks} | {', '.join(sorted(own))} |")
    return "\n".join(lines) + "\n"


def methods_table() -> str:
    """The merge methods as a Markdown table, from the one table that defines them."""
    lines = ["| method | formula | takes | from |", "|---|---|---|---|"]
    needs = {"may": "", "must": "needs "}
    for name, method in METHODS.items():
        takes = [
            f"{needs[need]}`{option}`"
            for need, option in ((method.base, "--base"), (method.models, "--model"))
            if need != "no"
        ]
        takes += [f"`{parameter}`" for parameter in method.parameters]
        formula = method.formula.replace("|", r"\|")
        lines.append(f"| `{name}` | {formula} | {', '.join(takes)} | {method.source} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("pattern", "made"),
    [(TABLE, statistics_table), (ARCHITECTURES, architectures_table), (METHODS_TABLE, methods_table)],
)
def test_the_tables_are_the_codes(pattern: re.Pattern[str], made: Callable[[], str]) -> None:
    """Name, formula, unit, range and meaning of every statistic; every architecture that ships."""
    table = pattern.search(TEXT)
    assert table is not None
    if os.environ.get("MERGESCOPE_UPDATE_README"):
        text = README.read_text(encoding="utf-8")
        README.write_text(pattern.sub(lambda m: m[1] + made() + m[3], text), encoding="utf-8")
    else:
        assert made() == table[2]


def test_the_example_of_an_own_architecture_works() -> None:
    """It is a rule file, and puts keys where its comments say."""
    (text,) = [block for block in TOML if "[[" in block]
    rules = parse(text, source="README")
    assert ("transformer", "L07", "attn/qkv", "attn") == rules.position("blocks.7.attn.qkv.weight")
    assert rules.heading.fit([("blocks.7.attn.qkv.weight", 2)])


def test_the_example_of_a_recipe_works(tmp_path: Path) -> None:
    """It is a recipe, with the options that it names."""
    (text,) = [block for block in TOML if "method = " in block]
    wish = parse_toml(text, source=tmp_path / "recipe.toml")
    assert {"method", "block_weights", "base_alpha", "sets", "dtype", "dtypes"} == wish.given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models a and b that the README speaks of."""
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    unet, block = "model.diffusion_model.", "1.transformer_blocks.0."
    keys = [
        f"{unet}{side}_blocks.{n}.{block}{attention}.to_{x}.weight"
        for side in ("input", "output")
        for n in range(1, 12)
        for attention in ("attn1", "attn2")
        for x in "qkv"
    ]
    keys += [f"{unet}input_blocks.1.0.in_layers.2.bias", "first_stage_model.encoder.conv_in.weight"]
    a = {key: rng.standard_normal((4, 4)).astype(np.float16) for key in keys}
    save_file(a, path / "a.safetensors")
    save_file({k: v * np.float16(1.1) for k, v in a.items()}, path / "b.safetensors")
    return path


def test_there_are_commands() -> None:
    """The expression that finds them still does."""
    assert len(COMMANDS) >= 8


def test_every_command_runs(folder: Path) -> None:
    """In the order of the README, in one folder: a later one reads what an earlier one wrote."""
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if "-o" in words and words[0] == "merge":
            (folder / words[words.index("-o") + 1]).unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-I", "-m", "analyzer", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, (command, done.stderr)


def test_the_python_example_runs() -> None:
    """As it stands."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-I", "-c", block], capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stderr
        assert done.stdout


@pytest.mark.parametrize("command_name", [name for name in mergescope.commands if name != "demo"])
def test_every_option_is_documented(command_name: str) -> None:
    """Whatever a command offers stands somewhere in the README."""
    command = mergescope.commands[command_name]
    options = [p.opts for p in command.params if p.opts[0].startswith("-")]
    assert [] == [o for o in options if not any(re.search(rf"(?<![\w-]){name}(?![\w-])", TEXT) for name in o)]


def test_the_two_commands_are_in_the_readme() -> None:
    """CI runs the README's own test command."""
    ci = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    test_command = next(
        line[2:] for line in TEXT.splitlines() if line.startswith("$ ") and line.endswith("/tox")
    )
    for part in test_command.split(" && "):
        assert part.replace(".venv/bin/pip install ", "").strip() in ci.replace("-q ", ""), part
