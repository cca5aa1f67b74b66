"""`make demo-llm` as a person runs it: real weights, a chat, two clients that agree, figures, a page, and nothing left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from waiting import until

from tritonkit.server import engine_environment

pytestmark = pytest.mark.llm


def command(place: Path, *words: str) -> list[str]:
    options = ["--reports", str(place / "reports"), "--repository", str(place / "models"), "--target", "cpu"]
    return [sys.executable, "-m", "tritonkit_load.demo_llm", *options, *words]


def test_the_demo_answers_measures_and_writes_its_page(
    root: Path, tmp_path: Path, vllm: engine_environment.EngineEnvironment
) -> None:
    done = subprocess.run(
        command(tmp_path, "--step-s", "2"), cwd=root, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "Both clients had the same answer" in done.stdout
    summary = json.loads((tmp_path / "reports/summary.json").read_text(encoding="utf-8"))
    streamed, ours, theirs = summary["answers"]
    assert ours["text"] == theirs["text"]
    assert ours["prompt_tokens"] == theirs["prompt_tokens"]  # the same prompt from the same template
    assert streamed["text"] in done.stdout
    assert [step["streams"] for step in summary["curve"]] == [1, 2, 4]
    for step in summary["curve"]:
        assert 0 < step["ttft_ms"]["p50"] <= step["ttft_ms"]["p95"]
        assert 0 < step["itl_ms"]["p50"] <= step["itl_ms"]["p99"]
        assert step["itl_ms"]["count"] > step["requests"]
    page = (tmp_path / "reports/index.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert (tmp_path / "models/smollm2_135m_instruct/1/weights/model.safetensors").is_file()


def test_ctrl_c_ends_every_process_of_the_demo(
    root: Path, tmp_path: Path, vllm: engine_environment.EngineEnvironment
) -> None:
    demo = subprocess.Popen(
        command(tmp_path), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    process = psutil.Process(demo.pid)

    def starting() -> list[psutil.Process]:
        children = process.children(recursive=True)
        return children if any("api_server" in " ".join(child.cmdline()) for child in children) else []

    try:
        until(lambda: starting(), 120)
        time.sleep(2)
        below = process.children(recursive=True)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130, output
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in below), 15)
    assert not (tmp_path / "reports/index.html").exists()
