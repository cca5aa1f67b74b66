"""One real server and one generator for many configurations of one model: sets them, and runs rates against them.

The server runs under explicit model control, so that a configuration costs the model's loading and not a start. Its
repository is a build of the recipe in a temporary place, with a graph for every variant; nothing of the user's is
touched.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import psutil
from google.protobuf import json_format

from tritonkit import cached_export, pipeline, queue_limits, store, trees
from tritonkit.errors import CheckFailed, TritonkitError
from tritonkit.precision import variants
from tritonkit.queue_limits import QueueLimits
from tritonkit.recipe import ForestRecipe, Precision, Recipe, Slo
from tritonkit.repository import config, layout
from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.target import Target
from tritonkit_load.tuning import space
from tritonkit_load.tuning.cores import Cores
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.losses import ServerLost
from tritonkit_load.tuning.probing import Asker
from tritonkit_load.tuning.space import Settings

PAUSES_S = (0.0, 1.0)  # before another try of a rate that the generator could not keep: time is short
LOAD_S = 120.0  # for a model to be loaded
SETTLES_S = 30.0  # for the processes of the model before to end: each instance takes a second, one after another
# What Triton tells callers of a process that did not run for a second. It goes on, and its late answer becomes the next
# request's, until that ends the server (docs/decisions/0033).
UNHEALTHY = "is not healthy"
ENDS_S = 2.0  # for a server that is dying to be gone, once its callers have noticed


@dataclass(frozen=True)
class Built:
    """A recipe's build for a search.

    Attributes:
        recipe: Without a precision of its own choice.
        repository: Where it lies, with every variant's graph.
        target: What it runs on.
        chosen: The precision that the gate finds fastest.
        accurate: Those that are near enough to fp32, each with the requests a second of a caller who waits for
            each answer, as the gate timed single samples; None where it timed none.
        graphs: SHA-256 of each one's graph.
        limits: The queue's bounds in what is served now.
    """

    recipe: Recipe
    repository: Path
    target: Target
    chosen: Precision
    accurate: Mapping[Precision, float | None]
    graphs: Mapping[Precision, str]
    limits: QueueLimits | None = None


@contextlib.contextmanager
def built(recipe: Recipe, target: Target = "cpu") -> Iterator[Built]:
    """Build a recipe into a temporary repository that has the graphs of all its accurate variants."""
    alone = {"batching": recipe.batching.model_copy(update={"precision": None}), "traffic": {}}
    plain = recipe.model_copy(update=alone)
    with tempfile.TemporaryDirectory(prefix="tritonkit-tune-") as directory:
        repository = Path(directory, "model_repository")
        model = pipeline.build([plain], repository, target).models[recipe.name]
        if isinstance(plain, ForestRecipe):
            yield Built(plain, repository, target, "fp32", {"fp32": None}, {"fp32": model.key})
            return
        single_ms: dict[Precision, float | None] = {row.precision: row.single_ms for row in model.gate if row.accurate}
        single_ms = single_ms or {"fp32": None}
        accurate = {precision: 1000 / time_ms if time_ms else None for precision, time_ms in single_ms.items()}
        base = cached_export.exported(plain)[0]
        artifacts = {precision: variants.make(plain, base, target, precision)[0] for precision in accurate}
        for precision, artifact in artifacts.items():
            _place(artifact, precision, repository / recipe.name / str(recipe.number))
        graphs = {precision: artifact.record.graph_sha256 for precision, artifact in artifacts.items()}
        yield Built(plain, repository, target, model.precision, accurate, graphs, model.queue)


def _place(artifact: store.Artifact, precision: Precision, version: Path) -> None:
    (version / _graph_file(precision)).symlink_to(artifact.graph)
    for weights in artifact.path.glob(f"{store.GRAPH}?*"):  # beside a large graph, which names them
        if not (version / weights.name).exists():
            (version / weights.name).symlink_to(weights)


def _graph_file(precision: Precision) -> str:
    return f"{precision}.onnx"


class TrialServer:
    """A server and a generator; use it as a context manager.

    Args:
        build: From :func:`built`.
        slo: What runs are held against.
        plan: How long a run is, and what it sends.
        cores: Who runs where.

    Attributes:
        lost: Each server that ended, and with which settings.
    """

    def __init__(self, build: Built, slo: Slo, plan: Plan, cores: Cores) -> None:
        self.build = build
        self.slo, self._plan, self._cores = slo, plan, cores
        self.lost: list[str] = []
        self._settings: Settings | None = None
        self._asker: Asker | None = None
        self._generator: Generator | None = None
        self._stack, self._generator_stack = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self) -> TrialServer:
        try:
            self._start()
        except BaseException:
            self._generator_stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._generator_stack.close()

    @property
    def senders(self) -> int:
        """Processes of the generator."""
        return len(self._cores.generator)

    @property
    def late_at(self) -> list[float]:
        """Rates that the generator could not keep."""
        return self._asker.late_at if self._asker else []

    def configure(self, settings: Settings) -> None:
        """Serve the model with these settings and no others.

        No request is under way when it is called: a run ends with its last answer. Nothing is loaded before the
        processes of the configuration before have ended.

        Raises:
            CheckFailed: The server does not load it so.
            ServerLost: The server ended; another one runs now.
        """
        name = self.build.recipe.name
        self._settings = settings
        try:
            self._client.unload(name)
            self._settle()
            self._client.load(name, config=self._configuration(settings))
        except TritonkitClientError as error:
            self._replace_if_lost(ENDS_S)
            raise CheckFailed(f"{name} with {settings} is not served: {error}", "read the server's words") from error

    def ask(self, rate: float, seconds: float | None = None) -> Probe:
        """Run one rate, for as long as the plan says if not given.

        Raises:
            ServerLost: The server, or a process of its model, ended meanwhile; another server runs now, without the
                model.
        """
        assert self._asker is not None
        plan = self._plan if seconds is None else replace(self._plan, duration_s=seconds)
        self._asker.plan = plan
        try:
            probe = self._asker(rate)
        except TritonkitError:  # nobody answers any more, say
            self._replace_if_lost(ENDS_S)
            raise
        self._replace_if_lost(ENDS_S if probe.error_rate else 0.0)
        if any(UNHEALTHY in message for message in self._asker.results[-1].model.messages.values()):
            self._replace("Triton gave up a process of its model that was slow")
        return probe

    def _start(self) -> None:
        with contextlib.ExitStack() as stack:
            arguments = ["--model-control-mode=explicit"]
            self._server = stack.enter_context(
                TritonServer(self.build.repository, cores=self._cores.server, arguments=arguments, exit_timeout_s=1)
            )
            self._client = stack.enter_context(Client(self._server.grpc_url, timeout=LOAD_S, retry=None))
            self._aim(self._server.grpc_url)
            self._stack = stack.pop_all()

    def _aim(self, host: str) -> None:
        """Let the generator send to the server that runs now; it survives servers, as its start takes seconds."""
        if self._generator is None or not self._generator.runs:
            self._generator_stack.close()
            self._generator = self._generator_stack.enter_context(
                Generator(
                    host, recipes=[self.build.recipe.path], core=self._cores.generator[0],
                    processes=len(self._cores.generator),
                )
            )  # fmt: skip
        self._generator.host = host
        if self._asker is None:
            lenient = self.build.target == "cuda"
            self._asker = Asker(self._generator, self.slo, self._plan, lenient=lenient, pauses_s=PAUSES_S)
        self._asker.generator = self._generator

    def _replace_if_lost(self, wait_s: float) -> None:
        """Start another server if this one, or a process of its model, has ended.

        Args:
            wait_s: How long to look for it.

        Raises:
            ServerLost: the server, or a process of its model, had ended.
        """
        if reason := self._loss(wait_s):
            self._replace(reason)

    def _replace(self, reason: str) -> NoReturn:
        self.lost.append(f"{reason} with {self._settings}")
        self._stack.close()
        self._start()
        raise ServerLost(f"the server was lost: {self.lost[-1]}")

    def _loss(self, wait_s: float) -> str:
        """What has ended, in words; empty where all that should run does."""
        deadline = time.monotonic() + wait_s
        while True:
            if (status := self._server.wait(0)) is not None:
                return f"tritonserver {_ending(status)}"
            if any(process.status() == psutil.STATUS_ZOMBIE for process in self._processes()):
                return "a process of its model ended"
            if time.monotonic() >= deadline:
                return ""
            time.sleep(0.05)

    def _processes(self) -> list[psutil.Process]:
        """The processes of its models."""
        try:
            return psutil.Process(self._server.pid).children()
        except psutil.NoSuchProcess:
            return []

    def _configuration(self, settings: Settings) -> dict[str, object]:
        recipe, target = self.build.recipe, self.build.target
        model_config = config.parse((self.build.repository / recipe.name / layout.CONFIG).read_text(encoding="utf-8"))
        if settings == space.of_recipe(recipe, self.build.chosen, target):
            effective = queue_limits.applied(recipe, target, self.build.limits)  # with the batches that its SLO prefers
        else:
            effective = recipe.model_copy(update={"batching": settings.batching(recipe, self.build.chosen, target)})
        if isinstance(effective, ForestRecipe):
            trees.set_batching(model_config, effective, target)
        else:
            config.set_batching(model_config, effective, target)
            model_config.default_model_filename = _graph_file(settings.precision)
        if model_config.HasField("dynamic_batching"):
            # Bounds follow from what is measured here, and make the embedded Triton stall (docs/decisions/0003).
            model_config.dynamic_batching.ClearField("default_queue_policy")
        plain: dict[str, object] = json_format.MessageToDict(model_config, preserving_proto_field_name=True)
        return plain

    def _settle(self) -> None:
        """Wait until the processes of the model before have ended.

        They would take time from the next one, and a server that loads a model which it still unloads may end.
        """
        deadline = time.monotonic() + SETTLES_S
        while self._processes():
            if time.monotonic() > deadline:
                self._replace(f"it did not unload the model in {SETTLES_S:.0f} s")
            time.sleep(0.02)


def _ending(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
