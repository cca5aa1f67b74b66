"""A model whose process ends behind Triton's back: not ready from then on, loaded again, counted, and reported."""

from __future__ import annotations

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
from servecommand import serving
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
    with serving(repository, *arguments) as (pid, line):
        yield Served(line("^ready: ").split()[1], psutil.Process(pid), line)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``linear`` of the onnxruntime backend, with a group that has a name of its own, and ``echo``."""
    place = tmp_path_factory.mktemp("supervised") / "models"
    (place / "linear/1").mkdir(parents=True)
    write_linear(place / "linear/1/model.onnx", 1.0)
    (place / "linear/config.pbtxt").write_text(LINEAR, encoding="utf-8")
    write_models(place, "sleep")
    return place


def test_a_model_killed_under_load_is_not_ready_then_loaded_again(repository: Path) -> None:
    with served(repository) as server, Client(server.url, retry=None) as client:
        ending = threading.Event()
        errors: list[str] = []

        def call() -> None:
            while not ending.wait(0.02):  # one that dies within Triton's own code may take the server with it
                try:
                    client.infer("linear", ROW, timeout=20)
                except TritonkitClientError as error:
                    errors.append(str(error))

        callers = [threading.Thread(target=call, daemon=True) for _ in range(2)]
        for caller in callers:
            caller.start()
        pauses = []
        for _ in range(2):
            until(lambda: len(server.stubs("linear")) == 2, 30)  # Triton keeps what it could not unload
            server.stubs("linear")[0].kill()
            line = server.line(r"^linear: .* process(es)? of it ended; it is not ready, and is loaded again in \d+ s$")
            pauses.append(int(line.split()[-2]))
            assert not client.model_ready("linear")
            server.line(r"^linear: ready again; loaded again (once|\d+ times) since the start$")
            assert client.infer("linear", ROW)["scores"].tolist() == [[4.0, 4.0, 4.0]]
        assert pauses[0] < pauses[1]  # it ended again soon
        ending.set()
        for caller in callers:
            caller.join()
        assert errors
        assert client.model_ready("sleep")  # nobody else is touched


GUARDED = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("stalls", sys.argv[1])
stalls = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stalls)
guard = stalls.StallGuard()
for _ in range(int(sys.argv[2])):
    guard.begin()
    print("begun", flush=True)
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        time.sleep(0.01)
    guard.finish()
    print("answered", flush=True)
"""


@pytest.mark.parametrize(("pause_s", "runs_s", "status"), [(1.5, 2.0, -signal.SIGKILL), (0.0, 1.5, 0), (0.3, 1.0, 0)])
def test_a_process_that_did_not_run_ends_instead_of_answering(
    root: Path, pause_s: float, runs_s: float, status: int
) -> None:
    stalls = root / "build/src/tritonkit/server/backends/onnxruntime/batch_execution/stalls.py"
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED, str(stalls), "1", str(runs_s)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if pause_s:
            process.send_signal(signal.SIGSTOP)
            time.sleep(pause_s)
            process.send_signal(signal.SIGCONT)
        answers = process.stdout.read()
        assert process.wait(20) == status
    assert answers == ("" if status else "answered\n")
