"""Image and video models and their parts are known by their names, and labelled in their users' words."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from analyzer.categories import architectures, categorize
from analyzer.categories.rules import Rules
from analyzer.ranking import short_names
from analyzer.records import Categorized, Labels, Network, TensorInfo

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts


def stack(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}{number:02}" for number in range(count))


TWELVE = (*stack("IN", 12), "M00", *stack("OUT", 12))
NINE = (*stack("IN", 9), "M00", *stack("OUT", 9))
FLUX = (*stack("D", 19), *stack("S", 38))

# Every layout: the architecture, the blocks in network order, and the parts beside the main one.
MODELS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "auraflow": ("auraflow", (*stack("D", 4), *stack("S", 32)), {}),
    "auraflow-wrapped": ("auraflow", (*stack("D", 4), *stack("S", 32)), {}),
    "chroma": ("chroma", FLUX, {}),
    "clip-g-transformers": ("clip-text", stack("L", 32), {}),
    "clip-l-transformers": ("clip-text", stack("L", 12), {}),
    "clip-vit-full": ("clip-text", stack("L", 12), {"image_encoder": "clip-vision"}),
    "flux-dev-bfl": ("flux", FLUX, {}),
    "flux-dev-comfy-fp8": (
        "flux",
        FLUX,
        {"text_encoder": "clip-text", "text_encoder_2": "t5-encoder", "vae": "vae-ldm"},
    ),
    "flux-dev-scaled-fp8-comfy": ("flux", FLUX, {}),
    "flux-dev-transformer-diffusers": ("flux-diffusers", FLUX, {}),
    "flux-schnell-bfl": ("flux", FLUX, {}),
    "flux-schnell-transformer-diffusers": ("flux-diffusers", FLUX, {}),
    "hunyuan-video-original": ("hunyuan-video", (*stack("D", 20), *stack("S", 40)), {}),
    "lumina2": ("lumina2", stack("L", 26), {}),
    "lumina2-transformer-diffusers": ("lumina2-diffusers", stack("L", 26), {}),
    "openclip-g-original": ("openclip-text", stack("L", 32), {}),
    "openclip-h-original": ("openclip-text", stack("L", 24), {}),
    "openclip-h-transformers": ("clip-text", stack("L", 23), {}),
    "pixart-sigma-original": ("pixart", stack("L", 28), {}),
    "pixart-sigma-transformer-diffusers": ("pixart-diffusers", stack("L", 28), {}),
    "qwen-image-comfy": ("qwen-image", stack("L", 60), {}),
    "qwen-image-transformer-diffusers": ("qwen-image", stack("L", 60), {}),
    "sd15-inpainting-ldm": ("sd1", TWELVE, {"text_encoder": "clip-text", "vae": "vae-ldm"}),
    "sd15-ldm": ("sd1", TWELVE, {"text_encoder": "clip-text", "vae": "vae-ldm"}),
    "sd15-ldm-ema": ("sd1", TWELVE, {"text_encoder": "clip-text", "vae": "vae-ldm"}),
    "sd15-pix2pix-ldm": ("sd1", TWELVE, {"text_encoder": "clip-text", "vae": "vae-ldm"}),
    "sd15-unet-diffusers": ("sd1", TWELVE, {}),
    "sd21-ldm": ("sd2", TWELVE, {"text_encoder": "openclip-text", "vae": "vae-ldm"}),
    "sd21-unet-diffusers": ("sd2", TWELVE, {}),
    "sd3-medium-comfy": (
        "sd3",
        stack("L", 24),
        {
            "text_encoder": "clip-text",
            "text_encoder_2": "clip-text",
            "text_encoder_3": "t5-encoder",
            "vae": "vae-ldm",
        },
    ),
    "sd3-transformer-diffusers": ("sd3-diffusers", stack("L", 24), {}),
    "sd35-large-comfy": ("sd3", stack("L", 38), {"vae": "vae-ldm"}),
    "sd35-large-transformer-diffusers": ("sd3-diffusers", stack("L", 38), {}),
    "sd35-medium-comfy": ("sd3", stack("L", 24), {"vae": "vae-ldm"}),
    "sdxl-base-sgm": (
        "sdxl",
        NINE,
        {"text_encoder": "clip-text", "text_encoder_2": "openclip-text", "vae": "vae-ldm"},
    ),
    "sdxl-refiner-sgm": ("sdxl-refiner", TWELVE, {"text_encoder": "openclip-text", "vae": "vae-ldm"}),
    "sdxl-refiner-unet-diffusers": ("sdxl-refiner", TWELVE, {}),
    "sdxl-unet-diffusers": ("sdxl", NINE, {}),
    "sdxl-vpred": (
        "sdxl",
        NINE,
        {"text_encoder": "clip-text", "text_encoder_2": "openclip-text", "vae": "vae-ldm"},
    ),
    "sdxl-vpred-schedule": (
        "sdxl",
        NINE,
        {"text_encoder": "clip-text", "text_encoder_2": "openclip-text", "vae": "vae-ldm"},
    ),
    "stable-cascade-prior-diffusers": ("stable-cascade", ("IN00", "IN01", "OUT00", "OUT01"), {}),
    "stable-cascade-stage-c": ("stable-cascade", ("IN00", "IN01", "OUT00", "OUT01"), {}),
    "t5-base": ("t5", (*stack("ENC", 12), *stack("DEC", 12)), {}),
    "t5-xxl-encoder": ("t5-encoder", stack("L", 24), {}),
    "taesd-diffusers": ("taesd", (), {}),
    "umt5-xxl-original": ("umt5", stack("L", 24), {}),
    "umt5-xxl-scaled-fp8-comfy": ("t5-encoder", stack("L", 24), {}),
    "vae-diffusers": ("vae-ldm", (), {}),
    "vae-diffusers-2022": ("vae-ldm", (), {}),
    "vae-flux-bfl": ("vae-ldm", (), {}),
    "vae-flux-diffusers": ("vae-ldm", (), {}),
    "vae-ldm": ("vae-ldm", (), {}),
    "wan-vae": ("vae-3d-diffusers", (), {}),
    "wan21-i2v-14b-comfy": ("wan", stack("L", 40), {}),
    "wan21-t2v-14b-original": ("wan", stack("L", 40), {}),
    "wan21-t2v-transformer-diffusers": ("wan-diffusers", stack("L", 40), {}),
    "wan22": ("wan", stack("L", 30), {}),
    "wan22-t2v-14b-comfy": ("wan", stack("L", 40), {}),
    "z-image-comfy": ("z-image", stack("L", 30), {}),
    "z-image-transformer-diffusers": ("z-image", stack("L", 30), {}),
}

# Layouts that are labelled by the names of another one, which holds the same network.
TRANSLATED = {
    "sd15-unet-diffusers": "sd15-ldm",
    "sd21-unet-diffusers": "sd21-ldm",
    "sdxl-unet-diffusers": "sdxl-base-sgm",
    "sdxl-refiner-unet-diffusers": "sdxl-refiner-sgm",
    "vae-diffusers": "vae-ldm",
    "vae-diffusers-2022": "vae-ldm",
    "vae-flux-diffusers": "vae-flux-bfl",
}

UNET = "model.diffusion_model."
DENOISERS = ("unet", "transformer")
CLEAN = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
RULES = {rules.name: rules for rules in architectures()}

every_model = pytest.mark.parametrize("name", sorted(MODELS))
untranslated = pytest.mark.parametrize("name", sorted(MODELS.keys() - TRANSLATED.keys()))


def infos(name: str, *, scale: bool = False) -> list[TensorInfo]:
    if name not in layouts.names():
        pytest.skip(f"needs {name}.layout")
    return layouts.infos(name, scale=scale)


@cache
def found(name: str) -> Categorized:
    return categorize(infos(name))


def tensor(key: str, shape: tuple[int, ...] = (2, 2)) -> TensorInfo:
    return TensorInfo(key, "F16", shape, offset=0, nbytes=0)


def label(*keys: str) -> Categorized:
    """The labels of a model with these keys; `key:4` is a tensor with four axes."""
    split = [key.partition(":") for key in keys]
    return categorize([tensor(key, (2,) * int(axes or 2)) for key, _, axes in split])


def inner(names: list[str]) -> list[str]:
    """The names of a network without a word that all of them begin with, such as `model.`."""
    while names and all(name.startswith("model.") for name in names):
        names = [name.removeprefix("model.") for name in names]
    return names


def is_plain(labels: Labels) -> bool:
    """Whether it is a tensor of a network, and no table or flag of the file."""
    return labels.component not in ("schedule", "marker")


def networks(name: str) -> list[tuple[Network, list[str], Rules]]:
    """The networks of a layout, the names of their tensors, and the rules of their architectures."""
    labels = found(name).labels
    held = [
        (network, [inside for key, inside in network.names.items() if is_plain(labels[key])])
        for network in found(name).networks
    ]
    return [(network, inner(names), RULES[network.architecture]) for network, names in held if names]


# --- What a model is ---


@every_model
def test_models_are_recognised_with_their_blocks_in_order(name: str) -> None:
    """The names alone tell the architecture; blocks stand in network order."""
    architecture, blocks, _ = MODELS[name]
    assert (architecture, blocks) == (found(name).architecture, found(name).blocks)


@every_model
def test_parts_of_a_model_are_recognised(name: str) -> None:
    """Text encoders and the VAE of a single file are networks of their own."""
    parts = {n.part: n.architecture for n in found(name).networks if n.part != "other"}
    main = next(iter(parts))
    assert MODELS[name][2] == {part: value for part, value in parts.items() if part != main}


@every_model
def test_the_part_of_a_denoiser_is_what_it_is(name: str) -> None:
    """Convolutional networks are `unet`, diffusion transformers `transformer`."""
    blocks = MODELS[name][1]
    part = found(name).networks[0].part
    if part in DENOISERS and MODELS[name][0] != "t5":
        assert ("unet" if blocks[0] == "IN00" else "transformer") == part
    else:
        assert part in ("text_encoder", "vae", "transformer")


@untranslated
def test_no_other_architecture_fits(name: str) -> None:
    """What a network is does not hang on the order in which rules are tried."""
    for network, names, _ in networks(name):
        shapes = {info.key: len(info.shape) for info in infos(name)}
        axes = dict(
            zip(names, (shapes[k] for k in network.names if is_plain(found(name).labels[k])), strict=True)
        )
        fitting = [rules.name for rules in RULES.values() if rules.heading.fit(list(axes.items()))]
        assert [network.architecture] == fitting


@every_model
def test_sizes_do_not_count(name: str) -> None:
    """A narrow model with the same names has the same labels."""
    narrow = categorize(infos(name, scale=True))
    assert found(name).labels == narrow.labels
    assert (found(name).architecture, found(name).blocks) == (narrow.architecture, narrow.blocks)


# --- Where its keys stand ---


@untranslated
def test_every_key_is_known_by_a_rule(name: str) -> None:
    """None is left to the fallback, nor to the rule that catches what an extension adds."""
    for network, names, rules in networks(name):
        hits = {inside: rules.rule_of(inside) for inside in names}
        left = [inside for inside, rule in hits.items() if rule is None or rule.component == "{rest}"]
        assert (network.part, []) == (network.part, left)


@pytest.mark.parametrize("name", sorted(TRANSLATED))
def test_diffusers_names_have_the_labels_of_the_original_ones(name: str) -> None:
    """As many keys of every label as in the original layout of the same network."""
    part = found(name).networks[0].part
    expected = [value for value in found(TRANSLATED[name]).labels.values() if value.part == part]
    assert Counter(expected) == Counter(found(name).labels.values())


@every_model
def test_every_key_stands_on_all_axes(name: str) -> None:
    """No component is empty or says nothing; a group begins its component at the border of a segment."""
    model = found(name)
    assert [info.key for info in infos(name)] == list(model.labels)
    for key, labels in model.labels.items():
        assert CLEAN.fullmatch(labels.component), key
        assert not {"uncategorized", "other"} & set(labels.component.split("/")), key
        assert f"{labels.component}/".startswith(f"{labels.group}/"), key
        assert labels.kind in ("weight", "bias", "other"), key
        assert labels.block in (*model.blocks, "BASE", "VAE"), key


@every_model
def test_blocks_belong_to_the_main_network(name: str) -> None:
    """Text encoders beside it are BASE, a VAE is VAE, and every listed block holds keys."""
    main = found(name).networks[0].part
    blocks: dict[str, set[str]] = {}
    for labels in found(name).labels.values():
        blocks.setdefault(labels.part, set()).add(labels.block)
    for part, own in blocks.items():
        if part == "vae":
            assert {"VAE"} == own
        elif part not in (main, "ema"):
            assert {"BASE"} == own
    assert set(found(name).blocks) == blocks[main] - {"BASE", "VAE"}


@every_model
def test_names_of_components_stand_on_no_other_axis(name: str) -> None:
    """A selector need not say which axis it means, but for tables and flags."""
    model = found(name)
    labels = [value for value in model.labels.values() if is_plain(value)]
    words = {word.casefold() for value in labels for word in value.component.split("/")}
    others = {value.part for value in labels} | set(model.blocks) | {"weight", "bias", "other"}
    assert set() == words & {word.casefold() for word in others}


# The groups by which a ranking of the blocks alone shows a model.
GROUPS = {
    "auraflow": {"attn", "mlpX", "mlpC", "mlp", "modX", "modC", "modCX"},
    "chroma": {"img_attn", "txt_attn", "img_mlp", "txt_mlp", "linear1", "linear2", "norm"},
    "flux-dev-bfl": {
        *("img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod"),
        *("linear1", "linear2", "modulation", "norm"),
    },
    "flux-dev-transformer-diffusers": {
        *("attn", "ff", "ff_context", "norm1", "norm1_context"),
        *("proj_mlp", "proj_out", "norm"),
    },
    "hunyuan-video-original": {
        *("img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod"),
        *("linear1", "linear2", "modulation", "norm"),
    },
    "lumina2": {
        *("attention", "feed_forward", "adaLN_modulation"),
        *("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"),
    },
    "openclip-h-original": {"attn", "mlp", "ln_1", "ln_2"},
    "pixart-sigma-original": {"attn", "cross_attn", "mlp", "scale_shift_table"},
    "pixart-sigma-transformer-diffusers": {"attn1", "attn2", "ff", "scale_shift_table"},
    "qwen-image-comfy": {"attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod"},
    "sd35-medium-comfy": {
        *("x_block/attn", "x_block/mlp", "x_block/adaLN_modulation", "attn2"),
        *("context_block/attn", "context_block/mlp", "context_block/adaLN_modulation"),
    },
    "sd3-transformer-diffusers": {"attn", "ff", "ff_context", "norm1", "norm1_context"},
    "sdxl-base-sgm": {
        *("attn1", "attn2", "ff", "norm1", "norm2", "norm3", "proj_in", "proj_out", "norm"),
        *("in_layers", "out_layers", "emb_layers", "skip_connection", "op", "conv"),
        *("conv_in", "time_embed", "label_emb", "out"),
    },
    "stable-cascade-stage-c": {
        *("depthwise", "channelwise", "mapper", "attention", "kv_mapper"),
        *("down_downscalers", "up_upscalers"),
    },
    "t5-base": {"SelfAttention", "EncDecAttention", "DenseReluDense", "layer_norm"},
    "wan21-i2v-14b-comfy": {"self_attn", "cross_attn", "ffn", "norm3", "modulation"},
    "wan21-t2v-transformer-diffusers": {"attn1", "attn2", "ffn", "norm2", "scale_shift_table"},
    "z-image-comfy": {
        *("attention", "feed_forward", "adaLN_modulation"),
        *("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"),
    },
}


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_blocks_are_ranked_by_what_people_merge(name: str) -> None:
    """The short names of the groups in the blocks are words of the keys."""
    main = found(name).networks[0].part
    groups = {v.group for v in found(name).labels.values() if v.part == main and v.block != "BASE"}
    assert GROUPS[name] == set(short_names(groups).values())


# A handful of keys of each, where the contract and the words of the keys put them: block, component, group.
TELLING: dict[str, dict[str, tuple[str, str, str]]] = {
    "auraflow-wrapped": {
        "model.double_layers.3.attn.w2q.weight": ("D03", "attn/w2q", "attn"),
        "model.single_layers.31.modCX.1.weight": ("S31", "modCX", "modCX"),
        "model.register_tokens": ("BASE", "register_tokens", "register_tokens"),
    },
    "chroma": {
        "double_blocks.18.txt_mlp.2.weight": ("D18", "txt_mlp/mlp_2", "txt_mlp"),
        "distilled_guidance_layer.norms.3.scale": (
            *("BASE", "distilled_guidance_layer/norms", "distilled_guidance_layer"),
        ),
    },
    "flux-dev-comfy-fp8": {
        f"{UNET}double_blocks.0.img_attn.qkv.weight": ("D00", "img_attn/qkv", "img_attn"),
        f"{UNET}double_blocks.18.txt_mod.lin.bias": ("D18", "txt_mod/lin", "txt_mod"),
        f"{UNET}single_blocks.37.linear1.weight": ("S37", "linear1", "linear1"),
        f"{UNET}single_blocks.5.modulation.lin.weight": ("S05", "modulation/lin", "modulation"),
        f"{UNET}vector_in.in_layer.weight": ("BASE", "vector_in/in_layer", "vector_in"),
        f"{UNET}final_layer.adaLN_modulation.1.bias": ("BASE", "final_layer/adaLN_modulation", "final_layer"),
        "text_encoders.clip_l.logit_scale": ("BASE", "logit_scale", "logit_scale"),
        "text_encoders.clip_l.transformer.text_projection.weight": (
            *("BASE", "text_projection", "text_projection"),
        ),
        "text_encoders.t5xxl.transformer.encoder.block.7.layer.1.DenseReluDense.wi_0.weight": (
            *("BASE", "DenseReluDense/wi_0", "DenseReluDense"),
        ),
        "vae.decoder.mid.attn_1.q.weight": ("VAE", "decoder/mid/attn/q", "decoder"),
    },
    "flux-dev-transformer-diffusers": {
        "transformer_blocks.18.attn.add_q_proj.weight": ("D18", "attn/add_q_proj", "attn"),
        "transformer_blocks.0.ff_context.net.0.proj.bias": ("D00", "ff_context/net_0", "ff_context"),
        "single_transformer_blocks.37.proj_mlp.weight": ("S37", "proj_mlp", "proj_mlp"),
        "single_transformer_blocks.0.proj_out.weight": ("S00", "proj_out", "proj_out"),
        "proj_out.weight": ("BASE", "final_layer/proj_out", "final_layer"),
        "time_text_embed.guidance_embedder.linear_1.weight": (
            *("BASE", "time_text_embed/guidance_embedder/linear_1", "time_text_embed"),
        ),
    },
    "hunyuan-video-original": {
        "double_blocks.19.img_attn_qkv.weight": ("D19", "img_attn/qkv", "img_attn"),
        "single_blocks.39.q_norm.weight": ("S39", "norm/query_norm", "norm"),
        "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.weight": (
            *("BASE", "txt_in/self_attn/qkv", "txt_in"),
        ),
    },
    "openclip-g-original": {
        "transformer.resblocks.31.attn.in_proj_weight": ("L31", "attn/in_proj", "attn"),
        "transformer.resblocks.0.attn.in_proj_bias": ("L00", "attn/in_proj", "attn"),
        "transformer.resblocks.9.mlp.c_fc.weight": ("L09", "mlp/c_fc", "mlp"),
        "text_projection": ("BASE", "text_projection", "text_projection"),
    },
    "pixart-sigma-original": {
        "blocks.27.cross_attn.kv_linear.weight": ("L27", "cross_attn/kv_linear", "cross_attn"),
        "blocks.0.scale_shift_table": ("L00", "scale_shift_table", "scale_shift_table"),
        "y_embedder.y_proj.fc1.weight": ("BASE", "y_embedder/y_proj/fc1", "y_embedder"),
    },
    "qwen-image-comfy": {
        f"{UNET}transformer_blocks.59.img_mod.1.weight": ("L59", "img_mod", "img_mod"),
        f"{UNET}transformer_blocks.0.attn.add_v_proj.bias": ("L00", "attn/add_v_proj", "attn"),
        f"{UNET}txt_in.weight": ("BASE", "txt_in", "txt_in"),
    },
    "sd21-ldm": {
        f"{UNET}input_blocks.8.1.proj_in.weight": ("IN08", "proj_in", "proj_in"),
        f"{UNET}time_embed.0.weight": ("IN00", "time_embed/linear_1", "time_embed"),
        f"{UNET}out.2.weight": ("OUT11", "out/conv2d", "out"),
        "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight": (
            *("BASE", "attn/in_proj", "attn"),
        ),
        "cond_stage_model.model.logit_scale": ("BASE", "logit_scale", "logit_scale"),
    },
    "sd35-medium-comfy": {
        f"{UNET}joint_blocks.0.x_block.attn2.qkv.weight": ("L00", "x_block/attn2/qkv", "x_block/attn2"),
        f"{UNET}joint_blocks.23.context_block.attn.ln_k.weight": (
            *("L23", "context_block/attn/ln_k", "context_block/attn"),
        ),
        f"{UNET}pos_embed": ("BASE", "pos_embed", "pos_embed"),
        f"{UNET}x_embedder.proj.bias": ("BASE", "x_embedder/proj", "x_embedder"),
        f"{UNET}context_embedder.weight": ("BASE", "context_embedder", "context_embedder"),
    },
    "sd3-transformer-diffusers": {
        "transformer_blocks.23.norm1_context.linear.weight": ("L23", "norm1_context/linear", "norm1_context"),
        "pos_embed.pos_embed": ("BASE", "pos_embed/pos_embed", "pos_embed"),
    },
    "sdxl-base-sgm": {
        f"{UNET}input_blocks.0.0.weight": ("IN00", "conv_in", "conv_in"),
        f"{UNET}time_embed.2.bias": ("IN00", "time_embed/linear_2", "time_embed"),
        f"{UNET}label_emb.0.0.weight": ("IN00", "label_emb/linear_1", "label_emb"),
        f"{UNET}input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (
            *("IN08", "transformer_blocks/attn2/to_k", "transformer_blocks/attn2"),
        ),
        f"{UNET}middle_block.1.transformer_blocks.9.ff.net.0.proj.weight": (
            *("M00", "transformer_blocks/ff/net_0", "transformer_blocks/ff"),
        ),
        f"{UNET}output_blocks.8.0.in_layers.2.weight": ("OUT08", "in_layers/conv2d", "in_layers"),
        f"{UNET}out.2.weight": ("OUT08", "out/conv2d", "out"),
        "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias": (
            *("BASE", "attn/in_proj", "attn"),
        ),
        "conditioner.embedders.1.model.text_projection": ("BASE", "text_projection", "text_projection"),
    },
    "sdxl-refiner-sgm": {
        f"{UNET}label_emb.0.2.bias": ("IN00", "label_emb/linear_2", "label_emb"),
        f"{UNET}input_blocks.11.0.in_layers.0.weight": ("IN11", "in_layers/group_norm", "in_layers"),
        f"{UNET}out.0.bias": ("OUT11", "out/group_norm", "out"),
    },
    "stable-cascade-stage-c": {
        "down_blocks.1.71.attention.attn.in_proj_weight": ("IN01", "attention/in_proj", "attention"),
        "up_blocks.0.0.channelwise.2.gamma": ("OUT00", "channelwise/norm", "channelwise"),
        "clip_txt_pooled_mapper.weight": ("BASE", "clip_mapper/clip_txt_pooled_mapper", "clip_mapper"),
    },
    "t5-base": {
        "encoder.block.11.layer.0.SelfAttention.q.weight": ("ENC11", "SelfAttention/q", "SelfAttention"),
        "decoder.block.0.layer.1.EncDecAttention.k.weight": ("DEC00", "EncDecAttention/k", "EncDecAttention"),
        "decoder.block.11.layer.2.layer_norm.weight": ("DEC11", "layer_norm/layer_2", "layer_norm"),
        "shared.weight": ("BASE", "shared", "shared"),
    },
    "umt5-xxl-original": {
        "blocks.23.ffn.gate.0.weight": ("L23", "ffn/gate", "ffn"),
        "token_embedding.weight": ("BASE", "token_embedding", "token_embedding"),
    },
    "wan-vae": {
        "encoder.mid_block.attentions.0.to_qkv.weight": ("VAE", "encoder/mid_block/attn/to_qkv", "encoder"),
        "decoder.up_blocks.0.upsamplers.0.time_conv.weight": (
            *("VAE", "decoder/up_blocks/time_conv", "decoder"),
        ),
    },
    "wan21-i2v-14b-comfy": {
        "blocks.39.cross_attn.k_img.weight": ("L39", "cross_attn/k_img", "cross_attn"),
        "blocks.0.modulation": ("L00", "modulation", "modulation"),
        "blocks.0.ffn.0.weight": ("L00", "ffn/ffn_0", "ffn"),
        "img_emb.proj.1.weight": ("BASE", "img_emb/linear_1", "img_emb"),
        "head.head.weight": ("BASE", "head/head", "head"),
    },
    "wan21-t2v-transformer-diffusers": {
        "blocks.39.attn2.to_out.0.bias": ("L39", "attn2/to_out", "attn2"),
        "scale_shift_table": ("BASE", "final_layer/scale_shift_table", "final_layer"),
    },
    "z-image-comfy": {
        "layers.29.attention.qkv.weight": ("L29", "attention/qkv", "attention"),
        "noise_refiner.1.feed_forward.w1.weight": (
            *("BASE", "noise_refiner/feed_forward/w1", "noise_refiner/feed_forward"),
        ),
        "cap_pad_token": ("BASE", "cap_pad_token", "cap_pad_token"),
    },
    "z-image-transformer-diffusers": {
        "layers.29.attention.to_q.weight": ("L29", "attention/to_q", "attention"),
        "all_x_embedder.2-1.weight": ("BASE", "x_embedder", "x_embedder"),
    },
}


@pytest.mark.parametrize("name", sorted(TELLING))
def test_telling_keys_stand_where_people_look(name: str) -> None:
    """Blocks by the contract, components in the words of the keys."""
    labels = {key: found(name).labels[key] for key in TELLING[name]}
    assert TELLING[name] == {k: (v.block, v.component, v.group) for k, v in labels.items()}


def test_scales_of_fp8_stand_where_their_weights_do() -> None:
    """They are no weights, and `scaled_fp8` is a marker."""
    labels = found("flux-dev-scaled-fp8-comfy").labels
    scales = [key for key in labels if key.endswith((".scale_weight", ".scale_input"))]
    assert 628 == len(scales)
    for key in scales:
        weight = labels[key.rpartition(".")[0] + ".weight"]
        assert (weight.block, weight.component) == (labels[key].block, labels[key].component)
        assert "other" == labels[key].kind
    assert "marker" == labels[f"{UNET}scaled_fp8"].component


def test_schedules_and_markers_are_none_of_the_networks() -> None:
    """The tables of an SDXL that predicts velocities, and its flags."""
    labels = found("sdxl-vpred-schedule").labels
    marked = {key for key, value in labels.items() if value.component == "marker"}
    tables = {key for key, value in labels.items() if value.component == "schedule"}
    assert {"v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min"} == marked
    assert {"betas", "alphas_cumprod", "posterior_variance"} < tables
    assert {key for key in labels if "." not in key} - marked == tables
    assert {"other"} == {labels[key].part for key in marked | tables}


ALONE = ("flux-dev-bfl", "sd15-unet-diffusers", "wan21-t2v-14b-original", "z-image-comfy", "chroma")


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model.", "module."])
def test_prefixes_around_a_network_change_nothing(name: str, prefix: str) -> None:
    """Tools put different words before the same names."""
    wrapped = categorize([tensor(f"{prefix}{i.key}", i.shape) for i in infos(name)])
    expected = categorize([tensor(i.key, i.shape) for i in infos(name)])
    assert (expected.architecture, expected.blocks) == (wrapped.architecture, wrapped.blocks)
    assert [*expected.labels.values()] == [*wrapped.labels.values()]


FOLDERS = {
    "sdxl": {
        "text_encoder": "clip-l-transformers",
        "text_encoder_2": "clip-g-transformers",
        "unet": "sdxl-unet-diffusers",
        "vae": "vae-diffusers",
    },
    "flux-diffusers": {
        "text_encoder": "clip-l-transformers",
        "text_encoder_2": "t5-xxl-encoder",
        "transformer": "flux-dev-transformer-diffusers",
        "vae": "vae-flux-diffusers",
    },
    "wan-diffusers": {
        "text_encoder": "t5-xxl-encoder",
        "transformer": "wan21-t2v-transformer-diffusers",
        "vae": "wan-vae",
    },
    "stable-cascade": {"prior": "stable-cascade-prior-diffusers", "text_encoder": "clip-g-transformers"},
}


@pytest.mark.parametrize("architecture", FOLDERS)
def test_pipelines_in_folders_have_the_labels_of_their_models(architecture: str) -> None:
    """A sub-model's folder is its part; beside a denoiser a text encoder has no blocks."""
    tensors, expected = [], {}
    main = next(part for part in FOLDERS[architecture] if part in (*DENOISERS, "prior"))
    for part, name in FOLDERS[architecture].items():
        own = found(name).labels
        for info in infos(name):
            key, block = f"{part}.{info.key}", own[info.key].block
            tensors.append(TensorInfo(key, info.dtype, info.shape, 0, 0, part=part))
            expected[key] = (part, block if part in (main, "vae") else "BASE", own[info.key].component)
    model = categorize(tensors)
    assert (architecture, expected) == (
        model.architecture,
        {key: (value.part, value.block, value.component) for key, value in model.labels.items()},
    )


# --- Layouts of which a few keys are enough to see what they are ---

SMALL: dict[str, tuple[str, Sequence[str], dict[str, tuple[str, str]]]] = {
    "Flux 2": (
        "flux2",
        ("D00", "S00"),
        {
            "double_blocks.0.img_attn.qkv.weight": ("D00", "img_attn/qkv"),
            "single_blocks.0.linear1.weight": ("S00", "linear1"),
            "single_stream_modulation.lin.weight": ("BASE", "single_stream_modulation/lin"),
        },
    ),
    "Flux 2, diffusers": (
        "flux2-diffusers",
        ("D00", "S00"),
        {
            "transformer_blocks.0.attn.add_q_proj.weight": ("D00", "attn/add_q_proj"),
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight": ("S00", "attn/to_qkv_mlp_proj"),
        },
    ),
    "Chroma, diffusers": (
        "chroma-diffusers",
        ("D00",),
        {
            "transformer_blocks.0.attn.add_q_proj.weight": ("D00", "attn/add_q_proj"),
            "distilled_guidance_layer.layers.0.linear_1.weight": (
                *("BASE", "distilled_guidance_layer/layers/linear_1"),
            ),
        },
    ),
    "Hunyuan Video, ComfyUI": (
        "hunyuan-video",
        ("D00", "S00"),
        {
            "model.model.double_blocks.0.img_attn.qkv.weight": ("D00", "img_attn/qkv"),
            "model.model.single_blocks.0.norm.query_norm.scale:1": ("S00", "norm/query_norm"),
            "model.model.txt_in.individual_token_refiner.blocks.0.self_attn.qkv.weight": (
                *("BASE", "txt_in/self_attn/qkv"),
            ),
        },
    ),
    "Hunyuan Video, diffusers": (
        "hunyuan-video-diffusers",
        ("D00",),
        {
            "transformer_blocks.0.attn.add_q_proj.weight": ("D00", "attn/add_q_proj"),
            "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight": (
                *("BASE", "context_embedder/attn/to_q"),
            ),
        },
    ),
    "AuraFlow, diffusers": (
        "auraflow-diffusers",
        ("D00", "S00"),
        {
            "joint_transformer_blocks.0.attn.to_q.weight": ("D00", "attn/to_q"),
            "single_transformer_blocks.0.ff.out_projection.weight": ("S00", "ff/out_projection"),
        },
    ),
    "Wan VACE": (
        "wan",
        ("L00",),
        {
            "blocks.0.self_attn.q.weight": ("L00", "self_attn/q"),
            "blocks.0.cross_attn.q.weight": ("L00", "cross_attn/q"),
            "blocks.0.modulation:3": ("L00", "modulation"),
            "vace_blocks.7.self_attn.q.weight": ("BASE", "vace_blocks/self_attn/q"),
            "vace_blocks.0.before_proj.weight": ("BASE", "vace_blocks/before_proj"),
        },
    ),
    "Wan VAE": (
        "vae-3d",
        (),
        {
            "encoder.downsamples.0.residual.2.weight:5": ("VAE", "encoder/downsamples/conv1"),
            "decoder.middle.1.to_qkv.weight:4": ("VAE", "decoder/middle/attn/to_qkv"),
            "decoder.middle.0.residual.6.bias:1": ("VAE", "decoder/middle/conv2"),
        },
    ),
    "Wan 2.2 VAE": (
        "vae-3d",
        (),
        {
            "encoder.downsamples.0.downsamples.1.residual.0.gamma:4": ("VAE", "encoder/downsamples/norm1"),
            "decoder.upsamples.2.upsamples.3.time_conv.weight:5": ("VAE", "decoder/upsamples/time_conv"),
            "encoder.middle.0.residual.6.bias:1": ("VAE", "encoder/middle/conv2"),
        },
    ),
    "Stable Cascade, stage B": (
        "stable-cascade",
        ("IN02", "OUT00"),
        {
            "down_blocks.2.0.depthwise.weight:4": ("IN02", "depthwise"),
            "down_blocks.2.0.channelwise.0.weight": ("IN02", "channelwise/linear_1"),
            "up_repeat_mappers.0.1.weight:4": ("OUT00", "up_repeat_mappers"),
            "effnet_mapper.0.weight:4": ("BASE", "effnet_mapper/conv_1"),
            "clf.1.weight:4": ("BASE", "clf"),
        },
    ),
    "SD 2 unCLIP": (
        "sd2",
        TWELVE,
        {
            f"{UNET}input_blocks.11.0.in_layers.2.weight:4": ("IN11", "in_layers/conv2d"),
            f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (
                *("IN01", "transformer_blocks/attn1/to_q"),
            ),
            f"{UNET}input_blocks.1.1.proj_in.weight": ("IN01", "proj_in"),
            f"{UNET}label_emb.0.0.weight": ("IN00", "label_emb/linear_1"),
        },
    ),
    "CLIP image encoder": (
        "clip-vision",
        ("L00",),
        {
            "vision_model.encoder.layers.0.self_attn.q_proj.weight": ("L00", "self_attn/q_proj"),
            "vision_model.embeddings.class_embedding:1": ("BASE", "embeddings/class_embedding"),
            "visual_projection.weight": ("BASE", "visual_projection"),
        },
    ),
    "OpenCLIP image encoder": (
        "openclip-vision",
        ("L00",),
        {
            "visual.transformer.resblocks.0.attn.in_proj_weight": ("L00", "attn/in_proj"),
            "visual.class_embedding:1": ("BASE", "class_embedding"),
            "visual.conv1.weight:4": ("BASE", "conv1"),
        },
    ),
    "T5 of ComfyUI": (
        "t5-encoder",
        ("L00",),
        {
            "encoder.block.0.layer.0.SelfAttention.q.weight": ("L00", "SelfAttention/q"),
            "encoder.block.0.layer.1.DenseReluDense.wo.weight": ("L00", "DenseReluDense/wo"),
            "spiece_model:1": ("BASE", "spiece_model"),
        },
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_few_keys_tell_the_architecture(name: str) -> None:
    """Layouts that are published in other files than those above."""
    architecture, blocks, expected = SMALL[name]
    model = label(*expected)
    places = {key: model.labels[key.partition(":")[0]] for key in expected}
    assert (architecture, blocks) == (model.architecture, model.blocks)
    assert expected == {key: (value.block, value.component) for key, value in places.items()}


@pytest.mark.parametrize(
    ("key", "block", "component"),
    [
        ("double_blocks.5.img_attn.processor.to_k.weight", "D05", "img_attn/processor/to_k"),
        ("single_blocks.5.extra.weight", "S05", "extra"),
    ],
)
def test_extensions_of_a_transformer_are_of_their_block(key: str, block: str, component: str) -> None:
    """A key that no rule spells out has the block that it lies in."""
    signs = ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight")
    labels = label(*signs, key).labels[key]
    assert ("transformer", block, component) == (labels.part, labels.block, labels.component)


@pytest.mark.parametrize(
    "keys",
    [
        ("input_blocks.1.1.time_stack.0.attn1.to_q.weight", "label_emb.0.0.weight"),  # Stable Video Diffusion
        ("blocks.0.attn.qkv.weight", "blocks.0.cross_attn.q_linear.weight", "blocks.0.mlp.fc1.weight"),
        ("transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.ff.net.2.weight"),
        ("double_blocks.0.img_attn.qkv.weight",),
    ],
)
def test_half_of_the_evidence_is_not_enough(keys: tuple[str, ...]) -> None:
    """Networks that share some names with a known one are not taken for it."""
    assert "generic" == label(*keys).architecture
