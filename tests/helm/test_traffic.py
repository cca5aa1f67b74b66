"""Where requests go: Services and routes of variants, canary and shadow, and what the NetworkPolicy lets through."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
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
TWO: Document = {"stable": {}, "next": {}}


def render(**values: Any) -> list[Document]:
    given = {"fullnameOverride": "triton", "models": {"uri": "s3://bucket/prefix"}}
    return rendering.documents(rendering.case(values={**given, **values}))


def refusal(**values: Any) -> str:
    with pytest.raises(rendering.Refused) as refused:
        render(**values)
    return str(refused.value)


def one(documents: list[Document], kind: str, name: str) -> Document:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def receivers(documents: list[Document], service: str) -> set[str]:
    """The Deployments whose pods a Service sends requests to."""
    selector = one(documents, "Service", service)["spec"]["selector"]
    return {
        d["metadata"]["name"]
        for d in documents
        if d["kind"] == "Deployment" and selector.items() <= d["spec"]["template"]["metadata"]["labels"].items()
    }


def rules(documents: list[Document], kind: str) -> Document:
    (rule,) = one(documents, kind, "triton")["spec"]["rules"]
    found: Document = rule
    return found


def test_a_shadow_gets_copies_only() -> None:
    documents = render(variants=TWO, gateway={**GATEWAY, "shadow": {"variant": "next", "percent": 10}})
    for protocol, kind in (("http", "HTTPRoute"), ("grpc", "GRPCRoute")):
        rule = rules(documents, kind)
        (mirror,) = rule["filters"]
        assert mirror["requestMirror"]["percent"] == 10
        assert receivers(documents, mirror["requestMirror"]["backendRef"]["name"]) == {"triton-next"}
        (backend,) = rule["backendRefs"]
        assert receivers(documents, backend["name"]) == {"triton-stable"}
        assert receivers(documents, f"triton-{protocol}") == {"triton-stable"}
    assert receivers(documents, "triton-headless") == {"triton-stable"}


def test_a_shadow_of_everything_needs_no_percent_which_older_gateways_do_not_know() -> None:
    documents = render(variants=TWO, gateway={**GATEWAY, "shadow": {"variant": "next"}})
    assert "percent" not in rules(documents, "HTTPRoute")["filters"][0]["requestMirror"]


def test_making_a_shadow_live_changes_its_pods_only() -> None:
    before = render(variants=TWO, gateway={**GATEWAY, "shadow": {"variant": "next"}})
    after = render(variants=TWO, gateway=GATEWAY)
    for name, same in (("triton-stable", True), ("triton-next", False)):
        pods = [one(documents, "Deployment", name)["spec"]["template"] for documents in (before, after)]
        assert (pods[0] == pods[1]) is same
    assert receivers(after, "triton-http") == {"triton-stable", "triton-next"}


def test_a_canary_gets_its_share() -> None:
    documents = render(variants=TWO, gateway={**GATEWAY, "weights": {"stable": 95, "next": 5}})
    for protocol, kind in (("http", "HTTPRoute"), ("grpc", "GRPCRoute")):
        shares = {
            name: ref["weight"]
            for ref in rules(documents, kind)["backendRefs"]
            for name in receivers(documents, ref["name"])
        }
        assert shares == {"triton-stable": 95, "triton-next": 5}
        assert all(ref["name"].endswith(f"-{protocol}") for ref in rules(documents, kind)["backendRefs"])


def test_a_gateway_passes_the_inference_protocol_on_and_nothing_else() -> None:
    documents = render(gateway=GATEWAY)
    (match,) = rules(documents, "HTTPRoute")["matches"]
    assert match["path"] == {"type": "PathPrefix", "value": "/v2"}
    assert {m["method"]["service"] for m in rules(documents, "GRPCRoute")["matches"]} == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    }


@pytest.mark.parametrize(
    ("gateway", "what"),
    [
        ({"weights": {"nobody": 1}}, "gateway.weights.nobody: no such variant"),
        ({"weights": {"stable": 0, "next": 0}}, "every request would fail"),
        ({"shadow": {"variant": "nobody"}}, 'no variant "nobody"'),
        ({"shadow": {"variant": "next"}, "weights": {"stable": 1, "next": 1}}, "gets a weight, too"),
        ({"parentRefs": []}, "no Gateway for the http route"),
        ({"grpc": {"hostnames": []}}, "HTTPRoutes or GRPCRoutes, not both"),
        ({"grpc": {"hostnames": ["models.example"]}}, "HTTPRoutes or GRPCRoutes, not both"),
    ],
)
def test_a_gateway_that_would_not_work_is_refused(gateway: Document, what: str) -> None:
    said = refusal(variants=TWO, gateway={**GATEWAY, **gateway})
    assert what in said
    assert "fix:" in said


def test_one_host_name_on_two_listeners_is_fine() -> None:
    listeners = {
        protocol: {"hostnames": ["models.example"], "parentRefs": [{"name": "public", "sectionName": protocol}]}
        for protocol in ("http", "grpc")
    }
    documents = render(gateway={**GATEWAY, **listeners})
    for kind, section in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        assert one(documents, kind, "triton")["spec"]["parentRefs"] == [{"name": "public", "sectionName": section}]


@pytest.mark.parametrize(
    ("ingress", "what"),
    [
        ({}, "without a host name"),
        ({"http": {"host": "a.example"}, "grpc": {"host": "a.example"}}, "host name of its own"),
    ],
)
def test_an_ingress_that_would_not_work_is_refused(ingress: Document, what: str) -> None:
    assert what in refusal(ingress={"enabled": True, **ingress})


@pytest.mark.parametrize("front", [True, False])
def test_the_headless_services_ports_are_the_pods_own(front: bool) -> None:
    """DNS answers with pods, so a client connects to the port that it named."""
    documents = render(front={"enabled": front})
    ports = {p["name"]: p["port"] for p in one(documents, "Service", "triton-headless")["spec"]["ports"]}
    containers = one(documents, "Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    listening = {p["name"]: p["containerPort"] for c in containers for p in c["ports"]}
    assert ports == {name: listening[name] for name in ("http", "grpc")}


@pytest.fixture(scope="module")
def haproxy() -> str:
    if found := shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"):
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no haproxy: apt-get install haproxy")
    pytest.skip("there is no haproxy: apt-get install haproxy")


def ask(place: Path, path: str, process: subprocess.Popen[bytes]) -> str:
    """The whole answer to a GET over the Unix socket at ``place``, once somebody listens there."""
    while not place.exists():
        assert process.poll() is None
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(place))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def openings(**values: Any) -> Document:
    spec: Document = one(render(**values), "NetworkPolicy", "triton")["spec"]
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
    assert ports(metrics) == {8002}


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
    assert [ports(rule) for rule in spec["egress"]] == [{53}]


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


def test_the_job_that_builds_engines_is_under_the_policy_too() -> None:
    documents = render(engineBuild={"mode": "job", "cache": {"existingClaim": "plans"}})
    spec = one(documents, "NetworkPolicy", "triton")["spec"]["podSelector"]
    (expression,) = spec["matchExpressions"]
    for pod in kube.pods(documents):
        if pod.owner["kind"] in {"Deployment", "Job"}:
            assert spec["matchLabels"].items() <= pod.labels.items()
            assert pod.labels[expression["key"]] in expression["values"]


@pytest.mark.parametrize(
    ("scaling", "what"),
    [
        ({"minReplicas": 5}, "below minReplicas"),
        ({"minReplicas": 0}, "an HPA does not go down to no pod"),
        ({"minReplicas": 0, "kind": "keda"}, "nothing would ever start one"),
        ({}, "recording rules"),
    ],
)
def test_autoscaling_that_would_not_work_is_refused(scaling: Document, what: str) -> None:
    said = refusal(autoscaling={"enabled": True, **scaling})
    assert what in said
    assert "fix:" in said


def test_a_refusal_in_a_variant_names_it() -> None:
    variants = {"a10g": {"autoscaling": {"enabled": True, "kind": "keda", "maxReplicas": 0, "minReplicas": 1}}}
    assert "variants" in refusal(variants=variants)


def test_two_monitors_would_count_every_request_twice() -> None:
    monitoring = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    assert "counted twice" in refusal(monitoring=monitoring)


def test_the_autoscaler_says_how_fast_the_number_of_pods_may_change() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 900}}
    scaled = {"enabled": True, "behavior": behavior}
    rule = {"prometheusRule": {"enabled": True}}
    hpa = one(render(autoscaling=scaled, monitoring=rule), "HorizontalPodAutoscaler", "triton")
    keda = one(render(autoscaling={**scaled, "kind": "keda"}), "ScaledObject", "triton")
    nested = keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    for found in (hpa["spec"], nested):
        assert found["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 900
        assert found["behavior"]["scaleUp"]["policies"]


def test_the_front_says_whether_engines_are_in_use() -> None:
    documents = render(engineBuild={"mode": "init"}, monitoring={"podMonitor": {"enabled": True}})
    endpoints = one(documents, "PodMonitor", "triton")["spec"]["podMetricsEndpoints"]
    assert {"port": "http", "path": "/tritonkit/engines", "interval": "15s"} in endpoints
    assert yaml.safe_dump(one(documents, "ConfigMap", "triton-front")).count("/tritonkit/engines") == 2
    assert 8080 in {port for rule in openings(engineBuild={"mode": "init"})["ingress"][1:] for port in ports(rule)}


@pytest.mark.parametrize(("written", "value"), [("--model-config-name=onnxruntime\n", 1), ("--x=y\n", 0), ("", 0)])
def test_what_the_front_says_of_engines_is_what_the_init_container_wrote(
    haproxy: str, tmp_path: Path, written: str, value: int
) -> None:
    """The rendered configuration in a real HAProxy."""
    (tmp_path / "server").write_text(written)
    config = one(render(engineBuild={"mode": "init"}), "ConfigMap", "triton-front")["data"]["haproxy.cfg"]
    for port, name in ((8080, "http"), (8081, "grpc")):
        config = config.replace(f"bind :{port}", f"bind unix@{tmp_path}/{name}")
    (tmp_path / "haproxy.cfg").write_text(config.replace("/args/server", str(tmp_path / "server")))
    process = subprocess.Popen([haproxy, "-db", "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL)
    try:
        assert f"\r\n\r\ntritonkit_engine_fallback {value}\n" in ask(tmp_path / "http", "/tritonkit/engines", process)
    finally:
        process.kill()
        process.wait()
