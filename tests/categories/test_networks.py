"""A model is cut into its networks: every key lies in one, under the name that it has there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analyzer.categories.networks import DENOISER, MAIN, OTHER, Region, dissect, unwrap, variants

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts

PREFIXES = {
    "model.diffusion_model.": DENOISER,
    "diffusion_model.": DENOISER,
    "unet.": DENOISER,
    "first_stage_model.": "vae",
    "vae.": "vae",
    "cond_stage_model.": "text_encoder",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder",
    "conditioner.embedders.0.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.1.model.": "text_encoder",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.qwen25_7b.transformer.": "text_encoder",
    "te.": "text_encoder",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "language_model.": MAIN,
    "model.language_model.": MAIN,
    "vision_tower.": "image_encoder",
    "model.vision_tower.": "image_encoder",
    "visual.": "image_encoder",
    "model.visual.": "image_encoder",
    "vision_model.": "image_encoder",
    "image_encoder.": "image_encoder",
}
WRAPS = ("module.", "_orig_mod.", "base_model.model.", "base_model.", "module._orig_mod.")

SEGMENTS = st.sampled_from(
    [
        *("module", "_orig_mod", "base_model", "model", "base_layer", "transformer", "layers", "0", "1"),
        *("weight", "diffusion_model", "first_stage_model", "cond_stage_model", "conditioner", "embedders"),
        *("text_encoders", "clip_l", "clip_g", "t5xxl", "language_model", "visual", "vision_tower", "vae"),
        *("unet", "te", "text_encoder", "text_encoder_2", "logit_scale", "net", "x", ""),
    ]
)  # fmt: skip
KEYS = st.one_of(st.lists(SEGMENTS, min_size=1, max_size=6).map(".".join), st.text(max_size=12))


def places(*keys: str, folders: dict[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Role and name of every key."""
    regions = dissect(unwrap(keys), folders or {})
    return {key: (region.role, name) for region in regions for key, name in region.names.items()}


@pytest.mark.parametrize(("prefix", "role"), PREFIXES.items())
def test_prefixes_tell_the_network(prefix: str, role: str) -> None:
    """What tools put before a network's names is taken away, and says which network it is."""
    assert {f"{prefix}a.0.weight": (role, "a.0.weight")} == places(f"{prefix}a.0.weight")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_whole_words_at_the_start(prefix: str) -> None:
    """A longer word, or the same words further inside, is no prefix."""
    for key in (f"x{prefix}weight", f"blocks.0.{prefix}weight"):
        assert {key: (MAIN, key)} == places(key)
    longer = f"{prefix.removesuffix('.')}_x.weight"
    assert places(longer)[longer][1].endswith(f"{prefix.split('.')[-2]}_x.weight")


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_training_puts_around_a_model_does_not_hide_it(wrap: str, prefix: str) -> None:
    """torch.compile, DataParallel and PEFT wrap whole models; the network stays the same one."""
    key = f"{wrap}{prefix}a.weight"
    assert {key: (PREFIXES[prefix], "a.weight")} == places(key)


def test_text_encoders_are_numbered_as_diffusers_does() -> None:
    """CLIP-L before CLIP-G before T5, whatever their order in the file; SGM's by their numbers."""
    comfy = [f"text_encoders.{word}.transformer.a.weight" for word in ("t5xxl", "clip_g", "clip_l")]
    found = places(*comfy)
    assert ["text_encoder_3", "text_encoder_2", "text_encoder"] == [found[key][0] for key in comfy]
    sgm = ["conditioner.embedders.1.model.a", "conditioner.embedders.0.transformer.a"]
    found = places(*sgm)
    assert ["text_encoder_2", "text_encoder"] == [found[key][0] for key in sgm]


def test_a_file_does_not_say_how_many_networks_there_are() -> None:
    """Sixteen text encoders are more than any model has; what follows keeps its names, in no network."""
    keys = [f"text_encoders.e{number:05}.a.weight" for number in range(6000)]
    found = places(*reversed(keys), "text_encoders.clip_l.a.weight")
    assert ("text_encoder", "a.weight") == found["text_encoders.clip_l.a.weight"]
    assert ("text_encoder_16", "a.weight") == found[keys[14]]
    assert {key: (OTHER, key) for key in keys[15:]} == {key: found[key] for key in keys[15:]}


def test_words_around_a_network_are_few() -> None:
    """Each of them is a way to read all names; no tool puts more than two there."""
    assert [0, 6, 12, 18, 24] == list(variants(["model." * 30_000 + "a.weight"]))


def test_keys_beside_a_denoiser_are_no_network_of_their_own() -> None:
    """Schedules and the like stand without a prefix beside a U-Net; alone they would be the model."""
    assert {"betas": (MAIN, "betas")} == places("betas")
    found = places("betas", "model.diffusion_model.out.0.weight")
    assert ((OTHER, "betas"), (DENOISER, "out.0.weight")) == tuple(found.values())[::-1]


def test_folders_say_what_their_keys_are() -> None:
    """A sub-model's name is its role; its own keys may look like anything."""
    folders = {"unet.vae.x": "unet", "transformer_2.a": "transformer_2", "prior.language_model.b": "prior"}
    expected = {
        "unet.vae.x": (DENOISER, "vae.x"),
        "transformer_2.a": ("transformer_2", "a"),
        "prior.language_model.b": ("prior", "language_model.b"),
    }
    assert expected == places(*folders, folders=folders)


def test_the_network_that_gives_the_blocks_comes_first() -> None:
    """The denoiser, else the language model; then the others, the largest first."""
    keys = ["vae.a", "vae.b", "te.a", "model.diffusion_model.a"]
    assert [DENOISER, "vae", "text_encoder"] == [region.role for region in dissect(unwrap(keys), {})]
    keys = ["visual.a", "visual.b", "language_model.a"]
    assert [MAIN, "image_encoder"] == [region.role for region in dissect(unwrap(keys), {})]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.a", "model.b"], [0, 6]),
        (["model.transformer.a", "model.transformer.b"], [0, 6, 18]),
        (["model.a", "transformer.b"], [0]),
        (["model.a", "lm_head.weight"], [0]),
        (["a"], [0]),
        ([], [0]),
    ],
)
def test_words_that_wrap_a_whole_network_can_be_left_away(names: list[str], expected: list[int]) -> None:
    """Only if every name has them: `lm_head` stands beside `model.` in a language model."""
    assert expected == list(variants(names))


def test_adapters_that_were_merged_leave_no_trace() -> None:
    """PEFT's `base_layer` and torch.compile's `_orig_mod` stand in the middle of names as well."""
    keys = ["base_model.model.layers.0.q.base_layer.weight", "net._orig_mod.w"]
    assert dict(zip(keys, ("layers.0.q.weight", "net.w"), strict=True)) == unwrap(keys)


def test_keys_with_one_bare_name_keep_their_own() -> None:
    """Two copies of a tensor in one file stay two."""
    keys = ["module.a", "a", "module.b"]
    assert {"module.a": "module.a", "a": "a", "module.b": "b"} == unwrap(keys)


@given(keys=st.lists(KEYS, unique=True, max_size=12))
@example(keys=["a.b", "a.base_layer.b", "a.base_layer.base_layer.b"])
def test_unwrapping_loses_and_doubles_no_name(keys: list[str]) -> None:
    """Every key has a name, and no two have the same one."""
    names = unwrap(keys)
    assert keys == list(names)
    assert len(keys) == len(set(names.values()))


@given(keys=st.lists(KEYS, unique=True, max_size=12), data=st.data())
def test_every_key_lies_in_one_network(keys: list[str], data: st.DataObject) -> None:
    """Whatever the names are; and a network's name ends the key that it stands for."""
    folder = st.sampled_from(["", "", "unet", "vae", "text_encoder_2", "x"])
    folders = {key: chosen for key in keys if (chosen := data.draw(folder))}
    names = unwrap(keys)
    regions = dissect(names, folders)
    held = [key for region in regions for key in region.names]
    assert sorted(keys) == sorted(held)
    assert len({region.role for region in regions}) == len(regions)
    for region in regions:
        assert all(names[key].endswith(name) for key, name in region.names.items())


@pytest.mark.parametrize("name", ["sd15-ldm", "sdxl-base-sgm", "sd3-medium-comfy", "flux-dev-comfy-fp8"])
def test_real_checkpoints(name: str) -> None:
    """The networks of a whole checkpoint, by the words that their keys start with."""
    keys = list(layouts.load(name))
    regions: dict[str, Region] = {region.role: region for region in dissect(unwrap(keys), {})}
    assert DENOISER == next(iter(regions))
    assert {"vae", "text_encoder"} <= regions.keys()
    denoiser = [key for key in keys if key.startswith("model.diffusion_model.")]
    assert {key: key.removeprefix("model.diffusion_model.") for key in denoiser} == regions[DENOISER].names
    assert sum(key.startswith(("first_stage_model.", "vae.")) for key in keys) == len(regions["vae"].names)
