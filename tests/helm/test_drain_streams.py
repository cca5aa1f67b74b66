"""A pod with an engine ends while it streams, as rendered, on the real Triton and HAProxy: no answer is cut within the grace."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from manifests import rendering

from tritonkit_load.benchmarks.proofs import pods

TOKENS, GAP_S, STREAMS = 24, 0.15, 6  # an answer takes 3.6 s
MODEL = f"""
import threading, time
import numpy as np
import triton_python_backend_utils as u

class TritonPythonModel:
    def initialize(self, args):
        self.threads = []

    def execute(self, requests):
        for request in requests:
            thread = threading.Thread(target=self.answer, args=(request.get_response_sender(),))
            self.threads.append(thread)
            thread.start()

    def answer(self, sender):
        for number in range({TOKENS}):
            time.sleep({GAP_S})
            sender.send(u.InferenceResponse([u.Tensor("text_output", np.array([f"t{{number}}"], np.object_))]))
        sender.send(flags=u.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        for thread in self.threads:
            thread.join()
"""
CONFIG = """
backend: "python"
model_transaction_policy { decoupled: true }
input { name: "text_input" data_type: TYPE_STRING dims: 1 }
output { name: "text_output" data_type: TYPE_STRING dims: 1 }
instance_group { kind: KIND_CPU }
"""


def manifests(**values: Any) -> list[dict[str, Any]]:
    """A Deployment whose pods have no init containers, as nothing runs them here."""
    base: dict[str, Any] = {
        "models": {"pvc": {"claimName": "models"}, "names": ["chat"]},
        "engineBuild": {"checkPassports": False},
        "front": {"drainSeconds": 1},
        "lifecycle": {"preStopSeconds": 1, "marginSeconds": 1},
        "server": {"exitTimeoutSeconds": 2},
        "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
    }
    return rendering.documents(rendering.case(values={**base, **values}))


def whole_answers(rendered: list[dict[str, Any]], tmp_path: Path) -> tuple[int, pods.Ended]:
    """How many of the streams that were open when the pod was deleted had every token, and how the pod ended."""
    (tmp_path / "models/chat/1").mkdir(parents=True)
    (tmp_path / "models/chat/1/model.py").write_text(MODEL)
    (tmp_path / "models/chat/config.pbtxt").write_text(CONFIG)
    counts = [0] * STREAMS
    begun = threading.Semaphore(0)

    def read(number: int, port: int) -> None:
        with closing(http.client.HTTPConnection(pods.HOST, port, timeout=30)) as connection:
            connection.request("POST", "/v2/models/chat/generate_stream", json.dumps({"text_input": "a"}))
            with connection.getresponse() as answer, suppress(OSError, http.client.HTTPException):
                while line := answer.readline():
                    if line.startswith(b"data:"):
                        counts[number] += 1
                        if counts[number] == 1:
                            begun.release()

    with pods.workplace() as folder:
        pod = pods.Pod(rendered, tmp_path / "models", folder / "pod").start()
        try:
            pod.wait_ready()
            streams = [threading.Thread(target=read, args=(n, pod.serving("http"))) for n in range(STREAMS)]
            for stream in streams:
                stream.start()
            for _ in streams:
                assert begun.acquire(timeout=20)
            time.sleep(GAP_S)
            ended = pod.terminate()
            for stream in streams:
                stream.join(20)
        finally:
            pod.kill()
    return sum(count == TOKENS for count in counts), ended


@pytest.fixture(autouse=True)
def _haproxy_is_there() -> None:
    if pods.haproxy() is None:
        pytest.skip("there is no haproxy: apt-get install haproxy")


@pytest.mark.parametrize("front", [True, False], ids=["front", "no front"])
def test_no_answer_is_cut_within_the_grace(tmp_path: Path, front: bool) -> None:
    rendered = manifests(engine="vllm", languageModel={"answerSeconds": 5}, front={"enabled": front, "drainSeconds": 1})
    whole, ended = whole_answers(rendered, tmp_path)
    assert whole == STREAMS
    assert ended.killed == []


def test_without_the_engines_time_answers_are_cut(tmp_path: Path) -> None:
    whole, _ = whole_answers(manifests(), tmp_path)
    assert whole == 0
