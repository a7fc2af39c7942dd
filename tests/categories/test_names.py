"""What a name tells in every architecture: part, kind, tables and markers."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.categories.names import judge, last_words
from analyzer.checkpoints.scaled import is_scale
from analyzer.records import Categorized, Labels, TensorInfo
from analyzer.scanfile.layout import is_part, leads


def tensor(key: str, dtype: str = "F16", shape: tuple[int, ...] = (2, 2)) -> TensorInfo:
    return TensorInfo(key, dtype, shape, offset=0, nbytes=0)


def label(*keys: str) -> Categorized:
    return categorize([tensor(key) for key in keys])


@pytest.mark.parametrize(
    ("prefix", "part", "block"),
    [
        *((prefix, "unet", "BASE") for prefix in ("model.diffusion_model.", "diffusion_model.", "unet.")),
        *(
            (prefix, "text_encoder", "BASE")
            for prefix in ("cond_stage_model.", "conditioner.", "text_encoder.", "text_encoders.", "te.")
        ),
        ("text_encoder_2.", "text_encoder_2", "BASE"),
        *((prefix, "vae", "VAE") for prefix in ("first_stage_model.", "vae.")),
        ("head.", "other", "BASE"),
    ],
)
def test_first_words_tell_the_part(prefix: str, part: str, block: str) -> None:
    """The prefixes that tools write; they are no part of the component."""
    found = label(f"{prefix}proj.weight").labels[f"{prefix}proj.weight"]
    assert (part, block) == (found.part, found.block)
    assert ("head/proj" if part == "other" else "proj") == found.component


@pytest.mark.parametrize(
    "key", ["denoiser.sigmas", "model_sampling.sigmas", "betas", "sigmas", "model.alphas_cumprod"]
)
def test_schedules_are_known_in_every_model(key: str) -> None:
    """Tables of the noise schedule are listed but never counted."""
    assert Labels("other", "BASE", "schedule", "other", "schedule", counted=False) == label(key).labels[key]


def test_a_deep_name_is_no_schedule() -> None:
    """A parameter called `betas` inside a network is one."""
    key = "net.layer.act.betas"
    assert Labels("other", "BASE", "net/layer/act/betas", "weight", "net") == label(key).labels[key]


def test_empty_tensors_are_markers() -> None:
    """They hold no number that could be compared."""
    found = categorize([tensor("unet.flag", shape=(0,)), tensor("x.weight", shape=(3, 0))]).labels
    assert {("unet", "marker", False), ("other", "marker", False)} == {
        (labels.part, labels.component, labels.counted) for labels in found.values()
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "weight",
            "weight scale gamma attn.in_proj_weight rnn.weight_ih rnn.weight_hh_l0 position_embedding "
            "class_embedding pos_embed cls_token logit_scale text_projection mlp.experts.gate_up_proj "
            "weight_g weight_v lambda gamma_1 A_log relative_position_bias_table "
            "parametrizations.weight.original0",
        ),
        (
            "bias",
            "bias beta attn.in_proj_bias rnn.bias_ih rnn.bias_hh_l0_reverse q_bias bias_k dt_bias "
            "parametrizations.bias.original1",
        ),
        (
            "other",
            "running_mean running_var num_batches_tracked stft.forward_basis_buffer inv_freq position_ids "
            "relative_position_index attn_mask masked_bias q.weight_scale q.scale_weight q.weight.absmax",
        ),
    ],
)
def test_kinds_by_last_word(kind: str, names: str) -> None:
    """The last word of a name tells its kind in every architecture."""
    assert dict.fromkeys(names.split(), kind) == {
        name: judge(last_words(f"net.{name}"), "F32", 2)[0] for name in names.split()
    }


@pytest.mark.parametrize(
    "key",
    [
        *("q.weight_scale", "q.scale_weight", "q.input_scale", "q.weight_scale_inv", "q.comfy_quant"),
        *("mlp.experts.down_proj_scale", "mlp.experts.gate_up_proj_scale_inv", "q.activation_scale"),
        *("mlp.experts.w13_weight_scale", "mlp.experts.down_proj_input_scale", "q.pre_quant_scale"),
    ],
)
def test_scales_of_quantized_weights_do_not_count(key: str) -> None:
    """Whatever calls a key a scale or a marker of codes, its label does too."""
    assert is_scale(key)
    assert [("other", False)] * 4 == [judge(last_words(f"net.{key}"), "F32", axes) for axes in range(4)]


def test_learned_scales_have_axes() -> None:
    """A QK norm's vector has the name of a cache's scale, which is one number."""
    for name in ("attn.q_scale", "attn.k_scale", "attn.v_scale", "attn.output_scale"):
        assert ("other", False) == judge(name, "F32", 0)
        assert ("weight", True) == judge(name, "F32", 1)
    assert [("net/attn/k_scale", "weight")] == [
        (labels.component, labels.kind) for labels in label("net.attn.k_scale").labels.values()
    ]


@pytest.mark.parametrize("dtype", ["I8", "I32", "I64", "U8", "U16", "BOOL"])
def test_integers_are_other_and_do_not_count(dtype: str) -> None:
    """Whatever they are called."""
    found = categorize([tensor("fc.weight", dtype)]).labels["fc.weight"]
    assert Labels("other", "BASE", "fc", "other", "fc", counted=False) == found


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"])
def test_floats_count(dtype: str) -> None:
    """All floating-point formats are weights."""
    assert (
        Labels("other", "BASE", "fc", "weight", "fc")
        == categorize([tensor("fc.weight", dtype)]).labels["fc.weight"]
    )


def test_tables_do_not_count_as_floats_either() -> None:
    """Indices and masks hold nothing that was learned; buffers of statistics do."""
    keys = ["a.position_ids", "a.num_batches_tracked", "a.attn_mask", "a.running_mean"]
    labels = label(*keys).labels
    assert [False, False, False, True] == [labels[key].counted for key in keys]


def test_causal_masks_are_no_biases() -> None:
    """GPT-2 calls its mask attn.bias: four axes, where a bias has one."""
    infos = [tensor("h.0.attn.bias", shape=(1, 1, 8, 8)), tensor("h.1.attn.bias", shape=(8,))]
    labels = categorize(infos).labels
    assert [("other", False), ("bias", True)] == [(x.kind, x.counted) for x in labels.values()]


def test_parametrizations_are_the_tensor_that_they_stand_for() -> None:
    """Weight norm in today's torch and in the one before gets one component."""
    new, old = "conv.parametrizations.weight.original0", "conv.weight_g"
    labels = label(new, old).labels
    assert Labels("other", "BASE", "conv", "weight", "conv") == labels[new] == labels[old]


@pytest.mark.parametrize(
    "key",
    [
        "first_stage_model.loss.discriminator.main.0.weight",
        "loss.logvar",
        "loss.perceptual_loss.net.slice1.0.bias",
        "optimizer.state.0.exp_avg",
        "optimizer_states.0.state.1.step",
    ],
)
def test_what_only_training_needs_is_no_weight(key: str) -> None:
    """Discriminators and optimizers lie in old checkpoints; they are a component of their own."""
    vae = "first_stage_model.decoder.mid.block_1.norm1.weight"
    labels = categorize([tensor(name) for name in (key, vae)]).labels[key]
    assert ("training", "other", False) == (labels.component, labels.kind, labels.counted)


_words = (
    st.sampled_from(["unet", "blocks", "0", "attn", "weight", "..", " ", "a,b", "\n", "é", "/", ""])
    | st.text()
)


@given(st.sets(st.lists(_words, max_size=5).map(".".join), max_size=6))
@example({"unet.blocks.0.a/b.weight", "text_encoder_2.\n", "te.", ""})
def test_whatever_a_key_is_called_its_labels_select_it(keys: set[str]) -> None:
    """A scan file with other labels is refused, so none may be written."""
    for found in label(*sorted(keys)).labels.values():
        assert is_part(found.part)
        assert leads(found.group, found.component)
