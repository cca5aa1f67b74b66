"""Runs Prometheus' own rule engine (`promtool test rules`) on rendered rules and queries.

What series a server would export and what should come of them is each test's; nothing here knows the chart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml


def find() -> str:
    """``promtool``'s path; without it the test skips, and fails where CI is set."""
    if path := shutil.which("promtool"):
        return path
    message = "promtool is missing; Debian: apt-get install --no-install-recommends prometheus"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def check(
    place: Path,
    *,
    series: Mapping[str, str],
    expected: Sequence[tuple[str, str, Mapping[str, float]]],
    groups: Sequence[Mapping[str, Any]] = (),
    interval: str = "15s",
) -> None:
    """Fails unless, after the rules in ``groups`` ran on ``series``, each expression has the expected values.

    Args:
        place: An empty folder.
        series: From a series to its values in promtool's notation, one an ``interval``.
        expected: (time such as ``5m``, PromQL, {labels such as ``{pod="a"}``: value}).
        groups: Of a PrometheusRule.
        interval: Time between two values.
    """
    place.mkdir(parents=True, exist_ok=True)
    (place / "rules.yaml").write_text(yaml.safe_dump({"groups": list(groups)}))
    tests = [
        {"expr": expr, "eval_time": time, "exp_samples": [{"labels": k, "value": v} for k, v in values.items()]}
        for time, expr, values in expected
    ]
    case = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": tests,
    }
    (place / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": interval, "tests": [case]})
    )
    done = subprocess.run(
        [find(), "test", "rules", "test.yaml"], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
