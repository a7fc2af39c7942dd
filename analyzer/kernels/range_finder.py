"""Singular values of a change, in torch on the CPU or on CUDA. Knows no keys and no files.

Two ways. Of a matrix with a small side all of them, as eigenvalues of its Gram matrix, in fp64. Of a
large one the largest, by a randomized range finder: a random block and its images under DᵀD span a
subspace (Halko, Martinsson & Tropp 2011, arXiv 0909.4061), all of whose powers are kept instead of the
last alone (block Krylov; Musco & Musco 2015, arXiv 1504.05477). D is held, or read again for each
image, in fp32 blocks of rows; what is summed over blocks, orthogonal bases and eigenvalues are in fp64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from analyzer.kernels.formats import ulp_parameters
from analyzer.kernels.on_torch import TORCH_DTYPES

Array = NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 20  # about how many elements of a matrix are worked on at a time
_GRAM_PANEL = 256  # columns of a Gram matrix that are formed at a time: only those below the diagonal
_GRAM_BLOCK = 1024  # columns of a wide matrix that are widened to fp64 at a time
_WIDE = 60  # fp32 holds differences whose largest lies between 2^-60 and 2^60, and all that matter beside it

# What arithmetic leaves of a singular value that is zero, as a share of ‖D‖_F, and of Σσ² as a share of Σd².
# The fp64 eigenvalues of a Gram matrix are off by about 2^-52·σ₁², so their roots by 2^-26·σ₁ in the worst
# case; products in fp32 are off by 2^-24 of the norms of their rows.
GRAM_FLOOR, GRAM_SLACK = 2.0**-22, 1e-8  # D is rounded to fp32
RANGE_FLOOR, RANGE_SLACK = 2.0**-17, 1e-6


@dataclass(frozen=True, slots=True)
class RawTile:
    """The bytes of a part of the matrix on both sides, row by row."""

    row: int  # where it begins
    column: int
    rows: int
    columns: int
    raw_a: NDArray[np.uint8]
    dtype_a: str
    raw_b: NDArray[np.uint8]
    dtype_b: str


@dataclass(frozen=True, slots=True)
class Noise:
    """Σ ulp² of a matrix, in the unit of D²; ulp is the spacing in the coarser of both formats."""

    total: float
    largest_row: float  # of all rows, the largest sum
    largest_column: float


class Change:
    """The matrix D = (B − A) / 2^exponent, whose largest element is below 1, as blocks in fp32.

    Elements that are not finite on both sides count as unchanged, as they leave the sums. `read` gives
    all tiles, in blocks of whole rows or of whole columns; the tiles of a block follow each other. It is
    called once if the matrix is `held`, and else for every look.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        read: Callable[[bool], Iterator[RawTile]],
        *,
        exponent: int,
        device: str,
        held: bool,
    ) -> None:
        self.rows, self.columns = shape
        self.device = device
        self._read = read
        self._exponent = exponent
        self._spacings: tuple[torch.Tensor, torch.Tensor] | None = None
        self._matrix: torch.Tensor | None = None
        if held:
            matrix = torch.empty(shape, dtype=torch.float32, device=device)
            for tile, d in self._differences(by_columns=False):
                matrix[tile.row : tile.row + tile.rows] = d
            self._matrix = matrix

    def row_blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Which row a block of whole rows begins with, and the block: all of them, in their order."""
        if self._matrix is None:
            yield from ((tile.row, d) for tile, d in self._differences(by_columns=False))
            return
        step = max(BLOCK_ELEMENTS // self.columns, 1)
        for start in range(0, self.rows, step):
            yield start, self._matrix[start : start + step]

    def column_blocks(self) -> Iterator[torch.Tensor]:
        """All columns, some at a time."""
        if self._matrix is not None:
            for start in range(0, self.columns, _GRAM_BLOCK):
                yield self._matrix[:, start : start + _GRAM_BLOCK]
            return
        parts: list[torch.Tensor] = []
        for tile, d in self._differences(by_columns=True):
            parts.append(d)
            if tile.row + tile.rows == self.rows:
                yield torch.cat(parts)
                parts = []

    def noise(self) -> Noise:
        """What rounding can have left; known once all of the matrix was looked at."""
        assert self._spacings is not None, "nothing was read"
        rows, columns = self._spacings
        return Noise(float(rows.sum()), float(rows.max()), float(columns.max()))

    def _differences(self, *, by_columns: bool) -> Iterator[tuple[RawTile, torch.Tensor]]:
        """Every tile and its part of D; the first time, the spacings of the elements are summed too."""
        first = self._spacings is None
        sums = [torch.zeros(n, dtype=torch.float64, device=self.device) for n in (self.rows, self.columns)]
        for tile in self._read(by_columns):
            wide = "F64" in (tile.dtype_a, tile.dtype_b) or abs(self._exponent) > _WIDE
            dtype = torch.float64 if wide else torch.float32
            a, b = (
                torch.from_numpy(raw).to(self.device).view(TORCH_DTYPES[name]).to(dtype)
                for raw, name in ((tile.raw_a, tile.dtype_a), (tile.raw_b, tile.dtype_b))
            )
            kept = torch.isfinite(a) & torch.isfinite(b)
            factor = 2.0**-self._exponent
            d = torch.where(kept, b - a, 0.0).mul_(factor).to(torch.float32)
            if first:
                # Of the larger of both: what A holds as 0 was rounded in B.
                larger = torch.where(kept, torch.maximum(a.abs(), b.abs()), 0.0)
                ulp = _ulp(larger, *ulp_parameters(tile.dtype_a, tile.dtype_b)).mul_(factor)
                squares = ulp.square_().view(tile.rows, tile.columns)
                sums[0][tile.row : tile.row + tile.rows] += squares.sum(1)
                sums[1][tile.column : tile.column + tile.columns] += squares.sum(0)
            yield tile, d.view(tile.rows, tile.columns)
        if first:
            self._spacings = (sums[0], sums[1])


def gram_squares(change: Change) -> Array:
    """All σ², from the largest on: the eigenvalues of the smaller Gram matrix, as many as its rows."""
    size = min(change.rows, change.columns)
    gram = torch.zeros((size, size), dtype=torch.float64, device=change.device)
    if change.columns <= change.rows:
        for _, block in change.row_blocks():
            _add_gram(gram, block.to(torch.float64))
    else:
        for block in change.column_blocks():
            _add_gram(gram, block.to(torch.float64).T)
    return _eigenvalues(gram)


def range_squares(change: Change, *, width: int, depth: int, seed: int) -> Array:
    """The largest σ², from the largest on: too small by what the subspace misses, too large by rounding only.

    The subspace holds `width` random directions and their images under `depth` powers of DᵀD, so
    (depth + 1)·width dimensions, of which there may not be more than columns; D is looked at depth + 1 times.
    """
    # Drawn on the CPU, so that all devices start from the same numbers.
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((change.columns, width), generator=generator, dtype=torch.float64)
    basis: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    block = start.to(change.device)
    for step in range(depth + 1):
        block = _orthonormal_beyond(block, basis)
        basis.append(block)
        image, block = _apply(change, block.to(torch.float32), again=step < depth)
        images.append(image)
    size = width * (depth + 1)
    gram = torch.zeros((size, size), dtype=torch.float64, device=change.device)
    rows = max(BLOCK_ELEMENTS // size, 1)
    for at in range(0, change.rows, rows):
        _add_gram(gram, torch.cat([image[at : at + rows] for image in images], dim=1).to(torch.float64))
    return _eigenvalues(gram)


@contextlib.contextmanager
def one_thread_each() -> Iterator[Callable[[], None]]:
    """Let every product run on the thread that asks for it; gives what each thread has to call before.

    Shared between threads, its last bits would depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)


def warm_up(device: str) -> None:
    """Load the device's solvers, which two threads may not do at once.

    https://github.com/pytorch/pytorch/issues/90613
    """
    square = torch.eye(2, dtype=torch.float64, device=device)
    torch.linalg.eigvalsh(square)
    torch.linalg.qr(square)


def _apply(change: Change, block: torch.Tensor, *, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """D·X, and Dᵀ·(D·X) if that is wanted too, in one look at D."""
    image = torch.empty((change.rows, block.shape[1]), dtype=torch.float32, device=change.device)
    back = torch.zeros(block.shape, dtype=torch.float64, device=change.device)
    for start, part in change.row_blocks():
        own = image[start : start + len(part)]
        torch.mm(part, block, out=own)
        if again:
            back += part.T @ own
    return image, back


def _orthonormal_beyond(block: torch.Tensor, basis: list[torch.Tensor]) -> torch.Tensor:
    """An orthonormal block that spans, with the basis, what both span; orthogonal to the basis.

    Twice: what is left of a column that lay in the basis is rounding, and leans on it once it is
    made as long as the others.
    """
    for _ in range(2):
        for earlier in basis:
            block = block - earlier @ (earlier.T @ block)
        block = torch.linalg.qr(block)[0]
    return block


def _add_gram(gram: torch.Tensor, block: torch.Tensor) -> None:
    """Add blockᵀ·block to what lies on and below the diagonal, and to a little more."""
    size = len(gram)
    for start in range(0, size, _GRAM_PANEL):
        end = min(start + _GRAM_PANEL, size)
        gram[start:end, :end].addmm_(block[:, start:end].T, block[:, :end])


def _eigenvalues(gram: torch.Tensor) -> Array:
    """From the largest on, none below 0; of a matrix that is given by its lower half."""
    values = torch.linalg.eigvalsh(gram, UPLO="L").clamp(min=0.0).flip(0)
    squares: Array = values.cpu().numpy()
    return squares


def _ulp(magnitude: torch.Tensor, scale: float, floor: float) -> torch.Tensor:
    """The spacing of a format at magnitudes ≥ 0; 0 at 0. See `formats.ulp_parameters`."""
    if magnitude.dtype == torch.float32:
        power = (magnitude.view(torch.int32) & 0x7F800000).view(torch.float32)
    else:
        power = (magnitude.view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
    return torch.where(magnitude > 0, (power * scale).clamp_(min=floor), 0.0)
