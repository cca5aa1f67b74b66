"""Environments of `make deploy`: what is in a file, what is wrong with it, and what follows from it without a cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests.rendering import CHART, ROOT

from tritonkit.deploying import chart, environment, misspelt, models, release
from tritonkit.deploying.cluster import Cluster
from tritonkit.errors import CheckFailed, InputError
from tritonkit.kubetools import binaries
from tritonkit.publishing import parse


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deploy": {"contxt": "x"}}, "did you mean context?"),
        (
            {"deploy": {"namespace": "n", "release": "r"}},
            ":1: deploy.context: required, and not there; for example  context: a context of the kubeconfig, such as prod-gpu",
        ),
        ({"values": []}, ":5: values: [] does not belong here; write  values: {replicas: 2}"),
        (
            {"deploy": {"context": "x", "namespace": "Big", "release": "r"}},
            ":3: deploy.namespace: Big is not a name such as inference, at most 53",
        ),
        ({"value": {}}, ":5: value: unknown key; did you mean values?"),
        ({"deploy": None}, "deploy: there is nothing here; write  deploy: {context: prod-gpu"),
        (
            {"deploy": {"context": False, "namespace": "n", "release": "r"}},
            "false does not belong here; write  context:",
        ),
        (
            {"deploy": {"context": "c", "namespace": "n", "release": "r", "gpuNodes": "ondemand"}},
            "did you mean 'onDemand'?",
        ),
        (
            {"deploy": {"context": "c", "namespace": "n", "release": "r", "timeout": 45}},
            "write  timeout: a time such as 45m",
        ),
        ({"deploy": {"context": "c", "namespace": "n", "release": "r", "poolLabels": "a"}}, "write  poolLabels: [a]"),
        (
            {"deploy": {"context": "x", "namespace": "n", "release": "r", "kubernetes": 1.34}},
            'write  kubernetes: a version in quotes, such as "1.34"',
        ),
    ],
)
def test_an_environment_names_what_is_wrong_in_it(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "e.yaml"
    good = {"deploy": {"context": "c", "namespace": "n", "release": "r"}, "values": {}}
    path.write_text(yaml.safe_dump(good | change), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        environment.load(str(path), ROOT)
    assert words in str(caught.value)
    assert "endpointUrl" in caught.value.fix
    assert "Input should" not in str(caught.value)


def test_an_environment_in_another_encoding_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes("deploy: {context: größer}".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read"):
        environment.load(str(tmp_path / "e.yaml"), ROOT)


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("deploy: {}\nvalues:\n  accelerator: {kind: cpu}\n  replicas: 2\n  accelerator: {count: 2}\n")
    with pytest.raises(InputError, match=r"(?s)'accelerator' stands here.*line 3.*a second time here.*line 5"):
        environment.load(str(path), ROOT)


def test_an_unknown_environment_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="did you mean prod"):
        environment.load("prodd", ROOT)


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / environment.FOLDER).glob("*.yaml")])
def test_the_shipped_environments_pass_lint_render_and_schemas(name: str, tmp_path: Path) -> None:
    shipped = environment.load(name, ROOT)
    values, named = tmp_path / "values.yaml", tmp_path / "models.yaml"
    values.write_text(yaml.safe_dump(shipped.values), encoding="utf-8")
    named.write_text(yaml.safe_dump(parse(shipped.deploy.publish).values("0123456789abcdef")), encoding="utf-8")
    checks, rendered = chart.prove(
        binaries.helm(), CHART, shipped.deploy.release, shipped.deploy.namespace, [values, named], "1.34"
    )
    assert [check.state for check in checks] == ["ok", "ok", "ok"], checks
    assert rendered is not None
    assert release.timeout_of(rendered.objects).endswith("s")


def test_the_version_is_read_back_from_what_publishing_writes() -> None:
    for place in ("s3://bucket/models", "gs://bucket/a/b", "s3://http://127.0.0.1:9000/bucket/x"):
        assert models.version_in(parse(place).values("0123456789abcdef")) == "0123456789abcdef"
    assert models.version_in({"models": {"uri": "s3://bucket/models"}}) == ""
    assert models.version_in({}) == ""


def test_the_timeout_covers_one_pod_after_another_and_the_job() -> None:
    deployment: dict[str, Any] = {"kind": "Deployment", "spec": {"replicas": 3, "progressDeadlineSeconds": 700}}
    deployment["metadata"] = {"name": "triton"}
    job = {"kind": "Job", "spec": {"activeDeadlineSeconds": 1000}}
    assert release.timeout_of([deployment, job]) == "3220s"
    del deployment["spec"]["replicas"]
    target = {"kind": "Deployment", "name": "triton"}
    hpa = {"kind": "HorizontalPodAutoscaler", "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5}}
    keda = {"kind": "ScaledObject", "spec": {"scaleTargetRef": {"name": "triton"}, "maxReplicaCount": 6}}
    assert release.timeout_of([deployment, hpa]) == "3620s"
    assert release.timeout_of([deployment, keda]) == "4320s"
    assert (chart.replicas(deployment, [hpa]), chart.replicas(deployment, [keda])) == ((2, 5), (0, 6))


def test_the_page_has_every_environment_key_and_every_preflight_line() -> None:
    page = (Path(__file__).parents[2] / "docs/guides/deploy.md").read_text(encoding="utf-8")
    keys = [field.alias for field in environment.Deploy.model_fields.values()]
    assert len(keys) > 7
    assert all(f"| `{key}` |" in page for key in keys)
    code = "".join(path.read_text(encoding="utf-8") for path in Path(environment.__file__).parent.glob("*.py"))
    lines = set(re.findall(r'Check\(\s*"([A-Za-z ]+)", "missing"', code))
    assert len(lines) > 12
    table = page.partition("| line | missing if |")[2].partition("\n\n")[0] + "lint, render, schemas"
    assert all(line in table for line in lines), lines


def test_unknown_values_are_answered_with_those_that_were_meant(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    wrong = {"modles": {}, "uri": "s3://a/b", "qqqq": 1, "autoscaling": {"maxReplica": 3, "min": 2, "keda": {"POLLINGINTERVAL": 1}},
             "variants": {"a": {"replcas": 1, "autoscaling": {"replicas": 1}}}, "service": {"http": {"nodeprot": 1}}}  # fmt: skip
    values.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    (check,), rendered = chart.prove(binaries.helm(), CHART, "r", "n", [values], "1.34")
    assert rendered is None
    meant = {
        name
        for line in check.text.splitlines()
        for name in line.partition("; did you mean ")[2].rstrip("?").split(", ")
    }
    assert meant == {
        "models",
        "models.uri",
        "autoscaling.maxReplicas",
        "autoscaling.minReplicas",
        "autoscaling.keda.pollingInterval",
        "variants.a.autoscaling.minReplicas",
        "variants.a.autoscaling.maxReplicas",
        "variants.a.replicas",
        "service.http.nodePort",
    }


@pytest.mark.parametrize(
    ("values", "hints"),
    [
        # keys of earlier versions and of other charts
        ({"autoscaling": {"hpa": {"min": 1, "max": 2}}}, ["did you mean autoscaling.maxReplicas, autoscaling.minReplicas?"]),
        ({"accelerator": {"product": "a"}}, ["did you mean accelerator.products?"]),
        ({"ingress": {"hosts": []}}, ["did you mean ingress.http.host, ingress.grpc.host?"]),
        ({"ingress": {"annotations": {}}}, ["did you mean ingress.http.annotations, ingress.grpc.annotations?"]),
        ({"autoscaling": {"keda": {"prometheus": {}}}}, ["did you mean autoscaling.keda.serverAddress?"]),
        ({"livenessProbe": {}, "minReplicas": 1, "serviceMonitor": {}, "image": {"numGpus": 1}},
         ["did you mean probes.liveness, autoscaling.minReplicas, monitoring.serviceMonitor?", "did you mean accelerator.count?"]),
        ({"variants": {"a": {"persistence": {}}}}, ["did you mean variants.a.models.pvc.claimName, variants.a.engineBuild.cache?"]),
        ({"variants": {"a": {"nodeSelector": {}}}}, ["did you mean variants.a.scheduling.nodeSelector?"]),
        ({"variants": {"a": {"networkPolicy": {}}}}, ["did you mean networkPolicy?"]),
        # types and forms
        ({"image": {"tag": 26.09}}, ["want string; write it in quotes"]),
        ({"probes": {"startup": {"nodeSeconds": "15m"}}}, ["want integer; write it without quotes and unit"]),
        ({"replicas": "2"}, ["integer; write it without quotes and unit"]),
        ({"accelerator": {"products": "NVIDIA-A10G"}}, ["want array; write a list"]),
        ({"ingress": {"http": {"host": "https://a.example"}}}, ["; such as triton.example.org"]),
        ({"resources": {"limits": {"memory": "16GB"}}}, ["; such as 500m or 16Gi"]),
        ({"autoscaling": {"keda": {"serverAddress": "prometheus:9090"}}}, ["; such as http://prometheus-operated."]),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_the_schema_refuses_is_answered_with_how_to_write_it(
    values: dict[str, Any], hints: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    (check,), _ = chart.prove(binaries.helm(), CHART, "r", "n", [file], "1.34")
    assert all(hint in check.text for hint in hints), check.text


@pytest.mark.parametrize(
    ("values", "text", "fix"),
    [
        ({"extraObjects": [{"kind": "ConfigMap"}]}, "no Kubernetes object: {kind: ConfigMap}", "metadata.name"),
        ({"extraObjects": ["a: {"]}, "YAML parse error on tritonkit/templates/extra-objects.yaml", "metadata.name"),
        ({"extraVolumes": [{}]}, "extraVolumes: an entry has no name", "give it one"),
        ({"scheduling": {"tolerations": {"key": "a"}}}, "- at '/scheduling/tolerations': got object", "correct the values"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_render_is_said_with_its_fix_and_without_helms_wrapping(
    values: dict[str, Any], text: str, fix: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"models": {"uri": "s3://a/b", "names": ["m"]}} | values), encoding="utf-8")
    checks, rendered = chart.prove(binaries.helm(), CHART, "r", "n", [file], "1.34")
    assert rendered is None
    assert checks[-1].text.removeprefix("Error: ").startswith(text)
    assert fix in checks[-1].fix


def test_helms_own_error_about_a_cluster_names_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "name": "c",
        "cluster": {"server": "http://127.0.0.1:9"},
        "context": {"cluster": "c", "user": "c"},
        "user": {},
    }
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [entry], "contexts": [entry], "users": [entry]}
    (tmp_path / "kubeconfig").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    asked = release.Release(binaries.helm(), Cluster(binaries.kubectl(), "c", "n"), "r")
    with pytest.raises(CheckFailed, match="unreachable") as caught:
        asked.history()
    assert "kubectl --context c cluster-info" in caught.value.fix


def test_every_value_that_a_foreign_key_leads_to_is_one_of_the_charts() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    known = {".".join(path) for path in misspelt._paths(schema, schema)}
    assert {path for paths in misspelt._FOREIGN.values() for path in paths} <= known
    assert known.isdisjoint(misspelt._FOREIGN)


def test_a_misspelt_key_of_an_environment_is_answered_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("deploy: {contxt: a, namespace: b}\n", encoding="utf-8")
    with pytest.raises(InputError, match="did you mean context"):
        environment.load(str(path), ROOT)
    path.write_text("deploi: {context: a, namespace: b}\n", encoding="utf-8")
    with pytest.raises(InputError, match="did you mean deploy"):
        environment.load(str(path), ROOT)


@pytest.mark.parametrize(
    ("values", "target", "repository"),
    [
        ({}, "cuda", "model_repository.cuda"),
        ({"accelerator": {"kind": "cpu"}}, "cpu", "model_repository"),
        ({"accelerator": {"kind": "mig"}, "engineBuild": {"mode": False}}, "cuda", "model_repository.cuda"),
        ({"engineBuild": {"mode": "init"}}, "tensorrt", "model_repository.tensorrt"),
        ({"variants": {"a": {"accelerator": {"kind": "cpu"}}, "b": {"accelerator": {"kind": "cpu"}}}}, "cpu", "model_repository"),
        ({"accelerator": {"kind": "cpu"}, "variants": {"a": {"accelerator": {"products": []}}}}, "cpu", "model_repository"),
    ],
)  # fmt: skip
def test_the_accelerator_decides_what_is_built(values: dict[str, Any], target: str, repository: str) -> None:
    deployed = environment.Deploy(context="c", namespace="n", release="r")
    mine = environment.Environment("mine", "mine.yaml", Path("mine.yaml"), deployed, values)
    assert (environment.target(mine), environment.repository(mine)) == (target, repository)


def test_variants_of_two_targets_need_a_repository_by_name() -> None:
    values = {"variants": {"a": {"accelerator": {"kind": "cpu"}}, "b": {}}}
    deployed = environment.Deploy(context="c", namespace="n", release="r")
    mine = environment.Environment("mine", "mine.yaml", Path("mine.yaml"), deployed, values)
    with pytest.raises(InputError, match="different targets: cpu, cuda") as caught:
        environment.repository(mine)
    assert "deploy.repository" in caught.value.fix
    named = environment.Deploy(context="c", namespace="n", release="r", repository="both")
    assert (
        environment.repository(environment.Environment("mine", "mine.yaml", Path("mine.yaml"), named, values)) == "both"
    )


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_the_makefile_builds_into_the_folder_that_is_deployed(target: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["make", "-n", "build", f"TARGET={target}"], cwd=root, capture_output=True, text=True, check=True
    )
    assert f"--repository '{environment.REPOSITORIES[target]}'" in done.stdout  # type: ignore[index]
