"""Every key of a real model stands where it should on the four axes."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from analyzer.categories import categorize
from analyzer.records import Categorized, Labels, TensorInfo

SHARED = Path(__file__).resolve().parents[3] / "shared"
UNET = "model.diffusion_model."
IN, OUT = [f"IN{n:02}" for n in range(12)], [f"OUT{n:02}" for n in range(12)]
SD1_BLOCKS = (*IN, "M00", *OUT)
CLEAN = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")

# What a U-Net of SD 1.x must show to be one, for the tests that need no complete file.
SD1_SIGN = f"{UNET}output_blocks.9.1.transformer_blocks.0.attn2.to_k.weight"


def tensor(key: str, dtype: str = "F16", shape: tuple[int, ...] = (2, 2)) -> TensorInfo:
    return TensorInfo(key, dtype, shape, offset=0, nbytes=0)


def label(*keys: str) -> Categorized:
    return categorize([tensor(key) for key in keys])


def numbered(template: str, count: int) -> list[str]:
    return [template.replace("#", str(number)) for number in range(count)]


def layout(name: str) -> list[TensorInfo]:
    """The tensors of one of the real layouts."""
    file = SHARED / "layouts" / f"{name}.tsv"
    if not file.exists():
        pytest.skip(f"needs the layout {file.name}")
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    return [tensor(key, dtype, tuple(int(n) for n in shape.split("x") if n)) for key, shape, dtype in rows]


@pytest.fixture(scope="module")
def sd1() -> list[TensorInfo]:
    return layout("sd15-ldm")


def live(infos: Iterable[TensorInfo]) -> list[TensorInfo]:
    return [info for info in infos if not info.key.startswith("model_ema")]


def rename(infos: Iterable[TensorInfo], old: str, new: str) -> list[TensorInfo]:
    return [tensor(new + i.key.removeprefix(old), i.dtype, i.shape) for i in infos if i.key.startswith(old)]


def without_key(labels: Labels) -> tuple[str, ...]:
    return labels.block, labels.component, labels.kind, labels.group


# --- Stable Diffusion 1.x ---


def test_sd1_is_recognised_with_its_25_blocks_in_network_order(sd1: list[TensorInfo]) -> None:
    """A complete checkpoint is an SD 1.x, and block weights address IN00 … M00 … OUT11."""
    found = categorize(sd1)
    assert ("sd1", "Stable Diffusion 1.x", SD1_BLOCKS) == (found.architecture, found.title, found.blocks)


def test_sd1_parts_have_as_many_keys_as_their_prefixes(sd1: list[TensorInfo]) -> None:
    """The parts are what the first words of the keys say."""
    prefixes = {
        "unet": UNET,
        "text_encoder": "cond_stage_model.",
        "vae": "first_stage_model.",
        "ema": "model_ema.",
    }
    expected = Counter(
        next((part for part, prefix in prefixes.items() if info.key.startswith(prefix)), "other")
        for info in sd1
    )
    assert expected == Counter(labels.part for labels in categorize(sd1).labels.values())
    assert {"unet": 686, "text_encoder": 197, "vae": 248, "ema": 688, "other": 12} == expected


def test_sd1_keys_stand_on_every_axis(sd1: list[TensorInfo]) -> None:
    """No axis is empty, no component says nothing, a group begins its component at a segment's border."""
    found = categorize(sd1)
    assert [info.key for info in sd1] == list(found.labels)
    for labels in found.labels.values():
        assert labels.block in {*SD1_BLOCKS, "VAE", "BASE"}
        assert labels.kind in {"weight", "bias", "other"}
        assert CLEAN.fullmatch(labels.component)
        assert not {"uncategorized", "other"} & set(labels.component.split("/"))
        assert f"{labels.component}/".startswith(f"{labels.group}/")


def test_sd1_blocks_are_those_of_merge_block_weighted(sd1: list[TensorInfo]) -> None:
    """The number behind input_blocks and output_blocks, with time_embed in IN00 and out in OUT11."""

    def expected(key: str) -> str:
        if not key.startswith(UNET):
            return "VAE" if key.startswith("first_stage_model.") else "BASE"
        word, number = key.removeprefix(UNET).split(".")[:2]
        ends = {"time_embed": "IN00", "out": "OUT11", "middle_block": "M00"}
        return ends.get(word) or {"input_blocks": IN, "output_blocks": OUT}[word][int(number)]

    labels = categorize(sd1).labels
    keys = [info.key for info in live(sd1)]
    assert {key: expected(key) for key in keys} == {key: labels[key].block for key in keys}
    assert {*SD1_BLOCKS, "VAE", "BASE"} == {labels[key].block for key in keys}


@pytest.mark.parametrize(
    "name",
    [
        *(".time_embed", ".in_layers", ".emb_layers", ".out_layers", ".proj_in.", ".transformer_blocks."),
        *(".proj_out.", ".norm.", ".op.", ".skip_connection.", ".conv."),
        *(".attn1.", ".ff.", ".attn2.", ".norm1.", ".norm2.", ".norm3."),
    ],
)
def test_sd1_segments_hit_what_merge_block_weighted_hits(sd1: list[TensorInfo], name: str) -> None:
    """Each name in MBW's window is a segment of the components of exactly the keys that contain it."""
    labels = categorize(sd1).labels
    expected = {info.key for info in live(sd1) if name in info.key}
    segment = name.strip(".")
    assert expected
    assert expected == {i.key for i in live(sd1) if segment in labels[i.key].component.split("/")}


def test_sd1_kinds_are_the_endings_of_the_keys(sd1: list[TensorInfo]) -> None:
    """Every weight ends in weight and every bias in bias; the rest are tables and markers."""
    expected = {
        info.key: next((kind for kind in ("weight", "bias") if info.key.endswith(kind)), "other")
        for info in sd1
    }
    assert expected == {key: labels.kind for key, labels in categorize(sd1).labels.items()}


def test_sd1_counts_all_but_copies_and_tables(sd1: list[TensorInfo]) -> None:
    """The keys that count are the 1130 that training turns."""
    counted = [key for key, labels in categorize(sd1).labels.items() if labels.counted]
    expected = [info.key for info in live(sd1) if "." in info.key and info.key.endswith(("weight", "bias"))]
    assert (1130, expected) == (len(counted), counted)


def test_sd1_tables_are_schedule_and_markers_are_markers(sd1: list[TensorInfo]) -> None:
    """Neither is ever `other` on the component axis."""
    labels = categorize([*sd1, tensor("v_pred", shape=(0,)), tensor("ztsnr", shape=(0,))]).labels
    schedule = Labels("other", "BASE", "schedule", "other", "schedule", counted=False)
    marker = Labels("other", "BASE", "marker", "other", "marker", counted=False)
    top = [info.key for info in sd1 if "." not in info.key]
    assert 12 == len(top)
    assert dict.fromkeys(top, schedule) == {key: labels[key] for key in top}
    assert (marker, marker) == (labels["v_pred"], labels["ztsnr"])


def test_sd1_groups_have_names_of_their_own(sd1: list[TensorInfo]) -> None:
    """The last segment of a group, which tables show, belongs to no other group."""
    groups = {labels.group for labels in categorize(sd1).labels.values()}
    assert len(groups) == len({group.rsplit("/", 1)[-1] for group in groups})
    assert {"transformer_blocks/attn1", "transformer_blocks/attn2", "transformer_blocks/ff"} < groups


def test_sd1_position_ids_are_a_table_in_any_dtype() -> None:
    """A cast to floats does not make weights of them."""
    clip = "cond_stage_model.transformer.text_model"
    key = f"{clip}.embeddings.position_ids"
    signs = [f"{clip}.encoder.layers.0.self_attn.q_proj.weight", f"{clip}.embeddings.token_embedding.weight"]
    for dtype in ("I64", "F32", "F16"):
        infos = [*map(tensor, (SD1_SIGN, *signs)), tensor(key, dtype, (1, 77))]
        found = categorize(infos).labels[key]
        expected = Labels(
            "text_encoder", "BASE", "embeddings/position_ids", "other", "embeddings", counted=False
        )
        assert expected == found


@pytest.mark.parametrize("prefix", ["diffusion_model.", ""])
def test_sd1_is_recognised_as_a_unet_alone(sd1: list[TensorInfo], prefix: str) -> None:
    """With a short prefix or none the same keys get the same labels."""
    whole = categorize(sd1).labels
    alone = categorize(rename(sd1, UNET, prefix))
    assert "sd1" == alone.architecture
    assert {key.removeprefix(UNET): labels for key, labels in whole.items() if labels.part == "unet"} == {
        key.removeprefix(prefix): labels for key, labels in alone.labels.items()
    }


def test_sd1_text_encoder_may_lack_text_model(sd1: list[TensorInfo]) -> None:
    """Some checkpoints leave this word out of the keys; nothing else changes."""
    whole = categorize(sd1).labels
    short = categorize([tensor(i.key.replace(".text_model", ""), i.dtype, i.shape) for i in sd1]).labels
    assert [*whole.values()] == [*short.values()]


def test_sd1_may_be_narrow_or_for_inpainting(sd1: list[TensorInfo]) -> None:
    """Sizes do not count: an eighth of the channels, or nine instead of four at the entry."""
    narrow = [tensor(i.key, i.dtype, tuple(max(1, n // 8) for n in i.shape)) for i in sd1]
    inpainting = [
        tensor(i.key, i.dtype, (320, 9, 3, 3)) if i.key.endswith("input_blocks.0.0.weight") else i
        for i in sd1
    ]
    assert categorize(sd1) == categorize(narrow) == categorize(inpainting)


def test_sd1_that_lacks_blocks_keeps_their_names() -> None:
    """Block weights always address 25 blocks."""
    assert SD1_BLOCKS == label(SD1_SIGN).blocks


def test_sd2_is_not_sd1(sd1: list[TensorInfo]) -> None:
    """Linear projections around the transformers make it an SD 2.x, whatever its text encoder is."""
    linear = [
        tensor(i.key, i.dtype, i.shape[:2] if "proj_in" in i.key else i.shape) for i in rename(sd1, UNET, "")
    ]
    assert ("sd2", SD1_BLOCKS) == (categorize(linear).architecture, categorize(linear).blocks)
    open_clip = [*rename(sd1, UNET, UNET), tensor("cond_stage_model.model.ln_final.weight")]
    assert "sd1" == categorize(open_clip).architecture


def test_sdxl_is_not_sd1() -> None:
    """Nine blocks on either side; also as a U-Net alone. What has label_emb besides twelve is no SD 1.x."""
    infos = layout("sdxl-sgm")
    assert "sdxl" == categorize(infos).architecture
    assert "sdxl" == categorize(rename(infos, UNET, "")).architecture
    assert "generic" == label(SD1_SIGN, f"{UNET}label_emb.0.0.weight").architecture


@pytest.mark.parametrize("block", ["input_blocks.9", "input_blocks.11", "output_blocks.10"])
def test_twelve_blocks_and_transformers_make_an_sd1(block: str) -> None:
    """With one of the last blocks a part of the keys is enough, without any it is another U-Net."""
    attention = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    assert "sd1" == label(attention, f"{UNET}{block}.0.op.weight").architecture
    assert "generic" == label(attention, f"{UNET}input_blocks.8.0.op.weight").architecture
    assert "generic" == label(f"{UNET}{block}.0.op.weight").architecture


def test_sd1_puts_extensions_into_their_block() -> None:
    """A key that no rule spells out has the block it lies in, or BASE, never a block of its own making."""
    inside, outside = (
        f"{UNET}input_blocks.3.0.op.lora_down.weight",
        "control_model.input_blocks.3.0.op.weight",
    )
    beyond = f"{UNET}input_blocks.12.0.op.weight"
    labels = label(SD1_SIGN, inside, outside, beyond).labels
    assert Labels("unet", "IN03", "op/lora_down", "weight", "op") == labels[inside]
    assert (
        Labels("other", "BASE", "control_model/input_blocks/op", "weight", "control_model") == labels[outside]
    )
    assert ("unet", "BASE") == (labels[beyond].part, labels[beyond].block)


# --- EMA copies ---


def test_ema_copies_stand_where_the_live_keys_do(sd1: list[TensorInfo]) -> None:
    """Names without dots are resolved with the live keys of the same file."""
    labels = categorize(sd1).labels
    copies = {f"model_ema.{i.key.removeprefix('model.').replace('.', '')}": i.key for i in live(sd1)}
    found = {key: without_key(value) for key, value in labels.items() if key in copies}
    assert 686 == len(found)
    assert {key: without_key(labels[copies[key]]) for key in found} == found
    assert {"ema"} == {labels[key].part for key in found}
    assert {False} == {labels[key].counted for key in found}


def test_ema_copies_alone_are_resolved_by_rule(sd1: list[TensorInfo]) -> None:
    """Without live keys the same file is still an SD 1.x, and its copies have the same labels."""
    whole = categorize(sd1).labels
    alone = categorize([info for info in sd1 if info.key.startswith("model_ema")])
    assert ("sd1", 688) == (alone.architecture, len(alone.labels))
    assert {key: labels for key, labels in whole.items() if labels.part == "ema"} == alone.labels


@pytest.mark.parametrize("sign", [SD1_SIGN, f"model_ema.{SD1_SIGN.removeprefix('model.').replace('.', '')}"])
@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("input_blocks100emb_layers1bias", "IN10"),
        ("input_blocks10emb_layers1bias", "IN01"),
        ("input_blocks00weight", "IN00"),
        ("output_blocks110in_layers0weight", "OUT11"),
    ],
)
def test_ema_numbers_without_dots_are_told_apart(sign: str, name: str, block: str) -> None:
    """`100` is block 10, module 0; `10` is block 1, module 0."""
    key = f"model_ema.diffusion_model{name}"
    assert block == label(sign, key).labels[key].block


def test_ema_live_keys_go_before_rules() -> None:
    """What the file itself shows is more certain than a rule."""
    copy, strange = "model_ema.diffusion_modelinput_blocks10opweight", f"{UNET}input_blocks.10.op.weight"
    assert "IN01" == label(SD1_SIGN, copy).labels[copy].block
    labels = label(SD1_SIGN, copy, strange).labels
    assert without_key(labels[strange]) == without_key(labels[copy])


def test_ema_bookkeeping_is_a_marker() -> None:
    """Decay and the count of updates are flags of the part ema, in every architecture."""
    expected = Labels("ema", "BASE", "marker", "other", "marker", counted=False)
    for sign in (SD1_SIGN, "fc.weight"):
        labels = label(sign, "model_ema.decay", "model_ema.num_updates").labels
        assert (expected, expected) == (labels["model_ema.decay"], labels["model_ema.num_updates"])


def test_ema_copies_of_unknown_models_stand_where_the_live_keys_do() -> None:
    """With dots or without, and by their own name where there is no live key."""
    keys = numbered("net.layers.#.attn.q.weight", 3)
    labels = label(*keys, *(f"model_ema.{k}" for k in keys), "model_ema.netlayers1attnqweight").labels
    for number, key in enumerate(keys):
        expected = Labels("ema", f"L{number:02}", "attn/q", "weight", "attn", counted=False)
        assert expected == labels[f"model_ema.{key}"]
    assert labels[f"model_ema.{keys[1]}"] == labels["model_ema.netlayers1attnqweight"]
    alone = label("model_ema.headbias").labels["model_ema.headbias"]
    assert Labels("ema", "BASE", "head", "bias", "head", counted=False) == alone


# --- Real layouts that no rule file knows ---


@pytest.mark.parametrize(
    ("name", "stack", "groups"),
    [
        (
            "llama",
            "model.layers.",
            {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
        ),
        ("bert", "encoder.layer.", {"attention", "intermediate", "output"}),
    ],
)
def test_real_layered_layouts_get_layers(name: str, stack: str, groups: set[str]) -> None:
    """The number of the layer is the block; the groups are the first words inside a layer."""
    infos = layout(name)
    found = categorize(infos)
    expected = {
        i.key: f"L{int(i.key.removeprefix(stack).split('.')[0]):02}" if i.key.startswith(stack) else "BASE"
        for i in infos
    }
    assert expected == {key: labels.block for key, labels in found.labels.items()}
    assert tuple(sorted(set(expected.values()) - {"BASE"})) == found.blocks
    assert groups == {labels.group for labels in found.labels.values() if labels.block != "BASE"}
    assert {"transformer"} == {labels.part for labels in found.labels.values()}


def test_unknown_unet_gets_the_blocks_of_a_unet() -> None:
    """SDXL without what makes it one: nine blocks on either side, text encoders in none."""
    infos = [i for i in layout("sdxl-sgm") if "label_emb" not in i.key]
    found = categorize(infos)
    assert ("generic", (*IN[:9], "M00", *OUT[:9])) == (found.architecture, found.blocks)
    labels = found.labels
    key = f"{UNET}output_blocks.1.1.transformer_blocks.9.attn2.to_k.weight"
    assert (
        Labels("unet", "OUT01", "transformer_blocks/attn2/to_k", "weight", "transformer_blocks/attn2")
        == labels[key]
    )
    blocks = defaultdict(set)
    for value in labels.values():
        blocks[value.part].add(value.block)
    assert ({"BASE"}, {"VAE"}, {"BASE"}) == (blocks["text_encoder"], blocks["vae"], blocks["other"])
    assert {*found.blocks, "BASE"} == blocks["unet"]
    markers = {"v_pred", "ztsnr", "edm_vpred.sigma_min", "edm_vpred.sigma_max"}
    assert markers == {key for key, value in labels.items() if value.component == "marker"}


def test_unknown_diffusers_unet_gets_the_blocks_of_a_unet() -> None:
    """down_blocks, mid_block and up_blocks, with attention in the same words as elsewhere."""
    sides = ("down_blocks", "up_blocks")
    keys = [
        key
        for side in sides
        for key in numbered(f"{side}.#.attentions.0.transformer_blocks.0.attn1.to_q.weight", 3)
    ]
    middle = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.bias"
    found = label(*keys, middle)
    assert ("generic", (*IN[:3], "M00", *OUT[:3])) == (found.architecture, found.blocks)
    group = "attentions/transformer_blocks/attn1"
    assert Labels("unet", "M00", f"{group}/to_out", "bias", group) == found.labels[middle]


def test_diffusers_unet_has_the_labels_of_the_original_layout(sd1: list[TensorInfo]) -> None:
    """The same model in diffusers' names is an SD 1.x, with as many keys of each label."""
    found = categorize(layout("sd15-diffusers-unet"))
    assert ("sd1", SD1_BLOCKS) == (found.architecture, found.blocks)
    expected = categorize(rename(sd1, UNET, "")).labels
    assert Counter(expected.values()) == Counter(found.labels.values())
    key = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.bias"
    group = "transformer_blocks/attn1"
    assert Labels("unet", "M00", f"{group}/to_out", "bias", group) == found.labels[key]


def test_the_order_of_the_file_does_not_matter(sd1: list[TensorInfo]) -> None:
    """The same keys get the same labels and blocks."""
    for infos in (sd1, layout("sdxl-sgm"), layout("bert")):
        shuffled = random.Random(0).sample(infos, len(infos))
        assert categorize(infos) == categorize(shuffled)
