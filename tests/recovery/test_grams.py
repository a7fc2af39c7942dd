"""The sums of a merge and its parents against numpy, and what follows from adding them."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.kernels.formats import FLOATS, values_of
from analyzer.recovery.fits import fit, left_by, of_difference
from analyzer.recovery.grams import AbstractGramMeasurer, Gram, _TorchMeasurer, add_grams, open_gram_measurer

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def operand(values: np.ndarray) -> tuple[np.ndarray, str]:
    """An array as the kernels take it."""
    name = next(name for name, dtype in DTYPES.items() if dtype == values.dtype)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8), name


def bfloat(values: np.ndarray) -> tuple[np.ndarray, str]:
    """An fp32 array cut to bf16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), "BF16"


def oracle(m: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray | None) -> dict[str, float]:
    """The plain sums, by numpy in fp64 over the positions that are finite everywhere."""
    sides = [np.asarray(x, np.float64) for x in (m, a, b, a if c is None else c)]
    kept = np.logical_and.reduce([np.isfinite(x) for x in sides])
    m, a, b, c = (x[kept] for x in sides)
    e, d, g = m - a, b - a, c - a
    return {
        "n": len(m),
        "moved": int((e != 0).sum()),
        "not_taken": int((m != b).sum()),
        "still": int(((d == 0) & (g == 0)).sum()),
        "ee": float(e @ e),
        "dd": float(d @ d),
        "ed": float(e @ d),
        "gg": float(g @ g),
        "dg": float(d @ g),
        "eg": float(e @ g),
    }


@pytest.fixture(scope="module")
def measurer() -> AbstractGramMeasurer:
    return open_gram_measurer("cpu")


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_sums_equal_numpy(dtype: str, three: bool, measurer: AbstractGramMeasurer) -> None:
    """All counts exactly and all sums to 1e-12, with NaN and Inf in each of the models."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal(5000)
    sides = [a, a.copy(), a + 0.1 * rng.standard_normal(5000), a + 0.1 * rng.standard_normal(5000)]
    sides[0] = a + 0.3 * (sides[2] - a)
    for place, side in enumerate(sides):
        side[10 + place] = np.nan
        side[2000 + place] = np.inf
    sides[2][100:200] = a[100:200]
    pack = bfloat if dtype == "BF16" else lambda x: operand(x.astype(DTYPES[dtype]))
    packed = [pack(side) for side in sides][: 4 if three else 3]
    got = measurer.measure(*packed)
    values = [values_of(*each).astype(np.float64) for each in packed]  # type: ignore[union-attr]
    expected = oracle(*values, *([] if three else [None]))
    assert 5000 == got.numel
    for name, value in expected.items():
        assert value == pytest.approx(getattr(got, name), rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("three", [False, True])
def test_torch_gives_the_same_record(three: bool, measurer: AbstractGramMeasurer) -> None:
    """Counts and bounds exactly, sums to the last bits."""
    rng = np.random.default_rng(2)
    a = rng.standard_normal(3000).astype(np.float16)
    b, c = ((a + 0.01 * rng.standard_normal(3000)).astype(np.float16) for _ in range(2))
    m = (a + 0.4 * (b.astype(float) - a)).astype(np.float16)
    m[5], a[6], b[7] = np.nan, np.inf, a[7]
    m[7] += 1
    sides = [operand(x) for x in ([m, a, b, c] if three else [m, a, b])]
    expected, got = measurer.measure(*sides), _TorchMeasurer("cpu").measure(*sides)
    for f in fields(Gram):
        x, y = getattr(expected, f.name), getattr(got, f.name)
        assert x == y if abs(x) == inf else x == pytest.approx(y, rel=1e-12, abs=0), f.name
    assert (expected.low, expected.high) == (got.low, got.high)


@given(
    st.floats(-2, 3),
    st.sampled_from(["F64", "F32", "F16"]),
    st.integers(1, 400),
    st.integers(0, 10**6),
    st.floats(1e-4, 1),
)
@settings(max_examples=60)
def test_what_was_rounded_once_has_its_alpha_within_the_bounds(
    alpha: float, dtype: str, count: int, seed: int, size: float
) -> None:
    """Whatever the sizes and the dtype; one of another alpha has it there too, or no bounds at all."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(count).astype(DTYPES[dtype])
    b = (a + size * rng.standard_normal(count)).astype(DTYPES[dtype])
    m = (a.astype(float) + alpha * (b.astype(float) - a)).astype(DTYPES[dtype])
    got = open_gram_measurer("cpu").measure(operand(m), operand(a), operand(b))
    assert got.low <= alpha <= got.high or got.dd == 0
    found = fit(got)
    if found.alpha is not None:
        assert found.error is not None
        assert abs(found.alpha - alpha) <= found.error * (1 + 1e-9)


@given(st.floats(0, 1), st.sampled_from([np.float16, np.float32]), st.integers(0, 10**6))
@settings(max_examples=40)
def test_arithmetic_in_fp32_stays_within_the_bounds(alpha: float, dtype: type, seed: int) -> None:
    """(1 − alpha)·A + alpha·B in fp32, as web UIs write it, and then rounded to the merge's dtype."""
    rng = np.random.default_rng(seed)
    a, d = rng.standard_normal((2, 2000))
    a, b = a.astype(dtype), (a + 0.01 * d).astype(dtype)
    wide = a.astype(np.float32), b.astype(np.float32)
    m = (np.float32(1 - alpha) * wide[0] + np.float32(alpha) * wide[1]).astype(dtype)
    got = open_gram_measurer("cpu").measure(operand(m), operand(a), operand(b))
    assert got.low <= alpha <= got.high


def test_the_bounds_see_an_alpha_that_least_squares_miss(measurer: AbstractGramMeasurer) -> None:
    """Where d is a few spacings of fp16 rounding goes along with it: 1e-4 and more of bias."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal(100_000).astype(np.float16)
    b = (a + 0.003 * rng.standard_normal(100_000)).astype(np.float16)
    m = (a + 0.35 * (b.astype(float) - a)).astype(np.float16)
    got = measurer.measure(operand(m), operand(a), operand(b))
    assert abs(got.ed / got.dd - 0.35) > 1e-4
    assert 0.35 == pytest.approx(fit(got).alpha, abs=2e-6)


arrays = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=60)


@given(arrays, st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=80)
def test_records_add(values: list[float], seed: int, cuts: list[int]) -> None:
    """However the elements are cut, the sum of the records is the record of all; so is the fit."""
    rng = np.random.default_rng(seed)
    a = np.array(values)
    b, c = a + rng.standard_normal((2, len(a)))
    m = a + 0.3 * (b - a) - 0.2 * (c - a) + 0.01 * rng.standard_normal(len(a))
    measurer = open_gram_measurer("cpu")
    ends = sorted({0, len(a), *(cut for cut in cuts if cut < len(a))})
    parts = [measurer.measure(*(operand(x[i:j]) for x in (m, a, b, c))) for i, j in pairwise(ends)]
    whole, joined = measurer.measure(*(operand(x) for x in (m, a, b, c))), add_grams(parts)
    for f in fields(Gram):
        assert getattr(whole, f.name) == pytest.approx(getattr(joined, f.name), rel=1e-12, abs=1e-12)
    assert add_grams(parts) == add_grams(parts[::-1])


@given(st.integers(0, 2**32 - 1), st.integers(3, 200))
@settings(max_examples=50)
def test_two_coefficients_are_those_of_numpy(seed: int, count: int) -> None:
    """The normal equations give what numpy.linalg.lstsq gives, and the residual that is left there."""
    rng = np.random.default_rng(seed)
    m, a, b, c = rng.standard_normal((4, count))
    directions = np.stack([b - a, c - a], axis=1)
    expected, *_ = np.linalg.lstsq(directions, m - a)
    gram = open_gram_measurer("cpu").measure(*(operand(x) for x in (m, a, b, c)))
    found = fit(gram, three=True)
    rest = (m - a) - directions @ expected
    assert float(rest @ rest) == pytest.approx(found.left, rel=1e-6, abs=1e-9)
    if found.alpha is not None:
        assert expected[0] == pytest.approx(found.alpha, rel=1e-6, abs=1e-6)
    if found.gamma is not None:
        assert expected[1] == pytest.approx(found.gamma, rel=1e-6, abs=1e-6)
    assert float((m - a - 0.5 * (b - a)) @ (m - a - 0.5 * (b - a))) == pytest.approx(left_by(gram, 0.5))
    along = of_difference(gram)
    assert (float((b - c) @ (b - c)), float((m - a) @ (b - c))) == pytest.approx((along.dd, along.ed))


def test_equal_parents_tell_nothing(measurer: AbstractGramMeasurer) -> None:
    """No alpha where B is A; where C is A, B's alpha alone; where C is B, only both together."""
    rng = np.random.default_rng(4)
    a, b, c = rng.standard_normal((3, 500))
    m = a + 0.25 * (b - a)
    ops = {name: operand(x) for name, x in (("a", a), ("b", b), ("c", c), ("m", m))}
    assert fit(measurer.measure(ops["m"], ops["a"], ops["a"])).alpha is None
    same_c = fit(measurer.measure(ops["m"], ops["a"], ops["b"], ops["a"]), three=True)
    assert (0.25, None) == (pytest.approx(same_c.alpha, abs=1e-9), same_c.gamma)
    same_b = fit(measurer.measure(ops["m"], ops["a"], ops["a"], ops["b"]), three=True)
    assert (None, 0.25) == (same_b.alpha, pytest.approx(same_b.gamma, abs=1e-9))
    both = fit(measurer.measure(ops["m"], ops["a"], ops["b"], ops["b"]), three=True)
    assert (None, None, 0.25) == (both.alpha, both.gamma, pytest.approx(both.together, abs=1e-9))


def test_a_difference_that_rounding_swallows_tells_nothing(measurer: AbstractGramMeasurer) -> None:
    """A bf16 merge of fp32 parents that differ by a thousandth of its spacing, in one element: none."""
    a = np.array([1.0], np.float32)
    b = np.array([1.00001], np.float32)
    m = bfloat(np.array([1.0]))
    found = fit(measurer.measure(m, operand(a), operand(b)))
    assert found.alpha is None
    assert found.error is not None
    assert found.error > 0.5


def test_what_moved_where_the_parents_stand_still_is_foreign(measurer: AbstractGramMeasurer) -> None:
    """By more than three roundings to the merge's dtype; a cast of A is none."""
    rng = np.random.default_rng(5)
    a = rng.standard_normal(1000).astype(np.float32)
    m = a.astype(np.float16)
    assert 0 == measurer.measure(operand(m), operand(a), operand(a)).foreign
    m[3] += np.float16(0.5)
    got = measurer.measure(operand(m), operand(a), operand(a))
    assert (1, 1000) == (got.foreign, got.still)
    assert 0.25 == pytest.approx(got.foreign_ee, rel=0.01)


def test_every_floating_dtype_is_measured(measurer: AbstractGramMeasurer) -> None:
    """Each format that the kernels know, as the merge and as a parent."""
    raw = np.arange(64, dtype=np.uint8)
    for dtype, form in FLOATS.items():
        got = measurer.measure((raw, dtype), (raw, dtype), (raw, dtype))
        assert 64 * 8 // form.bits == got.numel
        assert 0 == got.moved == got.foreign
