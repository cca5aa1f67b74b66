"""The demo and the load test, run as `make` runs them, for a short time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)


def test_demo_shows_answers_and_figures_and_writes_both_reports(
    root: Path, promoted_repository: Path, tmp_path: Path
) -> None:
    done = run(
        root,
        "tritonkit_load.demo",
        "--step-s",
        "0.5",
        "--repository",
        str(promoted_repository),
        "--reports",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "coffee.png is espresso" in done.stdout
    assert "gRPC and HTTP agreed bit for bit" in done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["sentences"][0]["nearest"] == "I forgot my login and cannot get into my account."
    for name in ("efficientnet_lite0", "all_minilm_l6_v2"):
        curve = summary["models"][name]["curve"]
        assert [step["users"] for step in curve] == [1, 2, 4, 8]
        assert all(step["requests"] > 0 and step["failed"] == 0 for step in curve)
        assert all(0 < step["p50_ms"] <= step["p99_ms"] for step in curve)
        assert all(1 <= step["average_batch"] <= step["users"] for step in curve)
        assert f"{name} is served in {summary['models'][name]['export']['precision']}" in done.stdout
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "espresso" in page


@pytest.mark.parametrize(("model", "protocol"), [("efficientnet_lite0", "http"), ("all_minilm_l6_v2", "grpc")])
def test_load_test_reports_what_users_saw_and_what_triton_batched(
    root: Path, zoo_repository: Path, tmp_path: Path, model: str, protocol: str
) -> None:
    done = run(
        root, "tritonkit_load", "run", "--model", model, "--protocol", protocol, "--users", "3", "--duration", "1.5s", "--warm-up",
        "0.5s", "--repository", str(zoo_repository), "--slo", "p99_ms=5000", "--reports", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(
        r"([\d.]+) requests/s +p50 ([\d.]+) ms +p99 ([\d.]+) ms +(\d+) requests, 0 failed +average batch ([\d.]+)",
        done.stdout,
    )
    assert match, done.stdout
    rate, p50, p99, requests, batch = (float(value) for value in match.groups())
    assert requests > 10
    assert rate == pytest.approx(requests / 1.5, rel=0.25)
    assert p50 <= p99
    assert 1 <= batch <= 3
    assert "SLO met" in done.stdout
    assert "<svg" in (tmp_path / model / "index.html").read_text(encoding="utf-8")


def test_load_test_of_a_failing_server_reports_failures_and_exits_1(
    root: Path, zoo_repository: Path, tmp_path: Path
) -> None:
    """Ids beyond the vocabulary: the graph rejects each of them, and every request counts as failed."""
    text = (root / "build/recipes/all_minilm_l6_v2.yaml").read_text(encoding="utf-8")
    (tmp_path / "bad.py").write_text(
        "import numpy as np\ndef samples():\n"
        "    yield {'input_ids': np.full(16, 10**6), 'attention_mask': np.ones(16, np.int64)}\n"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("tritonkit.zoo.prose:samples", "bad.py:samples"), encoding="utf-8")
    done = run(
        root, "tritonkit_load", "run", "--model", str(path), "--users", "2", "--duration", "1s", "--warm-up", "0s",
        "--repository", str(zoo_repository), "--reports", str(tmp_path / "reports"),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert " 0 failed" not in done.stdout
