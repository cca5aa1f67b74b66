"""Charts: what is drawn is in proportion, what cannot be drawn is left out, and no text covers another."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from pages import read

from tritonkit_load.reporting import axis, chart, rows
from tritonkit_load.reporting.axis import Axis, Linear, Log, Percentile, Whole

X, Y = Axis("x", Linear), Axis("y", Linear)


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
    assert axis.ticks(reach) == pytest.approx(expected)


@pytest.mark.parametrize("reach", [10 ** (exponent / 7) for exponent in range(-28, 49)])
def test_an_axis_has_four_to_seven_ticks(reach: float) -> None:
    ticks = axis.ticks(reach)
    assert 3 < len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] <= reach * (1 + 1e-9)


def test_values_are_drawn_in_proportion_and_only_finite_ones() -> None:
    line = chart.Line("p50", [(1, 10), (2, 30), (float("nan"), 5), (3, float("inf"))], ["a", "b", "c", "d"])
    drawing = chart.draw("t", "d", X, Y, [line])
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
    low, high = re.findall(r'class="label p50" x="[\d.]+" y="([\d.]+)"', chart.draw("t", "d", X, Y, [line]))
    assert float(high) < float(low) < chart.HEIGHT - chart.BOTTOM


def test_axes_carry_names_and_ticks_and_only_finite_dots() -> None:
    dots = chart.Dots("dot", [(4_000, 0.3), (1, float("nan")), (float("inf"), 1)])
    drawing = chart.draw("t", "d", Axis("across, s", Linear), Axis("up, ms", Linear), [dots])
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
    drawing = chart.draw(
        bad, bad, Axis(bad, Linear), Axis(bad, Linear), [line], [chart.Band(0, 1, bad)], chart.Level("limit", 2, bad)
    )  # fmt: skip
    assert "b" not in [tag for tag, _ in read(drawing).tags]
    assert read(drawing).visible_text().count(bad) == 7


def test_a_bands_label_is_shortened_or_left_out_where_it_does_not_fit() -> None:
    bands = [chart.Band(0, 70, "1 user", "1"), chart.Band(70, 78, "2 users", "2"), chart.Band(78, 79, "4 users", "4")]
    drawing = chart.draw("t", "d", X, Y, [chart.Dots("dot", [(100, 1)])], bands)
    assert re.findall(r'<text class="band"[^>]*>([^<]+)<', drawing) == ["1 user", "2"]


def test_a_line_breaks_where_a_value_is_missing_and_a_lone_point_is_a_dot() -> None:
    points = [(float(x), math.nan if x in {50, 52} else 1.0) for x in range(60)]
    drawing = chart.draw("t", "d", X, Y, [chart.Line("p99", points)])
    assert len(re.findall(r"<polyline", drawing)) == 2
    assert drawing.count("<circle") == 1


def test_a_level_far_above_every_value_is_only_named() -> None:
    def drawn(value: float) -> str:
        return chart.draw(
            "t", "d", X, Y, [chart.Line("p99", [(1, 10), (2, 100)])], level=chart.Level("limit", value, "SLO")
        )

    (at, _) = re.findall(r'<line class="level limit" x1="[\d.]+" y1="([\d.]+)"', drawn(100))
    (_, hundred) = re.findall(r'<circle class="p99" cx="[\d.]+" cy="([\d.]+)"', drawn(100))
    assert at == hundred
    assert "SLO<" in drawn(100)
    assert len(re.findall("<line class=.level", drawn(1000))) == 1  # the sample beside its name
    assert "SLO ↑<" in drawn(1000)


def test_upright_bars_are_centred_on_their_values_and_rise_from_the_axis() -> None:
    drawing = chart.draw("t", "d", Axis("x", Whole), Axis("y", Whole), [chart.Bars("compute", [(1, 10), (4, 5)])])
    bars = [
        [float(number) for number in bar]
        for bar in re.findall(
            r'<rect class="compute" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawing
        )
    ]
    tick = {text: float(x) for x, text in re.findall(r'class="tick" x="([\d.]+)"[^>]*"middle">(\d+)<', drawing)}
    assert [x + width / 2 for x, _, width, _ in bars] == pytest.approx([tick["1"], tick["4"]], abs=0.2)
    assert {y + height for _, y, _, height in bars} == {chart.HEIGHT - chart.BOTTOM}
    assert bars[0][3] == pytest.approx(2 * bars[1][3], abs=0.2)
    assert bars[1][0] + bars[1][2] <= chart.WIDTH - chart.RIGHT


def test_labels_that_would_cover_each_other_are_moved_or_left_out() -> None:
    crowd = [(1 + index / 1000, 10.0) for index in range(30)]
    drawing = chart.draw(
        "t", "d", X, Y, [chart.Line("p50", crowd, ["a long label"] * 30), chart.Dots("dot", [(3, 20)])]
    )
    assert 1 < drawing.count("a long label") <= 4


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 10, ["1", "2", "5", "10"]),
        (10, 2000, ["10", "30", "100", "300", "1,000"]),
        (0.05, 100_000, ["0.1", "1", "10", "100", "1,000", "10k", "100k"]),
    ],
)
def test_a_logarithmic_axis_has_few_round_ticks(low: float, high: float, expected: list[str]) -> None:
    scale = Log.over([low, high, 0.0])
    assert [text for _, text in scale.ticks()] == expected
    assert scale.part(math.sqrt(low * high)) == pytest.approx(0.5)
    assert math.isnan(scale.part(0.0))


def test_on_a_percentile_axis_each_nine_is_as_far_from_the_last() -> None:
    scale = Percentile.over([0.0, 0.5, 0.9995])
    assert [text for _, text in scale.ticks()] == ["0", "50", "90", "99", "99.9"]
    assert scale.part(0.99) - scale.part(0.9) == pytest.approx(scale.part(0.999) - scale.part(0.99))
    assert scale.part(0.0) == 0
    assert Percentile.over([1.0]).part(1.0) <= 1


def test_where_ticks_would_cover_each_other_some_are_left_out() -> None:
    points = [(1 - 10.0**-power, 1.0) for power in range(8)]
    drawing = chart.draw("t", "d", Axis("percent", Percentile), Y, [chart.Line("latency", points)])
    ticks = re.findall(r'class="tick" x="([\d.]+)"[^>]*"middle">([\d.]+)<', drawing)
    assert [text for _, text in ticks[:3]] == ["0", "50", "90"]
    for (x, text), (after, following) in itertools.pairwise(ticks):
        assert float(x) + chart.wide(text) / 2 < float(after) - chart.wide(following) / 2


def test_an_axis_is_logarithmic_and_says_so_only_where_values_differ_much() -> None:
    assert axis.fitting("ms", [1, 40]) == Axis("ms", Linear)
    assert axis.fitting("ms", [1, 60, math.nan, 0.0]) == Axis("ms, log scale", Log)
    assert axis.fitting("ms", []) == Axis("ms", Linear)


@pytest.mark.parametrize(
    ("value", "largest", "expected"),
    [(2000, 8000, "2,000"), (2000, 20_000, "2k"), (0, 20_000, "0"), (2_500_000, 3e6, "2.5M"), (5e9, 5e9, "5G")],
)
def test_large_ticks_are_written_short(value: float, largest: float, expected: str) -> None:
    assert axis.written(value, largest) == expected


def test_what_is_counted_has_whole_ticks() -> None:
    assert [text for _, text in Whole.over([2]).ticks()] == ["0", "1", "2"]
    assert [text for _, text in Linear.over([2]).ticks()] == ["0", "0.5", "1", "1.5", "2"]


def test_lying_bars_share_one_scale_and_carry_their_intervals() -> None:
    drawing = rows.draw(
        "t", "d",
        [rows.Row("ours", "200", [("ours", 150), ("queue", 50)], (180, 250)), rows.Row("theirs", "100", [("theirs", 100)]),
         rows.Row("absent", "–", []), rows.Row("odd", "–", [("queue", math.nan), ("theirs", -3)], (math.nan, 1))],
    )  # fmt: skip
    width = {style: float(width) for style, width in re.findall(r'<rect class="(\w+)"[^>]*width="([\d.]+)"', drawing)}
    start = {style: float(x) for style, x in re.findall(r'<rect class="(\w+)" x="([\d.]+)"', drawing)}
    assert width["ours"] == pytest.approx(1.5 * width["theirs"], abs=0.2)
    assert start["queue"] == pytest.approx(width["ours"], abs=0.2)
    (low, high) = re.findall(r'class="interval" d="M([\d.]+) [\d.]+H([\d.]+)', drawing)[0]
    assert float(high) / float(low) == pytest.approx(250 / 180, abs=0.01)
    assert drawing.count('class="interval"') == 1
    assert drawing.count('class="track"') == 4


def test_a_name_too_long_for_its_bar_is_cut_and_stays_text() -> None:
    drawing = rows.draw("<t>", "<d>", [rows.Row("<b>" + "long" * 30, "1,234 requests", [("theirs", 1.0)])])
    assert re.findall(r'class="name"[^>]*>(&lt;b&gt;long[^<]*…)<', drawing)
    assert "1,234 requests" in drawing
    assert {tag for tag, _ in read(drawing).tags} == {"svg", "title", "desc", "text", "rect"}


def test_rows_without_a_figure_are_drawn() -> None:
    assert "nan" not in rows.draw("t", "d", [rows.Row("a", "–", [("theirs", math.nan)])])
    assert read(rows.draw("t", "d", [])).visible_text() == "t d"
