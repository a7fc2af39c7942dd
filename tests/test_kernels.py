"""The arithmetic on raw bytes, against numpy, torch and exact fractions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.blending import AbstractBlender, _CompiledBlender, _TorchBlender
from analyzer.kernels.formats import FLOATS, eight_bit_values, ulp_parameters
from analyzer.kernels.stored_code import source_stamp

NARROW = [name for name, f in FLOATS.items() if f.bits <= 16]
BLENDERS = [_CompiledBlender(), _TorchBlender("cpu")]
TORCH = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def bits_of(dtype: str) -> np.ndarray:
    """Every code of a format of at most 16 bits."""
    width = FLOATS[dtype].bits
    return np.arange(1 << width, dtype=f"u{width // 8}")


def values_of(dtype: str) -> np.ndarray:
    """The values of every code, by torch."""
    bits = torch.from_numpy(bits_of(dtype).view("u1").copy())
    return bits.view(TORCH[dtype]).to(torch.float64).numpy()


def convert(blender: AbstractBlender, values: np.ndarray, dtype: str) -> tuple[np.ndarray, int]:
    """fp64 values through a blender, as the result's codes."""
    out, bad = blender.convert(values.view("u1"), "F64", dtype=dtype)
    return out.view(f"u{FLOATS[dtype].bits // 8}"), bad


@pytest.mark.parametrize("blender", BLENDERS, ids=type)
@pytest.mark.parametrize("dtype", NARROW)
def test_every_code_widens_to_its_value(dtype: str, blender: AbstractBlender) -> None:
    """All 65536 (or 256) codes become exactly the fp64 numbers that torch says they are."""
    out, bad = blender.convert(bits_of(dtype).view("u1"), dtype, dtype="F64")
    expected = values_of(dtype)
    np.testing.assert_array_equal(expected, out.view("f8"))
    assert int((~np.isfinite(expected)).sum()) == bad


@pytest.mark.parametrize("blender", BLENDERS, ids=type)
@pytest.mark.parametrize("dtype", NARROW)
def test_every_finite_code_survives_a_round_trip(dtype: str, blender: AbstractBlender) -> None:
    """Widening and narrowing again gives the same code, signed zeros and subnormals included."""
    values = values_of(dtype)
    finite = np.isfinite(values)
    codes, bad = convert(blender, values[finite], dtype)
    np.testing.assert_array_equal(bits_of(dtype)[finite], codes)
    assert bad == 0


@pytest.mark.parametrize("blender", BLENDERS, ids=type)
@pytest.mark.parametrize("dtype", NARROW)
def test_rounding_goes_to_the_nearest_and_ties_to_even(dtype: str, blender: AbstractBlender) -> None:
    """Midpoints between neighbouring codes, and points a hair beside them, by exact fractions."""
    values = values_of(dtype)
    codes = bits_of(dtype)[np.isfinite(values) & (values >= 0)][:-1]
    rng = np.random.default_rng(0)
    picked = rng.choice(codes, size=min(400, len(codes)), replace=False)
    low = values[picked]
    high = values[picked + 1]
    assert all(Fraction(a) < Fraction(b) for a, b in zip(low, high, strict=True) if np.isfinite(b))
    middle = (low + high) / 2  # exact: one more bit than the format, far fewer than fp64
    even = np.where(picked % 2 == 0, picked, picked + 1)
    for point, expected in (
        (middle, even),
        (np.nextafter(middle, -np.inf), picked),
        (np.nextafter(middle, np.inf), picked + 1),
    ):
        finite = np.isfinite(high)
        np.testing.assert_array_equal(expected[finite], convert(blender, point[finite], dtype)[0])


def test_fp64_goes_to_fp16_in_one_rounding() -> None:
    """A value just above a tie, which fp32 cannot tell from the tie, rounds up and not to even."""
    value = np.array([1 + 2**-11 + 2**-40])
    assert np.float16(np.float32(value[0])) == 1.0  # what two roundings give
    for blender in BLENDERS:
        assert np.float16(1 + 2**-10).view("u2") == convert(blender, value, "F16")[0][0]


@pytest.mark.parametrize("blender", BLENDERS, ids=type)
def test_overflow_becomes_infinite_and_is_counted(blender: AbstractBlender) -> None:
    """Beyond the range fp16 and bf16 give Inf, e4m3fn stops at 448, and NaN stays NaN."""
    values = np.array([1e6, -65520.0, 65519.9, np.inf, np.nan, 5.0])
    codes, bad = convert(blender, values, "F16")
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(expected, codes.view(np.float16))
    assert bad == 4
    codes, bad = convert(blender, values, "F8_E4M3")
    np.testing.assert_array_equal([448, -448, 448, np.nan, np.nan, 5], eight_bit_values("F8_E4M3")[codes])
    assert bad == 2


@settings(max_examples=60)
@given(
    data=st.data(),
    dtype_a=st.sampled_from(list(FLOATS)),
    dtype_b=st.sampled_from(list(FLOATS)),
    dtype=st.sampled_from(list(FLOATS)),
    alpha=st.floats(-2, 2),
)
def test_compiled_and_torch_blend_to_the_same_bytes(
    data: st.DataObject, dtype_a: str, dtype_b: str, dtype: str, alpha: float
) -> None:
    """Any finite bytes, any three dtypes: both implementations write the same file."""
    count = data.draw(st.integers(1, 40))
    sides = []
    for name in (dtype_a, dtype_b):
        raw = np.frombuffer(data.draw(st.binary(min_size=count * 8, max_size=count * 8)), "u1")
        sides.append(raw[: count * FLOATS[name].bits // 8].copy())
    with np.errstate(all="ignore"):
        first, bad_first = BLENDERS[0].blend(sides[0], dtype_a, sides[1], dtype_b, alpha=alpha, dtype=dtype)
        second, bad_second = BLENDERS[1].blend(sides[0], dtype_a, sides[1], dtype_b, alpha=alpha, dtype=dtype)
    np.testing.assert_array_equal(first, second)
    assert bad_first == bad_second


def test_blend_of_equal_values_is_unchanged() -> None:
    """Where A and B agree nothing creeps in, whatever alpha: no rounding, no lost sign, no NaN of Inf."""
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    values[:4] = -0.0, 0.0, np.inf, -np.inf
    raw = values.view("u1")
    for blender in BLENDERS:
        np.testing.assert_array_equal(raw, blender.blend(raw, "F32", raw, "F32", alpha=0.3, dtype="F32")[0])


@pytest.mark.parametrize(
    ("dtypes", "oracle"),
    [
        (("F32", "F16"), lambda x: np.spacing(np.abs(x).astype(np.float16)).astype(float)),
        (("F32", "F32"), lambda x: np.spacing(np.abs(x)).astype(float)),
        (("F16", "F16"), lambda x: np.spacing(np.abs(x).astype(np.float16)).astype(float)),
    ],
)
def test_ulp_is_numpys_spacing(dtypes: tuple[str, str], oracle: object) -> None:
    """max(2^⌊log2|x|⌋·scale, floor) is the spacing that numpy reports, subnormals included."""
    values = np.array([1.0, 0.1, 3.14159, 6e-5, 5.96e-8, 1e-7, 1000.0], np.float16).astype(np.float32)
    scale, floor = ulp_parameters(*dtypes)
    power = 2.0 ** np.floor(np.log2(np.abs(values.astype(float))))
    np.testing.assert_array_equal(oracle(values), np.maximum(power * scale, floor))  # type: ignore[operator]


def test_compiled_loops_are_told_apart_by_all_their_sources(tmp_path: Path) -> None:
    """A loop that was stored on disk is not used once a file changed that it takes constants from."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    stamps = {source_stamp(folder)}
    for path in (folder / "a.py", folder / "b.py", tmp_path / "measures.py"):
        for text in ("BINS = 1", "BINS = 2"):
            path.write_text(text, encoding="utf-8")
            stamps.add(source_stamp(folder))
    assert 7 == len(stamps)
    assert source_stamp(folder) == source_stamp(folder)


def test_a_blend_beyond_the_operands_or_the_output_is_refused() -> None:
    """The loops look at no bounds: they would read and write whatever lies behind."""
    blender = BLENDERS[0]
    raw, short = np.zeros(8, np.uint8), np.zeros(6, np.uint8)
    with pytest.raises(ValueError, match="fewer elements"):
        blender.blend(raw, "F16", short, "F16", alpha=0.5, dtype="F16")
    with pytest.raises(ValueError, match="8 bytes do not fit into the 6"):
        blender.blend(raw, "F16", raw, "F16", alpha=0.5, dtype="F16", out=short)
    with pytest.raises(ValueError, match="16 bytes do not fit into the 8"):
        blender.convert(raw, "F16", dtype="F32", out=raw.copy())
