"""Preflight: finds out, without a GPU, what would fail on each GPU.

TensorRT-RTX compiles ahead of time for a compute capability. Its plans are not what Triton loads, so they prove that a
graph can be built there, not how fast or how accurate the engine is. Where it does not build for a GPU, what needs no
GPU is still proved: the graph parses, it is typed as claimed, its profiles hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tritonkit.engines import builder, layer_precision, plans
from tritonkit.engines.build_progress import Watch, watch
from tritonkit.engines.builder import Capability, Network, Options, Toolkit
from tritonkit.engines.jobs import Job
from tritonkit.engines.messages import Reason, Refused
from tritonkit.errors import CheckFailed
from tritonkit.gpus import Gpu

Status = Literal["ok", "refused", "unsupported", "limit", "unchecked"]


@dataclass(frozen=True)
class Verdict:
    """The result for one precision on one GPU.

    Attributes:
        precision: Of the graph.
        gpu: The GPU's name; ``compute_capability`` is its capability, ``8.6``.
        status: ``ok``: it was built. ``refused``: the graph cannot be built. ``unsupported``: the GPU lacks the
            precision. ``limit``: TensorRT-RTX lacks something that full TensorRT has. ``unchecked``: TensorRT-RTX
            does not build for this GPU; the rest was proved.
        reasons: Why it is not ok.
        layers: Compute layers by precision; empty if the graph did not parse.
        seconds: Of the build.
        plan_bytes: Of the plan.
        notes: What was odd, as sentences.
    """

    precision: str
    gpu: str
    compute_capability: str
    status: Status
    reasons: tuple[Reason, ...] = ()
    layers: layer_precision.Counts | None = None
    seconds: float | None = None
    plan_bytes: int | None = None
    notes: tuple[str, ...] = ()


def run(
    jobs: Sequence[Job], gpus: Sequence[Gpu], options: Options, output: Path | None = None
) -> tuple[Toolkit, list[Verdict]]:
    """Try every job for every GPU.

    Args:
        jobs: What to try.
        gpus: The GPUs to try; those of one compute capability share a build.
        options: See :class:`tritonkit.engines.builder.Options`.
        output: Gets the TensorRT-RTX plans and their passports, if given.

    Returns:
        The builder that was used, and the verdicts in the order of ``jobs`` and ``gpus``.

    Raises:
        MissingError: TensorRT-RTX is not installed.
        InputError: Profiles are out of order or contradict the graph, or a plugin does not load.
    """
    toolkit = builder.load("tensorrt_rtx")
    for gpu in gpus:
        builder.check_compatibility(options, gpu.compute_capability)
    verdicts = []
    with watch("preflight", sum(len(_to_build(toolkit, job, gpus)) for job in jobs)) as shown:
        for job in jobs:
            verdicts += _job(toolkit, job, gpus, options, _place(output, job, jobs), shown)
    return toolkit, verdicts


def _place(output: Path | None, job: Job, jobs: Sequence[Job]) -> Path | None:
    return output / job.precision if output and len(jobs) > 1 else output


def _to_build(toolkit: Toolkit, job: Job, gpus: Sequence[Gpu]) -> list[Capability]:
    able = [gpu.compute_capability for gpu in gpus if not plans.lacks(job.precision, gpu)]
    return [capability for capability in dict.fromkeys(able) if capability in toolkit.targets]


def _job(
    toolkit: Toolkit, job: Job, gpus: Sequence[Gpu], options: Options, output: Path | None, shown: Watch
) -> list[Verdict]:
    counts: layer_precision.Counts | None = None
    try:
        network = Network(toolkit, job.graph, options.plugins)
        counts = network.counts
        layer_precision.prove(counts, job.precision, job.graph.name)
        network.check_profiles(job.profiles)
    except Refused as error:
        return [_verdict(job, gpu, "refused", error.reasons, counts) for gpu in gpus]
    except CheckFailed as error:
        return [_verdict(job, gpu, "refused", [Reason(error.message, error.fix)], counts) for gpu in gpus]
    built: dict[Capability, builder.Plan | Refused] = {}
    for capability in _to_build(toolkit, job, gpus):
        shown.next(f"{job.model} {job.precision} for sm{capability[0]}{capability[1]}")
        built[capability] = _try(network, job, options, capability, output, shown)
    return [_judge(toolkit, job, gpu, network, built.get(gpu.compute_capability)) for gpu in gpus]


def _try(
    network: Network, job: Job, options: Options, capability: Capability, output: Path | None, shown: Watch
) -> builder.Plan | Refused:
    try:
        plan = network.build(job.profiles, options, capability, shown)
    except Refused as error:
        return error
    if output:
        plans.write(output, plan, plans.describe(job, network, plan, options, capability, None))
    return plan


def _judge(toolkit: Toolkit, job: Job, gpu: Gpu, network: Network, built: builder.Plan | Refused | None) -> Verdict:
    counts = network.counts
    if why := plans.lacks(job.precision, gpu):
        return _verdict(job, gpu, "unsupported", [Reason(why, "int8 and fp16 run there")], counts)
    if built is None:
        proved = (
            f"the graph parses, {layer_precision.describe(counts)} layers compute as claimed, and its profiles hold"
        )
        reason = Reason(
            f"{toolkit.name} {toolkit.version} does not build for compute capability {gpu.compute}; proved: {proved}",
            "build the engine on a node with this GPU",
        )
        return _verdict(job, gpu, "unchecked", [reason], counts)
    if isinstance(built, Refused):
        limits = all(reason.limit for reason in built.reasons)
        return _verdict(job, gpu, "limit" if limits else "refused", built.reasons, counts)
    return Verdict(
        job.precision, gpu.family, gpu.compute, "ok",
        layers=counts, seconds=built.seconds, plan_bytes=len(built.data), notes=built.notes,
    )  # fmt: skip


def _verdict(
    job: Job, gpu: Gpu, status: Status, reasons: Sequence[Reason], layers: layer_precision.Counts | None = None
) -> Verdict:
    return Verdict(job.precision, gpu.family, gpu.compute, status, tuple(reasons), layers)


def failed(verdicts: Sequence[Verdict], named: bool) -> bool:
    """Whether the preflight fails: a graph is refused, or a GPU lacks a precision that the user named.

    Args:
        verdicts: From :func:`run`.
        named: Whether the precisions were named by the user, rather than taken from a recipe that also has other
            GPUs in mind.
    """
    return any(verdict.status == "refused" or (named and verdict.status == "unsupported") for verdict in verdicts)
