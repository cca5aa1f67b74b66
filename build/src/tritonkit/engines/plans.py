"""Engines for Triton: the plan for the GPU of this machine, with its passport beside it.

The same builder without a GPU, and without plans for Triton, is :mod:`tritonkit.engines.preflight`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tritonkit import __version__, atomic, external_data
from tritonkit.engines import builder, layer_precision, node
from tritonkit.engines import passport as passports
from tritonkit.engines.build_progress import watch
from tritonkit.engines.jobs import Job
from tritonkit.errors import InputError, MissingError, OutputError
from tritonkit.gpus import FP8_SINCE, Gpu, by_product
from tritonkit.passport import EnginePassport, ShapeRange
from tritonkit.repository import ownership


@dataclass(frozen=True)
class Built:
    """A plan that was written.

    Attributes:
        path: The plan; its passport lies beside it.
        passport: What the passport says.
        seconds: How long the build took.
        notes: What was odd, as sentences.
    """

    path: Path
    passport: EnginePassport
    seconds: float
    notes: tuple[str, ...]


def lacks(precision: str, gpu: Gpu) -> str:
    """Why a GPU cannot compute in a precision; empty if it can."""
    if precision == "fp8" and gpu.compute_capability < FP8_SINCE:
        return f"fp8 needs compute capability {FP8_SINCE[0]}.{FP8_SINCE[1]} or newer"
    return ""


def build(
    jobs: Sequence[Job], gpus: Sequence[Gpu], output: Path, options: builder.Options
) -> tuple[list[Built], list[Gpu]]:
    """Build plans for this machine's GPU.

    Args:
        jobs: What to build.
        gpus: The GPUs to build for; those with this machine's compute capability are built.
        output: Gets ``model_sm86.plan`` and its passport, in a folder for each precision if there are several.
        options: See :class:`tritonkit.engines.builder.Options`.

    Returns:
        What was written, and the GPUs whose engines have to be built on another machine.

    Raises:
        InputError: A GPU lacks a precision or compatibility that is needed.
        OutputError: Another's file lies where a plan goes.
        MissingError: TensorRT or a GPU is missing here, or the GPU here is none of ``gpus``.
        CheckFailed: A graph is not of the precision that it claims.
        Refused: TensorRT refuses a graph.
    """
    _check_jobs(jobs, gpus, options)
    toolkit = builder.load("tensorrt")
    here = _gpu_here(gpus)
    known = by_product(here.name)
    name = known.family if known else here.name
    places = [output / job.precision if len(jobs) > 1 else output for job in jobs]
    for place in places:
        _check_place(place / _name(here.capability))  # before minutes of work
    written = []
    with watch("engine", len(jobs)) as shown:
        for job, place in zip(jobs, places, strict=True):
            shown.next(f"{job.model} {job.precision} for {name}")
            network = builder.Network(toolkit, job.graph, options.plugins)
            layer_precision.prove(network.counts, job.precision, str(job.graph))
            network.check_profiles(job.profiles)
            plan = network.build(job.profiles, options, here.capability, shown)
            passport = describe(job, network, plan, options, here.capability, name)
            written.append(Built(write(place, plan, passport), passport, plan.seconds, plan.notes))
    return written, [gpu for gpu in gpus if gpu.compute_capability != here.capability]


def _check_jobs(jobs: Sequence[Job], gpus: Sequence[Gpu], options: builder.Options) -> None:
    for gpu in gpus:
        for job in jobs:
            if why := lacks(job.precision, gpu):
                raise InputError(
                    f"--gpu {gpu.family} (compute capability {gpu.compute}): {why}",
                    "ask for int8 or fp16 there, or leave this GPU out",
                )
        builder.check_compatibility(options, gpu.compute_capability)


def _gpu_here(gpus: Sequence[Gpu]) -> node.NodeGpu:
    devices = node.gpus()
    if not devices:
        raise MissingError(
            "there is no GPU here that nvidia-smi shows, and TensorRT builds only for the GPU of its machine",
            "run this on a node with the GPU, in the image of build/Dockerfile; --preflight checks the graph here",
        )
    capabilities = {gpu.compute_capability for gpu in gpus}
    for gpu in devices:
        if gpu.capability in capabilities:
            if len({other.capability for other in devices}) > 1:
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid  # TensorRT takes the first GPU that CUDA shows it
            return gpu
    have = f"{devices[0].name} (compute capability {devices[0].compute})"
    raise MissingError(
        f"the GPU here is {have}; a plan for {', '.join(f'{gpu.family} ({gpu.compute})' for gpu in gpus)} cannot be "
        "built on it: TensorRT builds only for the GPU of its machine",
        f"run this on a node with {' or '.join(gpu.family for gpu in gpus)}",
    )


def describe(
    job: Job,
    network: builder.Network,
    plan: builder.Plan,
    options: builder.Options,
    capability: builder.Capability,
    gpu: str | None,
) -> EnginePassport:
    """The passport of a plan that was just built."""
    return EnginePassport(
        model=job.model,
        plan_sha256=hashlib.sha256(plan.data).hexdigest(),
        plan_bytes=len(plan.data),
        graph_sha256=external_data.graph_sha256(job.graph),
        precision=job.precision,
        layers=network.counts,
        builder=network.toolkit.name,
        tensorrt_version=network.toolkit.version,
        compute_capability=f"{capability[0]}.{capability[1]}",
        gpu=gpu,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        weight_stripped=options.weight_stripped,
        plugins=tuple(library.name for library in options.plugins),
        profiles=tuple(
            {name: ShapeRange(**asdict(shapes)) for name, shapes in profile.items()} for profile in job.profiles
        ),
        memory_bytes=plan.memory_bytes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tritonkit=__version__,
    )


def write(directory: Path, plan: builder.Plan, passport: EnginePassport) -> Path:
    """Write ``model_sm86.plan`` and its passport; each whole or not at all, and a plan never beside another's passport.

    Raises:
        OutputError: The directory cannot be written, or another's file lies there.
        MissingError: The disk is full.
    """
    path = directory / _name(passport.capability)
    _check_place(path)
    with atomic.explained(path):
        passports.path_of(path).unlink(missing_ok=True)
    atomic.write(path, plan.data)
    passports.write(path, passport)
    return path


def _name(capability: builder.Capability) -> str:
    return f"model_sm{capability[0]}{capability[1]}.plan"


def _check_place(path: Path) -> None:
    """Refuse a path if tritonkit did not write the plan there, or the file where its passport goes."""
    beside = passports.path_of(path)
    if not (os.path.lexists(path) or os.path.lexists(beside)) or ownership.is_engine_as_built(path):
        return
    raise OutputError(
        f"{path if os.path.lexists(path) else beside} is not as tritonkit wrote it: it has no passport, or not its own",
        "move it away, or name another --output",
    )
