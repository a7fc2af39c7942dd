"""The complete Stable Diffusion 1.5 in the LDM layout, built from its architecture, and its labels.

`sd15` makes the names and shapes from the structure of the networks, with nothing copied from a file,
so that every key of a real checkpoint is tested wherever these tests run. This module imports nothing
from other tests; others take `sd15` from it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from analyzer.categories import categorize
from analyzer.records import Categorized, TensorInfo
from analyzer.selectors import compile_selector

LAYOUT = Path(__file__).resolve().parents[3] / "shared" / "layouts" / "sd15-ldm.tsv"

Shape = tuple[int, ...]
Put = Callable[..., None]

UNET, VAE = "model.diffusion_model", "first_stage_model"
CLIP = "cond_stage_model.transformer.text_model"
LEVELS = (1, 2, 4, 4)  # channel multipliers, of the U-Net and of the VAE
ATTENTION = (True, True, True, False)  # at the scales 1, 2 and 4
CUMPROD = ("sqrt_", "sqrt_one_minus_", "sqrt_recip_", "sqrt_recipm1_", "log_one_minus_")


# --- The generator ---


def sd15(*, unet: int = 320, clip: int = 768, vae: int = 128, vocabulary: int = 49408) -> dict[str, Shape]:
    """The shapes of all live keys: `unet`, `clip` and `vae` are the narrowest channel counts."""
    shapes: dict[str, Shape] = {}

    def put(name: str, *shape: int, bias: bool = True) -> None:
        """A layer: its weight, and a bias with as many numbers as it has outputs."""
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    _unet(put, unet, context=clip)
    _clip(put, clip)
    shapes[f"{CLIP}.embeddings.token_embedding.weight"] = (vocabulary, clip)
    shapes[f"{CLIP}.embeddings.position_embedding.weight"] = (77, clip)
    shapes[f"{CLIP}.embeddings.position_ids"] = (1, 77)
    _vae(put, vae)
    posterior = ("mean_coef1", "mean_coef2", "variance", "log_variance_clipped")
    tables = ["betas", "alphas_cumprod", "alphas_cumprod_prev"]
    tables += [f"{root}alphas_cumprod" for root in CUMPROD] + [f"posterior_{name}" for name in posterior]
    return shapes | dict.fromkeys(tables, (1000,))


def sd15_ema(live: dict[str, Shape]) -> dict[str, Shape]:
    """The shapes of the averaged copies of the U-Net, whose names have lost their dots."""
    copies = {
        f"model_ema.{key.removeprefix('model.').replace('.', '')}": shape
        for key, shape in live.items()
        if key.startswith(f"{UNET}.")
    }
    return copies | {"model_ema.decay": (), "model_ema.num_updates": ()}


def _unet(put: Put, width: int, *, context: int) -> None:
    put(f"{UNET}.time_embed.0", 4 * width, width)
    put(f"{UNET}.time_embed.2", 4 * width, 4 * width)
    put(f"{UNET}.input_blocks.0.0", width, 4, 3, 3)
    skips, channels, block = [width], width, 0
    for level, factor in enumerate(LEVELS):
        for _ in range(2):
            block += 1
            at = f"{UNET}.input_blocks.{block}"
            _residual(put, f"{at}.0", channels, channels := factor * width, time=4 * width)
            if ATTENTION[level]:
                _transformer(put, f"{at}.1", channels, context)
            skips.append(channels)
        if level < len(LEVELS) - 1:
            block += 1
            put(f"{UNET}.input_blocks.{block}.0.op", channels, channels, 3, 3)
            skips.append(channels)
    for module in (0, 2):
        _residual(put, f"{UNET}.middle_block.{module}", channels, channels, time=4 * width)
    _transformer(put, f"{UNET}.middle_block.1", channels, context)
    for block in range(12):
        level = 3 - block // 3
        at = f"{UNET}.output_blocks.{block}"
        _residual(put, f"{at}.0", channels + skips.pop(), channels := LEVELS[level] * width, time=4 * width)
        if ATTENTION[level]:
            _transformer(put, f"{at}.1", channels, context)
        if level and block % 3 == 2:
            put(f"{at}.{1 + ATTENTION[level]}.conv", channels, channels, 3, 3)
    put(f"{UNET}.out.0", width)
    put(f"{UNET}.out.2", 4, width, 3, 3)


def _residual(put: Put, at: str, inner: int, outer: int, *, time: int) -> None:
    put(f"{at}.in_layers.0", inner)
    put(f"{at}.in_layers.2", outer, inner, 3, 3)
    put(f"{at}.emb_layers.1", outer, time)
    put(f"{at}.out_layers.0", outer)
    put(f"{at}.out_layers.3", outer, outer, 3, 3)
    if inner != outer:
        put(f"{at}.skip_connection", outer, inner, 1, 1)


def _transformer(put: Put, at: str, width: int, context: int) -> None:
    put(f"{at}.norm", width)
    put(f"{at}.proj_in", width, width, 1, 1)
    put(f"{at}.proj_out", width, width, 1, 1)
    inside = f"{at}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", context)):
        put(f"{inside}.{attention}.to_q", width, width, bias=False)
        put(f"{inside}.{attention}.to_k", width, source, bias=False)
        put(f"{inside}.{attention}.to_v", width, source, bias=False)
        put(f"{inside}.{attention}.to_out.0", width, width)
    put(f"{inside}.ff.net.0.proj", 8 * width, width)  # a gate and a value, four times the width each
    put(f"{inside}.ff.net.2", width, 4 * width)
    for norm in ("norm1", "norm2", "norm3"):
        put(f"{inside}.{norm}", width)


def _clip(put: Put, width: int) -> None:
    for layer in range(12):
        at = f"{CLIP}.encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            put(f"{at}.self_attn.{projection}", width, width)
        put(f"{at}.mlp.fc1", 4 * width, width)
        put(f"{at}.mlp.fc2", width, 4 * width)
        put(f"{at}.layer_norm1", width)
        put(f"{at}.layer_norm2", width)
    put(f"{CLIP}.final_layer_norm", width)


def _vae(put: Put, width: int) -> None:
    """Two halves, whose levels both count from the side of the picture."""
    top = LEVELS[-1] * width
    for half in ("encoder", "decoder"):
        at, down = f"{VAE}.{half}", half == "encoder"
        put(f"{at}.conv_in", *((width, 3) if down else (top, 4)), 3, 3)
        channels = width if down else top
        for level in range(4) if down else reversed(range(4)):
            scale = f"{at}.{'down' if down else 'up'}.{level}"
            for block in range(2 if down else 3):
                _vae_residual(put, f"{scale}.block.{block}", channels, channels := LEVELS[level] * width)
            if level != (3 if down else 0):
                put(f"{scale}.{'downsample' if down else 'upsample'}.conv", channels, channels, 3, 3)
        for block in (1, 2):
            _vae_residual(put, f"{at}.mid.block_{block}", top, top)
        put(f"{at}.mid.attn_1.norm", top)
        for projection in ("q", "k", "v", "proj_out"):
            put(f"{at}.mid.attn_1.{projection}", top, top, 1, 1)
        put(f"{at}.norm_out", channels)
        put(f"{at}.conv_out", 8 if down else 3, channels, 3, 3)
    put(f"{VAE}.quant_conv", 8, 8, 1, 1)
    put(f"{VAE}.post_quant_conv", 4, 4, 1, 1)


def _vae_residual(put: Put, at: str, inner: int, outer: int) -> None:
    put(f"{at}.norm1", inner)
    put(f"{at}.conv1", outer, inner, 3, 3)
    put(f"{at}.norm2", outer)
    put(f"{at}.conv2", outer, outer, 3, 3)
    if inner != outer:
        put(f"{at}.nin_shortcut", outer, inner, 1, 1)


# --- Is it the real thing? ---


LIVE = sd15()
EVERY = LIVE | sd15_ema(LIVE)


def test_the_generator_makes_the_published_model() -> None:
    """1143 live keys and 688 averaged ones; the papers' 860 M, 123 M and 84 M parameters."""

    def parameters(prefix: str) -> int:
        return sum(math.prod(s) for k, s in LIVE.items() if k.startswith(prefix) and "position_ids" not in k)

    assert (1143, 688) == (len(LIVE), len(EVERY) - len(LIVE))
    assert 859_520_964 == parameters(f"{UNET}.")
    assert 123_060_480 == parameters(f"{CLIP}.")
    assert 83_653_863 == parameters(f"{VAE}.")


def test_the_generator_makes_the_layout_of_the_file() -> None:
    """Key for key and shape for shape what a real checkpoint holds, averaged copies included."""
    if not LAYOUT.exists():
        pytest.skip(f"needs the layout {LAYOUT.name}")
    rows = [line.split("\t") for line in LAYOUT.read_text(encoding="utf-8").splitlines()[1:]]
    assert {key: tuple(int(n) for n in shape.split("x") if n) for key, shape, _ in rows} == EVERY


def test_a_narrow_model_has_the_same_names() -> None:
    """Sizes are free; names and numbers of axes are the architecture."""
    narrow = sd15(unet=8, clip=16, vae=4, vocabulary=32)
    assert {k: len(s) for k, s in LIVE.items()} == {k: len(s) for k, s in narrow.items()}
    assert 1_000_000 > sum(map(math.prod, narrow.values()))


# --- What the categories say of it ---


def _info(key: str, shape: Shape) -> TensorInfo:
    integers = {"position_ids": "I64", "num_updates": "I32"}
    dtype = integers.get(key.rsplit(".", 1)[-1], "F16")
    return TensorInfo(key, dtype, shape, offset=0, nbytes=0)


@pytest.fixture(scope="module")
def found() -> Categorized:
    """The labels of the complete checkpoint, averaged copies included."""
    return categorize([_info(key, shape) for key, shape in EVERY.items()])


def _block(key: str) -> str:
    """The block that the name says, read with one regular expression."""
    if key.startswith(f"{VAE}."):
        return "VAE"
    match = re.match(
        r"model\.diffusion_model\.(input|middle|output|time|out)(?:_blocks?|_embed)?\.(\d+)", key
    )
    if match is None:
        return "BASE"
    numbered = {"input": f"IN{int(match[2]):02}", "output": f"OUT{int(match[2]):02}"}
    return numbered.get(match[1]) or {"middle": "M00", "time": "IN00", "out": "OUT11"}[match[1]]


def test_all_25_blocks_are_there_in_network_order(found: Categorized) -> None:
    """The blocks that block weights address, and a title that people know."""
    expected = (*(f"IN{n:02}" for n in range(12)), "M00", *(f"OUT{n:02}" for n in range(12)))
    assert ("sd1", "Stable Diffusion 1.x") == (found.architecture, found.title)
    assert expected == found.blocks


def test_every_key_stands_on_all_four_axes(found: Categorized) -> None:
    """No label is empty, and no component says `uncategorized` or `other`."""
    assert list(EVERY) == list(found.labels)
    for key, labels in found.labels.items():
        assert all((labels.part, labels.block, labels.component, labels.kind, labels.group)), key
        assert not {"", "uncategorized", "other"} & set(labels.component.split("/")), key
        assert labels.kind in {"weight", "bias", "other"}, key


def test_parts_have_the_counts_of_the_architecture(found: Categorized) -> None:
    """U-Net 686, CLIP 197, VAE 248, averages 688, schedules 12."""
    # 22 residual blocks of 10 keys, 14 of them with a shortcut of 2; 16 transformers of 26 keys;
    # 3 + 3 resamplers; four layers at the ends and one convolution in front.
    unet = 22 * 10 + 14 * 2 + 16 * 26 + (3 + 3) * 2 + (4 + 1) * 2
    clip = 12 * 16 + 3 + 2
    # 8 + 12 + 4 residual blocks of 8 keys, 4 of them with a shortcut; 6 resamplers; 2 attentions of 10
    # keys; 3 layers at the ends of either half, and the 2 convolutions between them.
    vae = (8 + 12 + 2 * 2) * 8 + (2 + 2) * 2 + (3 + 3) * 2 + 2 * 10 + 2 * 3 * 2 + 2 * 2
    expected = {"unet": unet, "text_encoder": clip, "vae": vae, "ema": unet + 2, "other": 12}
    assert {"unet": 686, "text_encoder": 197, "vae": 248, "ema": 688, "other": 12} == expected
    assert expected == Counter(labels.part for labels in found.labels.values())


def test_blocks_hold_the_keys_that_their_numbers_say(found: Categorized) -> None:
    """Every live key's block, and the 25 counts worked out from the modules that each block has."""
    assert {key: _block(key) for key in LIVE} == {key: found.labels[key].block for key in LIVE}
    residual, shortcut, transformer, layer = 10, 2, 26, 2
    expected = {"IN00": 3 * layer, "M00": 2 * residual + transformer}
    for number in range(1, 12):
        if number % 3 == 0:
            expected[f"IN{number:02}"] = layer
        else:
            attention = transformer if number < 9 else 0
            widened = shortcut if number in (4, 7) else 0
            expected[f"IN{number:02}"] = residual + attention + widened
    for number in range(12):
        upsampler = layer if number in (2, 5, 8) else 0
        attention = transformer if number > 2 else 0
        expected[f"OUT{number:02}"] = residual + shortcut + attention + upsampler
    expected["OUT11"] += 2 * layer
    unet = Counter(x.block for x in found.labels.values() if x.part == "unet")
    assert expected == unet
    assert 686 == sum(expected.values())


@pytest.mark.parametrize(
    ("group", "keys"),
    [("attn1", 80), ("attn2", 80), ("ff", 64), ("norm1", 32), ("norm2", 32), ("norm3", 32)],
)
def test_groups_of_the_transformers_have_their_keys(found: Categorized, group: str, keys: int) -> None:
    """Sixteen transformers: five keys for an attention, four for a feed-forward, two for a norm."""
    members = [key for key in LIVE if found.labels[key].group == f"transformer_blocks/{group}"]
    assert [key for key in LIVE if f".{group}." in key and key.startswith(UNET)] == members
    assert keys == len(members)


@pytest.mark.parametrize(
    "name",
    [
        *("time_embed", "in_layers", "emb_layers", "out_layers", "proj_in", "transformer_blocks"),
        *("proj_out", "norm", "op", "skip_connection", "conv"),
        *("attn1", "ff", "attn2", "norm1", "norm2", "norm3"),
    ],
)
def test_names_of_merge_block_weighted_hit_their_substrings(found: Categorized, name: str) -> None:
    """As a selector, each name in MBW's window takes exactly the live keys that contain `.name.`."""
    rows = [_Row(key, found) for key in LIVE]
    selector = compile_selector(f"component:{name}", rows=rows, blocks=found.blocks)
    expected = [key for key in LIVE if f".{name}." in key]
    assert expected
    assert expected == [row.key for row in rows if selector.hits(row)]


class _Row:
    """A key as selectors see it."""

    def __init__(self, key: str, found: Categorized) -> None:
        self.key, self.labels = key, found.labels[key]


def test_averages_have_the_places_of_what_they_copy(found: Categorized) -> None:
    """A copy differs from the live key in its part alone, and counts in no total."""
    live = [found.labels[key] for key in LIVE if key.startswith(f"{UNET}.")]
    copies = [found.labels[key] for key in sd15_ema(LIVE)][:686]
    assert [(x.block, x.component, x.kind, x.group) for x in live] == [
        (x.block, x.component, x.kind, x.group) for x in copies
    ]
    assert {("ema", False)} == {(x.part, x.counted) for x in copies}
    for key in ("model_ema.decay", "model_ema.num_updates"):
        assert ("ema", False) == (found.labels[key].part, found.labels[key].counted)
