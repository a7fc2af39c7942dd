"""The single file is a Stable Diffusion 1.x to everybody, and diffusers rebuilds its folder from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from analyzer.categories import categorize
from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError, CheckpointError, OutputError
from analyzer.oddities import unknown_keys
from analyzer.pocket import folders

SHIPPABLE = 8_000_000  # bytes; two of them stay below 16 MB


@pytest.fixture(scope="module")
def rebuilt(random_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The diffusers folder of the random model."""
    folder = tmp_path_factory.mktemp("rebuilt") / "model"
    folders.rebuild(folder, random_model.file)
    return folder


# --- the file --------------------------------------------------------------------------------


def test_keys_are_those_of_stable_diffusion_1_5(random_model: Any) -> None:
    """All of them, with as many axes and of the same kind, as the published file has them."""
    own, real = load_file(random_model.file), layouts.load("sd15-ldm")
    assert real.keys() == own.keys()
    assert {key: len(shape) for key, (_, shape) in real.items()} == {k: v.ndim for k, v in own.items()}
    parts = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    assert [686, 248, 197] == [sum(key.startswith(part) for key in own) for part in parts]
    tables = {key for key in own if not key.startswith(parts)}
    positions = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    assert (12, {torch.float32}) == (len(tables), {own[key].dtype for key in tables})
    assert {torch.float16} == {value.dtype for key, value in own.items() if key not in {*tables, positions}}
    assert torch.equal(own[positions], torch.arange(77)[None])
    assert random_model.file.stat().st_size <= SHIPPABLE


def test_mergescope_knows_every_key(random_model: Any) -> None:
    """As one of Stable Diffusion 1.x, with its 25 blocks, text encoder and VAE; and as a pocket model."""
    with open_checkpoint(random_model.file) as model:
        found = categorize(model.infos.values())
        assert folders.recognises(model)
    assert ("sd1", "Stable Diffusion 1.x") == (found.architecture, found.title)
    assert {"IN00", "IN11", "M00", "OUT00", "OUT11"} <= set(found.blocks)
    assert {"sd1", "clip-text", "vae-ldm"} < {network.architecture for network in found.networks}
    assert 0 == sum(unknown_keys(network, found) for network in found.networks)
    assert 1143 == len(found.labels)


def test_tables_are_those_of_the_noise_schedule(random_model: Any) -> None:
    """By the formulas of Ho et al. (2020), in NumPy; and what diffusers' own scheduler computes."""
    from diffusers import DDPMScheduler

    own = {key: load_file(random_model.file)[key].double().numpy() for key in TABLES}
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    product = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], product[:-1]])
    expected = {
        "betas": betas,
        "alphas_cumprod_prev": before,
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / product - 1),
        "posterior_variance": (1 - before) / (1 - product) * betas,
        "posterior_mean_coef1": np.sqrt(before) * betas / (1 - product),
        "posterior_mean_coef2": np.sqrt(1 - betas) * (1 - before) / (1 - product),
        "log_one_minus_alphas_cumprod": np.log(1 - product),
    }
    for key, table in expected.items():
        np.testing.assert_allclose(own[key], table, rtol=1e-6, err_msg=key)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    np.testing.assert_allclose(own["alphas_cumprod"], scheduler.alphas_cumprod.numpy(), rtol=1e-4)
    clipped = own["posterior_log_variance_clipped"]
    np.testing.assert_allclose(np.exp(clipped[1:]), own["posterior_variance"][1:], rtol=1e-5)
    assert np.log(1e-20) == pytest.approx(clipped[0])


# --- the folder ------------------------------------------------------------------------------


def test_folder_holds_what_the_file_holds(random_model: Any, rebuilt: Path) -> None:
    """Every weight, by diffusers' conversion of names, rounded to fp16; and no other."""
    for name, network in (
        ("unet/diffusion_pytorch_model", random_model.unet),
        ("vae/diffusion_pytorch_model", random_model.vae),
        ("text_encoder/model", random_model.text_encoder),
    ):
        own = {key.removeprefix("text_model."): value for key, value in network.state_dict().items()}
        saved = load_file(rebuilt / f"{name}.safetensors")
        saved = {key.removeprefix("text_model."): value for key, value in saved.items()}
        assert own.keys() == saved.keys()
        assert [] == [key for key in own if not torch.equal(own[key].half().float(), saved[key])]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_whoever_may_read_a_folder_may_read_its_weights(random_model: Any, rebuilt: Path) -> None:
    """Files have the permissions that the user's umask leaves, and not those of a temporary file."""
    usual = rebuilt.parent / "usual"
    usual.touch()
    files = [random_model.file, *(path for path in rebuilt.rglob("*") if path.is_file())]
    assert {usual.stat().st_mode} == {path.stat().st_mode for path in files}


def test_rebuilding_says_nothing_on_the_terminal(random_model: Any, tmp_path: Path) -> None:
    """Neither on import nor later, bars included, of the two libraries as they are by themselves."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom analyzer.pocket.folders import rebuild\n"
        "rebuild(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    usual = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "folder", random_model.file],
        env=usual | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers about itself
def test_pipeline_runs_from_the_folder(rebuilt: Path) -> None:
    """As whoever finds a diffusers folder would run it: no argument, no other code, one dtype."""
    from diffusers import DiffusionPipeline

    pipeline: Any = DiffusionPipeline.from_pretrained(rebuilt, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert "StableDiffusionPipeline" == type(pipeline).__name__
    found = pipeline(
        "best quality, a woman", negative_prompt="blurry", num_inference_steps=2, output_type="np",
        generator=torch.Generator().manual_seed(1),
    ).images  # fmt: skip
    assert (1, 64, 64, 3) == found.shape
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0
    # what other samplers of diffusers read, and Stable Diffusion 1.5 says as well
    config = pipeline.scheduler.config
    assert (False, 1, "epsilon") == (config.clip_sample, config.steps_offset, config.prediction_type)


def test_configs_alone_are_what_the_file_is_opened_with(random_model: Any, tmp_path: Path) -> None:
    """The same files as in the folder, no weights among them, and no random number is drawn for them."""
    state = torch.get_rng_state()
    folders.write_configs(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
        "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json", "unet/config.json", "vae/config.json",
    } == names  # fmt: skip
    unet = json.loads((tmp_path / "unet" / "config.json").read_text(encoding="utf-8"))
    assert ([32, 48, 64, 64], 64) == (unet["block_out_channels"], unet["cross_attention_dim"])


def test_what_stands_there_is_never_replaced(random_model: Any, tmp_path: Path) -> None:
    """A folder, a file, a link that leads nowhere; and a place in no folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(OutputError, match="exists already; name another folder"):
            folders.rebuild(tmp_path / name, random_model.file)
    with pytest.raises(OutputError, match=r"the folder .* does not exist; create it first"):
        folders.rebuild(tmp_path / "no" / "model", random_model.file)
    assert ["file", "folder", "link"] == sorted(path.name for path in tmp_path.iterdir())


def test_what_is_no_pocket_model_is_refused(random_model: Any, tmp_path: Path) -> None:
    """Another model, a part of this one, and a file that diffusers would unpickle by its name."""
    whole = load_file(random_model.file)
    files = {name: tmp_path / name for name in ("other.safetensors", "part.safetensors", "model.ckpt")}
    save_file({"a.weight": torch.zeros(3)}, files["other.safetensors"])
    save_file({k: v for k, v in whole.items() if ".out.2." not in k}, files["part.safetensors"])
    shutil.copyfile(random_model.file, files["model.ckpt"])
    before = sorted(tmp_path.iterdir())
    for name, message in (
        ("other.safetensors", r"is no pocket model in one \.safetensors file"),
        ("part.safetensors", r"is no whole pocket model, '.*out\.2\.(weight|bias)' is missing"),
        ("model.ckpt", r"is no pocket model in one \.safetensors file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            folders.rebuild(tmp_path / "folder", files[name])
    assert before == sorted(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(
    random_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an unfinished folder nor diffusers without its progress bars."""
    from diffusers.utils import logging

    monkeypatch.setattr(folders, "write_configs", lambda folder: folder.mkdir() or 1 / 0)
    shown = logging.is_progress_bar_enabled()
    with pytest.raises(ZeroDivisionError):
        folders.rebuild(tmp_path / "folder", random_model.file)
    assert ([], shown) == (list(tmp_path.iterdir()), logging.is_progress_bar_enabled())


def test_missing_libraries_are_named(
    random_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs them."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        AnalyzerError, match=r"\(diffusers is missing\): pip install 'mergescope\[experiment\]'"
    ):
        folders.rebuild(tmp_path / "folder", random_model.file)


TABLES = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_mean_coef1", "posterior_mean_coef2", "log_one_minus_alphas_cumprod",
    "posterior_log_variance_clipped",
)  # fmt: skip
