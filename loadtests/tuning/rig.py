"""One real server and one generator for many configurations of one model: sets them, and runs rates against them.

The server runs under explicit model control, so that a configuration costs the model's loading and not a start. Its
repository is a build of the recipe in a temporary place, with a graph for every variant; nothing of the user's is
touched.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from google.protobuf import json_format
from load.generator import Generator
from load.plan import Plan
from load.target import Target

from tritonkit import exporting, pipeline, queue_limits, store, trees
from tritonkit.errors import CheckFailed
from tritonkit.precision import variants
from tritonkit.queue_limits import QueueLimits
from tritonkit.recipe import ForestRecipe, Precision, Recipe, Slo
from tritonkit.repository import config, layout
from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError
from tuning import space
from tuning.asking import Asker
from tuning.cores import Cores
from tuning.limit import Probe
from tuning.space import Settings

PAUSES_S = (0.0, 1.0)  # before another try of a rate that the generator could not keep: time is short
LOAD_S = 120.0  # for a model to be loaded
SETTLES_S = 10.0  # for the processes of the model before to end


@dataclass(frozen=True)
class Built:
    """A recipe's build, made to be tuned.

    Attributes:
        recipe: Without a precision of its own choice.
        repository: Where it lies, with every variant's graph.
        target: What it runs on.
        chosen: The precision that the gate finds fastest.
        accurate: Those that are near enough to fp32, each with the requests a second of a caller who waits for
            each answer, as the gate timed single samples; None where it timed none.
        graphs: SHA-256 of each one's graph.
        limits: Of the queue, as what is served now has them.
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
        said = pipeline.build([plain], repository, target).models[recipe.name]
        if isinstance(plain, ForestRecipe):
            yield Built(plain, repository, target, "fp32", {"fp32": None}, {"fp32": said["key"]})
            return
        single_ms = {row["precision"]: row["single_ms"] for row in said["gate"] if row["accurate"]} or {"fp32": None}
        accurate = {precision: 1000 / time_ms if time_ms else None for precision, time_ms in single_ms.items()}
        base = exporting.exported(plain)[0]
        made = {precision: variants.make(plain, base, target, precision)[0] for precision in accurate}
        for precision, artifact in made.items():
            _place(artifact, precision, repository / recipe.name / str(recipe.number))
        graphs = {precision: str(artifact.about["graph_sha256"]) for precision, artifact in made.items()}
        limits = QueueLimits(**said["queue"]) if said["queue"] else None
        yield Built(plain, repository, target, said["precision"], accurate, graphs, limits)


def _place(artifact: store.Artifact, precision: Precision, version: Path) -> None:
    (version / _graph_file(precision)).symlink_to(artifact.graph)
    for weights in artifact.path.glob(f"{store.GRAPH}?*"):  # beside a large graph, which names them
        if not (version / weights.name).exists():
            (version / weights.name).symlink_to(weights)


def _graph_file(precision: Precision) -> str:
    return f"{precision}.onnx"


class Rig:
    """A server and a generator; use it as a context manager.

    Args:
        made: From :func:`built`.
        slo: What runs are held against.
        plan: How long a run is, and what it sends.
        cores: Who runs where.
    """

    def __init__(self, made: Built, slo: Slo, plan: Plan, cores: Cores) -> None:
        self.made = made
        self.slo, self._plan, self._cores = slo, plan, cores
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Rig:
        with contextlib.ExitStack() as stack:
            arguments = ["--model-control-mode=explicit"]
            self._server = stack.enter_context(
                TritonServer(self.made.repository, cores=self._cores.server, arguments=arguments, exit_timeout_s=1)
            )
            self._client = stack.enter_context(Client(self._server.grpc_url, timeout=LOAD_S, retry=None))
            generator = stack.enter_context(
                Generator(
                    self._server.grpc_url, recipes=[self.made.recipe.path], core=self._cores.generator[0],
                    processes=len(self._cores.generator),
                )
            )  # fmt: skip
            self._asker = Asker(generator, self.slo, self._plan, lenient=self.made.target == "cuda", pauses_s=PAUSES_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def senders(self) -> int:
        """Processes of the generator."""
        return len(self._cores.generator)

    @property
    def late_at(self) -> list[float]:
        """Rates that the generator could not keep."""
        return self._asker.late_at

    def configure(self, settings: Settings) -> None:
        """Serve the model with these settings and no others.

        Raises:
            CheckFailed: The server does not load it so.
        """
        name = self.made.recipe.name
        try:
            self._client.unload(name)
            self._settle(0)
            self._client.load(name, config=self._configuration(settings))
        except TritonkitClientError as error:
            raise CheckFailed(f"{name} with {settings} is not served: {error}", "read the server's words") from error

    def ask(self, rate: float, seconds: float | None = None) -> Probe:
        """Run one rate, for as long as the plan says if not given."""
        plan = self._plan if seconds is None else replace(self._plan, duration_s=seconds)
        self._asker.plan = plan
        return self._asker(rate)

    def _configuration(self, settings: Settings) -> dict[str, object]:
        recipe, target = self.made.recipe, self.made.target
        said = config.parse((self.made.repository / recipe.name / layout.CONFIG).read_text(encoding="utf-8"))
        if settings == space.of_recipe(recipe, self.made.chosen, target):
            wanted = queue_limits.applied(recipe, target, self.made.limits)  # with the batches that its SLO prefers
        else:
            wanted = recipe.model_copy(update={"batching": settings.batching(recipe, self.made.chosen, target)})
        if isinstance(wanted, ForestRecipe):
            trees.set_batching(said, wanted, target)
        else:
            config.set_batching(said, wanted, target)
            said.default_model_filename = _graph_file(settings.precision)
        if said.HasField("dynamic_batching"):
            # Bounds follow from what is measured here, and make the embedded Triton stall (docs/decisions/0003).
            said.dynamic_batching.ClearField("default_queue_policy")
        plain: dict[str, object] = json_format.MessageToDict(said, preserving_proto_field_name=True)
        return plain

    def _settle(self, processes: int) -> None:
        """Wait until the processes of the model before have ended: they would take time from the next one."""
        server = psutil.Process(self._server.pid)
        end = time.monotonic() + SETTLES_S
        while len(server.children()) > processes and time.monotonic() < end:
            time.sleep(0.02)
