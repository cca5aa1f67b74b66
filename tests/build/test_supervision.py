"""A model whose process ends behind Triton's back: not ready from then on, loaded again, counted, and said."""

from __future__ import annotations

import itertools
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        stubs = []
        for child in self.process.children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if re.search(rf" ({model}|mine)_\d", " ".join(child.cmdline())):
                    stubs.append(child)
        return stubs


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


def pause(process: psutil.Process) -> None:
    """As a machine does that is far too busy, or was put to sleep: Triton gives a process up that is not there for 1 s."""
    process.suspend()
    time.sleep(2.2)
    process.resume()


def test_a_model_whose_process_ends_or_pauses_is_not_ready_loaded_again_and_gives_nobody_anothers_answer(
    repository: Path,
) -> None:
    with served(repository) as server, Client(server.url, retry=None) as client:
        ending = threading.Event()
        errors: list[str] = []
        wrong: list[float] = []

        def call(first: int) -> None:
            for number in itertools.count(first, 10):
                try:
                    answer = client.infer("linear", {"x": np.full((1, 4), number % 10_000, np.float32)}, timeout=20)
                except TritonkitClientError as error:
                    errors.append(str(error))
                    ending.wait(0.05)
                else:
                    wrong.extend(answer["scores"][answer["scores"] != 4 * (number % 10_000)].tolist())
                if ending.is_set():
                    return

        callers = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(8)]
        for caller in callers:
            caller.start()
        for restart, (end, times) in enumerate(((psutil.Process.kill, "once"), (pause, "2 times")), 1):
            stubs = server.stubs("linear")
            assert len(stubs) == 2
            end(stubs[0])
            line = server.line(r"^linear: a process of it ended; it is not ready, and is loaded again in \d s$")
            assert line.endswith(f" {restart} s")  # twice as long where it ends again soon
            assert not client.model_ready("linear")
            server.line(f"^linear: ready again; loaded again {times} since the start$")
            assert client.infer("linear", ROW)["scores"].tolist() == [[4.0, 4.0, 4.0]]
            until(lambda: len(server.stubs("linear")) == 2, 20)  # Triton keeps what it could not unload
        ending.set()
        for caller in callers:
            caller.join()
        assert errors
        assert wrong == []
        assert client.model_ready("sleep")  # nobody else is touched
