"""What stands behind a portrait. Knows pixels, and nothing of people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyzer.pocket.captions import Style

Pixels = NDArray[np.float32]  # (64 × 64 × 3), 0 … 1

SIDE = 64  # pixels of a picture


def background(name: str, style: Style, rng: np.random.Generator) -> Pixels:
    """One of the backgrounds; where its parts stand varies with the generator."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)
    flat = style == "flat"
    down = rows / SIDE
    if flat:  # a few bands of one colour each
        down = np.floor(down * 4) / 4 + np.float32(0.125)
    paint = {
        "plain background": _plain, "sunset": _sunset, "night sky": _night,
        "forest": _forest, "sea": _sea, "city": _city,
    }[name]  # fmt: skip
    pixels = paint(columns, rows, down, rng, flat)
    return pixels.astype(np.float32)


def _blend(down: Pixels, *stops: tuple[float, float, float]) -> Pixels:
    """Colours from top to bottom."""
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(down, places, [stop[i] for stop in stops]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _over(pixels: Pixels, cover: Pixels, colour: tuple[float, float, float]) -> Pixels:
    return pixels + np.clip(cover, 0, 1)[..., None] * (np.asarray(colour, np.float32) - pixels)


def _plain(x: Pixels, _y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    if flat:
        tone = 0.85 + 0.08 * rng.random()
        return np.broadcast_to(np.asarray((tone, tone, tone), np.float32), (*x.shape, 3)).copy()
    tone = 0.5 + 0.2 * rng.random()
    return _blend(down, (tone + 0.1,) * 3, (tone - 0.12,) * 3)


def _sunset(x: Pixels, y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    if flat:
        pixels = _blend(down, (0.55, 0.25, 0.60), (0.98, 0.45, 0.40), (1.0, 0.70, 0.30))
    else:
        pixels = _blend(down, (0.28, 0.22, 0.42), (0.80, 0.40, 0.32), (0.95, 0.66, 0.34))
    sun_x, sun_y = rng.choice((12.0, 52.0)) + rng.normal(0, 2), 30 + rng.normal(0, 3)
    away = np.hypot(x - sun_x, y - sun_y)
    if not flat:
        pixels = _over(pixels, 0.7 * np.exp(-away / 9), (1.0, 0.85, 0.55))
    return _over(pixels, 7.5 - away, (1.0, 0.93, 0.55))


def _night(x: Pixels, y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    stops = ((0.05, 0.07, 0.25), (0.16, 0.14, 0.42)) if flat else ((0.02, 0.03, 0.09), (0.09, 0.10, 0.22))
    pixels = _blend(down, *stops)
    for star_x, star_y in rng.uniform((3, 3), (61, 44), (6, 2)):
        pixels = _over(pixels, 1.7 - np.hypot(x - star_x, y - star_y), (1.0, 1.0, 0.9))
    moon_x = rng.choice((11.0, 53.0)) + rng.normal(0, 1.5)
    away = np.hypot(x - moon_x, y - 12)
    return _over(pixels, 5.5 - away, (0.96, 0.95, 0.80))


def _forest(x: Pixels, y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    stops = ((0.62, 0.85, 0.50), (0.30, 0.62, 0.30)) if flat else ((0.40, 0.52, 0.36), (0.13, 0.24, 0.11))
    pixels = _blend(down, *stops)
    for trunk in np.arange(4, 64, 14) + rng.normal(0, 2, 5):
        pixels = _over(pixels, 2.6 - np.abs(x - trunk), (0.42, 0.26, 0.14) if flat else (0.20, 0.14, 0.09))
    leaves = 12 + 3 * np.sin(x * 0.55 + rng.uniform(0, 6))
    return _over(pixels, leaves - y, (0.16, 0.48, 0.20) if flat else (0.10, 0.22, 0.09))


def _sea(x: Pixels, y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    stops = ((0.45, 0.75, 1.0), (0.80, 0.93, 1.0)) if flat else ((0.42, 0.58, 0.76), (0.78, 0.84, 0.88))
    pixels = _blend(down, *stops)
    horizon = 33 + rng.normal(0, 2)
    pixels = _over(pixels, y - horizon, (0.10, 0.42, 0.80) if flat else (0.10, 0.27, 0.40))
    waves = (np.sin(y * 0.8 + 0.6 * np.sin(x * 0.2)) > 0.6) & (y > horizon + 2)
    return _over(pixels, 0.35 * waves.astype(np.float32), (0.75, 0.9, 1.0))


def _city(x: Pixels, y: Pixels, down: Pixels, rng: np.random.Generator, flat: bool) -> Pixels:
    stops = ((0.60, 0.82, 0.95), (0.93, 0.95, 0.90)) if flat else ((0.56, 0.60, 0.66), (0.74, 0.73, 0.72))
    pixels = _blend(down, *stops)
    for left in np.arange(0, 64, 16):
        roof = rng.uniform(8, 28)
        tone = rng.uniform(0.0, 0.14)
        wall = (0.50 + tone, 0.50 + tone, 0.62 + tone) if flat else (0.28 + tone, 0.28 + tone, 0.31 + tone)
        inside = (np.abs(x - left - 8) < 7) & (y > roof)
        pixels = _over(pixels, inside.astype(np.float32), wall)
        panes = inside & (np.mod(x - left - 2.5, 6.5) < 3.5) & (np.mod(y - roof, 8) > 4)
        pixels = _over(pixels, panes.astype(np.float32), (0.98, 0.90, 0.55))
    return pixels
