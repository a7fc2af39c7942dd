"""How far out the farthest of n keys lies by chance: the table of limits in analyzer/outliers.py.

Draws categories of n normal values, takes the largest |x − median| / (1.4826 · MAD) of each, and prints the
quantiles that a share of `SHARES` of the categories exceed. Of an even count and the odd one after it, the
larger one. Run by hand: `python tests/benchmarks/outlier_limits.py`, some minutes.
"""

from __future__ import annotations

import click
import numpy as np

from analyzer.outliers import MAD_TO_STD

SHARES = (1e-2, 1e-3, 1e-4)
SIZES = (8, 10, 12, 16, 24, 32, 64, 128, 512, 2048)
NUMBERS = 16_000_000  # drawn for a size, but of no more categories than
CATEGORIES = 2_000_000  # a quantile of 1e-4 then rests on 200 of them
FEWEST = 400_000  # and of no fewer: 40 of them
BATCH = 1_000_000  # numbers at once


def largest(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The largest robust |z| of each of `count` categories of `size` normal values."""
    parts = []
    for start in range(0, count, max(BATCH // size, 1)):
        rows = min(max(BATCH // size, 1), count - start)
        x = rng.standard_normal((rows, size))
        far = np.abs(x - np.median(x, axis=1, keepdims=True))
        parts.append(far.max(axis=1) / (MAD_TO_STD * np.median(far, axis=1)))
    return np.concatenate(parts)


def main() -> None:
    """Print the table."""
    for size in SIZES:
        count = max(min(CATEGORIES, NUMBERS // size), FEWEST)
        limits = []
        for n in (size, size + 1):
            found = largest(n, count, np.random.default_rng(n))
            limits.append(np.quantile(found, [1 - share for share in SHARES]))
        click.echo(f"    {size}: ({', '.join(f'{limit:.2f}' for limit in np.max(limits, axis=0))}),")


if __name__ == "__main__":
    main()
