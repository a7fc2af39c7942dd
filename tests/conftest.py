"""Shared fixtures: small models on disk, and the command line run in this process. How tests are spread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

import analyzer.cli

# The same examples on every machine, and none fails because a machine is busy; with
# `--hypothesis-profile=exploring`, other ones each time.
settings.register_profile("exploring", deadline=None)
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

SHARED = Path(__file__).resolve().parents[2] / "shared"

Write = Callable[..., Path]


@dataclass(frozen=True)
class Result:
    """What a command left behind in the terminal."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, each worker takes a run of neighbours and helps another when it has done its own.

    So models, browsers and libraries of a folder are opened by one worker, where xdist's own way of small
    pieces has all of them open everything. Another way that is asked for with `--dist` is left alone.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `mergescope …` and return its exit code and output."""
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["mergescope", *map(str, arguments)])
        capfd.readouterr()
        code = analyzer.cli.run()
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write arrays as a safetensors file in the test's folder, with the reference library."""

    def save(name: str, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> Path:
        path = tmp_path / name
        save_file(dict(tensors), path, metadata)
        return path

    return save


@pytest.fixture
def unet() -> Callable[[int], dict[str, np.ndarray]]:
    """A miniature SD 1.5 in the LDM layout: real names, tiny shapes, values from a seed."""

    def build(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        shapes = {key: shape for block in range(3) for key, shape in _sd_block(block)}
        tensors = {k: rng.standard_normal(s).astype(np.float16) for k, s in shapes.items()}
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
        tensors["betas"] = np.linspace(0.1, 0.2, 10, dtype=np.float32)
        return tensors

    return build


def _sd_block(index: int) -> list[tuple[str, tuple[int, ...]]]:
    block = f"model.diffusion_model.input_blocks.{index + 1}"
    transformer = f"{block}.1.transformer_blocks.0"
    clip = f"cond_stage_model.transformer.text_model.encoder.layers.{index}"
    return [
        ("model.diffusion_model.input_blocks.0.0.weight", (4, 4, 3, 3)),
        ("model.diffusion_model.middle_block.0.in_layers.2.weight", (4, 4, 3, 3)),
        ("model.diffusion_model.output_blocks.11.0.in_layers.2.weight", (4, 8, 3, 3)),
        ("model.diffusion_model.out.2.weight", (4, 4, 3, 3)),
        ("model.diffusion_model.time_embed.0.weight", (16, 4)),
        (f"{block}.0.in_layers.2.weight", (4, 4, 3, 3)),
        (f"{block}.0.in_layers.2.bias", (4,)),
        (f"{block}.0.skip_connection.weight", (4, 4, 1, 1)),
        (f"{block}.1.proj_in.weight", (4, 4, 1, 1)),
        (f"{transformer}.attn1.to_q.weight", (4, 4)),
        (f"{transformer}.attn1.to_out.0.weight", (4, 4)),
        (f"{transformer}.attn1.to_out.0.bias", (4,)),
        (f"{transformer}.attn2.to_q.weight", (4, 4)),
        (f"{transformer}.attn2.to_k.weight", (4, 6)),
        (f"{transformer}.attn2.to_out.0.bias", (4,)),
        (f"{transformer}.ff.net.0.proj.weight", (256, 4)),
        (f"{clip}.self_attn.q_proj.weight", (6, 6)),
        (f"{clip}.mlp.fc1.bias", (24,)),
        ("first_stage_model.encoder.conv_in.weight", (4, 3, 3, 3)),
        ("first_stage_model.decoder.conv_out.bias", (3,)),
    ]
