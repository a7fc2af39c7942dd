"""Small line charts as SVG, drawn by hand: no browser and no plotting library is needed for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 48  # margins; labels of curves stand in the right one
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe & Ito: told apart by all eyes
STEPS = (1, 2, 5, 10)

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points, from left to right, or a line that the points are held against."""

    name: str
    points: Sequence[Point]
    reference: bool = False  # a dashed line without dots


def chart(title: str, across: str, up: str, curves: Sequence[Curve]) -> str:
    """An SVG picture; both axes begin at 0."""
    x_ticks = ticks(max(x for curve in curves for x, _ in curve.points))
    y_ticks = ticks(max(y for curve in curves for _, y in curve.points))

    def place(point: Point) -> Point:
        x, y = point[0] / x_ticks[-1], point[1] / y_ticks[-1]
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 22, title, size=14),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, anchor="middle"),
        f'<text x="16" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" fill="#333333"'
        f' transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2})">{escape(up)}</text>',
    ]
    for tick in x_ticks:
        x, y = place((tick, 0))
        parts += [_line((x, TOP), (x, y)), _text(x, y + 18, f"{tick:g}", anchor="middle")]
    for tick in y_ticks:
        x, y = place((0, tick))
        parts += [_line((x, y), (WIDTH - RIGHT, y)), _text(x - 8, y + 4, f"{tick:g}", anchor="end")]
    placed = [[place(point) for point in curve.points] for curve in curves]
    for curve, points, color in zip(curves, placed, _colors(curves), strict=True):
        parts.append(_curve(points, color, dashed=curve.reference))
    heights = _apart([points[-1][1] for points in placed])
    for curve, color, height in zip(curves, _colors(curves), heights, strict=True):
        parts.append(_text(WIDTH - RIGHT + 8, height + 4, curve.name, color=color))
    return "\n".join([*parts, "</svg>", ""])


def ticks(largest: float) -> list[float]:
    """From 0 to the first round number that is no smaller, in four to ten steps."""
    if largest <= 0:
        return [0.0, 1.0]
    decade = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(s * decade for s in STEPS if largest / (s * decade) <= 8)
    return [step * i for i in range(math.ceil(largest / step - 1e-9) + 1)]


def _colors(curves: Sequence[Curve]) -> list[str]:
    own = iter(COLORS)
    return ["#777777" if curve.reference else next(own) for curve in curves]


def _apart(heights: Sequence[float], gap: float = 16) -> list[float]:
    """Where labels stand that would be at these heights, moved down where they would overlap."""
    found, lowest = list(heights), -math.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        found[index] = lowest = max(heights[index], lowest + gap)
    return found


def _curve(points: Sequence[Point], color: str, *, dashed: bool) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = ' stroke-dasharray="6 4"' if dashed else ""
    dots = "" if dashed else "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{style}/>'
    return f'<g fill="{color}">{line}{dots}</g>'


def _line(start: Point, end: Point) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        ' stroke="#dddddd"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", color: str = "#333333", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
