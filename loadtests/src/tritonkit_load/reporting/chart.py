"""Charts with two axes as inline SVG; knows nothing of load tests, and leaves every colour to the page's CSS.

Drawn for a column of about 330 CSS pixels: there, text has its nominal size, on a phone and in a desktop's grid.
Charts of rows (one bar a name) are in rows.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tritonkit_load.reporting.axis import Axis, Scale

WIDTH, HEIGHT = 330, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 40  # around the plot; TOP holds the y axis' name
NAMED = 14  # more at the top, where bands have labels
LETTER = 6.8  # width of a letter of the page's 12 px text, to know which label fits; digits are wider than most
DIGIT = 7.7
MARKED = 40  # points of a line; with more, their markers would hide it
FAR = 2.5  # times the largest value: a level beyond would press the values flat, and is only named


@dataclass(frozen=True)
class Line:
    """Points joined by a line; a pair that is not finite is left out and breaks the line.

    Attributes:
        style: A CSS class of the page: its colour and dashes.
        points: (x, y).
        labels: Text beside each point, if any; one that has no free place is left out.
        above: Labels stand above and left of their points; otherwise below and right.
        marked: Each point has a marker, unless they are too many for that.
    """

    style: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    above: bool = True
    marked: bool = True


@dataclass(frozen=True)
class Dots:
    """Points that are not joined; a pair that is not finite is left out.

    Attributes:
        style: A CSS class of the page.
        points: (x, y).
        labels: As a line's.
        radius: Of each; None: by their number.
        above: As a line's.
    """

    style: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    radius: float | None = None
    above: bool = True


@dataclass(frozen=True)
class Bars:
    """Upright bars from zero, each centred on its x and almost as wide as ``step`` of the x axis."""

    style: str
    points: Sequence[tuple[float, float]]
    step: float = 1.0


@dataclass(frozen=True)
class Level:
    """A line across the plot at ``value``, such as a limit; named above the plot, and only that if it is far off."""

    style: str
    value: float
    label: str


@dataclass(frozen=True)
class Band:
    """A labelled stretch of the x axis, behind everything; its label is shortened or left out where it does not fit."""

    start: float
    end: float
    label: str
    short: str = ""
    shaded: bool = False


Mark = Line | Dots | Bars
Box = tuple[float, float, float, float]


def draw(
    title: str, description: str, x: Axis, y: Axis, marks: Sequence[Mark], bands: Sequence[Band] = (),
    level: Level | None = None,
) -> str:  # fmt: skip
    """The chart as one ``<svg>`` element that scales with its container.

    Args:
        title: Its accessible name, which browsers also show as a tooltip.
        description: In words what the marks say, for those who cannot see them.
        x: What the x axis counts.
        y: What the y axis counts.
        marks: Drawn in this order, later ones on top. Values are not negative.
        bands: Stretches of the x axis, such as a warm-up.
        level: Drawn over the marks.
    """
    widths = [value for mark in marks for value, _ in mark.points if math.isfinite(value)]
    heights = [value for mark in marks for point in mark.points if _finite(point) for value in point[1:]]
    edges = [max(widths, default=0.0) + mark.step / 2 for mark in marks if isinstance(mark, Bars)]
    seen = level is not None and level.value <= FAR * max(heights, default=level.value)
    plot = _Plot(
        x.scale.over([*widths, *edges, *(edge for band in bands for edge in (band.start, band.end))]),
        y.scale.over([*heights, *([level.value] if level and seen else [])]),
        TOP + (NAMED if any(band.label for band in bands) else 0),
    )
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>",
        *_bands(plot, bands),
        *_axes(plot, x.label, y.label),
    ]
    for mark in marks:
        parts += _mark(plot, mark)
    if level:
        parts += _level(plot, level, seen)
    labels = _Labels([])
    for mark in marks:
        parts += _labelled(plot, mark, labels)
    return "\n".join([*parts, "</svg>"])


def text(style: str, x: float, y: float, anchor: str, words: str) -> str:
    """One line of text; ``anchor``: which end of it stands at ``x``."""
    return f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def wide(words: str) -> float:
    """About how wide a line of text is, and never less."""
    return sum(DIGIT if letter.isdigit() or letter.isupper() else LETTER for letter in words)


@dataclass(frozen=True)
class _Plot:
    """From values to places in the drawing."""

    across: Scale
    up: Scale
    top: int

    def x(self, value: float) -> float:
        return round(LEFT + self.across.part(value) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - self.up.part(value) * (HEIGHT - self.top - BOTTOM), 1)

    def places(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float] | None]:
        """Where points lie; None for those that have no place."""
        places = [(self.x(x), self.y(y)) if _finite((x, y)) else None for x, y in points]
        return [place if place and _finite(place) else None for place in places]


@dataclass(frozen=True)
class _Labels:
    """The room that labels have taken, so that none covers another."""

    taken: list[Box]

    def place(self, words: str, x: float, y: float, anchor: str) -> bool:
        """Take the room of a text; False, and nothing taken, where it is not free or outside the plot."""
        width = wide(words)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, y - 11, left + width, y + 3)
        inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 16 and box[3] <= HEIGHT - BOTTOM
        if not inside or any(_cross(box, other) for other in self.taken):
            return False
        self.taken.append(box)
        return True


def _cross(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _axes(plot: _Plot, x_label: str, y_label: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<line class="base" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    for value, written in plot.up.ticks():
        y = plot.y(value)
        if y < bottom:
            yield f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
        yield text("tick", LEFT - 6, y + 4, "end", written)
    free = 0.0  # from here on, no other tick's text is in the way
    for value, written in plot.across.ticks():
        x, half = plot.x(value), wide(written) / 2
        yield f'<line class="base" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}"/>'
        place = min(x, WIDTH - half)
        if place - half >= free:
            yield text("tick", place, bottom + 17, "middle", written)
            free = place + half + 1
    yield text("axis", right, HEIGHT - 6, "end", x_label)
    yield text("axis", 2, 12, "start", y_label)


def _bands(plot: _Plot, bands: Sequence[Band]) -> Iterator[str]:
    for band in bands:
        x, width = plot.x(band.start), round(plot.x(band.end) - plot.x(band.start), 1)
        if band.shaded:
            yield f'<rect class="band" x="{x}" y="{plot.top}" width="{width}" height="{HEIGHT - plot.top - BOTTOM}"/>'
        fitting = (label for label in (band.label, band.short) if label and wide(label) <= width)
        if label := next(fitting, ""):
            yield text("band", x + width / 2, plot.top - 7, "middle", label)


def _level(plot: _Plot, level: Level, seen: bool) -> Iterator[str]:
    right = WIDTH - RIGHT
    if seen:
        y = plot.y(level.value)
        yield f'<line class="level {level.style}" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
    words = level.label if seen else f"{level.label} ↑"
    sample = right - wide(words) - 6
    yield f'<line class="level {level.style}" x1="{sample - 16:g}" y1="8" x2="{sample:g}" y2="8"/>'
    yield text("axis", right, 12, "end", words)


def _mark(plot: _Plot, mark: Mark) -> Iterator[str]:
    places = plot.places(mark.points)
    if isinstance(mark, Line):
        yield from _line(mark, places)
    elif isinstance(mark, Bars):
        half = max(plot.across.part(mark.step) * (WIDTH - LEFT - RIGHT) * 0.42, 1.0)
        for x, y in filter(None, places):
            height = round(HEIGHT - BOTTOM - y, 1)
            yield f'<rect class="{mark.style}" x="{x - half:.1f}" y="{y}" width="{2 * half:.1f}" height="{height}"/>'
    else:
        # many must not hide each other, few must be found
        radius = mark.radius or (1.4 if len(mark.points) > 100 else 2.5)
        yield from (f'<circle class="{mark.style}" cx="{x}" cy="{y}" r="{radius:g}"/>' for x, y in filter(None, places))


def _line(line: Line, places: Sequence[tuple[float, float] | None]) -> Iterator[str]:
    stretch: list[tuple[float, float]] = []
    alone = []
    for place in [*places, None]:
        if place:
            stretch.append(place)
            continue
        if len(stretch) > 1:
            yield f'<polyline class="{line.style}" points="{" ".join(f"{x},{y}" for x, y in stretch)}"/>'
        elif stretch:
            alone += stretch
        stretch = []
    seen = [place for place in places if place]
    for x, y in seen if line.marked and len(seen) <= MARKED else alone:
        yield f'<circle class="{line.style}" cx="{x}" cy="{y}" r="3.5"/>'


def _labelled(plot: _Plot, mark: Mark, labels: _Labels) -> Iterator[str]:
    if isinstance(mark, Bars):
        return
    # Both first places are free beside a curve that rises, however steeply.
    left, right = (-5.0, -6.0, "end"), (5.0, 15.0, "start")
    choices = [left, right] if mark.above else [right, left]
    choices += [(7.0, -6.0, "start"), (-7.0, 15.0, "end")]
    for place, words in zip(plot.places(mark.points), mark.labels, strict=False):
        if not place or not words:
            continue
        for across, down, anchor in choices:
            x, y = place[0] + across, min(place[1] + down, HEIGHT - BOTTOM - 4)  # not among the ticks
            if labels.place(words, x, y, anchor):
                yield text(f"label {mark.style}", x, y, anchor, words)
                break
