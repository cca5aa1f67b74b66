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


def openings(documents: list[Document]) -> list[Document]:
    (policy,) = [d for d in documents if d["kind"] == "NetworkPolicy"]
    return [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]


def test_helm_test_gets_in_whoever_the_clients_are() -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"team": "search"}}}]
    documents = render(networkPolicy={"ingress": {"clients": clients}})
    (test,) = [d for d in documents if d["kind"] == "Pod"]
    peers = [peer["podSelector"]["matchLabels"] for peer in openings(documents) if "podSelector" in peer]
    assert any(peer.items() <= test["metadata"]["labels"].items() for peer in peers)
    documents = render(networkPolicy={"ingress": {"clients": clients}}, tests={"enabled": False})
    assert not [peer for peer in openings(documents) if "podSelector" in peer]


def test_a_load_balancer_takes_the_addresses_of_its_callers() -> None:
    clients = [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]
    documents = render(service={"type": "LoadBalancer"}, networkPolicy={"ingress": {"clients": clients}})
    assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in openings(documents)
    render(service={"type": "LoadBalancer"}, networkPolicy={"enabled": False})


def test_an_object_keeps_the_braces_that_are_not_helms() -> None:
    rule = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"a": "{{ $labels.pod }} is full"},
    }
    documents = render(extraObjects=[rule])
    assert rule in documents
