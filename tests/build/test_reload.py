"""A rebuild beside a running server is taken up, and no request is lost: by polling, by explicit control, by --watch."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import add_model, tensor
from numpy.typing import NDArray
from onnx import TensorProto, helper
from servecommand import serving
from support import Project

from tritonkit.cli.serve import _lines
from tritonkit.errors import InputError
from tritonkit.server import TritonServer, reload
from tritonkit.server.runtime import Runtime
from tritonkit_client import Client

ROW = np.ones((1, 4), np.float32)
ECHO = """
import triton_python_backend_utils as u
class TritonPythonModel:
    def execute(self, requests):
        return [u.InferenceResponse([u.Tensor("y", NUMBER * u.get_input_tensor_by_name(r, "x").as_numpy())]) for r in requests]
"""


@dataclass
class Load:
    """Callers of one model: what they sent, what they lost, and the answers they saw, in their order."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)

    def waits_for(self, answer: float, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.answers or abs(self.answers[-1] - answer) > 1e-4:
            assert time.monotonic() < deadline, (answer, self.answers[-1:], self.lost[:3])
            time.sleep(0.02)


@contextmanager
def load(urls: tuple[str, ...], model: str, x: NDArray[np.float32]) -> Iterator[Load]:
    """Callers who never retry, one for each address."""
    total = Load()
    stop = threading.Event()
    lock = threading.Lock()

    def call(url: str) -> None:
        with Client(url, retry=None) as client:
            while not stop.is_set():
                with lock:
                    total.sent += 1
                try:
                    answer = float(client.infer(model, x=x)["y"].flat[0])
                    with lock:
                        total.answers.append(answer)
                except Exception as error:
                    with lock:
                        total.lost.append(repr(error))
                time.sleep(0.005)

    callers = [threading.Thread(target=call, args=(url,)) for url in urls]
    for caller in callers:
        caller.start()
    try:
        yield total
    finally:
        stop.set()
        for caller in callers:
            caller.join()


def rebuild(project: Project, factor: int) -> str:
    """Build a graph that multiplies by a number; what the build prints."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    number = helper.make_tensor("number", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "number"], ["y"])], "net", ends[:1], ends[1:], [number])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, project.directory / "net.onnx")
    project.write(source={"onnx": "net.onnx"}, outputs={"y": {"dtype": "fp32", "dims": [4]}}, max_batch_size=4)
    code, printed, error = project.build()
    assert code == 0, error
    return printed


def explicit(server: TritonServer, model: str) -> None:
    urllib.request.urlopen(f"{server.http_url}/v2/repository/models/{model}/load", b"{}", timeout=60).close()


def test_polling_and_explicit_control_take_up_a_rebuild_losing_no_request(
    project: Project, installed_server: Runtime
) -> None:
    assert "server" not in rebuild(project, 1)
    polling = ["--model-control-mode=poll", "--repository-poll-secs=1"]
    for arguments, factor in ((polling, 2), (["--model-control-mode=explicit", "--load-model=*"], 3)):
        with (
            TritonServer(project.repository, arguments=arguments, runtime=installed_server, exit_timeout_s=1) as server,
            load((server.grpc_url, server.http_url), "net", ROW) as total,
        ):
            total.waits_for(factor - 1)
            printed = rebuild(project, factor)
            if factor == 2:
                assert f"the server at {server.http_url} takes it up by itself" in printed
            else:
                assert f"curl -X POST {server.http_url}/v2/repository/models/net/load" in printed
                explicit(server, "net")
            total.waits_for(factor)
        assert total.lost == []
        assert total.sent > 50


@contextmanager
def watching(repository: Path) -> Iterator[tuple[tuple[str, ...], Callable[[str], str]]]:
    """``tritonkit serve --watch``: its addresses, and a function that waits for a line that begins so."""
    with serving(repository, "--watch") as (_, line):
        ready = line("^ready: ").split()
        yield (ready[1], ready[2]), lambda start: line(f"^{re.escape(start)}")


def write_ensemble(repository: Path, number: int, between: str = "t", broken: bool = False) -> None:
    """An ensemble of two models, which multiplies by a number, and hands on a tensor of the name ``between``."""
    between_ends = tensor("input", "x", "FP32", "1") + tensor("output", between, "FP32", "1")
    first = ECHO.replace('"y"', f'"{between}"').replace("NUMBER", "1" if not broken else "1 +")
    add_model(repository, "first", first, f'backend: "python"\nmax_batch_size: 4\n{between_ends}')
    ends = tensor("input", between, "FP32", "1") + tensor("output", "y", "FP32", "1")
    second = ECHO.replace('"x"', f'"{between}"').replace("NUMBER", str(number))
    queue_bound = "dynamic_batching { default_queue_policy { max_queue_size: 64 } }\n"
    add_model(repository, "second", second, f'backend: "python"\nmax_batch_size: 4\n{queue_bound}{ends}')
    steps = (
        f'{{ model_name: "first" model_version: -1 input_map {{ key: "x" value: "x" }} output_map {{ key: "{between}" value: "m" }} }}',
        f'{{ model_name: "second" model_version: -1 input_map {{ key: "{between}" value: "m" }} output_map {{ key: "y" value: "y" }} }}',
    )
    outer = tensor("input", "x", "FP32", "1") + tensor("output", "y", "FP32", "1")
    (repository / "both/1").mkdir(parents=True)
    (repository / "both/1/keep").touch()
    scheduling = "".join(f"step {step}\n" for step in steps)
    (repository / "both/config.pbtxt").write_text(
        f'platform: "ensemble"\nmax_batch_size: 4\n{outer}ensemble_scheduling {{ {scheduling} }}\n'
    )


def add_equipped(repository: Path, name: str, packages: list[str]) -> None:
    """A Python model like those of a recipe's ``python`` section, whose passport lists packages."""
    ends = tensor("input", "x", "FP32", "1") + tensor("output", "y", "FP32", "1")
    stage = repository.parent / "stage"
    add_model(stage, name, ECHO.replace("NUMBER", "7"), f'backend: "python"\nmax_batch_size: 4\n{ends}')
    (stage / name / "passport.json").write_text(json.dumps({"model": name, "packages": packages}))
    shutil.rmtree(repository / name, ignore_errors=True)
    (stage / name).rename(repository / name)


def replace(repository: Path, write: Callable[[Path], None]) -> None:
    """Exchange the repository as a build does."""
    from tritonkit import atomic

    with atomic.staging(repository) as stage:
        write(stage / "new")
        atomic.put(stage / "new", repository)


def test_watch_takes_up_new_broken_and_removed_models_losing_no_request(tmp_path: Path) -> None:
    repository = tmp_path / "a folder" / "model_repository"
    write_ensemble(repository, 2)
    x = np.ones((1, 1), np.float32)
    with watching(repository) as (urls, line):
        assert line("without queue bounds: ").startswith("without queue bounds: second;")
        with load(urls, "both", x) as total:
            total.waits_for(2)
            replace(repository, lambda new: write_ensemble(new, 3))
            assert line("reloaded: ") == "reloaded: second"
            total.waits_for(3)
            replace(repository, lambda new: write_ensemble(new, 3, broken=True))
            assert "invalid syntax" in line("not reloaded: first: ")
            add_model(
                repository,
                "third",
                ECHO.replace("NUMBER", "7"),
                (repository / "second/config.pbtxt").read_text().replace('"t"', '"x"'),
            )
            assert line("reloaded: ") == "reloaded: third"
            with Client(urls[0]) as client:
                assert client.infer("third", x=x)["y"] == 7
                assert "default_queue_policy" not in client.config("third").get("dynamic_batching", {})
                add_equipped(repository, "photo_before", ["pillow==13.0.0"])
                assert line("not loaded: ") == (
                    "not loaded: photo_before: it needs pillow==13.0.0, and this server was started without"
                )
                assert line("  fix: ") == (
                    f"  fix: `tritonkit install-server {repository}`, then start the server again"
                )
                assert not client.model_ready("photo_before")
                add_equipped(repository, "photo_before", [])
                assert line("reloaded: ") == "reloaded: photo_before"
            replace(repository, lambda new: write_ensemble(new, 4))
            assert line("reloaded: ") == "reloaded: first, second"
            assert line("unloaded: ") == "unloaded: photo_before, third"
            total.waits_for(4)
        assert total.lost == []
        assert total.sent > 100
        replace(repository, lambda new: write_ensemble(new, 5, between="u"))
        assert line("reloaded: ") == "reloaded: both, first, second"
        assert line("both: its steps hand on other tensors")
    assert not list(repository.parent.glob(".tritonkit-*"))


def test_a_copy_is_one_state_of_a_constantly_exchanged_repository(tmp_path: Path) -> None:
    repository = tmp_path / "model_repository"
    numbers = iter(range(10_000))

    def write(place: Path) -> None:
        number = next(numbers)
        for name in map(str, range(30)):
            (place / name).mkdir(parents=True)
            (place / name / "config.pbtxt").write_text(str(number))

    write(repository)
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            replace(repository, write)
            time.sleep(0.02)

    writer = threading.Thread(target=exchange)
    writer.start()
    try:
        (tmp_path / "work").mkdir()
        for number in range(10):
            reloader = reload.Reloader(repository, tmp_path / f"work/{number}", bounded=False)
            copies = {path.read_text() for path in (tmp_path / f"work/{number}").glob("*/config.pbtxt")}
            assert len(copies) == 1
            reloader.close()
    finally:
        stop.set()
        writer.join()


def test_watch_refuses_another_way_of_loading(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model-control-mode"):
        TritonServer(tmp_path, watch=True, arguments=["--model-control-mode=poll"])


def test_a_package_that_no_passport_lists_is_named_with_the_fix() -> None:
    missing, broken = [
        next(_lines(reload.Change(failed={"photo": reason}), Path("models")))
        for reason in ("Internal: ModuleNotFoundError: No module named 'PIL'", "invalid syntax")
    ]
    assert "fix: name the package under `packages` of the recipe's `python`, build it again" in missing
    assert "fix: build it again" in broken
