"""The generator against a real server: what it measures, what it refuses, and what it does not flatter."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tritonkit.errors import CheckFailed, InputError
from tritonkit.server import TritonServer
from tritonkit_load.benchmarks.bench_generator import paused
from tritonkit_load.load import arrivals
from tritonkit_load.load.generator import Generator, Plan
from tritonkit_load.load.recording import decoded, read_rows
from tritonkit_load.load.slo import Slo

Recipes = Callable[..., Path]
OPEN = Plan("poisson:100", duration_s=1.2, warm_up_s=0.3, batch_sizes="1:0.5,3:0.5")
CLOSED = Plan(users=3, duration_s=0.7, warm_up_s=0.2)


PREPARED = """
import inspect, sys
from pathlib import Path
from locust.env import Environment
from tritonkit_load.load.payloads import Library
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.prepare import prepare
from tritonkit_load.load.users import Answer, ModelUser

class Caller(ModelUser):
    def connect(self):
        pass

    def call(self, request):
        return Answer()

prepare(Plan(users=1, duration_s=1.0), Library([Path(sys.argv[1])]), Caller(Environment()))
assert "locust.runners" in inspect.modulesbyfile.values()
"""


@contextlib.contextmanager
def generator(
    server: TritonServer, *recipes: Path, user: str = "TritonGrpcUser", processes: int = 1
) -> Iterator[Generator]:
    host = server.http_url if "Http" in user else server.grpc_url
    with Generator(host, user, recipes, processes=processes, metrics_url=server.metrics_url) as started:
        yield started


@pytest.mark.parametrize("user", ["TritonGrpcUser", "TritonHttpUser"])
def test_an_open_loop_sends_its_schedule_and_both_sides_agree_on_it(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path, user: str
) -> None:
    record = tmp_path / "requests.csv"
    with generator(server, write_recipe("arithmetic", slo={"p99_ms": 10_000}), user=user) as started:
        result = started.run(OPEN, record=record)
        replayed = started.run(Plan(f"replay:{record}", duration_s=0.0, warm_up_s=0.2))
    due = arrivals.parse("poisson:100").times(OPEN.duration_s, OPEN.warm_up_s, OPEN.seed)
    measured = due[due >= 0]
    model = result.model
    assert (model.requests, model.failed) == (len(measured), 0)
    assert model.offered == pytest.approx(len(measured) / OPEN.duration_s)
    assert [row[0] for row in read_rows(record)] == pytest.approx(measured.tolist(), abs=1e-5)
    assert decoded(model.histogram).get_total_count() == len(measured)
    assert replayed.model.requests == len(measured)
    assert sum(second.offered for second in result.series) == len(due)
    assert model.latency is not None
    assert model.service is not None
    assert 0 < model.service.mean <= model.latency.mean
    assert model.alone_ms is not None
    assert 0 < model.alone_ms <= model.latency.p999
    side = model.server
    assert side is not None
    # The two sides may differ by what was in flight when the warm-up ended: rate times latency (Little's law).
    assert abs(side.requests - model.requests) <= 3 + 100 * model.latency.max / 1e3
    assert set(side.batch_sizes) <= {1, 3}
    assert sum(size * count for size, count in side.batch_sizes.items()) == side.inferences
    assert side.average_batch == pytest.approx(2, abs=0.5)
    assert 0 < side.queue_ms + side.compute_ms <= side.request_ms * 1.01
    assert model.network_ms == pytest.approx(model.service.mean - side.request_ms)
    assert result.environment["triton"].startswith("2.")
    assert result.verdict.met
    assert 0 < result.generator.cpu < 1
    assert result.generator.lateness_p99_ms is not None


def test_processes_share_a_schedule_and_a_closed_loops_users(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, write_recipe("arithmetic"), processes=2) as started:
        shared = started.run(OPEN)
        closed = started.run(CLOSED)
    due = arrivals.parse("poisson:100").times(OPEN.duration_s, OPEN.warm_up_s, OPEN.seed)
    assert shared.model.requests == int((due >= 0).sum())
    assert shared.load.processes == 2
    assert (closed.load.loop, closed.load.users) == ("closed", 3)
    assert closed.model.requests > 30
    assert closed.model.failed == 0
    assert closed.generator.lateness_p99_ms is None


def test_a_paused_server_shows_in_the_open_loop_and_not_in_the_closed_one(
    server: TritonServer, write_recipe: Recipes
) -> None:
    """The coordinated-omission test: two of three seconds without an answer are no matter of 1 %."""
    with generator(server, write_recipe("arithmetic")) as started:
        results = {}
        for loop, plan in (("open", Plan("poisson:50", 3.0, 0.2)), ("closed", Plan(None, 3.0, 0.2, users=2))):
            with paused(server.pid, after_s=0.9, for_s=2.0):
                results[loop] = started.run(plan)
    latency = {loop: result.model.latency for loop, result in results.items()}
    assert latency["open"] is not None
    assert latency["closed"] is not None
    assert latency["open"].p99 > 1700
    assert latency["open"].p90 > 1000  # most of the arrivals fell into the pause
    assert latency["closed"].p99 < 500
    assert latency["closed"].max > 1900  # it was there, and two requests saw it
    waiting = [second.in_flight for second in results["open"].series]
    assert max(waiting) > 25


def test_a_generator_process_that_dies_ends_the_run_with_its_words(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, write_recipe("arithmetic"), processes=2) as started:
        first, second = started.pids

        def kill() -> None:
            time.sleep(0.8)
            os.kill(second, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(CheckFailed, match=r"died \(status -9\)"):
            started.run(replace(OPEN, duration_s=20))
        thread.join()
        assert time.monotonic() - begun < 15
    assert not psutil.pid_exists(first)


def test_children_end_with_the_process_that_started_them(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, write_recipe("arithmetic")) as started:
        (pid,) = started.pids
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_a_mix_has_its_shares_and_each_model_its_own_figures(server: TritonServer, write_recipe: Recipes) -> None:
    recipes = (write_recipe("arithmetic", slo={"p99_ms": 10_000}), write_recipe("sleep", slo={"p50_ms": 5}))
    plan = Plan("constant:80", 1.0, 0.2, models={"arithmetic": 3, "sleep": 1})
    with generator(server, *recipes) as started:
        result = started.run(plan)
    fast, slow = result.models["arithmetic"], result.models["sleep"]
    assert fast.requests + slow.requests == 80
    assert 8 <= slow.requests <= 33
    assert slow.service is not None
    assert slow.service.p50 >= 20  # it sleeps for 20 ms
    assert {check.model: check.met for check in result.verdict.checks if check.name.startswith("p")} == {
        "arithmetic": True, "sleep": False,
    }  # fmt: skip
    assert result.verdict.met is False
    assert "No rate can meet this SLO" in result.verdict.note


def test_streams_are_over_with_their_last_response(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, write_recipe("writer"), user="TritonStreamUser") as started:
        model = started.run(Plan("constant:40", 0.5, 0.2)).model
    assert (model.requests, model.failed) == (20, 0)
    assert model.first_response is not None
    assert model.latency is not None
    assert 0 < model.first_response.p50 <= model.latency.p50


def test_failures_are_counted_by_type_and_have_no_latency(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, write_recipe("sleep", samples="given.py:failing")) as started:
        result = started.run(Plan("constant:40", 0.5, 0.2), slo=Slo(p99_ms=1000))
    assert result.model.errors == {"ServerError": 20}
    assert "sleep length must be non-negative" in result.model.messages["ServerError"]
    assert result.model.latency is None
    assert [check.met for check in result.verdict.checks] == [False, False]


SLOW_USERS = """
import select, time
from tritonkit_load.load.users import Answer, TritonGrpcUser

class Blocking(TritonGrpcUser):
    def call(self, request):
        end = time.perf_counter() + 0.03
        while time.perf_counter() < end:
            pass
        return Answer(1)
"""


def test_a_generator_that_cannot_keep_up_says_so(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_users.py").write_text(SLOW_USERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with generator(server, write_recipe("arithmetic"), user="slow_users:Blocking") as started:
        result = started.run(Plan("poisson:60", 1.0, 0.0))
    assert not result.verdict.valid
    latency, service = result.model.latency, result.model.service
    assert latency is not None
    assert service is not None
    assert latency.p50 > 3 * service.p50  # each holds up all others, and what waits for the generator is not left out
    assert "after their time" in " ".join(result.generator.why)


FEW_IN_FLIGHT = """
from tritonkit_load.load import session
from tritonkit_load.load.users import TritonGrpcUser

session.MOST_IN_FLIGHT = 20  # 2,000 of them are more than a slow machine sends while a server pauses

class FewInFlight(TritonGrpcUser):
    pass
"""


def test_arrivals_beyond_the_most_in_flight_make_the_run_invalid(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "few_in_flight.py").write_text(FEW_IN_FLIGHT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        generator(server, write_recipe("arithmetic"), user="few_in_flight:FewInFlight") as started,
        paused(server.pid, after_s=0.3, for_s=1.0),
    ):
        result = started.run(Plan("constant:200", 1.5, 0.0))
    assert result.generator.capped > 0
    assert result.model.errors["NotSent"] == result.generator.capped
    assert "were not sent" in " ".join(result.generator.why)
    assert not result.verdict.valid


def test_what_cannot_be_tested_is_refused_before_the_test(server: TritonServer, write_recipe: Recipes) -> None:
    with generator(server, *(write_recipe(name) for name in ("arithmetic", "nobody", "unloaded"))) as started:
        for plan, message in (
            (Plan(models={"nobody": 1}), "ModelNotFound"),
            (Plan(models={"unloaded": 1}), "ModelNot"),
            (Plan("poisson:0"), "cannot be sent"),
            (Plan(batch_sizes="9"), "max_batch_size is 4"),
            (Plan(models={"other": 1}), "cannot be part of the mix"),
            (replace(CLOSED, users=0), "at least one user"),
        ):
            with pytest.raises(InputError, match=message):
                started.run(plan)
        assert started.run(replace(CLOSED, models={"arithmetic": 1})).model.requests > 0  # and goes on
        started.host = server.http_url
        with pytest.raises(InputError, match="cannot call http"):
            started.run(CLOSED)
    sizes = {name: {"dtype": "fp32", "dims": [4]} for name in ("left", "right")}
    (write_recipe("arithmetic").parent / "given.py").write_text(
        "import numpy as np\ndef samples():\n    yield dict.fromkeys(('left', 'right'), np.zeros(4, np.float32))\n"
    )
    with (
        generator(server, write_recipe("arithmetic", inputs=sizes)) as started,
        pytest.raises(InputError, match="InvalidInput"),
    ):
        started.run(OPEN)


@pytest.mark.parametrize("user", ["NoSuchUser", "json:JSONDecoder"])
def test_a_user_class_that_is_none_is_refused(server: TritonServer, write_recipe: Recipes, user: str) -> None:
    with pytest.raises(InputError, match=r"ModelUser|no user class"), Generator(server.grpc_url, user, []):
        pass


def test_sources_that_locust_reads_late_are_read_before_the_first_request(write_recipe: Recipes) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", PREPARED, write_recipe("arithmetic")], env=environment, check=True)
