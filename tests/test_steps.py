"""The histogram of steps in units of A's spacing, and the sums over A and its task, against numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from analyzer.batches import AbstractMeasurer
from analyzer.checkpoints import open_checkpoint
from analyzer.kernels.formats import FLOATS
from analyzer.measures import LOWEST_STEP, STEP_BINS, Histogram, Sums, add_sums, step_edges
from analyzer.scan import scan
from analyzer.sums import CompiledMeasurer
from analyzer.torch_measurer import TorchMeasurer
from tests.conftest import Write

MEASURERS: list[AbstractMeasurer] = [CompiledMeasurer(), TorchMeasurer("cpu")]
TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def store(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values rounded to a dtype, as (raw bytes, the rounded values in fp64)."""
    tensor = torch.from_numpy(np.asarray(values, np.float64)).to(TORCH[dtype])
    return tensor.view(torch.uint8).numpy().reshape(-1), tensor.to(torch.float64).numpy()


def spacing(a: np.ndarray, dtype: str) -> np.ndarray:
    """The distance from |a| to the next number above it, from the format's digits and smallest number."""
    info = torch.finfo(TORCH[dtype])
    normal = 2.0 ** np.floor(np.log2(np.maximum(np.abs(a), info.smallest_normal)))
    return normal * info.eps


def binned(a: np.ndarray, b: np.ndarray, dtype: str) -> dict[int, tuple[int, float]]:
    """(count, Σd²) by bin, from logarithms."""
    d = (b - a)[b != a]
    octave = np.log2(np.abs(d)) - np.log2(spacing(a[b != a], dtype))
    whole = np.floor(octave + 1e-13)
    place = 2 * (whole - LOWEST_STEP) + (octave - whole >= np.log2(1.5) - 1e-13)
    ends = (place % 2, STEP_BINS - 2 + place % 2)
    place = np.where(whole < LOWEST_STEP, ends[0], np.where(place >= STEP_BINS, ends[1], place)).astype(int)
    return {int(i): (int((place == i).sum()), float((d[place == i] ** 2).sum())) for i in set(place)}


def held(histogram: Histogram) -> dict[int, tuple[int, float]]:
    """The bins that are not empty."""
    cells = zip(histogram.counts, histogram.energies, strict=True)
    return {i: (count, energy) for i, (count, energy) in enumerate(cells, histogram.first) if count}


def check_bins(expected: dict[int, tuple[int, float]], got: Histogram) -> None:
    """Counts exactly, energies to the last digits."""
    found = held(got)
    assert {i: count for i, (count, _) in expected.items()} == {i: count for i, (count, _) in found.items()}
    for i, (_, energy) in expected.items():
        assert found[i][1] == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize("step", [1e-12, 1e-3, 0.1])
@pytest.mark.parametrize("dtype_b", ["F32", "BF16"])
@pytest.mark.parametrize("dtype_a", list(FLOATS))
def test_steps_are_numpys(dtype_a: str, dtype_b: str, step: float, measurer: AbstractMeasurer) -> None:
    """Of every storage of A, subnormal numbers, zeros and steps beyond both ends among them."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal(3001) * 2.0 ** rng.integers(-20, 4, 3001)
    values[::11] = 0.0
    raw_a, a = store(values, dtype_a)
    raw_b, b = store(a + step * rng.standard_normal(3001), dtype_b)
    sums = measurer.measure(raw_a, dtype_a, raw_b, dtype_b)
    check_bins(binned(a, b, dtype_a), sums.steps)
    check_bins(binned(a, b, "F8_E4M3"), sums.e4m3_steps)
    assert sums.changed == sum(sums.steps.counts)
    assert sum(sums.steps.energies) == pytest.approx(sums.sum_dd, rel=1e-12)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_one_spacing_begins_its_bin(measurer: AbstractMeasurer) -> None:
    """Steps of one, one and a half, and two spacings lie at the low edges of three bins."""
    raw_a, a = store(np.array([1.0, 1.0, 1.0]), "F16")
    raw_b, _ = store(a + np.array([1.0, 1.5, 2.0]) * 2.0**-10, "F32")
    steps = measurer.measure(raw_a, "F16", raw_b, "F32").steps
    assert [1, 1, 1] == steps.counts.tolist()
    assert [(1.0, 1.5), (1.5, 2.0), (2.0, 3.0)] == [step_edges(steps.first + i) for i in range(3)]


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_of_zeros_the_smallest_spacing_counts(measurer: AbstractMeasurer) -> None:
    """Beside 0 fp16 has 2^-24, so a change to 2^-20 is one of 16 spacings."""
    raw_a, _ = store(np.zeros(1), "F16")
    raw_b, _ = store(np.array([2.0**-20]), "F16")
    steps = measurer.measure(raw_a, "F16", raw_b, "F16").steps
    assert (16.0, 24.0) == step_edges(steps.first)


@settings(max_examples=40)
@given(
    size=st.integers(1, 5000),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    which=st.sampled_from(range(2)),
)
def test_steps_and_products_are_additive(size: int, cuts: list[int], seed: int, which: int) -> None:
    """However a tensor is cut, and in whatever order the parts add, the record is the same."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal((3, size)) * 2.0 ** rng.integers(-30, 30, size)).astype(np.float32)
    b[: size // 3] = a[: size // 3]
    c[rng.integers(0, size, 2)] = np.nan

    def measure(i: int, j: int) -> Sums:
        base = (c[i:j].view("u1"), "F32")
        return MEASURERS[which].measure(a[i:j].view("u1"), "F32", b[i:j].view("u1"), "F32", base=base)

    whole = measure(0, size)
    edges = sorted({0, size, *(c for c in cuts if c < size)})
    parts = [measure(i, j) for i, j in pairwise(edges)]
    rng.shuffle(parts)  # type: ignore[arg-type]  # a list of records shuffles like any other
    joined = add_sums(parts)
    assert (whole.steps.first, whole.steps.counts) == (joined.steps.first, joined.steps.counts)
    assert joined.steps.energies.tolist() == pytest.approx(whole.steps.energies.tolist(), rel=1e-12)
    assert whole.e4m3_steps.counts == joined.e4m3_steps.counts
    kept = np.isfinite(c)
    a64, c64 = a[kept].astype(np.float64), c[kept].astype(np.float64)
    expected = float(a64 @ (a64 - c64))
    size_of_it = float(np.abs(a64) @ np.abs(a64 - c64))
    assert joined.task is not None
    assert joined.task.dot_a == pytest.approx(expected, rel=1e-12, abs=1e-14 * size_of_it)


def test_one_value_that_moves_by_one_step_everywhere() -> None:
    """Where all elements lie in one bin, none is lost, and neither are those that stay."""
    a, b = np.full(100_000, 0.5, np.float16), np.full(100_000, 0.625, np.float16)
    b[::3] = a[::3]
    sums = MEASURERS[0].measure(a.view("u1"), "F16", b.view("u1"), "F16")
    assert {2 * (8 - LOWEST_STEP): (66_666, 66_666 / 64)} == held(sums.steps)
    assert [66_666] == sums.histogram.counts.tolist()


def test_of_scaled_codes_the_spacing_is_that_of_the_codes(write: Write) -> None:
    """fp8 with a scale of 1/8: values from 1 to 2 lie at 8/64 … 16/64, a sixty-fourth apart."""
    codes = torch.linspace(8, 15, 8).to(torch.float8_e4m3fn).view(torch.uint8).numpy().reshape(2, 4)
    weight = torch.from_numpy(codes.copy()).view(torch.float8_e4m3fn)
    values = weight.to(torch.float32).numpy() / 8
    path = write("b.safetensors", {"layers.0.mlp.weight": values + np.float32(3 / 8)})
    coded = path.with_name("a.safetensors")
    save_file({"layers.0.mlp.weight": weight, "layers.0.mlp.weight_scale": torch.tensor(0.125)}, coded)
    with open_checkpoint(coded) as a, open_checkpoint(path) as b:
        (row,) = scan(a, b).keys
    assert {3.0} == {step_edges(i)[0] for i in held(row.sums.steps)}
