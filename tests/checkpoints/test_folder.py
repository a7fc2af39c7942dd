"""Folders: which of the files are the model, variants, diffusers pipelines, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from analyzer.checkpoints import FORMATS, Checkpoint, open_checkpoint
from analyzer.checkpoints.sources import FileSource
from analyzer.checkpoints.weight_names import SUFFIXES, weight_file
from analyzer.errors import CheckpointError


def fill(root: Path, names: list[str] | Mapping[str, str]) -> Path:
    """Write a model of one tensor, or the given text, under every name; its value is the name's number."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{path.parent.name if '/' in name else 'a'}.weight"
        if isinstance(names, Mapping) and names[name]:
            path.write_text(names[name])
        elif path.suffix == ".safetensors":
            save_file({key: np.full(2, number, np.float32)}, path, {"format": "pt", "name": name})
        elif path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
            torch.save({key: torch.full((2,), float(number))}, path)
        else:
            path.write_text("{}")
    return root


def opened(path: Path, *, variant: str | None = None) -> set[str]:
    """The files that were opened, relative to the folder; notes are one sentence each."""
    with open_checkpoint(path, variant=variant) as checkpoint:
        folder = Path(str(path).rpartition("@")[0] or path)
        return {str(file.relative_to(folder)) for file in checkpoint.files}


def notes(path: Path, *, variant: str | None = None) -> tuple[str, ...]:
    with open_checkpoint(path, variant=variant) as checkpoint:
        return checkpoint.notes


def refusal(path: Path, *, variant: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, variant=variant).close()
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


def first_values(checkpoint: Checkpoint) -> dict[str, float]:
    values = {}
    for key, info in checkpoint.infos.items():
        buffer = np.empty(info.nbytes, np.uint8)
        checkpoint.read_into(info, 0, buffer)
        values[key] = float(buffer.view(np.float32)[0])
    return values


LANGUAGE_MODEL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "README.md"]
# Names in a folder -> what is opened of them.
ONE_MODEL: dict[str, tuple[list[str], str]] = {
    "a language model": ([*LANGUAGE_MODEL, "model.safetensors"], "model.safetensors"),
    "a pickle": ([*LANGUAGE_MODEL, "pytorch_model.bin"], "pytorch_model.bin"),
    "a file of any name": (["v1-5-pruned-emaonly.ckpt", "v1-5.yaml"], "v1-5-pruned-emaonly.ckpt"),
    "both containers": (["pytorch_model.bin", "model.safetensors"], "model.safetensors"),
    "both containers, any name": (["deliberate.ckpt", "deliberate.safetensors"], "deliberate.safetensors"),
    "a sub-model of diffusers": (
        ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"],
        "diffusion_pytorch_model.safetensors",
    ),
    "a ControlNet with its original": (
        ["diffusion_pytorch_model.safetensors", "control_v11p_sd15_canny.pth"],
        "diffusion_pytorch_model.safetensors",
    ),
    "Mistral": (["model.safetensors", "consolidated.safetensors", "params.json"], "model.safetensors"),
    "Meta": (["model.safetensors", "consolidated.00.pth", "consolidated.01.pth"], "model.safetensors"),
    "one slice of Meta's": (["consolidated.00.pth", "params.json"], "consolidated.00.pth"),
    "a training checkpoint": (
        [
            "model.safetensors",
            *("optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt"),
            *("training_args.bin", "trainer_state.json", "optimizer.bin", "optimizer_1.bin"),
        ],
        "model.safetensors",
    ),
    "other runtimes": (
        ["model.safetensors", "model.onnx", "flax_model.msgpack", "tf_model.h5", "openvino_model.bin"],
        "model.safetensors",
    ),
    "a sentence transformer": (
        ["model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors"],
        "model.safetensors",
    ),
    "only a variant": (["model.fp16.safetensors", "config.json"], "model.fp16.safetensors"),
    "hidden files": (["model.safetensors", "._model.safetensors", ".cache/x.bin"], "model.safetensors"),
    "a CLIP with its original": (
        [
            "model.safetensors",
            "pytorch_model.bin",
            "open_clip_pytorch_model.bin",
            "open_clip_model.safetensors",
        ],
        "model.safetensors",
    ),
}


@pytest.mark.parametrize(("names", "expected"), ONE_MODEL.values(), ids=ONE_MODEL)
def test_the_one_model_of_a_folder_is_opened(tmp_path: Path, names: list[str], expected: str) -> None:
    """Everything else in the folder stays closed."""
    assert {expected} == opened(fill(tmp_path, names))


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    """Same format, metadata and fingerprint, under the path that the user named."""
    fill(tmp_path, [*LANGUAGE_MODEL, "model.safetensors"])
    with open_checkpoint(tmp_path) as folder, open_checkpoint(tmp_path / "model.safetensors") as file:
        assert file.fingerprint() == folder.fingerprint()
        assert (file.format, file.metadata, file.bytes) == (folder.format, folder.metadata, folder.bytes)
        assert tmp_path == folder.path


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """Duplicates are ignored with a note; what is no weights needs none."""
    fill(tmp_path, ["model.safetensors", "pytorch_model.bin", "consolidated.safetensors", "optimizer.pt"])
    expected = (
        "consolidated.safetensors, pytorch_model.bin: left out, model.safetensors is the model of this folder"
    )
    assert (expected,) == notes(tmp_path)


def test_the_shards_of_an_ignored_container_are_left_out(tmp_path: Path) -> None:
    """A complete second copy as pickles, with an index of its own."""
    shards = {"model-00001-of-00001.safetensors": "", "pytorch_model-00001-of-00001.bin": ""}
    index = {
        f"{stem}.index.json": json.dumps({"weight_map": {"a.weight": shard}})
        for stem, shard in zip(("model.safetensors", "pytorch_model.bin"), shards, strict=True)
    }
    fill(tmp_path, {**shards, **index, "consolidated.safetensors": ""})
    assert {"model.safetensors.index.json", "model-00001-of-00001.safetensors"} == opened(tmp_path)
    assert notes(tmp_path)[0].startswith(
        "consolidated.safetensors, pytorch_model-00001-of-00001.bin, pytorch_model.bin.index.json: left out"
    )


REFUSED: dict[str, tuple[list[str], str]] = {
    "several files": (["a.safetensors", "b.ckpt"], "name one of them: a.safetensors, b.ckpt"),
    "several versions": (
        ["sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors"],
        "name one of them: sd_xl_base_1.0.safetensors, sd_xl_base_1.0_0.9vae.safetensors",
    ),
    "several quantisations": (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], "name one of them: m-Q4_K_M.gguf, m-Q8_0"),
    "two standard names": (["model.safetensors", "diffusion_pytorch_model.bin"], "holds several models"),
    "one name, one container": (["model.bin", "pytorch_model.bin"], "holds the model more than once"),
    "shards beside a file": (
        ["model.safetensors", "model-00001-of-00002.safetensors"],
        "holds the model more than once",
    ),
    "shards of two": (
        ["model-00001-of-00002.safetensors", "model-00001-of-00003.safetensors"],
        "the shards of more than one model",
    ),
    "slices": (["consolidated.00.pth", "consolidated.01.pth"], "in 2 slices, with a part of every tensor"),
    "other runtimes": (
        ["model.onnx", "flax_model.msgpack", "config.json"],
        "(flax_model.msgpack, model.onnx)",
    ),
    "a folder of folders": (
        ["a/model.safetensors", "b/x.ckpt", "c/model_index.json"],
        "name one of those in it: a, b/x.ckpt, c",
    ),
    "training leftovers": (
        ["optimizer.bin", "scheduler.pt", "training_args.bin"],
        "a folder without a model",
    ),
}


@pytest.mark.parametrize(("names", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_told_is_refused(tmp_path: Path, names: list[str], expected: str) -> None:
    """Nothing is guessed: the sentence lists what to name instead."""
    assert expected in refusal(fill(tmp_path, names))


def test_every_suffix_of_a_format_is_looked_for() -> None:
    """A new container is found in folders, too."""
    assert {suffix for known in FORMATS for suffix in known.suffixes} <= set(SUFFIXES)


VARIANT_NAMES = {
    "diffusion_pytorch_model.fp16.safetensors": "fp16",
    "diffusion_pytorch_model.non_ema.safetensors": "non_ema",
    "pytorch_model.fp16.bin": "fp16",
    "model.fp16-00001-of-00002.safetensors": "fp16",
    "model-00001-of-00002.fp16.safetensors": "fp16",
    "model.safetensors.index.fp16.json": "fp16",
    "model.fp16.safetensors.index.json": "fp16",
    "pytorch_model.bin.index.fp16.json": "fp16",
    "model.safetensors.fp16.index.json": "fp16",
    "model.bf16.safetensors": "bf16",
    "diffusion_pytorch_model.safetensors.index.json": "",
    "model-00001-of-000163.safetensors": "",
    "sd_xl_base_1.0.safetensors": "",
    "sd3.5_large.safetensors": "",
    "dreamshaper.fp16.safetensors": "fp16",
}


@pytest.mark.parametrize(("name", "variant"), VARIANT_NAMES.items(), ids=VARIANT_NAMES)
def test_the_variant_is_read_from_the_name(name: str, variant: str) -> None:
    """Every spelling that transformers and diffusers have used; dots of version numbers are none."""
    found = weight_file(name)
    assert found is not None
    assert variant == found.variant


VARIANTS = [
    f"diffusion_pytorch_model{variant}.{suffix}"
    for variant in ("", ".fp16", ".non_ema")
    for suffix in ("safetensors", "bin")
]


def test_several_variants_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """All are listed, and how to choose one."""
    sentence = refusal(fill(tmp_path, VARIANTS))
    assert "holds several variants (default, fp16, non_ema)" in sentence
    assert f"choose one, as in {tmp_path}@fp16, or {tmp_path}@default for the files without" in sentence


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("fp16", "diffusion_pytorch_model.fp16.safetensors"),
        ("non_ema", "diffusion_pytorch_model.non_ema.safetensors"),
        ("default", "diffusion_pytorch_model.safetensors"),
        ("", "diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_variant_is_chosen_by_the_path_or_by_the_argument(
    tmp_path: Path, chosen: str, expected: str
) -> None:
    """PATH@fp16 on the command line, `variant=` in a script."""
    folder = fill(tmp_path / "unet", VARIANTS)
    assert {expected} == opened(Path(f"{folder}@{chosen}"))
    assert {expected} == opened(folder, variant=chosen)


def test_variants_in_shards_have_their_own_index(tmp_path: Path) -> None:
    """Old and new names of such an index, and of its shards."""
    shards = ["model-00001-of-00001.safetensors", "model.fp16-00001-of-00001.safetensors"]
    for index, shard in zip(("index", "index.fp16"), shards, strict=True):
        text = json.dumps({"weight_map": {"a.weight": shard}})
        fill(tmp_path, {f"model.safetensors.{index}.json": text, shard: ""})
    assert "several variants (default, fp16)" in refusal(tmp_path)
    expected = {"model.safetensors.index.fp16.json", "model.fp16-00001-of-00001.safetensors"}
    assert expected == opened(tmp_path, variant="fp16")


def test_an_unknown_variant_lists_those_there_are(tmp_path: Path) -> None:
    """A misspelt variant is no reason to open another one."""
    folder = fill(tmp_path / "unet", VARIANTS)
    expected = "has no variant 'fp61'; it has default, fp16, non_ema"
    assert expected in refusal(folder, variant="fp61")
    assert expected in refusal(Path(f"{folder}@fp61"))


def test_a_variant_of_a_file_is_refused(tmp_path: Path) -> None:
    """A file is what it is; and a name with an @ of its own is a name."""
    fill(tmp_path, ["model.safetensors", "me@home/model.safetensors"])
    assert "is no folder, and only in a folder" in refusal(tmp_path / "model.safetensors", variant="fp16")
    assert "no such file" in refusal(tmp_path / "model.safetensors@fp16")
    assert {"model.safetensors"} == opened_below(tmp_path / "me@home")


def opened_below(folder: Path) -> set[str]:
    with open_checkpoint(folder) as checkpoint:
        return {str(file.relative_to(folder)) for file in checkpoint.files}


SDXL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "force_zeros_for_empty_prompt": True,
    "feature_extractor": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SDXL = {
    "model_index.json": json.dumps(SDXL_INDEX),
    "scheduler/scheduler_config.json": "",
    "tokenizer/tokenizer_config.json": "",
    "tokenizer_2/tokenizer_config.json": "",
    "text_encoder/config.json": "",
    "text_encoder/model.safetensors": "",
    "text_encoder_2/config.json": "",
    "text_encoder_2/model.safetensors": "",
    "unet/config.json": "",
    "unet/diffusion_pytorch_model.safetensors": "",
    "vae/config.json": "",
    "vae/diffusion_pytorch_model.safetensors": "",
}
PARTS = ["text_encoder", "text_encoder_2", "unet", "vae"]


def test_a_pipeline_is_one_model(tmp_path: Path) -> None:
    """Every sub-model's keys stand under its name, in the order of the names."""
    fill(tmp_path, SDXL)
    with open_checkpoint(tmp_path) as checkpoint:
        assert "diffusers" == checkpoint.format
        assert [f"{part}.{part}.weight" for part in PARTS] == list(checkpoint.infos)
        assert PARTS == [info.part for info in checkpoint.infos.values()]
        assert [5.0, 7.0, 9.0, 11.0] == list(first_values(checkpoint).values())
        assert {"format": "pt"} == checkpoint.metadata
        weights = [tmp_path / name for name in SDXL if name.endswith("safetensors")]
        assert {tmp_path / "model_index.json", *weights} == set(checkpoint.files)
        assert sum(path.stat().st_size for path in weights) == checkpoint.bytes
        assert () == checkpoint.notes


def test_model_index_names_the_pipeline_too(tmp_path: Path) -> None:
    """Naming the description is naming its folder."""
    fill(tmp_path, SDXL)
    with open_checkpoint(tmp_path) as folder, open_checkpoint(tmp_path / "model_index.json") as named:
        assert folder.fingerprint() == named.fingerprint()
    assert "no such file" in refusal(tmp_path / "unet" / "model_index.json")


def test_a_sub_model_is_opened_by_itself(tmp_path: Path) -> None:
    """Without a prefix, as diffusers loads it."""
    fill(tmp_path, SDXL)
    with open_checkpoint(tmp_path / "unet") as checkpoint:
        assert ["unet.weight"] == list(checkpoint.infos)
        assert "safetensors" == checkpoint.format


def test_a_pipeline_without_its_index_is_known_by_its_folders(tmp_path: Path) -> None:
    """A training run saves the networks alone."""
    fill(
        tmp_path, ["unet/diffusion_pytorch_model.safetensors", "unet_ema/diffusion_pytorch_model.safetensors"]
    )
    fill(tmp_path, ["optimizer.bin", "random_states_0.pkl", "scheduler.bin", "logs/model.safetensors"])
    with open_checkpoint(tmp_path) as checkpoint:
        assert ["unet.unet.weight", "unet_ema.unet_ema.weight"] == list(checkpoint.infos)


def test_two_experts_beside_other_networks_are_a_pipeline(tmp_path: Path) -> None:
    """As Wan 2.2 is published: two transformers in folders, the others as pickles beside them."""
    networks = [
        f"{name}/diffusion_pytorch_model.safetensors" for name in ("high_noise_model", "low_noise_model")
    ]
    fill(tmp_path, [*networks, "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "configuration.json"])
    assert set(networks) == opened(tmp_path)
    assert notes(tmp_path)[0].startswith("Wan2.1_VAE.pth, models_t5_umt5-xxl-enc-bf16.pth: left out")


def test_a_sharded_transformer_in_a_pipeline(tmp_path: Path) -> None:
    """As in Flux: the index of a sub-model is checked as that of any other model."""
    shards = [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for number, name in enumerate(shards):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file({f"block.{number}": np.full(2, number, np.float32)}, tmp_path / name)
    weights = {f"block.{number}": name.partition("/")[2] for number, name in enumerate(shards)}
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    fill(
        tmp_path, {index: json.dumps({"weight_map": weights}), "vae/diffusion_pytorch_model.safetensors": ""}
    )
    with open_checkpoint(tmp_path) as checkpoint:
        expected = {"transformer.block.0": 0.0, "transformer.block.1": 1.0, "vae.vae.weight": 1.0}
        assert expected == first_values(checkpoint)
        assert tmp_path / index in checkpoint.files
    (tmp_path / shards[0]).unlink()
    assert f"{tmp_path / index}: 1 of 2 files are missing" in refusal(tmp_path)


def test_models_beside_a_pipeline_are_left_out(tmp_path: Path) -> None:
    """The same model for other programs, in the root of the repository."""
    fill(
        tmp_path,
        {**SDXL, "sd_xl_base_1.0.safetensors": "", "unet/model.onnx": "", "vae_decoder/model.onnx": ""},
    )
    assert ("sd_xl_base_1.0.safetensors: left out, the model is in the sub-folders",) == notes(tmp_path)


def test_duplicates_in_sub_models_are_left_out(tmp_path: Path) -> None:
    """The note says where."""
    fill(tmp_path, {**SDXL, "vae/diffusion_pytorch_model.bin": ""})
    assert notes(tmp_path)[0].startswith("vae: diffusion_pytorch_model.bin: left out")


def test_sub_models_that_the_index_does_not_name_are_opened(tmp_path: Path) -> None:
    """An EMA copy is a part of its own, with a note."""
    fill(tmp_path, {**SDXL, "unet_ema/diffusion_pytorch_model.safetensors": ""})
    with open_checkpoint(tmp_path) as checkpoint:
        assert "unet_ema" == checkpoint.infos["unet_ema.unet_ema.weight"].part
    assert ("unet_ema: is not named by model_index.json, and was opened as a part of its own",) == notes(
        tmp_path
    )


def test_a_missing_sub_model_is_noted(tmp_path: Path) -> None:
    """Someone may have downloaded what they need only; tokenizers are nobody's concern here."""
    fill(tmp_path, {name: text for name, text in SDXL.items() if not name.startswith(("vae", "tokenizer"))})
    assert ("vae: named by model_index.json, and not there",) == notes(tmp_path)


def test_an_unfinished_sub_model_is_refused(tmp_path: Path) -> None:
    """Its configuration has come, its weights have not."""
    fill(
        tmp_path,
        {name: text for name, text in SDXL.items() if name != "unet/diffusion_pytorch_model.safetensors"},
    )
    assert "the download is incomplete: no weights in unet; finish it" in refusal(tmp_path)


def test_a_lonely_model_index_is_refused(tmp_path: Path) -> None:
    """Only the small files of a pipeline were downloaded."""
    fill(tmp_path, {"model_index.json": SDXL["model_index.json"], "scheduler/scheduler_config.json": ""})
    assert "model_index.json names text_encoder, text_encoder_2, unet, vae, of which there" in refusal(
        tmp_path
    )


def with_variants(*parts: str) -> dict[str, str]:
    """The pipeline with fp16 files beside the default ones of these parts."""
    extra = {
        name.replace(".safetensors", ".fp16.safetensors"): "" for name in SDXL if name.split("/")[0] in parts
    }
    return {**SDXL, **{name: "" for name in extra if name.endswith(".fp16.safetensors")}}


def test_variants_in_a_pipeline_have_to_be_chosen(tmp_path: Path) -> None:
    """One choice holds for all sub-models; the sentence says which have one."""
    fill(tmp_path, with_variants("unet"))
    sentence = refusal(tmp_path)
    assert "(text_encoder: default; text_encoder_2: default; unet: default, fp16; vae: default)" in sentence
    assert f"choose one, as in {tmp_path}@fp16" in sentence


def test_a_chosen_variant_falls_back_where_there_is_none(tmp_path: Path) -> None:
    """As diffusers does, which warns; here it is a note."""
    folder = fill(tmp_path / "sdxl", with_variants("unet", "text_encoder", "text_encoder_2"))
    path = Path(f"{folder}@fp16")
    assert {
        "model_index.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    } == opened(path)
    assert ("vae: has no fp16 files, default ones were opened",) == notes(path)
    with open_checkpoint(path) as checkpoint:
        assert path == checkpoint.path
    assert {name for name in SDXL if name.endswith(("index.json", "safetensors"))} == opened(
        folder, variant="default"
    )


def test_where_there_is_only_a_variant_it_is_opened(tmp_path: Path) -> None:
    """Nothing to choose, nothing to guess."""
    renamed = {name.replace(".safetensors", ".fp16.safetensors"): text for name, text in SDXL.items()}
    fill(tmp_path, renamed)
    assert () == notes(tmp_path)
    expected = {name for name in renamed if name.endswith(("model_index.json", "safetensors"))}
    assert expected == opened(tmp_path)


def test_other_variants_than_the_chosen_are_no_fallback(tmp_path: Path) -> None:
    """Of two variants that were not asked for neither is better."""
    fill(tmp_path, {**with_variants("vae"), "unet/diffusion_pytorch_model.ema.safetensors": ""})
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").rename(
        tmp_path / "unet/diffusion_pytorch_model.non_ema.safetensors"
    )
    assert "unet has no variant 'fp16', and several others (ema, non_ema)" in refusal(
        tmp_path, variant="fp16"
    )


@pytest.mark.parametrize("name", ["../unet", "/etc", "a/b", "..", "C:x", "un et", ""])
def test_sub_models_have_plain_names(tmp_path: Path, name: str) -> None:
    """A pipeline's description leads nowhere outside of its folder."""
    fill(tmp_path, {**SDXL, "model_index.json": json.dumps({**SDXL_INDEX, name: ["diffusers", "X"]})})
    assert "names sub-models that are no plain names" in refusal(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
INDEXES = st.binary(max_size=200) | (
    JSON
    | st.dictionaries(
        st.sampled_from([*SDXL_INDEX, "..", "../outside"]), JSON | st.just(["diffusers", "X"]), max_size=6
    )
).map(lambda value: json.dumps(value).encode())


@given(content=INDEXES)
def test_any_model_index_gives_a_model_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Nothing but CheckpointError is raised, and no file outside of the folder is opened."""
    folder = tmp_path_factory.getbasetemp() / "any-model-index" / "sdxl"
    if not folder.exists():
        fill(folder, SDXL)
        fill(folder.parent, ["outside/model.safetensors"])
    (folder / "model_index.json").write_bytes(content)
    try:
        with open_checkpoint(folder) as checkpoint:
            assert all(folder in file.parents and ".." not in file.parts for file in checkpoint.files)
    except CheckpointError as error:
        assert str(error).isprintable()


ANY_NAMES = [
    *VARIANTS,
    *SDXL,
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "adapter_model.bin",
    "consolidated.00.pth",
    "consolidated.01.pth",
]


@given(names=st.sets(st.sampled_from(ANY_NAMES), max_size=6))
def test_any_folder_gives_a_model_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    """However the names of a folder are combined, the answer is one of the two."""
    folder = tmp_path_factory.mktemp("any-folder")
    fill(folder, sorted(names))
    try:
        open_checkpoint(folder).close()
    except CheckpointError as error:
        assert str(error).startswith(str(folder))


def test_all_files_are_closed_if_one_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sub-model is damaged; the first ones do not stay open."""
    closed: list[Path] = []
    close = FileSource.close

    def watched(self: FileSource) -> None:
        closed.append(self.path)
        close(self)

    monkeypatch.setattr(FileSource, "close", watched)
    fill(tmp_path, SDXL)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"{}")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'vae/diffusion_pytorch_model.safetensors'}: ")
    expected = {tmp_path / name for name in SDXL if name.endswith(("model_index.json", ".safetensors"))}
    assert expected == set(closed)
