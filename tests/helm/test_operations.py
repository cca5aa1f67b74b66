"""docs/guides/operations.md: every alert of the chart has its entry, and every command runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakecluster.server import running
from fakecluster.state import ApiServer
from manifests import rendering
from manifests.rendering import CHART

from tritonkit.deploying import chart
from tritonkit.kubetools import binaries

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guides/operations.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
POD = "triton-tritonkit-5d5b7c-abcde"
MODELS = {"uri": "s3://models/web/versions/83f1c0d2a94b7e65"}


def documents(**values: Any) -> list[dict[str, Any]]:
    return rendering.documents(rendering.case(values={"models": MODELS, **values}))


def entries() -> dict[str, str]:
    """Each alert's entry by its name."""
    section = PAGE.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    names, texts = section.split("\n### ")[1:], {}
    for text in names:
        name, _, body = text.partition("\n")
        texts[name] = body
    return texts


def test_every_alert_has_its_entry_and_every_entry_an_alert() -> None:
    monitored = {
        "prometheusRule": {
            "enabled": True,
            "slo": {"latencyMs": 50, "firstTokenMs": 500},
            "runbookUrl": "https://example.org/operations",
        }
    }
    (rules,) = [entry for entry in documents(monitoring=monitored, engine="vllm") if entry["kind"] == "PrometheusRule"]
    alerts = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    described = entries()
    assert set(described) == set(alerts)
    assert len(alerts) > 10
    for name, url in alerts.items():
        assert url == f"https://example.org/operations#{name.lower()}", "GitHub's anchor of that heading"
        assert "**Look**" in described[name]
        assert "**Do**" in described[name]


def test_the_containers_of_the_page_are_those_of_the_pods() -> None:
    table = PAGE.partition("| container | says |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:])))
    hub = {"hub": {"repository": "a/b", "revision": "5f3c" * 10}}
    pods = [documents(), documents(engineBuild={"mode": "init"}), documents(engine="vllm", weights=hub)]
    there = {
        container["name"]
        for manifest in pods
        for _, spec in chart.pods([entry for entry in manifest if entry["kind"] == "Deployment"])
        for container in (*spec["containers"], *spec["initContainers"])
    }
    assert named == there


def test_the_callers_of_the_page_get_in() -> None:
    (values,) = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
    (policy,) = [entry for entry in documents(**values) if entry["kind"] == "NetworkPolicy"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}} in policy["spec"]["ingress"][
        0
    ]["from"]
    services = {entry["metadata"]["name"]: entry for entry in documents() if entry["kind"] == "Service"}
    for protocol, port in re.findall(r"`triton-tritonkit-(grpc|http)\.inference:(\d+)`", PAGE):
        assert [entry["port"] for entry in services[f"demo-tritonkit-{protocol}"]["spec"]["ports"]] == [int(port)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster in memory with two revisions of a release, and one of its pods."""
    folder = tmp_path_factory.mktemp("operations")
    helm, kubectl = binaries.helm(), binaries.kubectl()
    with running() as api:
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": api.url}}],
        }  # fmt: skip
        (folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
        own = {"PATH": f"{helm.parent}:{kubectl.parent}:{os.environ['PATH']}", "HOME": str(folder)}
        variables = os.environ | own | {"KUBECONFIG": str(folder / "kubeconfig")}
        api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "inference"}})
        for uri in ("s3://models/a", "s3://models/b"):
            command = [
                helm,
                "upgrade",
                "--install",
                "triton",
                CHART,
                "-n",
                "inference",
                "--set",
                f"models.uri={uri}",
            ]
            subprocess.run([str(word) for word in command], env=variables, check=True, capture_output=True)
        api.add(_pod(api))
        yield variables


def _pod(api: ApiServer) -> dict[str, Any]:
    deployment = api.find("Deployment", "triton-tritonkit")
    assert deployment is not None
    template = deployment["spec"]["template"]
    metadata = {"name": POD, "namespace": "inference", "labels": template["metadata"]["labels"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template["spec"],
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command: str, environment: dict[str, str]) -> None:
    words = shlex.split(command.replace("POD", POD))
    if words[0] == "make":
        words.insert(1, "--dry-run")  # what they do is tests/helm/test_deploy.py's
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    if words[3] == "exec":  # the server in memory has no container to enter; kubectl has found pod and container
        assert "no container runs here" in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr
    if words[3] == "get" and "pods" in words:
        assert POD in done.stdout


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 12
