"""What models need of their pods: a GPU or none, an image that has what they load, and drivers for CUDA 13."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritonkit.deploying import chart, environment, nodes
from tritonkit.deploying.chart import Rendered
from tritonkit.deploying.check import Check, State
from tritonkit.deploying.cluster import Cluster, Forbidden, Unreachable
from tritonkit.deploying.environment import Environment, build_command
from tritonkit.engines import cuda
from tritonkit.recipe import Target
from tritonkit.repository.lint import Options, backends, contents, needs
from tritonkit.repository.lint.contents import Model, Repository
from tritonkit.repository.lint.findings import parse_variant

Object = dict[str, Any]
_SERVER = "triton"  # the container's name in the chart's pods
_PASSPORTS = "passports"
_ENGINES = "engines"
_LOAD = "--load-model="
_ENGINE_NAMES = {
    "vllm-python-py3": "vllm",
    "trtllm-python-py3": "tensorrtLlm",
}  # by NVIDIA's image


def devices(environment: Environment, project: Path, rendered: Rendered) -> Iterator[Check]:
    """Compare the models that each Deployment loads with its pods: do both use a GPU, or neither?"""
    for workload, spec, container, models in _servers(environment, project, rendered):
        name = chart.name(workload)
        by_device = {
            device: [model.name for model in models if needs.device(model) == device] for device in ("cpu", "gpu")
        }
        on_cpu, on_gpu = ", ".join(by_device["cpu"]), ", ".join(by_device["gpu"])
        if not _has_gpu(container):
            if on_gpu:
                text = f"GPU models on CPU pods: {on_gpu}; {name} asks for no GPU, and Triton does not load them so"
                yield Check("accelerator", "missing", text, _rebuild("cpu", "another accelerator.kind"))
        elif on_cpu and not on_gpu:
            text = f"CPU models on GPU nodes: {on_cpu}; pods of {name} ask for a GPU that no model would use"
            yield Check("accelerator", "missing", text, _rebuild(_gpu_target(spec), "accelerator.kind: cpu"))
        elif on_cpu:
            text = f"CPU models on GPU nodes: {on_cpu}; only {on_gpu} would use the GPU of {name}"
            yield Check("accelerator", "note", text, f"{build_command(_gpu_target(spec))} builds for it")


def _rebuild(target: Target, otherwise: str) -> str:
    folder = environment.REPOSITORIES[target]
    return f"{build_command(target)}, and deploy.repository: {folder}; or {otherwise}"


def _gpu_target(spec: Object) -> Target:
    """The target of pods with a GPU: TensorRT where they wait for engines, else CUDA."""
    return "tensorrt" if any(container["name"] == _ENGINES for container in spec.get("initContainers", [])) else "cuda"


def _has_gpu(container: Object) -> bool:
    resources = container.get("resources") or {}
    return bool(resources.get("claims")) or any(
        name.startswith("nvidia.com/") for name in resources.get("limits") or {}
    )


def images(environment: Environment, project: Path, rendered: Rendered) -> Iterator[Check]:
    """Say which models need more than NVIDIA's image has, and whether the image of their Deployment has it.

    The chart refuses NVIDIA's image for them, and takes that of the tools where none is named.
    """
    for workload, spec, container, models in _servers(environment, project, rendered):
        image, name = str(container["image"]), chart.name(workload)
        yield from _engines(image, name, models)
        demands = [(model.name, words) for model in models if (words := needs.beyond_nvidias_image(model))]
        if not demands:
            continue
        text = "; ".join(f"{model} needs {', '.join(words)}" for model, words in demands)
        tools = {str(other["image"]) for other in spec.get("initContainers", []) if other["name"] == _PASSPORTS}
        if image in tools:
            yield Check("image", "ok", f"{text}: {name} runs {image}, as the tools do")
        else:
            yield Check("image", "unchecked", f"{text}: {image} of {name} has to have that, as build/Dockerfile's has")


def _engines(image: str, name: str, models: list[Model]) -> Iterator[Check]:
    """Compare language models with their image: NVIDIA builds vLLM and TensorRT-LLM into separate images."""
    for model in models:
        variant = needs.variant(model)
        image_variant = parse_variant(image)
        if variant and image_variant == variant:
            yield Check("image", "ok", f"{model.name} needs an engine, which {image} of {name} has")
        elif variant and image_variant:
            text = f"{model.name} needs the variant {variant} of NVIDIA's image; {name} runs {image}"
            fix = f"engine: {_ENGINE_NAMES[variant]} in the chart's values (docs/guides/deploy-llm.md)"
            yield Check("image", "missing", text, fix)
        elif variant:
            yield Check("image", "unchecked", f"{model.name} needs an engine: {image} of {name} has to have it")


def drivers(cluster: Cluster, environment: Environment, project: Path, rendered: Rendered) -> Iterator[Check]:
    """Compare models of our backend with the drivers of the nodes that may run their pods, where labels tell them."""
    for workload, spec, _, models in _servers(environment, project, rendered):
        names = [model.name for model in models if model.served.backend == backends.TRITONKIT_ONNXRUNTIME]
        if not names:
            continue
        try:
            listed = (cluster.get("nodes") or {"items": []})["items"]
        except (Forbidden, Unreachable) as error:
            yield Check("driver", "unchecked", error.message, error.fix)
            return
        refused = []
        fitting = nodes.fitting(spec, listed)
        for node in fitting:
            version, capability = nodes.driver(node)
            if problem := cuda.obstacle(version, capability or cuda.CAPABILITY_SINCE):
                refused.append((str(node["metadata"]["name"]), *problem))
        if refused:
            name, text, fix = refused[0]
            count = f"{len(refused)} of {len(fitting)} nodes of {chart.name(workload)}"
            state: State = "missing" if len(refused) == len(fitting) else "note"
            yield Check("driver", state, f"{', '.join(names)} cannot run on {count}: on {name} {text}", fix)


def _servers(
    where: Environment, project: Path, rendered: Rendered
) -> Iterator[tuple[Object, Object, Object, list[Model]]]:
    """Each workload that serves models of the repository, with its pods' spec, Triton's container and the models."""
    if not where.deploy.publish:
        return
    repository = contents.read(project / environment.repository(where), Options())
    for workload, spec in chart.pods(rendered.objects):
        for container in spec["containers"]:
            if container["name"] == _SERVER:
                yield workload, spec, container, _loaded(container, repository)


def _loaded(container: Object, repository: Repository) -> list[Model]:
    """The models that a server loads: the named ones and the steps of their ensembles, or all if none is named."""
    words = [str(word) for word in (*container.get("command", []), *container.get("args", []))]
    waiting = [word.removeprefix(_LOAD) for word in words if word.startswith(_LOAD)] or list(repository.models)
    loaded: dict[str, Model] = {}
    while waiting:
        name = waiting.pop(0)
        if name in repository.models and name not in loaded and not name.startswith("."):
            loaded[name] = repository.models[name]
            waiting += [step.model_name for step in loaded[name].config.ensemble_scheduling.step]
    return list(loaded.values())
