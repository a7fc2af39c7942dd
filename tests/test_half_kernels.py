"""fp16 by the processor's own instructions and by integer arithmetic: the same bits, numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from analyzer.kernels import compiled, compiled_blend
from analyzer.kernels.formats import rounding_parameters

Kernel = Callable[..., Any]


def callable_here(loop: Any) -> Kernel:
    """A loop that only compiled code calls, with a door for Python."""
    kernel: Kernel = njit(loop.py_func)
    return kernel


WIDEN = {"fields": callable_here(compiled.widen_half_by_fields)}
NARROW = {"bits": callable_here(compiled_blend.narrow_half_by_bits)}
BLEND = {"bits": callable_here(compiled_blend.blend_half_by_bits)}
if compiled.KNOWS_HALF:
    WIDEN["hardware"] = callable_here(compiled.widen_half_by_hardware)
    NARROW["hardware"] = callable_here(compiled_blend.narrow_half_by_hardware)
    BLEND["hardware"] = callable_here(compiled_blend.blend_half_by_hardware)


def narrowed(kernel: Kernel, values: np.ndarray) -> tuple[np.ndarray, int]:
    """The codes of the values rounded, and how many are not finite."""
    out = np.empty(values.size, np.uint16)
    return out, int(kernel(values, values.size, out, rounding_parameters("F16")))


def check(kernel: Kernel, values: np.ndarray) -> None:
    """Against numpy, which rounds fp64 to fp16 once; every NaN has one code."""
    codes, bad = narrowed(kernel, values)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    bits = np.where(np.isnan(expected), np.uint16(0x7E00), expected.view(np.uint16))
    np.testing.assert_array_equal(bits, codes)
    assert int((~np.isfinite(expected)).sum()) == bad


@pytest.mark.parametrize("name", WIDEN)
def test_every_code_is_widened_exactly(name: str) -> None:
    """All 65,536 of them."""
    codes, out = np.arange(1 << 16, dtype=np.uint16), np.empty(1 << 16)
    WIDEN[name](codes, codes.size, out)
    expected = codes.view(np.float16).astype(np.float64)
    np.testing.assert_array_equal(expected, out)
    np.testing.assert_array_equal(np.signbit(expected)[expected == 0], np.signbit(out)[expected == 0])


@pytest.mark.parametrize("name", NARROW)
def test_every_number_half_way_and_beside_it(name: str) -> None:
    """Between all neighbours: the middle, and the nearest fp64 and fp32 numbers on both sides of it."""
    positive = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middle = np.append((positive[1:] + positive[:-1]) / 2, 65520.0)
    single = middle.astype(np.float32)
    around = [
        middle,
        np.nextafter(middle, np.inf),
        np.nextafter(middle, 0),
        np.nextafter(single, np.float32(np.inf)).astype(np.float64),
        np.nextafter(single, np.float32(0)).astype(np.float64),
        middle * (1 + 2.0**-26),
        middle * (1 - 2.0**-26),
        positive,
    ]
    values = np.concatenate(around)
    check(NARROW[name], np.concatenate([values, -values]))


@pytest.mark.parametrize("name", NARROW)
def test_what_is_special(name: str) -> None:
    """Zeros of both signs, what is too large or too small even for fp32, Inf and NaN."""
    values = [
        0.0,
        5e-324,
        1e-310,
        1e-46,
        1e-38,
        2.0**-25,
        2.0**-24,
        65519.99,
        65520,
        1e5,
        1e39,
        1e308,
        np.inf,
    ]
    check(NARROW[name], np.array([*values, *(-v for v in values), np.nan, -np.nan]))


@settings(max_examples=300)
@given(st.lists(st.floats(width=64), min_size=1, max_size=20))
@pytest.mark.parametrize("name", NARROW)
def test_any_number(name: str, values: list[float]) -> None:
    """Whatever fp64 holds."""
    check(NARROW[name], np.array(values))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, -0.7, 1.5])
@pytest.mark.parametrize("name", BLEND)
def test_a_blend_is_numpys(name: str, alpha: float) -> None:
    """Of codes of every kind, Inf and NaN among them, in fp64 and rounded once; equal ones stay."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        half_a, half_b = rng.integers(0, 1 << 16, (2, 1000)).astype(np.uint16)
        half_b[::7] = half_a[::7]
        out, scratch = np.empty(1000, np.uint16), np.empty((2, 1024))
        bad = BLEND[name](half_a, half_b, 1000, alpha, out, *scratch, rounding_parameters("F16"))
        a, b = half_a.view(np.float16).astype(np.float64), half_b.view(np.float16).astype(np.float64)
        with np.errstate(all="ignore"):
            expected = np.where(a == b, a, a + alpha * (b - a)).astype(np.float16)
        bits = np.where(np.isnan(expected), np.uint16(0x7E00), expected.view(np.uint16))
        np.testing.assert_array_equal(bits, out)
        assert int((~np.isfinite(expected)).sum()) == bad
