"""A model behind the real Triton, as `tritonkit build --target cuda` configures it, beside the same graph in here.

Rounds are interleaved: each has the graph in this process while the server rests, then every load on the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tritonkit.errors import CheckFailed
from tritonkit.parity import ALONE_FACTOR, distance
from tritonkit.server import TritonServer
from tritonkit_client import Client
from tritonkit_load.benchmarks.gpu import callers, device, inprocess, models
from tritonkit_load.benchmarks.gpu.inprocess import Effort, Prepared
from tritonkit_load.benchmarks.gpu.models import Model
from tritonkit_load.benchmarks.gpu.rounds import ratios, run_ms, spread
from tritonkit_load.reporting.gpu_result import Load, Memory, Mixed, Scaling, Served
from tritonkit_load.reporting.page import counted

READY_S = 400.0  # every instance prepares its sizes after the one before
MIB = 2**20
# The backend's line of an instance: "…; one CUDA graph each; on NVIDIA H200 context 555, weights 106, sizes 1432 MiB".
_PREPARED = re.compile(r"sizes prepared in .* on .* context (\d+), weights (\d+), sizes (\d+) MiB")
Step = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is put on one server.

    Attributes:
        in_flight: Numbers of requests, in the order of their turns.
        effort: How much.
        processes: Callers.
    """

    in_flight: tuple[int, ...]
    effort: Effort
    processes: int


@dataclass
class Running:
    """A server with one model, its callers, and the files with their requests."""

    model: Model
    server: TritonServer
    client: Client
    callers: callers.Callers
    folder: Path
    ready_s: float
    memory: Memory
    files: dict[str, Path] = field(default_factory=dict)

    def load(self, in_flight: int, effort: Effort, lengths: Sequence[int] = (), name: str = "equal") -> Sample:
        """Put one load on it, and take its figures.

        Args:
            in_flight: Requests.
            effort: For how long.
            lengths: Of texts, in turn.
            name: Of these requests; made once.
        """
        if name not in self.files:
            count = max(len(lengths), models.REQUESTS)
            self.files[name] = self.folder / f"{self.model.name}.{name}.requests"
            singles = self.model.singles(count, lengths)
            weights = [next(iter(single.values())).shape[1] if self.model.of_texts else 1 for single in singles]
            bodies = [models.message(self.model.name, single) for single in singles]
            callers.write_requests(self.files[name], list(zip(bodies, weights, strict=True)))
        before, clock = self._counts(), time.perf_counter()
        load = self.callers.run(self.files[name], in_flight, effort.seconds, effort.warm_up_s)
        after, seconds = self._counts(), time.perf_counter() - clock
        samples, executions, server_s, instances_s = (new - old for new, old in zip(after, before, strict=True))
        return Sample(load, samples / max(executions, 1), server_s / seconds, instances_s / seconds)

    def _counts(self) -> tuple[float, float, float, float]:
        """Samples, executions, and seconds of CPU of the server and of its instances, so far."""
        (statistics,) = self.client.statistics(self.model.name)
        process = psutil.Process(self.server.pid)
        server_s = sum(process.cpu_times()[:2])
        instances_s = 0.0
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                instances_s += sum(child.cpu_times()[:2])
        return statistics.inference_count, statistics.execution_count, server_s, instances_s


@dataclass(frozen=True)
class Sample:
    """One load of one round."""

    load: callers.Load
    batch: float
    server_cores: float
    instance_cores: float


@contextmanager
def running(
    model: Model, instances: int, folder: Path, processes: int, *, only_first_gpu: bool = False, queue: int = 0
) -> Iterator[Running]:
    """Start a server on one model, and the callers.

    Args:
        model: Which one.
        instances: On each GPU.
        folder: For its repository, log and requests.
        processes: Callers.
        only_first_gpu: Leave the other GPUs out.
        queue: Requests that may wait, instead of what the configuration says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    repository = models.laid_out(model, instances, folder, queue)
    log = folder / f"{repository.name}.log"
    before, start = device.used_bytes(), time.monotonic()
    with _visible(first=only_first_gpu):
        server = TritonServer(repository, timeout_s=READY_S, log=log).start()
    try:
        ready_s = time.monotonic() - start
        reported = _reported(log, model)
        memory = Memory(instances, *reported, device=device.used_bytes() - before)
        with Client(server.grpc_url) as client, callers.Callers(server.grpc_url, processes) as many:
            yield Running(model, server, client, many, folder, ready_s, memory)
    finally:
        server.stop()


def measure(running: Running, prepared: Prepared, plan: Plan, gpus: int, step: Step) -> Served:
    """Every load in every round, beside the graph in this process.

    Raises:
        CheckFailed: An answer is not the graph's, or nothing is answered.
    """
    model, execution, effort = running.model, prepared.execution, plan.effort
    check(running, prepared)
    largest = execution.sizes.batches[-1]
    full, single = models.joined(model.singles(largest)), model.singles(1)[0]
    for feed in (full, single):
        execution.run([feed])
    alone_ms, alone_per_s = [], []
    samples: dict[int, list[Sample]] = {count: [] for count in plan.in_flight}
    for number in range(effort.rounds):
        step(f"{model.name} {model.precision}, {counted(running.memory.instances, 'instance')}: round {number + 1}")
        alone_per_s.append(1000 * largest / run_ms(lambda: execution.run([full]), effort.turn_s))
        alone_ms.append(run_ms(lambda: execution.run([single]), effort.turn_s))
        for count in plan.in_flight:
            samples[count].append(running.load(count, effort))
    best = [max(samples[count][number].load.rate for count in plan.in_flight) for number in range(effort.rounds)]
    above = [sample.load.p50_ms - ms for sample, ms in zip(samples.get(1, []), alone_ms, strict=False)]
    return Served(
        model=model.name,
        precision=model.precision,
        instances=running.memory.instances,
        gpus=gpus,
        ready_s=running.ready_s,
        loads=tuple(_load(count, runs) for count, runs in samples.items()),
        alone_per_s=spread(alone_per_s),
        alone_ms=spread(alone_ms),
        ratio=ratios(best, alone_per_s),
        above_ms=spread(above) if above else None,
        memory=running.memory,
    )


def mixed(running: Running, plan: Plan, step: Step) -> Mixed:
    """Texts of many lengths against texts of one, with the most requests in flight."""
    model, effort, most = running.model, plan.effort, plan.in_flight[-1]
    lengths = models.lengths(4 * models.REQUESTS)
    mixed_per_s, equal_per_s = [], []
    for number in range(effort.rounds):
        step(f"{model.name} {model.precision}: mixed lengths, round {number + 1}")
        mixed_per_s.append(running.load(most, effort, lengths, "mixed").load.weight_rate)
        equal_per_s.append(running.load(most, effort).load.weight_rate)

    def served(rows: Sequence[Any]) -> list[list[Any]]:
        with ThreadPoolExecutor(len(rows)) as pool:  # all at once, so that they share batches
            answers = pool.map(lambda row: running.client.infer(model.name, row), rows)
            return [list(answer.values()) for answer in answers]

    return Mixed(
        model=model.name,
        precision=model.precision,
        where="served",
        lengths=inprocess.mixed_lengths(),
        mixed_per_s=spread(mixed_per_s),
        equal_per_s=spread(equal_per_s),
        ratio=ratios(mixed_per_s, equal_per_s),
        error=inprocess.padding_error(model, served, 0, inprocess.TEXTS_CHECKED),
        tolerance=model.recipe.tolerance * ALONE_FACTOR,
    )


def scaling(model: Model, instances: int, gpus: int, folder: Path, plan: Plan, step: Step) -> tuple[Scaling, ...]:
    """All GPUs against the first one, on two servers that take turns."""
    step(f"{model.name} {model.precision}: a server on {gpus} GPUs, and one on the first of them")
    rates: dict[tuple[str, int], list[float]] = {}
    queue = 2 * max(plan.in_flight)  # one GPU's queue must hold what two GPUs' instances run
    with (
        running(model, instances, folder / "all", plan.processes, queue=queue) as everywhere,
        running(model, instances, folder / "one", plan.processes, only_first_gpu=True, queue=queue) as first,
    ):
        for number in range(plan.effort.rounds):
            step(f"{model.name} {model.precision}: {gpus} GPUs against one, round {number + 1}")
            for count in plan.in_flight:
                for name, server in (("one", first), ("all", everywhere)):
                    rates.setdefault((name, count), []).append(server.load(count, plan.effort).load.rate)
    scalings = []
    for count in plan.in_flight:
        first_rates, all_rates = rates["one", count], rates["all", count]
        ratio = ratios(all_rates, first_rates)
        scalings.append(
            Scaling(model.name, model.precision, instances, gpus, count, spread(first_rates), spread(all_rates), ratio)
        )
    return tuple(scalings)


def check(running: Running, prepared: Prepared) -> None:
    """Compare a few answers with those of the graph in this process.

    Raises:
        CheckFailed: An answer differs by more than rounding.
    """
    model = running.model
    singles = model.singles(8, models.lengths(8))
    for single in singles:
        (expected,) = prepared.execution.run([single])
        answer = running.client.infer(model.name, single)
        error = max(distance(right, got)[1] for right, got in zip(expected, answer.values(), strict=True))
        if not error <= inprocess.WORST_ERROR:
            raise CheckFailed(
                f"{model.name} {model.precision}: the server's answer is {error:.1e} off the graph's in this process",
                f"at most {inprocess.WORST_ERROR:g} is rounding; read the server's log",
            )


def _load(count: int, samples: Sequence[Sample]) -> Load:
    def mean(name: str) -> float:
        return sum(float(getattr(sample, name)) for sample in samples) / len(samples)

    loads = [sample.load for sample in samples]
    return Load(
        in_flight=count,
        rate=spread([load.rate for load in loads]),
        p50_ms=spread([load.p50_ms for load in loads]),
        p99_ms=spread([load.p99_ms for load in loads]),
        batch=mean("batch"),
        failed=sum(load.failed for load in loads),
        server_cores=mean("server_cores"),
        instance_cores=mean("instance_cores"),
        caller_cores=sum(load.caller_cores for load in loads) / len(loads),
    )


def _reported(log: Path, model: Model) -> tuple[int, int, int]:
    """Bytes of context, session and sizes of one instance, the mean of all, from the server's log.

    Raises:
        CheckFailed: No instance says that it prepared sizes.
    """
    memories = [
        tuple(int(mib) * MIB for mib in match.groups())
        for match in _PREPARED.finditer(log.read_text(encoding="utf-8", errors="replace"))
    ]
    if not memories:
        raise CheckFailed(f"no instance of {model.name} prepared sizes", f"read {log}")
    context, session, sizes = (round(sum(part) / len(memories)) for part in zip(*memories, strict=True))
    return context, session, sizes


@contextmanager
def _visible(*, first: bool) -> Iterator[None]:
    """Let what is started in the block see the first GPU only."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if first:
        os.environ["CUDA_VISIBLE_DEVICES"] = (before or "0").split(",")[0]
    try:
        yield
    finally:
        if first and before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        elif first and before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def fewer(plan: Plan) -> Plan:
    """The same for a number of instances that is not the built one: the most in flight only, in two rounds."""
    return replace(plan, in_flight=plan.in_flight[-1:], effort=replace(plan.effort, rounds=min(plan.effort.rounds, 2)))
