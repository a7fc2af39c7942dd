"""Language models, and those that see or listen, are known by their names and labelled in their words."""

from __future__ import annotations

import math
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from analyzer.categories import architectures, categorize
from analyzer.records import Categorized, Labels, TensorInfo

sys.path.append(str(Path(__file__).resolve().parents[1] / "layouts"))
import layouts

CLEAN = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
EXPERT = re.compile(r"\.experts\.(\d+)\.")
IMAGE = "image_encoder"


def stack(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}{number:02}" for number in range(count))


# The architecture that each layout is of, and its blocks.
MODELS = {
    "bert-base": ("bert", stack("L", 12)),
    "bert-base-bare": ("bert", stack("L", 12)),
    "cohere": ("llama-like", stack("L", 40)),
    "deepseek-v2-lite": ("deepseek-v2", stack("L", 27)),
    "deepseek-v3": ("deepseek-v3", stack("L", 62)),
    "falcon-40b": ("falcon", stack("L", 60)),
    "falcon-7b": ("falcon", stack("L", 32)),
    "gemma2-9b": ("gemma2", stack("L", 42)),
    "gemma3-1b": ("gemma3", stack("L", 26)),
    "gemma3-27b": ("gemma3", stack("L", 62)),
    "gguf-llama": ("gguf-llm", stack("L", 32)),
    "gpt-neox-20b": ("gpt-neox", stack("L", 44)),
    "gpt-oss-20b": ("gpt-oss", stack("L", 24)),
    "gpt-oss-20b-bf16": ("gpt-oss", stack("L", 24)),
    "gpt2": ("gpt2", stack("L", 12)),
    "granite": ("llama", stack("L", 40)),
    "llama2-7b": ("llama", stack("L", 32)),
    "llama31-8b": ("llama", stack("L", 32)),
    "llama31-8b-fp8-compressed-tensors": ("llama", stack("L", 32)),
    "llama32-1b": ("llama", stack("L", 16)),
    "llama4-scout": ("llama4", stack("L", 48)),
    "llava-15": ("llama", stack("L", 32)),
    "mistral-7b": ("llama", stack("L", 32)),
    "mixtral-8x7b": ("mixtral", stack("L", 32)),
    "modernbert": ("modernbert", stack("L", 22)),
    "olmo2": ("llama-like", stack("L", 32)),
    "phi3-mini": ("phi3", stack("L", 32)),
    "phi4": ("phi3", stack("L", 40)),
    "qwen2-7b": ("qwen2", stack("L", 28)),
    "qwen2-moe-57b": ("qwen2-moe", stack("L", 28)),
    "qwen25-vl-7b": ("qwen2", stack("L", 28)),
    "qwen3-8b": ("qwen3", stack("L", 36)),
    "qwen3-moe-30b": ("qwen3-moe", stack("L", 48)),
    "roberta-base": ("roberta", stack("L", 12)),
    "siglip": ("siglip-text", stack("L", 12)),
    "vit-base": ("vit", stack("L", 12)),
    "whisper-small": ("whisper", stack("ENC", 12) + stack("DEC", 12)),
}

# What stands before the keys of the base model in a file with a head, or would.
PREFIXES = {
    **{name: "model." for name in MODELS if MODELS[name][0] not in ("gguf-llm", "siglip-text", "llama4")},
    **dict.fromkeys(("falcon-40b", "falcon-7b", "gpt2"), "transformer."),
    "bert-base": "bert.",
    "bert-base-bare": "bert.",
    "roberta-base": "roberta.",
    "gpt-neox-20b": "gpt_neox.",
    "vit-base": "vit.",
}
TOWERS = {"gemma3-27b", "llava-15", "qwen25-vl-7b"}  # have their prefixes inside others

every_model = pytest.mark.parametrize("name", sorted(MODELS))


@cache
def infos(name: str) -> list[TensorInfo]:
    """The tensors of a layout; of hundreds of experts alike the first and the last."""
    tensors = every_expert(name)
    last = max((int(m[1]) for i in tensors if (m := EXPERT.search(i.key))), default=0)
    return [i for i in tensors if not (m := EXPERT.search(i.key)) or int(m[1]) in (0, last)]


@cache
def every_expert(name: str) -> list[TensorInfo]:
    if name not in layouts.names():
        pytest.skip(f"needs {name}.layout")
    return layouts.infos(name)


@cache
def found(name: str) -> Categorized:
    return categorize(infos(name))


def tensor(key: str, dtype: str = "BF16", shape: tuple[int, ...] = (2, 2), *, part: str = "") -> TensorInfo:
    return TensorInfo(key, dtype, shape, offset=0, nbytes=0, part=part)


def sketch(*keys: str, part: str = "") -> list[TensorInfo]:
    """Tensors with these keys; `key:3` has three axes, others have two."""
    split = [key.partition(":") for key in keys]
    before = f"{part}." if part else ""
    return [tensor(before + key, shape=(2,) * int(axes or 2), part=part) for key, _, axes in split]


def label(*keys: str) -> Categorized:
    return categorize(sketch(*keys))


def renamed(tensors: list[TensorInfo], old: str, new: str) -> list[TensorInfo]:
    return [tensor(new + i.key.removeprefix(old), i.dtype, i.shape) for i in tensors]


# --- What a model is ---


@every_model
def test_models_are_recognised_with_their_blocks_in_order(name: str) -> None:
    """The names alone tell the architecture; its layers are the blocks."""
    assert MODELS[name] == (found(name).architecture, found(name).blocks)


@every_model
def test_rules_know_every_key_of_a_model(name: str) -> None:
    """At least 99.5 % of the keys and 99.9 % of the elements have a rule; what follows guesses nothing."""
    rules = {rules.name: rules for rules in architectures()}
    known = {
        key
        for network in found(name).networks
        for key, inside in network.names.items()
        if network.architecture in rules and rules[network.architecture].rule_of(inside)
    }
    elements = {info.key: math.prod(info.shape) for info in infos(name)}
    unknown = sorted(set(elements) - known)
    assert len(unknown) <= 0.005 * len(elements), unknown[:9]
    assert sum(elements[key] for key in unknown) <= 0.001 * sum(elements.values()), unknown[:9]


@every_model
def test_every_key_of_a_model_stands_on_every_axis(name: str) -> None:
    """Components are clean and say something; a group begins its component at a segment's border."""
    labels = found(name).labels
    assert [info.key for info in infos(name)] == list(labels)
    for value in set(labels.values()):
        assert value.block in {*found(name).blocks, "BASE"}
        assert CLEAN.fullmatch(value.component)
        assert not {"uncategorized", "other"} & set(value.component.split("/"))
        assert f"{value.component}/".startswith(f"{value.group}/")


@every_model
def test_layers_are_blocks_and_all_else_is_base(name: str) -> None:
    """The block of a key is the first number in it, in the network that has the blocks."""
    main = found(name).networks[0]
    both = MODELS[name][1][0].startswith("ENC")
    for key, inside in main.names.items():
        number = re.search(r"(?:layers?|h|blk)\.(\d+)\.", inside)
        stem = ("ENC" if "encoder.layers" in inside else "DEC") if both else "L"
        expected = f"{stem}{int(number[1]):02}" if number else "BASE"
        assert expected == found(name).labels[key].block


@every_model
def test_narrow_models_have_the_labels_of_wide_ones(name: str) -> None:
    """Sizes tell nothing: a model whose axes are all shorter is what it was."""
    narrow = [tensor(i.key, i.dtype, tuple(-(-n // 64) for n in i.shape)) for i in infos(name)]
    small = categorize(narrow)
    assert (found(name).architecture, found(name).labels) == (small.architecture, small.labels)


def test_every_expert_is_labelled_as_the_first_and_the_last() -> None:
    """A model of 92,000 tensors is no other than one with two experts in a layer."""
    name = "deepseek-v3"
    model = categorize(every_expert(name))
    assert len(model.labels) == model.networks[0].known > 90_000
    assert MODELS[name] == (model.architecture, model.blocks)
    assert set(found(name).labels.values()) == set(model.labels.values())


@pytest.mark.parametrize("name", sorted(set(PREFIXES) - TOWERS))
def test_base_models_have_the_labels_of_models_with_heads(name: str) -> None:
    """Without its head, and without the word before its keys, a model has the same labels."""
    prefix, tensors = PREFIXES[name], infos(name)
    base = [info for info in tensors if info.key.startswith(prefix)]
    old, new = (prefix, "") if base else ("", prefix)
    base = base or tensors
    other = categorize(renamed(base, old, new))
    assert found(name).blocks == other.blocks
    assert [found(name).labels[info.key] for info in base] == list(other.labels.values())


# --- Where a key stands ---

EXPERTS, SHARED = "mlp/experts", "mlp/shared_experts"

TELLING = [
    ("llama2-7b", "model.layers.31.self_attn.q_proj.weight", "L31 self_attn/q_proj weight self_attn"),
    ("llama2-7b", "model.layers.0.mlp.down_proj.weight", "L00 mlp/down_proj weight mlp"),
    ("llama2-7b", "model.layers.0.input_layernorm.weight", "L00 input_layernorm weight input_layernorm"),
    ("llama2-7b", "model.embed_tokens.weight", "BASE embed_tokens weight embed_tokens"),
    ("llama2-7b", "model.norm.weight", "BASE norm weight norm"),
    ("llama2-7b", "lm_head.weight", "BASE lm_head weight lm_head"),
    ("qwen2-7b", "model.layers.3.self_attn.k_proj.bias", "L03 self_attn/k_proj bias self_attn"),
    ("qwen2-moe-57b", "model.layers.3.mlp.gate.weight", "L03 mlp/gate weight mlp/gate"),
    (
        "qwen2-moe-57b",
        "model.layers.3.mlp.shared_expert.up_proj.weight",
        "L03 mlp/shared_expert/up_proj weight mlp/shared_expert",
    ),
    (
        "qwen2-moe-57b",
        "model.layers.3.mlp.shared_expert_gate.weight",
        "L03 mlp/shared_expert_gate weight mlp/shared_expert_gate",
    ),
    ("qwen3-8b", "model.layers.3.self_attn.q_norm.weight", "L03 self_attn/q_norm weight self_attn"),
    (
        "qwen3-moe-30b",
        "model.layers.47.mlp.experts.127.down_proj.weight",
        f"L47 {EXPERTS}/down_proj weight {EXPERTS}",
    ),
    (
        "mixtral-8x7b",
        "model.layers.31.block_sparse_moe.experts.7.w2.weight",
        "L31 block_sparse_moe/experts/w2 weight block_sparse_moe/experts",
    ),
    (
        "mixtral-8x7b",
        "model.layers.31.block_sparse_moe.gate.weight",
        "L31 block_sparse_moe/gate weight block_sparse_moe/gate",
    ),
    (
        "gemma2-9b",
        "model.layers.0.pre_feedforward_layernorm.weight",
        "L00 pre_feedforward_layernorm weight pre_feedforward_layernorm",
    ),
    ("gemma3-1b", "model.layers.0.self_attn.k_norm.weight", "L00 self_attn/k_norm weight self_attn"),
    ("phi3-mini", "model.layers.0.self_attn.qkv_proj.weight", "L00 self_attn/qkv_proj weight self_attn"),
    ("phi3-mini", "model.layers.0.mlp.gate_up_proj.weight", "L00 mlp/gate_up_proj weight mlp"),
    ("gpt2", "h.11.attn.c_attn.weight", "L11 attn/c_attn weight attn"),
    ("gpt2", "h.11.attn.bias", "L11 attn/mask other attn"),
    ("gpt2", "wpe.weight", "BASE wpe weight wpe"),
    (
        "gpt-neox-20b",
        "gpt_neox.layers.0.attention.query_key_value.bias",
        "L00 attention/query_key_value bias attention",
    ),
    ("gpt-neox-20b", "gpt_neox.layers.0.attention.bias", "L00 attention/mask other attention"),
    (
        "gpt-neox-20b",
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
        "L00 attention/rotary_emb other attention",
    ),
    ("gpt-neox-20b", "embed_out.weight", "BASE embed_out weight embed_out"),
    (
        "falcon-7b",
        "transformer.h.0.self_attention.query_key_value.weight",
        "L00 self_attention/query_key_value weight self_attention",
    ),
    ("falcon-40b", "transformer.h.0.ln_attn.bias", "L00 ln_attn bias ln_attn"),
    (
        "deepseek-v3",
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
        "L00 self_attn/kv_a_proj_with_mqa weight self_attn",
    ),
    (
        "deepseek-v3",
        "model.layers.60.mlp.experts.255.gate_proj.weight",
        f"L60 {EXPERTS}/gate_proj weight {EXPERTS}",
    ),
    ("deepseek-v3", "model.layers.2.mlp.gate_proj.weight", "L02 mlp/gate_proj weight mlp"),
    (
        "deepseek-v3",
        "model.layers.3.mlp.shared_experts.up_proj.weight",
        f"L03 {SHARED}/up_proj weight {SHARED}",
    ),
    ("deepseek-v3", "model.layers.3.mlp.gate.e_score_correction_bias", "L03 mlp/gate bias mlp/gate"),
    ("deepseek-v3", "model.layers.61.eh_proj.weight", "L61 eh_proj weight eh_proj"),
    ("llama4-scout", "language_model.model.embed_tokens.weight", "BASE embed_tokens weight embed_tokens"),
    (
        "llama4-scout",
        "language_model.model.layers.47.feed_forward.experts.gate_up_proj",
        "L47 feed_forward/experts/gate_up_proj weight feed_forward/experts",
    ),
    (
        "llama4-scout",
        "language_model.model.layers.0.feed_forward.router.weight",
        "L00 feed_forward/router weight feed_forward/router",
    ),
    (
        "llama4-scout",
        "vision_model.vision_adapter.mlp.fc1.weight",
        "BASE vision_adapter/mlp/fc1 weight vision_adapter",
    ),
    (
        "gpt-oss-20b-bf16",
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        f"L00 {EXPERTS}/gate_up_proj bias {EXPERTS}",
    ),
    (
        "gpt-oss-20b",
        "model.layers.0.mlp.experts.down_proj_blocks",
        f"L00 {EXPERTS}/down_proj other {EXPERTS}",
    ),
    (
        "llama31-8b-fp8-compressed-tensors",
        "model.layers.0.self_attn.q_proj.weight_scale",
        "L00 self_attn/q_proj other self_attn",
    ),
    ("gpt-oss-20b-bf16", "model.layers.0.self_attn.sinks", "L00 self_attn/sinks weight self_attn"),
    ("gpt-oss-20b-bf16", "model.layers.0.mlp.router.bias", "L00 mlp/router bias mlp/router"),
    (
        "bert-base",
        "bert.encoder.layer.0.attention.self.query.weight",
        "L00 attention/self/query weight attention",
    ),
    ("bert-base", "bert.encoder.layer.0.output.LayerNorm.gamma", "L00 output/LayerNorm weight output"),
    ("bert-base", "bert.embeddings.LayerNorm.beta", "BASE embeddings/LayerNorm bias embeddings"),
    ("bert-base", "cls.predictions.bias", "BASE cls/predictions bias cls"),
    ("bert-base-bare", "pooler.dense.weight", "BASE pooler/dense weight pooler"),
    ("roberta-base", "lm_head.dense.weight", "BASE lm_head/dense weight lm_head"),
    ("roberta-base", "roberta.embeddings.position_ids", "BASE embeddings/position_ids other embeddings"),
    ("modernbert", "model.layers.0.attn.Wqkv.weight", "L00 attn/Wqkv weight attn"),
    (
        "vit-base",
        "vit.encoder.layer.0.attention.attention.key.bias",
        "L00 attention/attention/key bias attention",
    ),
    ("vit-base", "vit.embeddings.cls_token", "BASE embeddings/cls_token weight embeddings"),
    ("vit-base", "classifier.weight", "BASE classifier weight classifier"),
    (
        "whisper-small",
        "model.encoder.layers.11.self_attn.v_proj.bias",
        "ENC11 self_attn/v_proj bias self_attn",
    ),
    (
        "whisper-small",
        "model.decoder.layers.0.encoder_attn.out_proj.weight",
        "DEC00 encoder_attn/out_proj weight encoder_attn",
    ),
    ("whisper-small", "model.encoder.conv1.weight", "BASE encoder/conv1 weight encoder/conv1"),
    ("gguf-llama", "blk.31.attn_q.weight", "L31 attn/attn_q weight attn"),
    ("gguf-llama", "blk.31.ffn_down.weight", "L31 ffn/ffn_down weight ffn"),
    ("gguf-llama", "token_embd.weight", "BASE token_embd weight token_embd"),
    (
        "gemma3-27b",
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        "BASE mlp/fc1 weight mlp",
    ),
    (
        "gemma3-27b",
        "multi_modal_projector.mm_input_projection_weight",
        "BASE multi_modal_projector/mm_input_projection weight multi_modal_projector",
    ),
    (
        "llava-15",
        "multi_modal_projector.linear_2.bias",
        "BASE multi_modal_projector/linear_2 bias multi_modal_projector",
    ),
    ("qwen25-vl-7b", "visual.blocks.31.attn.qkv.bias", "BASE attn/qkv bias attn"),
    ("qwen25-vl-7b", "visual.merger.mlp.2.weight", "BASE merger/mlp weight merger"),
]


@pytest.mark.parametrize(("name", "key", "expected"), TELLING, ids=[f"{n}:{k}" for n, k, _ in TELLING])
def test_telling_keys_stand_where_their_community_looks(name: str, key: str, expected: str) -> None:
    """Block, component, kind and group of a key are those of the words in it."""
    labels = found(name).labels[key]
    assert expected == f"{labels.block} {labels.component} {labels.kind} {labels.group}"


@every_model
def test_towers_are_parts_of_their_own(name: str) -> None:
    """A language model is the transformer; what sees for it is an image encoder."""
    expected = {
        key: IMAGE
        if key.startswith(("visual.", "vision_tower.", "vision_model."))
        else "text_encoder"
        if name == "siglip"
        else "transformer"
        for key in found(name).labels
    }
    assert expected == {key: labels.part for key, labels in found(name).labels.items()}


def test_masks_and_indices_count_in_no_total() -> None:
    """The tables that old files hold are listed and not measured."""
    tables = {
        "gpt2": "h.0.attn.bias",
        "gpt-neox-20b": "gpt_neox.layers.0.attention.masked_bias",
        "roberta-base": "roberta.embeddings.position_ids",
    }
    for name, key in tables.items():
        assert not found(name).labels[key].counted
        assert sum(not labels.counted for labels in found(name).labels.values()) >= 1


# --- Variants of published files ---


def llama(layers: int = 2, *, prefix: str = "model.") -> list[str]:
    attention = [f"self_attn.{p}_proj.weight" for p in "qkvo"]
    feed_forward = [f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
    norms = ["input_layernorm.weight:1", "post_attention_layernorm.weight:1"]
    inner = (*attention, *feed_forward, *norms)
    ends = [f"{prefix}embed_tokens.weight", f"{prefix}norm.weight:1"]
    return [*ends, *(f"{prefix}layers.{n}.{name}" for n in range(layers) for name in inner)]


@pytest.mark.parametrize(
    "suffixes",
    [
        ("qweight", "qzeros", "scales", "g_idx"),
        ("weight", "weight_scale", "input_scale"),
        ("weight", "weight_scale_inv"),
        ("weight_packed", "weight_scale", "weight_shape"),
        ("weight", "weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"),
    ],
)
def test_quantised_layers_keep_the_component_of_their_weight(suffixes: tuple[str, ...]) -> None:
    """GPTQ, AWQ, fp8, compressed-tensors and bitsandbytes store more tensors in the same modules."""
    keys = []
    for key in llama():
        module = key.removesuffix(".weight")
        keys += [f"{module}.{suffix}" for suffix in suffixes] if "_proj" in key else [key]
    model = label(*keys)
    assert ("llama", ("L00", "L01")) == (model.architecture, model.blocks)
    expected = label(*llama()).labels["model.layers.1.mlp.up_proj.weight"]
    for suffix in suffixes:
        labels = model.labels[f"model.layers.1.mlp.up_proj.{suffix}"]
        assert (expected.block, expected.component, expected.group) == (
            labels.block,
            labels.component,
            labels.group,
        )


@pytest.mark.parametrize("head", ["lm_head.weight", "score.weight", "classifier.bias:1", "qa_outputs.weight"])
def test_heads_are_components_of_their_own(head: str) -> None:
    """A head, whichever it is, is in no block; a model without one is what it is with it."""
    model = label(*llama(), head)
    key = head.partition(":")[0]
    word, kind = key.split(".")
    assert Labels("transformer", "BASE", word, kind, word) == model.labels[key]
    assert label(*llama()).architecture == model.architecture


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([], "llama"),
        (["self_attn.rotary_emb.inv_freq:1", "self_attn.k_scale:1"], "llama"),
        (["self_attn.q_proj.bias:1"], "qwen2"),
        (["self_attn.q_proj.bias:1", "self_attn.o_proj.bias:1"], "llama-like"),
        (["self_attn.q_norm.weight:1"], "qwen3"),
        (["self_attn.q_norm.weight:2"], "llama-like"),
        (["input_layernorm.bias:1"], "llama-like"),
        (["pre_feedforward_layernorm.weight:1", "post_feedforward_layernorm.weight:1"], "gemma2"),
        (["mlp.experts.0.up_proj.weight", "mlp.experts.1.up_proj.weight"], "moe-like"),
        (["mlp.experts.0.up_proj.weight", "mlp.gate.weight", "self_attn.q_norm.weight:1"], "qwen3-moe"),
        (["mlp.experts.gate_up_proj:3", "mlp.gate.weight", "self_attn.q_norm.weight:1"], "qwen3-moe"),
        (["block_sparse_moe.input_linear.weight:3"], "moe-like"),
        (
            ["mlp.experts.gate_up_proj_blocks:4", "self_attn.sinks:1", "mlp.router.bias:1"],
            "gpt-oss",
        ),
        (
            ["linear_attn.in_proj_qkvz.weight", "mlp.experts.0.up_proj.weight", "self_attn.q_norm.weight:1"],
            "qwen3-next",
        ),
    ],
)
def test_one_name_tells_relatives_apart(extra: list[str], expected: str) -> None:
    """What a layer has beyond Llama's names, and nothing else, makes it another architecture."""
    assert (
        expected
        == label(*llama(), *(f"model.layers.{n}.{name}" for n in (0, 1) for name in extra)).architecture
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            [
                *("h.0.self_attention.query_key_value.weight", "word_embeddings.weight"),
                "word_embeddings_layernorm.weight:1",
            ],
            ("bloom", ("L00",)),
        ),
        (
            ["transformer.layer.0.attention.q_lin.weight", "transformer.layer.0.ffn.lin1.weight"],
            ("distilbert", ("L00",)),
        ),
        (
            [
                *(
                    "embeddings.patch_embeddings.projection.weight:4",
                    "encoder.layer.0.layer_scale1.lambda1:1",
                ),
                "encoder.layer.0.attention.attention.query.weight",
            ],
            ("dinov2", ("L00",)),
        ),
        (
            [
                *("encoder.conv1.weight:3", "encoder.blocks.0.attn.query.weight"),
                *("decoder.blocks.0.cross_attn.query.weight", "decoder.blocks.1.mlp.0.weight"),
            ],
            ("whisper-openai", ("ENC00", "DEC00", "DEC01")),
        ),
        (
            [
                "electra.encoder.layer.0.attention.self.query.weight",
                "electra.encoder.layer.0.intermediate.dense.bias",
                "electra.embeddings.word_embeddings.weight",
                "electra.embeddings_project.weight",
            ],
            ("bert", ("L00",)),
        ),
    ],
    ids=["bloom", "distilbert", "dinov2", "whisper-openai", "electra"],
)
def test_further_models_are_known_by_a_few_names(
    keys: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    """What makes a model its architecture is enough of it."""
    model = label(*keys)
    assert expected == (model.architecture, model.blocks)
    assert model.networks[0].known == len(keys)


def test_bert_without_a_sign_of_roberta_is_of_the_family() -> None:
    """Inside they have the same names: the word before them tells, or the head."""
    inner = ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.intermediate.dense.weight"]
    inner.append("embeddings.word_embeddings.weight")
    assert "bert" == label(*inner).architecture
    assert "roberta" == label(*inner, "lm_head.dense.weight").architecture
    assert "roberta" == label(*(f"roberta.{name}" for name in inner)).architecture


# --- Language models in other places ---


@pytest.mark.parametrize("prefix", ["text_encoders.llama.transformer.", "text_encoder."])
def test_a_language_model_can_be_a_text_encoder(prefix: str) -> None:
    """Before an image model its components are the same, and its layers no blocks."""
    unet = "model.diffusion_model.net.0.weight"
    model = label(unet, *(prefix + key for key in llama()))
    labels = model.labels[f"{prefix}model.layers.1.mlp.up_proj.weight"]
    assert Labels("text_encoder", "BASE", "mlp/up_proj", "weight", "mlp") == labels


@pytest.mark.parametrize("inner", ["model.", "model.language_model."])
def test_a_language_model_with_eyes_can_be_a_text_encoder(inner: str) -> None:
    """In the folder of a pipeline the vision tower is part of the text encoder."""
    visual = "visual." if inner == "model." else "model.visual."
    seen = [
        "blocks.0.attn.qkv.weight",
        "blocks.0.norm1.weight:1",
        "patch_embed.proj.weight:5",
        "merger.ln_q.weight:1",
    ]
    keys = [*llama(prefix=inner), *(f"{inner}layers.{n}.self_attn.q_proj.bias:1" for n in (0, 1))]
    keys += [visual + key for key in seen]
    outside = tensor("transformer.net.weight", part="transformer")
    model = categorize([*sketch(*keys, part="text_encoder"), outside])
    network = next(network for network in model.networks if network.part == "text_encoder")
    assert ("qwen-vl", len(keys)) == (network.architecture, network.known)
    assert (
        Labels("text_encoder", "BASE", "attn/qkv", "weight", "attn")
        == (model.labels[f"text_encoder.{visual}blocks.0.attn.qkv.weight"])
    )


def test_every_name_of_llama_cpp_has_a_rule() -> None:
    """The names that llama.cpp gives to the tensors of a decoder are all known, old spellings included."""
    constants = pytest.importorskip("gguf.constants")
    rules = next(rules for rules in architectures() if rules.name == "gguf-llm")
    names = [name.replace("{bid}", "7") for name in constants.TENSOR_NAMES.values()]
    layer = [f"{name}.weight" for name in names if name.startswith("blk.")]
    ends = [f"{name}.weight" for name in ("token_embd", "output", "output_norm", "rope_freqs", "token_types")]
    assert layer
    assert {"L07"} == {position.block for name in layer if (position := rules.position(name))}
    assert [] == [name for name in layer + ends if rules.position(name) is None]
