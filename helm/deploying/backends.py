"""What models of ``--target cuda`` need of a deployment: an image with their backend, and drivers for CUDA 13."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploying import chart, nodes
from deploying.chart import Rendered
from deploying.check import Check, State
from deploying.cluster import Cluster, Forbidden, Unreachable
from deploying.environment import Environment
from tritonkit.engines import cuda
from tritonkit.repository.lint import Options, backends, contents
from tritonkit.repository.lint.findings import parse_origin

Object = dict[str, Any]
_SERVER = "triton"  # the container's name in the chart's pods
_LOAD = "--load-model="


def images(environment: Environment, project: Path, made: Rendered) -> Iterator[Check]:
    """Hold the models of the repository that is published against the image of each Deployment that loads them."""
    for workload, _, container, names in _servers(environment, project, made):
        yield _judge(chart.name(workload), str(container["image"]), names)


def drivers(cluster: Cluster, environment: Environment, project: Path, made: Rendered) -> Iterator[Check]:
    """Hold them against the nodes on which their pods may run, as far as those are labelled."""
    for workload, spec, _, names in _servers(environment, project, made):
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
    environment: Environment, project: Path, made: Rendered
) -> Iterator[tuple[Object, Object, Object, list[str]]]:
    """Each object whose pods serve such models: itself, the pods' spec, Triton's container, and the models' names."""
    if not environment.deploy.publish:
        return
    repository = contents.read(project / environment.deploy.repository, Options())
    ours = [
        model.name for model in repository.models.values() if model.served.backend == backends.TRITONKIT_ONNXRUNTIME
    ]
    for workload, spec in chart.pods(made.objects):
        for container in spec["containers"]:
            names = _loaded(container, ours) if container["name"] == _SERVER else []
            if names:
                yield workload, spec, container, names


def _loaded(container: Object, ours: Sequence[str]) -> list[str]:
    """Those of our backend's models that a server loads."""
    words = [str(word) for word in (*container.get("command", []), *container.get("args", []))]
    named = {word.removeprefix(_LOAD) for word in words if word.startswith(_LOAD)}
    return [name for name in ours if not named or name in named]


def _judge(workload: str, image: str, names: Sequence[str]) -> Check:
    backend = backends.TRITONKIT_ONNXRUNTIME
    need = f"{', '.join(names)} {'needs' if len(names) == 1 else 'need'} the backend {backend}"
    if parse_origin(image) == "nvidia":
        return Check(
            "backend",
            "missing",
            f"{need}, and {image} of {workload} is NVIDIA's image, which has no such backend",
            "build build/Dockerfile, push it, and name it in image.repository and image.tag, as in tools.image",
        )
    return Check("backend", "unchecked", f"{need}: {image} of {workload} has to be an image of build/Dockerfile")
