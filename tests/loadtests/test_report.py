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

NAME = "a_model_with_a_rather_long_name_that_must_not_widen_a_phone"
SUMMARY: dict[str, Any] = {
    "created": "2026-11-24T12:05:00+00:00",
    "command": "make demo",
    "photographs": [
        {
            "file": "coffee.png",
            "image": "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=",
            "top": [{"label": "espresso", "probability": 0.9401}, {"label": "cup", "probability": 0.0172}],
        }
    ],
    "sentences": [{"text": "One?", "nearest": "Two?", "similarity": 0.68}],
    "exported": [],
    "models": {
        NAME: {
            "protocol": "grpc",
            "curve": [
                {"users": 1, "requests": 400, "failed": 0, "throughput": 80.0, "p50_ms": 12.1085, "p99_ms": 16.86,
                 "average_batch": 1.0},
                {"users": 8, "requests": 1830, "failed": 0, "throughput": 366.04, "p50_ms": 46.7495, "p99_ms": 102.14,
                 "average_batch": 2.94},
            ],
            "requests": {"start_s": [0.0, 0.5, 1.0, 2.0], "latency_ms": [12.0, 13.0, 102.0, 9.0], "users": [1, 1, 8, 8]},
            "export": {
                "graph_bytes": 18_786_764,
                "export_seconds": 6.7,
                "precision": "int8",
                "gate": [
                    {"precision": "fp32", "verdict": "base", "why": "", "accuracy": {"cosine": 1.0, "sqnr_db": 130.1},
                     "graph_bytes": 18_786_764, "single_ms": 5.2, "batched_ms": 46.0, "batch": 8},
                    {"precision": "int8", "verdict": "accepted", "why": "accurate, and 2.41x (2.39 to 2.44) fp32's speed",
                     "accuracy": {"cosine": 0.99781, "sqnr_db": 23.43}, "graph_bytes": 5_268_106, "single_ms": 2.4,
                     "batched_ms": 19.1, "batch": 8},
                    {"precision": "fp8", "verdict": "not built", "why": "no kernels", "accuracy": {}, "graph_bytes": 0,
                     "single_ms": None, "batched_ms": None, "batch": 0},
                ],
                "worst_parity": {"check": "module", "output": "logits", "inputs": "image uint8[2, 224, 224, 3]",
                                 "relative": 4.3e-07, "max_abs": 4.8e-06},
            },
        }
    },
    "environment": {"cpu": "some processor", "cores": 2, "gpu": False},
    "seconds": {"build": 0.3, "server_start": 3.0, "total": 52.0},
}  # fmt: skip


def changed() -> tuple[dict[str, Any], dict[str, Any]]:
    """A copy of the summary, and the model in it."""
    summary = copy.deepcopy(SUMMARY)
    return summary, summary["models"][NAME]


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

    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def test_page_is_well_formed_and_says_what_the_summary_says() -> None:
    page = read(report.render(SUMMARY))
    for words in (
        "espresso 94.0 %",
        "cup 1.7 %",
        "One? → Two? similarity 0.680",
        "At most 366.0 requests per second, with 8 users at a time",
        "half of these requests took no more than 46.7 ms, 99 % no more than 102.1 ms",
        "none failed",
        "18.8 MB of ONNX in int8; exported in fp32 in 6.7 s, not anew in this run.",
        "Largest difference from the PyTorch module: 4.3e-07 relative, 4.8e-06 absolute, in logits for image",
        "processor some processor cores 2 GPU none",
        "build 0.3 s server start 3.0 s total 52.0 s",
        "make demo , 24 November 2026, 12:05 UTC",
    ):
        assert words in page.said(), words
    assert page.rows == [
        ["users", "requests", "requests per s", "p50 ms", "p99 ms", "average batch"],
        ["1", "400", "80.0", "12.1", "16.9", "1.00"],
        ["8", "1,830", "366.0", "46.7", "102.1", "2.94"],
        ["MB", "1 sample, ms", "8 samples, ms", "SQNR, dB"],
        ["fp32", "18.8", "5.2", "46.0", "130"],
        ["int8 ✓", "5.3", "2.4", "19.1", "23"],
    ]


def test_page_tells_what_it_shows_to_those_who_do_not_see_it() -> None:
    page = read(report.render(SUMMARY))
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["Photograph coffee.png"]
    assert tags.count("svg") == tags.count("desc") == 2
    assert "8 users: 366.0 requests per second, p50 46.7 ms, p99 102.1 ms" in page.said()
    assert "4 requests; the slowest took 102.0 ms. 1 user from 0.0 s; 8 users from 1.0 s" in page.said()


def test_page_refers_to_nothing_outside_itself() -> None:
    page = report.render(SUMMARY)
    assert {tag for tag, _ in read(page).tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    references = [
        value
        for _, attributes in read(page).tags
        for name, value in attributes.items()
        if name in {"src", "srcset", "href", "xlink:href", "action", "poster"}
    ]
    assert references
    assert all(value.startswith("data:") for value in references)
    assert not re.search(r"https?:|@import|url\(|[\"'(]//", page)


def test_hostile_names_labels_and_sentences_stay_text() -> None:
    bad = """'"><img src=x onerror="alert(1)">&</title></svg>{{ 1 }}"""
    summary, model = changed()
    summary["photographs"][0]["top"][0]["label"] = bad
    summary["photographs"][0]["file"] = bad
    summary["sentences"][0] |= {"text": bad, "nearest": bad}
    summary["command"] = summary["environment"]["cpu"] = bad
    summary["models"] = {bad: model}
    model["protocol"] = model["export"]["worst_parity"]["inputs"] = model["export"]["worst_parity"]["output"] = bad
    page = read(report.render(summary))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.said().count(bad) == 12


@pytest.mark.parametrize("count", [0, 1])
def test_a_model_with_few_or_no_requests_is_shown(count: int) -> None:
    summary, model = changed()
    model["curve"] = model["curve"][:1]
    model["requests"] = {name: values[:count] for name, values in model["requests"].items()}
    if not count:
        missing = dict.fromkeys(("p50_ms", "p99_ms", "average_batch"), float("nan"))
        model["curve"][0] |= {"requests": 0, "throughput": 0.0} | missing
    page = report.render(summary)
    assert page.count('<circle class="dot"') == count
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)
    assert read(page).rows[1] == (["1", "400", "80.0", "12.1", "16.9", "1.00"] if count else ["1", "0", "0.0", *"–––"])
    assert ("At most" in page) == bool(count)


def test_what_is_absent_is_left_out() -> None:
    summary, model = changed()
    summary["sentences"] = []
    summary["photographs"] = []
    model["export"]["worst_parity"] = None
    said = read(report.render(summary)).said()
    assert "sentences mean" not in said
    assert "photographs show" not in said
    assert "nothing to compare" not in said
    assert "Largest difference" not in said


def test_failures_and_the_kind_of_check_are_named() -> None:
    summary, model = changed()
    summary["exported"] = [NAME]
    model["curve"][0]["failed"] = 3
    model["export"]["worst_parity"]["check"] = "alone"
    said = read(report.render(summary)).said()
    assert "3 failed" in said
    assert "none failed" not in said
    assert "between rows in a batch and the same rows alone: 4.3e-07" in said
    assert "PyTorch module:" not in said
    assert "not anew" not in said


@pytest.mark.parametrize(
    ("part", "shown"),
    [(0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.5, "50.0 %"), (0.9999, "> 99.9 %"), (1.0, "100.0 %"), (float("nan"), "–")],
)
def test_a_probability_is_never_rounded_to_certainty(part: float, shown: str) -> None:
    assert report.percent(part) == shown


@pytest.mark.parametrize(("part", "width"), [(0.68, "68.0%"), (-0.2, "0.0%"), (1.2, "100.0%"), (float("nan"), "0")])
def test_a_bar_stays_in_its_track(part: float, width: str) -> None:
    assert report.bar(part) == width


def test_thousands_of_requests_are_thinned_without_losing_the_slowest_and_the_page_says_so() -> None:
    summary, model = changed()
    count = 4 * report.DOTS
    slow = {1: 900.0, 4999: 901.0, count - 1: 902.0}  # none of them is a fourth one
    model["requests"] = {
        "start_s": [float(index) for index in range(count)],
        "latency_ms": [slow.get(index, 1.0) for index in range(count)],
        "users": [1] * count,
    }
    page = report.render(summary)
    assert page.count('<circle class="dot"') == report.DOTS + len(slow)
    assert "of 10,000 requests one in 4, and the slowest 1 %" in read(page).said()
    assert "every request is a dot" in read(report.render(SUMMARY)).said()


def test_the_steps_of_users_are_bands_from_their_first_requests() -> None:
    (_, drawing) = re.findall(r"<svg.*?</svg>", report.render(SUMMARY), re.DOTALL)
    assert re.findall(r'<text class="band"[^>]*>([^<]+)<', drawing) == ["1 user", "8 users"]
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', drawing)]
    (band,) = re.findall(r'<rect class="band" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawing)
    assert float(band[0]) == dots[2]
    assert float(band[0]) + float(band[1]) == pytest.approx(dots[3], abs=0.11)


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (102.1, [0, 20, 40, 60, 80, 100]),
        (0.0035, [0, 0.001, 0.002, 0.003]),
        (2_500_000, [0, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000]),
    ],
)
def test_ticks_are_round_numbers_up_to_the_reach(reach: float, expected: list[float]) -> None:
    assert chart.ticks(reach) == pytest.approx(expected)


@pytest.mark.parametrize("reach", [10 ** (exponent / 7) for exponent in range(-28, 49)])
def test_an_axis_has_four_to_seven_ticks(reach: float) -> None:
    found = chart.ticks(reach)
    assert 3 < len(found) <= 7
    assert found[0] == 0
    assert found[-1] <= reach * (1 + 1e-9)


def test_values_are_drawn_in_proportion_from_the_axes_and_what_is_not_finite_is_left_out() -> None:
    line = chart.Line("p50", [(1, 10), (2, 30), (float("nan"), 5), (3, float("inf"))], ["a", "b", "c", "d"])
    drawing = chart.draw("t", "d", "x", "y", [line])
    (x1, y1), (x2, y2) = (
        (float(x) - chart.LEFT, chart.HEIGHT - chart.BOTTOM - float(y))
        for x, y in re.findall(r'<circle class="p50" cx="([\d.]+)" cy="([\d.]+)"', drawing)
    )
    assert x2 == pytest.approx(2 * x1, abs=0.2)
    assert y2 == pytest.approx(3 * y1, abs=0.3)
    assert 0 < x1 < x2 <= chart.WIDTH - chart.LEFT - chart.RIGHT
    assert re.findall(r'class="label p50"[^>]*>(.)<', drawing) == ["a", "b"]
    assert len(re.findall(r"<polyline", drawing)) == 1


def test_a_label_below_its_point_stays_above_the_axis() -> None:
    line = chart.Line("p50", [(1, 0.01), (2, 10)], ["low", "high"], above=False)
    low, high = re.findall(r'class="label p50" x="[\d.]+" y="([\d.]+)"', chart.draw("t", "d", "x", "y", [line]))
    assert float(high) < float(low) < chart.HEIGHT - chart.BOTTOM


def test_axes_carry_their_names_and_ticks_and_dots_that_are_not_finite_are_left_out() -> None:
    dots = chart.Dots("dot", [(4_000, 0.3), (1, float("nan")), (float("inf"), 1)])
    drawing = chart.draw("t", "d", "across, s", "up, ms", [dots])
    assert re.findall(r'class="axis"[^>]*>([^<]+)<', drawing) == ["across, s", "up, ms"]
    assert re.findall(r'class="tick"[^>]*text-anchor="end">([^<]+)<', drawing) == ["0", "0.1", "0.2", "0.3"]
    assert re.findall(r'class="tick"[^>]*text-anchor="middle">([^<]+)<', drawing) == [
        "0",
        "1,000",
        "2,000",
        "3,000",
        "4,000",
    ]
    assert drawing.count("<circle") == 1


def test_every_text_of_a_chart_is_escaped() -> None:
    bad = "</svg><b>&"
    line = chart.Line("p50", [(1, 1)], [bad])
    drawing = chart.draw(bad, bad, bad, bad, [line], [chart.Band(0, 1, bad)])
    assert "b" not in [tag for tag, _ in read(drawing).tags]
    assert read(drawing).said().count(bad) == 6


def test_a_bands_label_is_shortened_or_left_out_where_it_does_not_fit() -> None:
    bands = [chart.Band(0, 70, "1 user", "1"), chart.Band(70, 78, "2 users", "2"), chart.Band(78, 79, "4 users", "4")]
    drawing = chart.draw("t", "d", "x", "y", [chart.Dots("dot", [(100, 1)])], bands)
    assert re.findall(r'<text class="band"[^>]*>([^<]+)<', drawing) == ["1 user", "2"]


def test_text_has_the_contrast_that_wcag_aa_asks_for_in_both_modes() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    modes = re.findall(r":root \{ (--ink.*?)\}", report.render(SUMMARY), re.DOTALL)
    assert len(modes) == 2
    for mode in modes:
        colours = {name: luminance(colour) for name, colour in re.findall(r"--(\w+): (#\w{6})", mode)}
        for ink in ("ink", "soft", "p50", "p99"):
            for ground in ("page", "card"):
                low, high = sorted((colours[ink], colours[ground]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def measured(chromium: str, folder: Path, width: int) -> list[float]:
    """How the page lays itself out in a frame of that width, with long words and large figures in it.

    Returns:
        The widths of its content and of its window, the width of a chart and the height of a chart's letters (px), how
        many of a model's cards stand side by side, and how many elements reach out of their card.
    """
    summary, model = changed()
    summary["sentences"] *= 6
    summary["sentences"][0] = {"text": "unbroken" * 20, "nearest": "word " * 40, "similarity": 0.1}
    model["curve"][1] |= {"requests": 123_456, "throughput": 12_345.6, "p50_ms": 123.4, "p99_ms": 1_234.5}
    (folder / "page.html").write_text(report.render(summary), encoding="utf-8")
    (folder / "frame.html").write_text(
        f"""<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe><p>?</p><script>
        onload = () => {{
          const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
          const box = (element) => element.getBoundingClientRect(), all = (selector) => [...page.querySelectorAll(selector)];
          document.querySelector("p").textContent = [
            root.scrollWidth, root.clientWidth, box(page.querySelector("svg")).width,
            box(page.querySelector("svg text.tick")).height,
            new Set(all(".card:has(svg), .figures").map((card) => box(card).left)).size,
            all(".card *").filter((element) => box(element).right > box(element.closest(".card")).right).length,
          ].join(" ");
        }}</script>""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=3000",
         f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
         "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    found = re.search(r"<p>([\d. ]+)</p>", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return [float(value) for value in found[1].split()]


@pytest.mark.parametrize(("width", "columns"), [(390, 1), (1280, 3)])
def test_page_fits_a_phone_and_a_desktop_and_its_charts_are_legible(
    chromium: str, tmp_path: Path, width: int, columns: int
) -> None:
    scroll, client, drawing, letters, side_by_side, outside = measured(chromium, tmp_path, width)
    assert client == width
    assert scroll <= client, "the page scrolls sideways"
    assert outside == 0, "something reaches out of its card"
    assert 0.9 * chart.WIDTH < drawing <= width
    assert letters >= 12, "the charts' text is too small"
    assert side_by_side == columns


def test_where_figures_are_wider_than_the_window_their_card_scrolls_and_the_page_does_not(
    chromium: str, tmp_path: Path
) -> None:
    scroll, client, *_, outside = measured(chromium, tmp_path, 280)
    assert outside > 0
    assert scroll <= client == 280
