"""Charts with one lying bar for each name as inline SVG: parts of a whole, or values with their intervals.

The name and the figure stand above the bar, so that neither is ever beside another text; narrow as a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tritonkit_load.reporting.chart import WIDTH, text, wide

PITCH, BAR = 42, 12  # from row to row, and a bar's height


@dataclass(frozen=True)
class Row:
    """One bar.

    Attributes:
        name: Cut where it does not fit beside ``figure``.
        figure: The value, in words.
        parts: (CSS class, value), beside each other from zero.
        interval: From and to, over the bar's end.
        style: A CSS class for its text.
    """

    name: str
    figure: str
    parts: Sequence[tuple[str, float]]
    interval: tuple[float, float] | None = None
    style: str = ""


def draw(title: str, description: str, rows: Sequence[Row]) -> str:
    """The chart as one ``<svg>`` element; all bars share one scale from zero.

    Args:
        title: Its accessible name.
        description: In words what the bars say.
        rows: From top to bottom.
    """
    reach = max((_reach(row) for row in rows), default=0.0) or 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {max(len(rows), 1) * PITCH}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>",
    ]
    for index, row in enumerate(rows):
        parts += _row(row, index * PITCH, (WIDTH - 4) / reach)
    return "\n".join([*parts, "</svg>"])


def cut(words: str, width: float) -> str:
    """The words, cut where they are wider than ``width``; an ellipsis marks the cut."""
    if wide(words) <= width:
        return words
    while words and wide(words + "…") > width:
        words = words[:-1]
    return words + "…"


def _reach(row: Row) -> float:
    ends = [sum(value for _, value in row.parts if math.isfinite(value)), *(row.interval or ())]
    return max((end for end in ends if math.isfinite(end)), default=0.0)


def _row(row: Row, top: float, scale: float) -> Iterator[str]:
    figure = cut(row.figure, WIDTH * 0.6)
    yield text(f"name {row.style}".strip(), 0, top + 14, "start", cut(row.name, WIDTH - wide(figure) - 12))
    yield text("said", WIDTH, top + 14, "end", figure)
    y, x = top + 21, 0.0
    yield f'<rect class="track" x="0" y="{y}" width="{WIDTH}" height="{BAR}" rx="2"/>'
    for style, value in row.parts:
        if math.isfinite(value) and value > 0:
            yield f'<rect class="{style}" x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="{BAR}"/>'
            x += value * scale
    if row.interval and all(map(math.isfinite, row.interval)):
        low, high = (round(end * scale, 1) for end in row.interval)
        middle = y + BAR / 2
        ends = f"M{low} {y + 2}v{BAR - 4}M{high} {y + 2}v{BAR - 4}"
        yield f'<path class="interval" d="M{low} {middle}H{high}{ends}"/>'
