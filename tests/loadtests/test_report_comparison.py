"""The page of a comparison says who serves the most, whoever that is, and what everything costs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import results
from pages import read, references
from results import HOSTILE

from tritonkit_load.reporting import comparepage
from tritonkit_load.reporting.comparison_result import ComparisonResult, Row

COMPARED = results.comparison()


def row(name: str, capacity: float | None, *, ours: bool = False, half: float = 2.0) -> Row:
    low, high = (None, None) if capacity is None else (capacity - half, capacity + half)
    return Row(name, "1", ours, capacity, low, high, 5.0, 9.0, 100.0, 1.0, 10, "as documented")


def compared(*models: tuple[Row, ...], partial: bool = False) -> ComparisonResult:
    return replace(COMPARED, models={f"m{index}": rows for index, rows in enumerate(models)}, partial=partial)


AHEAD = (row("tritonkit", 150, ours=True), row("A", 100), row("B", 90))
BEHIND = (row("tritonkit", 80, ours=True), row("A", 100))
LEVEL = (row("tritonkit", 101, ours=True), row("A", 100))


@pytest.mark.parametrize(
    ("models", "tone", "title"),
    [
        ((AHEAD, AHEAD), "good", "tritonkit serves the most"),
        ((AHEAD, BEHIND), "unsure", "tritonkit is clearly first on 1 of 2 models"),
        ((LEVEL,), "unsure", "tritonkit is clearly first on none of 1 model"),
        ((BEHIND,), "bad", "tritonkit is clearly first on none of 1 model"),
        ((), "bad", "Nothing could be compared"),
    ],
)
def test_the_headline_claims_only_what_the_intervals_allow(
    models: tuple[tuple[Row, ...], ...], tone: str, title: str
) -> None:
    headline = comparepage.headline(compared(*models))
    assert (headline.tone, headline.title) == (tone, title)


def test_a_comparison_without_figures_claims_nothing() -> None:
    nothing = compared((row("A", None), row("tritonkit", None, ours=True)), partial=True)
    assert comparepage.headline(nothing).title == "Nothing could be compared"


def test_each_model_says_by_how_much_and_against_whom() -> None:
    why = comparepage.headline(compared(AHEAD, BEHIND, LEVEL)).why
    assert why == (
        "m0: tritonkit serves 1.50 times what A does, the best of the others (150 against 100 requests a second within the SLO).",
        "m1: tritonkit serves only 0.80 times what A does, the best of the others "
        "(80.0 against 100 requests a second within the SLO).",
        "m2: tritonkit and A are too close to tell apart (101 against 100 requests a second within the SLO).",
    )
    assert comparepage.headline(compared((row("A", 1),), partial=True)).why == (
        "m0: tritonkit could not be measured.", "The comparison was interrupted.",
    )  # fmt: skip


def test_servers_are_ordered_by_capacity_and_those_without_one_last() -> None:
    parsed = read(comparepage.render(COMPARED))
    names = ["tritonkit", "PyTriton", "BentoML", "LitServe", "FastAPI", "MLServer"]
    assert [cells[0] for cells in parsed.rows if cells[0] in names][:6] == names
    assert ["tritonkit", "212", "201", "220", "4.25", "14.6", "612", "2.4", "74"] in parsed.rows
    assert ["PyTriton", *"–––––––", "22"] in parsed.rows
    assert "its server died: exit 1" in parsed.visible_text()
    assert "PyTriton not measured" in parsed.visible_text()


def test_capacities_are_drawn_in_proportion_with_their_intervals() -> None:
    drawing = re.findall(r"<svg.*?</svg>", comparepage.render(COMPARED), re.DOTALL)[0]
    bars = [float(width) for width in re.findall(r'<rect class="(?:ours|theirs)"[^>]*width="([\d.]+)"', drawing)]
    assert bars[1] / bars[0] == pytest.approx(140 / 212, abs=0.01)
    assert drawing.count('class="interval"') == 6
    assert "tritonkit: 212 (201 to 220); PyTriton: 140 (133 to 146)" in drawing


def test_the_conditions_are_told() -> None:
    text = read(comparepage.render(COMPARED)).visible_text()
    alone = comparepage.ceiling(156.7)
    assert alone.endswith(": 157 a second.")
    for words in ("the median of 5 rounds", "SLO: p99 ≤ 60 ms", alone, COMPARED.notes[0], "make compare", "AMD EPYC"):
        assert words in text


def test_hostile_names_and_problems_stay_text_and_nothing_is_fetched() -> None:
    bad = replace(row(HOSTILE, None), version=HOSTILE, settings=HOSTILE, problem=HOSTILE)
    text = comparepage.render(replace(COMPARED, models={HOSTILE: (bad,)}, slo={HOSTILE: HOSTILE}, notes=(HOSTILE,)))
    assert "img" not in [tag for tag, _ in read(text).tags]
    assert references(text) == []


def test_a_result_survives_json() -> None:
    assert ComparisonResult.from_json(json.loads(json.dumps(COMPARED.to_json()))) == COMPARED
