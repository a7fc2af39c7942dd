"""Pairs of matrices with a known change, on disk, and their sums by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.measures import Sums
from analyzer.pairing import Side, pair
from analyzer.records import Spectrum
from analyzer.spectrum import measure_spectra

Array = NDArray[np.float64]
Tensors = dict[str, torch.Tensor]

FORMATS = {  # name -> (significand bits without the hidden one, exponent of the smallest number)
    torch.float64: (52, -1074),
    torch.float32: (23, -149),
    torch.float16: (10, -24),
    torch.bfloat16: (7, -133),
    torch.float8_e4m3fn: (3, -9),
}


def weights(shape: tuple[int, ...], *, seed: int, size: float = 0.02) -> Array:
    """Normal numbers, as a layer's weights are."""
    return np.random.default_rng(seed).standard_normal(shape) * size


def with_singular_values(rows: int, columns: int, values: Sequence[float], *, seed: int) -> Array:
    """A matrix in random directions, with these singular values and zeros."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(rng.standard_normal((columns, len(values))))[0]
    return (left * np.asarray(values)) @ right.T


def stored(values: Array, dtype: torch.dtype) -> torch.Tensor:
    """The values rounded to a storage dtype."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)


def sums_of(a: torch.Tensor, b: torch.Tensor) -> Sums:
    """Of the sums of two tensors those that tell something about spectra."""
    if a.dtype not in FORMATS:
        return Sums(numel=a.numel(), n=a.numel(), changed=int((a != b).sum()))
    x, y = (t.to(torch.float64).numpy().ravel() for t in (a, b))
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    d = y - x
    digits, lowest = min(FORMATS[a.dtype], FORMATS[b.dtype])
    exponent = np.frexp(np.where(x == 0, 1.0, x))[1] - 1
    ulp = np.where(x == 0, 0.0, np.ldexp(1.0, np.maximum(exponent - digits, lowest)))
    return Sums(
        numel=a.numel(),
        n=len(d),
        numeric=len(d),
        nonfinite_differs=int((~kept).sum()),
        changed=int(np.count_nonzero(d)),
        sum_dd=float(d @ d),
        max_abs_d=float(np.abs(d).max(initial=0.0)),
        sum_ulp_sq=float(ulp @ ulp),
    )


def spectra_of(
    folder: Path, a: Tensors, b: Tensors, *, threads: int | None = None
) -> dict[str, Spectrum | None]:
    """The spectra of two models that are written to a folder, by key."""
    with ExitStack() as stack:
        models = []
        for name, tensors in (("a", a), ("b", b)):
            save_file(tensors, folder / f"{name}.safetensors")
            models.append(stack.enter_context(open_checkpoint(folder / f"{name}.safetensors")))
        pairs = pair(*(Side(model.infos, model.path.name) for model in models)).pairs
        sums = [sums_of(a[p.a.key], b[p.b.key]) for p in pairs]
        found = measure_spectra(*models, pairs, sums, threads=threads)
    return {p.a.key: spectrum for p, spectrum in zip(pairs, found, strict=True)}


def spectrum_of(folder: Path, a: torch.Tensor, b: torch.Tensor) -> Spectrum:
    """The spectrum of one key that changed."""
    found = spectra_of(folder, {"w.weight": a}, {"w.weight": b})["w.weight"]
    assert found is not None
    return found


def squares_of(a: torch.Tensor, b: torch.Tensor) -> Array:
    """All σ² of a change, out × rest, by a full singular value decomposition in fp64."""
    d = np.nan_to_num((b.to(torch.float64) - a.to(torch.float64)).numpy(), nan=0.0, posinf=0.0, neginf=0.0)
    return np.linalg.svd(d.reshape(len(d), -1), compute_uv=False) ** 2


def rank_90_of(squares: Array) -> int:
    """The fewest σ² that hold 90 % of all."""
    return int(np.searchsorted(np.cumsum(squares), 0.9 * squares.sum())) + 1
