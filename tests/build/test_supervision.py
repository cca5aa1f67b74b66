"""A model whose process ends behind Triton's back: not ready from then on, loaded again, counted, and said."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from models import write_models
from onnxmodels import write_linear
from waiting import until

from tritonkit_client import Client, TritonkitClientError

LINEAR = """\
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "scores" data_type: TYPE_FP32 dims: 3 }
instance_group { name: "mine" count: 2 kind: KIND_CPU }
dynamic_batching {}
"""
ROW = {"x": np.ones((1, 4), np.float32)}


@dataclass
class Served:
    """``tritonkit serve``: its address, its process, and a function that waits for a line that holds a pattern."""

    url: str
    process: psutil.Process
    line: Callable[[str], str]

    def stubs(self, model: str) -> list[psutil.Process]:
        """The processes that run a model: its group is called so, or ``mine``."""
        children = self.process.children(recursive=True)
        return [child for child in children if re.search(rf" ({model}|mine)_\d", " ".join(child.cmdline()))]


@contextmanager
def served(repository: Path, *arguments: str) -> Iterator[Served]:
    """Run ``tritonkit serve`` on a repository."""
    command = [str(Path(sys.executable).with_name("tritonkit")), "serve", str(repository)]
    command += [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    stdout = process.stdout
    reader = threading.Thread(target=lambda: [lines.put(line.rstrip()) for line in stdout])
    reader.start()

    def line(pattern: str) -> str:
        while not re.search(pattern, text := lines.get(timeout=60)):
            pass
        return text

    try:
        yield Served(line("^ready: ").split()[1], psutil.Process(process.pid), line)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        reader.join()
        stdout.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``linear`` of the onnxruntime backend, with a group that has a name of its own, and ``echo``."""
    place = tmp_path_factory.mktemp("supervised") / "models"
    (place / "linear/1").mkdir(parents=True)
    write_linear(place / "linear/1/model.onnx", 1.0)
    (place / "linear/config.pbtxt").write_text(LINEAR, encoding="utf-8")
    write_models(place, "sleep")
    return place


def test_a_model_whose_process_is_killed_under_load_is_not_ready_and_loaded_again(repository: Path) -> None:
    with served(repository) as server, Client(server.url, retry=None) as client:
        ending = threading.Event()
        errors: list[str] = []

        def call() -> None:
            while not ending.is_set():
                try:
                    client.infer("linear", ROW, timeout=20)
                except TritonkitClientError as error:
                    errors.append(str(error))
                    ending.wait(0.05)

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for restart, times in enumerate(("once", "2 times"), 1):
            stubs = server.stubs("linear")
            assert len(stubs) == 2
            stubs[0].kill()
            until(lambda: not client.model_ready("linear"), 5)
            pause = server.line(r"^linear: a process of it ended; it is not ready, and is loaded again in \d s$")
            assert pause.endswith(f" {restart} s")  # twice as long where it ends again soon
            server.line(f"^linear: ready again; loaded again {times} since the start$")
            assert client.infer("linear", ROW)["scores"].tolist() == [[4.0, 4.0, 4.0]]
        ending.set()
        for caller in callers:
            caller.join()
        assert errors
        assert client.model_ready("sleep")  # nobody else is touched
