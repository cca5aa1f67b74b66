"""The demo's report: says what the summary says, stands alone, and fits a phone and a desktop in a real browser."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from pages import laid_out, read, references

from tritonkit_load.reporting import chart, demopage
from tritonkit_load.reporting import page as written

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
                 "average_batch": 1.0, "server_ms": 11.0, "queue_ms": 0.2, "compute_ms": 10.5},
                {"users": 8, "requests": 1830, "failed": 0, "throughput": 366.04, "p50_ms": 46.7495, "p99_ms": 102.14,
                 "average_batch": 2.94, "server_ms": 45.0, "queue_ms": 25.4, "compute_ms": 19.1},
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


def test_page_is_well_formed_and_says_what_the_summary_says() -> None:
    page = read(demopage.render(SUMMARY))
    for words in (
        "espresso 94.0 %",
        "cup 1.7 %",
        "One? → Two? similarity 0.680",
        "At most 366.0 requests per second, with 8 users at a time",
        "half of these requests took no more than 46.7 ms, 99 % no more than 102.1 ms",
        "none failed",
        "by these, 8 users at a time waited 25.4 ms in the queue on average, and the model took 19.1 ms.",
        f"What to do next {NAME}: with 8 users, the queue takes 56.4 % of the server's time (25.4 ms, the model 19.1 ms)",
        "18.8 MB of ONNX in int8; exported in fp32 in 6.7 s, not anew in this run.",
        "Largest difference from the PyTorch module: 4.3e-07 relative, 4.8e-06 absolute, in logits for image",
        "processor some processor cores 2 GPU none",
        "build 0.3 s server start 3.0 s total 52.0 s",
        "make demo , 24 November 2026, 12:05 UTC",
    ):
        assert words in page.visible_text(), words
    assert page.rows == [
        ["users", "requests", "requests per s", "p50 ms", "p99 ms", "average batch"],
        ["1", "400", "80.0", "12.1", "16.9", "1.00"],
        ["8", "1,830", "366.0", "46.7", "102.1", "2.94"],
        ["MB", "1 sample, ms", "8 samples, ms", "SQNR, dB"],
        ["fp32", "18.8", "5.2", "46.0", "130"],
        ["int8 ✓", "5.3", "2.4", "19.1", "23"],
    ]


def test_page_tells_what_it_shows_to_those_who_do_not_see_it() -> None:
    page = read(demopage.render(SUMMARY))
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["Photograph coffee.png"]
    assert tags.count("svg") == tags.count("desc") == 2
    assert "8 users: 366.0 requests per second, p50 46.7 ms, p99 102.1 ms" in page.visible_text()
    assert "4 requests; the slowest took 102.0 ms. 1 user from 0.0 s; 8 users from 1.0 s" in page.visible_text()


def test_page_refers_to_nothing_outside_itself() -> None:
    page = demopage.render(SUMMARY)
    assert {tag for tag, _ in read(page).tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    assert references(page)
    assert all(value.startswith("data:") for value in references(page))
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
    page = read(demopage.render(summary))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.visible_text().count(bad) == 15


@pytest.mark.parametrize("count", [0, 1])
def test_a_model_with_few_or_no_requests_is_shown(count: int) -> None:
    summary, model = changed()
    model["curve"] = model["curve"][:1]
    model["requests"] = {name: values[:count] for name, values in model["requests"].items()}
    if not count:
        missing = dict.fromkeys(("p50_ms", "p99_ms", "average_batch"), float("nan"))
        model["curve"][0] |= {"requests": 0, "throughput": 0.0} | missing
    page = demopage.render(summary)
    assert page.count('<circle class="dot"') == count
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)
    assert read(page).rows[1] == (["1", "400", "80.0", "12.1", "16.9", "1.00"] if count else ["1", "0", "0.0", *"–––"])
    assert ("At most" in page) == bool(count)


def test_what_is_absent_is_left_out() -> None:
    summary, model = changed()
    summary["sentences"] = []
    summary["photographs"] = []
    model["export"]["worst_parity"] = None
    text = read(demopage.render(summary)).visible_text()
    assert "sentences mean" not in text
    assert "photographs show" not in text
    assert "nothing to compare" not in text
    assert "Largest difference" not in text


def test_failures_and_the_kind_of_check_are_named() -> None:
    summary, model = changed()
    summary["exported"] = [NAME]
    model["curve"][0]["failed"] = 3
    model["export"]["worst_parity"]["check"] = "alone"
    text = read(demopage.render(summary)).visible_text()
    assert "3 failed" in text
    assert "none failed" not in text
    assert "between rows in a batch and the same rows alone: 4.3e-07" in text
    assert "PyTorch module:" not in text
    assert "not anew" not in text


@pytest.mark.parametrize(
    ("part", "shown"),
    [(0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.5, "50.0 %"), (0.9999, "> 99.9 %"), (1.0, "100.0 %"), (float("nan"), "–")],
)
def test_a_probability_is_never_rounded_to_certainty(part: float, shown: str) -> None:
    assert written.percent(part) == shown


@pytest.mark.parametrize(("part", "width"), [(0.68, "68.0%"), (-0.2, "0.0%"), (1.2, "100.0%"), (float("nan"), "0")])
def test_a_bar_stays_in_its_track(part: float, width: str) -> None:
    assert written.bar(part) == width


def test_thousands_of_requests_are_thinned_but_the_slowest_are_kept() -> None:
    summary, model = changed()
    count = 4 * demopage.DOTS
    slow = {1: 900.0, 4999: 901.0, count - 1: 902.0}  # none of them is a fourth one
    model["requests"] = {
        "start_s": [float(index) for index in range(count)],
        "latency_ms": [slow.get(index, 1.0) for index in range(count)],
        "users": [1] * count,
    }
    page = demopage.render(summary)
    assert page.count('<circle class="dot"') == demopage.DOTS + len(slow)
    assert "of 10,000 requests one in 4, and the slowest 1 %" in read(page).visible_text()
    assert "every request is a dot" in read(demopage.render(SUMMARY)).visible_text()


def test_the_steps_of_users_are_bands_from_their_first_requests() -> None:
    (_, drawing) = re.findall(r"<svg.*?</svg>", demopage.render(SUMMARY), re.DOTALL)
    assert re.findall(r'<text class="band"[^>]*>([^<]+)<', drawing) == ["1 user", "8 users"]
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', drawing)]
    (band,) = re.findall(r'<rect class="band" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawing)
    assert float(band[0]) == dots[2]
    assert float(band[0]) + float(band[1]) == pytest.approx(dots[3], abs=0.11)


def long_words_and_large_figures() -> str:
    summary, model = changed()
    summary["sentences"] *= 6
    summary["sentences"][0] = {"text": "unbroken" * 20, "nearest": "word " * 40, "similarity": 0.1}
    model["curve"][1] |= {"requests": 123_456, "throughput": 12_345.6, "p50_ms": 123.4, "p99_ms": 1_234.5}
    return demopage.render(summary)


def test_page_fits_a_phone_and_a_desktop_and_its_charts_are_legible(chromium: str, tmp_path: Path) -> None:
    layouts = laid_out(chromium, tmp_path, {"demo": long_words_and_large_figures()}, (280, 390, 1280))
    for width, columns in ((390, 1), (1280, 3)):
        layout = layouts["demo", width]
        assert layout.client == width
        assert layout.scroll <= width, "the page scrolls sideways"
        assert layout.outside == []
        assert layout.overlaps == []
        assert 0.9 * chart.WIDTH < layout.chart <= width
        assert layout.letters >= 12, "the charts' text is too small"
        assert layout.columns == columns
    narrow = layouts["demo", 280]
    assert narrow.outside, "figures wider than the window scroll in their card"
    assert narrow.scroll <= narrow.client == 280, "and the page does not"
