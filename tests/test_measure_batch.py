"""Many spans by one call of the compiled loop: each as if it were measured alone, and as numpy does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.kernels import compiled_pairs as pairs
from analyzer.kernels import compiled_sums as loop
from analyzer.kernels import compiled_tasks as tasks
from analyzer.kernels.formats import FLOATS, eight_bit_values, spacing, values_of
from analyzer.measures import BINS, STEP_BINS, bin_edges, step_edges

SIZES = (BINS, STEP_BINS, STEP_BINS)
TABLES = np.array(
    [eight_bit_values(name) if f.bits == 8 else np.full(256, np.nan) for name, f in FLOATS.items()]
)


@dataclass(frozen=True)
class Span:
    """Elements of two or three models as bytes, and the matrix rows that they lie in."""

    raw: tuple[np.ndarray, ...]
    dtypes: tuple[str, ...]
    first: int = 0
    width: int = 0

    @property
    def count(self) -> int:
        return len(self.raw[0]) * 8 // FLOATS[self.dtypes[0]].bits

    @property
    def rows(self) -> int:
        return -(-(self.first + self.count) // self.width) if self.width else 0

    def values(self) -> list[np.ndarray]:
        return [np.asarray(values_of(*side), float) for side in zip(self.raw, self.dtypes, strict=True)]


@dataclass(frozen=True)
class Measured:
    """What the loop says of a span; histograms with all of their bins."""

    sums: np.ndarray
    tasks: np.ndarray
    histograms: list[np.ndarray]
    rows: np.ndarray


def measured(spans: list[Span], *, gap: int = 0) -> list[Measured]:
    """All spans by one call, their bytes `gap` bytes apart."""
    n = len(spans)
    table = np.zeros((n, loop.SPAN_WIDTH), np.int64)
    raw: list[list[np.ndarray]] = [[], [], []]
    place, row = [0, 0, 0], 0
    for k, span in enumerate(spans):
        table[k, loop.AT_C] = -1
        for side, (data, dtype) in enumerate(zip(span.raw, span.dtypes, strict=True)):
            table[k, loop.AT_A + side], table[k, loop.CODE_A + side] = place[side] + gap, FLOATS[dtype].code
            raw[side] += [np.zeros(gap, np.uint8), data]
            place[side] += gap + len(data)
        table[k, [loop.COUNT, loop.FIRST, loop.ROW_WIDTH]] = span.count, span.first, span.width
        table[k, loop.ROW] = row
        row += span.rows
    a, b, c = (np.concatenate([np.empty(0, np.uint8), *side]) for side in raw)
    out, out_tasks = np.zeros((n, pairs.WIDTH)), np.zeros((n, tasks.TASK_WIDTH))
    edges, bins = np.full((n, 3, 2), -1, np.int64), np.full((640 * n, 2), np.nan)
    rows, scratch = np.zeros((row, 3)), loop.new_scratch()
    scales = np.array([spacing(*span.dtypes[:2]) for span in spans])
    written = loop.measure_batch(a, b, c, table, TABLES, scales, out, out_tasks, edges, bins, rows, scratch)
    assert np.isnan(bins[written:]).all()
    assert not scratch[: loop.CLEAN].any()
    found, at = [], 0
    for k, span in enumerate(spans):
        histograms = [np.zeros((size, 2)) for size in SIZES]
        for histogram, (low, held) in zip(histograms, edges[k].tolist(), strict=True):
            histogram[low : low + held] = bins[at : at + held]
            assert held == 0 or bins[at, 0] > 0 < bins[at + held - 1, 0]
            at += held
        here = int(table[k, loop.ROW])
        found.append(Measured(out[k], out_tasks[k], histograms, rows[here : here + span.rows]))
    assert at == written
    return found


def span_of(
    rng: np.random.Generator,
    dtypes: tuple[str, ...],
    count: int,
    *,
    bad: float = 0.0,
    first: int = 0,
    width: int = 0,
) -> Span:
    """Random values whose differences are of many sizes, some of them zero; a share of them is not finite."""
    sides = [rng.normal(0, 0.05, count)]
    for _ in dtypes[1:]:
        change = rng.normal(0, 1, count) * 2.0 ** rng.integers(-12, -4, count)
        sides.append(sides[0] + np.where(rng.random(count) < 0.3, 0, change))
    for side in sides:
        side[rng.random(count) < bad / 2] = rng.choice([np.inf, -np.inf])
        side[rng.random(count) < bad / 2] = np.nan
    raws = tuple(coded(values, dtype) for values, dtype in zip(sides, dtypes, strict=True))
    return Span(raws, dtypes, first, width)


def coded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values near these in a dtype, as bytes."""
    kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    if dtype in kinds:
        return values.astype(kinds[dtype]).view(np.uint8)
    if dtype == "BF16":
        return np.asarray(values.astype(np.float32).view(np.uint32) >> 16, np.uint16).view(np.uint8)
    known = eight_bit_values(dtype)[:127]
    known = known[np.isfinite(known)]
    codes = np.searchsorted(known, np.abs(values)).clip(0, len(known) - 1)
    codes = np.where(np.isfinite(values), codes, 127)
    return np.asarray(codes + np.where(np.signbit(values), 128, 0), np.uint8)


def check(span: Span, got: Measured) -> None:
    """Every number against numpy in fp64."""
    a, b, *rest = span.values()
    finite = np.isfinite(span.values()).all(axis=0)
    x, y = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    d = y - x
    exact = {
        pairs.N: finite.sum(),
        pairs.NONFINITE_A: (~np.isfinite(a)).sum(),
        pairs.NONFINITE_B: (~np.isfinite(b)).sum(),
        pairs.CHANGED: (x != y).sum(),
        pairs.SIGN_FLIPS: (np.sign(x) * np.sign(y) < 0).sum(),
        pairs.MAX_ABS_D: np.abs(d).max(initial=0),
    }
    assert exact == {place: got.sums[place] for place in exact}
    scale, floor = spacing(*span.dtypes[:2])[:2]
    power = 2.0 ** (np.frexp(x)[1] - 1)
    ulp = np.where(x != 0, np.maximum(power * scale, floor), 0.0)
    close = {
        pairs.SUM_AA: x @ x,
        pairs.SUM_BB: y @ y,
        pairs.SUM_DD: d @ d,
        pairs.SUM_AB: x @ y,
        pairs.SUM_ABS_D: np.abs(d).sum(),
        pairs.SUM_ULP_SQ: ulp @ ulp,
        pairs.M2_A: ((x - x[finite].mean())[finite] ** 2).sum() if finite.any() else 0.0,
        pairs.M2_B: ((y - y[finite].mean())[finite] ** 2).sum() if finite.any() else 0.0,
    }
    np.testing.assert_allclose([got.sums[place] for place in close], list(close.values()), rtol=1e-12)
    for place, side in ((pairs.SUM_A, x), (pairs.SUM_B, y)):
        assert got.sums[place] == pytest.approx(side.sum(), rel=0, abs=1e-14 * np.abs(side).sum())
    if span.width:
        padded = np.zeros((3, span.rows * span.width))
        padded[:, span.first : span.first + span.count] = x, y, d
        expected = (padded.reshape(3, span.rows, span.width) ** 2).sum(axis=2).T
        np.testing.assert_allclose(got.rows, expected, rtol=1e-12)
    if rest:
        p, q = x - np.where(finite, rest[0], 0.0), y - np.where(finite, rest[0], 0.0)
        assert got.tasks[tasks.MOVED_BOTH] == ((p != 0) & (q != 0)).sum()
        assert got.tasks[tasks.CONFLICTS] == (np.sign(p) * np.sign(q) < 0).sum()
        np.testing.assert_allclose(got.tasks[tasks.TASK_AA], p @ p, rtol=1e-12)
        np.testing.assert_allclose(got.tasks[tasks.ABS_SUM], np.abs(p + q).sum(), rtol=1e-12)
        assert got.tasks[tasks.DOT_A] == pytest.approx(x @ p, rel=0, abs=1e-14 * (np.abs(x) @ np.abs(p)))
    check_histograms(span, x, d, got.histograms)


def check_histograms(span: Span, x: np.ndarray, d: np.ndarray, got: list[np.ndarray]) -> None:
    """By sorting |d| and |d| / ulp(a) into the edges that the bins are said to have."""
    size, a = np.abs(d[d != 0]), np.abs(x[d != 0])
    low = [bin_edges(k)[0] for k in range(BINS)]
    places = [np.searchsorted(low, size, side="right") - 1]
    for dtype in (span.dtypes[0], "F8_E4M3"):
        f = FLOATS[dtype]
        with np.errstate(under="ignore"):
            ulp = np.maximum(np.where(a > 0, 2.0 ** (np.frexp(a)[1] - 1) * f.scale, 0.0), f.smallest_spacing)
        octave = np.frexp(size)[1] - np.frexp(ulp)[1] - np.round(np.log2(step_edges(0)[0])).astype(int)
        half = np.frexp(size)[0] >= 0.75
        places.append(2 * octave.clip(0, STEP_BINS // 2 - 1) + half)
    for histogram, place in zip(got, places, strict=True):
        np.testing.assert_array_equal(
            np.bincount(place, minlength=len(histogram)), histogram[:, 0].astype(int)
        )
        energies = np.bincount(place, weights=size * size, minlength=len(histogram))
        np.testing.assert_allclose(histogram[:, 1], energies, rtol=1e-12)


@pytest.mark.parametrize("base", [(), ("F16",), ("F32",)], ids=["pair", "F16", "F32"])
@pytest.mark.parametrize("dtype_b", FLOATS)
@pytest.mark.parametrize("dtype_a", FLOATS)
def test_every_span_equals_numpy(dtype_a: str, dtype_b: str, base: tuple[str, ...]) -> None:
    """All pairs of formats, with and without a base; lengths around the loop's blocks; odd offsets."""
    rng = np.random.default_rng(1)
    dtypes = (dtype_a, dtype_b, *base)
    spans = [
        span_of(rng, dtypes, 1, first=2, width=3),
        span_of(rng, dtypes, 1000, first=0, width=100),
        span_of(rng, dtypes, 5000),
        span_of(rng, dtypes, 4097, first=700, width=1280),
        span_of(rng, dtypes, 0),
        span_of(rng, dtypes, 77, first=0, width=1),
    ]
    for span, got in zip(spans, measured(spans, gap=3), strict=True):
        check(span, got)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_equal_has_no_change(dtype: str) -> None:
    """Where A's bytes are B's, whole or in part; one value in the last place differs."""
    rng = np.random.default_rng(2)
    one = span_of(rng, (dtype, dtype), 9001, first=5, width=64)
    same = Span((one.raw[0], one.raw[0].copy()), one.dtypes, one.first, one.width)
    half = one.raw[0].copy()
    half[len(half) // 2 :] = one.raw[1][len(half) // 2 :]
    last = one.raw[0].copy()
    last[-1] ^= 1
    spans = [same, *(Span((one.raw[0], raw), one.dtypes, one.first, one.width) for raw in (half, last))]
    found = measured(spans)
    for span, got in zip(spans, found, strict=True):
        check(span, got)
    assert 0 == found[0].sums[pairs.CHANGED]
    assert 1 >= found[2].sums[pairs.CHANGED]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtypes=st.lists(st.sampled_from(list(FLOATS)), min_size=2, max_size=3),
    counts=st.lists(st.integers(0, 1500), min_size=1, max_size=6),
    width=st.integers(0, 40),
    bad=st.sampled_from([0.0, 0.001, 0.5, 1.0]),
)
def test_neighbours_do_not_matter(
    seed: int, dtypes: list[str], counts: list[int], width: int, bad: float
) -> None:
    """A span among others has bit for bit what it has alone, and numpy agrees, NaN and Inf included."""
    rng = np.random.default_rng(seed)
    spans = []
    for count in counts:
        first = int(rng.integers(0, max(width, 1)))
        spans.append(span_of(rng, tuple(dtypes), count, bad=bad, first=first, width=width))
    for span, got in zip(spans, measured(spans), strict=True):
        check(span, got)
        alone = measured([span])[0]
        np.testing.assert_array_equal(alone.sums, got.sums)
        np.testing.assert_array_equal(alone.tasks, got.tasks)
        np.testing.assert_array_equal(alone.rows, got.rows)
        for one, other in zip(alone.histograms, got.histograms, strict=True):
            np.testing.assert_array_equal(one, other)


def test_signs_of_tiny_numbers_are_opposed() -> None:
    """Where the product of two fp64 numbers is too small for fp64, and at zeros of both signs."""
    a = np.array([1e-200, -1e-200, 5e-324, 0.0, -0.0, 1e-200])
    b = np.array([-1e-200, 1e-200, -5e-324, -1e-200, 1.0, 2e-200])
    span = Span((a.view(np.uint8), b.view(np.uint8)), ("F64", "F64"))
    assert 3 == measured([span])[0].sums[pairs.SIGN_FLIPS]


@pytest.mark.parametrize("spread", [1e-3, 1e-6])
def test_a_small_spread_about_a_large_mean_keeps_its_digits(spread: float) -> None:
    """Σ(x − mean)² is no difference of large numbers, on both sides and where both are equal."""
    rng = np.random.default_rng(4)
    a, b = (rng.normal(1000.0, spread, 3000) for _ in range(2))
    spans = [Span((x.view(np.uint8), y.view(np.uint8)), ("F64", "F64")) for x, y in ((a, b), (a, a.copy()))]
    first, second = measured(spans)
    m2_a, m2_b = (float(((x - x.mean()) ** 2).sum()) for x in (a, b))
    for got, expected in ((first, (m2_a, m2_b)), (second, (m2_a, m2_a))):
        assert expected == pytest.approx((got.sums[pairs.M2_A], got.sums[pairs.M2_B]), rel=1e-6)
