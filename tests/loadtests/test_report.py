"""The demo's report: says what the summary says, stands alone, and fits a phone and a desktop in a real browser."""

from __future__ import annotations

import copy
import html.parser
import re
import subprocess
from pathlib import Path
from typing import Any

import chart
import pytest
import report

SUMMARY: dict[str, Any] = {
    "created": "2026-11-24T12:00:00+00:00",
    "command": "make demo",
    "photographs": [
        {
            "file": "coffee.png",
            "image": "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=",
            "top": [{"label": "espresso", "probability": 0.9401}, {"label": "cup", "probability": 0.0172}],
        }
    ],
    "sentences": [{"text": "One?", "nearest": "Two?", "similarity": 0.68}],
    "models": {
        "a_model_with_a_rather_long_name_that_must_not_widen_a_phone": {
            "protocol": "grpc",
            "curve": [
                {"users": 1, "throughput": 80.0, "p50_ms": 12.1, "p99_ms": 16.9, "average_batch": 1.0},
                {"users": 8, "throughput": 166.04, "p50_ms": 46.7, "p99_ms": 102.1, "average_batch": 2.94},
            ],
            "requests": {"start_s": [0.0, 0.5, 1.0], "latency_ms": [12.0, 13.0, 102.0], "users": [1, 1, 8]},
            "export": {
                "graph_bytes": 18_786_764,
                "export_seconds": 6.7,
                "worst_parity": {"relative": 4.3e-07, "max_abs": 4.8e-06, "inputs": "image uint8[2, 224, 224, 3]"},
            },
        }
    },
    "environment": {"cpu": "some processor", "cores": 2},
    "seconds": {"build": 0.3, "server_start": 3.0, "total": 52.0},
}  # fmt: skip


class Strict(html.parser.HTMLParser):
    """Fails on a tag that is closed out of order or left open; keeps what a reader sees."""

    VOID = frozenset({"meta", "img", "br", "link", "circle", "line", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def test_page_is_well_formed_and_shows_the_summarys_figures() -> None:
    text = " ".join(" ".join(read(report.render(SUMMARY)).text).split())
    for figure in (
        "espresso",
        "94.0 %",
        "0.68",
        "166.0",
        "102.1",
        "2.9",
        "18.8 MB",
        "4.3e-07",
        "some processor",
        "52.0 s",
    ):
        assert figure in text, figure


def test_page_refers_to_nothing_outside_itself() -> None:
    page = report.render(SUMMARY)
    references = [value for name, value in read(page).attributes if name in {"src", "href", "xlink:href", "action"}]
    assert references
    assert all(value.startswith("data:") for value in references)
    assert not re.search(r"https?:|@import|url\(|<script", page)


def test_hostile_names_labels_and_sentences_stay_text() -> None:
    bad = '<img src=x onerror="alert(1)">&'
    summary = copy.deepcopy(SUMMARY)
    summary["photographs"][0]["top"][0]["label"] = bad
    summary["photographs"][0]["file"] = bad
    summary["sentences"][0]["text"] = bad
    summary["models"] = {bad: next(iter(SUMMARY["models"].values()))}
    page = report.render(summary)
    assert "<img src=x" not in page
    assert bad in "".join(read(page).text)


@pytest.mark.parametrize("count", [0, 1])
def test_a_model_with_few_or_no_requests_is_shown(count: int) -> None:
    summary = copy.deepcopy(SUMMARY)
    (model,) = summary["models"].values()
    model["curve"] = model["curve"][:1]
    model["requests"] = {name: values[:count] for name, values in model["requests"].items()}
    if not count:
        model["curve"][0] |= {"throughput": 0.0, "p50_ms": float("nan"), "p99_ms": float("nan")}
    summary["sentences"] = []
    page = report.render(summary)
    assert 'cx="nan"' not in page
    assert "Which sentences" not in "".join(read(page).text)


def test_many_requests_are_thinned_and_the_page_says_so() -> None:
    summary = copy.deepcopy(SUMMARY)
    (model,) = summary["models"].values()
    model["requests"] = {name: [1.0] * 5000 for name in ("start_s", "latency_ms", "users")}
    page = report.render(summary)
    assert page.count('<circle class="dot"') == 1000
    assert "a dot for every 5 requests" in page


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (0, [0, 1]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (102.1, [0, 25, 50, 75, 100, 125]),
        (0.003, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_ticks_are_round_and_reach_the_largest_value(largest: float, expected: list[float]) -> None:
    assert chart.ticks(largest) == pytest.approx(expected)


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right() -> None:
    drawing = chart.draw("t", "x", "y", [chart.Series("p50", [(1, 10), (2, 30)])])
    (x1, y1), (x2, y2) = re.findall(r'<circle class="p50" cx="([\d.]+)" cy="([\d.]+)"', drawing)
    assert float(x1) < float(x2)
    assert float(y1) > float(y2)


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_window_in_a_real_browser(chromium: str, tmp_path: Path, width: int) -> None:
    (tmp_path / "page.html").write_text(report.render(SUMMARY), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        f"""<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe><p>?</p><script>
        onload = () => {{ const page = document.querySelector("iframe").contentDocument.documentElement;
          document.querySelector("p").textContent = `${{page.scrollWidth}} ${{page.clientWidth}} ` +
            page.querySelectorAll("svg")[0].getBoundingClientRect().width; }}</script>""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=3000",
         f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    found = re.search(r"<p>(\d+) (\d+) ([\d.]+)</p>", done.stdout)
    assert found, done.stdout[-500:]
    scroll, client, drawing = (float(value) for value in found.groups())
    assert client == width
    assert scroll <= client, "the page scrolls sideways"
    assert 250 < drawing <= width
