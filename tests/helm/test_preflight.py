"""Preflight: what a cluster lacks, in plain words and with the fix; real kubectl on an API server in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakecluster.server import running
from fakecluster.state import DRA, GATEWAY, KEDA, MONITORING, ApiServer
from manifests.rendering import CHART

from tritonkit.deploying import chart, nodes, preflight, release
from tritonkit.deploying.chart import Rendered
from tritonkit.deploying.check import Check
from tritonkit.deploying.cluster import Cluster
from tritonkit.deploying.environment import Deploy, Environment
from tritonkit.kubetools import binaries

Object = dict[str, Any]
A10G = "NVIDIA-A10G"
EVERYTHING = {
    "models": {"uri": "s3://bucket/models"},
    "tools": {"image": {"repository": "registry.example.com/tritonkit"}},
    "imagePullSecrets": ["pull"],
    "accelerator": {"products": [A10G]},
    "replicas": 2,
    "autoscaling": {"enabled": True, "kind": "keda", "minReplicas": 2},
    "engineBuild": {"mode": "job", "cache": {"size": "20Gi", "storageClass": "efs"}},
    "gateway": {"enabled": True, "parentRefs": [{"name": "edge", "namespace": "infra"}],
                "http": {"hostnames": ["h.example.com"]}, "grpc": {"hostnames": ["g.example.com"]}},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
}  # fmt: skip
ENVIRONMENT = Environment(
    "prod", "prod", Path("prod.yaml"), Deploy(context="here", namespace="inference", release="triton"), {}
)


def render(values: Object, tmp: Path) -> Rendered:
    path = tmp / "values.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [
        binaries.helm(),
        "template",
        "triton",
        CHART,
        "-n",
        "inference",
        "-f",
        path,
        "--kube-version",
        "1.34",
    ]
    environment = binaries.rendering_environment()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return chart.split(done.stdout)


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as state:
        yield state


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    config = {
        "apiVersion": "v1", "kind": "Config", "contexts": [{"name": "here", "context": {"cluster": "c", "user": "me"}}],
        "clusters": [{"name": "c", "cluster": {"server": api.url}}], "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    kubectl = binaries.kubectl()
    monkeypatch.setenv("PATH", f"{binaries.helm().parent}:{os.environ['PATH']}")  # else each test's home fetches it
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return Cluster(kubectl, "here", "inference")


def node(name: str = "gpu-1", product: str = A10G, gpus: int = 4, **spec: Any) -> Object:
    """A node as the API shows one of a GPU pool."""
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, nodes.PRODUCT: product}},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]} | spec,
        "status": {"allocatable": {"cpu": "7910m", "memory": "30Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def thing(kind: str, name: str, api_version: str = "v1", namespace: str = "inference", **more: Any) -> Object:
    place = {} if kind in {"Namespace", "StorageClass", "DeviceClass"} else {"namespace": namespace}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name} | place | more.pop("metadata", {}),
    } | more


def lines(checks: list[Check], state: str) -> list[str]:
    assert all(check.fix for check in checks if check.state == "missing")
    return [f"{check.name}: {check.text}" for check in checks if check.state == state]


def test_a_cluster_that_has_everything_lacks_nothing(api: ApiServer, cluster: Cluster, tmp_path: Path) -> None:
    api.served |= KEDA | GATEWAY | MONITORING
    restricted = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    api.add(
        thing("Namespace", "inference", metadata=restricted), node(), thing("Secret", "pull"),
        thing("StorageClass", "efs", "storage.k8s.io/v1"),
        thing("Gateway", "edge", "gateway.networking.k8s.io/v1", "infra"),
    )  # fmt: skip
    rendered = render(EVERYTHING, tmp_path)
    checks = preflight.look(cluster, ENVIRONMENT, rendered)
    assert lines(checks, "missing") == []
    names = {check.name for check in checks if check.state == "ok"}
    assert names >= {"context", "Kubernetes", "namespace", "kinds", "rights", "nodes", "device plugin", "storage",
                     "Secret", "gateway"}  # fmt: skip
    assert any(line.startswith("images: 3 images; no registry was asked") for line in lines(checks, "unchecked"))
    assert not api.writes


def test_a_bare_cluster_lists_everything_that_it_lacks_at_once(
    api: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    api.minor = "29+"
    api.denied = {("patch", "deployments"), ("create", "secrets")}
    api.add(node("cpu-1", product="", gpus=0), thing("StorageClass", "gp3", "storage.k8s.io/v1"))
    values = EVERYTHING | {
        "tools": {},
        "models": EVERYTHING["models"] | {"credentials": {"existingSecret": "keys"}},  # type: ignore[operator]
        "serviceAccount": {"create": False, "name": "mine"},
    }
    rendered = render(values, tmp_path)
    text = "\n".join(lines(preflight.look(cluster, ENVIRONMENT, rendered), "missing"))
    for words in (
        "Kubernetes: 1.29 is older than 1.30",
        "namespace: there is no namespace inference",
        "kinds: the cluster knows no GRPCRoute, HTTPRoute (gateway.networking.k8s.io/v1): that is the Gateway API",
        "kinds: the cluster knows no ScaledObject (keda.sh/v1alpha1): that is KEDA",
        "kinds: the cluster knows no PodMonitor, PrometheusRule (monitoring.coreos.com/v1): that is the Prometheus",
        "rights: in inference you may not: create secrets; patch deployments.apps",
        "nodes: Deployment triton-tritonkit wants a node with nvidia.com/gpu.product In NVIDIA-A10G; the cluster has no "
        "node with a GPU that has labels",
        "storage: PersistentVolumeClaim triton-tritonkit-engines wants StorageClass efs; the cluster has gp3",
        "Secret: there is no Secret keys in inference, and ",
        "Secret: there is no Secret pull in inference, and ",
        "ServiceAccount: there is no ServiceAccount mine in inference, and ",
        "gateway: there is no Gateway edge in infra",
        "images: tritonkit:26.09 names no registry",
    ):
        assert words in text, text


def test_what_would_silently_lead_nowhere_is_missing(api: ApiServer, cluster: Cluster, tmp_path: Path) -> None:
    """An Ingress of a class that nobody serves, and a trigger whose credentials nobody made: both are taken."""
    api.served |= KEDA
    api.add(thing("Namespace", "inference"))
    alb = yaml.safe_load((CHART / "examples/values-eks-alb.yaml").read_text(encoding="utf-8"))
    rendered = render(alb | {"monitoring": {}}, tmp_path)
    assert [
        line for line in lines(preflight.look(cluster, ENVIRONMENT, rendered), "missing") if line[:2] in {"In", "tr"}
    ] == [
        "IngressClass: there is no IngressClass alb, and Ingress triton-tritonkit-grpc names it; the cluster has none",
        "trigger: there is no TriggerAuthentication keda-cloudwatch, and ScaledObject triton-tritonkit uses it",
    ]
    api.add(
        thing("IngressClass", "alb", "networking.k8s.io/v1", ""),
        thing("TriggerAuthentication", "keda-cloudwatch", "keda.sh/v1alpha1"),
    )
    there = lines(preflight.look(cluster, ENVIRONMENT, rendered), "ok")
    assert {"IngressClass: alb", "trigger: keda-cloudwatch, for ScaledObject triton-tritonkit"} <= set(there)
    unnamed = render(alb | {"monitoring": {}, "ingress": {"enabled": True, "http": {"host": "a.example"}}}, tmp_path)
    text = "Ingress triton-tritonkit-http names no IngressClass, and none is the default; the cluster has alb"
    assert f"IngressClass: {text}" in lines(preflight.look(cluster, ENVIRONMENT, unnamed), "missing")


def test_an_ingress_is_called_by_its_protocol_and_with_tls_where_it_has_it(cluster: Cluster, tmp_path: Path) -> None:
    alb = yaml.safe_load((CHART / "examples/values-eks-alb.yaml").read_text(encoding="utf-8"))
    assert release.addresses(cluster, render(alb, tmp_path)) == [
        "https://triton.example.org",
        "grpcs://triton-grpc.example.org",
    ]
    plain = {"enabled": True, "http": {"host": "a.example"}, "grpc": {"host": "b.example"}}
    assert release.addresses(cluster, render(alb | {"ingress": plain}, tmp_path)) == [
        "http://a.example",
        "grpc://b.example",
    ]


def test_what_may_not_be_read_is_not_held_against_the_release(api: ApiServer, cluster: Cluster, tmp_path: Path) -> None:
    """Many may deploy into their namespace and not look at nodes."""
    api.denied = {("list", "nodes")}
    api.add(thing("Namespace", "inference", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}))
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    hpa = {"recordedElsewhere": True, "metrics": [cpu]}
    values = {"models": {"uri": "s3://b/m"}, "autoscaling": {"enabled": True, "hpa": hpa},
              "tools": {"image": {"repository": "localhost:5000/tritonkit"}}}  # fmt: skip
    checks = preflight.look(cluster, ENVIRONMENT, render(values, tmp_path))
    assert any("nodes is forbidden" in line for line in lines(checks, "unchecked")), checks
    assert lines(checks, "missing") == [
        f"metrics: HorizontalPodAutoscaler triton-tritonkit reads {group}, which nothing serves"
        for group in ("custom.metrics.k8s.io", "metrics.k8s.io")
    ]
    assert any("inference enforces baseline; the pods pass restricted" in line for line in lines(checks, "note"))


def test_a_claim_by_dra_wants_its_device_class(api: ApiServer, cluster: Cluster, tmp_path: Path) -> None:
    api.served |= DRA
    rendered = render({"models": {"uri": "s3://b/m"}, "accelerator": {"kind": "dra"}}, tmp_path)
    checks = list(preflight._nodes(cluster, ENVIRONMENT, rendered))
    assert "device class: there is no DeviceClass gpu.nvidia.com" in lines(checks, "missing")
    api.add(thing("DeviceClass", "gpu.nvidia.com", "resource.k8s.io/v1"), node())
    assert lines(list(preflight._nodes(cluster, ENVIRONMENT, rendered)), "missing") == []


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path, cluster: Cluster, api: ApiServer) -> None:
    dead = (tmp_path / "kubeconfig").read_text(encoding="utf-8").replace(api.url, "http://127.0.0.1:1")
    (tmp_path / "kubeconfig").write_text(dead, encoding="utf-8")
    (check,) = preflight.look(cluster, ENVIRONMENT, Rendered("", (), ()))
    assert (check.name, check.state) == ("context", "missing")
    assert "127.0.0.1:1" in check.text
    assert "VPN" in check.fix


# --- would a pod find a node? ---

GPU_POD = {
    "containers": [{"name": "triton", "resources": {"limits": {"memory": "16Gi", "nvidia.com/gpu": 1}}}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": nodes.PRODUCT, "operator": "In", "values": [A10G, "Tesla-T4"]}]}]}}},
}  # fmt: skip
SPOT = {"key": "spot", "value": "yes", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("there", "pods", "expected"),
    [
        ([node()], 4, "ok"),
        ([node(product="Tesla-T4"), node(product="NVIDIA-L4")], 4, "ok"),
        ([node(gpus=1), node("gpu-2", gpus=1)], 2, "ok"),
        ([node(gpus=1), node("gpu-2", gpus=1)], 3, "device plugin: D: 3 pods with 1 nvidia.com/gpu each, and the nodes have room for 2"),
        ([node(gpus=0)], 1, "device plugin: D: gpu-1 offer no nvidia.com/gpu"),
        ([node(product="NVIDIA-L4")], 1, "the cluster has 1 × NVIDIA-L4"),
        ([node(unschedulable=True)], 1, "nodes: D: all nodes that fit are cordoned or not ready: gpu-1"),
        ([node(taints=[SPOT])], 1, "nodes: D: no toleration for the taint spot=yes:NoExecute of gpu-1"),
        ([node(taints=[SPOT | {"effect": "PreferNoSchedule"}])], 1, "ok"),
        ([], 1, "no node with a GPU that has labels"),
    ],
)  # fmt: skip
def test_the_first_thing_that_keeps_a_pod_from_a_node_is_named(there: list[Object], pods: int, expected: str) -> None:
    checks = nodes.check("D", GPU_POD, pods, there, on_demand=False)
    missing = lines(checks, "missing")
    if expected == "ok":
        assert missing == []
    else:
        assert len(missing) == 1
        assert expected in missing[0]


def test_pods_without_a_gpu_need_room_too(api: ApiServer, cluster: Cluster, tmp_path: Path) -> None:
    api.add(thing("Namespace", "inference"), node("cpu-1", product="", gpus=0, taints=[]))
    large = {"requests": {"cpu": "16", "memory": "64Gi"}, "limits": {"memory": "64Gi"}}
    values = {"models": {"uri": "s3://b/p"}, "accelerator": {"kind": "cpu"}, "resources": large}
    rendered = render(values, tmp_path)
    (line,) = [
        line for line in lines(preflight.look(cluster, ENVIRONMENT, rendered), "missing") if line.startswith("room")
    ]
    assert "and no node that fits has so much for pods; cpu-1 has 7.91 CPUs and 30 GiB" in line


def test_nodes_that_an_autoscaler_adds_need_not_be_there() -> None:
    (check,) = nodes.check("D", GPU_POD | {"affinity": {}}, 1, [], on_demand=True)
    assert (check.state, "onDemand" in check.text) == ("note", True)


def pool_pod(label: str = nodes.PRODUCT) -> Object:
    """The rendered pods of products that ``label`` says."""
    rule = {"key": label, "operator": "In", "values": ["l4"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return GPU_POD | {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def test_a_label_that_only_a_running_node_has_starts_none() -> None:
    (check,) = nodes.check("D", GPU_POD, 1, [], on_demand=True)
    assert check.state == "missing"
    assert f"no autoscaler knows {nodes.PRODUCT} of a node that does not exist yet" in check.text
    assert "accelerator.productLabel" in check.fix
    for label in nodes.POOL_PRODUCTS:
        assert label in check.fix
        (after,) = nodes.check("D", pool_pod(label), 1, [], on_demand=True)
        assert after.state == "note"
    (declared,) = nodes.check("D", GPU_POD, 1, [], on_demand=True, pool_labels=[nodes.PRODUCT])
    assert declared.state == "note"


def test_a_release_that_starts_no_node_is_reported_before_deployment(
    api: ApiServer, cluster: Cluster, tmp_path: Path
) -> None:
    where = {"context": "here", "namespace": "inference", "release": "triton", "gpuNodes": "onDemand"}
    values = {"models": {"uri": "s3://b/m"}, "rollout": {"profile": "inPlace"}, "accelerator": {"products": [A10G]}}
    by_product = render(values, tmp_path)
    pool = {"productLabel": "karpenter.k8s.aws/instance-gpu-name", "products": ["a10g"]}
    by_pool = render({**values, "accelerator": pool}, tmp_path)
    for rendered, more, state in (
        (by_product, {}, "missing"),
        (by_product, {"poolLabels": [nodes.PRODUCT]}, "note"),
        (by_pool, {}, "note"),
    ):
        environment = Environment("prod", "prod", Path("prod.yaml"), Deploy.model_validate(where | more), {})
        assert [check.state for check in preflight._nodes(cluster, environment, rendered)] == [state]


def test_one_alternative_that_a_new_node_can_meet_is_enough() -> None:
    late = {"matchExpressions": [{"key": nodes.PRODUCT, "operator": "Exists"}]}
    early = {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}
    for terms, state in (([late, early], "note"), ([late], "missing")):
        required = {"nodeSelectorTerms": terms}
        pod = GPU_POD | {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
        assert [check.state for check in nodes.check("D", pod, 1, [], on_demand=True)] == [state]
    selector = {key: value for key, value in GPU_POD.items() if key != "affinity"} | {
        "nodeSelector": {nodes.PRODUCT: "a"}
    }
    assert [check.state for check in nodes.check("D", selector, 1, [], on_demand=True)] == ["missing"]


def test_too_few_nodes_are_no_obstacle_where_an_autoscaler_adds_some() -> None:
    for there in ([node(gpus=1)], [node(unschedulable=True)]):
        pods = GPU_POD | {"affinity": {}}
        assert lines(nodes.check("D", pods, 3, there, on_demand=False), "missing")
        checks = nodes.check("D", pods, 3, there, on_demand=True)
        assert lines(checks, "missing") == []
        assert "the autoscaler has to add" in "".join(lines(checks, "note"))


def test_nodes_whose_pool_says_the_product_lead_to_its_label() -> None:
    pool = node(product="")
    pool["metadata"]["labels"] = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    (check,) = nodes.check("D", GPU_POD, 1, [pool], on_demand=False)
    assert "1 × cloud.google.com/gke-accelerator=nvidia-l4" in check.text
    assert "accelerator.productLabel=cloud.google.com/gke-accelerator" in check.fix


def test_a_pod_that_wants_slices_is_answered_with_what_nodes_offer() -> None:
    limits = {"nvidia.com/mig-1g.10gb": 1}
    pod = GPU_POD | {"containers": [{"name": "triton", "resources": {"limits": limits}}]}
    (_, check) = nodes.check("D", pod, 1, [node()], on_demand=False)
    assert "offer no nvidia.com/mig-1g.10gb; they offer nvidia.com/gpu" in check.text
    assert "mig.profile" in check.fix


def test_an_init_container_that_builds_needs_no_second_gpu() -> None:
    builds = GPU_POD | {"initContainers": GPU_POD["containers"]}
    assert nodes.requested_devices(builds) == {"nvidia.com/gpu": 1}


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({"key": "zone", "operator": "NotIn", "values": ["b"]}, True),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "gpus", "operator": "Gt", "values": ["3"]}, True),
        ({"key": "gpus", "operator": "Lt", "values": ["3"]}, False),
    ],
)
def test_node_affinity_is_read_as_the_scheduler_reads_it(rule: Object, fits: bool) -> None:
    required = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    pod = GPU_POD | {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}
    there = node()
    there["metadata"]["labels"] |= {"zone": "a", "gpus": "4"}
    assert (not lines(nodes.check("D", pod, 1, [there], on_demand=False), "missing")) == fits


def test_every_kubectl_of_this_machine_takes_several_objects(cluster: Cluster) -> None:
    """kubectl 1.32 takes a stream that begins with a brace for JSON, and refuses what separates its objects."""
    objects = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in "ab"]
    stream = chart.as_stream(objects)
    assert stream.startswith("---\n")
    assert list(yaml.safe_load_all(stream)) == objects
    for program in {cluster.kubectl, Path(shutil.which("kubectl") or cluster.kubectl)}:
        answer = Cluster(program, cluster.context, cluster.namespace).run(
            "apply", "--server-side", "--dry-run=server", "-f", "-", stdin=stream
        )
        assert answer.returncode == 0, (program, answer.stderr)
