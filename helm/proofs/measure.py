"""Measures one pod on a real Triton: the time of a batch of each size, the load time, and latencies at some rates.

The server has one core and one instance with one thread, the load comes from another core. What is measured here is
what :mod:`proofs.service` takes; the rates are there to hold the simulation against, and are used for nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load import environment
from load.generator import Generator
from load.plan import Plan
from tuning.cores import divide

from proofs.service import Service
from tritonkit import atomic, pipeline, recipe, samples
from tritonkit.errors import CheckFailed, InputError
from tritonkit.server import TritonServer
from tritonkit_client import Client

SIZES, TRIES = (1, 2, 4, 8, 16), 80
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)  # of the capacity
RATE_S = 10.0
STARTS = 3
MAX_BATCH = 16  # on a CPU larger batches only take longer
QUEUE = 256  # the bound of the shipped models; a single instance is measured without one (docs/decisions/0003)
PAUSES_S = (0.0, 2.0, 5.0, 10.0)  # before each try of a run; another where the generator was late


@dataclass(frozen=True)
class Observed:
    """A real pod under Poisson arrivals.

    Attributes:
        rate: Requests a second.
        in_flight: Mean in the server: rate times the server's mean time a request (Little's law).
        waiting: Mean of them in no batch yet.
        batch: Mean batch.
        p50_ms: Of a request's time, seen by the generator.
        p99_ms: Of the same.
        valid: The generator kept its schedule; if not, something else used the machine, and the figures say little.
    """

    rate: float
    in_flight: float
    waiting: float
    batch: float
    p50_ms: float
    p99_ms: float
    valid: bool


def measure(model: str, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it, as :func:`proofs.service.load` reads it; some three minutes.

    Raises:
        InputError: There is no such recipe, or only one core.
        CheckFailed: The server does not start.
    """
    path = Path("build/recipes", f"{model}.yaml")
    if not path.is_file():
        raise InputError(f"there is no recipe {path}", "MODEL=efficientnet_lite0")
    cores = divide()
    batching = recipe.Batching(instances=1, threads=1, max_batch_size=MAX_BATCH)
    wanted = recipe.load(path).model_copy(update={"batching": batching})
    with tempfile.TemporaryDirectory(prefix="tritonkit-autoscaler-") as directory:
        repository = Path(directory, "model_repository")
        say("build")
        pipeline.build([wanted], repository, "cpu", pipeline.Options(force="int8"))
        server_core = [cores.server[0]]
        loads = []
        for _ in range(STARTS):
            say("start the server")
            began = time.monotonic()
            with TritonServer(repository, cores=server_core, exit_timeout_s=1):
                loads.append(time.monotonic() - began)
        with (
            TritonServer(repository, cores=server_core, exit_timeout_s=1) as server,
            Generator(server.grpc_url, recipes=[path], core=cores.generator[0]) as generator,
        ):
            rows, spread = _service(server, wanted, say)
            capacity = max(row["batch"] / row["seconds"] for row in rows)
            observed = [_observe(generator, share * capacity, say) for share in SHARES]
    limits = wanted.batching
    return {
        "model": model, "precision": "int8", "max_batch_size": MAX_BATCH,
        "queue_delay_s": limits.max_queue_delay_us / 1e6, "max_queue_size": limits.max_queue_size or QUEUE,
        "service": rows, "cv": spread, "load_s": round(statistics.median(loads), 2), "loads_s": loads,
        "observed": [asdict(one) for one in observed], "cores": str(cores), "machine": environment.machine(),
        "load_average": os.getloadavg()[0],
    }  # fmt: skip


def _service(
    server: TritonServer, wanted: recipe.Recipe, say: Callable[[str], None]
) -> tuple[list[dict[str, float]], float]:
    """Seconds that a batch of each size takes in the server, and how much one sample's times vary.

    A batch is sent as one request, so that its size is known, and nothing else is sent meanwhile. Seconds are from
    Triton's own statistics, from the request's arrival to its answer: the way to the caller is not in them. Of the
    tries it is the fastest: another process on the machine only ever makes one slower.
    """
    found = [samples.resized(one, wanted, wanted.sizes("opt")) for one in samples.load(wanted, MAX_BATCH)]
    batches = {size: samples.batch(found, size) for size in SIZES}
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    with Client(server.grpc_url) as client:
        for turn in range(TRIES):
            if turn % 10 == 0:
                say(f"batches of {min(SIZES)} to {max(SIZES)}, try {turn + 1} of {TRIES}")
            for size, inputs in batches.items():
                before = client.statistics(wanted.name)[0].success.total_ns
                client.infer(wanted.name, inputs)
                times[size].append(_settled(client, wanted.name, before) / 1e9)
    rows = [{"batch": size, "seconds": round(min(times[size]), 6)} for size in SIZES]
    quiet = sorted(times[SIZES[0]])[: TRIES // 2]
    return rows, round(statistics.pstdev(quiet) / statistics.mean(quiet), 3)


def _settled(client: Client, model: str, before: int) -> int:
    """Nanoseconds that the last request added; the server counts it a moment after it has answered."""
    for _ in range(100):
        if (now := client.statistics(model)[0].success.total_ns) > before:
            return now - before
        time.sleep(0.001)
    raise CheckFailed("the server does not count its requests", "read its log")


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


def write(path: Path, said: dict[str, Any]) -> Service:
    """Keep what was measured, whole or not at all, and read it back."""
    from proofs.service import load

    atomic.write(path, (json.dumps(said, indent=2) + "\n").encode())
    return load(path)


def observed(said: dict[str, Any]) -> Sequence[Observed]:
    """The rates, from the file's content."""
    return [Observed(**one) for one in said["observed"]]
