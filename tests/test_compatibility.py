"""What two models say of themselves, held against each other before they are merged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from analyzer.categories import categorize
from analyzer.checkpoints import open_checkpoint
from analyzer.compatibility.disagreements import baking_warnings, warnings_between

# Enough of the names of each layout for it to be recognised; shapes are tiny and mean nothing.
SD1 = {
    "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias": (4,),
    "first_stage_model.decoder.conv_in.weight": (4, 4, 3, 3),
}
SDXL = {
    "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "model.diffusion_model.label_emb.0.0.weight": (4, 4),
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "model.diffusion_model.input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight": (4, 6),
    "model.diffusion_model.middle_block.1.transformer_blocks.9.attn2.to_k.weight": (4, 6),
    "conditioner.embedders.1.model.ln_final.weight": (4,),
    "first_stage_model.decoder.conv_in.weight": (4, 4, 3, 3),
}
UNET = {
    "conv_in.weight": (4, 4, 3, 3),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (4, 6),
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (4, 6),
}
PIPELINE = {
    "unet/diffusion_pytorch_model.safetensors": UNET,
    "vae/diffusion_pytorch_model.safetensors": {"decoder.conv_in.weight": (4, 4, 3, 3)},
}
MODEL_INDEX = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
SCHEDULER = "scheduler/scheduler_config.json"
VAE = "vae/config.json"
MARK: tuple[int, ...] = (0,)


def file(path: Path, shapes: Mapping[str, tuple[int, ...]], **metadata: str) -> Path:
    """A single file; `__` in the name of an option stands for a dot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file(tensors, path, {name.replace("__", "."): value for name, value in metadata.items()} or None)
    return path


def folder(path: Path, texts: Mapping[str, Any]) -> Path:
    """A diffusers folder with these JSON files; a text is written as it is."""
    for name, shapes in PIPELINE.items():
        file(path / name, shapes)
    write(path, {"model_index.json": MODEL_INDEX, **texts})
    return path


def write(path: Path, texts: Mapping[str, Any]) -> None:
    for name, value in texts.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(value if isinstance(value, str) else json.dumps(value))


def between(a: Path, b: Path, **options: Any) -> tuple[str, ...]:
    with open_checkpoint(a) as one, open_checkpoint(b) as two:
        found = [categorize(each.infos.values()) for each in (one, two)]
        return warnings_between(one, two, found_a=found[0], found_b=found[1], **options)


def only(warnings: tuple[str, ...]) -> str:
    assert 1 == len(warnings), warnings
    return warnings[0]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An SDXL file that says nothing of itself."""
    return file(tmp_path / "plain.safetensors", SDXL)


def test_a_marker_against_none(tmp_path: Path, plain: Path) -> None:
    """A key v_pred makes an SDXL predict velocities; without it loaders take the file to predict noise."""
    marked = file(tmp_path / "v.safetensors", SDXL | {"v_pred": MARK})
    warning = only(between(plain, marked))
    assert "A predicts noise (epsilon) (it has no mark of another kind)" in warning
    assert "B velocity (v-prediction) (its key v_pred)" in warning
    assert "so that loaders take it to predict noise (epsilon)" in warning
    assert warning.endswith("or keep A's unet with --set 'unet=0'")
    assert "the output is marked as A is, by key v_pred" in only(between(marked, plain))


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (("edm_mean", "edm_std"), "as EDM does"),
        (("edm_vpred.sigma_max",), "velocity on EDM's scale"),
        (("v_pred", "ztsnr"), "velocity (v-prediction)"),
    ],
)
def test_every_marker_of_an_sdxl(tmp_path: Path, plain: Path, keys: tuple[str, ...], name: str) -> None:
    """The keys by which loaders tell the kinds of SDXL are told apart as they do."""
    marked = file(tmp_path / "m.safetensors", SDXL | dict.fromkeys(keys, MARK))
    assert any(f"B {name} (its key" in warning for warning in between(plain, marked))


@pytest.mark.parametrize(
    "metadata",
    [
        {"modelspec__prediction_type": "v"},
        {"modelspec__predict_key": "v"},
        {"ss_v_parameterization": "True"},
    ],
)
def test_metadata_that_names_velocities(tmp_path: Path, plain: Path, metadata: dict[str, str]) -> None:
    """Where no key marks a file, its metadata say what it predicts."""
    other = file(tmp_path / "v.safetensors", SDXL, **metadata)
    name = next(iter(metadata)).replace("__", ".")
    assert f"B velocity (v-prediction) (its metadata, {name})" in only(between(plain, other))


def test_a_key_wins_over_metadata(tmp_path: Path) -> None:
    """Loaders look at keys; metadata that a merge left behind do not count against them."""
    one = file(tmp_path / "1.safetensors", SDXL | {"v_pred": MARK}, modelspec__prediction_type="epsilon")
    two = file(tmp_path / "2.safetensors", SDXL | {"v_pred": MARK})
    assert () == between(one, two)


@pytest.mark.parametrize("shapes", [SD1, SDXL])
def test_two_files_that_say_nothing(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """What both leave open is no disagreement."""
    one, two = file(tmp_path / "1.safetensors", shapes), file(tmp_path / "2.safetensors", shapes)
    assert () == between(one, two)


SD2 = SD1 | {
    "model.diffusion_model.input_blocks.1.1.proj_in.weight": (4, 4),
    "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias": (320,),
}


def sd2(path: Path, spread: float, **metadata: str) -> Path:
    """An SD 2.x with one bias of this standard deviation."""
    file(path, SD2, **metadata)
    tensors = load_file(path)
    signs = np.where(np.arange(320) % 2, 1, -1)
    tensors["model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"] = (
        signs * spread
    ).astype(np.float16)
    save_file(tensors, path, {name.replace("__", "."): value for name, value in metadata.items()} or None)
    return path


def test_an_sd2_by_the_spread_of_a_bias(tmp_path: Path) -> None:
    """Names do not tell the two kinds of SD 2.x apart; one bias does, by ComfyUI's limit of 0.09."""
    one = sd2(tmp_path / "1.safetensors", 0.05)
    two = sd2(tmp_path / "2.safetensors", 0.12)
    warning = only(between(one, two))
    assert "A predicts noise (epsilon) (the spread of output_blocks.11.1" in warning
    assert "norm1.bias, 0.12, as ComfyUI tells SD 2.x apart)" in warning
    assert "ComfyUI goes by that bias in the output, too" in warning
    assert () == between(one, sd2(tmp_path / "3.safetensors", 0.08))
    assert () == between(one, sd2(tmp_path / "4.safetensors", float("nan")))


def test_metadata_win_over_the_spread(tmp_path: Path) -> None:
    """What an SD 2.x says of itself counts more than a guess."""
    one = sd2(tmp_path / "1.safetensors", 0.05)
    two = sd2(tmp_path / "2.safetensors", 0.05, ss_base_model_version="sd_v2_v")
    three = sd2(tmp_path / "3.safetensors", 0.05, modelspec__architecture="stable-diffusion-v2-768-v")
    assert "B velocity (v-prediction) (its metadata, ss_base_model_version)" in only(between(one, two))
    assert () == between(two, three)


def test_an_sd2_without_the_bias_says_nothing(tmp_path: Path) -> None:
    """Of a part of a model, and of inpainting models, nothing is guessed."""
    one = sd2(tmp_path / "1.safetensors", 0.05)
    less = {key: shape for key, shape in SD2.items() if not key.endswith("norm1.bias")}
    assert () == between(one, file(tmp_path / "2.safetensors", less))
    wider = SD2 | {"model.diffusion_model.input_blocks.0.0.weight": (4, 9, 3, 3)}
    assert () == between(one, file(tmp_path / "3.safetensors", wider))


def test_schedulers_of_folders(tmp_path: Path) -> None:
    """In diffusers folders the scheduler's configuration says what the U-Net predicts."""
    one = folder(tmp_path / "1", {SCHEDULER: {"_class_name": "PNDMScheduler"}})
    two = folder(tmp_path / "2", {SCHEDULER: {"prediction_type": "v_prediction"}})
    three = folder(tmp_path / "3", {SCHEDULER: {"_class_name": "FlowMatchEulerDiscreteScheduler"}})
    warning = only(between(one, two))
    assert f"A predicts noise (epsilon) ({SCHEDULER}, by default), B velocity (v-prediction)" in warning
    assert f"B flow ({SCHEDULER})" in only(between(two, three))
    assert () == between(two, two)


def test_a_folder_without_a_scheduler_says_nothing(tmp_path: Path) -> None:
    """A folder's kind is not guessed from what is missing."""
    one = folder(tmp_path / "1", {})
    two = folder(tmp_path / "2", {SCHEDULER: {"prediction_type": "v_prediction"}})
    assert () == between(one, two)


def test_zero_terminal_snr(tmp_path: Path) -> None:
    """Two that predict velocities may still be trained to different ends of the noise schedule."""
    one = file(tmp_path / "1.safetensors", SDXL | {"v_pred": MARK})
    two = file(tmp_path / "2.safetensors", SDXL | {"v_pred": MARK, "ztsnr": MARK})
    assert only(between(one, two)).startswith("B was trained to zero terminal SNR and A was not")
    three = folder(
        tmp_path / "3", {SCHEDULER: {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}}
    )
    assert any(w.startswith("B was trained to zero terminal SNR") for w in between(one, three))
    silent = file(tmp_path / "4.safetensors", SDXL, modelspec__prediction_type="v")
    assert () == between(two, silent)


def test_scales_of_the_vae_in_folders(tmp_path: Path) -> None:
    """Two VAEs of one shape may scale latents differently, and the configuration says so."""
    one = folder(tmp_path / "1", {VAE: {"_class_name": "AutoencoderKL"}})
    two = folder(tmp_path / "2", {VAE: {"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}})
    three = folder(tmp_path / "3", {VAE: {"scaling_factor": 0.13025, "shift_factor": 0.5}})
    warning = only(between(one, two))
    assert f"A's VAE scales latents by 0.18215 ({VAE}, by default), B's by 0.13025 ({VAE})" in warning
    assert warning.endswith("keep A's VAE with --set 'vae=0', or bake another with --vae FILE")
    assert f"B's by 0.13025 after a shift of 0.5 ({VAE})" in only(between(two, three))
    assert () == between(two, two)


def test_scales_of_the_vae_by_architecture(tmp_path: Path, plain: Path) -> None:
    """A single file does not state the scale; loaders take that of its architecture."""
    one = file(tmp_path / "1.safetensors", SD1)
    warning = only(between(one, plain))
    assert "0.18215 (the scale of Stable Diffusion 1.x)" in warning
    assert "0.13025 (the scale of Stable Diffusion XL)" in warning


def test_a_folder_against_a_file(tmp_path: Path) -> None:
    """What a folder states is compared with what a file of its architecture means."""
    one = folder(tmp_path / "1", {VAE: {"scaling_factor": 0.182150000001}})
    same = file(tmp_path / "1.safetensors", SD1)
    assert () == between(one, same)


def test_a_vae_of_its_own(tmp_path: Path) -> None:
    """A VAE's own folder has its configuration beside the weights."""
    paths = []
    for name, scale in (("1", 0.18215), ("2", 0.13025)):
        file(
            tmp_path / name / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (4, 4, 3, 3)}
        )
        write(tmp_path / name, {"config.json": {"_class_name": "AutoencoderKL", "scaling_factor": scale}})
        paths.append(tmp_path / name)
    assert "0.18215 (config.json), B's by 0.13025 (config.json)" in only(between(*paths))


def test_latents_of_different_channels(tmp_path: Path) -> None:
    """A VAE of 16 channels shares shapes with one of 4, and nothing else."""
    wide = SD1 | {"first_stage_model.decoder.conv_in.weight": (4, 16, 3, 3)}
    one, two = file(tmp_path / "1.safetensors", SD1), file(tmp_path / "2.safetensors", wide)
    assert only(between(one, two)).startswith("the latents of A's VAE have 4 channels and those of B's 16")


def test_only_what_the_merge_touches_is_compared(tmp_path: Path, plain: Path) -> None:
    """Where no value of B enters the U-Net or the VAE, their kinds may differ."""
    marked = file(tmp_path / "v.safetensors", SDXL | {"v_pred": MARK})
    assert () == between(plain, marked, touched={"text_encoder"})
    assert 1 == len(between(plain, marked, touched={"unet"}))
    one = file(tmp_path / "1.safetensors", SD1)
    assert () == between(one, plain, touched={"text_encoder"})
    assert 1 == len(between(one, plain, touched={"vae"}))
    assert only(between(one, plain, touched={"unet"})).endswith("merge models of one scale")


def test_marks_that_are_added(tmp_path: Path, plain: Path) -> None:
    """A mark that comes over from B changes what loaders take the output for, whatever else is merged."""
    marked = file(tmp_path / "v.safetensors", SDXL | {"v_pred": MARK})
    warning = only(between(plain, marked, touched=set(), added={"v_pred"}))
    assert "the output gets B's marks (v_pred), and loaders will go by them" in warning
    assert warning.endswith("leave out --only-in-b add")


def test_a_further_model_has_its_own_name(tmp_path: Path, plain: Path) -> None:
    """Further models of a merge are compared as B is, and named."""
    marked = file(tmp_path / "v.safetensors", SDXL | {"v_pred": MARK})
    assert ", v.safetensors velocity (v-prediction) (its key v_pred)" in only(
        between(plain, marked, name="v.safetensors")
    )


def test_marks_of_the_noise_schedule_that_are_added(tmp_path: Path) -> None:
    """B's ztsnr alone may come over, too."""
    one = file(tmp_path / "1.safetensors", SDXL | {"v_pred": MARK})
    two = file(tmp_path / "2.safetensors", SDXL | {"v_pred": MARK, "ztsnr": MARK})
    warning = only(between(one, two, touched=set(), added={"ztsnr"}))
    assert warning.endswith("the output gets B's mark ztsnr; leave out --only-in-b add")


def test_a_vae_that_is_baked(tmp_path: Path, plain: Path) -> None:
    """A VAE out of a checkpoint of another kind, or with its own configuration, may not fit A's U-Net."""
    one = file(tmp_path / "1.safetensors", SD1)
    alone = file(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": (4, 4, 3, 3)})
    config = {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215}
    own = file(tmp_path / "vae/diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (4, 4, 3, 3)})
    write(own.parent, {"config.json": config})

    def baking(a: Path, vae: Path) -> tuple[str, ...]:
        with open_checkpoint(a) as opened, open_checkpoint(vae) as baked:
            found = [categorize(each.infos.values()) for each in (opened, baked)]
            return baking_warnings(opened, baked, found_a=found[0], found_vae=found[1])

    assert "--vae scales latents by 0.13025 (the scale of Stable Diffusion XL)" in only(baking(one, plain))
    assert () == baking(one, alone) + baking(one, own.parent) + baking(one, one)
    assert "by 0.18215 (config.json), and A's networks work on latents scaled by 0.13025" in only(
        baking(plain, own.parent)
    )


def test_the_command_line_warns(tmp_path: Path, plain: Path, run: Any) -> None:
    """`mergescope merge` says it on stderr, and merges all the same."""
    marked = file(tmp_path / "v.safetensors", SDXL | {"v_pred": MARK})
    out = tmp_path / "out.safetensors"
    done = run("merge", plain, marked, "-o", out, "--alpha", "0.5")
    assert 0 == done.code
    assert "A predicts noise (epsilon)" in " ".join(done.err.split())
    assert "A predicts" not in run("merge", plain, plain, "-o", out, "--alpha", "0.5", "--force").err


def language_model(path: Path, config: object) -> Path:
    file(path / "model.safetensors", {"model.layers.0.self_attn.q_proj.weight": (4, 4)})
    write(path, {"config.json": config})
    return path


def test_attention_of_language_models(tmp_path: Path) -> None:
    """Equal shapes hide other positions and other heads; config.json shows them, in either spelling."""
    one = language_model(tmp_path / "1", {"rope_theta": 10000, "num_attention_heads": 32})
    two = language_model(
        tmp_path / "2", {"rope_parameters": {"rope_theta": 1e6}, "num_attention_heads": 16, "hidden_act": "x"}
    )
    three = language_model(tmp_path / "3", {"text_config": {"rope_theta": 10000.0}})
    warning = only(between(one, two))
    assert "rope_theta is 10000 in A and 1e+06 in B, num_attention_heads is 32 in A and 16 in B" in warning
    assert () == between(one, three)


HOSTILE = [
    "",
    "[]",
    "null",
    "{",
    '{"prediction_type": "v_prediction", "prediction_type": "epsilon"}',
    "[" * 100_000,
    '{"prediction_type": NaN}',
    '{"scaling_factor": 1e999, "prediction_type": ["v_prediction"], "_class_name": {}}',
    '{"scaling_factor": true, "shift_factor": "x", "_class_name": 7}',
    '{"scaling_factor": ' + "9" * 400 + "}",
    '{"rope_theta": ' + "9" * 400 + ', "text_config": [], "rope_parameters": 3, "hidden_act": "\\u001b[31m"}',
    '{"prediction_type": "\\ud800\\u001b[2J"}',
    "\ufeff{}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", [SCHEDULER, VAE])
def test_hostile_json_of_a_pipeline(tmp_path: Path, name: str, text: str) -> None:
    """What is no configuration gives one clean sentence, or says nothing."""
    good = folder(
        tmp_path / "1", {SCHEDULER: {"prediction_type": "epsilon"}, VAE: {"scaling_factor": 0.18215}}
    )
    bad = folder(tmp_path / "2", {name: text})
    for warning in between(good, bad) + between(bad, good):
        assert name in warning
        assert warning.endswith("what it says of the model is not compared")
        assert warning.isprintable()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_json_of_a_language_model(tmp_path: Path, text: str) -> None:
    """A config.json that cannot be read, as with the Infinity that transformers writes, says nothing."""
    good = language_model(tmp_path / "1", {"rope_theta": 1e4, "hidden_act": "silu"})
    (tmp_path / "2").mkdir()
    bad = language_model(tmp_path / "2", {})
    (bad / "config.json").write_text(text)
    assert () == between(good, bad) + between(bad, good)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Nobody's scheduler has more than a megabyte."""
    good = folder(tmp_path / "1", {SCHEDULER: {"prediction_type": "epsilon"}})
    bad = folder(tmp_path / "2", {SCHEDULER: json.dumps({"prediction_type": "v" * 2_000_000})})
    assert "what it says of the model is not compared" in only(between(good, bad))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "_class_name",
    "prediction_type",
    "rescale_betas_zero_snr",
    "use_flow_sigmas",
    "scaling_factor",
    "shift_factor",
    "rope_theta",
    "rope_parameters",
    "text_config",
    "hidden_act",
    "num_attention_heads",
]


@settings(max_examples=40)
@given(config=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_is_survived(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    """Whatever stands in the fields that are looked at, sentences are printable and nothing is raised."""
    root = tmp_path_factory.mktemp("json")
    good = folder(root / "1", {SCHEDULER: {"prediction_type": "epsilon"}, VAE: {"scaling_factor": 0.5}})
    bad = folder(root / "2", {SCHEDULER: config, VAE: config})
    one, two = language_model(root / "3", config), language_model(root / "4", {"rope_theta": 1e4})
    for warning in between(good, bad) + between(bad, good) + between(one, two):
        assert warning.isprintable()


@settings(max_examples=60)
@given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_metadata_is_survived(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    """Unknown words in the metadata say nothing."""
    root = tmp_path_factory.mktemp("metadata")
    names = ("modelspec__prediction_type", "ss_v_parameterization", "ss_zero_terminal_snr")
    one = file(root / "1.safetensors", SDXL)
    two = file(root / "2.safetensors", SDXL, **dict.fromkeys(names, value))
    known = value.strip().casefold() in ("v", "v_prediction", "v-prediction", "vpred", "true")
    assert known == bool(between(one, two))
