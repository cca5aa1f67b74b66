"""What a real cluster does with a manifest that every schema takes: nodes, runtimes, network policies, upgrades."""

from __future__ import annotations

from typing import Any

from manifests import cases, rendering

Document = dict[str, Any]


def render(**values: Any) -> list[Document]:
    return rendering.documents(rendering.case(values={"models": cases.MODELS, **values}))


def pods(documents: list[Document]) -> list[Document]:
    """The specs of the pods of Deployments and Jobs."""
    return [d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("Deployment", "Job")]


def test_every_pod_with_a_gpu_takes_the_runtime_class() -> None:
    job = {"mode": "job", "cache": {"size": "20Gi"}}
    made = pods(render(engineBuild=job, scheduling={"runtimeClassName": "nvidia"}))
    assert [pod["runtimeClassName"] for pod in made] == ["nvidia", "nvidia"]
    assert all("runtimeClassName" not in pod for pod in pods(render(engineBuild=job)))
