"""The spacing of floating-point numbers, against fractions made from the published formats."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analyzer.kernels.formats import FLOATS, ulp_parameters
from analyzer.sums import open_measurer

# (significand bits with the hidden one, exponent of the smallest normal number): IEEE 754-2019 for
# fp16, fp32 and fp64, Google's bfloat16, and OCP 8-bit floating point 1.0 for both fp8.
PUBLISHED = {
    "F16": (11, -14),
    "BF16": (8, -126),
    "F32": (24, -126),
    "F64": (53, -1022),
    "F8_E4M3": (4, -6),
    "F8_E5M2": (3, -14),
}
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PAIRS = list(product(PUBLISHED, PUBLISHED))
MEASURER = open_measurer("cpu")


def exponent(x: Fraction) -> int:
    """⌊log2|x|⌋ without a rounding; x is not zero."""
    x = abs(x)
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if Fraction(2) ** guess <= x else guess - 1


def spacing(x: Fraction, dtype: str) -> Fraction:
    """The distance of neighbouring numbers at |x|, in a format whose exponents have no upper end."""
    precision, emin = PUBLISHED[dtype]
    return Fraction(2) ** (max(exponent(x), emin) - precision + 1)


def ulp(x: float, dtype_a: str, dtype_b: str) -> Fraction:
    """The contract's ulp: the coarser format's spacing; fp16 against bf16, the larger of both; 0 at 0."""
    if x == 0:
        return Fraction(0)
    exact = Fraction(x)
    if {dtype_a, dtype_b} == {"F16", "BF16"}:
        return max(spacing(exact, "F16"), spacing(exact, "BF16"))
    return spacing(exact, min((dtype_a, dtype_b), key=lambda name: PUBLISHED[name][0]))


def stored_values(dtype: str) -> np.ndarray:
    """Finite numbers of a format, of both signs: zero, the subnormals' ends, powers of two and between."""
    precision, emin = PUBLISHED[dtype]
    lowest = emin - precision + 1
    near = [*range(lowest, lowest + 3), *range(emin - 2, emin + 3), *range(-18, -4), *range(-2, 9)]
    far = range(-140, 120, 13)  # fp16, fp8: rounded to zero, or infinite and left out
    sizes = [np.ldexp(m, e) for e in (*near, *far, -500, 500) for m in (1.0, 1.5, 1.9)]
    tensor = torch.tensor([0.0, *sizes, *(-x for x in sizes)], dtype=torch.float64).to(TORCH[dtype])
    values: np.ndarray = tensor.to(torch.float64).numpy()
    return np.unique(values[np.isfinite(values)])


def raw(values: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of numbers that the format holds exactly."""
    return torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy().reshape(-1)


def test_the_published_formats_are_those_of_the_table() -> None:
    """Precision and smallest exponent of every format that the tool knows."""
    assert PUBLISHED == {name: (f.precision, f.emin) for name, f in FLOATS.items()}


@pytest.mark.parametrize(("dtype_a", "dtype_b"), PAIRS)
@settings(max_examples=60)
@given(x=st.floats(allow_nan=False, allow_infinity=False).filter(bool))
@example(x=5e-324)
@example(x=2.0**-133)
@example(x=2.0**-24)
@example(x=-(2.0**-14))
@example(x=1.999 * 2.0**-15)
@example(x=2.0**-9)
@example(x=0.1)
@example(x=-1.0)
@example(x=65504.0)
@example(x=1.7e308)
def test_scale_and_floor_give_the_coarser_spacing(x: float, dtype_a: str, dtype_b: str) -> None:
    """max(2^⌊log2|x|⌋·scale, floor) is the spacing, from the smallest subnormal to the largest number."""
    scale, floor = map(Fraction, ulp_parameters(dtype_a, dtype_b))
    power = Fraction(2) ** exponent(Fraction(x))
    assert ulp(x, dtype_a, dtype_b) == max(power * scale, floor)


@pytest.mark.parametrize(("dtype_a", "dtype_b"), PAIRS)
def test_measured_ulps_are_the_coarser_spacing(dtype_a: str, dtype_b: str) -> None:
    """Number by number, as bytes of their format: the square of the spacing, exactly; nothing at zero."""
    values = stored_values(dtype_a)
    other = raw(np.zeros(1), dtype_b)
    expected = [float(ulp(x, dtype_a, dtype_b) ** 2) for x in values.tolist()]
    measured = [
        MEASURER.measure(raw(values[i : i + 1], dtype_a), dtype_a, other, dtype_b).sum_ulp_sq
        for i in range(len(values))
    ]
    assert 40 < len(values)
    assert expected == measured


@pytest.mark.parametrize(("dtype_a", "dtype_b"), PAIRS)
def test_measured_ulps_are_those_of_a_alone(dtype_a: str, dtype_b: str) -> None:
    """The spacing is taken at A's value, summed over a tensor; B lends its format only."""
    values = [x for x in stored_values(dtype_a).tolist() if abs(x) < 1e4]
    expected = float(sum(ulp(x, dtype_a, dtype_b) ** 2 for x in values))
    a = raw(np.array(values), dtype_a)
    for value in (0.0, 1.0, -448.0):
        sums = MEASURER.measure(a, dtype_a, raw(np.full(len(values), value), dtype_b), dtype_b)
        assert expected == pytest.approx(sums.sum_ulp_sq, rel=1e-14)


def test_fp16_against_bf16_takes_the_larger_of_both() -> None:
    """bf16 has the fewer bits, yet below 2^-17 fp16 is the coarser: its spacing ends at 2^-24."""
    for x, expected in ((1.0, 2.0**-7), (2.0**-16, 2.0**-23), (2.0**-17, 2.0**-24), (2.0**-20, 2.0**-24)):
        for dtype_a, dtype_b in (("F16", "BF16"), ("BF16", "F16")):
            a, b = raw(np.array([x]), dtype_a), raw(np.array([x]), dtype_b)
            assert expected**2 == MEASURER.measure(a, dtype_a, b, dtype_b).sum_ulp_sq
