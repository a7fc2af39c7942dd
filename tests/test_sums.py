"""Measured sums and the statistics made of them, against numpy in fp64 and 50-digit arithmetic."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.batches import AbstractMeasurer
from analyzer.evaluation import evaluate
from analyzer.kernels.formats import FLOATS
from analyzer.measures import HISTOGRAMS, SUM_FIELDS, TASK_COUNTS, Sums, add_sums
from analyzer.statistics import STATISTICS
from analyzer.sums import CompiledMeasurer, compare_equality
from analyzer.torch_measurer import TorchMeasurer

MEASURERS: list[AbstractMeasurer] = [CompiledMeasurer(), TorchMeasurer("cpu")]
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PRECISE = 1e-9  # the contract asks for 1e-6


def store(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values rounded to a dtype, as (raw bytes, the rounded values in fp64)."""
    tensor = torch.from_numpy(np.asarray(values, np.float64)).to(TORCH[dtype])
    return tensor.view(torch.uint8).numpy().reshape(-1), tensor.to(torch.float64).numpy()


def oracle(a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """The contract's formulas in numpy fp64, written without looking at the project's own."""
    both = np.isfinite(a) & np.isfinite(b)
    bad_a, bad_b, numel = int((~np.isfinite(a)).sum()), int((~np.isfinite(b)).sum()), a.size
    a, b = a[both], b[both]
    d = b - a
    na, nb, nd = np.linalg.norm(a), np.linalg.norm(b), np.linalg.norm(d)
    distance = max((np.dot(d, d) - (nb - na) ** 2) / (2 * na * nb), 0.0) if na * nb else None
    return {
        "numel": numel,
        "norm_a": na,
        "norm_b": nb,
        "norm_ratio": nb / na if na else None,
        "cosine_distance": distance,
        "cosine": None if distance is None else 1 - distance,
        "norm_delta": nd,
        "relative_change": nd / na if na else None,
        "rms_delta": np.sqrt(np.mean(d**2)),
        "mean_abs_delta": np.mean(np.abs(d)),
        "max_abs_delta": np.max(np.abs(d)),
        "mean_a": a.mean(),
        "mean_b": b.mean(),
        "std_a": a.std(),
        "std_b": b.std(),
        "changed_fraction": np.mean(a != b),
        "sign_flip_fraction": np.mean(np.sign(a) * np.sign(b) < 0),
        "nonfinite_a": bad_a,
        "nonfinite_b": bad_b,
        "energy_share": 1.0 if nd else None,
    }


def check_statistics(
    expected: dict[str, float | None], got: dict[str, float | None], *, scale: float
) -> None:
    """Every statistic within PRECISE, relative to itself; means relative to the values' size."""
    for name, value in expected.items():
        floor = scale * 1e-12 if name in ("mean_a", "mean_b", "std_a", "std_b") else 0.0
        assert got[name] == (value if value is None else pytest.approx(value, rel=PRECISE, abs=floor)), name


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize("dtype_b", list(FLOATS))
@pytest.mark.parametrize("dtype_a", list(FLOATS))
def test_every_statistic_equals_numpy(dtype_a: str, dtype_b: str, measurer: AbstractMeasurer) -> None:
    """All pairs of dtypes, with a length that fills no block and signs that flip."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal(3001) * 0.5
    raw_a, a = store(values, dtype_a)
    raw_b, b = store(values + rng.standard_normal(3001) * 0.2, dtype_b)
    sums = measurer.measure(raw_a, dtype_a, raw_b, dtype_b)
    check_statistics(oracle(a, b), evaluate(sums, total=sums), scale=0.5)


CASES = {
    "one element": ([0.5], [0.25]),
    "all zeros": ([0.0] * 9, [0.0] * 9),
    "A zero": ([0.0] * 9, [1.0] * 9),
    "B zero": ([1.0] * 9, [0.0] * 9),
    "identical": ([0.1, -0.2, 0.3], [0.1, -0.2, 0.3]),
    "negated": ([0.5, -0.25, 2.0], [-0.5, 0.25, -2.0]),
    "one NaN": ([0.5, float("nan"), 2.0], [1.0, 1.0, 1.0]),
    "Inf on both sides": ([float("inf"), 1.0, 3.0, 4.0], [1.0, float("-inf"), 3.0, 5.0]),
    "huge": ([65504.0, -65504.0, 1.0], [-65504.0, 65504.0, 2.0]),
    "subnormal": ([6e-8, 1.2e-7, -6e-8], [6e-8, -6e-8, 1.8e-7]),
    "signed zeros": ([0.0, -0.0, 1.0], [-0.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("name", CASES)
def test_delicate_inputs_equal_numpy(name: str, dtype: str, measurer: AbstractMeasurer) -> None:
    """The inputs on which flat fp32 code goes wrong; undefined is None."""
    raw_a, a = store(np.array(CASES[name][0]), dtype)
    raw_b, b = store(np.array(CASES[name][1]), dtype)
    sums = measurer.measure(raw_a, dtype, raw_b, dtype)
    check_statistics(oracle(a, b), evaluate(sums, total=sums), scale=1.0)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_no_elements_leave_everything_undefined(measurer: AbstractMeasurer) -> None:
    """An empty tensor has a size and counts of zero, and nothing else."""
    empty = np.empty(0, np.uint8)
    sums = measurer.measure(empty, "F32", empty, "F32")
    expected: dict[str, float | None] = dict.fromkeys(STATISTICS)
    assert expected | {"numel": 0, "nonfinite_a": 0, "nonfinite_b": 0} == evaluate(sums, total=sums)


def test_all_non_finite_is_undefined() -> None:
    """A tensor without one finite value has a size and counts, and no norm."""
    raw, _ = store(np.full(5, np.nan), "F16")
    sums = MEASURERS[0].measure(raw, "F16", raw, "F16")
    values = evaluate(sums, total=sums)
    assert (5, 5, None, None) == (values["numel"], values["nonfinite_a"], values["norm_a"], values["cosine"])


@pytest.mark.parametrize("exponent", [-4, -6, -9, -12])
def test_cosine_distance_keeps_five_digits(exponent: int) -> None:
    """Nearly parallel vectors in fp64, down to 1e-12, against 50-digit arithmetic."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal(20_000)
    b = a + rng.standard_normal(20_000) * np.sqrt(2.0 * 10.0**exponent)
    with mpmath.workdps(50):
        dot = mpmath.fdot(a.tolist(), b.tolist())
        lengths = mpmath.sqrt(mpmath.fdot(a.tolist(), a.tolist()) * mpmath.fdot(b.tolist(), b.tolist()))
        expected = float(1 - dot / lengths)
    assert expected == pytest.approx(10.0**exponent, rel=0.1)
    for measurer in MEASURERS:
        sums = measurer.measure(a.view("u1"), "F64", b.view("u1"), "F64")
        assert evaluate(sums, total=sums)["cosine_distance"] == pytest.approx(expected, rel=1e-5)


def test_large_tensors_keep_their_digits() -> None:
    """Eight million fp16 elements in chunks: where flat fp32 sums lose the third digit."""
    rng = np.random.default_rng(5)
    a = (rng.standard_normal(8_000_000, dtype=np.float32) * 0.03).astype(np.float16)
    b = (a + rng.standard_normal(a.size, dtype=np.float32) * np.float32(0.001)).astype(np.float16)
    step = 1 << 17
    parts = [
        MEASURERS[0].measure(a[i : i + step].view("u1"), "F16", b[i : i + step].view("u1"), "F16")
        for i in range(0, a.size, step)
    ]
    sums = add_sums(parts)
    check_statistics(oracle(a.astype(float), b.astype(float)), evaluate(sums, total=sums), scale=0.03)


def check_same(expected: Sums, got: Sums) -> None:
    """Counts to the last one, sums to 1e-12 of themselves or of the largest that cancels in them."""
    largest = expected.sum_aa + expected.sum_bb + 1
    for name in SUM_FIELDS:
        value = getattr(expected, name)
        exact = isinstance(value, int) or name == "max_abs_d"
        want = value if exact else pytest.approx(value, rel=1e-12, abs=1e-12 * largest)
        assert getattr(got, name) == want, name
    for name in HISTOGRAMS:
        them, ours = getattr(expected, name), getattr(got, name)
        assert (them.first, them.counts) == (ours.first, ours.counts), name
        assert ours.energies.tolist() == pytest.approx(them.energies.tolist(), rel=1e-12), name
    assert (expected.task is None) == (got.task is None)
    if expected.task and got.task:
        assert asdict(got.task) == pytest.approx(asdict(expected.task), rel=1e-12)
        assert [getattr(expected.task, n) for n in TASK_COUNTS] == [getattr(got.task, n) for n in TASK_COUNTS]


@settings(max_examples=60)
@given(
    size=st.integers(1, 4000),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    bad=st.integers(0, 3),
)
def test_sums_are_additive(size: int, cuts: list[int], seed: int, bad: int) -> None:
    """However a tensor is cut, and in whatever order the parts add, the record is the same."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.standard_normal((3, size)).astype(np.float16)
    b[: size // 3] = a[: size // 3]
    a[rng.integers(0, size, bad)] = np.nan
    b[rng.integers(0, size, bad)] = np.inf
    c[rng.integers(0, size, bad)] = -np.inf

    def measure(i: int, j: int) -> Sums:
        base = (c[i:j].view("u1"), "F16")
        return MEASURERS[0].measure(a[i:j].view("u1"), "F16", b[i:j].view("u1"), "F16", base=base)

    whole = measure(0, size)
    edges = sorted({0, size, *(c for c in cuts if c < size)})
    parts = [measure(i, j) for i, j in pairwise(edges)]
    rng.shuffle(parts)  # type: ignore[arg-type]  # a list of records shuffles like any other
    check_same(whole, add_sums(parts))


def test_adding_nothing_changes_nothing() -> None:
    """The empty record is neutral, and the sum of no records."""
    sums = Sums(numel=3, n=3, numeric=3, sum_aa=2.0, max_abs_d=0.5)
    assert sums == sums + Sums() == Sums() + sums
    assert Sums() == add_sums([])


def test_fp64_overflow_is_undefined_not_an_error() -> None:
    """Squares beyond 1e308 have no norm that fp64 could hold."""
    a = np.array([1e200, -1e200, 1e308, 1e308])
    parts = [MEASURERS[0].measure(x.view("u1"), "F64", (-x).view("u1"), "F64") for x in (a, a)]
    sums = add_sums(parts)
    assert evaluate(sums, total=sums)["norm_a"] is None
    assert evaluate(sums, total=sums)["numel"] == 8


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_rounding_floor_predicts_the_error_of_a_cast(measurer: AbstractMeasurer) -> None:
    """An fp32 tensor against its own fp16 copy: the change is what uniform rounding errors leave."""
    rng = np.random.default_rng(11)
    values = rng.standard_normal(50_000) * 0.03
    raw_a, _ = store(values, "F32")
    raw_b, _ = store(values.astype(np.float32), "F16")
    sums = measurer.measure(raw_a, "F32", raw_b, "F16")
    ratio = evaluate(sums, total=sums)["change_to_rounding"]
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_ulp_sum_equals_numpys_spacing() -> None:
    """Σulp² over fp16 values is the sum of numpy's spacings squared; zeros count nothing."""
    a = np.array([0.0, 1.0, -0.1, 6e-8, 1000.0, -0.0], np.float16)
    expected = float((np.spacing(np.abs(a[a != 0])).astype(float) ** 2).sum())
    for measurer in MEASURERS:
        assert expected == measurer.measure(a.view("u1"), "F16", a.view("u1"), "F16").sum_ulp_sq


def test_integers_are_compared_and_never_averaged() -> None:
    """int64 positions: a count of what differs, no norm, no mean."""
    a, b = np.arange(77), np.arange(77)
    b[3] = 500
    sums = compare_equality(a.view("u1"), "I64", b.view("u1"), "I64", itemsize=8)
    values = evaluate(sums, total=sums)
    assert 1 / 77 == values["changed_fraction"]
    assert (None, None, None) == (values["norm_a"], values["mean_b"], values["relative_change"])


def test_integers_against_floats_compare_by_value() -> None:
    """position_ids that were saved as fp32 or bf16 equal the integers; NaN equals nothing and is counted."""
    a = np.arange(77)
    b = a.astype(np.float32)
    equal = compare_equality(a.view("u1"), "I64", b.view("u1"), "F32", itemsize=8)
    assert Sums(numel=77, n=77) == equal
    b[5] = np.nan
    assert replace(equal, n=76, nonfinite_b=1, nonfinite_differs=1) == compare_equality(
        a.view("u1"), "I64", b.view("u1"), "F32", itemsize=8
    )
    brain, _ = store(a, "BF16")
    assert equal == compare_equality(a.view("u1"), "I64", brain, "BF16", itemsize=8)


def test_booleans_compare() -> None:
    """Masks differ where they differ."""
    a, b = np.array([True, False, True]), np.array([True, True, True])
    assert 1 == compare_equality(a.view("u1"), "BOOL", b.view("u1"), "BOOL", itemsize=1).changed


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-6])
def test_a_small_spread_about_a_large_mean(spread: float, measurer: AbstractMeasurer) -> None:
    """Norm gains lie close to 1: their spread keeps its digits, in one chunk and in many."""
    a = (1 + spread * np.random.default_rng(2).standard_normal(30_000)).astype(np.float32)
    expected = float(a.astype(np.longdouble).std())
    whole = measurer.measure(a.view("u1"), "F32", a.view("u1"), "F32")
    parts = [measurer.measure(p.view("u1"), "F32", p.view("u1"), "F32") for p in np.split(a, 10)]
    for sums in (whole, add_sums(parts)):
        assert evaluate(sums, total=sums)["std_a"] == pytest.approx(expected, rel=1e-9)
        assert evaluate(sums, total=sums)["std_b"] == pytest.approx(expected, rel=1e-9)


def test_ulps_too_small_to_square_leave_the_ratio_undefined() -> None:
    """fp64 values near 1e-146: the floor underflows, and nothing divides by it."""
    a = np.array([2.0**-485, 2.0**-486])
    sums = MEASURERS[0].measure(a.view("u1"), "F64", (a * 3).view("u1"), "F64")
    assert evaluate(sums, total=sums)["change_to_rounding"] is None
    assert evaluate(sums, total=sums)["relative_change"] == pytest.approx(2.0)
