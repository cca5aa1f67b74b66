"""The page of a search says what it won, over what, and what every trial found."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import results
from pages import read, references
from pydantic import ValidationError
from results import HOSTILE

from tritonkit_load.load.result import Limit
from tritonkit_load.reporting import tunepage
from tritonkit_load.reporting.tuning_result import Ratio, Trial, TuningResult

TUNED = results.tuning()


def page_text(result: TuningResult) -> str:
    return read(tunepage.render(result)).visible_text()


def trial(number: int, capacity: float | None, p99_ms: float | None, status: str = "measured") -> Trial:
    assert status in {"measured", "pruned", "failed"}
    return Trial(number, {}, status, capacity, p99_ms, p99_ms, 1.0)  # type: ignore[arg-type]


def test_the_gain_and_its_interval_come_first() -> None:
    text = page_text(TUNED)
    assert text.index("2.08 times the capacity of Triton's default") < text.index("All configurations")
    assert "the ratio is 2.08, between 1.94 and 2.21" in text
    assert "serves 101" in text
    assert "34 configurations in 8.5 of 10 minutes: 28 measured, 3 stopped early, 3 failed." in text
    assert "written to build/recipes/efficientnet_lite0.yaml" in text
    assert "partial" not in text


@pytest.mark.parametrize(
    ("ratio", "tone", "title"),
    [
        (Ratio(1.5, 1.4, 1.6), "good", "1.50 times the capacity of Triton's default"),
        (Ratio(1.03, 0.97, 1.1), "unsure", "No clear gain over Triton's default"),
        (Ratio(0.8, 0.7, 0.9), "bad", "Only 0.80 times the capacity of Triton's default"),
    ],
)
def test_a_gain_is_claimed_only_where_its_whole_interval_is_above_one(ratio: Ratio, tone: str, title: str) -> None:
    headline = tunepage.headline(replace(TUNED, ratio=ratio))
    assert (headline.tone, headline.title) == (tone, title)


def test_console_and_page_say_a_gain_in_the_same_words() -> None:
    result = replace(TUNED, current=1, over_current=Ratio(1.47, 0.93, 1.9), capacity=Limit(210.0, 190.0, 220.0, 3))
    text = page_text(result)
    for sentence in tunepage.gains(result):
        assert sentence[1:] in text
    assert "No clear gain over what was served before: measured side by side, the ratio is 1.47, between 0.93" in text
    assert "210 (95 % interval 190 to 220) requests a second" in text
    short = replace(result, ratio=None, over_current=None, notes=("Nothing was searched: 2 of 5.",))
    assert "times the capacity" not in page_text(short)
    assert "no time for enough rounds" in " ".join(tunepage.gains(short))
    assert "Nothing was searched: 2 of 5." in page_text(short)
    assert tunepage.gains(replace(result, current=result.best))[0] == "the best is what was served before"
    faster = replace(short, trials=(trial(0, 41.4, 19.0), trial(1, 95.4, 26.0)), best=0, current=0, default=1)
    assert "Triton's default served 95.4 where this served 41.4, and its rounds" in tunepage.gains(faster)[1]
    other = replace(faster, trials=(*faster.trials, replace(trial(2, 143.9, 27.0), settings={"max batch": "1"})))
    *_, sentence = tunepage.gains(other)
    assert sentence.startswith("max batch 1 served 144 where this served 41.4")


def test_without_a_ratio_none_is_computed_from_separate_trials() -> None:
    text = page_text(replace(TUNED, ratio=None))
    assert "215 requests a second within the SLO" in text
    assert "times the capacity" not in text


def test_an_slo_that_nothing_meets_and_an_interrupted_search_are_said() -> None:
    nothing = replace(
        TUNED, best=None, default=None, ratio=None, partial=True, trials=(trial(0, None, None, "failed"),)
    )
    text = page_text(nothing)
    assert (
        "No configuration meets the SLO partial Wanted: p99 ≤ 50 ms, errors ≤ 0.1 %. The search was interrupted."
        in text
    )
    assert "does not meet it at any rate" in page_text(
        replace(TUNED, trials=(trial(0, None, None), trial(1, 9, 9)), best=1)
    )


def test_the_front_holds_what_no_other_trial_beats_in_both() -> None:
    trials = [
        trial(0, 100, 40), trial(1, 200, 45), trial(2, 150, 42), trial(3, 150, 44), trial(4, 90, 41), trial(5, 200, 48),
        trial(6, 300, 10, "pruned"), trial(7, None, None, "failed"), trial(8, 400, None),
    ]  # fmt: skip
    assert [point.number for point in tunepage.front(trials)] == [0, 2, 1]


def test_every_trial_is_in_the_table_best_first_with_its_fate() -> None:
    rows = read(tunepage.render(TUNED)).rows
    table = rows[next(index for index, row in enumerate(rows) if row[0] == "trial") + 1 :]
    assert len(table) == len(TUNED.trials)
    assert table[0][0] == f"{TUNED.best} best"
    assert ["0 default", "101", "18.2", "48.9", "fp32", "1", "8", "0 µs", "1", "none", "21"] in [
        row[:11] for row in table
    ]
    assert "failed: Triton refused: not enough memory" in table[-1]
    capacities = [float(row[1].removeprefix("≥ ")) for row in table if row[1] != "–"]
    assert capacities == sorted(capacities, reverse=True)


def test_the_plot_marks_and_describes_best_default_front_and_limit() -> None:
    drawing = re.findall(r"<svg.*?</svg>", tunepage.render(TUNED), re.DOTALL)[0]
    assert len(re.findall(r'<circle class="best"', drawing)) == 1
    assert {"best", "default"} <= set(re.findall(r'class="label[^>]*>([^<]+)<', drawing))
    assert "SLO 50 ms" in drawing
    assert "The front: trial " in drawing


def test_hostile_settings_stay_text_and_nothing_is_fetched() -> None:
    bad = Trial(0, {HOSTILE: HOSTILE}, "failed", None, None, None, 1.0, HOSTILE)
    text = tunepage.render(
        replace(
            TUNED,
            model=HOSTILE,
            slo=HOSTILE,
            command=HOSTILE,
            environment={HOSTILE: HOSTILE},
            trials=(*TUNED.trials, bad),
        )
    )
    assert "img" not in [tag for tag, _ in read(text).tags]
    assert references(text) == []
    assert not re.search(r"\bnan\b", text)


def test_a_result_survives_json_and_a_wrong_field_is_named() -> None:
    data = json.loads(json.dumps(TUNED.to_json()))
    assert TuningResult.from_json(data) == TUNED
    data["trials"][0]["capacity"] = "fast"
    with pytest.raises(ValidationError, match=r"trials\.0\.capacity"):
        TuningResult.from_json(data)
