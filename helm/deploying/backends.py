"""Whether the images that serve have the backends that the models name; NVIDIA's own have all but one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploying import chart
from deploying.chart import Rendered
from deploying.check import Check
from deploying.environment import Environment
from tritonkit.repository.lint import Options, backends, contents
from tritonkit.repository.lint.findings import parse_origin

_SERVER = "triton"  # the container's name in the chart's pods
_LOAD = "--load-model="


def check(environment: Environment, project: Path, made: Rendered) -> Iterator[Check]:
    """Hold the models of the repository that is published against the image of each Deployment that loads them."""
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
                yield _judge(chart.name(workload), str(container["image"]), names)


def _loaded(container: dict[str, Any], ours: Sequence[str]) -> list[str]:
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
