"""The page of a load test says what the result says: the verdict first, and every figure that it rests on."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import results
from pages import read, references
from results import HEALTHY, HOSTILE, LONG, latencies, model

from tritonkit.recipe import Slo
from tritonkit_load.load.result import Check, Limit, Point, Result, Second, Verdict
from tritonkit_load.reporting import advice, loadcharts, loadpage, page, verdict_text

SLO = Slo(p99_ms=50)
USUAL = results.result(curve=results.steps())


def page_text(result: Result) -> str:
    return read(loadpage.render(result)).visible_text()


def missed(**slo: float) -> Result:
    return results.result({"m": model(latencies(2000), errors={"Overloaded": 20}, slo=Slo(**slo))})


def test_a_run_that_met_its_slo_says_so_first_and_by_how_much() -> None:
    p99 = USUAL.model.latency.p99 if USUAL.model.latency else 0.0
    text = page_text(USUAL)
    assert text.index("The SLO is met") < text.index("Load: poisson:120")
    assert f"99 % of the requests took up to {p99:.3g} ms; at most 50 ms wanted. No request failed." in text
    assert "the 5 s of warm-up before them are excluded" in text
    assert "partial" not in text


def test_every_bound_that_holds_is_told_and_none_of_them_as_missed() -> None:
    all_five = [Check("m", name, 1000, 1.0, True) for name in ("p50_ms", "p95_ms", "p99_ms", "error_rate", "goodput")]
    headline = verdict_text.headline(replace(USUAL, verdict=Verdict(True, True, tuple(all_five))))
    assert headline.tone == "good"
    assert len(headline.why) == 5
    assert not any("not hold" in why for why in headline.why)


def test_a_run_that_missed_its_slo_says_which_bounds_and_by_how_much() -> None:
    text = page_text(missed(p99_ms=20, error_rate=0.001))
    assert "The SLO is not met" in text
    assert re.search(r"99 % of the requests took up to 2\d\.\d ms; at most 20 ms wanted\.", text)
    assert "0.99 % of the requests failed; at most 0.1 % wanted." in text
    assert text.count("✗") == 3  # the verdict, and two figures


def test_an_invalid_run_is_not_judged_and_says_why() -> None:
    why = ("99 % of the requests left up to 41 ms late", "a process used 97 % of its core")
    invalid = replace(
        USUAL, verdict=replace(USUAL.verdict, valid=False), generator=replace(HEALTHY, valid=False, why=why, capped=12)
    )
    text = page_text(invalid)
    assert "Not a valid run" in text
    assert "The SLO is met" not in text
    for words_ in (*why, "never sent 12 requests", f"No: {why[0]}; {why[1]}."):
        assert words_ in text
    tiles = loadpage.render(invalid).split('<div class="tiles">')[1].split("<h2>")[0]
    assert tiles.count('class="card tile"') == 4


@pytest.mark.parametrize(
    ("met", "phrase"), [(True, "the SLO was met"), (False, "the SLO was not met"), (None, "measured")]
)
def test_a_run_that_was_cut_short_is_marked_and_does_not_count(met: bool | None, phrase: str) -> None:
    cut = replace(
        USUAL,
        partial=True,
        verdict=replace(USUAL.verdict, met=met, valid=False),
        load=replace(USUAL.load, duration_s=12.4),
    )
    text = page_text(cut)
    assert "Cut short after 12.4 s partial Until then, " in text or "Cut short after 12.4 s partial The figures" in text
    assert phrase in text
    assert "Not a valid run" not in text


def test_without_an_slo_the_failures_decide() -> None:
    assert "60 requests, none failed" in page_text(results.result({"m": model(latencies(60))}))
    assert "3 of 63 requests failed" in page_text(results.result({"m": model(latencies(60), errors={"Overloaded": 3})}))
    assert "No request was measured" in page_text(results.result({"m": model(latencies(0))}))


def test_what_the_verdict_adds_is_told() -> None:
    noted = replace(USUAL, verdict=replace(USUAL.verdict, note="no rate can meet this: one request alone takes 60 ms"))
    assert "No rate can meet this: one request alone takes 60 ms." in page_text(noted)


def test_of_many_missed_bounds_the_first_are_told_and_the_rest_counted() -> None:
    models = {f"m{index}": model(latencies(300, 60.0), slo=SLO) for index in range(7)}
    headline = verdict_text.headline(results.result(models))
    assert len(headline.why) == 5
    assert headline.why[0].startswith("m0: 99 % of the requests took up to ")
    assert headline.why[-1] == "3 more bounds do not hold."


@pytest.mark.parametrize(
    ("check", "value", "bound"),
    [
        (
            Check("m", "p99_ms", 50, 50.0004, False),
            "50.0004 ms",
            "at most 50 ms",
        ),  # never "50 ms; at most 50 ms wanted"
        (Check("m", "p99_ms", 50, 49.96, True), "49.96 ms", "at most 50 ms"),
        (Check("m", "p50_ms", 2500, 12345.678, False), "12,346 ms", "at most 2,500 ms"),
        (Check("m", "error_rate", 0.001, 0.0, True), "0 %", "at most 0.1 %"),
        (Check("m", "error_rate", 0.001, 0.0010001, False), "0.10001 %", "at most 0.1 %"),
        (Check("m", "goodput", 0.999, 0.99898, False), "99.898 %", "at least 99.9 %"),
        (Check("m", "goodput", 1.0, 1.0, True), "100 %", "at least 100 %"),
        (Check("m", "p99_ms", 50, None, False), "–", "at most 50 ms"),
        (Check("m", "p99_ms", 50, float("nan"), False), "–", "at most 50 ms"),
    ],
)
def test_what_was_found_is_never_rounded_to_what_was_wanted(check: Check, value: str, bound: str) -> None:
    assert verdict_text.value_and_bound(check) == (value, bound)


def test_figures_stand_in_tables_as_in_the_result() -> None:
    figures = USUAL.model
    assert figures.latency
    assert figures.service
    assert figures.server
    rows = read(loadpage.render(USUAL)).rows
    for row in (
        ["p99", page.short(figures.latency.p99), page.short(figures.service.p99)],
        ["p99.9", page.short(figures.latency.p999), page.short(figures.service.p999)],
        ["due", "answered", "p50", "p99", "failed", "SLO"],
        ["200", "190", "86.4", "192", "0.0 %", "✗"],
        ["240", "190", "360", "800", "0.0 %", "!"],
        ["executions", "2,400"],
        ["samples an execution", "3.00"],
        ["mean time in the queue", f"{page.short(figures.server.queue_ms)} ms"],
    ):
        assert row in rows, row


def test_the_parts_of_a_mean_latency_add_up_and_say_who_saw_them() -> None:
    figures = USUAL.model
    assert figures.latency
    parts = loadcharts.parts(figures)
    assert list(parts) == ["late", "network", "queue", "compute", "rest"]
    assert sum(parts.values()) == pytest.approx(figures.latency.mean)
    text = page_text(USUAL)
    assert re.search(r"queue 3\.\d+ 2\d\.\d % server", text)
    assert re.search(r"network and client 1\.\d+ 1\d\.\d % difference", text)
    assert figures.explained in text


def test_where_nobody_asked_the_server_the_page_says_so() -> None:
    text = page_text(results.result({"m": replace(model(latencies(60)), server=None, network_ms=None)}))
    assert "Nobody asked it: these figures are the client’s alone." in text
    assert "Where the time went" not in text


def test_latency_and_service_time_are_drawn_and_their_difference_explained() -> None:
    late = replace(USUAL, models={"m": model(latencies(900, 120.0), late=100.0)})
    assert 'polyline class="service thin"' in loadpage.render(late)
    assert "Here they differ (" in page_text(late)
    assert "would have hidden it" in page_text(late)
    assert "Here they agree (" in page_text(USUAL)
    closed = replace(USUAL, load=replace(USUAL.load, loop="closed", arrivals=None, users=8))
    assert 'polyline class="service' not in loadpage.render(closed)
    assert "while the server stalls, nothing is sent and nothing is counted" in page_text(closed)
    assert "8 users over gRPC in a closed loop" in page_text(closed)


def test_the_percentile_curve_ends_at_the_slowest_of_enough_requests() -> None:
    slow = np.append(latencies(999), 1500.0)
    drawing = loadcharts.percentiles("m", model(slow, slo=SLO), USUAL.load)
    assert drawing
    curve = re.findall(r'<polyline class="latency" points="([^"]+)"', drawing)[0].split()
    top = min(float(point.split(",")[1]) for point in curve)
    assert float(curve[-1].split(",")[1]) == top
    assert "largest 1,500 ms" in drawing
    assert drawing.count('class="limit hollow"') == 1
    assert loadcharts.percentiles("m", model(latencies(9)), USUAL.load) is None
    assert "Too few answers for a curve." in page_text(results.result({"m": model(latencies(9))}))


def test_the_curve_has_the_slos_line_and_hollow_points_for_invalid_rates() -> None:
    drawing = loadcharts.curve(USUAL.curve, SLO)
    assert len(re.findall(r'<circle class="p99" ', drawing)) == len(USUAL.curve)
    assert len(re.findall(r'<circle class="p99 hollow"', drawing)) == 1
    assert "SLO, p99 50 ms" in drawing
    assert "at 240 requests per second offered: 190 answered, p50 360 ms, p99 800 ms" in drawing
    assert "Latency against throughput" not in page_text(replace(USUAL, curve=()))
    dead = Point(10, 0.0, None, None, 1.0, True, False)
    assert "p99 – ms" in loadcharts.curve([dead], None)


def test_charts_over_time_have_the_schedules_clock_and_its_spike() -> None:
    load = replace(USUAL.load, arrivals="spike:50,400@4+2", warm_up_s=2.0, duration_s=10.0)
    series = [Second(float(t), 400 if t == 4 else 50, 50, 0, 5.0, 9.0, 0) for t in range(-2, 10)]
    drawn = loadcharts.rates(series, load)
    places = {text: float(at) for at, text in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>([^<]*)</text>', drawn)}
    step = (places["4"] - places["0"]) / 4
    line = re.findall(r'<polyline class="offered"[^>]* points="([^"]+)"', drawn)[0].split()
    peak = min(line, key=lambda point: float(point.split(",")[1]))
    assert float(peak.split(",")[0]) == pytest.approx(places["4"], abs=0.5)
    assert float(line[0].split(",")[0]) == pytest.approx(places["0"] - 2 * step, abs=0.5)
    assert "warm-up" in drawn
    assert ">spike<" in drawn


def test_a_capacity_is_the_headline_of_its_page_with_its_interval() -> None:
    result = replace(USUAL, capacity=Limit(392.0, 347.0, 402.0, 4))
    assert verdict_text.headline(result).title == "392 requests a second within the SLO, between 347 and 402"
    text = page_text(result)
    assert text.index("392 requests a second within the SLO") < text.index("What callers saw at that rate")
    assert "met in each of 4 runs" in text
    assert "`" not in text
    least = verdict_text.headline(replace(result, capacity=Limit(385.0, 300.0, None, 1, at_least=True)))
    assert (least.tone, least.title) == ("unsure", "At least 385 requests a second within the SLO")


def test_every_page_says_what_to_do_next_and_which_setting_helps() -> None:
    assert "make capacity" in " ".join(advice.after_load(USUAL))
    server = USUAL.model.server
    assert server is not None
    for batch, batches in ((1.0, "still run one by one"), (4.0, "although they run in batches")):
        waits = replace(server, queue_ms=20.0, request_ms=30.0, compute_ms=9.0, average_batch=batch)
        seen = replace(USUAL, models={"net": replace(USUAL.model, failed=0, server=waits)})
        text = " ".join(advice.after_load(seen))
        assert batches in text
        assert "`batching.instances`" in text
        assert ("`batching.preferred_batch_size`" in text) is (batch == 1.0)
    assert "What to do next" in page_text(USUAL)
    hopeless = replace(USUAL.model, alone_ms=80.0, slo=SLO)
    assert "no rate and no batch cures that" in " ".join(advice.after_load(replace(USUAL, models={"n": hopeless})))


@pytest.mark.parametrize(
    ("health", "cure"),
    [
        ({"lateness_p99_ms": 90.0}, "end that, send from another machine"),
        ({"cpu": 0.95}, "PROCESSES=2"),
        ({"capped": 9}, "a lower rate"),
        ({}, "DURATION"),
    ],
)
def test_an_invalid_run_says_how_it_is_cured_and_nothing_else(health: dict[str, Any], cure: str) -> None:
    bad: dict[str, Any] = {"valid": False, "lateness_p99_ms": 0.1, "cpu": 0.1, "capped": 0, "why": ("so",)} | health
    (text,) = advice.after_load(replace(USUAL, generator=replace(USUAL.generator, **bad)))
    assert cure in text


def test_time_series_shade_the_warm_up_and_show_failures_if_any() -> None:
    stalled = replace(USUAL, series=results.series(60, 120, 30))
    assert 'polyline class="failed"' in loadpage.render(stalled)
    assert 'polyline class="failed"' not in loadpage.render(USUAL)
    drawing = loadcharts.latencies(stalled.series, stalled.load, SLO)
    assert len(re.findall(r'polyline class="p99"', drawing)) == 2  # broken in the second without an answer
    (shade,) = re.findall(r'<rect class="band" x="46.0" y="\d+" width="([\d.]+)"', drawing)
    assert float(shade) == pytest.approx(5 / 64 / 1.06 * 270, abs=0.5)


def test_a_long_run_is_merged_without_losing_its_worst_second_or_a_failure() -> None:
    seconds = list(results.series(3595, 100))
    seconds[2000] = replace(seconds[2000], p99_ms=9000.0, failed=1, in_flight=777)
    steps, every = loadcharts.merged(seconds)
    assert (len(steps), every) == (240, 15)
    assert max(second.p99_ms or 0.0 for second in steps) == 9000
    assert sum(second.failed for second in steps) == 1
    assert max(second.in_flight for second in steps) == 777
    assert loadcharts.merged(seconds[:240]) == (seconds[:240], 1)
    assert f"In 3,600 seconds: {sum(second.offered for second in seconds):,} requests were due" in loadcharts.rates(
        seconds, USUAL.load
    )
    assert "In steps of 15 s" in page_text(replace(USUAL, series=tuple(seconds)))


def test_errors_are_listed_by_count_with_their_first_message() -> None:
    errors = {"DeadlineExceeded": 3, "Overloaded": 40}
    rows = read(loadpage.render(results.result({"m": model(latencies(100), errors=errors)}))).rows
    assert rows.index(["Overloaded", "40", "28.0 %"]) < rows.index(["DeadlineExceeded", "3", "2.1 %"])
    assert "Overloaded refused 40" in page_text(results.result({"m": model(latencies(100), errors=errors)}))


def test_several_models_are_compared_in_one_table_that_leads_to_each() -> None:
    models = {"fast": model(latencies(300, 5.0), slo=SLO), LONG: model(latencies(300, 90.0), slo=SLO)}
    text = loadpage.render(results.result(models))
    table = text[text.index("<h2>The models</h2>") :]
    assert re.findall(r">([✓✗])</span> <a href=[^>]+>([^<]+)<", table) == [("✓", "fast"), ("✗", LONG)]
    anchors = [reference for reference in references(text) if reference.startswith("#")]
    assert anchors == ["#model-1", "#model-2"]
    assert all(f'id="{anchor[1:]}"' in text for anchor in anchors)
    assert f"{LONG}: 99 % of the requests took up to" in read(text).visible_text()
    assert text.count("Latency counts from the moment") == 1


def test_page_refers_to_nothing_outside_itself_and_describes_its_charts() -> None:
    text = loadpage.render(USUAL)
    parsed = read(text)
    tags = [tag for tag, _ in parsed.tags]
    assert set(tags).isdisjoint({"script", "link", "iframe", "object", "embed", "base", "img"})
    assert references(text) == []
    assert not re.search(r"https?:|@import|url\(", text)
    assert tags.count("svg") == tags.count("desc") == 7
    assert not re.search(r"<desc>\s*</desc>", text)
    assert ("html", {"lang": "en"}) in parsed.tags


def test_hostile_names_errors_and_messages_stay_text() -> None:
    bad = replace(model(latencies(50), errors={HOSTILE: 3}, slo=SLO), messages={HOSTILE: HOSTILE}, explained=HOSTILE)
    whole = results.result({HOSTILE: bad, "m": model(latencies(50))})
    whole = replace(
        whole, command=HOSTILE, created=HOSTILE, environment={HOSTILE: HOSTILE},
        load=replace(whole.load, host=HOSTILE, arrivals=HOSTILE, batch_sizes=HOSTILE, lengths=HOSTILE),
        generator=replace(HEALTHY, why=(HOSTILE,)), verdict=replace(whole.verdict, note=HOSTILE),
    )  # fmt: skip
    for shape in (whole, replace(whole, generator=replace(whole.generator, valid=False))):
        parsed = read(loadpage.render(shape))
        assert "img" not in [tag for tag, _ in parsed.tags]
        assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
        assert parsed.visible_text().count(" ".join(HOSTILE.split())) > 10


def test_what_utf_8_cannot_hold_does_not_stop_the_report() -> None:
    odd = model(latencies(50), errors={"bad \udcff byte \x00": 1})
    loadpage.render(results.result({"m": odd})).encode()


def test_a_result_read_back_from_json_gives_the_same_page() -> None:
    assert loadpage.render(Result.from_json(USUAL.to_json())) == loadpage.render(USUAL)


def test_no_figure_is_ever_written_as_nan() -> None:
    nan = float("nan")
    figures = USUAL.model
    assert figures.server
    assert figures.latency
    broken = replace(
        figures, latency=replace(figures.latency, mean=nan, p99=nan),
        server=replace(figures.server, average_batch=nan, queue_ms=nan), network_ms=nan, offered=nan,
    )  # fmt: skip
    checks = (Check("m", "p99_ms", 50, nan, False),)
    odd = replace(
        USUAL, models={"m": broken}, verdict=Verdict(False, True, checks), generator=replace(HEALTHY, cpu=nan)
    )
    assert not re.search(r"\b(nan|inf)\b", loadpage.render(odd), re.IGNORECASE)


def test_the_histogram_is_the_recordings_own_encoding() -> None:
    """What is drawn is decoded from it; a base64 of another kind would be refused, not drawn."""
    assert base64.b64decode(USUAL.model.histogram)[:2] == b"\x1c\x84"
