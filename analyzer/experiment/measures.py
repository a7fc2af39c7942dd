"""How far one output went from A's to B's, and how alike two pictures are. Knows no models and no files.

Outputs are arrays of one shape: final latents, pixels, features, logits. Everything is computed in float64.
Undefined is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

Array = NDArray[np.generic]  # of any real dtype
Picture = NDArray[np.uint8]  # (height × width × 3), RGB

_LUMA = np.array([0.299, 0.587, 0.114])  # of gamma-coded RGB, ITU-R BT.601
_PEAK = 255.0
_WINDOW, _SIGMA = 11, 1.5  # Wang et al. 2004, §III-C
_K1, _K2 = 0.01, 0.03
_BINS = 8  # of each colour channel, 32 levels wide


@dataclass(frozen=True, slots=True)
class Movement:
    """Where x_M lies as seen from x_A, in lengths of x_B − x_A: toward_b² + neither² = moved².

    None: x_A and x_B are equal, so there is no direction; or a value is not finite.
    """

    toward_b: float | None = None  # ⟨x_M − x_A, x_B − x_A⟩ / ‖x_B − x_A‖²: 0 = still A, 1 = as far as B
    neither: float | None = None  # ‖what is left of x_M − x_A‖ / ‖x_B − x_A‖, 0 …: like neither A nor B
    moved: float | None = None  # ‖x_M − x_A‖ / ‖x_B − x_A‖, 0 …


def movement(x_a: Array, x_b: Array, x_m: Array) -> Movement:
    """The orthogonal decomposition of x_M − x_A along x_B − x_A; all three of one shape."""
    assert x_a.shape == x_b.shape == x_m.shape
    a, b, m = (np.asarray(x, np.float64).ravel() for x in (x_a, x_b, x_m))
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(m).all()):
        return Movement()
    across, went = b - a, m - a
    length_sq = float(across @ across)
    if length_sq == 0:
        return Movement()
    toward = float(went @ across) / length_sq
    # From the remainder itself: moved² − toward_b² would cancel where little is left.
    left = went - toward * across
    return Movement(toward, sqrt(float(left @ left) / length_sq), sqrt(float(went @ went) / length_sq))


def relative_distance(x_a: Array, x_b: Array) -> float | None:
    """‖x_B − x_A‖ / ‖x_A‖, 0 …; None if x_A is all zeros or a value is not finite."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (x_a, x_b))
    if not (np.isfinite(a).all() and np.isfinite(b).all() and a.any()):
        return None
    return float(np.linalg.norm(b - a) / np.linalg.norm(a))


def ssim(this: Picture, other: Picture) -> float | None:
    """The mean structural similarity of two pictures' luma, −1 … 1; 1 = equal. None below 11 pixels a side.

    Means, variances and covariance are those under a Gaussian window of 11 × 11 (σ = 1.5), at every place
    where it lies inside the picture; the pictures are not reduced first. Wang, Bovik, Sheikh & Simoncelli,
    Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    assert this.shape == other.shape
    if min(this.shape[:2]) < _WINDOW:
        return None
    x, y = this @ _LUMA, other @ _LUMA
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x * mean_x
    variance_y = _windowed(y * y) - mean_y * mean_y
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def histogram_distance(this: Picture, other: Picture) -> float:
    """The Hellinger distance of two pictures' colours, 0 … 1: 0 = the same colours, 1 = none in common.

    √(½ Σ(√p − √q)²) over the shares p and q of the pixels in 8 × 8 × 8 bins of RGB; where they are in the
    picture does not count. Hellinger 1909.
    """
    p, q = _colour_shares(this), _colour_shares(other)
    # Not √(1 − Σ√(pq)): of equal pictures that leaves 1e-8.
    return min(sqrt(0.5 * float(((np.sqrt(p) - np.sqrt(q)) ** 2).sum())), 1.0)


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian-weighted mean around every place whose window lies inside the picture."""
    reach = _WINDOW // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    inside = slice(reach, -reach)
    rows = correlate1d(values, weights, axis=0)[inside]
    found: NDArray[np.float64] = correlate1d(rows, weights, axis=1)[:, inside]
    return found


def _colour_shares(picture: Picture) -> NDArray[np.float64]:
    """The share of the pixels in each of the 512 bins."""
    r, g, b = np.moveaxis(picture // (256 // _BINS), -1, 0).astype(np.intp)
    counts = np.bincount(((r * _BINS + g) * _BINS + b).ravel(), minlength=_BINS**3)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
