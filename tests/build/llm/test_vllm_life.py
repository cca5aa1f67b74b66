"""How a server with vLLM starts, fails to start and ends: with its reason, started again, and never leaving a process."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from languagemodels import copy
from waiting import until

from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer, engine_environment
from tritonkit_client import Client, TritonkitClientError

pytestmark = pytest.mark.llm
KILLS = int(os.environ.get("KILLS", "1"))  # how often each of the three is ended


class Load:
    """Callers that stream all the time, and the errors that they got."""

    def __init__(self, server: TritonServer, callers: int = 4) -> None:
        self.url, self.ending = server.grpc_url, threading.Event()
        self.errors: list[str] = []
        self.answers = 0
        self.threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        for thread in self.threads:
            thread.start()

    def _call(self) -> None:
        parameters = json.dumps({"max_tokens": 40, "ignore_eos": True})
        inputs = {"text_input": np.array(["x"], object), "sampling_parameters": np.array([parameters], object)}
        with Client(self.url) as client:
            while not self.ending.is_set():
                try:
                    for _ in client.stream("tiny", inputs | {"stream": np.array([True])}, timeout=30):
                        pass
                    self.answers += 1
                except TritonkitClientError as error:
                    self.errors.append(str(error))
                    time.sleep(0.05)

    def stop(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(40)


def processes(server: TritonServer) -> dict[str, psutil.Process]:
    """The server, its stub and vLLM's server, by name."""
    children = psutil.Process(server.pid).children(recursive=True)
    by_part = {"api_server": "child", "triton_python_backend_stub": "stub"}
    named = {
        name: child for child in children for part, name in by_part.items() if any(part in w for w in child.cmdline())
    }
    return {"server": psutil.Process(server.pid)} | named


def runs(process: psutil.Process) -> bool:
    """Whether a process runs: a zombie does not."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def ended(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within 15 seconds."""
    until(lambda: not any(map(runs, processes)), 15)
    return True


@pytest.mark.parametrize("victim", ["child", "stub", "server"])
def test_nothing_survives_a_process_that_is_killed_under_load(
    victim: str, language_repository: Path, vllm: engine_environment.EngineEnvironment
) -> None:
    for _ in range(KILLS):
        with TritonServer(language_repository, exit_timeout_s=1) as server:
            port = int(server.language_models()[0].url.split(":")[2].split("/")[0])
            target = processes(server)[victim]
            below = [target, *target.children(recursive=True)]
            assert len(below) >= {"child": 3, "stub": 4, "server": 5}[victim]
            load = Load(server)
            time.sleep(random.uniform(0.5, 3))
            target.kill()
            assert ended(below)
            load.stop()
            assert load.answers + len(load.errors)
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.fixture
def own_server(language_repository: Path, vllm: engine_environment.EngineEnvironment) -> Iterator[TritonServer]:
    with TritonServer(language_repository, exit_timeout_s=1) as server:
        yield server


def test_a_child_that_dies_is_named_to_callers_and_started_again(own_server: TritonServer) -> None:
    load = Load(own_server)
    time.sleep(1)
    assert not load.errors
    processes(own_server)["child"].kill()
    until(lambda: load.errors)
    assert "tiny is restarting: its vLLM process was ended by SIGKILL" in load.errors[0]
    answers = load.answers
    started = time.monotonic()
    with Client(own_server.grpc_url) as client, pytest.raises(TritonkitClientError, match="tiny is restarting"):
        list(client.stream("tiny", {"text_input": np.array(["x"], object)}, timeout=30))
    assert time.monotonic() - started < 1
    until(lambda: load.answers > answers + 4, 300)
    load.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_model_len": 4096}, r"User-specified max_model_len \(4096\) is greater than the derived max_model_len"),
        ({"no_such_argument": 1}, "unrecognized arguments: --no-such-argument=1"),
        ({"kv_cache_memory_bytes": 2**44}, "tiny needs 16384.0 GiB: 0.0 GiB for weights in float32"),
        ({"architecture": "NobodyForCausalLM"}, "NobodyForCausalLM"),
    ],
)
def test_a_model_that_cannot_start_says_why_in_vllms_words(
    change: dict[str, Any], message: str, language_repository: Path, tmp_path: Path,
    vllm: engine_environment.EngineEnvironment,
) -> None:  # fmt: skip
    shutil.copytree(language_repository, tmp_path / "models")
    place = tmp_path / "models/tiny/1"
    if architecture := change.pop("architecture", None):
        copy(place / "weights", tmp_path / "other", architectures=[architecture])
        shutil.rmtree(place / "weights")
        (tmp_path / "other").rename(place / "weights")
    path = place / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckFailed, match=message):
        TritonServer(tmp_path / "models", exit_timeout_s=1).start()
