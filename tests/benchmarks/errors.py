"""How far the statistics are from oracles of more digits: `python tests/benchmarks/errors.py [elements]`.

For sizes up to 10 million elements of every dtype, and 70 million of fp16 and bf16, tensors are measured in
the chunks of a scan. Every statistic of sums, but those of rounding and of histograms, is compared with numpy
in extended precision (64-bit significands) on the same stored values; the cosine distance of nearly parallel
vectors with 50-digit arithmetic. Prints the largest relative error of every statistic as a Markdown table,
and exits with 1 if one is above 1e-6.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import mpmath
import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.evaluation import evaluate
from analyzer.measures import Sums, add_sums
from analyzer.statistics import STATISTICS
from analyzer.sums import open_measurer

LIMIT = 1e-6
SIZES = (1, 2, 1000, 100_003, 10_000_000, 70_000_000)
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
STEP = 1 << 17  # elements that are widened at a time, so that 70 million need no gigabytes
Extended = NDArray[np.longdouble]
MEASURER = open_measurer("cpu")


def cases(size: int) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(name, a, b, base) in fp32."""
    generator = torch.Generator().manual_seed(size)
    a = torch.randn(size, generator=generator) * 0.05
    noise = torch.randn(size, generator=generator)
    c = a - 0.02 * torch.randn(size, generator=generator)
    yield "fine-tune", a, a + 0.01 * noise, c
    yield "small change", a, a + 0.001 * noise, c
    yield "negated", a, -a, c
    yield "longer", a, 1.3 * (a + 0.01 * noise), c
    yield "trained apart", a, 0.05 * noise, c
    yield "large mean", a * 0.01 + 1, a * 0.01 + 1 + 0.001 * noise, c * 0.01 + 1
    if size > 100_003:
        return
    yield "all zeros", a * 0, a * 0, c
    yield "one side zero", a * 0, a, c
    yield "identical", a, a.clone(), c
    yield "huge", a.sign() * 65504, noise.sign() * 65504, c
    yield "subnormal", a * 2.0**-22, noise * 2.0**-25, c * 2.0**-22
    bad = a.clone()
    bad[0] = torch.nan
    yield "one NaN", bad, a + 0.01 * noise, c


def measured(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, dtype: str) -> Sums:
    """The sums of the whole, from chunks."""
    raw = [x.view(torch.uint8).numpy().reshape(-1) for x in (a, b, c)]
    width = a.element_size() * STEP
    parts = []
    for start in range(0, len(raw[0]), width):
        one, two, base = (x[start : start + width] for x in raw)
        parts.append(MEASURER.measure(one, dtype, two, dtype, base=(base, dtype)))
    return add_sums(parts)


class Oracle:
    """The statistics' sums in extended precision, one chunk after the other."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        self.sums: dict[str, np.longdouble] = {}
        self._largest = 0.0
        for x, y, z in self._chunks(a, b, c):
            self._add(x, y, z)
        means = [self.sums[f"{s}"] / max(self.sums["n"], 1) for s in "ab"]
        for x, y, _ in self._chunks(a, b, c):
            for name, values, mean in (("m2_a", x, means[0]), ("m2_b", y, means[1])):
                self._sum(name, (values - mean) ** 2)

    @staticmethod
    def _chunks(*sides: torch.Tensor) -> Iterator[list[Extended]]:
        for start in range(0, len(sides[0]), STEP):
            wide = [x[start : start + STEP].to(torch.float64).numpy() for x in sides]
            kept = np.isfinite(wide[0]) & np.isfinite(wide[1]) & np.isfinite(wide[2])
            yield [x[kept].astype(np.longdouble) for x in wide]

    def _sum(self, name: str, values: Extended) -> None:
        self.sums[name] = self.sums.get(name, np.longdouble(0)) + values.sum()

    def _add(self, a: Extended, b: Extended, c: Extended) -> None:
        d, p, q = b - a, a - c, b - c
        size = np.abs(p) + np.abs(q)
        named = {"n": np.ones_like(a), "a": a, "b": b, "aa": a * a, "bb": b * b, "dd": d * d, "ab": a * b}
        named |= {"abs": np.abs(d), "changed": a != b, "flips": a * b < 0}
        named |= {"pp": p * p, "qq": q * q, "pq": p * q, "conflicts": p * q < 0, "both": (p != 0) & (q != 0)}
        named |= {
            "either": (p != 0) | (q != 0),
            "mass": size,
            "clash": size * (p * q < 0),
            "sum": np.abs(p + q),
        }
        for name, values in named.items():
            self._sum(name, values.astype(np.longdouble))
        self._largest = max(self._largest, float(np.abs(d).max(initial=0)))

    def statistics(self) -> dict[str, float | None]:
        """By name, None where undefined; those that the sums here do not give are left out."""
        s = self.sums
        na, nb, nd, n = np.sqrt(s["aa"]), np.sqrt(s["bb"]), np.sqrt(s["dd"]), s["n"]
        pp, qq, pq = s["pp"], s["qq"], s["pq"]

        def ratio(top: np.longdouble, bottom: np.longdouble) -> np.longdouble | None:
            return top / bottom if bottom > 0 else None

        cosine = ratio(s["ab"], na * nb)
        distance = None if cosine is None else max(1 - cosine, np.longdouble(0))
        task = ratio(pq, np.sqrt(pp) * np.sqrt(qq))
        radial = ratio((nb - na) ** 2, s["dd"])
        found = {
            "norm_a": na, "norm_b": nb, "norm_ratio": ratio(nb, na), "cosine": cosine,
            "cosine_distance": distance, "norm_delta": nd, "relative_change": ratio(nd, na),
            "rms_delta": np.sqrt(s["dd"] / n), "mean_abs_delta": s["abs"] / n, "mean_a": s["a"] / n,
            "mean_b": s["b"] / n, "std_a": np.sqrt(s["m2_a"] / n), "std_b": np.sqrt(s["m2_b"] / n),
            "changed_fraction": s["changed"] / n, "sign_flip_fraction": s["flips"] / n,
            "max_abs_delta": self._largest, "radial_share": radial,
            "directional_share": None if radial is None else 1 - radial,
            "norm_task_a": np.sqrt(pp), "norm_task_b": np.sqrt(qq), "task_cosine": task,
            "sign_conflict_fraction": ratio(s["conflicts"], s["both"]),
            "conflict_mass": ratio(s["clash"], s["mass"]), "dominance": ratio(qq, pp + qq),
            "cancellation": None if s["mass"] == 0 else 1 - s["sum"] / s["mass"],
            "support_overlap": ratio(s["both"], s["either"]),
        }  # fmt: skip
        return {name: None if value is None else float(value) for name, value in found.items()}


# Differences of numbers near 1: what is small in them is told to so much of 1, not of itself.
SCALES = {
    "cosine": 1.0,
    "task_cosine": 1.0,
    "cancellation": 1.0,
    "radial_share": 1.0,
    "directional_share": 1.0,
}


def compare(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, dtype: str) -> Iterator[tuple[str, float]]:
    """(statistic, relative error) of one case; infinite where only one of both is undefined."""
    stored = [x.to(DTYPES[dtype]) for x in (a, b, c)]
    oracle = Oracle(*stored)
    if not oracle.sums["n"]:
        return
    sums = measured(*stored, dtype)
    got = evaluate(sums, total=sums)
    spread = float(np.sqrt((oracle.sums["aa"] + oracle.sums["bb"]) / oracle.sums["n"]))
    for name, expected in oracle.statistics().items():
        value = got[name]
        if expected is None or value is None:
            yield name, 0.0 if expected is value is None else np.inf
            continue
        scale = abs(expected)
        if name.startswith("mean_") and name != "mean_abs_delta":
            scale = max(scale, spread)  # a mean near zero is told to so much of the values' size
        if name == "cosine_distance" and expected < 1e-12:
            scale = max(scale, 1e-12)
        scale = max(scale, SCALES.get(name, 0.0))
        yield name, abs(value - expected) / scale if scale else abs(value - expected)


def parallel() -> Iterator[tuple[str, float]]:
    """The cosine distance of nearly parallel fp64 vectors against 50 digits; the last 1 % longer."""
    rng = np.random.default_rng(3)
    for exponent, length in ((-3, 1.0), (-6, 1.0), (-9, 1.0), (-12, 1.0), (-12, 1.01)):
        a = rng.standard_normal(20_000)
        b = length * (a + rng.standard_normal(20_000) * np.sqrt(2.0 * 10.0**exponent))
        with mpmath.workdps(50):
            dot = mpmath.fdot(a.tolist(), b.tolist())
            lengths = mpmath.sqrt(mpmath.fdot(a.tolist(), a.tolist()) * mpmath.fdot(b.tolist(), b.tolist()))
            expected = 1 - dot / lengths
            sums = MEASURER.measure(a.view("u1"), "F64", b.view("u1"), "F64")
            got = evaluate(sums, total=sums)["cosine_distance"]
            yield f"10^{exponent}", float(abs(got - expected) / expected)


def main() -> int:
    """Measure, print, and judge."""
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1]
    worst: dict[str, dict[str, float]] = {name: {} for name in STATISTICS}
    for size in (s for s in SIZES if s <= largest):
        for name, *sides in cases(size):
            for dtype in DTYPES if size <= 10_000_000 else ("F16", "BF16"):
                for statistic, error in compare(*sides, dtype):
                    worst[statistic][dtype] = max(worst[statistic].get(dtype, 0.0), error)
                    if error > LIMIT:
                        click.echo(f"{statistic} of {size:,} {dtype}, {name}: off by {error:.2g}", err=True)
    click.echo(f"| statistic | {' | '.join(DTYPES)} |")
    click.echo(f"|---|{'---|' * len(DTYPES)}")
    for statistic, errors in worst.items():
        if errors:
            click.echo(f"| `{statistic}` | {' | '.join(f'{errors[d]:.1e}' for d in DTYPES)} |")
    click.echo(
        "\ncosine distance against 50 digits: " + ", ".join(f"{n} off by {e:.1e}" for n, e in parallel())
    )
    return int(any(error > LIMIT for errors in worst.values() for error in errors.values()))


if __name__ == "__main__":
    sys.exit(main())
