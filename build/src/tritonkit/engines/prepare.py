"""Puts the plan that this node's GPU needs into every model of a repository: from the cache, else by building it.

Runs in a pod before Triton starts. Whether the models may then run here is for :mod:`tritonkit.engines.check`, how
plans are shared for :mod:`tritonkit.engines.cache`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tritonkit import external_data, gpus, progress
from tritonkit.engines import builder, check, jobs, node, plans
from tritonkit.engines import passport as passports
from tritonkit.engines.cache import Absent, Cache, Key, why_read_only
from tritonkit.engines.jobs import Job
from tritonkit.errors import CheckFailed, InputError, OutputError, TritonkitError
from tritonkit.repository import model_directory
from tritonkit.repository.model_directory import CONFIG, ENGINE_GRAPH, PLAN

State = Literal["nothing", "present", "cached", "built", "failed"]
_SAY_EVERY_S = 10.0
_POLL_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """The result of preparing one model.

    Attributes:
        model: Its name.
        state: ``nothing`` to build; the plan was ``present``, ``cached`` or ``built``; or it ``failed``.
        text: The same as a sentence.
        seconds: What it took.
    """

    model: str
    state: State
    text: str
    seconds: float


@dataclass(frozen=True)
class _PlanRequest:
    """A plan that the node needs, and the file that Triton will look for."""

    job: Job
    target: Path
    key: Key


def run(
    repository: Path,
    cache: Cache,
    options: builder.Options,
    wait_s: float | None = None,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Prepare every model.

    Args:
        repository: The model repository; plans are written into the models' version directories.
        cache: Where plans are shared.
        options: How plans are built.
        wait_s: Build nothing; wait this many seconds for others to fill the cache. None builds.
        tell: Called with each outcome as it comes.

    Returns:
        One outcome for each model, in the order of their names. A build that fails is an outcome: the passport check
        decides whether the model's fallback serves instead.

    Raises:
        InputError: The repository is missing, or a model in it is broken.
        OutputError: The repository cannot be written.
        MissingError: TensorRT is not installed here.
        CheckFailed: ``wait_s`` is over and plans are missing, or the GPUs here are of several kinds.
    """
    if not repository.is_dir():
        raise InputError(f"there is no repository {repository}", "name it with --repository")
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    here = node.read()
    requests = []
    for directory in sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")):
        start = time.monotonic()
        request = _request_for(directory, here, options)
        if isinstance(request, _PlanRequest):
            requests.append(request)
        else:
            state, text = request
            report(Outcome(directory.name, state, text, time.monotonic() - start))
    if wait_s is None:
        for request in requests:
            report(_get(request, cache, options, here.gpus[0]))
    else:
        _collect(requests, cache, wait_s, report)
    return sorted(outcomes, key=lambda outcome: outcome.model)


def _request_for(directory: Path, here: node.Node, options: builder.Options) -> _PlanRequest | tuple[State, str]:
    """The plan that a model lacks here; or why nothing is to be done."""
    if not any(directory.glob(f"*/{ENGINE_GRAPH}")):
        return "nothing", f"no {ENGINE_GRAPH}: nothing to build"
    job, recipe, version = jobs.from_directory(directory, None)
    if not here.gpus:
        return "failed", "no GPU is visible here (nvidia-smi is missing or shows none): no plan can be chosen"
    gpu = _one_kind(here.gpus)
    name = _file_name(directory, gpu)
    if name is None:
        return "failed", (
            f"{CONFIG} names no plan for {gpu.name} (compute capability {gpu.compute}), only for "
            f"{', '.join(recipe.gpus)}: add this GPU to the recipe's `gpus` and build the repository again"
        )
    if _fits(version / name, job, here):
        return "present", f"{version.name}/{name} is in the repository and fits"
    why = why_read_only(version)
    if why:
        raise OutputError(
            f"{version} cannot be written ({why}), and the plan for {gpu.name} belongs there",
            "copy the repository to a volume that can be written (an emptyDir) before this runs: the chart's "
            "models.fetch does so; or mount the claim without readOnly",
        )
    return _PlanRequest(job, version / name, Key.of(job, builder.load("tensorrt").version, gpu.capability, options))


def _one_kind(gpus: Sequence[node.NodeGpu]) -> node.NodeGpu:
    if len({gpu.capability for gpu in gpus}) > 1:
        raise CheckFailed(
            f"this pod sees GPUs of several kinds: {', '.join(f'{gpu.name} ({gpu.compute})' for gpu in gpus)}",
            "give a pod GPUs of one kind",
        )
    return gpus[0]


def _file_name(directory: Path, gpu: node.NodeGpu) -> str | None:
    """What Triton loads on this GPU; None where the configuration names plans, and none for this GPU."""
    path = directory / CONFIG
    configuration = model_directory.read_config(path)
    if configuration is None:
        raise InputError(f"{path} is not there", "build the model again")
    if configuration.cc_model_filenames:
        return (
            str(configuration.cc_model_filenames[gpu.compute])
            if gpu.compute in configuration.cc_model_filenames
            else None
        )
    return configuration.default_model_filename or PLAN


def _fits(plan: Path, job: Job, here: node.Node) -> bool:
    if not plan.is_file() or check.check_plan(plan, here):
        return False
    passport = passports.read(plan)
    return passport.graph_sha256 == external_data.graph_sha256(job.graph) and passport.precision == job.precision


def _get(request: _PlanRequest, cache: Cache, options: builder.Options, here: node.NodeGpu) -> Outcome:
    start = time.monotonic()
    try:
        state, text = _from_cache_or_built(request, cache, options, here)
    except (TritonkitError, OSError) as error:
        state, text = "failed", f"no plan: {error}"
    return Outcome(request.job.model, state, text, time.monotonic() - start)


def _from_cache_or_built(
    request: _PlanRequest, cache: Cache, options: builder.Options, here: node.NodeGpu
) -> tuple[State, str]:
    placement, damage = _take(request, cache)
    if placement:
        return "cached", placement
    if why := why_read_only(cache.directory):
        built = _build(request, here, options, request.target.parent)
        if built.path != request.target:
            built.path.replace(request.target)
            passports.path_of(built.path).replace(passports.path_of(request.target))
        return (
            "built",
            f"built in {built.seconds:.1f} s, for this pod alone: {cache.directory} cannot be written ({why})",
        )
    with ExitStack() as held:
        with progress.task(request.job.model) as say:
            why = held.enter_context(cache.alone(request.key, _waiting(say)))
        placement, again = _take(request, cache)
        if placement:
            return "cached", f"{placement}; another process built it meanwhile"
        notes = [
            *([f"replaces a damaged entry: {again or damage}"] if again or damage else []),
            *([why] if why else []),
        ]
        stage = cache.stage(request.key)
        try:
            built = _build(request, here, options, stage)
            cache.keep(request.key, built.path)
        finally:
            _remove(stage)
    placement, damage = _take(request, cache)
    if not placement:
        raise OSError(f"the plan was built and cannot be read back from {cache.directory}: {damage or 'it is gone'}")
    return "built", "; ".join([f"built in {built.seconds:.1f} s, then {placement}", *notes, *built.notes])


def _build(request: _PlanRequest, here: node.NodeGpu, options: builder.Options, output: Path) -> plans.Built:
    """Build into ``output``, under the name that Triton looks for."""
    target = gpus.by_product(here.name) or gpus.uncatalogued(here.name, here.capability)
    (built,), _ = plans.build([request.job], [target], output, options)
    return built


def _remove(stage: Path) -> None:
    for path in (*stage.glob("*"), *stage.glob(".*")):
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        stage.rmdir()


def _take(request: _PlanRequest, cache: Cache) -> tuple[str, str]:
    """A sentence on how the plan was placed, or empty, and what is damaged in the cache."""
    version = request.target.parent
    with _one_at_a_time(version):
        try:
            how = cache.take(request.key, request.target)
        except Absent as error:
            return "", str(error)
    return f"{how} from {cache.directory / request.key.name} to {version.name}/{request.target.name}", ""


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Where pods share one repository, and its filesystem has locks, a plan and its passport change together."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _waiting(say: Callable[[str], None]) -> Callable[[float], None]:
    """Says now and then that another process is building."""
    times: list[float] = []

    def tell(seconds: float) -> None:
        if not times or seconds - times[-1] >= _SAY_EVERY_S:
            times.append(seconds)
            say("wait for another process, which builds this plan")

    return tell


def _collect(requests: Sequence[_PlanRequest], cache: Cache, wait_s: float, report: Callable[[Outcome], None]) -> None:
    start = time.monotonic()
    missing, damaged, printed_at = list(requests), dict[str, str](), -_SAY_EVERY_S
    with progress.task("engines") as say:
        while True:
            for request in list(missing):
                placement, damage = _take(request, cache)
                if placement:
                    missing.remove(request)
                    report(Outcome(request.job.model, "cached", placement, time.monotonic() - start))
                damaged[request.job.model] = damage
            waited = time.monotonic() - start
            if not missing or waited >= wait_s:
                break
            if waited - printed_at >= _SAY_EVERY_S:
                printed_at = waited
                names = ", ".join(request.job.model for request in missing)
                say(f"wait for the engine Job, at most {wait_s:.0f} s: {names}")
            time.sleep(min(_POLL_S, wait_s - waited))
    if missing:
        lines = [
            f"  {request.key.name}"
            + (f" (damaged: {damaged[request.job.model]})" if damaged[request.job.model] else "")
            for request in missing
        ]
        raise CheckFailed(
            f"not in {cache.directory} after {wait_s:.0f} s:\n" + "\n".join(lines),
            "read the log of the engine Job (kubectl get jobs): it must run on this kind of GPU, with this image and "
            "this cache; or let pods build for themselves: engineBuild.mode=init",
        )
