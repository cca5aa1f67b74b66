"""Where requests go: Services and routes of variants, canary and shadow, certificates, and what scales and watches them."""

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
    base = {"fullnameOverride": "triton", "models": {"uri": "s3://bucket/prefix"}}
    return rendering.documents(rendering.case(values={**base, **values}))


def refusal(**values: Any) -> str:
    with pytest.raises(rendering.Refused) as refused:
        render(**values)
    return str(refused.value)


def find(documents: list[Document], kind: str, name: str) -> Document:
    (document,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return document


def receivers(documents: list[Document], service: str) -> set[str]:
    """The Deployments whose pods a Service sends requests to."""
    selector = find(documents, "Service", service)["spec"]["selector"]
    return {
        d["metadata"]["name"]
        for d in documents
        if d["kind"] == "Deployment" and selector.items() <= d["spec"]["template"]["metadata"]["labels"].items()
    }


def rules(documents: list[Document], kind: str) -> Document:
    (rule,) = find(documents, kind, "triton")["spec"]["rules"]
    rule_of_kind: Document = rule
    return rule_of_kind


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


def test_a_shadow_of_everything_needs_no_percent() -> None:
    """Older Gateways do not know the field."""
    documents = render(variants=TWO, gateway={**GATEWAY, "shadow": {"variant": "next"}})
    assert "percent" not in rules(documents, "HTTPRoute")["filters"][0]["requestMirror"]


def test_making_a_shadow_live_changes_its_pods_only() -> None:
    before = render(variants=TWO, gateway={**GATEWAY, "shadow": {"variant": "next"}})
    after = render(variants=TWO, gateway=GATEWAY)
    for name, same in (("triton-stable", True), ("triton-next", False)):
        pods = [find(documents, "Deployment", name)["spec"]["template"] for documents in (before, after)]
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
    message = refusal(variants=TWO, gateway={**GATEWAY, **gateway})
    assert what in message
    assert "fix:" in message


def test_one_host_name_on_two_listeners_is_fine() -> None:
    listeners = {
        protocol: {"hostnames": ["models.example"], "parentRefs": [{"name": "public", "sectionName": protocol}]}
        for protocol in ("http", "grpc")
    }
    documents = render(gateway={**GATEWAY, **listeners})
    for kind, section in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        assert find(documents, kind, "triton")["spec"]["parentRefs"] == [{"name": "public", "sectionName": section}]


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
    ports = {p["name"]: p["port"] for p in find(documents, "Service", "triton-headless")["spec"]["ports"]}
    containers = find(documents, "Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    listening = {p["name"]: p["containerPort"] for c in containers for p in c["ports"]}
    assert ports == {name: listening[name] for name in ("http", "grpc")}


@pytest.fixture(scope="module")
def haproxy() -> str:
    if program := shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"):
        return program
    if os.environ.get("CI"):
        pytest.fail("there is no haproxy: apt-get install haproxy")
    pytest.skip("there is no haproxy: apt-get install haproxy")


def ask(place: Path, path: str, process: subprocess.Popen[bytes]) -> str:
    """The whole answer to a GET over the Unix socket at ``place``, once somebody listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        while connection.connect_ex(str(place)):  # no file yet, or nobody who listens at it
            assert process.poll() is None
            time.sleep(0.02)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def test_each_protocol_has_a_service_of_its_own_kind() -> None:
    documents = render(
        networkPolicy={"ingress": {"clients": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}},
        service={
            "annotations": {"a": "both", "b": "both"},
            "grpc": {
                "type": "LoadBalancer",
                "annotations": {"b": "grpc"},
                "loadBalancerClass": "service.k8s.aws/nlb",
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
                "externalTrafficPolicy": "Local",
                "nodePort": 30001,
            },
            "http": {"internalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack"},
        },
    )
    http, grpc = (find(documents, "Service", f"triton-{protocol}") for protocol in ("http", "grpc"))
    assert http["metadata"]["annotations"] == {"a": "both", "b": "both"}
    assert grpc["metadata"]["annotations"] == {"a": "both", "b": "grpc"}
    assert http["spec"].items() >= {
        "type": "ClusterIP", "internalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack",
    }.items()  # fmt: skip
    assert grpc["spec"].items() >= {
        "type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb", "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
    }.items()  # fmt: skip
    assert grpc["spec"]["ports"][0]["nodePort"] == 30001
    assert not {"loadBalancerClass", "externalTrafficPolicy"} & http["spec"].keys()


def test_the_front_listens_on_ipv6_where_a_service_has_it(haproxy: str, tmp_path: Path) -> None:
    """HAProxy itself reads the rendered configuration."""
    service = {"http": {"ipFamilyPolicy": "PreferDualStack"}}
    documents = render(service=service, engineBuild={"checkPassports": False})  # which would write a file for it
    config = str(find(documents, "ConfigMap", "triton-front")["data"]["haproxy.cfg"])
    assert all(f"bind [::]:{port} v4v6" in config for port in (8080, 8081))
    (tmp_path / "haproxy.cfg").write_text(config)
    done = subprocess.run([haproxy, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_ingress_may_have_a_certificate_of_its_own() -> None:
    annotations = {"cert-manager.io/cluster-issuer": "le"}
    own = {protocol: {"host": f"{protocol}.example", "annotations": annotations} for protocol in ("http", "grpc")}
    ingress = {"enabled": True, "tlsSecretName": "web-tls", **own}
    ingress["grpc"] = {**own["grpc"], "tlsSecretName": "web-tls-grpc"}
    documents = render(ingress=ingress)
    assert [find(documents, "Ingress", f"triton-{protocol}")["spec"]["tls"] for protocol in ("http", "grpc")] == [
        [{"hosts": ["http.example"], "secretName": "web-tls"}],
        [{"hosts": ["grpc.example"], "secretName": "web-tls-grpc"}],
    ]


def test_an_autoscaler_takes_metrics_and_triggers_of_ones_own() -> None:
    kv_cache = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {"serverAddress": "http://p:9090", "query": "avg(vllm:kv_cache_usage_perc)", "threshold": "0.8"},
    }
    scaling = {"enabled": True, "kind": "keda", "keda": {"triggers": [kv_cache]}}
    both = find(render(autoscaling=scaling), "ScaledObject", "triton")["spec"]["triggers"]
    assert [trigger.get("name") for trigger in both] == ["in-flight-requests", None]
    only = find(render(autoscaling={**scaling, "signal": "none", "minReplicas": 0}), "ScaledObject", "triton")
    assert only["spec"]["triggers"] == [kv_cache]
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    hpa = render(autoscaling={"enabled": True, "signal": "none", "hpa": {"metrics": [cpu]}})
    assert find(hpa, "HorizontalPodAutoscaler", "triton")["spec"]["metrics"] == [cpu]


def test_the_first_pod_of_a_release_scaled_to_zero_stays_for_its_test() -> None:
    """KEDA's cooldownPeriod begins with the first activity, of which a new release has none."""
    zero: Document = {
        "enabled": True,
        "kind": "keda",
        "minReplicas": 0,
        "keda": {"activation": {"query": "up"}, "cooldownPeriod": 60},
    }

    def first(**values: Any) -> int:
        documents = render(**values)
        deadline = find(documents, "Deployment", "triton")["spec"]["progressDeadlineSeconds"]
        return int(find(documents, "ScaledObject", "triton")["spec"]["initialCooldownPeriod"]) - int(deadline)

    assert first(autoscaling=zero, tests={"timeoutSeconds": 700}) == 700
    assert first(autoscaling=zero, tests={"enabled": False}) == 0
    longer = zero["keda"] | {"cooldownPeriod": 100_000}
    assert first(autoscaling=zero | {"keda": longer}) > 90_000
    scaled = find(render(autoscaling=zero | {"minReplicas": 1}), "ScaledObject", "triton")
    assert "initialCooldownPeriod" not in scaled["spec"]


def test_labels_of_everything_are_on_everything_and_select_nothing() -> None:
    documents = render(
        commonLabels={"team": "search", "tier": "gold"},
        podLabels={"tier": "silver"},
        tests={"podLabels": {"sidecar.istio.io/inject": "true"}, "podAnnotations": {"a.example/b": "c"}},
        monitoring={"podMonitor": {"enabled": True, "labels": {"team": "monitoring"}}},
        engineBuild={"mode": "job", "cache": {"size": "1Gi"}},
    )
    labels = {kube.title(document): document["metadata"]["labels"] for document in documents}
    assert {name: pairs["team"] for name, pairs in labels.items() if pairs.get("team") != "search"} == {
        "PodMonitor triton": "monitoring"
    }
    for pod in kube.pods(documents):
        assert pod.labels["team"] == "search"
        assert pod.labels["tier"] == ("gold" if pod.owner["kind"] == "Pod" else "silver")
    selectors = [yaml.safe_dump(d["spec"].get("selector", "")) for d in documents if "spec" in d]
    assert not any("team" in selector for selector in selectors)
    test = find(documents, "Pod", "triton-test")["metadata"]
    assert test["labels"]["sidecar.istio.io/inject"] == "true"
    assert test["annotations"].items() >= {"helm.sh/hook": "test", "a.example/b": "c"}.items()


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
    message = refusal(autoscaling={"enabled": True, **scaling})
    assert what in message
    assert "fix:" in message


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
    hpa = find(render(autoscaling=scaled, monitoring=rule), "HorizontalPodAutoscaler", "triton")
    keda = find(render(autoscaling={**scaled, "kind": "keda"}), "ScaledObject", "triton")
    nested = keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    for behaviour in (hpa["spec"], nested):
        assert behaviour["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 900
        assert behaviour["behavior"]["scaleUp"]["policies"]


def test_the_front_says_whether_engines_are_in_use() -> None:
    documents = render(engineBuild={"mode": "init"}, monitoring={"podMonitor": {"enabled": True}})
    endpoints = find(documents, "PodMonitor", "triton")["spec"]["podMetricsEndpoints"]
    assert {"port": "http", "path": "/tritonkit/engines", "interval": "15s"} in endpoints
    assert yaml.safe_dump(find(documents, "ConfigMap", "triton-front")).count("/tritonkit/engines") == 2


@pytest.mark.parametrize(("written", "value"), [("--model-config-name=onnxruntime\n", 1), ("--x=y\n", 0), ("", 0)])
def test_the_front_reports_the_engines_that_the_init_container_wrote(
    haproxy: str, tmp_path: Path, written: str, value: int
) -> None:
    """The rendered configuration in a real HAProxy."""
    (tmp_path / "server").write_text(written)
    config = find(render(engineBuild={"mode": "init"}), "ConfigMap", "triton-front")["data"]["haproxy.cfg"]
    for port, name in ((8080, "http"), (8081, "grpc")):
        config = config.replace(f"bind :{port}", f"bind unix@{tmp_path}/{name}")
    (tmp_path / "haproxy.cfg").write_text(config.replace("/args/server", str(tmp_path / "server")))
    process = subprocess.Popen([haproxy, "-db", "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL)
    try:
        assert f"\r\n\r\ntritonkit_engine_fallback {value}\n" in ask(tmp_path / "http", "/tritonkit/engines", process)
    finally:
        process.kill()
        process.wait()
