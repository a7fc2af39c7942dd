"""Models that no rule file knows get blocks, parts and components from their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from analyzer.categories import categorize
from analyzer.records import Categorized, Labels, TensorInfo

# A key of a U-Net that the rules of SD 1.x take for theirs.
SD1_SIGN = "model.diffusion_model.output_blocks.9.1.transformer_blocks.0.attn2.to_k.weight"
CLEAN = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def tensor(key: str, dtype: str = "F16", shape: tuple[int, ...] = (2, 2)) -> TensorInfo:
    return TensorInfo(key, dtype, shape, offset=0, nbytes=0)


def label(*keys: str) -> Categorized:
    return categorize([tensor(key) for key in keys])


def numbered(template: str, count: int) -> list[str]:
    return [template.replace("#", str(number)) for number in range(count)]


def test_layers_of_an_unknown_model() -> None:
    """The layers are blocks; embeddings, norm and head belong to the transformer but to no block."""
    keys = [
        *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
        *numbered("model.layers.#.self_attention.q.weight", 4),
        *numbered("model.layers.#.mlp.down_proj.weight", 4),
        *numbered("model.layers.#.input_layernorm.weight", 4),
    ]
    found = label(*keys)
    assert ("generic", "generic (by key names)") == (found.architecture, found.title)
    assert ("L00", "L01", "L02", "L03") == found.blocks
    assert {
        "model.embed_tokens.weight": Labels("transformer", "BASE", "embed_tokens", "weight", "embed_tokens"),
        "model.norm.weight": Labels("transformer", "BASE", "norm", "weight", "norm"),
        "lm_head.weight": Labels("transformer", "BASE", "lm_head", "weight", "lm_head"),
        keys[3]: Labels("transformer", "L00", "self_attention/q", "weight", "self_attention"),
        keys[8]: Labels("transformer", "L01", "mlp/down_proj", "weight", "mlp"),
        keys[14]: Labels("transformer", "L03", "input_layernorm", "weight", "input_layernorm"),
    } == {key: found.labels[key] for key in (*keys[:4], keys[8], keys[14])}


def test_bert_components_keep_the_path_inside_the_layer() -> None:
    """Two dense layers of one name stay apart, and an encoder alone is layers like any others."""
    query, dense = (
        "bert.encoder.layer.#.attention.self.query.bias",
        "bert.encoder.layer.#.output.dense.weight",
    )
    found = label(
        *numbered(query, 2), *numbered(dense, 2), "bert.embeddings.LayerNorm.gamma", "cls.decoder.bias"
    )
    expected = [
        Labels("transformer", "L01", "attention/self/query", "bias", "attention"),
        Labels("transformer", "L01", "output/dense", "weight", "output"),
        Labels("transformer", "BASE", "embeddings/LayerNorm", "weight", "embeddings"),
        Labels("transformer", "BASE", "cls/decoder", "bias", "cls"),
    ]
    keys = [
        query.replace("#", "1"),
        dense.replace("#", "1"),
        "bert.embeddings.LayerNorm.gamma",
        "cls.decoder.bias",
    ]
    assert expected == [found.labels[key] for key in keys]
    assert ("L00", "L01") == found.blocks


def test_block_numbers_are_as_wide_as_the_last_one() -> None:
    """So that the order of names is the order of the network."""
    found = label(*numbered("h.#.attn.weight", 101))
    assert "L000" == found.blocks[0]
    assert sorted(found.blocks) == [*found.blocks]
    assert "L007" == found.labels["h.7.attn.weight"].block


def test_blocks_are_only_those_that_are_there() -> None:
    """The layers of a sequence without parameters are no blocks."""
    found = label("net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", "10.weight")
    assert ("L00", "L02") == found.blocks
    assert Labels("other", "L02", "net", "bias", "net") == found.labels["net.2.bias"]
    assert Labels("other", "BASE", "tensor", "weight", "tensor") == found.labels["10.weight"]


def test_words_that_only_lead_to_the_layers_are_dropped() -> None:
    """However many they are."""
    found = label(*numbered("model.text.h.#.attn.weight", 2), "model.text.norm.weight", "model.head.weight")
    assert "norm" == found.labels["model.text.norm.weight"].component
    assert "head" == found.labels["model.head.weight"].component


def test_experts_are_one_component() -> None:
    """Numbers below the layer are no blocks, and no components."""
    keys = [
        *numbered("model.layers.0.mlp.experts.#.w1.weight", 3),
        *numbered("model.layers.1.mlp.experts.#.w1.weight", 3),
    ]
    found = label(*keys, "model.layers.1.mlp.experts.gate_up_proj")
    assert {("L00", "mlp/experts/w1"), ("L01", "mlp/experts/w1"), ("L01", "mlp/experts/gate_up_proj")} == {
        (labels.block, labels.component) for labels in found.labels.values()
    }
    assert {("mlp", "weight")} == {(labels.group, labels.kind) for labels in found.labels.values()}


def test_encoder_and_decoder_have_blocks_of_their_own() -> None:
    """ENC before DEC, whichever is larger."""
    encoder, decoder = (
        "model.encoder.layers.#.self_attn.q.weight",
        "model.decoder.layers.#.self_attn.q.weight",
    )
    found = label(*numbered(encoder, 2), *numbered(decoder, 3), "model.encoder.norm.weight")
    assert ("ENC00", "ENC01", "DEC00", "DEC01", "DEC02") == found.blocks
    assert "ENC01" == found.labels[encoder.replace("#", "1")].block
    assert "DEC01" == found.labels[decoder.replace("#", "1")].block
    assert "encoder/norm" == found.labels["model.encoder.norm.weight"].component


def test_a_second_tower_has_no_blocks() -> None:
    """Two stacks never share a block's name; the components of their layers are the same words."""
    text, vision = (
        "text_model.encoder.layers.#.mlp.fc1.weight",
        "vision_model.encoder.layers.#.mlp.fc1.weight",
    )
    found = label(*numbered(text, 3), *numbered(vision, 2), "vision_model.embeddings.class_embedding")
    assert ("L00", "L01", "L02") == found.blocks
    assert Labels("transformer", "L00", "mlp/fc1", "weight", "mlp") == found.labels[text.replace("#", "0")]
    assert (
        Labels("image_encoder", "BASE", "mlp/fc1", "weight", "mlp") == found.labels[vision.replace("#", "0")]
    )
    assert "embeddings/class_embedding" == found.labels["vision_model.embeddings.class_embedding"].component


def test_twins_share_their_blocks() -> None:
    """Two copies of one network, as in the voice detector with a model for each sampling rate."""

    def half(top: str, layers: int = 4) -> list[str]:
        keys = numbered(f"{top}.encoder.#.reparam_conv.weight", layers)
        return [
            *keys,
            f"{top}.decoder.rnn.weight_hh",
            f"{top}.decoder.rnn.bias_ih",
            f"{top}.stft.basis_buffer",
        ]

    found = label(*half("_model"), *half("_model_8k"))
    assert ("ENC00", "ENC01", "ENC02", "ENC03") == found.blocks
    for top in ("_model", "_model_8k"):
        assert [
            Labels("other", "ENC03", "reparam_conv", "weight", "reparam_conv"),
            Labels("other", "BASE", "decoder/rnn/hh", "weight", "decoder"),
            Labels("other", "BASE", "decoder/rnn/ih", "bias", "decoder"),
            Labels("other", "BASE", "stft/basis_buffer", "other", "stft"),
        ] == [found.labels[key] for key in half(top)[3:]]
    uneven = label(*half("_model"), *half("_model_8k", layers=3)).labels
    assert "BASE" == uneven["_model_8k.encoder.0.reparam_conv.weight"].block
    strangers = label(*half("left"), *half("right")).labels
    assert "BASE" == strangers["right.encoder.0.reparam_conv.weight"].block


def test_nested_stacks_count_from_the_outside() -> None:
    """Stages are the blocks of a network in stages; an index that repeats nothing is none."""
    swin = label(*(f"layers.{s}.blocks.{b}.attn.qkv.weight" for s in range(3) for b in range(6)))
    assert ("L00", "L01", "L02") == swin.blocks
    resnet = label(*(f"layer{s}.{b}.conv1.weight" for s in (1, 2, 3, 4) for b in (0, 1)), "conv1.weight")
    assert ("L01", "L02", "L03", "L04") == resnet.blocks
    mixed = label("a.0.x", "a.1.x", "a.0.y", "a.1.z", "a.0.u.weight", "a.1.v.weight")
    assert () == mixed.blocks
    sentence = label(*numbered("0.auto_model.encoder.layer.#.attention.weight", 3), "2.linear.weight")
    assert ("L00", "L01", "L02") == sentence.blocks


def test_text_encoder_alone_has_layers() -> None:
    """Beside an image model its layers are BASE; in a file of its own they are blocks."""
    key = "text_encoder_2.text_model.encoder.layers.#.mlp.fc1.weight"
    alone = label(*numbered(key, 3))
    assert ("L00", "L01", "L02") == alone.blocks
    beside = label(*numbered(key, 3), *numbered("unet.blocks.#.attn.weight", 2), "head.weight")
    assert "other" == beside.labels["head.weight"].part
    assert ("L00", "L01") == beside.blocks
    expected = Labels("text_encoder_2", "BASE", "mlp/fc1", "weight", "mlp")
    assert expected == beside.labels[key.replace("#", "2")]


def test_no_keys_are_no_problem() -> None:
    """An empty model has an empty answer."""
    assert Categorized("generic", "generic (by key names)", (), {}) == categorize([])


def test_work_on_a_name_grows_no_faster_than_its_length() -> None:
    """A path of 60,000 words to a stack, whose every beginning would take 7 GB; the label is a short one."""
    path = "a." * 60_000
    found = label(*(f"{path}{number}.attn.w{tensor}" for number in range(2) for tensor in range(3)))
    assert {"BASE"} == {labels.block for labels in found.labels.values()}
    assert all(len(labels.component) <= 300 for labels in found.labels.values())


def test_a_stack_behind_forty_words_is_one_still() -> None:
    """No model has so long a path; the words that lead to the layers are dropped nevertheless."""
    found = label(*numbered("a." * 40 + "layers.#.mlp.weight", 2), "a." * 40 + "embed.weight")
    assert ("L00", "L01") == found.blocks
    assert "embed" == found.labels["a." * 40 + "embed.weight"].component


WORDS = st.sampled_from(
    [
        *("model", "layers", "layer1", "encoder", "decoder", "input_blocks", "middle_block", "output_blocks"),
        *("0", "1", "2", "10", "007", "9" * 30, "weight", "bias", "other", "marker", "attn", "position_ids"),
        *("model_ema", "vae", "te", "diffusion_model", "parametrizations", "input_blocks10opweight"),
        *("", " ", "a,b", "!x", "L00..L03", "\x00", "²", "重み"),
    ]
)
NAMES = st.one_of(st.text(max_size=30), st.lists(WORDS, max_size=9).map(".".join))


@settings(max_examples=200)
@given(
    names=st.lists(NAMES, max_size=12, unique=True), dtype=st.sampled_from(["F16", "I64", "BOOL", "F8_E4M3"])
)
@example(
    names=[
        "",
        ".",
        "..",
        "x" * 10_000,
        "1." * 5_000,
        "ab." * 5_000,
        "9" * 10_000,
        "model_ema." + "a" * 10_000,
    ],
    dtype="F32",
)
@example(
    names=["model_ema.", "model_ema", "weight", "bias", "0", "a\nb.weight\n", "../etc", "unet.", "vae."],
    dtype="F32",
)
def test_every_name_gets_a_clean_label(names: list[str], dtype: str) -> None:
    """However odd a name is, it stands on every axis, and its labels can be written in a selector."""
    found = categorize([tensor(name, dtype) for name in [*names, SD1_SIGN]])
    for case in (found, categorize([tensor(name, dtype) for name in names])):
        for name, labels in case.labels.items():
            assert re.fullmatch(r"[a-z_0-9]+", labels.part)
            assert labels.block in {*case.blocks, "BASE", "VAE"}, name
            assert labels.kind in {"weight", "bias", "other"}
            assert CLEAN.fullmatch(labels.component)
            assert len(labels.component) <= 300
            assert not {"other", "uncategorized"} & set(labels.component.lower().split("/"))
            assert f"{labels.component}/".startswith(f"{labels.group}/")
    assert {*names, SD1_SIGN} == set(found.labels)


def _families(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if match := re.match(r"(.*?)\.([0-9]+)\.", name):
            yield match[1], match[2]


@given(
    stacks=st.dictionaries(
        st.sampled_from(
            ["a.layers", "b.layers", "encoder.h", "decoder.h", "x.encoder.h", "up_blocks", "down_blocks"]
        ),
        st.integers(1, 4),
        min_size=1,
    )
)
def test_stacks_never_share_a_block(stacks: dict[str, int]) -> None:
    """A block's name stands for one layer of one stack."""
    keys = [key for prefix, depth in stacks.items() for key in numbered(f"{prefix}.#.attn.q.weight", depth)]
    found = label(*keys)
    owners = defaultdict(set)
    for key, family in zip(keys, _families(keys), strict=True):
        owners[found.labels[key].block].add(family)
    owners.pop("BASE", None)
    assert dict.fromkeys(found.blocks, 1) == {block: len(owner) for block, owner in owners.items()}
