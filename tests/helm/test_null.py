"""``null``, by which helm takes a value away, is the default, a choice, or refused; and a parent chart's ways to say things."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import schema
import yaml
from manifests import cases, generated, kube, rendering

from tritonkit.deploying import show

TOPS = schema.read(rendering.CHART / "values.yaml")
CHOICES = schema.defaults_of(TOPS)["choices"].keys()
# Between them they read nearly every value.
BASES = ("default", "engines by job", "scaled variants", "canary", "monitoring")
Values = dict[str, Any]


def sections(depth: int) -> list[generated.Path]:
    """The paths of sections that stand so deep, and of all values that stand in none."""
    deeper, here = TOPS, []
    for _ in range(depth):
        here = deeper
        deeper = [child for value in here for child in value.children]
    return [value.path for value in here]


def with_null(values: Values, paths: list[generated.Path]) -> Values:
    """``values`` with ``null`` at every path that they say nothing of, nor of what is below."""
    values = copy.deepcopy(values)
    for path in paths:
        below: Any = values
        for name in path:
            if not isinstance(below, dict):
                break
            if name not in below:
                generated.put(values, path, None)
                break
            below = below[name]
    return values


def nulls(base: str) -> list[rendering.Case]:
    """The base, and the base with everything else null: values by themselves, then whole sections."""
    leaves = [leaf.path for top in TOPS for leaf in top.leaves() if leaf.name not in CHOICES]
    depths = [[path for path in sections(depth) if ".".join(path) not in CHOICES] for depth in (1, 2, 3)]
    base_values = cases.values_of(base)
    every = [
        base_values,
        with_null(base_values, leaves),
        with_null(base_values, [path for paths in depths for path in paths]),
    ]
    if base == "default":
        every += [with_null(base_values, paths) for paths in depths[1:]]
    return [rendering.case(values=values, kubernetes=cases.NEWEST) for values in every]


@pytest.fixture(scope="module", autouse=True)
def _rendered() -> None:
    rendering.warm(case for base in BASES for case in nulls(base))


@pytest.mark.parametrize("base", BASES)
def test_null_is_the_default_of_every_value_and_section(base: str) -> None:
    plain, *others = (rendering.text(case) for case in nulls(base))
    assert all(text == plain for text in others)


@pytest.mark.parametrize("values", [{"models": None}, {"models": {"uri": None}}])
def test_null_of_what_must_be_said_is_refused_with_the_fix(values: Values) -> None:
    with pytest.raises(rendering.Refused, match=r"models: nothing says where the models are\n  fix: set models.uri"):
        rendering.documents(rendering.case(values=values))


def replicas(values: Values) -> dict[str, Any]:
    """What each Deployment says of its replicas."""
    documents = rendering.documents(rendering.case(values={"models": cases.MODELS, **values}))
    return {d["metadata"]["name"]: d["spec"].get("replicas", "nobody") for d in kube.of_kind(documents, "Deployment")}


def test_null_replicas_leave_the_number_of_pods_to_another_autoscaler() -> None:
    assert replicas({"replicas": None}) == {"demo-tritonkit": "nobody"}
    assert replicas({"autoscaling": {"enabled": True, "kind": "own"}}) == {"demo-tritonkit": "nobody"}
    assert replicas({"replicas": 3, "variants": {"a": {"replicas": None}, "b": {}}}) == {
        "demo-tritonkit-a": "nobody",
        "demo-tritonkit-b": 3,
    }
    assert replicas({"replicas": 0}) == {"demo-tritonkit": 0}


def test_what_is_deployed_says_that_the_number_of_pods_is_somebody_elses() -> None:
    documents = rendering.documents(rendering.case(values={"models": cases.MODELS, "replicas": None}))
    (deployment,) = kube.of_kind(documents, "Deployment")
    assert "as many pods as an autoscaler outside this manifest says" in show.described(deployment, documents)


def test_null_of_a_choice_stays_one() -> None:
    (pod,) = kube.pods(
        rendering.documents(rendering.case(values={"models": cases.MODELS, "podSecurity": {"user": None}})),
        "Deployment",
    )
    assert "runAsUser" not in pod.spec["securityContext"]


def test_null_within_a_variant_is_refused_by_its_path() -> None:
    with pytest.raises(rendering.Refused, match="'/variants/a/resources': got null, want object"):
        rendering.documents(rendering.case(values={"models": cases.MODELS, "variants": {"a": {"resources": None}}}))


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart with this one in it twice, by two names."""
    parent = tmp_path_factory.mktemp("umbrella")
    dependencies = [
        {"name": "tritonkit", "alias": alias, "version": "0.1.0", "condition": f"{alias}.enabled"}
        for alias in ("vision", "text")
    ]
    about = {"apiVersion": "v2", "name": "umbrella", "version": "0.1.0", "dependencies": dependencies}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about))
    shutil.copytree(rendering.CHART, parent / "charts/tritonkit")
    return parent


def test_a_parent_chart_switches_this_one_and_sets_shared_globals(umbrella: Path) -> None:
    shared = {
        "imageRegistry": "mirror.example.org/hub",
        "imagePullSecrets": ["a", {"name": "b"}],
        "storageClass": "fast",
        "x": 1,
    }
    cache = {"mode": "job", "cache": {"size": "1Gi"}}
    vision = {"enabled": True, "models": cases.MODELS, "engineBuild": cache, "service": None, "replicas": None}
    values = {"global": shared, "vision": vision, "text": {"enabled": False}}
    documents = rendering.documents(rendering.case(values=values, chart=umbrella))
    assert {d["metadata"]["labels"]["app.kubernetes.io/name"] for d in documents} == {"vision"}
    pods = list(kube.pods(documents))
    assert {image.rpartition(":")[0] for pod in pods for image in (c["image"] for c in pod.all_containers)} == {
        "mirror.example.org/hub/nvidia/tritonserver",
        "mirror.example.org/hub/library/haproxy",
        "mirror.example.org/hub/tritonkit",
    }
    assert all(pod.spec["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}] for pod in pods)
    (claim,) = kube.of_kind(documents, "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "fast"
    (deployment,) = kube.of_kind(documents, "Deployment")
    assert "replicas" not in deployment["spec"]


def test_a_switch_that_nobody_reads_is_refused() -> None:
    with pytest.raises(
        rendering.Refused, match=r"enabled: false, and only a parent chart's condition.*\n  fix: .*tritonkit.enabled"
    ):
        rendering.documents(rendering.case(values={"models": cases.MODELS, "enabled": False}))
