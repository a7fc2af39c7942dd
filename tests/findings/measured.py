"""Scans for the tests of findings: measured of arrays by NumPy in fp64, or made of chosen records.

Independent of the kernels: every sum is formed by NumPy, every label is given by `categorize`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.categories import categorize
from analyzer.findings import findings
from analyzer.measures import BINS, LOWEST_EXPONENT, Histogram, Sums, TaskSums
from analyzer.records import Finding, KeyScan, Labels, ModelId, RowCosines, Scan, TensorInfo
from analyzer.selectors import select

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]

DTYPES = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")
SHARED = Path(__file__).resolve().parents[3] / "shared"
TEN_BLOCKS = tuple(f"IN{number:02}" for number in range(10))

# --- scans of arrays ---


def scan_arrays(a: Arrays, b: Arrays, base: Arrays | None = None) -> Scan:
    """The scan of two models, given by the raw names of their tensors: no key is paired but by name."""
    names = categorize([info(key, value) for key, value in a.items()])
    keys = tuple(
        KeyScan(
            key,
            key,
            a[key].shape,
            DTYPES[a[key].dtype],
            DTYPES[b[key].dtype],
            names.labels[key],
            measure(a[key], b[key], None if base is None else base.get(key)),
            row_cosines=_row_cosines(a[key], b[key]),
        )
        for key in a
        if key in b
    )
    lonely = [tuple(key for key in one if key not in other) for one, other in ((a, b), (b, a))]
    return Scan(
        "mergescope",
        "2026-01-01",
        MODEL,
        MODEL,
        names.blocks,
        keys,
        lonely[0],
        lonely[1],
        (),
        base=None if base is None else MODEL,
    )


def info(key: str, value: Array) -> TensorInfo:
    """The tensor as a header describes it."""
    return TensorInfo(key, DTYPES[value.dtype], value.shape, 0, value.nbytes)


def measure(a: Array, b: Array, base: Array | None = None) -> Sums:
    """The record of two arrays. Integers are compared for equality, and enter no sum."""
    if a.dtype.kind != "f":
        return Sums(numel=a.size, n=a.size, changed=int((a != b).sum()))
    coarse = min(a.dtype, b.dtype, key=lambda dtype: np.finfo(dtype).nmant)
    x, y = (np.asarray(side, np.float64).ravel() for side in (a, b))
    finite = np.isfinite(x) & np.isfinite(y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    bad = [int((~np.isfinite(side)).sum()) for side in (x, y)]
    differs = int((~finite & ~same).sum())
    x, y = x[finite], y[finite]
    d, n = y - x, int(finite.sum())
    cast = (x != y) & (x.astype(coarse) == y.astype(coarse))
    limits = np.finfo(coarse)
    exponent = np.maximum(np.frexp(x)[1] - 1, limits.minexp)
    ulp = np.where(x != 0, np.ldexp(1.0, exponent - limits.nmant), 0.0)
    return Sums(
        numel=a.size,
        n=n,
        numeric=n,
        nonfinite_a=bad[0],
        nonfinite_b=bad[1],
        nonfinite_differs=differs,
        changed=int((x != y).sum()),
        cast_only=int(cast.sum()),
        sign_flips=int((x * y < 0).sum()),
        sum_a=float(x.sum()),
        sum_b=float(y.sum()),
        sum_aa=float(x @ x),
        sum_bb=float(y @ y),
        sum_dd=float(d @ d),
        sum_ab=float(x @ y),
        sum_abs_d=float(np.abs(d).sum()),
        max_abs_d=float(np.abs(d).max(initial=0.0)),
        sum_ulp_sq=float((ulp**2).sum()),
        m2_a=float(((x - x.mean()) ** 2).sum()) if n else 0.0,
        m2_b=float(((y - y.mean()) ** 2).sum()) if n else 0.0,
        histogram=histogram(d),
        task=None if base is None else _tasks(x, y, np.asarray(base, np.float64).ravel()[finite]),
    )


def histogram(d: NDArray[np.float64]) -> Histogram:
    """Count and Σd² of the values that are not 0, in bins whose edges are 2^e and 1.5·2^e."""
    moved = np.abs(d[d != 0])
    mantissa, exponent = np.frexp(moved)  # in 0.5 … 1
    bins = np.clip(2 * (exponent - 1 - LOWEST_EXPONENT) + (mantissa >= 0.75), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    energies = np.bincount(bins, weights=moved**2, minlength=BINS)
    return (
        Histogram(0, array("q", counts.tolist()), array("d", energies.tolist()))
        if moved.size
        else Histogram()
    )


def _tasks(x: NDArray[np.float64], y: NDArray[np.float64], c: NDArray[np.float64]) -> TaskSums:
    p, q = x - c, y - c
    opposed = p * q < 0
    return TaskSums(
        n=x.size,
        moved_a=int((p != 0).sum()),
        moved_b=int((q != 0).sum()),
        moved_both=int((p * q != 0).sum()),
        conflicts=int(opposed.sum()),
        aa=float(p @ p),
        bb=float(q @ q),
        dd=float((q - p) @ (q - p)),
        abs_a=float(np.abs(p).sum()),
        abs_b=float(np.abs(q).sum()),
        abs_sum=float(np.abs(p + q).sum()),
        abs_conflict=float((np.abs(p) + np.abs(q))[opposed].sum()),
    )


def _row_cosines(a: Array, b: Array) -> RowCosines | None:
    if a.ndim < 2 or a.dtype.kind != "f":
        return None
    x, y = (np.nan_to_num(np.asarray(side, np.float64)).reshape(len(side), -1) for side in (a, b))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosines = (x * y).sum(axis=1)[lengths > 0] / lengths[lengths > 0]
    if not cosines.size:
        return None
    return RowCosines(float(cosines.min()), float(np.percentile(cosines, 5)), float(np.median(cosines)))


# --- scans of chosen records ---


def row(component: str, sums: Sums, *, shape: tuple[int, ...] | None = None, **labels: object) -> KeyScan:
    """A key of the U-Net's first block, ranked under its whole component; a matrix of two rows."""
    described = Labels("unet", "IN01", component, "weight", component)
    described = replace(described, **labels)  # type: ignore[arg-type]  # fields of Labels
    return KeyScan(component, component, shape or (2, sums.numel // 2), "F32", "F32", described, sums)


def scan_of(*rows: KeyScan, blocks: Sequence[str] = TEN_BLOCKS, base: bool = False) -> Scan:
    """A scan of these rows, each under a key of its own."""
    keys = tuple(replace(r, key=f"{r.key}.{i}", key_b=f"{r.key}.{i}") for i, r in enumerate(rows))
    used = {r.labels.block for r in rows}
    held = tuple(block for block in blocks if block in used)
    return Scan(
        "mergescope", "2026-01-01", MODEL, MODEL, held, keys, (), (), (), base=MODEL if base else None
    )


def turned(cosine: float, numel: int = 1000, *, scale: float = 1.0) -> Sums:
    """Two vectors of equal length at this cosine, of mean zero; every element changed."""
    square = numel * scale**2
    dd = 2 * (1 - cosine) * square
    return Sums(
        numel, numel, numel, changed=numel, sum_aa=square, sum_bb=square, sum_dd=dd, sum_ab=cosine * square
    )


def moved(change: float, numel: int = 1000, *, scale: float = 1.0, **others: object) -> Sums:
    """A vector that moved by this share of its length, square to itself; every element changed."""
    square = numel * scale**2
    sums = Sums(
        numel,
        numel,
        numel,
        changed=numel,
        sum_aa=square,
        sum_bb=square * (1 + change**2),
        sum_dd=change**2 * square,
        sum_ab=square,
    )
    return replace(sums, **others)  # type: ignore[arg-type]  # fields of Sums


def still(numel: int = 1000) -> Sums:
    """Two equal vectors."""
    square = float(numel)
    return Sums(numel, numel, numel, sum_aa=square, sum_bb=square, sum_ab=square)


def rounded(numel: int = 1000, *, cast: bool = True) -> Sums:
    """Two vectors that differ by a cast, or by as much as rounding leaves."""
    floor = numel * 1e-6
    return Sums(
        numel,
        numel,
        numel,
        changed=numel,
        cast_only=numel if cast else 0,
        sum_aa=float(numel),
        sum_bb=float(numel),
        sum_dd=floor / 12,
        sum_ab=float(numel),
        sum_ulp_sq=floor,
    )


# --- what a selector hits ---


def hit(scan: Scan, selector: str) -> list[str]:
    """The raw keys that a selector hits, in the scan's order."""
    return [each.key for each in select(selector, rows=scan.keys, blocks=scan.blocks)]


def said(scan: Scan, words: str) -> list[Finding]:
    """The findings whose sentence holds these words."""
    return [finding for finding in findings(scan) if words in finding.text]
