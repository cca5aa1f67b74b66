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

from google.protobuf import text_format

from tritonkit import external_data, gpus, progress
from tritonkit.engines import builder, check, jobs, node, passport, plans
from tritonkit.engines.cache import Absent, Cache, Key, why_read_only
from tritonkit.engines.jobs import Job
from tritonkit.errors import CheckFailed, InputError, OutputError, TritonkitError
from tritonkit.repository import config
from tritonkit.repository.layout import CONFIG

State = Literal["nothing", "present", "cached", "built", "failed"]
_SAY_EVERY_S = 10.0
_POLL_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What was done for one model.

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
class _Wanted:
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
        CheckFailed: With ``wait_s``: the time is over and plans are missing. Or the GPUs here are of several kinds.
    """
    if not repository.is_dir():
        raise InputError(f"there is no repository {repository}", "name it with --repository")
    outcomes: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    here = node.read()
    wanted = []
    for directory in sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")):
        start = time.monotonic()
        found = _wanted(directory, here, options)
        if isinstance(found, _Wanted):
            wanted.append(found)
        else:
            state, text = found
            told(Outcome(directory.name, state, text, time.monotonic() - start))
    if wait_s is None:
        for one in wanted:
            told(_get(one, cache, options, here.gpus[0]))
    else:
        _collect(wanted, cache, wait_s, told)
    return sorted(outcomes, key=lambda outcome: outcome.model)


def _wanted(directory: Path, here: node.Node, options: builder.Options) -> _Wanted | tuple[State, str]:
    """The plan that a model lacks here; or why nothing is to be done."""
    if not any(directory.glob(f"*/{jobs.GRAPH}")):
        return "nothing", f"no {jobs.GRAPH}: nothing to build"
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
    return _Wanted(job, version / name, Key.of(job, builder.load("tensorrt").version, gpu.capability, options))


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
    try:
        said = config.parse(path.read_text(encoding="utf-8"))
    except (OSError, text_format.ParseError) as error:
        raise InputError(f"{path} is no model configuration: {error}", "`tritonkit lint` says more") from error
    if said.cc_model_filenames:
        return str(said.cc_model_filenames[gpu.compute]) if gpu.compute in said.cc_model_filenames else None
    return said.default_model_filename or "model.plan"


def _fits(plan: Path, job: Job, here: node.Node) -> bool:
    if not plan.is_file() or check.check_plan(plan, here):
        return False
    said = passport.read(plan)
    return said.graph_sha256 == external_data.graph_sha256(job.graph) and said.precision == job.precision


def _get(wanted: _Wanted, cache: Cache, options: builder.Options, here: node.NodeGpu) -> Outcome:
    start = time.monotonic()
    try:
        state, text = _from_cache_or_built(wanted, cache, options, here)
    except (TritonkitError, OSError) as error:
        state, text = "failed", f"no plan: {error}"
    return Outcome(wanted.job.model, state, text, time.monotonic() - start)


def _from_cache_or_built(
    wanted: _Wanted, cache: Cache, options: builder.Options, here: node.NodeGpu
) -> tuple[State, str]:
    found, damage = _take(wanted, cache)
    if found:
        return "cached", found
    if why := why_read_only(cache.directory):
        built = _build(wanted, here, options, wanted.target.parent)
        if built.path != wanted.target:
            built.path.replace(wanted.target)
            passport.path_of(built.path).replace(passport.path_of(wanted.target))
        return (
            "built",
            f"built in {built.seconds:.1f} s, for this pod alone: {cache.directory} cannot be written ({why})",
        )
    with ExitStack() as held:
        with progress.task(wanted.job.model) as say:
            why = held.enter_context(cache.alone(wanted.key, _waiting(say)))
        found, again = _take(wanted, cache)
        if found:
            return "cached", f"{found}; another process built it meanwhile"
        notes = [
            *([f"replaces a damaged entry: {again or damage}"] if again or damage else []),
            *([why] if why else []),
        ]
        stage = cache.stage(wanted.key)
        try:
            built = _build(wanted, here, options, stage)
            cache.keep(wanted.key, built.path)
        finally:
            _remove(stage)
    found, damage = _take(wanted, cache)
    if not found:
        raise OSError(f"the plan was built and cannot be read back from {cache.directory}: {damage or 'it is gone'}")
    return "built", "; ".join([f"built in {built.seconds:.1f} s, then {found}", *notes, *built.notes])


def _build(wanted: _Wanted, here: node.NodeGpu, options: builder.Options, output: Path) -> plans.Built:
    """Build into ``output``, under the name that Triton looks for."""
    target = gpus.by_product(here.name) or gpus.uncatalogued(here.name, here.capability)
    (built,), _ = plans.build([wanted.job], [target], output, options)
    return built


def _remove(stage: Path) -> None:
    for path in (*stage.glob("*"), *stage.glob(".*")):
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        stage.rmdir()


def _take(wanted: _Wanted, cache: Cache) -> tuple[str, str]:
    """What was done, or empty and what is damaged."""
    version = wanted.target.parent
    with _one_at_a_time(version):
        try:
            how = cache.take(wanted.key, wanted.target)
        except Absent as error:
            return "", str(error)
    return f"{how} from {cache.directory / wanted.key.name} to {version.name}/{wanted.target.name}", ""


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
    said: list[float] = []

    def tell(seconds: float) -> None:
        if not said or seconds - said[-1] >= _SAY_EVERY_S:
            said.append(seconds)
            say("wait for another process, which builds this plan")

    return tell


def _collect(wanted: Sequence[_Wanted], cache: Cache, wait_s: float, told: Callable[[Outcome], None]) -> None:
    start = time.monotonic()
    missing, damaged, said_at = list(wanted), dict[str, str](), -_SAY_EVERY_S
    with progress.task("engines") as say:
        while True:
            for one in list(missing):
                found, damage = _take(one, cache)
                if found:
                    missing.remove(one)
                    told(Outcome(one.job.model, "cached", found, time.monotonic() - start))
                damaged[one.job.model] = damage
            waited = time.monotonic() - start
            if not missing or waited >= wait_s:
                break
            if waited - said_at >= _SAY_EVERY_S:
                said_at = waited
                names = ", ".join(one.job.model for one in missing)
                say(f"wait for the engine Job, at most {wait_s:.0f} s: {names}")
            time.sleep(min(_POLL_S, wait_s - waited))
    if missing:
        lines = [f"  {one.key.name}" + (f" (damaged: {damaged[one.job.model]})" if damaged[one.job.model] else "")
                 for one in missing]  # fmt: skip
        raise CheckFailed(
            f"not in {cache.directory} after {wait_s:.0f} s:\n" + "\n".join(lines),
            "read the log of the engine Job (kubectl get jobs): it must run on this kind of GPU, with this image and "
            "this cache; or let pods build for themselves: engineBuild.mode=init",
        )
