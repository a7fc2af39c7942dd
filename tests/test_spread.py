"""Where inside a tensor a change sits: histogram of |d|, share of the top 1 %, cosines of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.batches import AbstractMeasurer, Rows
from analyzer.checkpoints import open_checkpoint
from analyzer.evaluation import evaluate
from analyzer.measures import BINS, Histogram, bin_edges
from analyzer.records import KeyScan, RowCosines
from analyzer.scan import scan
from analyzer.spread import top_energy
from analyzer.sums import CompiledMeasurer
from analyzer.torch_measurer import TorchMeasurer

MEASURERS: list[AbstractMeasurer] = [CompiledMeasurer(), TorchMeasurer("cpu")]
Write = Callable[..., Path]


def scan_arrays(write: Write, a: np.ndarray, b: np.ndarray, **options: object) -> KeyScan:
    """The row of one tensor."""
    path_a, path_b = write("a.safetensors", {"w.weight": a}), write("b.safetensors", {"w.weight": b})
    with open_checkpoint(path_a) as model_a, open_checkpoint(path_b) as model_b:
        (row,) = scan(model_a, model_b, **options).keys  # type: ignore[arg-type]  # options of `scan`
    return row


def binned(d: np.ndarray) -> dict[int, tuple[int, float]]:
    """(count, Σd²) by bin: every |d| > 0 looked up among the edges."""
    size = np.abs(d[d != 0])
    lows = np.array([bin_edges(index)[0] for index in range(BINS)])
    places = np.searchsorted(lows, size, side="right") - 1
    return {int(p): (int((places == p).sum()), float((size[places == p] ** 2).sum())) for p in set(places)}


def held(histogram: Histogram) -> dict[int, tuple[int, float]]:
    """The bins that are not empty."""
    bins = zip(histogram.counts, histogram.energies, strict=True)
    return {i: (count, energy) for i, (count, energy) in enumerate(bins, histogram.first) if count}


def test_edges_meet_and_double_every_second_bin() -> None:
    """Two bins to an octave from 2^-64 to 2^64, the first from zero and the last without an end."""
    edges = [bin_edges(index) for index in range(BINS)]
    assert [low for low, _ in edges[1:]] == [high for _, high in edges[:-1]]
    assert (0.0, 1.5 * 2.0**-64) == edges[0]
    assert (1.5 * 2.0**63, np.inf) == edges[-1]
    assert (1.0, 1.5, 2.0) == (*edges[128], edges[129][1])


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@pytest.mark.parametrize("scale", [1e-160, 2.0**-70, 1e-6, 1.0, 2.0**70, 1e150])
def test_the_histogram_is_numpys(scale: float, measurer: AbstractMeasurer) -> None:
    """Counts exactly and energies to the last digits, beyond the first and the last edge too."""
    rng = np.random.default_rng(4)
    a = np.zeros(5001)
    b = scale * rng.standard_normal(5001) ** 3
    b[::7] = 0.0
    found = held(measurer.measure(a.view("u1"), "F64", b.view("u1"), "F64").histogram)
    expected = binned(b)
    assert {i: count for i, (count, _) in expected.items()} == {i: count for i, (count, _) in found.items()}
    for i, (_, energy) in expected.items():
        assert found[i][1] == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_a_value_on_an_edge_lies_above_it(measurer: AbstractMeasurer) -> None:
    """1 and 1.5 begin their bins; what is just below does not."""
    b = np.array([1.0, 1.5, np.nextafter(1.5, 0), np.nextafter(1.0, 0)])
    found = held(measurer.measure(np.zeros(4).view("u1"), "F64", b.view("u1"), "F64").histogram)
    assert {127: 1, 128: 2, 129: 1} == {i: count for i, (count, _) in found.items()}


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_every_change_is_in_the_histogram(measurer: AbstractMeasurer) -> None:
    """Its counts add up to `changed` and its energies to Σd²; NaN and Inf are in none."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 3000)).astype(np.float32)
    b[:500] = a[:500]
    a[7], b[9] = np.nan, np.inf
    sums = measurer.measure(a.view("u1"), "F32", b.view("u1"), "F32")
    assert sums.changed == sum(sums.histogram.counts)
    assert sum(sums.histogram.energies) == pytest.approx(sums.sum_dd, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1.3, 0.011])
@pytest.mark.parametrize("name", ["gaussian", "uniform", "heavy", "laplace"])
def test_the_top_percent_is_what_sorting_finds(name: str, scale: float, write: Write) -> None:
    """The share of Σd² of the 1 % with the largest |d|, within 1 % of itself; by sorting all of them."""
    rng = np.random.default_rng(6)
    n = 200_000
    d = (
        scale
        * {
            "gaussian": rng.standard_normal(n),
            "uniform": rng.uniform(-1, 1, n),
            "heavy": rng.standard_t(3, n),
            "laplace": rng.laplace(size=n),
        }[name]
    )
    row = scan_arrays(write, np.zeros((400, 500)), d.reshape(400, 500))
    squares = np.sort(d**2)[::-1]
    expected = squares[: n // 100].sum() / squares.sum()
    assert evaluate(row.sums, total=row.sums)["top_energy_share"] == pytest.approx(expected, rel=0.01)


def test_few_elements_that_changed_hold_everything(write: Write) -> None:
    """A change of fewer than 1 % of the elements: the share is 1."""
    b = np.zeros((100, 100), np.float32)
    b[3, :50] = 2.0
    row = scan_arrays(write, np.zeros((100, 100), np.float32), b)
    assert 1.0 == evaluate(row.sums, total=row.sums)["top_energy_share"]


@given(values=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=60), count=st.integers(1, 80))
def test_the_energy_of_the_top_is_bounded_by_its_bin(values: list[float], count: int) -> None:
    """Within the edges of the bin in which the count ends, whatever the values; never above Σd²."""
    b = np.array(values)
    sums = MEASURERS[0].measure(np.zeros(len(b)).view("u1"), "F64", b.view("u1"), "F64")
    found = top_energy(sums.histogram, count, largest=sums.max_abs_d)
    ordered = np.sort(b)[::-1]
    exact = float((ordered[:count] ** 2).sum())
    assert found is not None
    # a bin spans a factor of 1.5 at most, so one element in it is worth 2.25 others
    assert exact / 2.25 * (1 - 1e-9) <= found <= sums.sum_dd * (1 + 1e-9)
    assert found <= exact * 2.25 * (1 + 1e-9)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of every row that has one, in fp64."""
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    kept = lengths > 0
    found: np.ndarray = np.einsum("ij,ij->i", a, b)[kept] / lengths[kept]
    return found


def check_rows(row: RowCosines | None, expected: np.ndarray) -> None:
    """Minimum, 5th percentile and median."""
    assert row is not None
    assert row.minimum == pytest.approx(expected.min(), abs=1e-12)
    assert row.p05 == pytest.approx(np.percentile(expected, 5), abs=1e-12)
    assert row.median == pytest.approx(np.median(expected), abs=1e-12)


@pytest.mark.parametrize(
    "shape",
    [(7, 3), (300, 1000), (2, 300_000), (64, 32, 3, 3), (5, 2, 1, 1), (1, 4096), (70_000, 2)],
    ids=str,
)
def test_cosines_of_rows_are_numpys(shape: tuple[int, ...], write: Write) -> None:
    """Rows that end in no chunk, fill several, or are convolutions: out × rest."""
    rng = np.random.default_rng(8)
    a = rng.standard_normal(shape).astype(np.float16)
    b = (a + 0.3 * rng.standard_normal(shape)).astype(np.float16)
    check_rows(scan_arrays(write, a, b).row_cosines, cosines(a, b))


@pytest.mark.parametrize("threads", [1, 3])
def test_cosines_of_rows_do_not_depend_on_threads(threads: int, write: Write) -> None:
    """A row that three chunks share adds in one order."""
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((2, 5, 200_000)).astype(np.float32)
    assert scan_arrays(write, a, b, threads=1) == scan_arrays(write, a, b, threads=threads)


def test_rows_without_a_direction_are_left_out(write: Write) -> None:
    """Zeros on a side, or nothing finite: the other rows count; None of one there is no number."""
    rng = np.random.default_rng(10)
    a, b = rng.standard_normal((2, 6, 50)).astype(np.float32)
    a[1], b[3], a[4] = 0.0, 0.0, np.nan
    check_rows(scan_arrays(write, a, b).row_cosines, cosines(a[[0, 2, 5]], b[[0, 2, 5]]))
    assert scan_arrays(write, np.zeros_like(a), b).row_cosines is None


def test_elements_that_are_not_finite_leave_their_row(write: Write) -> None:
    """The rest of the row is measured as if the position were not there."""
    rng = np.random.default_rng(11)
    a, b = rng.standard_normal((2, 40, 50)).astype(np.float32)
    clean_a, clean_b = a.copy(), b.copy()
    a[3, 7], b[9, 1] = np.inf, np.nan
    for r, c in ((3, 7), (9, 1)):
        clean_a[r, c] = clean_b[r, c] = 0.0
    check_rows(scan_arrays(write, a, b).row_cosines, cosines(clean_a, clean_b))


@pytest.mark.parametrize("shape", [(50,), (), (40, 1)], ids=str)
def test_what_has_no_rows_has_no_cosines_of_rows(shape: tuple[int, ...], write: Write) -> None:
    """Vectors, scalars, and columns, whose rows have no direction but a sign."""
    a, b = np.full(shape, 1, np.float32), np.full(shape, 2, np.float32)
    assert scan_arrays(write, a, b).row_cosines is None


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
@settings(max_examples=60)
@given(width=st.integers(1, 3000), first=st.integers(0, 3000), count=st.integers(1, 5000))
def test_sums_of_rows_are_numpys(measurer: AbstractMeasurer, width: int, first: int, count: int) -> None:
    """Any width, any place of the first element, any number of elements."""
    first %= width
    rng = np.random.default_rng(width)
    a, b = rng.standard_normal((2, count)).astype(np.float32)
    rows = Rows(width, first, np.zeros((-(-(first + count) // width), 3)))
    measurer.measure(a.view("u1"), "F32", b.view("u1"), "F32", rows=rows)
    place = (first + np.arange(count)) // width
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    for column, square in enumerate((wide_a**2, wide_b**2, (wide_b - wide_a) ** 2)):
        expected = np.bincount(place, weights=square, minlength=len(rows.sums))
        np.testing.assert_allclose(rows.sums[:, column], expected, rtol=1e-12)
