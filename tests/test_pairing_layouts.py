"""Which tensors of published models pair: prefixes, layouts, tied heads, averages, and models that do not."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.errors import PairingError
from analyzer.pairing import Side, pair
from analyzer.records import Pairing, TensorInfo

sys.path.append(str(Path(__file__).resolve().parent / "layouts"))
sys.path.append(str(Path(__file__).resolve().parent / "translation"))
import layouts
from layout_pairs import Pairs, flux, openclip, unet, vae

Model = dict[str, TensorInfo]
Shape = tuple[int, ...]

DENOISER = "model.diffusion_model."


def tensor(key: str, shape: Shape, part: str = "") -> TensorInfo:
    return TensorInfo(key, "F16", shape, 0, 2 * math.prod(shape), part=part)


@cache
def _load(name: str) -> tuple[TensorInfo, ...]:
    return tuple(layouts.infos(name))


def model(name: str, *, only: str = "", prefix: str = "") -> Model:
    """A published model; `only` those of its keys that begin so, with this prefix instead."""
    keys = [info.key for info in _load(name)]
    found = {prefix + info.key.removeprefix(only): info for info in _load(name) if info.key.startswith(only)}
    assert not only or len(found) < len(keys)
    return {key: replace(info, key=key) for key, info in found.items()}


def folder(**parts: str) -> Model:
    """A diffusers folder of published sub-models."""
    return {
        f"{part}.{info.key}": replace(info, key=f"{part}.{info.key}", part=part)
        for part, name in parts.items()
        for info in _load(name)
    }


def renamed(tensors: Model, rename: Callable[[str], str]) -> Model:
    return {rename(key): replace(info, key=rename(key)) for key, info in tensors.items()}


def reshaped(tensors: Model, shapes: Mapping[str, Shape]) -> Model:
    return {key: tensor(key, shapes.get(key, info.shape), info.part) for key, info in tensors.items()}


def without(tensors: Model, *keys: str) -> Model:
    return {key: info for key, info in tensors.items() if key not in keys}


def pair_models(a: Model, b: Model) -> Pairing:
    networks = (categorize(side.values()).networks for side in (a, b))
    return pair(*(Side(side, name, own) for side, name, own in zip((a, b), "AB", networks, strict=True)))


def names(pairing: Pairing) -> dict[str, str]:
    return {p.a.key: p.key_b for p in pairing.pairs}


def check_whole(pairing: Pairing, expected: Mapping[str, str]) -> None:
    """These pairs and nothing left over on either side."""
    assert expected == names(pairing)
    assert ((), (), ()) == (pairing.only_in_a, pairing.only_in_b, pairing.shape_mismatch)


# --- Words around a network ---

PREFIXES = [
    *(
        "",
        "module.",
        "_orig_mod.",
        "base_model.model.",
        "module._orig_mod.",
        "model.",
        "module.model.",
        "net.",
    ),
    *("diffusion_model.", DENOISER, "unet."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["sd15-unet-diffusers", "sd15-ldm"])
def test_a_denoiser_pairs_whatever_stands_before_its_names(name: str, prefix: str) -> None:
    """A bare U-Net in either layout against the same one with a prefix, either of them as A."""
    bare = model(name, only=DENOISER if name == "sd15-ldm" else "")
    wrapped = renamed(bare, lambda key: prefix + key)
    check_whole(pair_models(bare, wrapped), {key: prefix + key for key in bare})
    check_whole(pair_models(wrapped, bare), {prefix + key: key for key in bare})


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_no_obstacle_to_another_layout(prefix: str) -> None:
    """LDM behind any prefix against diffusers."""
    expected = {prefix + old: new for old, new in unet([1, 1, 1, 0])}
    wrapped = model("sd15-ldm", only=DENOISER, prefix=prefix)
    check_whole(pair_models(wrapped, model("sd15-unet-diffusers")), expected)


@pytest.mark.parametrize(
    ("name", "only", "part"),
    [
        ("sd15-ldm", DENOISER, DENOISER),
        ("vae-ldm", "", "first_stage_model."),
        ("clip-l-transformers", "", "cond_stage_model.transformer."),
    ],
)
def test_a_bare_network_is_found_in_a_whole_checkpoint(name: str, only: str, part: str) -> None:
    """The rest of the checkpoint is listed."""
    bare, whole = model(name, only=only), model("sd15-ldm")
    expected = {key: part + key for key in bare}
    pairing = pair_models(bare, whole)
    assert expected == names(pairing)
    assert set(whole) - set(expected.values()) == set(pairing.only_in_b)
    assert {new: old for old, new in expected.items()} == names(pair_models(whole, bare))


@pytest.mark.parametrize("name", ["clip-l-transformers", "clip-g-transformers", "openclip-g-original"])
def test_a_text_encoder_alone_finds_the_one_of_its_shape(name: str) -> None:
    """SDXL has two; both have the names of a bare one, which says nothing of which it is."""
    pairing = pair_models(model(name), model("sdxl-base-sgm"))
    embedder = "conditioner.embedders.0." if name == "clip-l-transformers" else "conditioner.embedders.1."
    assert ((), ()) == (pairing.only_in_a, pairing.shape_mismatch)
    assert all(key_b.startswith(embedder) for key_b in names(pairing).values())


def test_a_peft_wrapper_is_taken_off() -> None:
    """`base_model.model.` before all names, `.base_layer.` inside those of layers that had an adapter."""
    llama = model("llama2-7b")
    wrapped = {
        key: "base_model.model." + key.replace("q_proj.weight", "q_proj.base_layer.weight") for key in llama
    }
    check_whole(pair_models(llama, renamed(llama, wrapped.__getitem__)), wrapped)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("llama2-7b", "model."),
        ("gpt-neox-20b", "gpt_neox."),
        ("roberta-base", "roberta."),
        ("vit-base", "vit."),
    ],
)
def test_a_base_model_pairs_with_the_model_that_has_a_head(name: str, base: str) -> None:
    """`AutoModel` saves without the word for the base; the head is listed, and is compared with nothing."""
    whole = model(name)
    bare = model(name, only=base)
    head = {key for key in whole if not key.startswith(base)}
    pairing = pair_models(whole, bare)
    assert {base + key: key for key in bare} == names(pairing)
    assert (head, ()) == (set(pairing.only_in_a), pairing.only_in_b)
    pairing = pair_models(bare, whole)
    assert {key: base + key for key in bare} == names(pairing)
    assert ((), head) == (pairing.only_in_a, set(pairing.only_in_b))


def test_two_names_that_differ_in_the_word_for_the_base_stay_two() -> None:
    """Left out, the word would make one of them."""
    a = {
        key: tensor(key, (4, 4))
        for key in ("model.layers.0.proj.weight", "layers.0.proj.weight", "norm.weight")
    }
    check_whole(pair_models(a, renamed(a, lambda key: f"module.{key}")), {key: f"module.{key}" for key in a})


def test_old_layer_norms_of_bert_pair_with_new_ones() -> None:
    """`gamma` and `beta` of a file that was converted from TensorFlow."""
    pairing = pair_models(model("bert-base"), model("bert-base-bare"))
    assert (
        "encoder.layer.3.output.LayerNorm.weight"
        == names(pairing)["bert.encoder.layer.3.output.LayerNorm.gamma"]
    )
    assert ("embeddings.position_ids",) == pairing.only_in_b
    assert all(key.startswith("cls.") for key in pairing.only_in_a)


# --- Other layouts ---


def test_flux_for_comfyui_pairs_with_the_folder() -> None:
    """Four networks at once, and what is left over are the few tensors that one side alone has."""
    a = model("flux-dev-comfy-fp8")
    b = folder(
        transformer="flux-dev-transformer-diffusers",
        vae="vae-flux-diffusers",
        text_encoder="clip-l-transformers",
        text_encoder_2="t5-xxl-encoder",
    )
    lone_a = {
        "text_encoders.clip_l.logit_scale",
        "text_encoders.t5xxl.logit_scale",
        "text_encoders.clip_l.transformer.text_projection.weight",
    }
    lone_b = {"text_encoder.text_model.embeddings.position_ids", "text_encoder_2.encoder.embed_tokens.weight"}
    pairing = pair_models(a, b)
    assert (lone_a, lone_b) == (set(pairing.only_in_a), set(pairing.only_in_b))
    assert () == pairing.shape_mismatch
    linear1 = f"{DENOISER}single_blocks.5.linear1.bias"
    at = "transformer.single_transformer_blocks.5."
    parts = [f"{at}attn.to_q.bias", f"{at}attn.to_k.bias", f"{at}attn.to_v.bias", f"{at}proj_mlp.bias"]
    assert " + ".join(parts) == names(pairing)[linear1]
    back = pair_models(b, a)
    assert lone_a == set(back.only_in_b)
    # T5's embedding stands twice in the folder, and both are A's.
    assert lone_b - {"text_encoder_2.encoder.embed_tokens.weight"} == set(back.only_in_a)
    assert {linear1} == {names(back)[part] for part in parts}


def test_stable_diffusion_3_pairs_with_the_folder() -> None:
    """With three text encoders, in the order in which diffusers counts them."""
    b = folder(
        transformer="sd3-transformer-diffusers",
        vae="vae-flux-diffusers",
        text_encoder="clip-l-transformers",
        text_encoder_2="clip-g-transformers",
        text_encoder_3="t5-xxl-encoder",
    )
    b = without(b, "text_encoder_3.encoder.embed_tokens.weight")
    pairing = pair_models(model("sd3-medium-comfy"), b)
    assert (("text_encoder.text_model.embeddings.position_ids",), ()) == (
        pairing.only_in_b,
        pairing.only_in_a,
    )
    for number, word in ((1, "clip_l"), (2, "clip_g"), (3, "t5xxl")):
        part = "text_encoder" + (f"_{number}." if number > 1 else ".")
        own = [key_b for key, key_b in names(pairing).items() if key.startswith(f"text_encoders.{word}.")]
        assert own
        assert all(key_b.startswith(part) for key_b in own)


def test_clip_pairs_without_the_word_for_its_text_model() -> None:
    """NovelAI's models, and whatever else was saved by transformers of 2022."""
    a = model("sd15-ldm")
    word = "cond_stage_model.transformer.text_model."
    old = renamed(a, lambda key: key.replace(word, word.removesuffix("text_model.")))
    check_whole(pair_models(a, old), dict(zip(a, old, strict=True)))
    check_whole(pair_models(old, a), dict(zip(old, a, strict=True)))


def test_dev_and_schnell_pair_across_layouts() -> None:
    """Only one of them embeds a guidance."""
    pairing = pair_models(model("flux-dev-bfl"), model("flux-schnell-transformer-diffusers"))
    assert 776 == len(pairing.pairs)
    assert all(key.startswith("guidance_in.") for key in pairing.only_in_a)
    assert () == pairing.only_in_b


def test_a_convolution_of_one_pixel_is_a_linear_layer_under_one_name_too() -> None:
    """VAEs that were converted carelessly have attention without the two axes at the end."""
    a, b = {"x.q.weight": tensor("x.q.weight", (8, 6, 1, 1))}, {"x.q.weight": tensor("x.q.weight", (8, 6))}
    for one, two in ((a, b), (b, a)):
        (found,) = pair(Side(one, "A"), Side(two, "B")).pairs
        assert found.a.shape == found.b.shape == one["x.q.weight"].shape


def test_rows_that_do_not_divide_are_listed() -> None:
    """A fused tensor that is no three times anything, against tensors that are whole; with what it lacks."""
    b = model("flux-dev-transformer-diffusers")
    key = "double_blocks.0.img_attn.qkv.weight"
    for rows in (9217, 0, 4608):
        a = reshaped(model("flux-dev-bfl"), {key: (rows, 3072)})
        (mismatch,) = pair_models(a, b).shape_mismatch
        assert (key, (rows, 3072), (9216, 3072)) == (mismatch.key, mismatch.shape_a, mismatch.shape_b)
        back = pair_models(b, a)
        assert 3 == len(back.shape_mismatch)
        assert {m.shape_a for m in back.shape_mismatch} == {(3072, 3072)}


def test_a_missing_piece_leaves_the_others_unpaired() -> None:
    """Nothing is compared with a part of a fused tensor; from the other side the idle rows are told of."""
    a, b = model("flux-dev-bfl"), model("flux-dev-transformer-diffusers")
    at = "transformer_blocks.3.attn."
    b = without(b, f"{at}to_k.weight")
    pairing = pair_models(a, b)
    assert ("double_blocks.3.img_attn.qkv.weight",) == pairing.only_in_a
    assert {f"{at}to_q.weight", f"{at}to_v.weight"} == set(pairing.only_in_b)
    pairing = pair_models(b, a)
    assert ((), ()) == (pairing.only_in_a, pairing.only_in_b)
    assert f"fused tensors of B hold rows that A has no tensor for: {at}to_k.weight" == pairing.notes[-1]


def test_other_names_are_told_of_in_one_sentence() -> None:
    """However many there are, with one of them as an example."""
    (note,) = pair_models(model("sd15-ldm", only=DENOISER), model("sd15-unet-diffusers")).notes
    assert (
        "686 of 686 pairs have other names in B, as input_blocks.0.0.weight is conv_in.weight there" == note
    )
    assert () == pair_models(model("sd15-ldm"), model("sd15-ldm")).notes


# --- Tied tensors ---


@pytest.mark.parametrize(
    ("name", "head", "embedding"),
    [
        ("llama2-7b", "lm_head.weight", "model.embed_tokens.weight"),
        ("gpt-neox-20b", "embed_out.weight", "gpt_neox.embed_in.weight"),
        ("falcon-7b", "lm_head.weight", "transformer.word_embeddings.weight"),
        ("gpt2", "lm_head.weight", "wte.weight"),
        ("whisper-small", "proj_out.weight", "model.decoder.embed_tokens.weight"),
        ("bert-base", "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("gguf-llama", "output.weight", "token_embd.weight"),
    ],
)
def test_a_head_is_compared_with_the_embedding_that_b_ties_it_to(
    name: str, head: str, embedding: str
) -> None:
    """A head of A that B has none of; of B that A has none of: listed; of none: nothing to say."""
    bare = without(model(name), head)
    whole = bare | {head: tensor(head, bare[embedding].shape)}
    pairing = pair_models(whole, bare)
    check_whole(pairing, {key: key for key in bare} | {head: embedding})
    assert (f"{head}: is compared with {embedding} of B, which ties the two",) == pairing.notes
    pairing = pair_models(bare, whole)
    assert ((head,), ()) == (pairing.only_in_b, pairing.notes)
    check_whole(pair_models(bare, bare), {key: key for key in bare})


def test_a_head_is_tied_under_other_names_too() -> None:
    """Behind a wrapper of B's."""
    llama = model("llama2-7b")
    tied = renamed(without(llama, "lm_head.weight"), lambda key: f"module.{key}")
    pairing = pair_models(llama, tied)
    assert "module.model.embed_tokens.weight" == names(pairing)["lm_head.weight"]
    assert () == pairing.only_in_a
    assert 2 == len(pairing.notes)


def test_no_head_is_tied_to_a_base_model_that_never_had_one() -> None:
    """Names without `model.`: the head may exist, and not be the embedding."""
    whole = model("llama2-7b")
    assert ("lm_head.weight",) == pair_models(whole, model("llama2-7b", only="model.")).only_in_a


def test_the_embedding_of_t5_is_one_under_all_its_names() -> None:
    """The encoder alone is saved with either name, or with both."""
    both = model("t5-xxl-encoder")
    shared, own = "shared.weight", "encoder.embed_tokens.weight"
    assert {shared, own} < both.keys()
    for a, b in ((without(both, own), without(both, shared)), (without(both, shared), without(both, own))):
        pairing = pair_models(a, b)
        assert ((), ()) == (pairing.only_in_a, pairing.only_in_b)
    assert () == pair_models(both, without(both, own)).only_in_a


# --- Averages ---


def test_averages_pair_with_averages_across_layouts() -> None:
    """EMA in LDM, whose names have no dots, against the folder `unet_ema`; and live ones with live ones."""
    ldm = model("sd15-ldm-ema")
    b = folder(unet="sd15-unet-diffusers", unet_ema="sd15-unet-diffusers")
    expected = {DENOISER + old: f"unet.{new}" for old, new in unet([1, 1, 1, 0])}
    for old, new in unet([1, 1, 1, 0]):
        expected["model_ema.diffusion_model" + old.replace(".", "")] = f"unet_ema.{new}"
    assert expected == names(pair_models(ldm, b))
    assert {new: old for old, new in expected.items()} == names(pair_models(b, ldm))


def test_averages_never_pair_with_live_weights() -> None:
    """A file without EMA against one with it; and a folder that holds nothing else."""
    ldm, live = model("sd15-ldm-ema"), model("sd15-ldm")
    pairing = pair_models(live, ldm)
    check_whole(replace(pairing, only_in_b=()), {key: key for key in live})
    assert all(key.startswith("model_ema.") for key in pairing.only_in_b)
    with pytest.raises(PairingError):
        pair_models(model("sd15-unet-diffusers"), folder(unet_ema="sd15-unet-diffusers"))


# --- Models that do not belong together ---


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("sd15-ldm", "llama2-7b"),
        ("bert-base", "llama2-7b"),
        ("bert-base", "vit-base"),
        ("flux-dev-bfl", "sd3-transformer-diffusers"),
        ("t5-xxl-encoder", "flux-dev-bfl"),
        ("sd15-ldm", "sd3-transformer-diffusers"),
    ],
)
def test_strangers_are_refused(a: str, b: str) -> None:
    """One sentence, although some of them have a few names in common once these are translated."""
    with pytest.raises(PairingError, match="have no key in common") as caught:
        pair_models(model(a), model(b))
    assert "\n" not in str(caught.value)


def test_relatives_of_another_size_are_listed() -> None:
    """A U-Net of half the width in the other layout: the same names, and shapes that differ."""
    narrow = reshaped(
        model("sd15-unet-diffusers"),
        {info.key: tuple(-(-n // 2) for n in info.shape) for info in _load("sd15-unet-diffusers")},
    )
    pairing = pair_models(model("sd15-ldm", only=DENOISER), narrow)
    assert 686 == len(pairing.shape_mismatch) + len([p for p in pairing.pairs if not p.partial])
    assert ((), ()) == (pairing.only_in_a, pairing.only_in_b)


# --- Whatever the names and shapes are ---

_NETWORKS: list[Pairs] = [
    flux(2, 2, guidance=True),
    openclip(2),
    vae(),
    [pair_ for pair_ in unet([1, 1, 1, 0]) if "norm" in pair_[0] or "time" in pair_[0] or "emb" in pair_[0]],
]


def bare(name: str) -> str:
    return name.partition("[")[0]


@st.composite
def two_models(draw: st.DrawFn) -> tuple[Model, Model, Pairs]:
    """Any keys of a network in its two layouts, under any prefix, some with shapes of their own."""
    pairs = draw(st.sampled_from(_NETWORKS))
    sides = []
    for side in (0, 1):
        every = sorted({bare(pair_[side]) for pair_ in pairs})
        dropped = draw(st.sets(st.sampled_from(every), max_size=8))
        odd = draw(st.dictionaries(st.sampled_from(every), st.sampled_from(_ODD), max_size=8))
        foreign = draw(st.lists(st.sampled_from(["lm_head.weight", "x.y", "betas"]), max_size=2, unique=True))
        fused = {bare(pair_[side]) for pair_ in pairs if "[" in pair_[side]}
        shapes = {key: odd.get(key, (42,) if key in fused else (6,)) for key in every if key not in dropped}
        shapes |= dict.fromkeys(foreign, (3,))
        prefix = draw(st.sampled_from(["", "module.", "model.diffusion_model.", "model."]))
        sides.append({prefix + key: tensor(prefix + key, shape) for key, shape in shapes.items()})
    if draw(st.booleans()):
        sides.reverse()
    return sides[0], sides[1], pairs


_ODD: list[Shape] = [(), (0,), (5,), (42, 3), (6, 3, 1, 1), (3, 6), (0, 4), (21, 2)]


@settings(max_examples=150)
@given(models=two_models())
def test_no_key_is_lost_and_none_is_used_twice(models: tuple[Model, Model, Pairs]) -> None:
    """Every key of A is in one place. Every element of B is used at most once, or its key is listed."""
    a, b, _ = models
    try:
        pairing = pair_models(a, b)
    except PairingError:
        return
    paired = [p.a.key for p in pairing.pairs]
    partial = [p.a.key for p in pairing.pairs if p.partial]
    listed = [m.key for m in pairing.shape_mismatch if m.key not in partial]
    assert sorted(a) == sorted([*paired, *listed, *pairing.only_in_a])
    assert set(partial) <= {m.key for m in pairing.shape_mismatch}
    for keys in (paired, [m.key for m in pairing.shape_mismatch], list(pairing.only_in_a)):
        assert [key for key in a if key in set(keys)] == keys
    used = {run.b.key for p in pairing.pairs for run in p.parts}
    assert used.isdisjoint(pairing.only_in_b)
    assert used | set(pairing.only_in_b) <= set(b)
    assert len(b) - len(used) - len(pairing.only_in_b) <= len(pairing.shape_mismatch) * 4
    ranges = sorted((run.b.key, run.b.offset, run.b.nbytes) for p in pairing.pairs for run in p.parts)
    for (key, offset, nbytes), (next_key, following, _) in itertools.pairwise(ranges):
        assert key != next_key or offset + nbytes <= following
    for p in pairing.pairs:
        assert all(run.a.shape == run.b.shape for run in p.parts)
        assert sum(run.a.numel for run in p.parts) == p.a.numel
        starts = [run.start for run in p.parts]
        ends = [run.start + run.a.numel for run in p.parts]
        assert [0, *ends[:-1]] == starts


def test_many_keys_take_no_time() -> None:
    """A mixture of experts with 15,000 tensors, under the same names and under others."""
    words = ("gate_proj", "up_proj", "down_proj")
    keys = [f"layers.{n}.mlp.experts.{e}.{w}.weight" for n in range(10) for e in range(500) for w in words]
    a, wrapped = ({prefix + key: tensor(prefix + key, (2, 2)) for key in keys} for prefix in ("", "module."))
    sides = [Side(side, "x", categorize(side.values()).networks) for side in (a, wrapped)]
    for b, limit in ((sides[0], 0.75), (sides[1], 2.25)):
        begun = time.process_time()
        assert len(keys) == len(pair(sides[0], b).pairs)
        assert time.process_time() - begun < limit
