"""Small line and dot charts as inline SVG; colours come from the page's CSS and follow its light or dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 18, 50


@dataclass(frozen=True)
class Series:
    """Points (x, y), drawn as a line with labelled points, or as dots.

    Attributes:
        style: A CSS class of the page: its colour.
        points: Finite pairs; others are left out.
        labels: Text beside each point, if any.
        line: Whether to connect the points.
    """

    style: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    line: bool = True


def draw(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """The chart as one ``<svg>`` element that scales with its container; both axes begin at zero."""
    finite = [p for one in series for p in one.points if all(map(math.isfinite, p))]
    x_ticks = ticks(max((x for x, _ in finite), default=1.0))
    y_ticks = ticks(max((y for _, y in finite), default=1.0))
    x_scale = (WIDTH - LEFT - RIGHT) / x_ticks[-1]
    y_scale = (HEIGHT - TOP - BOTTOM) / y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + x * x_scale, 1), round(HEIGHT - BOTTOM - y * y_scale, 1)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    ]
    for value in x_ticks:
        x, y = place(value, 0)
        parts.append(f'<text class="tick" x="{x}" y="{y + 19}" text-anchor="middle">{value:g}</text>')
    for value in y_ticks:
        x, y = place(0, value)
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{x - 7}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for one in series:
        placed = [place(*point) if all(map(math.isfinite, point)) else None for point in one.points]
        seen = [point for point in placed if point]
        if one.line and len(seen) > 1:
            path = " ".join(f"{x},{y}" for x, y in seen)
            parts.append(f'<polyline class="{one.style}" points="{path}"/>')
        radius = 4 if one.line else 1.6
        parts += [f'<circle class="{one.style}" cx="{x}" cy="{y}" r="{radius}"/>' for x, y in seen]
        for point, label in zip(placed, one.labels, strict=False):
            if point:
                x, y = point[0], point[1] - 9
                parts.append(f'<text class="label" x="{x}" y="{y}" text-anchor="middle">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])


def ticks(largest: float) -> list[float]:
    """Round numbers from 0 to at least ``largest``, four to seven of them."""
    if not largest > 0:
        return [0.0, 1.0]
    raw = largest / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    count = math.ceil(largest / step - 1e-9)
    return [round(step * i, 10) for i in range(count + 1)]
