"""Keys and scans for the tests of uncertainty, made of records that numpy measured."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analyzer.measures import BINS, LOWEST_EXPONENT, Histogram, Sums, TaskSums
from analyzer.records import KeyScan, Labels, ModelId, RowCosines, Scan, Spectrum

MODEL = ModelId("m.safetensors", 1, "sha256:0", "sd1")
LABELS = Labels("unet", "IN01", "t/attn2", "weight", "t/attn2")


def measure(a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> Sums:
    """The record of two vectors and a base, every field measured by numpy in its plainest form."""
    d = b - a
    changed = np.abs(d[d != 0])
    exponents = np.floor(np.log2(changed))
    bins = 2 * (exponents - LOWEST_EXPONENT).astype(int) + (changed >= 1.5 * 2.0**exponents)
    bins = np.clip(bins, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    energies = np.bincount(bins, changed**2, minlength=BINS)
    return Sums(
        numel=a.size, n=a.size, numeric=a.size, changed=int((a != b).sum()),
        sign_flips=int((a * b < 0).sum()), sum_a=float(a.sum()), sum_b=float(b.sum()),
        sum_aa=float(a @ a), sum_bb=float(b @ b),
        sum_dd=float(d @ d), sum_ab=float(a @ b), sum_abs_d=float(np.abs(d).sum()),
        max_abs_d=float(np.abs(d).max(initial=0.0)), sum_ulp_sq=float((np.spacing(np.abs(a)) ** 2).sum()),
        m2_a=float(((a - a.mean()) ** 2).sum()), m2_b=float(((b - b.mean()) ** 2).sum()),
        histogram=Histogram(0, array("q", counts.tolist()), array("d", energies.tolist())),
        task=None if c is None else tasks(a - c, b - c),
    )  # fmt: skip


def tasks(p: np.ndarray, q: np.ndarray) -> TaskSums:
    """The record of two tasks."""
    conflict = p * q < 0
    mass = np.abs(p) + np.abs(q)
    return TaskSums(
        n=p.size, moved_a=int((p != 0).sum()), moved_b=int((q != 0).sum()),
        moved_both=int(((p != 0) & (q != 0)).sum()), conflicts=int(conflict.sum()),
        aa=float(p @ p), bb=float(q @ q), dd=float((q - p) @ (q - p)), abs_a=float(np.abs(p).sum()),
        abs_b=float(np.abs(q).sum()), abs_sum=float(np.abs(p + q).sum()),
        abs_conflict=float(mass[conflict].sum()),
    )  # fmt: skip


def random_key(name: str, rng: np.random.Generator, *, size: int = 400, **labels: object) -> KeyScan:
    """A key of `size` random numbers, with everything that a scan can measure of it."""
    c = rng.standard_normal(size) + rng.standard_normal() / 2
    moves = (
        rng.standard_normal((2, size))
        * (rng.random((2, size)) < 0.8)
        * np.exp(rng.standard_normal(2) / 4)[:, None]
    )
    x = rng.random(7)
    return KeyScan(
        name, name, (size,), "F64", "F64", replace(LABELS, **labels),  # type: ignore[arg-type]  # fields of Labels
        measure(c + moves[0] / 9, c + moves[1] / 9, c), row_cosines=RowCosines(x[0] - 1, x[1] - 0.5, x[2]),
        spectrum=Spectrum(1 + 9 * x[3], 1 + int(9 * x[4]), x[5], 1 + int(9 * x[6])),
    )  # fmt: skip


def moved(name: str, change: float, *, norm: float = 1.0, **labels: object) -> KeyScan:
    """A key of 100 elements that moved by `change` of its norm, across itself."""
    aa = norm**2
    dd = aa * change**2
    sums = Sums(
        numel=100, n=100, numeric=100, changed=100 if change else 0, sum_aa=aa, sum_bb=aa + dd, sum_dd=dd,
        sum_abs_d=10 * dd**0.5, max_abs_d=dd**0.5, m2_a=aa, m2_b=aa + dd,
    )  # fmt: skip
    described = replace(LABELS, **labels)  # type: ignore[arg-type]  # fields of Labels
    return KeyScan(name, name, (10, 10), "F32", "F32", described, sums)


def group(name: str, count: int, change: float, *, spread: float = 0.3, seed: int = 0) -> list[KeyScan]:
    """Keys of one component, with log-normal changes around `change`."""
    rng = np.random.default_rng([seed, *name.encode()])
    changes = change * np.exp(spread * rng.standard_normal(count))
    return [
        moved(f"{name}.{i}", float(changes[i]), component=f"t/{name}", group=f"t/{name}")
        for i in range(count)
    ]


def scan_of(rows: Sequence[KeyScan]) -> Scan:
    """A scan of these rows that was asked for everything."""
    blocks = ("IN00", "IN01", "M00")
    return Scan(
        "mergescope",
        "2026-01-01",
        MODEL,
        MODEL,
        blocks,
        tuple(rows),
        (),
        (),
        (),
        base=MODEL,
        with_spectrum=True,
    )
