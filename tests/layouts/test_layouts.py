"""The reader of key layouts, and that the layouts are those of the published models.

The oracle is what is known of the published files: how many keys they have, and how many bytes. A key too
many, a wrong shape or a wrong dtype shows in the last digits.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parent))
from layouts import infos, load, names, small, source, tiny, write
from notation import compress, expand, parse

SHARED = Path(__file__).resolve().parents[3] / "shared" / "layouts"


# --- The notation ---


def test_braces_are_ranges_and_choices_and_multiply_out() -> None:
    """The last braces run fastest; a choice may hold ranges; without braces a key is itself."""
    assert ["a.0.x", "a.0.y", "a.1.x", "a.1.y", "a.2.x", "a.2.y"] == list(expand("a.{0..2}.{x,y}"))
    assert ["h1", "h4", "h5", "h6"] == list(expand("h{1,4..6}"))
    assert ["betas"] == list(expand("betas"))


def test_a_line_says_dtype_and_shape() -> None:
    """`-` is a scalar, `0` is empty; comments and empty lines say nothing."""
    lines = ["# what it is", "", "a.{k,v} BF16 2x3", "logit_scale F32 -", "v_pred I64 0"]
    expected = {
        "a.k": ("BF16", (2, 3)),
        "a.v": ("BF16", (2, 3)),
        "logit_scale": ("F32", ()),
        "v_pred": ("I64", (0,)),
    }
    assert expected == parse(lines)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.{0..1} F32 2\na.1 F32 2", "second time"),
        ("a.{0..1 F32 2", "braces"),
        ("{a{b}} F32 2", "braces"),
    ],
)
def test_a_wrong_line_is_an_error(line: str, reason: str) -> None:
    """A key that stands there twice would be lost in silence."""
    with pytest.raises(ValueError, match=reason):
        parse(line.splitlines())


KEYS = st.lists(
    st.sampled_from(["model", "q", "norm_1", "07", "7", "8", "9", "12", "weight"]), min_size=1, max_size=5
)
KINDS = st.sampled_from([("F32", ()), ("F32", (2,)), ("BF16", (2, 3)), ("F32", (0,))])


@given(st.dictionaries(KEYS.map(".".join), KINDS, min_size=1, max_size=60))
def test_the_notation_says_exactly_the_keys(layout: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """What is compressed expands to itself, whatever the names look like."""
    assert layout == parse(compress(layout))


def test_layers_that_are_alike_are_one_line() -> None:
    """Members of one shape share a line, and so do the layers that have them."""
    layout = {f"h.{n}.{part}": ("F16", (4,)) for n in range(40) for part in ("q", "k", "v")}
    assert ["h.{0..39}.{q,k,v} F16 4"] == compress(layout)


# --- Are they the real thing? ---

# Single files: keys, and bytes on the disk, as download pages and manifests list them.
FILES = {
    "sd15-ldm": (1143, 4_265_146_304),
    "sd15-ldm-ema": (1831, 7_703_324_286),
    "sdxl-base-sgm": (2515, 6_938_078_334),
    "flux-dev-bfl": (780, 23_802_932_552),
    "flux-schnell-bfl": (776, 23_782_506_688),
    "flux-dev-comfy-fp8": (1442, 17_246_524_772),
    "sd3-medium-comfy": (1668, 10_867_168_284),
    "sd35-large-comfy": (1167, 16_460_379_262),
    "qwen-image-comfy": (1933, 20_430_635_136),
    "z-image-comfy": (453, 12_309_866_400),
    "vae-flux-bfl": (244, 335_304_388),
    "t5-xxl-encoder": (220, 9_787_841_024),
    "umt5-xxl-scaled-fp8-comfy": (412, 6_735_906_897),
    "clip-g-transformers": (517, 1_389_382_176),
    "deepseek-v3": (91_991, 688_586_727_753),
}
# Folders of shards: keys, and the `total_size` of their index, which counts no headers.
INDEXES = {
    "llama2-7b": (323, 13_476_835_328),
    "llama31-8b": (291, 16_060_522_496),
    "mistral-7b": (291, 14_483_464_192),
    "mixtral-8x7b": (995, 93_405_585_408),
    "qwen2-7b": (339, 15_231_233_024),
    "qwen25-vl-7b": (729, 16_584_333_312),
    "qwen3-moe-30b": (18_867, 61_064_245_248),
    "gemma3-27b": (1247, 54_864_813_280),
    "phi3-mini": (195, 7_642_159_104),
    "gpt-oss-20b": (459, 13_761_264_768),
}


def _bytes(name: str) -> int:
    return sum((info.encoded or info).nbytes for info in infos(name))


@pytest.mark.parametrize("name", FILES)
def test_a_layout_fills_the_published_file(name: str) -> None:
    """But for its header, which takes 90 to 200 bytes a key."""
    keys, size = FILES[name]
    assert keys == len(load(name))
    assert 90 < (size - _bytes(name)) / keys < 200


@pytest.mark.parametrize("name", INDEXES)
def test_a_layout_has_the_bytes_that_the_index_counts(name: str) -> None:
    """To the byte."""
    keys, size = INDEXES[name]
    assert (keys, size) == (len(load(name)), _bytes(name))


def test_a_gguf_layout_has_the_published_types() -> None:
    """Llama 2 7B in Q4_K_M: 65 tensors in F32, 193 in Q4_K and 33 in Q6_K, as its loaders print."""
    types = [info.storage for info in infos("gguf-llama")]
    assert {"F32": 65, "Q4_K": 193, "Q6_K": 33} == {name: types.count(name) for name in set(types)}


def test_every_layout_says_where_it_comes_from() -> None:
    """The first line names the model; files are sorted, and none is empty."""
    assert names() == sorted(names())
    assert {"sd15-ldm", "flux-dev-bfl", "llama2-7b", "deepseek-v3", "gguf-llama"} <= set(names())
    for name in names():
        assert len(source(name)) > 20, name
        assert load(name), name


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("sd15-ldm.tsv", "sd15-ldm-ema"),
        ("sdxl-sgm.tsv", "sdxl-vpred-schedule"),
        ("sd15-diffusers-unet.tsv", "sd15-unet-diffusers"),
        ("llama.tsv", "llama2-7b"),
        ("bert.tsv", "bert-base-bare"),
    ],
)
def test_layouts_agree_with_headers_of_real_files(name: str, layout: str) -> None:
    """Key for key and shape for shape; the lists of Llama and BERT hold fewer layers than the models."""
    if not (SHARED / name).exists():
        pytest.skip(f"needs the layout {name}")
    rows = [line.split("\t") for line in (SHARED / name).read_text(encoding="utf-8").splitlines()[1:]]
    shapes = {key: tuple(int(n) for n in shape.split("x") if n) for key, shape, _ in rows}
    found = {key: shape for key, (_, shape) in load(layout).items()}
    if name in {"llama.tsv", "bert.tsv"}:
        found = {key: shape for key, shape in found.items() if key in shapes}
    assert shapes == found


TWINS = [
    ("sd15-ldm", "sd15-unet-diffusers", "model.diffusion_model."),
    ("sd21-ldm", "sd21-unet-diffusers", "model.diffusion_model."),
    ("sdxl-base-sgm", "sdxl-unet-diffusers", "model.diffusion_model."),
    ("sdxl-refiner-sgm", "sdxl-refiner-unet-diffusers", "model.diffusion_model."),
    ("flux-dev-bfl", "flux-dev-transformer-diffusers", ""),
    ("flux-schnell-bfl", "flux-schnell-transformer-diffusers", ""),
    ("flux-dev-comfy-fp8", "flux-dev-transformer-diffusers", "model.diffusion_model."),
    ("sd3-medium-comfy", "sd3-transformer-diffusers", "model.diffusion_model."),
    ("sd35-large-comfy", "sd35-large-transformer-diffusers", "model.diffusion_model."),
    ("wan21-t2v-14b-original", "wan21-t2v-transformer-diffusers", ""),
    ("qwen-image-comfy", "qwen-image-transformer-diffusers", "model.diffusion_model."),
    ("z-image-comfy", "z-image-transformer-diffusers", ""),
    ("stable-cascade-stage-c", "stable-cascade-prior-diffusers", ""),
    ("vae-ldm", "vae-diffusers", ""),
    ("vae-flux-bfl", "vae-flux-diffusers", ""),
]


@pytest.mark.parametrize(("one", "other", "prefix"), TWINS)
def test_two_layouts_of_one_model_hold_the_same_elements(one: str, other: str, prefix: str) -> None:
    """At full size and in small, whatever they fuse; so the small ones pair."""
    for layout in (load, small):
        left = [shape for key, (_, shape) in layout(one).items() if key.startswith(prefix)]
        right = [shape for _, shape in layout(other).values()]
        assert sum(map(math.prod, left)) == sum(map(math.prod, right))


# --- Small models ---


@pytest.mark.parametrize("name", names())
def test_a_small_model_keeps_names_and_axes(name: str) -> None:
    """Keys, their order, dtypes and numbers of axes; and it is small, but for a tokenizer's bytes."""
    full, short = load(name), small(name)
    assert [(k, d, len(s)) for k, (d, s) in full.items()] == [(k, d, len(s)) for k, (d, s) in short.items()]
    assert all(0 < n <= m for k in full for n, m in zip(short[k][1], full[k][1], strict=True) if m)
    assert 6_500_000 > sum(math.prod(shape) for _, shape in short.values())


FUSED = [
    ("flux-dev-bfl", "double_blocks.0.img_attn.qkv.weight", (3, 1)),
    ("flux-dev-bfl", "single_blocks.0.linear1.weight", (7, 1)),
    ("flux-dev-bfl", "single_blocks.0.linear2.weight", (1, 5)),
    ("sdxl-base-sgm", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight", (3, 1)),
    ("phi3-mini", "model.layers.0.self_attn.qkv_proj.weight", (3, 1)),
    ("z-image-comfy", "layers.0.attention.qkv.weight", (3, 1)),
]


@pytest.mark.parametrize(("name", "key", "ratio"), FUSED)
def test_a_small_fused_tensor_still_falls_into_its_parts(name: str, key: str, ratio: tuple[int, int]) -> None:
    """Exactly 3, 5 or 7 times the width."""
    rows, columns = small(name)[key][1]
    assert ratio == (rows // math.gcd(rows, columns), columns // math.gcd(rows, columns))


@pytest.mark.parametrize(
    ("name", "fused", "down", "axes"),
    [
        (
            "phi3-mini",
            "model.layers.0.mlp.gate_up_proj.weight",
            "model.layers.0.mlp.down_proj.weight",
            (0, 1),
        ),
        (
            "gpt-oss-20b-bf16",
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.mlp.experts.down_proj",
            (2, 1),
        ),
        (
            "llama4-scout",
            "language_model.model.layers.0.feed_forward.experts.gate_up_proj",
            "language_model.model.layers.0.feed_forward.experts.down_proj",
            (2, 1),
        ),
    ],
)
def test_a_small_gate_up_is_two_of_what_down_takes(
    name: str, fused: str, down: str, axes: tuple[int, int]
) -> None:
    """Gate and up have a row, or a column, for every input of down."""
    short = small(name)
    assert short[fused][1][axes[0]] == 2 * short[down][1][axes[1]]


def test_wide_first_convolutions_stay_wide() -> None:
    """9 and 8 input channels against 4 are what these models are."""
    key = "model.diffusion_model.input_blocks.0.0.weight"
    channels = {n: small(n)[key][1][1] for n in ("sd15-ldm", "sd15-inpainting-ldm", "sd15-pix2pix-ldm")}
    assert {"sd15-ldm": 4, "sd15-inpainting-ldm": 9, "sd15-pix2pix-ldm": 8} == channels


def test_scales_of_blocks_fit_the_small_weight() -> None:
    """A number for every 128 × 128 elements, and for what is left over."""
    short = small("deepseek-v3")
    for key, (_, shape) in short.items():
        if key.endswith("_scale_inv"):
            assert tuple(math.ceil(n / 128) for n in short[key.removesuffix("_scale_inv")][1]) == shape


@pytest.mark.parametrize(
    "name", ["sd15-ldm-ema", "flux-dev-scaled-fp8-comfy", "llama31-8b-fp8-compressed-tensors", "gpt-neox-20b"]
)
def test_a_small_model_is_written_as_a_real_file(name: str, tmp_path: Path) -> None:
    """Names, order, dtypes and offsets of the header are those of `infos`, and values come back exactly."""
    path = write(name, tmp_path / "model.safetensors", seed=3)
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    rows = [(k, h["dtype"], tuple(h["shape"]), *h["data_offsets"]) for k, h in header.items()]
    expected = infos(name, scale=True)
    assert sorted((i.key, i.dtype, i.shape, i.offset, i.offset + i.nbytes) for i in expected) == sorted(rows)
    assert [i.key for i in expected] == [
        k for k, *_ in sorted(rows, key=lambda row: (row[3], row[4], row[0]))
    ]
    stored = load_file(path)
    for key, array in tiny(name, seed=3).items():
        assert np.array_equal(array, stored[key].to(torch.from_numpy(array).dtype).numpy())


def test_values_are_of_the_seed() -> None:
    """Another seed, another model; position_ids count up in both."""
    one, again, other = (
        tiny("clip-l-transformers"),
        tiny("clip-l-transformers"),
        tiny("clip-l-transformers", seed=1),
    )
    ids = "text_model.embeddings.position_ids"
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert [list(range(77))] == one[ids].tolist() == other[ids].tolist()
    assert not np.array_equal(
        one["text_model.final_layer_norm.weight"], other["text_model.final_layer_norm.weight"]
    )


def test_blocks_of_gguf_have_their_bytes() -> None:
    """4.5 bits an element in Q4_K and 6.5625 in Q6_K, which readers see as fp32."""
    by_key = {info.key: info for info in infos("gguf-llama")}
    value = by_key["blk.0.attn_v.weight"]
    assert ("F32", "Q6_K", 4 * 4096 * 4096) == (value.dtype, value.storage, value.nbytes)
    assert value.encoded is not None
    assert 4096 * 4096 * 6.5625 == 8 * value.encoded.nbytes
    assert all(i.encoded.nbytes for i in infos("gguf-llama", scale=True) if i.encoded)
    query = by_key["blk.0.attn_q.weight"].encoded
    assert query is not None
    assert 4096 * 4096 * 4.5 == 8 * query.nbytes
