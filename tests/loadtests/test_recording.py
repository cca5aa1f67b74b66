"""What processes note adds up: merged histograms are the histogram of everything, whoever noted it and when."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from tritonkit_load.load import arrivals, summary
from tritonkit_load.load.recording import (
    Cpu,
    Recording,
    decoded,
    encoded,
    histogram,
    merged,
    note,
    read_rows,
    write_rows,
)


def noted(seed: int, count: int) -> tuple[list[Recording], Recording]:
    """The same requests noted by three processes, of which each hands over twice, and by a single one."""
    random = np.random.default_rng(seed)
    parts, whole = [Recording(10.0) for _ in range(6)], Recording(10.0)
    for index in range(count):
        due_s = float(random.uniform(-2, 10))
        sent_s = due_s + float(random.exponential(0.001))
        ended_s = sent_s + float(random.lognormal(-4, 1))
        error = ValueError("no") if index % 17 == 0 else None
        for recording in (parts[index % 6], whole):
            recording.offer(due_s)
            recording.answer("a" if index % 3 else "b", due_s, sent_s, ended_s, error, ended_s if index % 2 else None)
    for index, part in enumerate(parts):
        part.cpu = {f"process {index % 3}": Cpu(1.0, 2.0, (0, index))}
    return parts, whole


def values(hdr: HdrHistogram) -> list[tuple[int, int]]:
    return [(item.value_iterated_to, item.count_at_value_iterated_to) for item in hdr.get_recorded_iterator()]


def test_merged_histograms_are_the_histogram_of_the_union() -> None:
    parts, whole = noted(seed=3, count=3000)
    total = merged(Recording.from_json(json.loads(json.dumps(part.to_json()))) for part in parts)
    assert total.models.keys() == whole.models.keys() == {"a", "b"}
    for name, counts in whole.models.items():
        other = total.models[name]
        assert values(other.latency) == values(counts.latency)
        assert values(other.service) == values(counts.service)
        assert counts.first is not None
        assert other.first is not None
        assert values(other.first) == values(counts.first)
        assert (other.errors, other.completed) == (counts.errors, counts.completed)
    assert values(total.lateness) == values(whole.lateness)
    assert total.seconds.keys() == whole.seconds.keys()
    for number, second in whole.seconds.items():
        same = total.seconds[number]
        assert (same.offered, same.completed, same.failed) == (second.offered, second.completed, second.failed)
        assert (same.latency is None) == (second.latency is None)
        if same.latency is not None:
            assert values(same.latency) == values(second.latency)
    assert sum(second.latency is not None for second in total.seconds.values()) == 12
    assert total.cpu.keys() == {"process 0", "process 1", "process 2"}


def test_percentiles_are_those_of_the_values_to_a_thousandth() -> None:
    seconds = np.random.default_rng(1).lognormal(-4, 1, 20_000)
    hdr = histogram()
    for value in seconds:
        note(hdr, value)
    percentiles = summary.percentiles(decoded(encoded(hdr)))
    assert percentiles is not None
    for mine, share in (
        (percentiles.p50, 50),
        (percentiles.p90, 90),
        (percentiles.p95, 95),
        (percentiles.p99, 99),
        (percentiles.p999, 99.9),
    ):
        assert mine == pytest.approx(np.percentile(seconds, share) * 1000, rel=0.01)
    assert percentiles.mean == pytest.approx(seconds.mean() * 1000, rel=0.001)
    assert percentiles.max == pytest.approx(seconds.max() * 1000, rel=0.001)
    bound_ms = float(np.percentile(seconds, 70)) * 1000
    assert summary.within(hdr, bound_ms) == pytest.approx(14_000, abs=100)


def test_warm_up_is_in_the_seconds_and_in_no_model() -> None:
    recording = Recording(10.0)
    for due_s, ended_s in ((-1.5, -1.4), (-0.1, 0.2), (0.0, 0.3), (9.9, 10.4)):
        recording.offer(due_s)
        recording.answer("a", due_s, due_s, ended_s, None, None)
    assert recording.models["a"].succeeded == 2
    assert recording.models["a"].completed == 2  # came in the window: the second and the third
    assert recording.lateness.get_total_count() == 2
    assert {number: second.offered for number, second in recording.seconds.items()} == {-2: 1, -1: 1, 0: 1, 9: 1, 10: 0}


def test_requests_are_written_in_order_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    rows = [(0.5, 12.0, 11.5, "a", ""), (0.25, 3.0, 2.0, "b", "ServerError"), (1.75, 1.0, 1.0, "a", "")]
    write_rows(path, rows)
    assert read_rows(path) == sorted(rows)
    replayed = arrivals.parse(f"replay:{path}").times(0, 0, 0)
    np.testing.assert_allclose(replayed, np.array([0.25, 0.5, 1.75]) - 0.25)
    assert all(a <= b for a, b in itertools.pairwise(replayed))
