"""Schedules: their statistics, what shares them, and recordings that cannot be replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritonkit.errors import InputError
from tritonkit_load.load import arrivals


def times(text: str, duration_s: float = 100.0, warm_up_s: float = 0.0, seed: int = 7) -> arrivals.Times:
    return arrivals.parse(text).times(duration_s, warm_up_s, seed)


def count_between(due: arrivals.Times, start_s: float, end_s: float) -> int:
    return int(((due >= start_s) & (due < end_s)).sum())


def test_poisson_has_exponential_gaps_and_independent_counts() -> None:
    due = times("poisson:500", 200)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(100_000, rel=0.02)
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 500, rel=0.02)  # an exponential distribution's deviation is its mean
    assert (gaps > 1 / 500).mean() == pytest.approx(np.exp(-1), abs=0.01)
    counts = np.histogram(due, bins=np.arange(0, 201))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.35)  # of 200 windows; a steady stream has 0
    assert np.corrcoef(gaps[1:], gaps[:-1])[0, 1] == pytest.approx(0, abs=0.02)


def test_constant_is_even_and_exact() -> None:
    due = times("constant:40", 2.5)
    assert len(due) == 100
    np.testing.assert_allclose(np.diff(due), 1 / 40)


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("steps:50,400,100", {(0, 30): 50, (30, 60): 400, (60, 90): 100}),
        ("ramp:0-600", {(0, 30): 100, (30, 60): 300, (60, 90): 500}),
        ("spike:50,800@30+10", {(0, 30): 50, (30, 40): 800, (40, 90): 50}),
    ],
)
def test_rates_change_where_the_schedule_says(text: str, windows: dict[tuple[float, float], float]) -> None:
    due = times(text, 90)
    assert (np.diff(due) >= 0).all()
    for (start_s, end_s), rate in windows.items():
        expected = rate * (end_s - start_s)
        assert abs(count_between(due, start_s, end_s) - expected) < 5 * np.sqrt(expected)


def test_warm_up_is_before_zero_at_the_first_rate() -> None:
    due = times("steps:100,500", 20, warm_up_s=10)
    assert due[0] >= -10
    assert abs(count_between(due, -10, 0) - 1000) < 5 * np.sqrt(1000)
    assert count_between(due, 10, 20) > 4000


def test_a_seed_is_a_schedule() -> None:
    assert np.array_equal(times("poisson:50", seed=1), times("poisson:50", seed=1))
    assert not np.array_equal(times("poisson:50", seed=1)[:10], times("poisson:50", seed=2)[:10])


def test_a_recording_is_replayed_from_its_first_time(tmp_path: Path) -> None:
    path = tmp_path / "recorded.csv"
    path.write_text("model,start_s\na,100.5\na,101.0\na,103.5\n", encoding="utf-8")
    np.testing.assert_allclose(times(f"replay:{path}", 0), [0, 0.5, 3.0])
    np.testing.assert_allclose(times(f"replay:{path}", 2), [0, 0.5])
    path.write_text("model, start_s\na, 1\na, 3\n", encoding="utf-8-sig")  # as a spreadsheet writes it
    np.testing.assert_allclose(times(f"replay:{path}", 0), [0, 2])
    path.write_text("5\n6\n8\n", encoding="utf-8-sig")
    np.testing.assert_allclose(times(f"replay:{path}", 0), [0, 1, 3])
    path.write_text("10\n10\n14\n", encoding="utf-8")
    np.testing.assert_allclose(times(f"replay:{path}", 0), [0, 0, 4])
    assert arrivals.parse(f"replay:{path}").duration_s(60) == pytest.approx(4 * 4 / 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start_s\n3\n2\n", "line 3: 2 comes after 3"),
        ("-1\n2\n", "line 1: -1 is negative"),
        ("1\nsoon\n", "line 2: no time in 'soon'"),
        ("1\nnan\n", "line 2: no time in 'nan'"),
        ("nan\n1\n2\n", "line 1: no time in 'nan'"),
        ("12:00:01\n1\n2\n", "line 1: no time in '12:00:01'"),
        ("1\n\n\n2\nsoon\n", "line 5: no time in 'soon'"),
        ("a,start_s\nb,1\nb\n", "line 3: no time in 'b'"),
        ("", "has 0 times"),
        ("1\n1\n", "at least two that differ"),
    ],
)
def test_a_recording_that_cannot_be_replayed_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recorded.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        arrivals.parse(f"replay:{path}")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "poisson", "poisson:", "poisson:0", "constant:0.0", "poisson:-5", "poisson:1e3", "steps:10,0", "ramp:0-0",
        "ramp:10", "spike:10,20", "spike:0,20@1+1", "uniform:10", "replay:/no/such/file.csv", "poisson:200000",
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InputError) as caught:
        arrivals.parse(text)
    assert caught.value.fix


def test_a_schedule_that_nobody_can_send_or_that_has_no_end_is_refused() -> None:
    with pytest.raises(InputError, match="need a duration"):
        times("poisson:10", 0)
    with pytest.raises(InputError, match="requests"):
        times("poisson:100000", 3600)
    with pytest.raises(InputError, match=r"(?s)end after.*a duration of 60 s or more"):
        times("spike:10,20@50+10", 55)
    with pytest.raises(InputError, match=r"(?s)too little for a step.*a duration of .* s or more"):
        times("steps:10,20,30", 3)
