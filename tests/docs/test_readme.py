"""The README is true: its commands run, its Python runs, its tables are those of the code.

`MERGESCOPE_UPDATE_README=1` writes the generated table into the README instead of comparing it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    clip = "cond_stage_model.transformer.text_model"
    a[f"{clip}.encoder.layers.0.mlp.fc1.weight"] = a[keys[0]]
    ids = {f"{clip}.embeddings.position_ids": np.arange(77)[None]}
    for name, factor in (("a", 1.0), ("b", 1.1), ("base", 0.9)):
        save_file({k: v * np.float16(factor) for k, v in a.items()} | ids, path / f"{name}.safetensors")
    save_file({keys[-1]: a[keys[0]]}, path / "vae.safetensors")
    (path / "weights.txt").write_text(",".join(["0.25"] * 26))
    (path / "presets.tsv").write_text("MINE\t" + ",".join(["0.25"] * 25) + "\n")
    (path / "recipe.toml").write_text("alpha = 0.5\n")
    layers = [f"model.layers.{n}.self_attn.{x}_proj.weight" for n in range(6) for x in "qkvo"]
    for name in ("llm-a", "llm-b"):
        tensors = {key: rng.standard_normal((4, 4)).astype(np.float16) for key in layers}
        save_file(tensors, path / f"{name}.safetensors")
    return path


def test_there_are_commands() -> None:
    """The expression that finds them still does."""
    assert len(COMMANDS) >= 8
    assert len(ROWS) >= 20


def test_every_command_runs(folder: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the README, in one folder: a later one reads what an earlier one wrote."""
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if "-o" in words and words[0] == "merge":
            Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
        done = run(*words)
        assert 0 == done.code, (command, done.err)


HABITS = re.search(r"<!-- habits.*?-->\n(.*?)<!-- end of habits", TEXT, re.DOTALL)
NOTES = {"--prune-ema": "A has no EMA copies", "0,0.5,0.3,1": "4 numbers, a curve over 6 blocks"}
ROWS = [line.strip("| ").split(" | ") for line in HABITS[1].splitlines()[2:]] if HABITS else []


@pytest.mark.parametrize(("there", "here"), ROWS)
def test_every_habit_has_its_option(there: str, here: str, folder: Path, run: Callable[..., object]) -> None:
    """What the table says is taken, on models of the kind that it speaks of, and does what it is for."""
    layered = "slerp" in there or "filter" in there
    models = [folder / f"{'llm-' if layered else ''}{name}.safetensors" for name in "ab"]
    spans = [span for span in re.findall(r"`([^`]+)`", here) if span.startswith("--")]
    assert spans
    for span in spans:
        words = [str(folder / word) if (folder / word).is_file() else word for word in shlex.split(span)]
        words = [re.sub(r"^(\w+\.safetensors)=", rf"{folder}/\1=", word) for word in words]
        chosen = {"--alpha", "--block-weights", "--set", "--recipe"} & set(words)
        result = run("merge", *models, *words, *([] if chosen else ["--alpha", "0.5"]), "--dry-run")
        assert 0 == result.code, (span, result.err)
        expected = [note for option, note in NOTES.items() if option in span]
        assert len(expected) == len(result.err.splitlines()), (span, result.err)
        assert all(note in result.err for note in expected), (span, result.err)


@pytest.mark.parametrize(
    ("options", "elements"),
    [
        (["--set", "IN04..OUT06,attn2=0.5"], "IN04-OUT06:attn2:0.5"),
        (
            ["--set", "OUT06,attn1,attn2=0.5", "--set", "OUT06,attn2/to_k=0.2"],
            "OUT06:attn:0.5,OUT06:attn2.to_k:0.2",
        ),
        (["--set", "!OUT04,attn2=1"], "NOT OUT04:attn2:1"),
    ],
)
def test_elements_are_supermergers(
    options: list[str], elements: str, folder: Path, run: Callable[..., object]
) -> None:
    """The alphas are those of its rules, written down here: blocks, part of a name, the later wins."""
    assert all(f"--set '{value}'" in TEXT for value in options if value != "--set")
    models = (folder / "a.safetensors", folder / "b.safetensors")
    plan = json.loads(run("merge", *models, "--alpha", "0", *options, "--dry-run", "--json").out)
    names = [*(f"IN{n:02}" for n in range(12)), "M00", *(f"OUT{n:02}" for n in range(12))]
    checked = set()
    for action in plan["actions"]:
        found = re.search(r"\.(input|output)_blocks\.(\d+)\.", action["key"])
        if found is None:
            continue
        block = f"{found[1][:-3].upper() if found[1] == 'output' else 'IN'}{int(found[2]):02}"
        expected = 0.0
        for element in elements.split(","):
            where, what, ratio = element.split(":")
            first, _, last = where.removeprefix("NOT ").partition("-")
            spans = names[names.index(first) : names.index(last or first) + 1]
            if (block in spans) != where.startswith("NOT ") and what in action["key"]:
                expected = float(ratio)
        assert expected == action["alpha"], action["key"]
        checked.add(expected)
    assert len(checked) > 1


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
