"""Small line and dot charts as inline SVG; knows nothing of load tests, and leaves every colour to the page's CSS.

Drawn for a column of about 360 CSS pixels: there, text has its nominal size, on a phone and in a desktop's grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 40, 40  # around the plot; TOP holds the y axis' name and the bands' labels
HEADROOM = 1.06  # of the largest value: a mark at the edge is seen whole
LETTER = 6.8  # width of a letter of the page's 12 px text, to know which label fits


@dataclass(frozen=True)
class Line:
    """Points joined by a line, each with a marker.

    Attributes:
        style: A CSS class of the page: its colour and dashes.
        points: (x, y); a pair that is not finite is left out.
        labels: Text beside each point, if any.
        above: Labels stand above and left of their points; otherwise below and right.
    """

    style: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    above: bool = True


@dataclass(frozen=True)
class Dots:
    """Points that are not joined, for many of them; a pair that is not finite is left out."""

    style: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Band:
    """A labelled stretch of the x axis; shown in ``short`` or not at all where the label does not fit."""

    start: float
    end: float
    label: str
    short: str = ""


def draw(
    title: str, description: str, x_label: str, y_label: str, marks: Sequence[Line | Dots], bands: Sequence[Band] = ()
) -> str:
    """The chart as one ``<svg>`` element that scales with its container; both axes begin at zero.

    Args:
        title: Its accessible name, which browsers also show as a tooltip.
        description: In words what the marks say, for those who cannot see them.
        x_label: What the x axis counts, with its unit.
        y_label: What the y axis counts, with its unit.
        marks: Drawn in this order, later ones on top. Values are not negative.
        bands: Behind everything, every other one shaded.
    """
    finite = [point for mark in marks for point in mark.points if _finite(point)]
    axes = _Axes(_reach(x for x, _ in finite), _reach(y for _, y in finite))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>",
        *_bands(axes, bands),
        *_axes(axes, x_label, y_label),
    ]
    for mark in marks:
        parts += _line(axes, mark) if isinstance(mark, Line) else _dots(axes, mark)
    return "\n".join([*parts, "</svg>"])


def ticks(reach: float) -> list[float]:
    """Round numbers from 0 up to ``reach``, four to seven of them."""
    raw = reach / 6.25
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    return [float(f"{step * i:.6g}") for i in range(math.floor(reach / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Axes:
    """From values to places in the drawing; both axes go from zero to their reach."""

    x_reach: float
    y_reach: float

    def x(self, value: float) -> float:
        return round(LEFT + value / self.x_reach * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - value / self.y_reach * (HEIGHT - TOP - BOTTOM), 1)


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _reach(values: Iterator[float]) -> float:
    largest = max(values, default=0.0)
    return largest * HEADROOM if largest > 0 else 1.0


def _text(style: str, x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _axes(axes: _Axes, x_label: str, y_label: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(axes.y_reach):
        y = axes.y(value)
        yield f'<line class="{"grid" if value else "base"}" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
        yield _text("tick", LEFT - 6, y + 4, "end", f"{value:,.6g}")
    for value in ticks(axes.x_reach):
        x = axes.x(value)
        yield f'<line class="base" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}"/>'
        yield _text("tick", x, bottom + 17, "middle", f"{value:,.6g}")
    yield _text("axis", right, HEIGHT - 6, "end", x_label)
    yield _text("axis", 2, 12, "start", y_label)


def _bands(axes: _Axes, bands: Sequence[Band]) -> Iterator[str]:
    for index, band in enumerate(bands):
        x, width = axes.x(band.start), round(axes.x(band.end) - axes.x(band.start), 1)
        if index % 2:
            yield f'<rect class="band" x="{x}" y="{TOP}" width="{width}" height="{HEIGHT - TOP - BOTTOM}"/>'
        fitting = (text for text in (band.label, band.short) if text and len(text) * LETTER <= width)
        if label := next(fitting, ""):
            yield _text("band", x + width / 2, TOP - 7, "middle", label)


def _line(axes: _Axes, line: Line) -> Iterator[str]:
    placed = [(axes.x(x), axes.y(y)) if _finite((x, y)) else None for x, y in line.points]
    seen = [place for place in placed if place]
    if len(seen) > 1:
        yield f'<polyline class="{line.style}" points="{" ".join(f"{x},{y}" for x, y in seen)}"/>'
    yield from (f'<circle class="{line.style}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in seen)
    # Both places are free beside a curve that rises, however steeply.
    across, down, anchor = (-5, -6, "end") if line.above else (5, 15, "start")
    for place, label in zip(placed, line.labels, strict=False):
        if place:
            y = min(place[1] + down, HEIGHT - BOTTOM - 4)  # not among the ticks
            yield _text(f"label {line.style}", place[0] + across, y, anchor, label)


def _dots(axes: _Axes, dots: Dots) -> Iterator[str]:
    radius = 1.4 if len(dots.points) > 100 else 2.5  # many must not hide each other, few must be found
    for x, y in filter(_finite, dots.points):
        yield f'<circle class="{dots.style}" cx="{axes.x(x)}" cy="{axes.y(y)}" r="{radius}"/>'
