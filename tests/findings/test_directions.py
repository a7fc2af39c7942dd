"""Low rank, and few rows: only what was measured is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.records import KeyScan, RowCosines, Spectrum

sys.path.append(str(Path(__file__).parent))
from measured import hit, moved, row, said, scan_of, still

WIDE = (100, 50)  # full rank 50


def spectral(component: str, *, rank_90: int | None, lora_rank: int | None = None) -> KeyScan:
    """A matrix whose change has this spectrum."""
    spectrum = Spectrum(2.0, rank_90, 0.5, lora_rank)
    return replace(row(component, moved(0.1, 5000), shape=WIDE), spectrum=spectrum)


def test_without_a_spectrum_nothing_is_said_of_ranks() -> None:
    """It was not asked for."""
    assert [] == said(scan_of(row("x", moved(0.1)), row("y", moved(0.1))), "rank")


@pytest.mark.parametrize(("keys", "count"), [(2, 0), (3, 1)])
def test_three_matrices_make_a_lora(keys: int, count: int) -> None:
    """Fewer may be luck; the rank is in the sentence, and the selector hits the component."""
    scan = scan_of(*(spectral("attn2", rank_90=40, lora_rank=16) for _ in range(keys)), row("ff", still()))
    found = said(scan, "looks like a LoRA of rank 16")
    assert count == len(found)
    for each in found:
        assert "the change of 3 of 3 matrices of attn2 looks like a LoRA of rank 16" == each.text
        assert ("lora_rank", 16.0) == (each.statistic, each.value)
        assert ["attn2.0", "attn2.1", "attn2.2"] == hit(scan, each.selector)


@pytest.mark.parametrize(("others", "count"), [(1, 1), (2, 0)])
def test_nine_of_ten_matrices_make_a_lora(others: int, count: int) -> None:
    """One of full rank among nine is an exception, two are none."""
    rows = [spectral("attn2", rank_90=40, lora_rank=8 if n % 2 else 16) for n in range(9)]
    scan = scan_of(*rows, *(spectral("attn2", rank_90=40) for _ in range(others)))
    found = said(scan, "looks like a LoRA of ranks 8 to 16")
    assert count == len(found)


def test_what_did_not_change_is_no_part_of_a_lora() -> None:
    """A matrix that was left alone has no spectrum, and does not count."""
    rows = [spectral("attn2", rank_90=4, lora_rank=4) for _ in range(3)]
    (found,) = said(scan_of(*rows, *(row("attn2", still(), shape=(2, 500)) for _ in range(9))), "LoRA")
    assert "3 of 3 matrices" in found.text


@pytest.mark.parametrize(("rank", "count"), [(5, 1), (6, 0)])
def test_a_tenth_of_the_directions_is_few(rank: int, count: int) -> None:
    """5 of 50 directions hold 90 %; in the median matrix, with the component's selector."""
    rows = [spectral("ff", rank_90=rank) for _ in range(2)]
    scan = scan_of(*rows, spectral("ff", rank_90=50), spectral("ff", rank_90=1), row("x", still()))
    found = said(scan, "lies in few directions")
    assert (count if rank == 5 else 0) == len(found)
    for each in found:
        assert "5 of 50 hold 90% of it, in the median of its 4 matrices" in each.text
        assert ("rank_90", 5.0) == (each.statistic, each.value)
        assert ["ff.0", "ff.1", "ff.2", "ff.3"] == hit(scan, each.selector)


def test_a_rank_above_the_cap_is_no_evidence() -> None:
    """Where rank_90 is not known, two known ones are too few."""
    rows = [spectral("ff", rank_90=1), spectral("ff", rank_90=1), spectral("ff", rank_90=None)]
    assert [] == said(scan_of(*rows), "few directions")
    assert 1 == len(said(scan_of(*rows, spectral("ff", rank_90=1)), "few directions"))


# --- rows ---


def rowed(minimum: float, p05: float, *, shape: tuple[int, ...] = (100, 32), key: str = "x") -> KeyScan:
    """A matrix whose rows turned so far."""
    numel = shape[0] * shape[1] if len(shape) > 1 else shape[0]
    return replace(row(key, moved(0.1, numel), shape=shape), row_cosines=RowCosines(minimum, p05, 0.99))


@pytest.mark.parametrize(
    ("key", "count"),
    [
        (rowed(0.5, 0.9), 1),
        (rowed(0.5 + 1e-9, 0.9), 0),
        (rowed(0.5, 0.9 - 1e-9), 0),
        (rowed(0.5, 0.9, shape=(99, 40)), 0),
        (rowed(0.5, 0.9, shape=(100, 31)), 0),
        (rowed(0.5, 0.9, shape=(4000,)), 0),
        (row("x", moved(0.1, 4000), shape=(100, 40)), 0),
    ],
    ids=["as said", "minimum", "5th percentile", "rows", "elements", "one axis", "not measured"],
)
def test_a_few_rows_that_were_replaced(key: KeyScan, count: int) -> None:
    """At most a half of the cosine in one row, nine tenths in 95 % of them, of 100 rows of 32 elements."""
    scan = scan_of(key, row("y", moved(0.1)))
    found = said(scan, "were replaced, fewer than 1 in 20")
    assert count == len(found)
    for each in found:
        assert each.text.startswith("some of the 100 rows of x.0 were replaced")
        assert ("row_cosine_min", 0.5) == (each.statistic, each.value)
        assert ["x.0"] == hit(scan, each.selector)


def test_the_key_that_turned_most_is_named() -> None:
    """And how many more there are."""
    (found,) = said(scan_of(rowed(0.4, 0.95), rowed(0.1, 0.95, key="y"), rowed(0.3, 0.95)), "1 in 20")
    assert "rows of y.1 were" in found.text
    assert found.text.endswith("; so in 2 more keys")
