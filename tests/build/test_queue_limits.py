"""Queues as long as the SLO allows: the arithmetic against a simulated queue, the configuration, and the real server."""

from __future__ import annotations

import heapq
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from models import add_model, tensor
from support import Project
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import pipeline, queue_limits, recipe
from tritonkit.queue_limits import QueueLimits, ServiceTimes, derive
from tritonkit.recipe import Batching, Slo
from tritonkit.server import TritonServer, queue_bounds

CPU = ServiceTimes(10.0, 80.0, 8)  # a batch costs what its samples cost one by one
GPU = ServiceTimes(2.0, 9.0, 8)


def limits_of(slo_ms: float, times: ServiceTimes, **other: Any) -> QueueLimits:
    arguments: dict[str, Any] = {"largest_batch": 64, "instances": 2, "at_once": 1} | other
    limits = derive(slo_ms, times, **arguments)
    assert limits is not None
    return limits


def simulated(
    limits: QueueLimits, times: ServiceTimes, rate: float, instances: int, at_once: int
) -> tuple[float, float]:
    """Answers a second within the SLO, and the share of them among all that was let in, of a queue with random arrivals."""
    random = np.random.default_rng(1)
    arrivals = np.cumsum(random.exponential(1000 / rate, 20_000))
    free = [0.0] * instances
    waiting: list[float] = []
    in_time = admitted = 0

    def serve(until: float) -> None:
        nonlocal in_time
        while waiting and free[0] <= until:
            start = max(heapq.heappop(free), waiting[0])
            batch = [due for due in waiting[: limits.preferred_batch_size] if due <= start]
            del waiting[: len(batch)]
            end = start + times.of(len(batch)) * max(instances / at_once, 1)
            in_time += sum(end - due <= limits.slo_ms for due in batch)
            heapq.heappush(free, end)

    for due in arrivals:
        serve(due)
        if len(waiting) < limits.max_queue_size:
            waiting.append(due)
            admitted += 1
    serve(np.inf)
    return 1000 * in_time / arrivals[-1], in_time / admitted


@pytest.mark.parametrize("times", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("slo_ms", [60.0, 100.0, 500.0])
@pytest.mark.parametrize("load", [2.0, 5.0])
def test_an_overloaded_queue_keeps_nine_tenths_of_its_goodput(times: ServiceTimes, slo_ms: float, load: float) -> None:
    limits = limits_of(slo_ms, times)
    goodput, share = simulated(limits, times, load * limits.requests_per_s, 2, 1)
    assert goodput >= 0.9 * limits.requests_per_s
    assert share >= 0.98


def test_without_the_limits_the_same_queue_answers_nobody_in_time() -> None:
    limits = limits_of(100, CPU)
    free = QueueLimits(64, 256, 2000, limits.requests_per_s, 100.0, limits.service_ms)
    assert simulated(free, CPU, 2 * limits.requests_per_s, 2, 1)[1] < 0.05


def test_a_batch_is_as_large_as_pays_and_the_slo_allows() -> None:
    assert limits_of(100, CPU).preferred_batch_size == 1  # larger ones serve no more
    assert limits_of(1000, GPU).preferred_batch_size > limits_of(60, GPU).preferred_batch_size > 1
    assert limits_of(1000, GPU, largest_batch=4).preferred_batch_size == 4


def test_instances_that_share_a_core_take_longer_and_serve_no_more() -> None:
    alone, shared = limits_of(100, CPU, at_once=2), limits_of(100, CPU, at_once=1)
    assert (alone.service_ms, shared.service_ms) == (10.0, 20.0)
    assert (alone.requests_per_s, shared.requests_per_s) == (200.0, 100.0)


def test_a_measured_rate_counts_more_than_the_estimated_one() -> None:
    slow = limits_of(100, CPU, requests_per_s=50.0)
    assert (slow.requests_per_s, slow.service_ms) == (50.0, 40.0)
    assert slow.max_queue_size < limits_of(100, CPU).max_queue_size


def test_the_line_shows_what_its_rate_follows_from() -> None:
    text = str(limits_of(10, ServiceTimes(0.86, 0.86, 1), at_once=2))
    assert "at an estimated 2326 requests/s (2 x 1 in 0.860 ms: instances x batch" in text
    assert str(limits_of(100, CPU, requests_per_s=50.0)).endswith("at the 50 requests/s that were measured under load")


def test_an_slo_that_one_request_alone_misses_gives_no_limits() -> None:
    assert derive(9, CPU, largest_batch=8, instances=2, at_once=1) is None
    for slo_ms in (15, 20):  # one request alone keeps it: let as few wait as there can
        tight = limits_of(slo_ms, CPU)
        assert (tight.preferred_batch_size, tight.max_queue_size, tight.queue_timeout_ms) == (1, 1, 1)
    assert limits_of(20, CPU, requests_per_s=35.0).max_queue_size == 1


def test_a_gpu_prefers_a_prepared_batch_and_timeouts_outlast_the_delay() -> None:
    assert limits_of(60, GPU, sizes=(1, 64)).preferred_batch_size == 1
    assert limits_of(500, GPU, sizes=(1, 24, 64)).preferred_batch_size == 24
    assert limits_of(20, CPU, delay_ms=10.0).queue_timeout_ms == 11


def test_a_build_with_an_slo_bounds_the_queue_by_the_gates_figures(project: Project) -> None:
    project.write(slo={"p99_ms": 100}, max_batch_size=8)
    status, out, _ = project.build()
    assert status == 0
    model = project.repository / "net"
    passport = json.loads((model / "passport.json").read_text(encoding="utf-8"))
    limits = QueueLimits(**{key: value for key, value in passport["queue"].items() if key != "at_once"})
    assert str(limits).split(":")[0] in " ".join(out.split())
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    batching = text_format.Parse(text, pb.ModelConfig()).dynamic_batching
    policy = batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (
        limits.max_queue_size, 1000 * limits.queue_timeout_ms,
    )  # fmt: skip
    smaller = limits.preferred_batch_size < 8
    assert list(batching.preferred_batch_size) == ([limits.preferred_batch_size] if smaller else [])
    assert batching.max_queue_delay_microseconds == (0 if smaller else 1000)
    assert "TK139" not in project.run("lint", project.repository)[1]


def test_limits_of_the_recipe_stay_and_lint_warns_above_the_slo(project: Project) -> None:
    by_name = {"max_queue_size": 0, "queue_timeout_ms": 0}  # any number, as long as they like: too much on any machine
    project.write(slo={"p99_ms": 100}, max_batch_size=8, batching=by_name)
    status, out, _ = project.build()
    assert status == 0
    assert "the recipe says max_queue_size 0, queue_timeout_ms 0; from its SLO would follow" in " ".join(out.split())
    text = (project.repository / "net/config.pbtxt").read_text(encoding="utf-8")
    policy = text_format.Parse(text, pb.ModelConfig()).dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (0, 0)
    assert "TK139" in project.run("lint", project.repository)[1]


def test_limits_of_another_target_are_not_taken() -> None:
    slo_recipe = recipe.Recipe.model_validate(
        {"name": "m", "source": "m:load", "inputs": {"x": {"dtype": "fp32", "dims": [1]}},
         "outputs": {"y": {"dtype": "fp32", "dims": [1]}}, "max_batch_size": 8}
    )  # fmt: skip
    slo_recipe = slo_recipe.model_copy(
        update={"slo": Slo(p99_ms=100), "batching": Batching(target="cuda", max_queue_size=7, instances=2)}
    )
    limits = queue_limits.of_recipe(slo_recipe, "cpu", CPU, cores=2)
    assert limits is not None
    applied = queue_limits.applied(slo_recipe, "cpu", limits)
    assert applied.serving("cpu").max_queue_size == limits.max_queue_size
    assert queue_limits.applied(slo_recipe, "cuda", limits).serving("cuda").max_queue_size == 7
    assert queue_limits.applied(slo_recipe, "cpu", None) == slo_recipe


BOUNDED = """backend: "python"
max_batch_size: 8
dynamic_batching { default_queue_policy { max_queue_size: 4 allow_timeout_override: true } }
"""
ECHO = """
import triton_python_backend_utils as u
class TritonPythonModel:
    def execute(self, requests):
        return [u.InferenceResponse([u.Tensor("y", u.get_input_tensor_by_name(r, "x").as_numpy())]) for r in requests]
"""


@pytest.fixture
def bounded(tmp_path: Path) -> Path:
    """A repository of two models, one of them with a bounded queue."""
    sides = tensor("input", "x", "FP32", "1") + tensor("output", "y", "FP32", "1")
    repository = tmp_path / "repository"
    add_model(repository, "bounded", ECHO, BOUNDED + sides)
    add_model(repository, "free", ECHO, f'backend: "python"\n{sides}')
    return repository


def served_bound(server: TritonServer) -> int:
    from tritonkit_client import Client

    with Client(server.grpc_url) as client:
        assert client.infer("bounded", x=np.ones((1, 1), np.float32))["y"].shape == (1, 1)
        policy = client.config("bounded")["dynamic_batching"].get("default_queue_policy", {})
        return int(policy.get("max_queue_size", 0))


def test_this_release_serves_without_queue_bounds_unless_told_to_keep_them(bounded: Path) -> None:
    with TritonServer(bounded, exit_timeout_s=1) as server:
        assert server.unbounded == ["bounded"]
        assert served_bound(server) == 0
    with TritonServer(bounded, exit_timeout_s=1, keep_queue_bounds=True) as server:
        assert server.unbounded == []
        assert served_bound(server) == 4
    assert (bounded / "bounded/config.pbtxt").read_text().startswith(BOUNDED)


def test_bounds_stay_where_configurations_are_read_later(bounded: Path, tmp_path: Path) -> None:
    for arguments in (["--model-control-mode=explicit"], ["--model-control-mode=poll"], ["--model-config-name=x"]):
        place = tmp_path / "".join(arguments)
        assert queue_bounds.lift(bounded, place, arguments) == []
        assert place.is_symlink()
    (bounded / "bounded/config.pbtxt").write_text("no configuration {")
    assert queue_bounds.lift(bounded, tmp_path / "damaged") == []
    assert (tmp_path / "damaged").resolve() == bounded.resolve()


def test_a_build_without_an_slo_keeps_the_usual_bounds(project: Project) -> None:
    built = pipeline.build([recipe.load(project.write())], project.repository)
    assert [model.queue for model in built.models.values()] == [None]
