"""Which pipeline a model becomes, and one sentence for every model and configuration that becomes none."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import AnalyzerError
from analyzer.experiment import pipelines
from analyzer.experiment.pipelines import SINGLE_FILES, denoiser, is_pocket, load_pipeline, native_size
from analyzer.experiment.placing import place
from analyzer.quiet import quiet

Build = Callable[[int], dict[str, np.ndarray]]
Write = Callable[..., Path]


def load(path: Path | str, **options: Any) -> Any:
    """The pipeline of a model, in fp32 on the CPU."""
    with open_checkpoint(path) as model:
        return load_pipeline(model, **{"dtype": "fp32", "device": "cpu"} | options)


def refusal(path: Path | str, **options: Any) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(AnalyzerError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def configs(pocket_pair: Any, tmp_path: Path) -> Path:
    """A copy of the pocket models' configurations, to be spoilt."""
    return Path(shutil.copytree(pocket_pair.configs, tmp_path / "configs"))


def change(path: Path, **values: Any) -> None:
    """Overwrite values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_pocket_model_brings_its_configuration(
    pocket_pair: Any, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """No --config for the single file; and nothing is said on the way."""
    capfd.readouterr()
    pipeline = load(pocket_pair.a, dtype="bf16")
    assert ("", "") == capfd.readouterr()
    assert not recwarn.list
    assert "StableDiffusionPipeline" == type(pipeline).__name__
    assert pipeline.safety_checker is None
    assert (64, 64) == native_size(pipeline)
    assert pipeline.unet is denoiser(pipeline)
    assert {torch.bfloat16} == {each.dtype for each in denoiser(pipeline).parameters()}


def test_a_pocket_model_is_told_by_its_words(pocket_pair: Any, unet: Build, write: Write) -> None:
    """In both layouts; another model in miniature is none."""
    for path in (pocket_pair.a, pocket_pair.folder_b):
        with open_checkpoint(path) as model:
            assert is_pocket(model)
    with open_checkpoint(write("other.safetensors", unet(0))) as model:
        assert not is_pocket(model)


def test_a_given_configuration_is_used(configs: Path, pocket_pair: Any) -> None:
    """With what it says, and without weights in it."""
    change(configs / "unet" / "config.json", sample_size=12)
    assert (96, 96) == native_size(load(pocket_pair.a, config=configs))


def test_a_configuration_beside_a_folder_is_refused(configs: Path, pocket_pair: Any) -> None:
    """It would say nothing: the folder's own is what the pipeline is made of."""
    assert (
        f"--config {configs}: {pocket_pair.folder_a} is a diffusers folder and has its own; leave it out"
        == (refusal(pocket_pair.folder_a, config=configs))
    )


def test_a_variant_of_a_folder_is_loaded(flux_pair: tuple[Path, Path], tmp_path: Path) -> None:
    """By PATH@fp16, and where there is no other: other files than those without a word."""
    a, b = flux_pair
    folder = Path(shutil.copytree(b, tmp_path / "model"))
    for file in list(folder.glob("*/*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    for path in (f"{folder}@fp16", folder):
        with open_checkpoint(path) as model:
            place(model, load_pipeline(model, dtype="fp32", device="cpu"))
    for file in a.glob("*/*.safetensors"):
        shutil.copy(file, folder / file.relative_to(a))
    for variant, other in (("fp16", "default"), ("default", "fp16")):
        with open_checkpoint(f"{folder}@{variant}") as model, open_checkpoint(f"{folder}@{other}") as wrong:
            pipeline = load_pipeline(model, dtype="fp32", device="cpu")
            place(model, pipeline)
            with pytest.raises(AnalyzerError, match="other values"):
                place(wrong, pipeline)


def test_a_wrong_configuration_is_refused(configs: Path, pocket_pair: Any) -> None:
    """Of other widths: what diffusers says, cut to one line, and what to do."""
    change(configs / "unet" / "config.json", block_out_channels=[16, 48, 64, 64])
    message = refusal(pocket_pair.a, config=configs)
    assert f"{pocket_pair.a}: diffusers cannot load it as {configs} describes it" in message
    assert "give the --config of its own architecture" in message
    assert len(message) < 800


def test_a_configuration_that_asks_for_more_than_the_file_has_is_refused(
    configs: Path, pocket_pair: Any
) -> None:
    """Diffusers would leave to chance what it does not find."""
    change(configs / "text_encoder" / "config.json", num_hidden_layers=13)
    with (
        open_checkpoint(pocket_pair.a) as model,
        pytest.raises(AnalyzerError, match=r"text_encoder|--config"),
    ):
        place(model, load_pipeline(model, config=configs, dtype="fp32", device="cpu"))


def test_a_folder_without_a_model_index_is_no_configuration(pocket_pair: Any, tmp_path: Path) -> None:
    """Nor is a folder that is not there."""
    for folder in (tmp_path, tmp_path / "absent"):
        assert f"{folder}: is no diffusers folder: it has no model_index.json" == refusal(
            pocket_pair.a, config=folder
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("StableDiffusionImg2ImgPipeline", "does not paint a picture from a text alone"),
        ("AnimateDiffPipeline", "does not paint a picture from a text alone"),
        ("UNet2DModel", "names no pipeline of diffusers"),
        ("FuturePipeline", "names no pipeline of diffusers"),
        (["my_pipeline", "Mine"], "names no pipeline|code of its own"),
        (None, "names no pipeline of diffusers"),
    ],
)
def test_what_is_no_text_to_image_pipeline_is_refused(
    configs: Path, pocket_pair: Any, name: Any, expected: str
) -> None:
    """By the class that model_index.json names; code of its own is never run."""
    change(configs / "model_index.json", _class_name=name)
    message = refusal(pocket_pair.a, config=configs)
    assert any(each in message for each in expected.split("|")), message


def test_modules_that_a_model_index_names_are_not_imported(
    configs: Path, pocket_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component may name any module; only those of the two libraries are asked."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(configs / "model_index.json", unet=["evil_module", "UNet2DConditionModel"])
    assert "unet is code of its own (evil_module), which is never run" in refusal(
        pocket_pair.a, config=configs
    )
    assert "evil_module" not in sys.modules


def test_a_missing_extra_is_said_in_one_sentence(pocket_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    for name in ("diffusers", "transformers", "PIL"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert "pip install 'mergescope[experiment]'" in refusal(pocket_pair.a)


def test_a_language_model_paints_nothing(tmp_path: Path) -> None:
    """As a folder or a file: what it is, and what there is for it instead."""
    rng = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (16, 8),
        "model.norm.weight": (8,),
        "lm_head.weight": (16, 8),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.layers.0.post_attention_layernorm.weight": (8,),
        **{f"model.layers.0.self_attn.{word}_proj.weight": (8, 8) for word in "qkvo"},
        **{f"model.layers.0.mlp.{word}_proj.weight": (8, 8) for word in ("gate", "up", "down")},
    }
    folder = tmp_path / "llama"
    folder.mkdir()
    save_file(
        {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for path in (folder, folder / "model.safetensors"):
        message = refusal(path)
        assert message.startswith(f"{path}: nothing says how it paints pictures (Llama"), message
        assert "): give --config DIR" in message
        assert "--probe" in message
    halves = [{"model.norm.weight": np.ones(8, np.float32)}, {"lm_head.weight": np.ones((9, 8), np.float32)}]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name)
    index = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert f"{folder}: is no text-to-image model that diffusers loads; what other" in refusal(folder)


def test_without_a_configuration_the_way_out_is_named(
    unet: Build, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where diffusers finds none in its cache nor on the hub."""
    with quiet():
        import diffusers

        kind = diffusers.StableDiffusionPipeline

    def offline(*_arguments: Any, **_options: Any) -> None:
        raise OSError("no connection\n  to the hub")

    monkeypatch.setattr(kind, "from_single_file", offline)
    path = write("a.safetensors", unet(0))
    message = refusal(path)
    assert f"{path}: diffusers cannot load it without a configuration: give --config DIR" in message
    assert "its weights are not needed (no connection to the hub)" in message


def test_a_file_of_a_u_net_alone_is_refused(configs: Path, pocket_pair: Any, tmp_path: Path) -> None:
    """What diffusers raises then is an exception of no usual kind for it."""
    from safetensors.numpy import load_file

    tensors = load_file(pocket_pair.a)
    path = tmp_path / "u-net.safetensors"
    save_file({key: value for key, value in tensors.items() if key.startswith("model.diffusion")}, path)
    assert f"{path}: diffusers cannot load it as {configs} describes it" in refusal(path, config=configs)


def test_a_pocket_model_of_another_shape_is_refused(pocket_pair: Any, tmp_path: Path) -> None:
    """The folder of its configuration is nobody's, and is not named."""
    from safetensors.numpy import load_file

    tensors = load_file(pocket_pair.a)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[first] = np.concatenate([tensors[first]] * 2, axis=1)
    path = tmp_path / "wide.safetensors"
    save_file(tensors, path)
    message = refusal(path)
    assert f"{path}: diffusers cannot load it as a pocket model" in message
    assert "mergescope-" not in message


def test_single_files_name_classes_that_there_are() -> None:
    """Each a pipeline of diffusers that reads single files."""
    with quiet():
        import diffusers

        for name in SINGLE_FILES.values():
            assert hasattr(getattr(diffusers, name), "from_single_file")


def test_a_u_net_for_inpainting_is_refused() -> None:
    """It takes a picture and a mask beside the latents."""
    made = SimpleNamespace(
        unet=SimpleNamespace(config=SimpleNamespace(in_channels=9)),
        vae=SimpleNamespace(config=SimpleNamespace(latent_channels=4)),
    )
    model: Any = SimpleNamespace(path=Path("inpainting.safetensors"))
    with pytest.raises(AnalyzerError, match="9 channels and the latents have 4: a model for inpainting"):
        pipelines._require_own_channels(model, made)
