"""The options of `mergescope experiment`, and how their texts become values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from analyzer.cli.options import FILE
from analyzer.cli.sections import option, section

Command = TypeVar("Command", bound=Callable[..., Any])

_FOLDER = click.Path(path_type=Path, readable=False)  # whether it will do is for the library to say

# What says nothing where a probe looks at the models: parameter -> the option.
OF_PICTURES = {
    "negative_prompt": "--negative-prompt",
    "steps": "--steps",
    "sampler": "--sampler",
    "cfg": "--cfg",
    "size": "--size",
    "config": "--config",
    "features": "--features",
    "sheet": "--sheet",
}


def _seeds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    from analyzer.experiment.conditions import parse_seeds

    return None if text is None else parse_seeds(text)


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    from analyzer.experiment.conditions import parse_size

    return None if text is None else parse_size(text)


def experiment_options(command: Command) -> Command:
    """All of them, in the sections of the help."""
    for decorate in reversed(_SECTIONS):
        command = decorate(command)
    return command


_SECTIONS = (
    section(
        "Which categories",
        option(
            "--each",
            multiple=True,
            metavar="SELECTOR",
            help="A column that takes this from B; repeatable. Within the U-Net or transformer, unless it "
            "names a part [the article's: transformer_blocks, attn1, attn2, attn1,attn2, ff …].",
        ),
        option(
            "--axis",
            metavar="AXIS",
            help="Instead a column for each group: part, block, component, kind, block*component [component "
            "for models without a U-Net].",
        ),
        option("--only", metavar="SELECTOR", help="Within this, and not within the U-Net or transformer."),
        option("--alpha", type=float, metavar="F", help="How much of B's difference a column takes [1]."),
    ),
    section(
        "Pictures",
        option(
            "--prompt",
            "prompts",
            multiple=True,
            metavar="TEXT",
            help="What to paint [the article's; pocket models have their own]. A probe may take several.",
        ),
        option("--negative-prompt", metavar="TEXT", help="What not to paint."),
        option("--seeds", callback=_seeds, metavar="LIST", help="A row each, as in 1,2,3,4 or 1-8 [1-4]."),
        option("--steps", type=int, metavar="N", help="Of the sampler [40]."),
        option("--sampler", metavar="NAME", help="euler, ddim, dpmpp_2m_karras … [euler_a; flows: euler]."),
        option("--cfg", type=float, metavar="F", help="Scale of classifier-free guidance; 1 is none [7]."),
        option("--size", callback=_size, metavar="N|WxH", help="Pixels: 512 or 512x768 [the model's own]."),
        option("--dtype", metavar="DTYPE", help="Of the network: fp32, fp16, bf16 [CUDA: fp16, else fp32]."),
        option(
            "--config",
            type=_FOLDER,
            metavar="DIR",
            help="A diffusers folder of this architecture, for single files; its weights are not needed.",
        ),
    ),
    section(
        "Measures",
        option("--scan", "scan_file", type=FILE, metavar="SCAN.json", help="The scan of A and B, if made."),
        option(
            "--features",
            type=_FOLDER,
            metavar="DIR",
            help="Measure also on the features of a vision model: CLIP, DINOv2 … as transformers saves it.",
        ),
        option(
            "--probe",
            metavar="MODULE:FUNCTION",
            help="In the place of pictures what this Python function returns of a model; causal_lm ships. "
            "Runs that code.",
        ),
    ),
    section(
        "Output",
        option("-o", "--output", type=FILE, metavar="FILE.html", help="The page to write."),
        option("--data", type=FILE, metavar="FILE.json", help="Write the numbers."),
        option("--sheet", type=FILE, metavar="FILE.png", help="Write all pictures on one sheet."),
        option(
            "--keep",
            type=_FOLDER,
            metavar="DIR",
            help="Keep every picture, every merged model and all that a later run can use again. Large.",
        ),
        option("--json", "as_json", is_flag=True, help="Print the numbers as JSON, and nothing else."),
    ),
)  # fmt: skip
