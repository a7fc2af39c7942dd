"""Measure one chunk of a merge and its parents: bytes in, sums of products out. Knows no keys, no files.

With e = m − a, d = b − a and g = c − a, formed element by element in fp64: what a merge moved against
what its parents differ by. Everything is additive, so a fit over any group of keys is exact from its
summed record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.kernels.backends import CPU_CHUNK, GPU_CHUNK, cache_errors, device_errors, has_numba
from analyzer.kernels.formats import FLOATS, value_tables
from analyzer.measures import add

Bytes = NDArray[np.uint8]
Operand = tuple[Bytes, str]  # bytes, and the dtype of the elements that they hold


@dataclass(frozen=True, slots=True)
class Gram:
    """Sums over the positions that are finite in the merge m and in its parents a, b and, if any, c."""

    numel: int = 0  # all elements
    n: int = 0  # positions that are finite everywhere; every other count and sum is over these
    moved: int = 0  # m ≠ a
    not_taken: int = 0  # m ≠ b
    still: int = 0  # a, b and c hold one value
    foreign: int = 0  # those of them that the merge moved by more than rounding can
    ee: float = 0.0  # Σe²
    dd: float = 0.0  # Σd²
    ed: float = 0.0  # Σe·d
    gg: float = 0.0  # Σg²
    dg: float = 0.0  # Σd·g
    eg: float = 0.0  # Σe·g
    foreign_ee: float = 0.0  # Σe² of what is foreign
    # Σulp(m)² in the merge's dtype, where something moved; inf where its storage has no fixed spacing
    ulp: float = 0.0
    ulp_dd: float = 0.0  # Σulp²·d²
    ulp_dg: float = 0.0  # Σulp²·d·g
    ulp_gg: float = 0.0  # Σulp²·g²
    # An alpha in low … high, and no other, makes every a + alpha·d round to m; low > high: none does.
    # Without an end where d = 0, and where the merge's values are codes with a scale.
    low: float = -inf  # joins as a maximum
    high: float = inf  # joins as a minimum


# Half a spacing is what rounding once moves a value by. Arithmetic in fp32, whose result is rounded again,
# adds a few of its own units, relative to the parents; the bounds of an alpha are for both.
_HALF = 0.5
_ARITHMETIC = 2.0**-21
# Arithmetic in the merge's own dtype rounds three times, two products and their sum: what an element moved
# beyond that is no rounding.
_THRICE = 1.5
_LEAST = 1e-100  # a smaller |d|, which only fp64 holds, bounds no alpha: its reciprocal might overflow

_BOUNDS = {"low": max, "high": min}
_MEASURED = [f.name for f in fields(Gram) if f.name != "numel"]  # in the order of `compiled_grams`
_COUNTS = ("n", "moved", "not_taken", "still", "foreign")


def add_grams(records: Iterable[Gram]) -> Gram:
    """The record of all samples together; counts add exactly, sums are rounded once (fsum)."""
    rows = list(records)
    if len(rows) == 1:
        return rows[0]
    if not rows:
        return Gram()
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(Gram)}
    values: dict[str, Any] = {name: _BOUNDS.get(name, add)(column) for name, column in columns.items()}
    return Gram(**values)


class AbstractGramMeasurer(ABC):
    """Measures chunks whose sides are all floating point. Safe to call from many threads."""

    chunk: int  # elements that one call takes at most
    threads: int | None = None  # that keep it busy; None: what `run_batches` takes

    @abstractmethod
    def measure(self, m: Operand, a: Operand, b: Operand, c: Operand | None = None) -> Gram:
        """The sums of byte strings that hold equally many elements."""


def open_gram_measurer(device: str) -> AbstractGramMeasurer:
    """The measurer for "cpu", or for a torch device such as "cuda:0"."""
    if device != "cpu":
        return _TorchMeasurer(device)
    return _CompiledMeasurer() if has_numba() else _TorchMeasurer("cpu")  # as in `analyzer.sums`


def of_codes(gram: Gram, ulp: float) -> Gram:
    """The record of a merge whose values are codes with scales, given Σulp² of these; inf: it is not known.

    The other sums of spacings take one for all elements. What is foreign is not told apart.
    """
    share = ulp / gram.n if gram.n else 0.0
    return replace(
        gram,
        ulp=ulp,
        ulp_dd=share * gram.dd if gram.dd else 0.0,
        ulp_dg=share * gram.dg if gram.dg else 0.0,
        ulp_gg=share * gram.gg if gram.gg else 0.0,
        low=-inf,
        high=inf,
        foreign=0,
        foreign_ee=0.0,
    )


class _CompiledMeasurer(AbstractGramMeasurer):
    """The fused loop on the CPU."""

    chunk = CPU_CHUNK

    def __init__(self) -> None:
        from analyzer.kernels import compiled_grams

        self._kernel = compiled_grams
        self._tables = value_tables()
        nothing = np.empty(0, np.uint8)
        with cache_errors():  # the first call compiles, or reads what an earlier one compiled
            self.measure((nothing, "F32"), (nothing, "F32"), (nothing, "F32"))

    def measure(self, m: Operand, a: Operand, b: Operand, c: Operand | None = None) -> Gram:
        count = len(m[0]) * 8 // FLOATS[m[1]].bits
        out = np.zeros(self._kernel.WIDTH)
        out[-2:] = -inf, inf
        arguments: list[Any] = []
        for raw, dtype in (m, a, b, c or (_NO_BYTES, "F32")):
            arguments += [raw, FLOATS[dtype].code, self._tables[dtype]]
        arguments += [count, np.array(_limits(m[1])), out]
        self._kernel.measure(*arguments)
        return _record(count, out.tolist())


class _TorchMeasurer(AbstractGramMeasurer):
    """The same sums by torch, on any device that has fp64."""

    def __init__(self, device: str) -> None:
        from analyzer.kernels import torch_grams

        self._kernel, self._device = torch_grams, device
        self.chunk = CPU_CHUNK if device == "cpu" else GPU_CHUNK
        self.threads = None if device == "cpu" else 2  # see analyzer.sums

    def measure(self, m: Operand, a: Operand, b: Operand, c: Operand | None = None) -> Gram:
        sides = [m, a, b] if c is None else [m, a, b, c]
        with device_errors(self._device):
            out = self._kernel.measure(sides, _limits(m[1]), self._device)
        return _record(len(m[0]) * 8 // FLOATS[m[1]].bits, out.tolist())


_NO_BYTES = np.empty(0, np.uint8)


def _limits(dtype: str) -> tuple[float, ...]:
    """What the kernels need to know of the merge's dtype and of rounding."""
    form = FLOATS[dtype]
    return form.scale, form.smallest_spacing, _HALF, _THRICE, _ARITHMETIC, _LEAST


def _record(count: int, out: Sequence[float]) -> Gram:
    values: dict[str, Any] = dict(zip(_MEASURED, out, strict=True))
    return Gram(numel=count, **values | {name: int(values[name]) for name in _COUNTS})
