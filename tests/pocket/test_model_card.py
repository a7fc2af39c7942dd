"""What the model card says is true, and the models that ship are what it says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import analyzer.pocket
from analyzer.pocket import base_path, captions, fine_tune_path
from analyzer.pocket.words import byte_pairs

FOLDER = Path(analyzer.pocket.__file__).parent
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `?(all|[\w.]+\.)`? \| (\d\.\d{3}) \| (\d\.\d{3}) \|$", CARD, re.M)
STAGES = {
    "text": "text encoder", "windows": "autoencoder, windows", "autoencoder": "autoencoder, whole pictures",
    "base": "A", "fine-tune": "B", "decoder": "decoder",
}  # fmt: skip


def test_nothing_is_left_open_in_the_card() -> None:
    """And the table of what moved is found, of which each row is a test."""
    assert "TODO" not in CARD
    assert len(ROWS) == 8


def test_tensors_parameters_and_bytes(random_model: Any) -> None:
    """Counted in the networks and in a file of theirs; and with the file's own copies all 1,143 keys."""
    stated = re.findall(r"^\| [\w -]+ \| `\w+` \| .* \| (\d+) \| ([\d,]+) \|$", CARD, re.M)
    networks = (random_model.unet, random_model.text_encoder, random_model.vae)
    counted = [(len(n.state_dict()), sum(p.numel() for p in n.parameters())) for n in networks]
    assert counted == [(int(tensors), int(count.replace(",", ""))) for tensors, count in stated]
    assert f"{random_model.file.stat().st_size:,} bytes" in CARD
    with safe_open(random_model.file, "pt") as file:
        assert f"A file has {len(file.keys()):,} keys" in CARD
        assert {"format": "pt"} == file.metadata()


def test_every_word_of_a_caption_is_in_the_card() -> None:
    """And the size of the vocabulary, and an example in the order of the captions."""
    table = CARD.partition("## Prompts")[2].partition("## What is inside")[0]
    words = set(re.findall(r"[a-z]+", table))
    assert set(captions.vocabulary()) <= words
    assert f"{len(byte_pairs()[0])} tokens" in table
    portrait = captions.Portrait("woman", "red", "long", "coat", "blue", "facing left", "close-up", "sunset")
    assert f"`{captions.full_caption(portrait)}`" in table


def test_the_card_says_how_a_folder_is_rebuilt(random_model: Any, tmp_path: Path) -> None:
    """Its example, with a model of this test in the place of the shipped one, makes a folder."""
    code = re.findall(r"```python\n(.*?)```", CARD, re.DOTALL)[0]
    code = code.replace("base_path()", f"Path({str(random_model.file)!r})")
    exec(code.replace('"pocket-base"', repr(str(tmp_path / "pocket-base"))), {})
    assert (tmp_path / "pocket-base" / "model_index.json").exists()


def test_schedules_are_those_of_the_training(libraries: None) -> None:
    """Steps, batch and rate of each stage."""
    from analyzer.pocket import train

    stated = re.findall(r"^\| ([\w, ]+) \| ([\d,]+) \| (\d+) \| ([\d.]+) \|$", CARD, re.M)
    schedules = {STAGES[name]: schedule for name, schedule in train.SCHEDULES.items()}
    assert [*schedules] == [name for name, *_ in stated]
    for name, steps, batch, rate in stated:
        found = (int(steps.replace(",", "")), int(batch), float(rate))
        assert (schedules[name].steps, schedules[name].batch, schedules[name].rate) == found
    for style, count in (("shaded", train.PICTURES["shaded"]), ("flat", train.PICTURES["flat"])):
        assert f"{count:,} {style} ones" in CARD
    assert f"{train.TEXTS:,} captions" in CARD


def test_losses_are_those_of_the_training(libraries: None) -> None:
    """The last of each stage, of as many as its steps make."""
    from analyzer.pocket import train

    recorded = json.loads((FOLDER / "losses.json").read_text(encoding="utf-8"))
    stated = dict(re.findall(r"^\| ([\w, ]+) \| (0\.\d+) \|$", CARD, re.M))
    assert [STAGES[name] for name in recorded] == [*stated]
    for name, losses in recorded.items():
        said = stated[STAGES[name]]
        assert said == f"{losses[-1]:.{len(said) - 2}f}"
        assert len(losses) == math.ceil(train.SCHEDULES[name].steps / 250)


def test_the_models_are_relatives_of_the_size_that_is_stated() -> None:
    """Of one autoencoder and one text encoder, every part of the U-Net moved, 16 MB at most together."""
    a, b = load_file(base_path()), load_file(fine_tune_path())
    assert base_path().stat().st_size + fine_tune_path().stat().st_size < 16_000_000
    assert a.keys() == b.keys()
    assert all(torch.isfinite(value).all() for model in (a, b) for value in model.values())
    same = {key for key in a if torch.equal(a[key], b[key])}
    assert {key for key in a if key.startswith(("first_stage_model.", "cond_stage_model."))} <= same
    assert len([key for key in a if key.startswith("model.diffusion_model.") and key not in same]) > 600
    assert 0.8 < _cosine(*_flat(a, b, "model.diffusion_model.")) < 0.9999


@pytest.mark.parametrize(("keys", "change", "cosine"), ROWS)
def test_card_states_what_moved(keys: str, change: str, cosine: str) -> None:
    """By NumPy in float64 with the textbook formulas, to the digits stated."""
    x, y = _flat(load_file(base_path()), load_file(fine_tune_path()), "" if keys == "all" else keys)
    assert float(change) == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), abs=5.1e-4)
    assert float(cosine) == pytest.approx(_cosine(x, y), abs=5.1e-4)


def _flat(a: dict[str, Any], b: dict[str, Any], part: str) -> tuple[Any, Any]:
    """The weights of all keys that contain `part`; no tables and no places."""
    keys = [key for key in sorted(a) if part in key and a[key].dtype == torch.float16]
    x, y = (np.concatenate([model[key].double().numpy().ravel() for key in keys]) for model in (a, b))
    return x, y


def _cosine(x: Any, y: Any) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
