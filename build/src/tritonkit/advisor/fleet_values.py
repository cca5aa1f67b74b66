"""Values for the chart: one variant for each bundle of models on each kind of device."""

from __future__ import annotations

import re

from tritonkit import gpus
from tritonkit.advisor.fleet_solve import Mix, Pods

_CHART_ENGINES = {"vllm": "vllm", "tensorrt_llm": "tensorrtLlm"}  # the chart's `engine`
_LONGEST = 15  # characters of a variant's name, which goes into names of objects


def text(mix: Mix, source: str) -> str:
    """A values file: replicas, devices and models of each variant; where the models lie is for other values.

    Args:
        mix: What is to run.
        source: The file that it came from, for the comment.
    """
    lines = [f"# `tritonkit advise fleet {source}`: ${mix.usd_per_hour:,.2f} an hour."]
    lines += [f"# {count} x {node.name} ({node.gpu_count} x {node.gpu.name})" for node, count in mix.nodes]
    for name, (layout, count) in mix.cuts.items():
        pieces = ", ".join(f"{pieces} x {profile}" for profile, pieces in layout.items())
        lines.append(f"# MIG cuts {count} GPUs of {name} into {pieces}, by the GPU operator's strategy `mixed`.")
    lines += [
        "# Each variant serves its own models: callers ask its Service. `models.uri` goes into other values.",
        "variants:",
    ]
    taken: set[str] = set()
    for pods in mix.pods:
        name = _name(pods, taken)
        taken.add(name)
        lines += _variant(pods, name)
    return "\n".join(lines) + "\n"


def _variant(pods: Pods, name: str) -> list[str]:
    device, fits = pods.bundle.device, pods.bundle.fits
    built = {"onnxruntime": " --target cuda", "tensorrt": " --target tensorrt"}.get(fits[0].engine, "")
    how = ", ".join(f"{fit.model} in {fit.precision}" for fit in fits)
    lines = [
        f"  # {how}, built with `tritonkit build{built}`",
        f"  {name}:",
        f"    replicas: {pods.count}",
        f"    models: {{names: [{', '.join(fit.model for fit in fits)}]}}",
    ]
    if engine := _CHART_ENGINES.get(fits[0].engine):  # the chart then takes the engine's image
        lines += [f"    engine: {engine}", f"    languageModel: {{tensorParallel: {pods.bundle.gpu_count}}}"]
    products = f"products: [{gpus.get(device.gpu.key).node_label}]"
    if device.profile:
        return [*lines, f"    accelerator: {{kind: mig, mig: {{profile: {device.profile}}}, {products}}}"]
    count = f", count: {pods.bundle.gpu_count}" if pods.bundle.gpu_count > 1 else ""
    return [*lines, f"    accelerator: {{{products}{count}}}"]


def _name(pods: Pods, taken: set[str]) -> str:
    """``l4``, ``h100-1g10gb``; a number follows where a name is taken."""
    device = pods.bundle.device
    base = re.sub(r"[^a-z0-9-]", "", f"{device.gpu.family} {device.profile}".strip().replace(" ", "-"))
    base = base.replace("rtx-pro-6000", "rtx6000")[:_LONGEST].rstrip("-")
    number = 1
    while (name := base if number == 1 else f"{base[: _LONGEST - len(str(number)) - 1]}-{number}") in taken:
        number += 1
    return name
