"""The options of `mergescope merge`, and how their texts become values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from analyzer.cli.options import FILE, MODEL, set_option
from analyzer.cli.sections import option, section
from analyzer.errors import AnalyzerError

Command = TypeVar("Command", bound=Callable[..., Any])

_AXES = "part, block, component, kind"


def named_numbers(what: str, example: str) -> Callable[..., tuple[tuple[str, float], ...]]:
    """A callback for 'NAME=F', any number of them; the last "=" divides, for a path may hold one."""

    def read(
        _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
    ) -> tuple[tuple[str, float], ...]:
        return tuple(_named_number(text, parameter.opts[0], what, example) for text in values)

    return read


def _named_number(text: str, name: str, what: str, example: str) -> tuple[str, float]:
    before, sign, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        sign = ""
    if not sign or not before.strip():
        raise AnalyzerError(f"{name} {text!r}: write {what} and a number, as in {name} '{example}'")
    return before.strip(), value


def _target(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    return None if text is None else _named_number(text, "--match", "a statistic", "cosine=0.98")


def _dtypes(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """(dtype of all, ((selector, dtype), …)) from 'fp16' and 'vae=fp32'."""
    everywhere, parts = None, []
    for text in values:
        selector, sign, dtype = text.rpartition("=")
        if sign:
            parts.append((selector.strip(), dtype.strip()))
        else:
            everywhere = text
    return everywhere, tuple(parts)


def merge_options(command: Command) -> Command:
    """All of them, in the sections of the help."""
    for decorate in reversed(_SECTIONS):
        command = decorate(command)
    return command


_SECTIONS = (
    section(
        "Which keys, and how much of B",
        option(
            "--only",
            metavar="SELECTOR",
            help="Which keys are touched at all: attn2  attn1,attn2,weight  U-Net,OUT03..OUT08  '!bias'",
        ),
        option(
            "--alpha",
            type=float,
            metavar="F",
            help="0 keeps A, 1 takes B (the default where something else says what to take).",
        ),
        option(
            "--block-weights",
            metavar="W",
            help="Alphas by block: a preset (see mergescope presets), numbers (25 for SD 1.x, 26 with BASE "
            "first, 19 for SDXL; of layers one each, or a curve), or a file of them.",
        ),
        option(
            "--base-alpha",
            type=float,
            metavar="F",
            help="Alpha outside all blocks: text encoder, VAE, other [0 with --block-weights, else --alpha].",
        ),
        option(
            "--set",
            "sets",
            multiple=True,
            callback=set_option,
            metavar="SELECTOR=F",
            help="Alpha of a selection; repeatable, the later wins.",
        ),
        option("--presets", type=FILE, metavar="FILE", help="Presets of your own (TOML, or MBW's table)."),
    ),
    section(
        "Guided by a scan",
        option(
            "--scan", type=FILE, metavar="SCAN.json", help="The scan of A and B that guides and predicts."
        ),
        option(
            "--where", metavar="EXPR", help="Only keys such as 'relative_change > 0.03 and cosine < 0.99'."
        ),
        option("--top", type=click.IntRange(min=1), metavar="N", help="Only the N groups that differ most."),
        option("--by", metavar="STATISTIC", help="What --top ranks by [relative_change]."),
        option("--axis", metavar="AXIS", help=f"What --top ranks: {_AXES}, block*component [component]."),
        option("--budget", type=float, metavar="F", help="No group moves by more than F of its own norm."),
        option(
            "--match",
            callback=_target,
            metavar="STATISTIC=F",
            help="The alpha at which a group has this value against A, as in cosine=0.98.",
        ),
        option(
            "--alpha-from", metavar="EXPR", help="Alpha from statistics, as in '1 - cosine', cut to 0 … 1."
        ),
        option("--per", metavar="AXIS", help="Groups of these three [component; --alpha-from: each key]."),
    ),
    section(
        "Method",
        option("--method", metavar="NAME", help="See mergescope methods [weighted_sum]."),
        option(
            "--base", type=MODEL, metavar="C", help="What the models were trained from, if the method asks."
        ),
        option(
            "--model",
            "models",
            multiple=True,
            callback=named_numbers("a model", "c.safetensors=0.3"),
            metavar="PATH=WEIGHT",
            help="A further model and its weight; repeatable.",
        ),
        option(
            "--param",
            "parameters",
            multiple=True,
            callback=named_numbers("a parameter", "density=0.2"),
            metavar="NAME=F",
            help="A parameter of the method, as in density=0.2; repeatable.",
        ),
    ),
    section(
        "Parts and dtypes",
        option("--vae", type=MODEL, metavar="FILE", help="Bake this VAE in, whatever --only says."),
        option(
            "--text-encoder",
            type=click.Choice(["keep-a", "keep-b"]),
            help="All text encoders as in A, or as in B; --set still wins.",
        ),
        option("--prune-ema/--no-prune-ema", default=None, help="Leave A's EMA copies out."),
        option(
            "--position-ids",
            type=click.Choice(["keep", "reset"]),
            help="CLIP's position_ids: A's, or 0..76 as int64, whatever --only says.",
        ),
        option(
            "--only-in-b",
            type=click.Choice(["drop", "add"]),
            help="Keys that A lacks [drop].",
        ),
        option(
            "--dtype",
            "dtypes",
            multiple=True,
            callback=_dtypes,
            metavar="[SELECTOR=]DTYPE",
            help="keep, fp16, bf16, fp32, fp8_e4m3, fp8_e5m2; of all, or as in vae=fp32 of a selection; "
            "repeatable [keep].",
        ),
    ),
    section(
        "Recipe and output",
        option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="OUT",
            help="The model to write: a .safetensors file, or a folder if A is one.",
        ),
        option(
            "--recipe",
            "recipe_path",
            type=FILE,
            metavar="FILE",
            help="All of the above from a TOML file, or from the metadata of a merged model; what else is "
            "said here wins.",
        ),
        option("--save-recipe", type=FILE, metavar="FILE.toml", help="Write this merge as such a file."),
        option("--dry-run", is_flag=True, help="Print what would be done with every key; write no model."),
        option("--verify", is_flag=True, help="Measure what was written and compare it with the prediction."),
        option("--json", "as_json", is_flag=True, help="Print the plan as JSON, and nothing else."),
        option("--force", is_flag=True, help="Replace an existing output; never an input."),
    ),
)
