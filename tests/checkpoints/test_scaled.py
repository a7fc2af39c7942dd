"""Scaled fp8: every convention gives stored number × scale, and back; what is not understood is noted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.checkpoints.encodings import AbstractEncodedSource
from analyzer.checkpoints.safetensors_file import open_safetensors
from analyzer.checkpoints.scaled import is_scale, with_scales
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SEED = torch.Generator().manual_seed(7)


def fp8(*shape: int, dtype: torch.dtype = E4M3) -> torch.Tensor:
    """Numbers of all magnitudes that the type has."""
    exponents = torch.empty(shape).uniform_(-9, 8, generator=SEED)
    return (torch.randn(shape, generator=SEED) * torch.exp2(exponents)).clamp(-448, 448).to(dtype)


def scales(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Factors of usual size, none of them a power of two."""
    return (torch.rand(shape, generator=SEED) * 0.01 + 0.001).to(dtype)


def product(stored: torch.Tensor, factors: torch.Tensor) -> np.ndarray:
    """In fp64, rounded once; the factors are already spread over the elements."""
    return (stored.to(torch.float64) * factors.to(torch.float64)).to(torch.float32).numpy()


def spread(factors: torch.Tensor, shape: tuple[int, ...], block: int = 128) -> torch.Tensor:
    """Blocks of the last two axes as factors of every element, the last blocks cut short."""
    wide = factors.repeat_interleave(block, -2).repeat_interleave(block, -1)
    return wide[..., : shape[-2], : shape[-1]]


def save(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    """The tensors as a safetensors file."""
    save_file(dict(tensors), path, metadata)
    return path


def values(checkpoint: Checkpoint, key: str) -> np.ndarray:
    """A tensor's fp32 values."""
    info = checkpoint.infos[key]
    assert ("F32", 4 * info.numel) == (info.dtype, info.nbytes)
    raw = np.empty(info.nbytes, np.uint8)
    checkpoint.read_into(info, 0, raw)
    return raw.view("<f4").reshape(info.shape)


def check(path: Path, tensors: Mapping[str, torch.Tensor], key: str, expected: np.ndarray) -> None:
    """The key reads as the expected values, bit by bit, whatever the file's format is."""
    save(path / "m.safetensors", tensors)
    torch.save(dict(tensors), path / "m.pt")
    for name in ("m.safetensors", "m.pt"):
        with open_checkpoint(path / name) as checkpoint:
            info = checkpoint.infos[key]
            assert () == checkpoint.notes
            assert tuple(tensors[key].shape) == info.shape
            assert info.encoded is not None
            assert info.storage.startswith("F8_")
            np.testing.assert_array_equal(expected.view(np.uint32), values(checkpoint, key).view(np.uint32))
            for other in checkpoint.infos.values():
                assert other.key == key or other.encoded is None


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", ["scale_weight", "weight_scale", "weight_scale_inv"])
def test_one_scale_for_the_whole_weight(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """ComfyUI's scaled fp8, and compressed-tensors per tensor."""
    weight, scale = fp8(24, 40, dtype=dtype), scales(*shape)
    tensors = {"a.to_q.weight": weight, f"a.to_q.{name}": scale, "a.to_q.bias": torch.ones(24)}
    check(tmp_path, tensors, "a.to_q.weight", product(weight, scale.reshape(())))


@pytest.mark.parametrize("shape", [(24,), (24, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_scale_per_row(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """compressed-tensors per channel, with scales of any usual dtype."""
    weight, scale = fp8(24, 200), scales(*shape, dtype=dtype)
    tensors = {"w.weight": weight, "w.weight_scale": scale}
    check(tmp_path, tensors, "w.weight", product(weight, scale.reshape(24, 1)))


@pytest.mark.parametrize("shape", [(256, 384), (300, 130), (128, 1), (5, 257)])
def test_blocks_of_128(tmp_path: Path, shape: tuple[int, int]) -> None:
    """DeepSeek V3: a scale for a block of 128 × 128, with the last blocks cut short."""
    weight, scale = fp8(*shape), scales(-(-shape[0] // 128), -(-shape[1] // 128))
    tensors = {"w.weight": weight, "w.weight_scale_inv": scale}
    check(tmp_path, tensors, "w.weight", product(weight, spread(scale, shape)))


@pytest.mark.parametrize("suffix", ["", "with one behind"])
def test_groups_that_divide_a_row(tmp_path: Path, suffix: str) -> None:
    """compressed-tensors per group, and musubi-tuner's with an axis of one behind."""
    weight, scale = fp8(6, 192), scales(6, 3)
    stored = scale[..., None] if suffix else scale
    tensors = {"w.weight": weight, "w.weight_scale": stored}
    check(tmp_path, tensors, "w.weight", product(weight, scale.repeat_interleave(64, 1)))


def test_exponents_as_scales(tmp_path: Path) -> None:
    """MX: a power of two for 32 elements, as the exponent alone; stored as such, or as a byte."""
    weight = fp8(8, 512)
    exponents = torch.randint(90, 160, (8, 16), generator=SEED, dtype=torch.uint8)
    factors = torch.exp2(exponents.to(torch.float64) - 127).repeat_interleave(32, 1)
    expected = product(weight, factors)
    for scale in (exponents, exponents.view(torch.float8_e8m0fnu)):
        check(tmp_path, {"w.weight": weight, "w.weight_scale": scale}, "w.weight", expected)


@pytest.mark.parametrize("shape", [(256, 256), (130, 160)])
@pytest.mark.parametrize("marked", ["tensor", "metadata"])
def test_tiled_exponents_of_comfyui(tmp_path: Path, marked: str, shape: tuple[int, int]) -> None:
    """ComfyUI keeps the scales of mxfp8 where a matrix unit wants them, and says so beside the weight."""
    rows, columns = shape[0], shape[1] // 32
    weight = fp8(*shape)
    exponents = np.random.default_rng(1).integers(100, 150, (rows, columns), dtype=np.uint8)
    tile_columns = -(-columns // 4)
    tiled = np.zeros((-(-rows // 128) * 128, tile_columns * 4), np.uint8)
    for row in range(rows):  # the place of every scale, as cuBLAS's manual gives it
        for column in range(columns):
            tile = row // 128 * tile_columns + column // 4
            tiled.flat[tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4] = exponents[row, column]
    layer = {"format": "mxfp8"}
    tensors = {"w.weight": weight, "w.weight_scale": torch.from_numpy(tiled)}
    metadata = None
    if marked == "tensor":
        tensors["w.comfy_quant"] = torch.tensor(list(json.dumps(layer).encode()), dtype=torch.uint8)
    else:
        metadata = {"_quantization_metadata": json.dumps({"layers": {"w": layer}})}
    expected = weight.to(torch.float64).numpy() * np.exp2(exponents.astype(float) - 127).repeat(32, 1)
    with open_checkpoint(save(tmp_path / "m.safetensors", tensors, metadata)) as checkpoint:
        np.testing.assert_array_equal(expected.astype(np.float32), values(checkpoint, "w.weight"))


STACKED = {
    "one": ((), lambda s: s),
    "per expert": ((3,), lambda s: s[:, None, None]),
    "per expert, spelled out": ((3, 1, 1), lambda s: s),
    "per row": ((3, 140), lambda s: s[..., None]),
    "per column": ((3, 1, 260), lambda s: s),
    "blocks": ((3, 2, 3), lambda s: spread(s, (140, 260))),
    "halves": ((3, 7, 1), lambda s: s.repeat_interleave(20, 1)),
}


@pytest.mark.parametrize("name", ["_scale_inv", "_scale"])
@pytest.mark.parametrize("kind", STACKED)
def test_stacked_experts(tmp_path: Path, kind: str, name: str) -> None:
    """Experts in one tensor without a suffix: the scale has the tensor's name with an ending."""
    shape, widened = STACKED[kind]
    weight, scale = fp8(3, 140, 260), scales(*shape)
    tensors = {"mlp.experts.gate_up_proj": weight, f"mlp.experts.gate_up_proj{name}": scale}
    check(tmp_path, tensors, "mlp.experts.gate_up_proj", product(weight, widened(scale)))


def test_convolutions_have_scales_too(tmp_path: Path) -> None:
    """A scale per output channel of a convolution, with ones for the other axes."""
    weight, scale = fp8(6, 4, 3, 3), scales(6, 1, 1, 1)
    check(tmp_path, {"c.weight": weight, "c.weight_scale": scale}, "c.weight", product(weight, scale))


def test_every_code_times_any_scale_is_rounded_once(tmp_path: Path) -> None:
    """All 256 codes, NaN and Inf among them, with scales at the ends of fp32."""
    codes = torch.arange(256, dtype=torch.uint8).repeat(6, 1)
    scale = torch.tensor([1e-40, 3e-38, 0.1, 1.0, 1e35, float("inf")])
    for dtype in (E4M3, E5M2):
        weight = codes.view(dtype)
        path = save(tmp_path / f"{dtype}.safetensors", {"w.weight": weight, "w.weight_scale": scale})
        expected = (weight.to(torch.float64) * scale.to(torch.float64)[:, None]).to(torch.float32).numpy()
        with open_checkpoint(path) as checkpoint:
            np.testing.assert_array_equal(expected, values(checkpoint, "w.weight"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A weight of several runs and ragged blocks, and its values."""
    weight, scale = fp8(300, 1000), scales(3, 8)
    path = tmp_path_factory.mktemp("scaled") / "m.safetensors"
    save(path, {"w.weight": weight, "w.weight_scale_inv": scale})
    return path, product(weight, spread(scale, (300, 1000))).tobytes()


@settings(max_examples=100)
@given(start=st.integers(0, 1_200_000), count=st.integers(0, 400_000))
def test_reads_may_begin_and_end_anywhere(large: tuple[Path, bytes], start: int, count: int) -> None:
    """Any run of bytes is that of the whole, also from within an element on."""
    path, whole = large
    buffer = np.empty(min(count, len(whole) - start), np.uint8)
    with open_checkpoint(path) as checkpoint:
        checkpoint.read_into(checkpoint.infos["w.weight"], start, buffer)
    assert whole[start : start + len(buffer)] == buffer.tobytes()


def encoder(checkpoint: Checkpoint, key: str) -> AbstractEncodedSource:
    """What turns values of the key back into bytes."""
    source = checkpoint.sources[checkpoint.infos[key].source]
    assert isinstance(source, AbstractEncodedSource)
    return source


@settings(max_examples=50)
@given(start=st.integers(0, 299_999), count=st.integers(0, 100_000))
def test_encoding_what_was_read_gives_the_stored_bytes(
    large: tuple[Path, bytes], start: int, count: int
) -> None:
    """Reading and encoding again is the identity, from any element on."""
    path, whole = large
    count = min(count, 300_000 - start)
    with open_checkpoint(path) as checkpoint:
        info = checkpoint.infos["w.weight"]
        assert info.encoded is not None
        stored = np.empty(count, np.uint8)
        checkpoint.read_into(info.encoded, start, stored)
        read = np.frombuffer(whole, "<f4")[start : start + count]
        raw, clipped = encoder(checkpoint, "w.weight").encode(start, read)
    assert (stored.tobytes(), 0) == (raw.tobytes(), clipped)


@pytest.mark.parametrize("scale", [1.0, 0.3, -0.7, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_code_survives(tmp_path: Path, dtype: torch.dtype, scale: float) -> None:
    """All codes come back, both zeros too; NaN has one code, whatever its sign and bits were."""
    codes = torch.arange(256, dtype=torch.uint8)
    path = tmp_path / "m.safetensors"
    save(path, {"w.weight": codes.view(dtype), "w.weight_scale": torch.tensor(scale)})
    nan = torch.isnan(codes.view(dtype).to(torch.float32)).numpy()
    expected = np.where(nan, 0x7F if dtype == E4M3 else 0x7E, codes.numpy())
    with open_checkpoint(path) as checkpoint:
        raw, clipped = encoder(checkpoint, "w.weight").encode(0, values(checkpoint, "w.weight"))
    assert (expected.tolist(), 0) == (raw.tolist(), clipped)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_values_are_rounded_to_nearest_even(tmp_path: Path, dtype: torch.dtype) -> None:
    """The oracle is torch's own rounding, on random values, ties and subnormal ones, scaled by 2^-3."""
    save(
        tmp_path / "m.safetensors",
        {"w.weight": fp8(400, 250, dtype=dtype), "w.weight_scale": torch.tensor(0.125)},
    )
    codes = torch.arange(123, dtype=torch.uint8)
    ladder = codes.view(dtype).to(torch.float32)
    ties = (ladder[1:] + ladder[:-1]) / 2
    numbers = torch.cat(
        [ties, -ties, torch.randn(50_000, generator=SEED) * 3, torch.randn(40_000, generator=SEED) * 1e-3]
    )
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        raw, clipped = encoder(checkpoint, "w.weight").encode(0, numbers.numpy() / 8)
    assert 0 == clipped
    np.testing.assert_array_equal(numbers.to(dtype).view(torch.uint8).numpy(), raw)


def test_what_is_too_large_is_clipped_and_counted(tmp_path: Path) -> None:
    """Finite values stop at the largest; NaN stays NaN, and Inf stays Inf where there is one."""
    nan, inf = np.nan, np.inf
    given_values = np.array([464, 464.01, -1e30, nan, inf, -inf, 0], np.float32)
    for dtype, expected, count in (
        (E4M3, [0x7E, 0x7E, 0xFE, 0x7F, 0x7F, 0x7F, 0], 2),
        (E5M2, [0x5F, 0x5F, 0xFB, 0x7E, 0x7C, 0xFC, 0], 1),
    ):
        path = save(
            tmp_path / f"{dtype}.safetensors",
            {"w.weight": fp8(7, dtype=dtype), "w.weight_scale": scales(1) * 0 + 1},
        )
        with open_checkpoint(path) as checkpoint:
            raw, clipped = encoder(checkpoint, "w.weight").encode(0, given_values)
        assert (expected, count) == (raw.tolist(), clipped)


def test_a_scale_of_zero_holds_only_zeros(tmp_path: Path) -> None:
    """Zeros come back as zeros; anything else cannot be held and is clipped."""
    path = save(tmp_path / "m.safetensors", {"w.weight": fp8(3), "w.weight_scale": torch.zeros(1)})
    with open_checkpoint(path) as checkpoint:
        raw, clipped = encoder(checkpoint, "w.weight").encode(0, np.array([0.0, -0.0, 2.0], np.float32))
    assert ([0, 0x80, 0x7E], 1) == (raw.tolist(), clipped)


def test_the_fingerprint_does_not_change(tmp_path: Path) -> None:
    """It is made from the stored bytes, so dequantizing leaves it alone."""
    path = save(tmp_path / "m.safetensors", {"w.weight": fp8(200, 200), "w.weight_scale": scales()})
    with open_safetensors(FileSource(path)) as stored, open_checkpoint(path) as scaled:
        assert stored.fingerprint() == scaled.fingerprint()


@pytest.mark.parametrize(
    "tensors",
    [
        {"w.weight": fp8(4, 4), "w.bias": torch.ones(4)},
        {"w.weight": torch.ones(4, 4), "w.weight_scale": torch.ones(1)},
        {"w.weight": fp8(0, 4), "w.weight_scale": torch.ones(1)},
    ],
    ids=["fp8 without scales", "a scale of a weight in fp32", "an empty weight"],
)
def test_nothing_to_do(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A checkpoint without scaled fp8 is handed back as it is."""
    with open_safetensors(FileSource(save(tmp_path / "m.safetensors", tensors))) as checkpoint:
        assert checkpoint is with_scales(checkpoint)


def test_part_and_source_are_kept(tmp_path: Path) -> None:
    """A weight in a later file of a folder is read from there, and stays in its part."""
    one = open_safetensors(FileSource(save(tmp_path / "a.safetensors", {"x": torch.ones(2)})))
    weight, scale = fp8(4, 6), scales(4)
    two = open_safetensors(
        FileSource(save(tmp_path / "b.safetensors", {"w.weight": weight, "w.weight_scale": scale}))
    )
    moved = {key: replace(info, source=1, part="unet") for key, info in two.infos.items()}
    joined = replace(one, infos={**one.infos, **moved}, sources=(*one.sources, *two.sources))
    with with_scales(joined) as checkpoint:
        assert "unet" == checkpoint.infos["w.weight"].part
        np.testing.assert_array_equal(product(weight, scale[:, None]), values(checkpoint, "w.weight"))


WEIGHT = {"w.weight": fp8(6, 10)}
TINY_TEXT = torch.tensor(list(b'{"format": "hybrid_mxfp8"}'), dtype=torch.uint8)
NOTED = {
    "the shapes of their scales fit no convention": WEIGHT | {"w.weight_scale": scales(4)},
    "they have more than one scale": WEIGHT | {"w.weight_scale": scales(), "w.scale_weight": scales()},
    "their scales are of type I32": WEIGHT | {"w.weight_scale": torch.ones(1, dtype=torch.int32)},
    "their scales are larger than they are": {"w.weight": fp8(40, 40), "w.weight_scale": scales(40, 40)},
    "their format 'hybrid_mxfp8' is not known": WEIGHT
    | {"w.weight_scale": torch.ones(1, dtype=torch.uint8), "w.comfy_quant": TINY_TEXT},
    "only fp8 weights are scaled here": {
        "w.weight": torch.ones(4, 4, dtype=torch.int8),
        "w.weight_scale": scales(4),
    },
}


@pytest.mark.parametrize("why", NOTED)
def test_what_is_not_understood_stays_as_it_is(tmp_path: Path, why: str) -> None:
    """The weight is left as stored, and one note says why."""
    path = save(tmp_path / "m.safetensors", NOTED[why])
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.infos["w.weight"].encoded is None
        assert (
            "m.safetensors: quantized weights are compared as they are stored, without their scales, "
            f"since {why}: 'w.weight'",
        ) == checkpoint.notes


def test_a_second_scale_is_noted(tmp_path: Path) -> None:
    """musubi-tuner scales the scales of its blocks."""
    tensors = {"w.weight": fp8(6, 128), "w.scale_weight": scales(6, 2, 1), "w.scale_weight_tensor": scales()}
    with open_checkpoint(save(tmp_path / "m.safetensors", tensors)) as checkpoint:
        assert "they have more than one scale: 'w.weight'" in checkpoint.notes[0]


def test_many_weights_make_one_note(tmp_path: Path) -> None:
    """The first three are named, and the others counted."""
    tensors = {f"{i}.weight": fp8(6, 10) for i in range(9)} | {
        f"{i}.weight_scale": scales(4) for i in range(9)
    }
    with open_checkpoint(save(tmp_path / "m.safetensors", tensors)) as checkpoint:
        assert 1 == len(checkpoint.notes)
        assert checkpoint.notes[0].endswith("'0.weight', '1.weight', '2.weight' and 6 more")


@pytest.mark.parametrize("marker", [b"", b"[1]", b"\xff", b"[" * 3000, b'{"format": 3}'])
def test_damaged_markers_are_no_markers(tmp_path: Path, marker: bytes) -> None:
    """Whatever stands where ComfyUI has its marker, the file opens."""
    tensors = WEIGHT | {
        "w.weight_scale": torch.full((6, 1), 128, dtype=torch.uint8),
        "w.comfy_quant": torch.tensor(list(marker), dtype=torch.uint8),
    }
    path = save(tmp_path / "m.safetensors", tensors, {"_quantization_metadata": "[" * 5000})
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(
            WEIGHT["w.weight"].to(torch.float32).numpy() * 2, values(checkpoint, "w.weight")
        )


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    """Reading past the end of the file says so."""
    path = save(tmp_path / "m.safetensors", {"w.weight": fp8(100, 100), "w.weight_scale": scales()})
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(CheckpointError, match="ended early"):
            values(checkpoint, "w.weight")


def test_scales_are_known_by_name() -> None:
    """Scales and markers of quantization are told from weights that are called scale."""
    yes = "a.scale_weight b.weight_scale b.weight_scale_inv scaled_fp8 model.scaled_fp8 a.input_scale "
    yes += "a.k_scale a.scale_input a.weight_scale_2 a.comfy_quant x.down_proj_scale_inv "
    yes += "x.gate_up_proj_scale v_scale"
    no = (
        "norm.scale logit_scale query_norm.scale a.weight a.layer_scale.lambda1 scale_shift_table final_scale"
    )
    assert [True] * 13 == [is_scale(key) for key in yes.split()]
    assert [False] * 7 == [is_scale(key) for key in no.split()]
