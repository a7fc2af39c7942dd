"""How often the intervals hold the truth: `python tests/benchmarks/interval_coverage.py [CATEGORIES]`.

Categories of a known population are drawn, and their intervals made as `rank --uncertainty` makes them.
Sizes, norms and relative changes of keys are independent; changes are log-normal, with a spread (of the
natural logarithm) as real categories have it: 0.1 to 0.5. Beside it stands what plain percentiles and BCa
would have given from the same resamples. The last columns: the median factor between an interval's ends,
and the share of the categories that get an interval at all.

The table in the docstring of `analyzer.uncertainty` is this script's, with 1000 categories a line.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from analyzer.measures import Histogram, Sums
from analyzer.records import KeyScan, Labels, RowCosines
from analyzer.uncertainty.bands import FEWEST_KEYS, KINDS, band
from analyzer.uncertainty.sampling import RESAMPLES, Measured, Sample, Table

Floats = NDArray[np.float64]
KEYS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
NORMS = 0.6  # spread of the logarithm of ‖a‖² beyond that of the size
LABELS = Labels("unet", "IN01", "ff", "weight", "ff")


def alike(rng: np.random.Generator, count: int) -> Floats:
    """Keys of one size."""
    return np.ones(count)


def levels(rng: np.random.Generator, count: int) -> Floats:
    """Matrices of 320, 640 and 1280 channels, as a U-Net has them."""
    return 4.0 ** rng.integers(0, 3, count)


def biases(rng: np.random.Generator, count: int) -> Floats:
    """Matrices and their biases."""
    return np.where(rng.random(count) < 0.5, 1.0, 1e-3)


@dataclass(frozen=True)
class Case:
    """A statistic, what it is in the population, and which population that is."""

    statistic: str
    sizes: Callable[[np.random.Generator, int], Floats]
    spread: float

    @property
    def truth(self) -> float:
        """Of infinitely many keys: E[Σd²] / E[Σa²] = 0.01·exp(2·spread²), as E[exp(2·spread·z)] is."""
        change = 0.1 * exp(self.spread**2)
        length = (1 + change**2) ** 0.5  # d is perpendicular to a
        return {
            "relative_change": change,
            "cosine_distance": 1 - 1 / length,
            "changed_fraction": 2 / 3,  # beta(2, 1)
            "row_cosine_median": 0.9,
        }[self.statistic]

    def keys(self, rng: np.random.Generator, count: int, at: int) -> list[KeyScan]:
        """One category of this population."""
        size = self.sizes(rng, count)
        aa = size * np.exp(NORMS * rng.standard_normal(count))
        dd = aa * (0.1 * np.exp(self.spread * rng.standard_normal(count))) ** 2
        fractions, cosines = rng.beta(2, 1, count), 1 - 0.1 * np.exp(self.spread * rng.standard_normal(count))
        n = (size * 1e6).astype(int)
        return [
            KeyScan(
                f"{at}.{i}", "", (int(n[i]),), "F32", "F32", LABELS,
                Sums(
                    numel=int(n[i]), n=int(n[i]), numeric=int(n[i]), changed=int(n[i] * fractions[i]),
                    sum_aa=aa[i], sum_bb=aa[i] + dd[i], sum_dd=dd[i],
                    histogram=Histogram(100, array("q", [int(n[i])]), array("d", [dd[i]])),
                ),
                row_cosines=RowCosines(cosines[i], cosines[i], cosines[i]),
            )
            for i in range(count)
        ]  # fmt: skip


def percentiles(measured: Measured) -> tuple[float, float]:
    """The plain bootstrap interval."""
    low, high = np.nanquantile(measured.drawn, (0.025, 0.975))
    return float(low), float(high)


def bca(sample: Sample, measured: Measured) -> tuple[float, float] | None:
    """Bias-corrected and accelerated (Efron 1987), of `relative_change`."""
    aa, dd = sample.field("sum_aa"), sample.field("sum_dd")
    left = np.sqrt((dd.sum() - dd) / (aa.sum() - aa))
    away = left.mean() - left
    with np.errstate(all="ignore"):
        acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    bias = norm.ppf(np.clip((measured.drawn < measured.value).mean(), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    z = bias + norm.ppf([0.025, 0.975])
    low, high = np.nanquantile(measured.drawn, norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def line(case: Case, count: int, categories: int, seed: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(seed)
    table = Table([row for at in range(categories) for row in case.keys(rng, count, at)])
    places: dict[str, list[int]] = {}
    for place, row in enumerate(table.keys):
        places.setdefault(row.key.partition(".")[0], []).append(place)
    held: dict[str, list[bool]] = {"percentile": [], "BCa": [], "ours": []}
    factors = []
    for group in places.values():
        sample = Sample(table, group, total=table.changed)
        measured = sample.measure(case.statistic)
        found = {"percentile": percentiles(measured)}
        if case.statistic == "relative_change":
            found["BCa"] = bca(sample, measured)
        if ours := band(sample, measured, KINDS[case.statistic]).interval:
            found["ours"] = ours
            factors.append(ours[1] / ours[0])
        for name, (low, high) in found.items():
            held[name].append(low <= case.truth <= high)
    shares = [f"{np.mean(h):10.1%}" if h else " " * 9 + "–" for h in held.values()]
    factor = f"{np.median(factors):7.2f}" if factors else " " * 6 + "–"
    return f"{count:5}  {''.join(shares)} {factor}{len(factors) / categories:7.0%}"


def main(categories: int) -> None:
    """Print the tables."""
    cases = [
        Case("relative_change", sizes, spread)
        for sizes in (alike, levels, biases)
        for spread in (0.3, 0.5, 0.7)
    ]
    cases += [
        Case(name, levels, 0.3) for name in ("cosine_distance", "changed_fraction", "row_cosine_median")
    ]
    say = sys.stdout.write
    say(f"{categories} categories a line, {RESAMPLES} resamples; no interval below {FEWEST_KEYS} keys\n")
    for number, case in enumerate(cases):
        say(f"\n{case.statistic}, sizes: {case.sizes.__name__}, spread {case.spread}\n")
        say(f"{'keys':>5}{'percentile':>12}{'BCa':>10}{'ours':>10}{'factor':>8}{'shown':>7}\n")
        for count in KEYS:
            say(line(case, count, categories, 1000 * number + count) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
