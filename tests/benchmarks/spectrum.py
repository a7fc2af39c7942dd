"""Time and error of --spectrum on two model files: python tests/benchmarks/spectrum.py A B [--exact N].

Measures every pair once, as a scan does, and then the spectra; `--exact` compares the N largest of each
size with all singular values of numpy. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.measures import Sums
from analyzer.pairing import Side, pair
from analyzer.records import Pair, Spectrum, TensorInfo
from analyzer.spectrum import describe_cost, estimate, measure_spectra

Measured = Sequence[tuple[Pair, Spectrum]]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--exact", type=int, default=0, metavar="N")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with open_checkpoint(options.a) as a, open_checkpoint(options.b) as b:
        pairs = pair(Side(a.infos, "A"), Side(b.infos, "B")).pairs
        sums = [sums_of(*(values(m, i) for m, i in ((a, p.a), (b, p.b))), dtype=p.b.dtype) for p in pairs]
        _print(describe_cost(estimate(pairs), device=options.device, threads=options.threads))
        start = time.perf_counter()
        spectra = measure_spectra(a, b, pairs, sums, device=options.device, threads=options.threads)
        seconds = time.perf_counter() - start
        found = [(p, s) for p, s in zip(pairs, spectra, strict=True) if s is not None]
        _print(f"{len(found)} spectra in {seconds:.1f} s")
        _print(f"look like a LoRA: {sum(s.lora_rank is not None for _, s in found)}")
        if options.exact:
            compare(a, b, found, options.exact)


def compare(a: Checkpoint, b: Checkpoint, found: Measured, count: int) -> None:
    """Print the largest errors against numpy.linalg.svd."""
    by_size: dict[tuple[int, ...], list[tuple[Pair, Spectrum]]] = {}
    for p, s in found:
        by_size.setdefault((p.a.shape[0], prod(p.a.shape[1:])), []).append((p, s))
    for size, members in sorted(by_size.items(), key=lambda entry: -prod(entry[0])):
        for p, s in members[:count]:
            difference = values(b, p.b) - values(a, p.a)
            start = time.perf_counter()
            squares = np.linalg.svd(difference.reshape(size), compute_uv=False) ** 2
            seconds = time.perf_counter() - start
            rank_90 = int(np.searchsorted(np.cumsum(squares), 0.9 * squares.sum())) + 1
            error = s.stable_rank / (squares.sum() / squares[0]) - 1
            ranks = f"rank_90 {s.rank_90} against {rank_90}"
            _print(f"{size}: stable rank {s.stable_rank:.2f}, off by {error:+.1e}; {ranks}")
            _print(f"    by svd in {seconds:.1f} s: {p.a.key}")


def values(model: Checkpoint, info: TensorInfo) -> np.ndarray:
    """A tensor's values in fp64, flat; fp16 and fp32 only."""
    raw = np.empty(info.nbytes, np.uint8)
    model.read_into(info, 0, raw)
    names = {"F16": "<f2", "F32": "<f4"}
    return raw.view(names[info.dtype]).astype(np.float64) if info.dtype in names else np.zeros(0)


def sums_of(a: np.ndarray, b: np.ndarray, *, dtype: str) -> Sums:
    """The sums that a spectrum needs."""
    if not a.size:
        return Sums()
    d = b - a
    digits, floor = {"F16": (10, -24), "F32": (23, -149)}[dtype]
    ulp = np.where(a != 0, np.maximum(np.exp2(np.floor(np.log2(np.abs(a) + 1e-300)) - digits), 2.0**floor), 0)
    changed = int(np.count_nonzero(d))
    return Sums(
        numel=a.size, n=a.size, numeric=a.size, changed=changed, sum_dd=float(d @ d),
        max_abs_d=float(np.abs(d).max()), sum_ulp_sq=float(ulp @ ulp),
    )  # fmt: skip


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
