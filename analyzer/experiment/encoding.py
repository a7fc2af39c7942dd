"""Pixels as the bytes of a picture file, small enough for a page. Knows no models and no paths."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

from analyzer.experiment.measures import Picture
from analyzer.experiment.records import Shown

if TYPE_CHECKING:
    from PIL.Image import Image

_LOSSLESS = 128  # pixels of the longer side up to which nothing is lost
_QUALITY = 92  # of WebP, 0 … 100


def encode(pixels: Picture) -> tuple[str, bytes]:
    """(MIME type, bytes) of a picture (height × width × 3): PNG up to 128 pixels a side, else WebP."""
    if max(pixels.shape[:2]) <= _LOSSLESS:
        return "image/png", png(pixels)
    buffer = BytesIO()
    _image(pixels).save(buffer, "WEBP", quality=_QUALITY)
    return "image/webp", buffer.getvalue()


def png(pixels: Picture) -> bytes:
    """The bytes of a PNG file, from which the same pixels are read again."""
    buffer = BytesIO()
    _image(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_all(grid: Mapping[tuple[str, int], Shown | str]) -> dict[tuple[str, int], tuple[str, bytes]]:
    """Every picture of a grid, by column's label and seed; nothing for what failed or is no picture."""
    return {
        place: encode(cell.pixels)
        for place, cell in grid.items()
        if not isinstance(cell, str) and cell.pixels is not None
    }


def _image(pixels: Picture) -> Image:
    from PIL import Image

    return Image.fromarray(pixels)
