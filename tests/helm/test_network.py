"""What the NetworkPolicy lets through: who comes in, and where pods may go, on every platform."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from manifests import kube, rendering

Document = dict[str, Any]
GATEWAY: Document = {
    "enabled": True,
    "parentRefs": [{"name": "public"}],
    "http": {"hostnames": ["models.example"]},
    "grpc": {"hostnames": ["grpc.models.example"]},
}
INGRESS: Document = {"enabled": True, "http": {"host": "a.example"}}


def render(**values: Any) -> list[Document]:
    return rendering.documents(rendering.case(values={"models": {"uri": "s3://bucket/prefix"}, **values}))


def openings(**values: Any) -> Document:
    (policy,) = kube.of_kind(render(**values), "NetworkPolicy")
    spec: Document = policy["spec"]
    return spec


def ports(rule: Document) -> set[int]:
    return {port["port"] for port in rule["ports"]}


def test_the_network_policy_denies_both_directions_but_for_what_is_named() -> None:
    spec = openings()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule.get("from") for rule in spec["ingress"])
    assert all(rule.get("to") for rule in spec["egress"])
    requests, metrics = spec["ingress"]
    assert ports(requests) == {8080, 8081}
    assert ports(metrics) == {8002, 8080}, "Triton's, and what the front says of engines"
    assert ports(openings(engineBuild={"checkPassports": False})["ingress"][1]) == {8002}


def test_only_the_front_can_be_reached_where_there_is_one() -> None:
    """Triton's own ports stay closed: what they accept would be cut at a rollout."""
    assert not {8000, 8001} & {port for rule in openings()["ingress"] for port in ports(rule)}
    assert {8000, 8001} <= {port for rule in openings(front={"enabled": False})["ingress"] for port in ports(rule)}


def test_the_proxies_of_a_gateway_or_ingress_get_in_where_there_is_one() -> None:
    def admitted(**values: Any) -> str:
        return str(openings(**values)["ingress"][0]["from"])

    assert "ingress-nginx" not in admitted()
    assert "ingress-nginx" in admitted(ingress={"enabled": True, "http": {"host": "a.example"}})
    away = admitted(gateway={**GATEWAY, "parentRefs": [{"name": "public", "namespace": "edge"}]})
    assert "edge" in away
    assert "envoy-gateway-system" in away


def reaches(spec: Document, address: str) -> set[int]:
    return {
        port
        for rule in spec["egress"]
        for to in rule["to"]
        for port in ports(rule)
        if address in str(to.get("ipBlock"))
    }


def test_models_from_a_volume_need_no_way_out() -> None:
    spec = openings(models={"uri": "", "pvc": {"claimName": "models"}})
    assert [ports(rule) for rule in spec["egress"]] == [{53, 5353}]


@pytest.mark.parametrize(
    ("uri", "address", "port"), [("s3://b/p", "169.254.170.23/32", 80), ("gs://b/p", "169.254.169.252/32", 988)]
)
def test_workload_identity_reaches_its_agent_and_a_secret_needs_none(uri: str, address: str, port: int) -> None:
    assert port in reaches(openings(models={"uri": uri}), address)
    assert not reaches(openings(models={"uri": uri, "credentials": {"existingSecret": "key"}}), address)


def test_an_object_store_cannot_be_the_metadata_service() -> None:
    """Pods that reach 169.254.169.254 may take over the node's own identity."""
    (store,) = [rule for rule in openings()["egress"] if ports(rule) == {443}]
    assert store["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]


def test_the_collectors_port_is_open_when_traces_are_sent() -> None:
    spec = openings(tracing={"enabled": True, "url": "http://otel.observability:14318/v1/traces"})
    assert 14318 in {port for rule in spec["egress"] for port in ports(rule)}
    spec = openings(tracing={"enabled": True, "url": "https://otel.example/v1/traces"})
    assert {443} in [ports(rule) for rule in spec["egress"]]


@pytest.mark.parametrize(
    ("uri", "more", "expected"),
    [
        ("s3://bucket/prefix", {}, {443}),
        ("s3://http://minio.storage.svc:9000/b/p", {}, {9000, 443}),  # tokens, where no Secret is named
        ("s3://https://minio.example:9443/b/p", {"credentials": {"existingSecret": "keys"}}, {9443}),
        ("s3://http://minio.example/b/p", {"credentials": {"existingSecret": "keys"}}, {80}),
        ("s3://10.0.0.2:9000/b/p", {"credentials": {"existingSecret": "keys"}}, {9000}),
        ("gs://bucket/prefix", {"credentials": {"existingSecret": "keys"}}, {443}),
    ],
)
def test_the_object_stores_ports_are_those_of_its_uri(uri: str, more: Document, expected: set[int]) -> None:
    stores = [rule for rule in openings(models={"uri": uri, **more})["egress"] if "0.0.0.0/0" in str(rule["to"])]
    assert [ports(rule) for rule in stores] == [expected]


def test_a_store_is_reached_by_its_namespace_and_a_proxy_by_its_port() -> None:
    """Some CNIs take an ipBlock for what is outside the cluster only."""
    spec = openings(
        models={"uri": "s3://http://minio.storage.svc.cluster.local:9000/b/p"},
        tools={"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}]},
    )
    (store,) = [rule for rule in spec["egress"] if 9000 in ports(rule)]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}} in store["to"]
    assert ports(store) == {9000, 443, 3128}


@pytest.mark.parametrize(
    "server", ["169.254.169.254/32", "169.254.20.10/32", "169.254.10.0/24", "kube-system", "openshift-dns"]
)
def test_name_servers_of_every_platform_are_reached(server: str) -> None:
    """GKE's metadata server answers names at 53, NodeLocal DNSCache and AKS's LocalDNS too; OpenShift's pods at 5353."""
    (names,) = [rule for rule in openings()["egress"] if server in str(rule["to"]) and 53 in ports(rule)]
    assert ports(names) == {53, 5353}
    assert {port["protocol"] for port in names["ports"]} == {"UDP", "TCP"}


def test_platforms_open_what_their_own_parts_need() -> None:
    def opened(*platforms: str) -> str:
        return yaml.safe_dump(openings(networkPolicy={"platforms": [*platforms]}, ingress=INGRESS))

    assert "35.191.0.0/16" in opened("gke")
    assert "gmp-system" in opened("gke")
    assert "openshift-user-workload-monitoring" in opened("openshift")
    assert "app-routing-system" in opened("aks")
    assert all(word in opened("istio") for word in ("15012", "15020", "15008", "aks-istio-system"))
    for words in ("169.254.7.127/32", "15008"):
        assert words in opened("istioAmbient")
        assert words not in opened()
    known = yaml.safe_load((rendering.CHART / "files/platforms.yaml").read_text(encoding="utf-8"))
    schema = rendering.CHART / "values.schema.json"
    choices = json.loads(schema.read_text(encoding="utf-8"))["properties"]["networkPolicy"]["properties"]["platforms"]
    assert list(known) == choices["items"]["enum"]


def test_the_job_that_builds_engines_is_under_the_policy_too() -> None:
    documents = render(engineBuild={"mode": "job", "cache": {"existingClaim": "plans"}})
    (policy,) = kube.of_kind(documents, "NetworkPolicy")
    spec = policy["spec"]["podSelector"]
    (expression,) = spec["matchExpressions"]
    for pod in kube.pods(documents):
        if pod.owner["kind"] in {"Deployment", "Job"}:
            assert spec["matchLabels"].items() <= pod.labels.items()
            assert pod.labels[expression["key"]] in expression["values"]


def test_prometheus_reaches_what_the_front_says_of_engines() -> None:
    assert 8080 in {port for rule in openings(engineBuild={"mode": "init"})["ingress"][1:] for port in ports(rule)}
