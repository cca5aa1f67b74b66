"""What a real cluster does with a manifest that every schema takes: nodes, runtimes, network policies, upgrades."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from manifests import cases, kube, rendering, running

from tritonkit.kubetools import binaries

Document = dict[str, Any]


def render(**values: Any) -> list[Document]:
    return rendering.documents(rendering.case(values={"models": cases.MODELS, **values}))


def pods(documents: list[Document]) -> list[Document]:
    """The specs of the pods of Deployments and Jobs."""
    return [d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("Deployment", "Job")]


def test_every_pod_with_a_gpu_takes_the_runtime_class() -> None:
    job = {"mode": "job", "cache": {"size": "20Gi"}}
    specs = pods(render(engineBuild=job, scheduling={"runtimeClassName": "nvidia"}))
    assert [pod["runtimeClassName"] for pod in specs] == ["nvidia", "nvidia"]
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


def notes(**values: Any) -> str:
    """What ``helm install`` prints below its own lines."""
    command = [str(binaries.helm()), "install", "demo", str(rendering.CHART), "--dry-run=client", "--values", "-"]
    text = json.dumps({"models": cases.MODELS, **values})
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return str(ran.stdout).partition("NOTES:")[2]


def test_notes_say_what_blocks_a_first_request_or_test() -> None:
    text = notes()
    assert "Only pods of this namespace get in" in text
    assert "tools.image.repository is still" in text
    assert re.search(r"helm test demo .*--timeout 900s", text)
    mine = {"image": {"repository": "registry.example.org/tritonkit"}}
    text = notes(tools=mine, networkPolicy={"enabled": False})
    assert "Only pods" not in text
    assert "tools.image" not in text


def test_a_pod_fits_the_smallest_usual_gpu_node() -> None:
    """4 CPUs and 16 GiB, of which a node keeps some for itself and its daemons."""
    for pod in pods(render()):
        requests = [container["resources"]["requests"] for container in pod["containers"]]
        assert sum(kube.quantity(request["cpu"]) for request in requests) <= 3.5
        assert sum(kube.quantity(request["memory"]) for request in requests) <= 13 * 2**30


def test_a_pod_without_a_gpu_does_not_take_those_that_its_image_asks_for() -> None:
    for kind, seen in (("cpu", "void"), ("gpu", None)):
        (pod,) = pods(render(accelerator={"kind": kind}))
        variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
        assert variables.get("NVIDIA_VISIBLE_DEVICES") == seen


def test_what_copies_models_takes_a_proxy_and_a_certificate() -> None:
    tools = {
        "extraEnv": [{"name": "AWS_CA_BUNDLE", "value": "/ca/ca.crt"}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    }
    volume = {"name": "ca", "configMap": {"name": "ca"}}
    job = {"mode": "job", "cache": {"size": "20Gi"}}
    specs = pods(render(tools=tools, extraVolumes=[volume], engineBuild=job))
    assert len(specs) == 2
    for pod in specs:
        assert volume in pod["volumes"]
        fetch = next(container for container in pod["initContainers"] if container["name"] == "fetch")
        assert tools["extraEnv"][0] in fetch["env"]
        assert tools["extraVolumeMounts"][0] in fetch["volumeMounts"]


def test_old_pods_serve_on_while_a_release_gets_variants() -> None:
    """The Service changes at once, and the old Deployment's pods must still match it."""
    (old,) = [d for d in render() if d["kind"] == "Deployment"]
    after = render(variants={"a": {}, "b": {}})
    for service in (d for d in after if d["kind"] == "Service"):
        if "tritonkit/variant" not in service["spec"]["selector"]:
            assert service["spec"]["selector"].items() <= old["spec"]["template"]["metadata"]["labels"].items()


def test_the_progress_deadline_waits_for_a_node_and_its_pull() -> None:
    deadlines = []
    for seconds in (100, 900):
        documents = render(
            probes={"startup": {"nodeSeconds": seconds}}, engineBuild={"mode": "job", "cache": {"size": "1Gi"}}
        )
        specs = {d["kind"]: d.get("spec", {}) for d in documents}
        deadlines.append((specs["Deployment"]["progressDeadlineSeconds"], specs["Job"]["activeDeadlineSeconds"]))
    assert [after - before for before, after in zip(*deadlines, strict=True)] == [800, 800]


def test_the_load_test_keeps_the_models_of_the_release_below_it() -> None:
    example = rendering.CHART / "examples/values-load-test.yaml"
    (command,) = [line for line in example.read_text("utf-8").splitlines() if "helm upgrade" in line]
    files = re.findall(r"-f (\S+)", command)
    assert files[0].endswith(example.name)
    assert len(files) == 2
    assert "--reuse-values" not in command  # the example's models would win


def test_a_cluster_that_chooses_users_itself_gets_no_user() -> None:
    job = {"mode": "job", "cache": {"size": "20Gi"}}
    for user, fixed in ((1000, True), (None, False)):
        documents = render(podSecurity={"user": user}, engineBuild=job)
        specs = pods(documents) + [d["spec"] for d in documents if d["kind"] == "Pod"]
        assert len(specs) == 3
        for spec in specs:
            assert ({"runAsUser", "runAsGroup"} <= spec["securityContext"].keys()) is fixed
            assert "fsGroup" not in spec["securityContext"] or fixed
            assert spec["securityContext"]["runAsNonRoot"] is True


def test_the_front_has_memory_for_its_connections() -> None:
    """160 KiB each: 500 requests of 12 MB that nobody read took HAProxy 2.6 from 15 to 95 MiB with the chart's settings."""
    documents = render()
    (front,) = [c for pod in pods(documents) for c in pod["containers"] if c["name"] == "front"]
    (config,) = [d["data"]["haproxy.cfg"] for d in documents if d["kind"] == "ConfigMap"]
    connections = int(re.findall(r"maxconn (\d+)", config)[0])
    assert kube.quantity(front["resources"]["limits"]["memory"]) >= connections * 160 * 1024


def test_triton_has_time_to_copy_models_that_no_container_copied() -> None:
    """It serves nothing, not even its liveness, before it has downloaded and loaded."""
    budgets = {}
    for fetch in (True, False):
        for seconds in (100, 1000):
            documents = render(
                models={**cases.MODELS, "fetch": fetch}, probes={"startup": {"fetchSeconds": seconds}},
                engineBuild={"checkPassports": False},
            )  # fmt: skip
            (triton, _) = pods(documents)[0]["containers"]
            (deployment,) = [d for d in documents if d["kind"] == "Deployment"]
            budgets[fetch, seconds] = (
                running.startup_seconds(triton),
                deployment["spec"]["progressDeadlineSeconds"],
            )
    assert budgets[False, 1000][0] - budgets[False, 100][0] == 900
    assert budgets[True, 1000][0] == budgets[True, 100][0]
    assert all(budgets[fetch, 1000][1] - budgets[fetch, 100][1] == 900 for fetch in (True, False))


def test_helm_test_may_run_where_its_image_is() -> None:
    """Small nodes without GPUs may have no room for an image of Triton's size, or another architecture."""
    spot = {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}
    documents = render(scheduling={"nodeSelector": {"pool": "gpu"}, "tolerations": [spot]})
    (pod,) = pods(documents)
    (test,) = [d["spec"] for d in documents if d["kind"] == "Pod"]
    assert test["tolerations"] == pod["tolerations"]
    assert test["nodeSelector"] == pod["nodeSelector"]
    assert "nvidia.com/gpu" not in test["containers"][0]["resources"]["limits"]
