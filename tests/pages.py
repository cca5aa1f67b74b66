"""Reads pages as a strict parser and lays them out in a real browser."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class Strict(html.parser.HTMLParser):
    """Fails on a tag that is closed out of order or left open; keeps what a reader sees, and each table's rows."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1].append(data)

    def visible_text(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def references(page: str) -> list[str]:
    """Everything that a browser might fetch or follow."""
    names = {"src", "srcset", "href", "xlink:href", "action", "poster"}
    return [value for _, attributes in read(page).tags for name, value in attributes.items() if name in names]


@dataclass(frozen=True)
class Layout:
    """How a page lays itself out in a window of some width.

    Attributes:
        scroll, client: The widths of its content and of its window.
        chart: The width of its first chart, and the height of the smallest letters in any.
        columns: How many of its cards with a chart or figures stand side by side at most.
        outside: Texts of what reaches out of its card, or out of its chart.
        overlaps: Pairs of a chart's texts that cover each other.
        faint: Texts whose contrast is below 4.5 to 1, which WCAG 2 asks for at level AA.
        fetched: What it fetched.
    """

    scroll: float
    client: float
    chart: float
    letters: float
    columns: int
    outside: list[str]
    overlaps: list[str]
    faint: list[str]
    fetched: list[str]


_SCRIPT = """
const luminance = (colour) => {
  const part = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const [red, green, blue] = colour.match(/[\\d.]+/g).map((value) => part(value / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const measured = (page, view) => {
  const box = (element) => element.getBoundingClientRect(), all = (selector) => [...page.querySelectorAll(selector)];
  const label = (element) => element.textContent.trim().slice(0, 60), root = page.documentElement;
  const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
    && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
  const outside = [], overlaps = [], faint = [];
  for (const element of all(".card *")) {
    const card = element.closest(".card");
    if (box(element).right > box(card).right + 1) outside.push(label(element));
  }
  for (const svg of all("svg")) {
    const texts = [...svg.querySelectorAll("text")].map((text) => [text, box(text)]);
    for (const [index, [text, place]] of texts.entries()) {
      if (!within(place, box(svg))) outside.push(label(text));
      for (const [other, there] of texts.slice(index + 1)) {
        const across = Math.min(place.right, there.right) - Math.max(place.left, there.left);
        const down = Math.min(place.bottom, there.bottom) - Math.max(place.top, there.top);
        if (across > 1 && down > 3) overlaps.push(label(text) + " | " + label(other));  // 3: a line's empty margins
      }
    }
  }
  for (const element of all("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !box(element).width) continue;
    const style = view.getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
    let ground = element;
    while (view.getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const pair = [luminance(ink), luminance(view.getComputedStyle(ground).backgroundColor)].sort((a, b) => b - a);
    if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) faint.push(label(element));
  }
  const charts = all("svg"), letters = all("svg text.tick, svg text.name").map((text) => box(text).height);
  const tops = new Map();
  for (const card of all(".card:has(svg), .figures")) {
    const top = Math.round(box(card).top);
    tops.set(top, (tops.get(top) || 0) + 1);
  }
  return {
    scroll: root.scrollWidth, client: root.clientWidth, chart: charts.length ? box(charts[0]).width : 0,
    letters: letters.length ? Math.min(...letters) : 99, columns: Math.max(0, ...tops.values()), outside, overlaps, faint,
    fetched: view.performance.getEntriesByType("resource").map((entry) => entry.name),
  };
};
onload = () => {
  const layouts = [...document.querySelectorAll("iframe")].map((frame) =>
    measured(frame.contentDocument, frame.contentWindow));
  document.querySelector("p").textContent = btoa(unescape(encodeURIComponent(JSON.stringify(layouts))));
};
"""


def laid_out(
    chromium: str, folder: Path, pages: Mapping[str, str], widths: tuple[int, ...], *, dark: bool = False
) -> dict[tuple[str, int], Layout]:
    """Every page in a frame of every width, in one start of the browser."""
    import base64

    keys = [(name, width) for name in pages for width in widths]
    for index, page in enumerate(pages.values()):
        (folder / f"{index}.html").write_text(page, encoding="utf-8")
    order = list(pages)
    frames = "".join(
        f'<iframe src="{order.index(name)}.html" style="width:{width}px;height:800px;border:0"></iframe>'
        for name, width in keys
    )
    (folder / "frames.html").write_text(f"{frames}<p>?</p><script>{_SCRIPT}</script>", encoding="utf-8")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=3000",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
         "--dump-dom", (folder / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    match = re.search(r"<p>([\w+/=]{8,})</p>", done.stdout)
    assert match, done.stdout[-500:] + done.stderr[-500:]
    return {key: Layout(**layout) for key, layout in zip(keys, json.loads(base64.b64decode(match[1])), strict=True)}
