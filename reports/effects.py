"""What an experiment measures of a picture: one literal table of titles, formulas and meanings.

The document holds the numbers under these names; here stands how a page words them. Computes nothing.
x_A, x_B and x_M are what A, B and A with one category of B show for one seed: latents, pixels or features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effect:
    """One entry of the table."""

    title: str  # a short column heading
    symbol: str  # the formula as people write it
    range: str
    meaning: str  # one line, for readers who are not statisticians
    source: str = ""  # of the formula


@dataclass(frozen=True, slots=True)
class View:
    """Of what the way from A to B is measured."""

    prefix: str  # of the names of its effects
    title: str
    meaning: str


EFFECTS: Mapping[str, Effect] = {
    "toward_b": Effect(
        "toward B",
        "⟨x_M − x_A, x_B − x_A⟩ / ‖x_B − x_A‖²",
        "… 0 … 1 …",
        "0 = still A, 1 = as far as B; below 0 it went the other way",
    ),
    "neither": Effect(
        "neither",
        "‖x_M − x_A − toward·(x_B − x_A)‖ / ‖x_B − x_A‖",
        "0 …",
        "what lies off the way from A to B, as a share of its length: like neither of them",
    ),
    "moved": Effect(
        "moved",
        "‖x_M − x_A‖ / ‖x_B − x_A‖",
        "0 …",
        "distance from A in any direction; 1 = as far from A as B is",
    ),
    "ssim_a": Effect(
        "SSIM to A",
        "mean of SSIM(M, A) over 11 × 11 windows of the luma",
        "−1 … 1",
        "1 = the same picture as A's in brightness, contrast and structure",
        "Wang et al. 2004",
    ),
    "ssim_b": Effect(
        "SSIM to B",
        "mean of SSIM(M, B) over 11 × 11 windows of the luma",
        "−1 … 1",
        "1 = the same picture as B's in brightness, contrast and structure",
        "Wang et al. 2004",
    ),
    "histogram_a": Effect(
        "colours from A",
        "√(½ Σ(√p_M − √p_A)²) over 8 × 8 × 8 bins of RGB",
        "0 … 1",
        "0 = the colours of A's picture, wherever they are in it; 1 = none in common",
        "Hellinger 1909",
    ),
    "histogram_b": Effect(
        "colours from B",
        "√(½ Σ(√p_M − √p_B)²) over 8 × 8 × 8 bins of RGB",
        "0 … 1",
        "0 = the colours of B's picture, wherever they are in it; 1 = none in common",
        "Hellinger 1909",
    ),
}

# The first that the document has is the one that the page opens with.
VIEWS = (
    View("", "latents", "the final latents, which the decoder turns into the picture"),
    View("pixels_", "pixels", "the picture's pixels: brightness and place weigh most"),
    View("features_", "features", "perceptual features of the picture, by a vision model"),
)
OUTPUT = View("", "output", "what the probe returned")  # in the place of latents


def title(name: str) -> str:
    """An effect's name as a page words it: "toward B", "toward B in pixels"; unknown names as they are."""
    for view in VIEWS:
        if view.prefix and name.startswith(view.prefix) and name.removeprefix(view.prefix) in EFFECTS:
            return f"{EFFECTS[name.removeprefix(view.prefix)].title}, in {view.title}"
    return EFFECTS[name].title if name in EFFECTS else name
