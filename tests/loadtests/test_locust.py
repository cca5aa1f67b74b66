"""Plain Locust: headless, spread over processes and workers, from its web page; a worker that dies, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer
from tritonkit.server.ports import free_ports
from tritonkit_client import Client
from tritonkit_load.load import arrivals, headless
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.recording import read_rows
from tritonkit_load.load.result import Result

Recipes = Callable[..., Path]
ARRIVALS, RUN_S, WARM_UP_S = "poisson:80", 2.0, 0.5


def measured(text: str = ARRIVALS, run_s: float = RUN_S) -> int:
    """How many arrivals the schedule has in the measured seconds."""
    due = arrivals.parse(text).times(run_s - WARM_UP_S, WARM_UP_S, 0)
    return int((due >= 0).sum())


def extended(root: Path, folder: Path, code: str) -> Path:
    """The shipped locustfile with more code behind it."""
    path = folder / "locustfile.py"
    path.write_text(f"{(root / 'loadtests/locustfile.py').read_text('utf-8')}\n{code}", "utf-8")
    return path


def environment() -> dict[str, str]:
    """Variables without Locust's warnings of what is no business of a load test."""
    return os.environ | {"PYTHONWARNINGS": "ignore"}


@contextlib.contextmanager
def locust(root: Path, recipe: Path, *arguments: str, file: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A `locust` of its own, with the shipped locustfile or another one; whatever is left of it is killed."""
    shipped = root / "loadtests/locustfile.py"
    command = [sys.executable, "-m", "locust", "-f", str(file or shipped), "--recipe", str(recipe)]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_for_load(server: TritonServer, requests: int = 150) -> None:
    """Until a load test has sent so many requests."""
    with Client(server.http_url) as client:
        before = client.statistics("arithmetic")[0].success.count
        end = time.monotonic() + 40
        while client.statistics("arithmetic")[0].success.count < before + requests:
            assert time.monotonic() < end
            time.sleep(0.1)


def read(path: Path) -> Result:
    return Result.from_json(json.loads(path.read_text(encoding="utf-8")))


def test_headless_over_two_processes_sends_the_whole_schedule_once(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    record = tmp_path / "requests.csv"
    plan = Plan(ARRIVALS, RUN_S - WARM_UP_S, WARM_UP_S)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another test's master, where Locust has it by default
            stack.enter_context(socket.create_server(("", 5557)))
        result = headless.run(
            headless.command(
                plan, server.grpc_url, "TritonGrpcUser", [write_recipe("arithmetic")], processes=2, slo="p99_ms=10000",
                record=record,
            )
        )  # fmt: skip
    assert (result.model.requests, result.model.failed) == (measured(), 0)
    assert len(read_rows(record)) == measured()
    assert result.load.processes == 2
    assert not result.partial
    assert result.verdict.met
    assert result.model.server is not None
    assert result.model.latency is not None
    in_flight = 80 * result.model.latency.max / 1e3  # when the warm-up ended (Little's law)
    assert abs(result.model.server.requests - measured()) <= 5 + in_flight
    assert result.load.duration_s == RUN_S - WARM_UP_S


@contextlib.contextmanager
def swarm(
    root: Path, recipe: Path, server: TritonServer, result: Path, workers: int, *arguments: str,
    file: Path | None = None,
) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:  # fmt: skip
    """A master and its workers, each a `locust` of its own, under load; the master and the last worker."""
    port = str(free_ports(1)[0])
    link = ("--master-port", port, "--master-host", "127.0.0.1", "--host", server.grpc_url)
    main = ("--master", "--master-bind-port", port, "--master-bind-host", "127.0.0.1", "--expect-workers", str(workers),
            "--headless", "--host", server.grpc_url, "--arrivals", ARRIVALS, "--result", str(result),
            "--only-summary")  # fmt: skip
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(locust(root, recipe, *main, *arguments, file=file))
        *_, last = [stack.enter_context(locust(root, recipe, "--worker", *link)) for _ in range(workers)]
        wait_for_load(server)
        yield master, last


SILENT = """
from tritonkit_load.load import coordination

coordination.SILENT_S = 6  # nobody pauses
"""


def test_a_worker_that_dies_makes_the_run_invalid_and_ends_it(
    root: Path, server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    recipe, result = write_recipe("arithmetic"), tmp_path / "result.json"
    times, file = ("--run-time", "60", "--warm-up", "0.5"), extended(root, tmp_path, SILENT)
    with swarm(root, recipe, server, result, 2, *times, file=file) as (master, victim):
        victim.kill()
        output, _ = master.communicate(timeout=40)
    assert master.returncode == 1, output
    load_test = read(result)
    assert not load_test.verdict.valid
    assert "1 of 2 generator processes died" in " ".join(load_test.generator.why)
    assert "INVALID: 1 of 2 generator processes died" in output
    assert load_test.model.requests > 0
    assert load_test.load.duration_s < 30


def test_a_worker_that_pauses_is_late_and_not_dead(
    root: Path, server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    recipe, result = write_recipe("arithmetic"), tmp_path / "result.json"
    with swarm(root, recipe, server, result, 1, "--run-time", "8", "--warm-up", "0") as (master, paused):
        os.kill(paused.pid, signal.SIGSTOP)
        time.sleep(4.5)
        os.kill(paused.pid, signal.SIGCONT)
        output, _ = master.communicate(timeout=40)
    load_test = read(result)
    assert "died" not in output
    assert any("after their time" in why for why in load_test.generator.why), load_test.generator.why
    assert load_test.load.duration_s == 8


def test_the_web_page_takes_a_schedule_and_refuses_a_bad_one(
    root: Path, server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    port, result = free_ports(1)[0], tmp_path / "result.json"
    page = f"http://127.0.0.1:{port}"

    def post(path: str, **fields: Any) -> Any:
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(f"{page}{path}", data=data, timeout=10) as answer:
            return json.load(answer)

    def state() -> str:
        with urllib.request.urlopen(f"{page}/stats/requests", timeout=10) as answer:
            return str(json.load(answer)["state"])

    def wait(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not until():
            assert time.monotonic() < end
            time.sleep(0.1)

    def up() -> bool:
        with contextlib.suppress(OSError):
            return bool(state())
        return False

    arguments = ("--host", server.http_url, "--web-host", "127.0.0.1", "--web-port", str(port), "--result", str(result))
    with locust(root, write_recipe("arithmetic"), *arguments) as process:
        wait(up)
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert "open loop, for example poisson:100" in answer.read().decode()
        common = {"user_count": 1, "spawn_rate": 1, "host": server.http_url, "run_time": "2", "warm_up": "0.5"}
        assert post("/swarm", arrivals="constant:50", **common)["success"]
        wait(result.exists)
        wait(lambda: state() == "stopped")
        load_test = read(result)
        assert (load_test.load.arrivals, load_test.load.protocol) == ("constant:50", "http")
        assert (load_test.model.requests, load_test.model.failed) == (75, 0)
        result.unlink()
        assert post("/swarm", arrivals="constant:0", **common)["success"]
        wait(result.exists)
        assert "have a rate that cannot be sent" in json.loads(result.read_text(encoding="utf-8"))["error"]
        time.sleep(1)  # Locust first starts what is then stopped
        wait(lambda: state() == "stopped")
        result.unlink()
        endless = common | {"arrivals": "", "run_time": ""}
        assert post("/swarm", **endless)["success"]  # and goes on: a closed loop until it is stopped
        time.sleep(2)  # more than the run time of the tests before
        assert state() == "running"
        with urllib.request.urlopen(f"{page}/stop", data=b"", timeout=20) as answer:
            assert answer.status == 200
        wait(result.exists)
        load_test = read(result)
        assert (load_test.load.loop, load_test.partial) == ("closed", False)
        assert load_test.model.requests > 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_partial_result_and_nobody_who_sends(
    root: Path, server: TritonServer, write_recipe: Recipes, tmp_path: Path, how: signal.Signals
) -> None:
    command = [sys.executable, "-m", "tritonkit_load", "run", "--model", str(write_recipe("arithmetic")), "--host", server.grpc_url,
               "--arrivals", ARRIVALS, "--warm-up", "1s", "--duration", "60s", "--reports", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_load(server)
    process.send_signal(how)
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 1, errors
    with Client(server.http_url) as client:
        after = client.statistics("arithmetic")[0].success.count
        time.sleep(0.2)
        assert client.statistics("arithmetic")[0].success.count == after
    assert output.startswith("PARTIAL"), errors
    result = read(tmp_path / "arithmetic/result.json")
    assert result.partial
    assert not result.verdict.valid
    assert 0 < result.load.duration_s < 30
    assert result.model.requests > 0
    assert "cut short" in (tmp_path / "arithmetic/junit.xml").read_text(encoding="utf-8")


COLD = """
import time
import gevent
from tritonkit_load.load.users import Answer, ModelUser

class Cold(ModelUser):
    protocol = "cold"
    began = []

    def connect(self): pass

    def call(self, request):
        gevent.sleep(0.001 if self.began else 2.5)
        self.began.append(time.monotonic())
        return Answer(1)
"""


def run_headless(root: Path, folder: Path, recipe: Path, user: str, run_time: str) -> Result:
    """The result of a headless test with a user of its own beside the shipped locustfile."""
    command = [sys.executable, "-m", "locust", "-f", str(extended(root, folder, user)), "--host", "cold://", "--headless",
               "--recipe", str(recipe), "--run-time", run_time, "--warm-up", "0.5",
               "--arrivals", "constant:20", "--result", str(folder / "result.json"), "Cold"]  # fmt: skip
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (folder / "result.json").exists(), done.stdout + done.stderr
    return read(folder / "result.json")


def test_a_first_request_that_takes_longer_than_the_test_is_no_part_of_it(
    root: Path, write_recipe: Recipes, tmp_path: Path
) -> None:
    result = run_headless(root, tmp_path, write_recipe("arithmetic"), COLD, "2")
    assert (result.partial, result.load.duration_s, result.model.requests) == (False, 1.5, 30)


INTERRUPTED = """
import os, signal
from tritonkit_load.load import recording

offer = recording.Recording.offer

def offer_and_interrupt(self, due_s):  # in the dispatcher
    if due_s > 1 and not interrupted:
        interrupted.append(due_s)
        os.kill(os.getpid(), signal.SIGINT)
    offer(self, due_s)

interrupted = []
recording.Recording.offer = offer_and_interrupt
"""


def test_ctrl_c_while_the_dispatcher_runs_leaves_a_partial_result(
    root: Path, write_recipe: Recipes, tmp_path: Path
) -> None:
    cold = COLD.replace("2.5", "0.001")
    assert run_headless(root, tmp_path, write_recipe("arithmetic"), f"{cold}\n{INTERRUPTED}", "30").partial


@pytest.mark.parametrize(
    ("host", "arguments", "message"),
    [
        ("ftp://127.0.0.1:1", (), "do not make one test"),
        ("grpc://127.0.0.1:1", ("TritonGrpcUser", "TritonHttpUser"), "do not make one test"),
        ("grpc://127.0.0.1:1", ("--run-time", "1", "--warm-up", "1"), "are warm-up"),
        ("grpc://127.0.0.1:1", ("--run-time", "1", "--warm-up", "-1"), "the warm-up is -1 s"),
    ],
)
def test_what_locust_cannot_use_is_said_before_anything_is_sent(
    root: Path, write_recipe: Recipes, host: str, arguments: tuple[str, ...], message: str
) -> None:
    more = arguments if "--run-time" in arguments else ("--run-time", "5", *arguments)
    with locust(root, write_recipe("arithmetic"), "--headless", "--host", host, *more) as process:
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 2, output
    assert message in output
    assert "fix:" in output


def test_a_result_that_never_came_is_an_error_with_locusts_own_words(write_recipe: Recipes) -> None:
    command = headless.command(Plan(ARRIVALS, 5, 1), "grpc://127.0.0.1:1", "NoSuchUser", [write_recipe("arithmetic")])
    with pytest.raises(CheckFailed, match="NoSuchUser"):
        headless.run(command)
