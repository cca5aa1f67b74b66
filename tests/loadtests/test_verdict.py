"""Results of recordings: figures, validity, verdicts, exit codes, and their way through JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tritonkit import recipe, store
from tritonkit.errors import InputError
from tritonkit_load.load import slo, summary, text_report
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.recording import Cpu, Recording
from tritonkit_load.load.result import Result, ServerSide
from tritonkit_load.load.slo import Slo
from tritonkit_load.reporting import loadcharts

FAST = Slo(p99_ms=50)


def recorded(
    latencies_ms: Sequence[float], *, failed: int = 0, late_ms: float = 0.1, cpu: float = 0.2, capped: int = 0,
    seconds: float = 10.0,
) -> Recording:  # fmt: skip
    """Requests that were due evenly over ten seconds."""
    recording = Recording(seconds, measured_s=seconds, cpu={"one": Cpu(cpu * seconds, seconds)})
    total = len(latencies_ms) + failed
    for index in range(total):
        due_s = index * seconds / total
        recording.offer(due_s)
        sent_s = due_s + late_ms / 1000
        error = None if index < len(latencies_ms) else ValueError("broken")
        ended_s = due_s + (latencies_ms[index] if error is None else 1.0) / 1000
        recording.answer("m", due_s, sent_s, ended_s, error, None)
    recording.capped = capped
    return recording


def result(recording: Recording, target: Slo | None = FAST, **context: Any) -> Result:
    plan = context.pop("plan", Plan("constant:100", duration_s=10.0))
    return summary.result(
        recording,
        summary.Context(
            plan=plan, protocol="grpc", host="grpc://127.0.0.1:1", processes=1, weights={"m": 1.0}, slos={"m": target},
            environment={"cpu": "one"}, command="make loadtest", **context,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recording", "target", "code"),
    [
        (recorded([10.0] * 1000), FAST, 0),
        (recorded([10.0] * 980 + [60.0] * 20), FAST, 1),
        (recorded([10.0] * 1000, failed=5), FAST, 1),
        (recorded([10.0] * 1000, failed=5), Slo(p99_ms=50, error_rate=0.01), 0),
        (recorded([10.0] * 1000), Slo(p50_ms=9), 1),
        (recorded([10.0] * 960 + [60.0] * 40), Slo(p95_ms=20), 0),
        (recorded([10.0] * 960 + [60.0] * 40), Slo(p95_ms=20, goodput=0.97), 1),
        (recorded([10.0] * 960 + [60.0] * 40), Slo(p95_ms=20, goodput=0.95), 0),
        (recorded([], failed=5), FAST, 1),
        (recorded([10.0] * 1000), None, 0),
        (recorded([10.0] * 1000, failed=1), None, 1),
    ],
)
def test_exit_code_says_whether_the_slo_was_met(recording: Recording, target: Slo | None, code: int) -> None:
    outcome = result(recording, target)
    assert outcome.verdict.valid
    assert slo.exit_code(outcome) == code
    assert outcome.verdict.met is (None if target is None else code == 0)


@pytest.mark.parametrize(
    ("recording", "why"),
    [
        (recorded([10.0] * 1000, late_ms=5.5), "left 5.5 ms or more after their time"),
        (recorded([10.0] * 1000, cpu=0.91), "used 91% of a core"),
        (
            replace(recorded([10.0] * 1000), cpu={f"host:{pid}": Cpu(4.6, 10.0, (1,)) for pid in (7, 8)}),
            "processes used 92% of the cores that they share",
        ),
        (recorded([10.0] * 1000, capped=3), "3 requests were not sent"),
        (recorded([]), "no request was sent"),
        (replace(recorded([10.0] * 1000), problems=("1 of 2 generator processes died",)), "processes died"),
    ],
)
def test_a_generator_that_did_not_keep_up_makes_the_run_invalid(recording: Recording, why: str) -> None:
    outcome = result(recording)
    assert not outcome.verdict.valid
    assert why in " ".join(outcome.generator.why)
    assert slo.exit_code(outcome) == 1
    assert f"INVALID: {outcome.generator.why[0]}" in text_report.lines(outcome)


def test_processes_with_cores_of_their_own_are_not_added_up() -> None:
    cpu = {"host:1": Cpu(8, 10, (1,)), "host:2": Cpu(8, 10, (2,)), "other:3": Cpu(8, 10, (1,))}
    assert result(replace(recorded([10.0] * 1000), cpu=cpu)).verdict.valid


def test_a_server_that_counted_others_too_leaves_no_time_for_the_network() -> None:
    slow = ServerSide(2000, 2000, 2000, 1.0, {1: 2000}, 480.0, 400.0, 80.0, 0.0, 80.0, 0.0)
    figures = result(recorded([10.0] * 1000), server={"m": slow}).model
    assert figures.network_ms is None
    assert "-" not in figures.explained.replace("warm-up", "")
    assert loadcharts.parts(figures) == {}
    assert "The server's mean is 480.00 ms, of 2000 successes: it counts" in figures.explained
    quick = replace(slow, request_ms=8.0, queue_ms=1.0, compute_ms=7.0)
    assert result(recorded([10.0] * 1000), server={"m": quick}).model.network_ms == pytest.approx(1.9, abs=0.05)


def test_a_replayed_recording_may_be_gone_when_the_test_is_over() -> None:
    assert result(recorded([10.0] * 100), plan=Plan("replay:/no/such/file.csv", duration_s=10.0)).curve == ()


def test_what_misses_a_bound_by_little_does_not_read_like_the_bound() -> None:
    outcome = result(recorded([50.04] * 1000))
    (verdict,) = (line for line in text_report.lines(outcome) if line.startswith("SLO"))
    assert re.match(r"SLO NOT MET: p99_ms 50\.0\d+ > 50, error_rate 0 <= 0.001", verdict), verdict


def test_a_partial_run_says_so_and_is_not_valid() -> None:
    outcome = result(replace(recorded([10.0] * 1000), stopped=True, measured_s=4.0))
    assert outcome.partial
    assert slo.exit_code(outcome) == 1
    assert outcome.load.duration_s == 4.0
    assert text_report.lines(outcome)[0].startswith("PARTIAL")


def test_a_closed_loop_has_no_lateness() -> None:
    outcome = result(recorded([10.0] * 100, late_ms=20), plan=Plan(users=4))
    assert outcome.generator.lateness_p99_ms is None
    assert outcome.verdict.valid
    assert (outcome.load.loop, outcome.load.users, outcome.load.arrivals) == ("closed", 4, None)


def test_an_slo_that_not_even_a_lone_request_keeps_is_called_so() -> None:
    outcome = result(recorded([10.0] * 100), Slo(p99_ms=5), alone_ms={"m": 7.25})
    assert "No rate can meet this SLO" in outcome.verdict.note
    assert "7.2 ms" in text_report.lines(outcome)[-1]
    assert result(recorded([10.0] * 1000), FAST, alone_ms={"m": 7.25}).verdict.note == ""
    assert result(recorded([10.0] * 1000), FAST, alone_ms={"m": 900.0}).verdict.note == ""  # those were to a cold model


def test_steps_make_a_curve_with_a_verdict_for_each() -> None:
    plan = Plan("steps:10,40", duration_s=10.0)
    recording = Recording(10.0, measured_s=10.0)
    for index in range(250):
        due_s = index / 10 if index < 50 else 5 + (index - 50) / 40
        recording.offer(due_s)
        recording.answer("m", due_s, due_s, due_s + (0.010 if due_s < 5 else 0.070), None, None)
    slow = result(recording, plan=plan).curve
    assert [point.rate for point in slow] == [10, 40]
    assert [point.met for point in slow] == [True, False]
    assert [round(point.p99_ms or 0) for point in slow] == [10, 70]
    assert slow[0].throughput == pytest.approx(10, rel=0.05)
    assert slow[1].throughput == pytest.approx(40, rel=0.05)


def test_seconds_count_what_is_in_flight() -> None:
    recording = Recording(3.0, measured_s=3.0)
    for due_s, ended_s in ((0.1, 2.5), (0.2, 0.3), (1.5, 2.1)):
        recording.offer(due_s)
        recording.answer("m", due_s, due_s, ended_s, None, None)
    assert [(second.t_s, second.offered, second.completed, second.in_flight) for second in result(recording).series] == [
        (0, 2, 1, 1), (1, 1, 0, 2), (2, 0, 2, 0),
    ]  # fmt: skip


def test_throughput_is_what_came_and_not_what_was_offered() -> None:
    """A server at half the rate: all succeed in the end, and half of them after the measured seconds."""
    outcome = result(recorded([1000.0 * index / 100 for index in range(1000)]))
    assert outcome.model.offered == pytest.approx(100)
    assert outcome.model.throughput == pytest.approx(50, rel=0.02)


def test_a_result_survives_json() -> None:
    recording = recorded([10.0] * 90 + [80.0] * 10, failed=3)
    outcome = result(
        recording, Slo(p99_ms=50, goodput=0.9), alone_ms={"m": 3.0}, plan=Plan("steps:5,6", duration_s=10.0)
    )
    assert outcome.curve
    assert Result.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    empty = result(recorded([]), None)
    assert Result.from_json(json.loads(json.dumps(empty.to_json(), allow_nan=False))) == empty


def test_what_is_no_result_is_refused() -> None:
    data = result(recorded([1.0])).to_json()
    del data["load"]["loop"]
    with pytest.raises(InputError, match=r"load\.loop"):
        Result.from_json(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [("p99=1", "p99: unknown"), ("p99_ms=0", "must be above 0"), ("goodput=0.9", "within a latency"),
     ("error_rate=2", "must be at most 1"), ("p99_ms", "p99_ms")],
)  # fmt: skip
def test_an_slo_that_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        slo.parse(text)
    assert message in str(caught.value)


def test_an_slo_is_written_as_it_is_read() -> None:
    bounds = Slo(p50_ms=5, p99_ms=50, goodput=0.95)
    assert slo.parse(slo.format_slo(bounds)) == bounds
    assert slo.parse("") is None


def test_another_slo_makes_no_other_artifact(root: Any) -> None:
    shipped = recipe.load(root / "build/recipes/all_minilm_l6_v2.yaml")
    assert shipped.slo is not None
    changed = shipped.model_copy(update={"slo": Slo(p99_ms=7)})
    assert store.request_key(changed) == store.request_key(shipped)
    assert store.request_key(shipped.model_copy(update={"slo": None})) == store.request_key(shipped)
