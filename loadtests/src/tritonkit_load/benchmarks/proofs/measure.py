"""Measures one pod on a real Triton: the time of a batch of each size, the load time, and latencies at some rates.

The pod has one instance, as what is simulated is one batching server: on a CPU with one core and one thread, on a GPU
with all of the server's cores; the load comes from other cores. What is measured here is what :mod:`.service`
takes; the rates are there to hold the simulation against, and are used for nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from tritonkit import atomic, pipeline, recipe
from tritonkit.errors import CheckFailed
from tritonkit.recipe import Recipe
from tritonkit.server import TritonServer
from tritonkit_load.benchmarks.proofs.service import Service, parse
from tritonkit_load.benchmarks.proofs.steady import Observed, slowdown
from tritonkit_load.load import environment
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.models import recipe_path
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.result import ModelResult, ServerSide
from tritonkit_load.load.target import Target
from tritonkit_load.tuning.cores import divide

CALLERS: dict[Target, tuple[int, ...]] = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (1, 2, 4, 8, 16, 32, 64, 128)}
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)  # of the capacity
ROUNDS, ROUND_S, RATE_S = 5, 1.5, 10.0
STARTS = 3
MAX_BATCH = 16  # on a CPU, where larger batches only take longer; on a GPU it is the recipe's
QUEUE = 256  # the bound of the shipped models; a single instance is measured without one (docs/decisions/0003)
PAUSES_S = (0.0, 2.0, 5.0, 10.0)  # before each try of a run; another where the generator was late


def measure(model: str, say: Callable[[str], None], target: Target = "cpu") -> dict[str, Any]:
    """Measure a pod, in the form that :func:`.service.load` reads; takes some three minutes.

    Args:
        model: A recipe's name in ``build/recipes``, or its file.
        say: Called with each step, as a sentence.
        target: What the pod runs on.

    Raises:
        InputError: The recipe does not exist, or this machine has only one core.
        CheckFailed: The server does not start.
    """
    path = recipe_path(model)
    cores = divide(target=target)
    pod = _pod(recipe.load(path), target)
    server_cores, senders = (
        (cores.server, cores.generator) if target == "cuda" else (cores.server[:1], cores.generator[:1])
    )
    with tempfile.TemporaryDirectory(prefix="tritonkit-autoscaler-") as directory:
        repository = Path(directory, "model_repository")
        say("build")
        options = pipeline.Options(force="int8") if target == "cpu" else pipeline.Options()
        built = pipeline.build([pod], repository, target, options).models[pod.name]
        loads = []
        for _ in range(STARTS):
            say("start the server")
            began = time.monotonic()
            with TritonServer(repository, cores=server_cores, exit_timeout_s=1):
                loads.append(time.monotonic() - began)
        with (
            TritonServer(repository, cores=server_cores, exit_timeout_s=1) as server,
            Generator(server.grpc_url, recipes=[path], core=senders[0], processes=len(senders)) as generator,
        ):
            rows, spread = _service(generator, psutil.Process(server.pid), target, say)
            capacity = max(row["batch"] / row["seconds"] for row in rows)
            observed = [_observe(generator, share * capacity, say) for share in SHARES]
    serving = pod.serving(target)
    measured = {
        "model": pod.name, "target": target, "precision": built.precision, "max_batch_size": serving.max_batch_size,
        "queue_delay_s": serving.max_queue_delay_us / 1e6,
        "max_queue_size": serving.max_queue_size if serving.bounded and serving.max_queue_size else QUEUE,
        "service": rows, "cv": spread, "load_s": round(statistics.median(loads), 2), "loads_s": loads,
        "observed": [asdict(point) for point in observed], "cores": str(cores), "machine": environment.machine(),
        "load_average": os.getloadavg()[0],
    }  # fmt: skip
    measured["slowdown"] = slowdown(parse(measured | {"slowdown": 1.0}), observed)
    return measured


def _pod(original: Recipe, target: Target) -> Recipe:
    """The recipe with one instance; on a GPU all else is as the recipe says."""
    batching = recipe.Batching(instances=1, threads=1, max_batch_size=min(MAX_BATCH, original.max_batch_size) or None)
    if target == "cuda":
        batching = original.batching.on(target).model_copy(update={"instances": 1, "precision": None})
    return original.model_copy(update={"batching": batching, "slo": None})  # without the bounds that follow from it


def _service(
    generator: Generator, server: psutil.Process, target: Target, say: Callable[[str], None]
) -> tuple[list[dict[str, float]], float]:
    """Seconds that a batch of each size takes while callers always wait, and how much one caller's times vary.

    On a CPU these are seconds of CPU time a batch, the server's and its backend's: on the one core that they share they
    are the seconds from batch to batch, and other work on that core does not count. On a GPU, which the CPU's time says
    nothing of, they are the seconds from batch to batch themselves; one caller alone never waits, and gives none. Of
    the rounds it is the fastest, as other work still takes cache and memory. (One request with a whole batch in it
    takes less than a batch of many requests.)
    """
    callers = CALLERS[target]
    runs: dict[int, list[tuple[float, ModelResult, ServerSide]]] = {count: [] for count in callers}
    for turn in range(ROUNDS):
        for count, rounds in runs.items():
            say(f"round {turn + 1} of {ROUNDS}, {count} callers")
            before = _cpu_s(server)
            model = generator.run(Plan(users=count, duration_s=ROUND_S, warm_up_s=0.0)).model
            if model.server is None:
                raise CheckFailed("the server counted nothing", "read its log")
            spent_s = _cpu_s(server) - before
            rounds.append((seconds_a_batch(model, model.server, spent_s, target), model, model.server))
    waited = [count for count in callers if target == "cpu" or count > 1]
    # By what a sample takes: two rounds' mean batches differ a little.
    fastest = {count: min(runs[count], key=lambda sample: sample[0] / sample[2].average_batch) for count in waited}
    return curve(fastest), min(_spread(model) for _, model, _ in runs[callers[0]])


def seconds_a_batch(model: ModelResult, side: ServerSide, cpu_s: float, target: Target) -> float:
    """Seconds from batch to batch of a saturated pod.

    Args:
        model: The generator's result.
        side: The server's counters.
        cpu_s: CPU time of the server in that time.
        target: What the pod runs on.
    """
    return side.average_batch / model.throughput if target == "cuda" else cpu_s / side.executions


def curve(fastest: Mapping[int, tuple[float, ModelResult, ServerSide]]) -> list[dict[str, float]]:
    """Seconds by batch size: the rows, one for a number of callers, that rise in both."""
    rows: list[dict[str, float]] = []
    for count, (seconds, model, side) in fastest.items():
        if not rows or (side.average_batch > rows[-1]["batch"] + 0.3 and seconds > rows[-1]["seconds"]):
            rows.append({"callers": count, "batch": round(side.average_batch, 3), "seconds": round(seconds, 6),
                         "throughput": round(model.throughput, 1)})  # fmt: skip
    return rows


def _spread(model: ModelResult) -> float:
    """Coefficient of variation of one caller's times; from percentiles, as one stall is no variation."""
    if model.latency is None:
        return 1.0
    return round((model.latency.p90 - model.latency.p50) / 1.282 / model.latency.p50, 3)


def _cpu_s(server: psutil.Process) -> float:
    """CPU time of the server and of the processes in which its models run."""
    return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children()))


def _observe(generator: Generator, rate: float, say: Callable[[str], None]) -> Observed:
    plan = Plan(arrivals=f"poisson:{rate:.1f}", duration_s=RATE_S, warm_up_s=1.0, seed=int(rate))
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        say(f"{rate:.0f} requests/s")
        result = generator.run(plan)
        if result.generator.valid:
            break
    model = result.model
    if model.server is None or model.latency is None:
        raise CheckFailed("the server counted nothing", "read its log")
    per_s = model.throughput / 1000
    return Observed(
        round(model.offered, 1), round(model.server.request_ms * per_s, 3), round(model.server.queue_ms * per_s, 3),
        round(model.server.average_batch, 2), model.latency.p50, model.latency.p99, result.generator.valid,
    )  # fmt: skip


def write(path: Path, measurement: dict[str, Any]) -> Service:
    """Write a measurement atomically, and read it back."""
    from tritonkit_load.benchmarks.proofs.service import load

    atomic.write(path, (json.dumps(measurement, indent=2) + "\n").encode())
    return load(path)


def observed(measurement: dict[str, Any]) -> Sequence[Observed]:
    """The measured rates of a measurement."""
    return [Observed(**point) for point in measurement["observed"]]
