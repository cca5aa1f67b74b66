"""An advice as one HTML page: the ranked table, and every layer under the roofline of the best GPU, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from tritonkit.advisor import roofline
from tritonkit.advisor.advise import Advice, Candidate, Options, cheapest
from tritonkit.advisor.graph_cost import Cost
from tritonkit.advisor.roofline import Roofline

# The plot is drawn twice, so that its letters keep their size: as wide as the page, and as wide as a telephone.
_SIZES = {"wide": (860, 460), "narrow": (358, 420)}
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 20, 50
# One colour a kind of layer, told apart by colour-blind readers as well (Okabe and Ito 2008).
_COLOURS = {
    "convolution": "#0072B2", "depthwise": "#D55E00", "matrix": "#009E73", "attention": "#CC79A7",
    "recurrent": "#E69F00", "elementwise": "#666666", "movement": "#BBBBBB",
}  # fmt: skip
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #222;
  background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: nowrap; }
tr.best, tr.best td:first-child { background: #e8f4ea; font-weight: 600; }
.table { overflow-x: auto; }
figure { margin: 1.5rem 0; } svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; }
.narrow { display: none; }
@media (max-width: 640px) {
  body { margin: 1rem auto; } h1 { overflow-wrap: anywhere; font-size: 1.5rem; } th, td { padding: .25rem .45rem; }
  .wide { display: none; } .narrow { display: block; }
}
"""


def render(model: str, batches: Mapping[int, Cost], options: Options, advice: Advice) -> str:
    """The page.

    Args:
        model: Its name.
        batches: Batch size to cost; layers are drawn at the largest.
        options: The rate and the promise that the advice is for.
        advice: The ranked candidates.
    """
    shown = [candidate for candidate in advice.candidates if candidate.bound] or list(advice.candidates)
    drawn = roofline.drawn(advice)
    figure = _figure(roofline.of(batches[max(batches)], drawn, max(batches))) if drawn else ""
    goal = " and ".join(
        part for part in (
            f"{options.rps:g} requests a second" if options.rps else "",
            f"99 % within {options.p99_ms:g} ms" if options.p99_ms else "",
        ) if part
    )  # fmt: skip
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in (shown[0].reasons if shown else ()))
    notes = "".join(f"<li>{escape(note)}</li>" for note in advice.notes)
    impossible = f"<p><strong>{escape(advice.impossible)}</strong></p>" if advice.impossible else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(model)}: which GPU</title>"
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(model)}</h1>\n<p>{escape(goal or 'No rate, no promise.')}"
        f"</p>\n{impossible}{_table(cheapest(advice))}\n<ul>{reasons}</ul>\n{figure}\n<ul>{notes}</ul>\n</body></html>\n"
    )


def _table(listed: Sequence[Candidate]) -> str:
    heads = ("GPU", "engine", "precision", "GiB", "alone ms", "p99 ms", "bound", "GPUs", "busy", "$/million", "verdict")
    rows = []
    for candidate in listed:
        cells = (
            candidate.gpu + ("" if candidate.measured else "*"), candidate.engine, candidate.precision,
            f"{candidate.memory_gib:.1f}", _cell(candidate.lone_ms, ".2f"), _cell(candidate.p99_ms, ".1f"),
            candidate.bound or "–", _cell(candidate.replicas, "d"), _cell(candidate.utilization, ".0%"),
            _cell(candidate.usd_per_million, ".2f"), candidate.verdict,
        )  # fmt: skip
        kind = ' class="best"' if candidate.verdict == "best" else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        '<div class="table" tabindex="0" role="region" aria-label="candidates"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n"
        f"{chr(10).join(rows)}\n</tbody></table></div>\n"
        "<p>* no measured row of this GPU with this engine: carried over by published peaks</p>"
    )


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _figure(plot: Roofline) -> str:
    caption = (
        f"Each layer at a batch of {plot.batch} on {plot.gpu.name} in {plot.precision}: the work it does with each "
        "byte it moves, and its speed as predicted. Under the slope memory is the limit, under the level line "
        "arithmetic; above the slope is what the level 2 cache holds. The area of a dot is its share of the time."
    )
    drawing = "".join(_svg(plot, name) for name in _SIZES)
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _svg(plot: Roofline, name: str) -> str:
    width, height = _SIZES[name]
    peak, bandwidth = plot.peak, plot.bandwidth
    (low_x, high_x), (low_y, high_y) = plot.intensities, plot.speeds

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log(x) - math.log(low_x)) / (math.log(high_x) - math.log(low_x))
        up = (math.log(y) - math.log(low_y)) / (math.log(high_y) - math.log(low_y))
        return (
            _LEFT + right * (width - _LEFT - _RIGHT),
            height - _BOTTOM - up * (height - _TOP - _BOTTOM),
        )

    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [f'<svg class="{name}" {size} role="img" aria-label="roofline">']
    for power in range(math.ceil(math.log10(low_x)), math.floor(math.log10(high_x)) + 1):
        x, bottom = place(10.0**power, low_y)
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{_TOP}" y2="{bottom:.0f}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.0f}" y="{bottom + 18:.0f}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(math.ceil(math.log10(low_y)), math.floor(math.log10(high_y)) + 1):
        left, y = place(low_x, 10.0**power)
        parts.append(f'<line x1="{left:.0f}" x2="{width - _RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g}</text>')
    ridge = peak / bandwidth
    begin = place(max(low_x, low_y / bandwidth), max(low_y, low_x * bandwidth))
    corner, end = place(ridge, peak), place(high_x, peak)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (begin, corner, end))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#222" stroke-width="2"/>')
    parts.append(f'<text x="{end[0] - 4:.0f}" y="{end[1] - 6:.0f}" text-anchor="end">{peak:,.0f} TFLOP/s</text>')
    total = sum(point.ms for point in plot.points) or 1.0
    for point in plot.points:
        right, down = place(point.intensity, point.speed)
        radius = max(2.5, width / 21 * math.sqrt(point.ms / total))
        parts.append(
            f'<circle cx="{right:.1f}" cy="{down:.1f}" r="{radius:.1f}" fill="{_COLOURS[point.layer.kind]}" '
            'fill-opacity="0.5">'
            f"<title>{escape(point.layer.name)}: {point.ms:.3f} ms</title></circle>"
        )
    for row, kind in enumerate(dict.fromkeys(point.layer.kind for point in plot.points)):
        y = _TOP + 16 + 18 * row
        parts.append(f'<circle cx="{_LEFT + 14}" cy="{y - 4}" r="5" fill="{_COLOURS[kind]}"/>')
        parts.append(f'<text x="{_LEFT + 24}" y="{y}">{kind}</text>')
    parts.append(f'<text x="{width / 2:.0f}" y="{height - 8}" text-anchor="middle">operations a byte</text>')
    parts.append(
        f'<text transform="translate(16 {height / 2:.0f}) rotate(-90)" text-anchor="middle">TFLOP/s</text></svg>'
    )
    return "".join(parts)
