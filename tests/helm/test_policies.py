"""Every policy sees what it is for: a manifest that keeps it is broken in one place, and the policy says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from manifests import cases, kube, policies, references, rendering

Documents = list[dict[str, Any]]
VALUES = {
    "models": cases.MODELS,
    "admin": {"existingSecret": "admin"},
    "engineBuild": {"mode": "job", "cache": {"size": "20Gi"}},
    "autoscaling": {"enabled": True, "kind": "keda", "maxReplicas": 5},
    "gateway": cases.SWITCHES["gateway"]["gateway"],
    "ingress": cases.SWITCHES["ingress"]["ingress"],
    "monitoring": cases.SWITCHES["monitoring"]["monitoring"],
    "variants": {
        "scaled": {"accelerator": {"kind": "dra"}},
        "fixed": {"autoscaling": {"enabled": False}},
    },
}


@pytest.fixture(scope="module")
def whole() -> Documents:
    """A manifest with nearly everything in it, as rendered."""
    return rendering.documents(rendering.case(values=VALUES))


def test_the_manifest_that_is_broken_below_keeps_every_policy(whole: Documents) -> None:
    assert policies.broken(whole, {"admin"}) == []


def find(documents: Documents, kind: str, end: str = "") -> Any:
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(end))


def spec(documents: Documents, end: str = "-fixed") -> Any:
    return find(documents, "Deployment", end)["spec"]["template"]["spec"]


def container(documents: Documents, name: str = "triton", end: str = "-fixed") -> Any:
    return next(c for c in spec(documents, end)["containers"] if c["name"] == name)


def variable(documents: Documents, name: str, **value: Any) -> Any:
    return container(documents).setdefault("env", []).append({"name": name, **value})


def labels(documents: Documents) -> Any:
    return find(documents, "Deployment", "-fixed")["spec"]["template"]["metadata"]["labels"]


Break = Callable[[Documents], Any]
# policy → ways to break it
BREAKS: dict[str, list[Break]] = {
    "restricted": [
        lambda d: spec(d).update(hostNetwork=True),
        lambda d: spec(d).update(hostPID=True),
        lambda d: spec(d)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda d: spec(d)["volumes"].append({"name": "nfs", "nfs": {"server": "a", "path": "/"}}),
        lambda d: spec(d)["volumes"].append({"name": "nothing"}),
        lambda d: spec(d)["securityContext"].update(runAsNonRoot=False),
        lambda d: spec(d)["securityContext"].update(runAsUser=0),
        lambda d: spec(d)["securityContext"].pop("seccompProfile"),
        lambda d: spec(d)["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        lambda d: spec(d)["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
        lambda d: spec(d)["securityContext"].update(appArmorProfile={"type": "Unconfined"}),
        lambda d: spec(d)["securityContext"].update(windowsOptions={"hostProcess": True}),
        lambda d: container(d)["securityContext"].update(privileged=True),
        lambda d: container(d)["securityContext"].pop("allowPrivilegeEscalation"),
        lambda d: container(d)["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
        lambda d: container(d)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        lambda d: container(d)["securityContext"].update(procMount="Unmasked"),
        lambda d: container(d)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda d: container(d)["ports"][0].update(hostPort=8000),
        lambda d: container(d)["livenessProbe"]["httpGet"].update(host="10.0.0.1"),
        lambda d: find(d, "Job")["spec"]["template"]["spec"]["containers"][0].pop("securityContext"),
        lambda d: find(d, "Deployment", "-fixed")["spec"]["template"]["metadata"]["annotations"].update(
            {"container.apparmor.security.beta.kubernetes.io/triton": "unconfined"}
        ),
    ],
    "read_only_root": [
        lambda d: container(d)["securityContext"].update(readOnlyRootFilesystem=False),
        lambda d: variable(d, "TMPDIR", value="/nowhere"),
        lambda d: variable(d, "VLLM_CACHE_ROOT", value="/nowhere"),
    ],
    "no_token": [lambda d: spec(d).pop("automountServiceAccountToken")],
    "names_exist": [
        lambda d: spec(d).update(serviceAccountName="nobody"),
        lambda d: spec(d).update(priorityClassName="highest"),
        lambda d: d.remove(find(d, "ConfigMap", "-front")),
        lambda d: d.remove(find(d, "PersistentVolumeClaim")),
        lambda d: d.remove(find(d, "ResourceClaimTemplate")),
        lambda d: find(d, "ScaledObject")["spec"]["scaleTargetRef"].update(name="nobody"),
        lambda d: find(d, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0].update(name="nobody"),
        lambda d: find(d, "GRPCRoute")["spec"]["rules"][0]["backendRefs"][0].update(name="nobody"),
        lambda d: find(d, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(
            name="nobody"
        ),
        lambda d: variable(d, "A", valueFrom={"secretKeyRef": {"name": "nobody", "key": "a"}}),
        lambda d: container(d).update(envFrom=[{"configMapRef": {"name": "nobody"}}]),
    ],
    "keys_exist": [
        lambda d: variable(
            d,
            "A",
            valueFrom={"configMapKeyRef": {"name": find(d, "ConfigMap", "-front")["metadata"]["name"], "key": "x"}},
        ),
    ],
    "selectors_match": [
        lambda d: find(d, "Service", "-headless")["spec"]["selector"].update(app="other"),
        lambda d: find(d, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(app="other"),
        lambda d: find(d, "NetworkPolicy")["spec"]["podSelector"].update(matchLabels={"app": "other"}),
        lambda d: find(d, "PodMonitor")["spec"]["selector"]["matchLabels"].update(app="other"),
        lambda d: labels(d).update({"tritonkit/variant": "scaled"}),
        lambda d: d.append(copy.deepcopy(find(d, "PodDisruptionBudget"))),
    ],
    "spread_takes_its_own": [
        lambda d: spec(d)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(app="other"),
    ],
    "ports_agree": [
        lambda d: find(d, "Service", "-http")["spec"]["ports"][0].update(targetPort="web"),
        lambda d: find(d, "Service", "-http")["spec"]["ports"][0].update(targetPort=1234),
        lambda d: find(d, "Service", "-headless")["spec"]["ports"][0].update(
            port=find(d, "Service", "-headless")["spec"]["ports"][1]["port"]
        ),
        lambda d: container(d)["livenessProbe"]["httpGet"].update(port="web"),
        lambda d: container(d)["ports"].append({"name": "http", "containerPort": 9999}),
        lambda d: container(d)["ports"][0].update(containerPort=8080),
        lambda d: find(d, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="web"),
        lambda d: find(d, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0].update(port=1234),
        lambda d: find(d, "GRPCRoute")["spec"]["rules"][0]["backendRefs"][0].update(port=1234),
        lambda d: find(d, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(
            port={"number": 1}
        ),
        lambda d: find(d, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0].update(port="web"),
    ],
    "volumes_agree": [
        lambda d: spec(d)["volumes"].pop(),
        lambda d: spec(d)["volumes"].append({"name": "idle", "emptyDir": {}}),
        lambda d: spec(d)["volumes"].append(spec(d)["volumes"][0]),
        lambda d: container(d)["volumeMounts"][0].update(mountPath="/dev/shm/"),
    ],
    "claims_agree": [lambda d: spec(d, "-scaled").pop("resourceClaims")],
    "grace_covers_the_end": [
        lambda d: spec(d).update(terminationGracePeriodSeconds=60),
        lambda d: spec(d).pop("terminationGracePeriodSeconds"),
        lambda d: (
            container(d)["args"].append("--exit-timeout-secs=300")
            or container(d)["args"].remove("--exit-timeout-secs=30")
        ),
        lambda d: container(d)["lifecycle"].update(preStop={"exec": {"command": ["/bin/sleep", "300"]}}),
    ],
    "triton_outlasts_its_front": [
        lambda d: container(d)["lifecycle"]["preStop"].update(sleep={"seconds": 10}),
        lambda d: container(d).pop("lifecycle"),
    ],
    "probes_exist": [
        lambda d: container(d).pop("startupProbe"),
        lambda d: container(d).pop("readinessProbe"),
        lambda d: container(d, "front").pop("livenessProbe"),
    ],
    "rollout_waits": [lambda d: container(d)["startupProbe"].update(failureThreshold=10000)],
    "autoscaler_owns_replicas": [
        lambda d: find(d, "Deployment", "-scaled")["spec"].update(replicas=1),
        lambda d: find(d, "Deployment", "-fixed")["spec"].pop("replicas"),
        lambda d: find(d, "ScaledObject")["spec"].update(minReplicaCount=9),
        lambda d: d.append(copy.deepcopy(find(d, "ScaledObject"))),
    ],
    "images_are_pinned": [
        lambda d: container(d).update(image="nvcr.io:443/nvidia/tritonserver"),
        lambda d: container(d).update(image="nvcr.io/nvidia/tritonserver:latest"),
        lambda d: spec(d)["volumes"].append({"name": "i", "image": {"reference": "models"}}),
    ],
    "secrets_stay_secret": [
        lambda d: variable(d, "AWS_SECRET_ACCESS_KEY", value="abc"),
        lambda d: (
            variable(d, "K", valueFrom={"secretKeyRef": {"name": "admin", "key": "k"}})
            or container(d)["args"].append("--key=$(K)")
        ),
        lambda d: d.append({"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "--http-port=8000"}}),
    ],
    "memory_holds_shared_memory": [
        lambda d: container(d)["resources"]["limits"].update(memory="1Gi"),
        lambda d: container(d)["resources"]["limits"].pop("memory"),
        lambda d: next(v for v in spec(d)["volumes"] if v["name"] == "shm")["emptyDir"].pop("sizeLimit"),
    ],
    "requests_fit_limits": [
        lambda d: container(d)["resources"]["requests"].update(memory="999Gi"),
        lambda d: container(d)["resources"]["requests"].update({"nvidia.com/mig-1g.10gb": 1}),
        lambda d: container(d)["resources"]["limits"].update({"nvidia.com/gpu": "500m"}),
    ],
    "gpu_pods_are_tolerated": [lambda d: spec(d).pop("tolerations"), lambda d: spec(d, "-scaled").pop("tolerations")],
    "budgets_let_nodes_drain": [
        lambda d: find(d, "PodDisruptionBudget")["spec"].update(maxUnavailable=0),
        lambda d: find(d, "PodDisruptionBudget")["spec"].update(minAvailable=1),
        lambda d: find(d, "PodDisruptionBudget")["spec"].pop("maxUnavailable"),
        lambda d: find(d, "PodDisruptionBudget", "-fixed").update(
            spec={"minAvailable": 1, "selector": find(d, "PodDisruptionBudget", "-fixed")["spec"]["selector"]}
        ),
    ],
    "names_are_valid": [
        lambda d: find(d, "Service", "-http")["metadata"].update(name="8-http"),
        lambda d: find(d, "ConfigMap")["metadata"].update(name="A_b"),
        lambda d: find(d, "Deployment")["metadata"].update(name="a" * 64),
        lambda d: d.append(find(d, "ConfigMap")),
        lambda d: find(d, "ConfigMap")["metadata"].update(namespace="default"),
        lambda d: container(d).update(name="front"),
        lambda d: container(d).update(name="Triton"),
        lambda d: container(d)["ports"][0].update(name="a-name-of-sixteen"),
    ],
    "labels_are_valid": [
        lambda d: find(d, "ConfigMap")["metadata"]["labels"].update(a="b c"),
        lambda d: find(d, "ConfigMap")["metadata"]["labels"].update({"a b": "c"}),
        lambda d: find(d, "ConfigMap")["metadata"]["labels"].update(a=1),
        lambda d: find(d, "ConfigMap")["metadata"].update(annotations={"a": 1}),
        lambda d: spec(d).update(nodeSelector={"a": "x" * 64}),
    ],
    "standard_labels": [lambda d: find(d, "ServiceAccount")["metadata"]["labels"].pop("app.kubernetes.io/instance")],
    "environment_is_valid": [
        lambda d: (variable(d, "A", value="1"), variable(d, "A", value="2")),
        lambda d: variable(d, "A=B", value="1"),
    ],
    "nothing_is_null": [lambda d: spec(d).update(nodeSelector=None)],
    "quantities_are_valid": [
        lambda d: container(d)["resources"]["limits"].update(memory="16GB"),
        lambda d: container(d)["resources"]["requests"].update(cpu="0"),
        lambda d: container(d)["resources"]["requests"].update(cpu="-1"),
        lambda d: spec(d)["volumes"].append({"name": "e", "emptyDir": {"sizeLimit": "much"}}),
    ],
    "rollouts_are_valid": [
        lambda d: find(d, "Deployment")["spec"].update(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
        lambda d: find(d, "Deployment")["spec"]["strategy"].update(rollingUpdate={"maxSurge": 0, "maxUnavailable": 0}),
    ],
}
EACH = [(policy, i) for policy, breaks in BREAKS.items() for i in range(len(breaks))]


def test_every_policy_is_broken_at_least_once() -> None:
    assert BREAKS.keys() == {*policies.POLICIES, "names_exist"}


@pytest.mark.parametrize(("policy", "way"), EACH, ids=[f"{policy}-{way}" for policy, way in EACH])
def test_a_policy_sees_what_breaks_it(whole: Documents, policy: str, way: int) -> None:
    documents = copy.deepcopy(whole)
    BREAKS[policy][way](documents)
    seen = (
        policies.POLICIES[policy](documents)
        if policy in policies.POLICIES
        else references.names_exist(documents, {"admin"})
    )
    assert list(seen)


def test_quantities_are_read_as_kubernetes_does() -> None:
    assert [kube.quantity(text) for text in ("1Gi", "1G", "500m", "2", 3, "1.5Ki")] == [2**30, 1e9, 0.5, 2, 3, 1536]


def test_a_selector_matches_as_in_kubernetes() -> None:
    rules = [{"key": "a", "operator": "In", "values": ["1"]}, {"key": "b", "operator": "DoesNotExist"}]
    assert kube.matches({"matchLabels": {"a": "1"}, "matchExpressions": rules}, {"a": "1"})
    assert not kube.matches({"matchExpressions": rules}, {"a": "1", "b": "2"})
    assert not kube.matches({"matchExpressions": rules}, {"a": "2"})
    assert kube.matches({}, {"a": "1"})
