"""Batches of spans, and what is made of their rows, against spans measured one by one and numpy."""

from __future__ import annotations

import copy
import pickle
from array import array
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import batches
from analyzer.batches import SPAN_WIDTH, AbstractMeasurer, Batch, Rows, records
from analyzer.column_arithmetic import HistogramColumns
from analyzer.kernels import compiled_sums
from analyzer.kernels.formats import FLOATS, spacing
from analyzer.measures import Histogram, Sums, add_sums
from analyzer.records import RowCosines
from analyzer.row_cosines import cosines_of, describe_rows
from analyzer.sums import CompiledMeasurer
from analyzer.torch_measurer import TorchMeasurer

MEASURERS: list[AbstractMeasurer] = [CompiledMeasurer(), TorchMeasurer("cpu")]
COLUMNS = ("AT_A", "AT_B", "AT_C", "COUNT", "CODE_A", "CODE_B", "CODE_C", "FIRST", "ROW_WIDTH", "ROW")


def test_the_columns_are_those_of_the_compiled_loop() -> None:
    """The loop has its own names for them, since it cannot be imported where nothing is compiled."""
    for name in (*COLUMNS, "SPAN_WIDTH"):
        assert getattr(compiled_sums, name) == getattr(batches, name), name
    assert (compiled_sums.WIDTH, compiled_sums.TASK_WIDTH) == (batches.SUMS_WIDTH, batches.TASKS_WIDTH)


def sides(dtypes: tuple[str, str, str], count: int, seed: int) -> list[np.ndarray]:
    """Bytes of three models; some values are not finite."""
    rng = np.random.default_rng(seed)
    found = []
    for dtype in dtypes:
        values = rng.standard_normal(count).astype(np.float32)
        values[rng.random(count) < 0.01] = np.inf
        kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16}.get(dtype)
        if kind is None:  # bf16, or any codes of eight bits
            found.append(rng.integers(0, 256, count * FLOATS[dtype].bits // 8).astype(np.uint8))
        else:
            found.append(values.astype(kind).view(np.uint8))
    return found


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_a_batch_is_its_spans_one_by_one(measurer: AbstractMeasurer) -> None:
    """Bit for bit: with and without a base, with and without rows, in any mix of dtypes and lengths."""
    kinds = [
        (("F16", "F16", "F16"), 1000, 100, True), (("F32", "BF16", "F32"), 1, 0, False),
        (("F64", "F16", "BF16"), 2500, 50, True), (("F8_E4M3", "F8_E5M2", "F16"), 333, 0, True),
        (("F16", "F16", "F16"), 64, 8, False), (("BF16", "BF16", "F64"), 1025, 41, True),
    ]  # fmt: skip
    raw: list[list[np.ndarray]] = [[], [], []]
    table, spacings, alone, rows_alone = [], [], [], []
    row = 0
    for seed, (dtypes, count, width, based) in enumerate(kinds):
        data = sides(dtypes, count, seed)
        at = [sum(map(len, side)) for side in raw]
        for side, values in zip(raw, data, strict=True):
            side += [values, np.zeros(-len(values) % 8, np.uint8)]
        codes = [FLOATS[dtype].code for dtype in dtypes]
        table.append([at[0], at[1], at[2] if based else -1, count, *codes, 0, width, row, 0, 0])
        spacings.append(spacing(*dtypes[:2]))
        rows = Rows(width, 0, np.zeros((count // width, 3))) if width else None
        base = (data[2], dtypes[2]) if based else None
        alone.append(measurer.measure(data[0], dtypes[0], data[1], dtypes[1], base=base, rows=rows))
        rows_alone += [] if rows is None else [rows.sums]
        row += count // width if width else 0
    joined = [np.concatenate(side) for side in raw]
    assert SPAN_WIDTH == len(table[0])
    batch = Batch(joined, np.array(table, np.int64), np.array(spacings), row)
    found = measurer.measure_batch(batch, measurer.new_scratch())
    assert [asdict(sums) for sums in alone] == [asdict(sums) for sums in records(batch, found)]
    assert [based for *_, based in kinds] == [sums.task is not None for sums in records(batch, found)]
    np.testing.assert_array_equal(np.concatenate(rows_alone), found.rows)


@pytest.mark.parametrize("measurer", MEASURERS, ids=type)
def test_scratch_is_used_again(measurer: AbstractMeasurer) -> None:
    """What one batch leaves does not enter the next."""
    first, second = (sides(("F16", "F16", "F16"), 500, seed) for seed in (7, 8))
    scratch = measurer.new_scratch()
    codes = [FLOATS["F16"].code] * 3
    spans = np.array([[0, 0, -1, 500, *codes, 0, 0, 0, 0, 0]], np.int64)
    nothing = np.empty(0, np.uint8)
    both = []
    for data in (first, second, first):
        batch = Batch((data[0], data[1], nothing), spans, spacing("F16", "F16")[None], 0)
        both.append(records(batch, measurer.measure_batch(batch, scratch)))
    assert both[0] == both[2]
    assert both[0] != both[1]


def test_cosines_of_rows_are_numpys() -> None:
    """More rows than are dealt with at a time; a row of zeros has no cosine, nor has one beyond fp64."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 40_000, 3))
    a[7], b[9], a[11] = 0.0, 0.0, 1e200
    with np.errstate(over="ignore"):
        sums = np.stack([(a * a).sum(axis=1), (b * b).sum(axis=1), ((b - a) ** 2).sum(axis=1)], axis=1)
    cosines, known = cosines_of(sums)
    assert [7, 9, 11] == np.flatnonzero(~known).tolist()
    lengths = np.linalg.norm(a[known], axis=1) * np.linalg.norm(b[known], axis=1)
    np.testing.assert_allclose(cosines[known], (a * b).sum(axis=1)[known] / lengths, rtol=0, atol=1e-13)


@given(st.lists(st.integers(0, 12) | st.none(), max_size=40), st.integers(0, 2**32 - 1))
def test_quantiles_are_numpys_of_each_by_itself(lengths: list[int | None], seed: int) -> None:
    """Bit for bit, however many have as many rows; None of no rows, and where none are told apart."""
    rng = np.random.default_rng(seed)
    cosines = [None if length is None else rng.uniform(-1, 1, length) for length in lengths]
    expected = [
        RowCosines(float(x.min()), *np.percentile(x, [5, 50]).tolist()) if x is not None and len(x) else None
        for x in cosines
    ]
    assert expected == describe_rows(cosines)


@pytest.mark.parametrize("side", [batches.AT_A, batches.AT_B, batches.AT_C, batches.COUNT])
def test_a_span_beyond_the_bytes_is_refused(side: int) -> None:
    """The loop looks at no bounds: it would measure whatever lies behind them."""
    raw = np.zeros(8, np.uint8)
    spans = np.array([[0, 0, 0, 4, *[FLOATS["F16"].code] * 3, 0, 0, 0, 0, 0]], np.int64)
    batch = Batch((raw, raw, raw), spans, spacing("F16", "F16")[None], 0)
    measurer = CompiledMeasurer()
    assert 4 == measurer.measure_batch(batch, measurer.new_scratch()).out[0, 0]
    spans[0, side] += 1
    with pytest.raises(ValueError, match="ends behind"):
        measurer.measure_batch(batch, measurer.new_scratch())


def test_a_side_that_is_too_short_is_refused() -> None:
    """Also one that is alone."""
    raw = np.zeros(8, np.uint8)
    with pytest.raises(ValueError, match="ends behind"):
        CompiledMeasurer().measure(raw, "F16", raw[:6], "F16")
    with pytest.raises(ValueError, match="ends behind"):
        CompiledMeasurer().measure(raw, "F16", raw, "F16", base=(raw, "F32"))


@pytest.mark.parametrize(("width", "first"), [(2, 1), (1, 0), (3, 3)])
def test_a_row_without_a_sum_is_refused(width: int, first: int) -> None:
    """Two sums of rows hold four elements of two, if they begin with a row."""
    raw, measurer = np.zeros(8, np.uint8), CompiledMeasurer()
    assert 4 == measurer.measure(raw, "F16", raw, "F16", rows=Rows(2, 0, np.zeros((2, 3)))).n
    with pytest.raises(ValueError, match="more rows"):
        measurer.measure(raw, "F16", raw, "F16", rows=Rows(width, first, np.zeros((2, 3))))


def _measured(count: int, seed: int = 0) -> Sums:
    a, b = (bytes_.view(np.float16).copy() for bytes_ in sides(("F16", "F16", "F16"), count, seed)[:2])
    b[: count // 2] = a[: count // 2] + np.float16(0.5)
    return CompiledMeasurer().measure(a.view(np.uint8), "F16", b.view(np.uint8), "F16")


def test_counts_are_packed_and_mean_the_same() -> None:
    """A small tensor's in two bytes, a large one's in four: equal, added, copied and written as eight."""
    small, large = _measured(1000), _measured(600_000)
    assert ("H", "I") == tuple(each.histogram.packed_counts.typecode for each in (small, large))
    for each in (small, large):
        held = each.histogram
        wide = Histogram(held.first, array("q", held.packed_counts.tolist()), held.energies)
        assert held == wide
        assert "q" == held.counts.typecode
        assert repr(held) == repr(wide)
        assert each == pickle.loads(pickle.dumps(each)) == copy.deepcopy(each)
        assert each.changed == sum(held.counts)
    both = add_sums([small, large])
    assert both.changed == sum(both.histogram.counts) == small.changed + large.changed
    columns = HistogramColumns.of([small.histogram, Histogram(), large.histogram])
    assert [*small.histogram.counts, *large.histogram.counts] == columns.counts.tolist()
    assert np.int64 == columns.counts.dtype
    alike = HistogramColumns.of([small.histogram, Histogram(), small.histogram])
    assert [*small.histogram.counts] * 2 == alike.counts.tolist()


@pytest.mark.parametrize(
    ("largest", "typecode"), [(2**16 - 1, "H"), (2**16, "I"), (2**32 - 1, "I"), (2**32, "q")]
)
def test_counts_are_packed_as_small_as_they_fit(largest: int, typecode: str) -> None:
    """None is cut off."""
    packed = batches._packed(np.array([0.0, largest, 1.0]))
    assert (typecode, [0, largest, 1]) == (packed.typecode, packed.tolist())
    assert "H" == batches._packed(np.empty(0)).typecode
