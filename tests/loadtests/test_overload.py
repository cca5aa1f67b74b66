"""What an overloaded server did with its requests, and what the benchmark makes of that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tritonkit.queue_limits import QueueLimits
from tritonkit_load.benchmarks import bench_overload
from tritonkit_load.load import overload


def test_answers_count_when_in_time_and_refusals_from_their_sending() -> None:
    rows = [
        (0.0, 20.0, 19.0, "m", ""), (0.1, 99.0, 80.0, "m", ""), (0.2, 150.0, 140.0, "m", ""),
        (0.3, 12.0, 2.0, "m", "QueueFull"), (0.4, 14.0, 4.0, "m", "ServerBusy"), (0.5, 5.0, 5.0, "m", "DeadlineExceeded"),
    ]  # fmt: skip
    served = overload.served(rows, seconds=2.0, slo_ms=100.0)
    assert (served.offered, served.goodput) == (3.0, 1.0)
    assert (round(served.late, 3), round(served.refused, 3), round(served.failed, 3)) == (0.167, 0.333, 0.167)
    assert (served.p50_ms, served.refusal_p50_ms) == (99.0, 3.0)
    nothing = overload.served([], 1.0, 100.0)
    assert (nothing.goodput, nothing.p50_ms, nothing.refusal_p99_ms) == (0.0, None, None)


def test_recovery_ends_with_the_last_half_second_worse_than_before() -> None:
    def requests(
        begin: float, end: float, error: str = "", latency: float = 5.0
    ) -> list[tuple[float, float, float, str, str]]:
        return [(begin + index / 100, latency, 1.0, "m", error) for index in range(round((end - begin) * 100))]

    calm, spike = requests(0, 2), requests(2, 6, "QueueFull")
    assert overload.recovery_s([*calm, *spike, *requests(6, 9)], 2, 6, 100.0) == 0.0
    late = requests(6, 7.2, latency=150.0)
    assert overload.recovery_s([*calm, *spike, *late, *requests(7.2, 9)], 2, 6, 100.0) == 1.5
    some = [*requests(6, 8.9), (8.95, 5.0, 1.0, "m", "QueueFull")]  # as before the spike
    assert overload.recovery_s([*calm, (1.9, 5.0, 1.0, "m", "QueueFull"), *spike, *some], 2, 6, 100.0) == 0.0
    assert overload.recovery_s([*calm, *spike], 2, 6, 100.0) is None


def test_a_refusal_among_few_requests_does_not_prolong_a_spike() -> None:
    calm = [(index / 14, 5.0, 1.0, "m", "QueueFull" if index % 7 == 6 else "") for index in range(28)]
    after = [(6 + index / 14, 5.0, 1.0, "m", "QueueFull" if index % 5 == 4 else "") for index in range(84)]
    assert overload.recovery_s([*calm, *after], 2, 6, 100.0) == 0.0
    backlog = [(row[0], 400.0, 1.0, "m", "") if row[0] < 7.5 else row for row in after]
    assert overload.recovery_s([*calm, *backlog], 2, 6, 100.0) == 1.5


def test_the_table_has_a_line_for_each_queue_caller_and_load(capsys: pytest.CaptureFixture[str]) -> None:
    served = overload.Served(200.0, 95.0, 0.0, 0.5, 0.0, 20.0, 80.0, 1.0, 4.0)
    runs = [
        bench_overload.Run(queue, callers, times, served, None if times else 0.5, on_schedule=True)
        for queue in bench_overload.QUEUES
        for callers in bench_overload.USERS
        for times in (*bench_overload.TIMES, bench_overload.SPIKE)
    ]
    limits = QueueLimits(1, 6, 60, 100.0, 100.0, 20.0).as_json()
    bench_overload._print(
        {
            "limits": limits,
            "capacity": 100.0,
            "slo_ms": 100.0,
            "runs": runs,
            "seconds": 5.0,
            "cores": "server on core 0",
        }
    )
    output = capsys.readouterr().out
    assert output.count("0.95 (0.95 to 0.95)") == 24
    assert output.count("spike") == 8
    assert "6 requests may wait, 60 ms at most" in output


def test_a_model_that_is_not_there_is_bad_input(root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tritonkit_load.benchmarks.bench_overload",
        "--model",
        "nothing",
        "--reports",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=root)
    assert (done.returncode, "nothing" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
