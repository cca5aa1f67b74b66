"""What an overloaded server did with its requests, and the benchmark end to end on a small model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from load import overload


def test_answers_count_when_they_are_in_time_and_refusals_from_when_they_were_sent() -> None:
    rows = [
        (0.0, 20.0, 19.0, "m", ""), (0.1, 99.0, 80.0, "m", ""), (0.2, 150.0, 140.0, "m", ""),
        (0.3, 12.0, 2.0, "m", "QueueFull"), (0.4, 14.0, 4.0, "m", "ServerBusy"), (0.5, 5.0, 5.0, "m", "DeadlineExceeded"),
    ]  # fmt: skip
    found = overload.served(rows, seconds=2.0, slo_ms=100.0)
    assert (found.offered, found.goodput) == (3.0, 1.0)
    assert (round(found.late, 3), round(found.refused, 3), round(found.failed, 3)) == (0.167, 0.333, 0.167)
    assert (found.p50_ms, found.refusal_p50_ms) == (99.0, 3.0)
    nothing = overload.served([], 1.0, 100.0)
    assert (nothing.goodput, nothing.p50_ms, nothing.refusal_p99_ms) == (0.0, None, None)


def test_recovery_ends_with_the_last_request_that_was_late_or_refused_after_the_spike() -> None:
    rows = [
        (1.0, 500.0, 1.0, "m", ""),
        (2.5, 5.0, 5.0, "m", "QueueFull"),
        (2.75, 120.0, 9.0, "m", ""),
        (3.0, 5.0, 5.0, "m", ""),
    ]
    assert overload.recovery_s(rows, 2.0, 100.0) == 0.75
    assert overload.recovery_s(rows, 2.9, 100.0) == 0.0


def test_a_model_that_is_not_there_is_bad_input(root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(root / "loadtests/bench_overload.py"),
        "--model",
        "nothing",
        "--reports",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=root)
    assert (done.returncode, "nothing" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
