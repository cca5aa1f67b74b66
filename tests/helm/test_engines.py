"""What ``engine`` makes of a workload: image, GPUs, time to start and to end, folders to write to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from manifests import cases, kube, rendering, running

ENGINES = {"vllm": "vllm-python-py3", "tensorrtLlm": "trtllm-python-py3"}
Document = dict[str, Any]


def pod(engine: str = "vllm", **values: Any) -> kube.Pod:
    """The pods of a Deployment with an engine."""
    documents = rendering.documents(rendering.case(values={"models": cases.MODELS, "engine": engine, **values}))
    (deployed,) = kube.pods(documents, "Deployment")
    return deployed


def triton(deployed: kube.Pod) -> Document:
    (container,) = [container for container in deployed.containers if container["name"] == "triton"]
    return container


def environment(deployed: kube.Pod) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in triton(deployed)["env"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_its_image_of_the_release_and_of_another(engine: str) -> None:
    assert triton(pod(engine))["image"] == f"nvcr.io/nvidia/tritonserver:26.09-{ENGINES[engine]}"
    older = {"tag": f"26.07-{ENGINES[engine]}"}
    assert triton(pod(engine, image=older))["image"].endswith(f":26.07-{ENGINES[engine]}")
    own = {"repository": "registry.example/llm", "tag": "1"}
    assert triton(pod(engine, image=own))["image"] == "registry.example/llm:1"


def test_the_fix_for_an_image_without_the_engine_leads_on() -> None:
    with pytest.raises(rendering.Refused, match=r"set 26\.07-vllm-python-py3"):
        pod(image={"tag": "26.07-py3"})
    assert pod(image={"tag": "26.07-vllm-python-py3"})


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_pod_has_as_many_gpus_as_share_the_layers(parallel: int) -> None:
    deployed = pod(languageModel={"tensorParallel": parallel})
    assert triton(deployed)["resources"]["limits"]["nvidia.com/gpu"] == parallel
    by_claim = rendering.documents(
        rendering.case(
            values={
                "models": cases.MODELS,
                "engine": "vllm",
                "accelerator": {"kind": "dra"},
                "languageModel": {"tensorParallel": parallel},
            }
        )
    )
    (template,) = kube.of_kind(by_claim, "ResourceClaimTemplate")
    assert template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == parallel


def test_the_startup_budget_covers_weights_and_captured_graphs() -> None:
    deployed = pod(probes={"startup": {"loadSeconds": 500}}, languageModel={"captureSeconds": 700})
    assert running.startup_seconds(triton(deployed)) >= 1200
    assert deployed.owner["spec"]["progressDeadlineSeconds"] > 1200


@pytest.mark.parametrize("front", [True, False])
def test_the_longest_answer_ends_before_the_pod_does(front: bool) -> None:
    values: Document = {"languageModel": {"answerSeconds": 900}, "front": {"enabled": front}}
    documents = rendering.documents(rendering.case(values={"models": cases.MODELS, "engine": "vllm", **values}))
    (deployed,) = kube.pods(documents, "Deployment")
    assert deployed.spec["terminationGracePeriodSeconds"] > 900 + kube.pre_stop_seconds(deployed.containers[-1])
    if front:
        (config,) = [d["data"]["haproxy.cfg"] for d in kube.of_kind(documents, "ConfigMap")]
        assert "hard-stop-after 900s" in config
        assert kube.pre_stop_seconds(triton(deployed)) > 900
    else:
        assert kube.argument(triton(deployed), "--exit-timeout-secs") == "900"


def test_a_grace_period_shorter_than_the_longest_answer_is_refused() -> None:
    with pytest.raises(rendering.Refused, match=r"languageModel.answerSeconds 600 \+ 2"):
        pod(lifecycle={"terminationGracePeriodSeconds": 120})


def test_caches_lie_where_the_engine_may_write_and_a_users_folder_goes_first() -> None:
    folders = environment(pod())
    assert folders["VLLM_CACHE_ROOT"].startswith(folders["HOME"])
    mounted: Document = {
        "extraEnv": [{"name": "VLLM_CACHE_ROOT", "value": "/compiled/vllm"}],
        "extraVolumes": [{"name": "compiled", "persistentVolumeClaim": {"claimName": "compiled"}}],
        "extraVolumeMounts": [{"name": "compiled", "mountPath": "/compiled"}],
    }
    variables = [variable["name"] for variable in triton(pod(**mounted))["env"]]
    assert variables.count("VLLM_CACHE_ROOT") == 1
    assert environment(pod(**mounted))["VLLM_CACHE_ROOT"] == "/compiled/vllm"
    read_only = [{"name": "compiled", "mountPath": "/compiled", "readOnly": True}]
    with pytest.raises(rendering.Refused, match="cannot be written to"):
        pod(**{**mounted, "extraVolumeMounts": read_only})


def test_a_model_that_spans_nodes_serves_from_the_first_and_computes_on_all() -> None:
    documents = rendering.documents(rendering.case(values=cases.values_of("two nodes")))
    assert kube.of_kind(documents, "Deployment") == []
    leader, worker = kube.pods(documents, "LeaderWorkerSet")
    assert "ray start" in triton(leader)["command"][2]
    (computes,) = worker.containers
    assert "LWS_LEADER_ADDRESS" in computes["command"][2]
    assert triton(leader)["resources"] == computes["resources"]
    (scaled,) = kube.of_kind(documents, "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["kind"] == "LeaderWorkerSet"
    for service in kube.of_kind(documents, "Service", "PodDisruptionBudget", "PodMonitor"):
        selector = service["spec"]["selector"]
        selector = selector if "matchLabels" in selector else {"matchLabels": selector}
        assert kube.matches(selector, leader.labels)
        assert not kube.matches(selector, worker.labels)


def test_the_other_nodes_outlast_the_one_whose_answers_they_help_to_end() -> None:
    documents = rendering.documents(rendering.case(values=cases.values_of("two nodes")))
    leader, worker = kube.pods(documents, "LeaderWorkerSet")
    ends = kube.pre_stop_seconds(triton(leader)) + float(kube.argument(triton(leader), "--exit-timeout-secs") or 0)
    assert kube.pre_stop_seconds(worker.containers[0]) >= ends


def test_the_pods_of_one_model_reach_each_other_on_every_port() -> None:
    documents = rendering.documents(rendering.case(values=cases.values_of("two nodes")))
    (policy,) = kube.of_kind(documents, "NetworkPolicy")
    leader, worker = kube.pods(documents, "LeaderWorkerSet")
    for way, peers in (("ingress", "from"), ("egress", "to")):
        open_rules = [rule for rule in policy["spec"][way] if "ports" not in rule]
        selectors = [peer["podSelector"] for rule in open_rules for peer in rule[peers]]
        assert [kube.matches(selector, pod.labels) for selector in selectors for pod in (leader, worker)] == [True] * 2


def test_prometheus_finds_the_pods_that_serve_by_their_names() -> None:
    documents = rendering.documents(rendering.case(values=cases.values_of("two nodes beside one")))
    (rules,) = kube.of_kind(documents, "PrometheusRule")
    expressions = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    (pattern,) = {
        match for e in expressions for match in re.findall(r'pod=~"([^"]*large[^"]*)"', e) if "small" in match
    }
    names = ["demo-tritonkit-large-0", "demo-tritonkit-small-6d4cf56db6-abcde", "demo-tritonkit-large-0-1"]
    assert [bool(re.fullmatch(pattern, name)) for name in names] == [True, True, False]


def test_a_backend_may_unload_a_model_whose_engine_died_and_the_pod_is_restarted_then() -> None:
    assert {"--model-control-mode=explicit", "--load-model=*"} <= set(triton(pod())["args"])
    container = triton(pod(models={**cases.MODELS, "names": ["llama"]}))
    assert "--load-model=llama" in container["args"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/models/llama/ready"
