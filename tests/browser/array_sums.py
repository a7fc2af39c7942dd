"""What a scan measures of two arrays, in float64 and straight from its definition. Knows no browser."""

from __future__ import annotations

from array import array

import numpy as np

from analyzer.measures import Histogram, Sums, TaskSums
from analyzer.records import RowCosines, Spectrum


def measure(a: np.ndarray, b: np.ndarray) -> Sums:
    """The record of two arrays in float64, straight from its definition."""
    if a.dtype.kind == "i":
        return Sums(numel=a.size, n=a.size, changed=int((a != b).sum()))
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
    coarser = np.float16 if np.float16 in (a.dtype, b.dtype) else np.float32
    d = y - x
    return Sums(
        numel=a.size,
        n=x.size,
        numeric=x.size,
        nonfinite_a=int((~np.isfinite(a)).sum()),
        nonfinite_b=int((~np.isfinite(b)).sum()),
        changed=int((x != y).sum()),
        cast_only=int(((x != y) & (x.astype(coarser) == y.astype(coarser))).sum()),
        sign_flips=int((x * y < 0).sum()),
        sum_a=float(x.sum()),
        sum_b=float(y.sum()),
        sum_aa=float((x * x).sum()),
        sum_bb=float((y * y).sum()),
        sum_dd=float((d * d).sum()),
        sum_ab=float((x * y).sum()),
        sum_abs_d=float(np.abs(d).sum()),
        max_abs_d=float(np.abs(d).max(initial=0.0)),
        m2_a=float(((x - x.mean()) ** 2).sum()) if x.size else 0.0,
        m2_b=float(((y - y.mean()) ** 2).sum()) if y.size else 0.0,
        sum_ulp_sq=float((np.spacing(np.abs(x.astype(coarser))).astype(np.float64) ** 2).sum()),
        histogram=measure_histogram(d),
    )


def measure_histogram(d: np.ndarray) -> Histogram:
    """Counts and energies of the magnitudes in d, two bins to an octave from 2^-64 on."""
    sizes = np.abs(d[d != 0])
    if not sizes.size:
        return Histogram()
    fraction, exponent = np.frexp(sizes)  # sizes = fraction·2^exponent, fraction in 0.5 … 1
    bins = np.clip(2 * (exponent - 1 + 64) + (fraction >= 0.75), 0, 255)
    first = int(bins.min())
    counts = np.bincount(bins - first)
    energies = np.bincount(bins - first, weights=sizes * sizes)
    return Histogram(first, array("q", counts.tolist()), array("d", energies.tolist()))


def measure_tasks(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> TaskSums:
    """The sums beside a base, straight from their definition."""
    p, q = (side.astype(np.float64).ravel() - c.astype(np.float64).ravel() for side in (a, b))
    conflict = p * q < 0
    return TaskSums(
        n=p.size,
        moved_a=int((p != 0).sum()),
        moved_b=int((q != 0).sum()),
        moved_both=int(((p != 0) & (q != 0)).sum()),
        conflicts=int(conflict.sum()),
        aa=float((p * p).sum()),
        bb=float((q * q).sum()),
        dd=float(((q - p) ** 2).sum()),
        abs_a=float(np.abs(p).sum()),
        abs_b=float(np.abs(q).sum()),
        abs_sum=float(np.abs(p + q).sum()),
        abs_conflict=float((np.abs(p) + np.abs(q))[conflict].sum()),
    )


def row_cosines(a: np.ndarray, b: np.ndarray) -> RowCosines:
    x, y = a.astype(np.float64), b.astype(np.float64)
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return RowCosines(float(cosines.min()), float(np.quantile(cosines, 0.05)), float(np.median(cosines)))


def spectrum(a: np.ndarray, b: np.ndarray, place: int) -> Spectrum | None:
    """Of the change; ranks are missing here and there, as above a cap, whatever the change."""
    squares = np.linalg.svd(b.astype(np.float64) - a.astype(np.float64), compute_uv=False) ** 2
    total = squares.sum()
    if not total:
        return None
    rank = int(np.searchsorted(np.cumsum(squares), 0.9 * total)) + 1
    return Spectrum(
        float(total / squares[0]),
        rank if place % 5 else None,
        float(squares[0] / total),
        None if place % 3 else 1 + place % 7,
    )
