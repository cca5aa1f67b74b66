"""`make deploy` and `make rollback`: real helm and kubectl, on an API server in memory; a folder is the object store."""
# ruff: noqa: F811

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployments import HERE, VALUES, Run, api, cluster, kubeconfig, model, project, run, tools, version, write  # noqa: F401
from fakecluster.state import ApiServer
from manifests.rendering import CHART

from tritonkit.cli.deploy import is_yes
from tritonkit.deploying import difference, environment, models, release
from tritonkit.deploying.cluster import Cluster
from tritonkit.errors import CheckFailed, InputError, MissingError
from tritonkit.kubetools import binaries
from tritonkit.publishing import Destination, parse


def test_a_dry_run_without_a_cluster_says_what_was_not_checked(run: Run, project: Path) -> None:
    code, output = run("deploy")
    assert code == 0, output
    for words in (
        "deploy prod: a dry run, nothing is changed",
        "release   triton, in namespace inference of context here",
        f"models    version {version(project)}: net (",
        "publish   would go to file://",
        "helm lint --strict has nothing against chart and values",
        "valid for Kubernetes 1.34, no unknown field",
        "the kubeconfig has no context 'here': there is no kubeconfig, or it is empty",
        "no cluster answers: namespace, rights, kinds, GPU nodes, device plugin, storage, secrets were not looked at",
        "Deployment triton-tritonkit: 1 pod, no GPU",
        "Next: context: get the kubeconfig of that cluster, or correct deploy.context. Then",
    ):
        assert words in output
    manifest = (project / "reports/deploy/prod.yaml").read_text(encoding="utf-8")
    assert f"subPath: store/versions/{version(project)}" in manifest or version(project) in manifest
    assert not (project / "store").exists()


def test_the_life_of_a_release(run: Run, project: Path, cluster: ApiServer) -> None:
    """Deployed; changed by a version whose test fails; rolled back; changed by one whose pods never get ready."""
    first = version(project)
    code, output = run("deploy", "--apply")
    assert code == 0, output
    assert "create   Deployment triton-tritonkit: 1 pod, no GPU" in output
    assert f"version {first} is published" in output
    assert "Phase:          Succeeded" in output
    assert f"triton serves models version {first}" in output
    assert "kubectl --context here -n inference port-forward service/triton-tritonkit-http 8000:8000" in output

    model(project, "2.0")
    write(project, {"replicas": 3, "pdb": {"enabled": False}})
    second = version(project)
    assert second != first
    before = list(cluster.writes)
    code, output = run("deploy")
    assert code == 0, output
    assert "change   Deployment triton-tritonkit: 3 pods, no GPU" in output
    assert re.search(r"keep     [56] as they are", output), "helm's own marks are no difference"
    assert "remove   PodDisruptionBudget triton-tritonkit" in output
    assert "-  replicas: 1\n+  replicas: 3\n" in output
    assert f"versions/{second}" in (project / "reports/deploy/prod.diff").read_text(encoding="utf-8")
    assert f"Next: make deploy APPLY=1 ENV={project / 'prod.yaml'}" in output
    assert cluster.writes == before

    cluster.test_passes = False
    code, output = run("deploy", "--apply")
    assert code == 1
    assert "the API server takes the manifest" in output
    assert "triton runs, and its test failed" in output
    assert f"make rollback ENV={project / 'prod.yaml'} goes back" in output
    assert replicas(cluster) == 3
    code, output = run("rollback")
    assert code == 0, output
    assert f"models version {second}\n  to    revision 1 of " in output
    assert f"models version {first}, again" in output
    assert replicas(cluster) == 1
    assert current(project) == first, "pruning keeps what runs"

    model(project, "3.0")
    cluster.never_ready = version(project)
    code, output = run("deploy", "--apply")
    assert code == 1
    assert "helm could not bring triton up; now revision 5 of " in output
    assert f"models version {first}, runs" in output
    assert first in json.dumps(cluster.find("Deployment", "triton-tritonkit"))
    here = Cluster(binaries.kubectl(), "here", "inference")
    running, before_it = release.Release(binaries.helm(), here, "triton").previous()
    assert (running.number, before_it.number) == (5, 2), "3 is what runs, and 4 never worked"


def test_a_field_that_somebody_else_set_is_reported_and_not_overwritten(
    run: Run, project: Path, cluster: ApiServer
) -> None:
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "triton-tritonkit-http"},
              "spec": {"type": "NodePort"}}  # fmt: skip
    command = [binaries.kubectl(), "--context=here", "-n", "inference", "apply", "--server-side", "-f", "-"]
    subprocess.run([str(word) for word in command], input=json.dumps(theirs), text=True, check=True)
    before = list(cluster.writes)
    code, output = run("deploy", "--apply")
    assert code == 1
    assert 'conflict with "kubectl" using v1: .spec.type' in output
    assert "helm upgrade --force-conflicts" in output
    assert "change   Service triton-tritonkit-http: 8000" in output
    assert cluster.writes == before


def history() -> list[dict[str, Any]]:
    command = [str(binaries.helm()), "history", "triton", "-o", "json", *HERE]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return list(json.loads(output or "[]"))


def when(condition: Callable[[], object], then: Callable[[], object]) -> threading.Thread:
    """Do something as soon as something is so, beside the test."""

    def wait() -> None:
        for _ in range(1200):
            if condition():
                then()
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ctrl_c_leaves_no_release_that_helm_refuses_to_upgrade(run: Run, project: Path, cluster: ApiServer) -> None:
    cluster.starting = version(project)
    another = when(lambda: cluster.find("Deployment", "triton-tritonkit"), lambda: os.kill(os.getpid(), signal.SIGINT))
    code, output = run("deploy", "--apply")
    another.join()
    assert code == 130
    assert "wait until it has put the release right" in output
    assert "stopped; now nothing runs, as before" in output
    assert history() == []


def test_a_killed_upgrade_is_reported_before_publishing_and_rolled_back(
    run: Run, project: Path, cluster: ApiServer
) -> None:
    (project / "values.yaml").write_text(yaml.safe_dump(VALUES), encoding="utf-8")
    values = str(project / "values.yaml")
    command = [str(binaries.helm()), "upgrade", "--install", "triton", str(CHART), "-f", values, *HERE]
    subprocess.run(command, check=True)
    cluster.starting = "BROKEN"
    upgrade = subprocess.Popen([*command, "--wait=watcher", "--set", "podLabels.a=BROKEN"])
    when(lambda: "BROKEN" in json.dumps(cluster.find("Deployment", "triton-tritonkit")), upgrade.kill).join()
    upgrade.wait()
    before = list(cluster.writes)
    code, output = run("deploy", "--apply")
    assert code == 1
    assert "revision 2 of triton is pending-upgrade" in output
    assert f"`make rollback ENV={project / 'prod.yaml'}`" in output
    assert "nothing was changed: missing are release" in output
    assert (cluster.writes, (project / "store").exists()) == (before, False)
    code, output = run("rollback")
    assert code == 0, output
    assert "to    revision 1 of" in output
    assert [entry["status"] for entry in history()][-1] == "deployed"
    assert "BROKEN" not in json.dumps(cluster.find("Deployment", "triton-tritonkit"))


def test_apply_that_says_no_only_looks(run: Run, project: Path, cluster: ApiServer) -> None:
    code, output = run("deploy", "--apply=no")
    assert (code, cluster.writes, "a dry run, nothing is changed" in output) == (0, [], True)
    assert not any(is_yes(word) for word in ("", "0", "No", "FALSE", "off"))
    assert all(is_yes(word) for word in ("1", "yes", "True"))


def test_apply_that_says_neither_is_refused(run: Run, cluster: ApiServer) -> None:
    code, output = run("deploy", "--apply=prod")
    assert (code, cluster.writes) == (2, [])
    assert "APPLY=prod is neither yes nor no" in output


def replicas(cluster: ApiServer) -> int:
    deployment = cluster.find("Deployment", "triton-tritonkit")
    assert deployment is not None
    return int(deployment["spec"]["replicas"])


def current(project: Path) -> str:
    pointer = Destination(parse(f"file://{project}/store")).pointer()
    assert pointer is not None
    return pointer.version


def test_what_is_missing_is_reported_before_anything_is_changed(run: Run, project: Path, cluster: ApiServer) -> None:
    cluster.denied = {("create", "deployments"), ("patch", "services"), ("delete", "services")}
    write(project, {"extraEnvFrom": [{"secretRef": {"name": "settings"}}], "tools": {}})
    code, output = run("deploy", "--apply")
    assert code == 1
    assert "in inference you may not: patch/delete services; create deployments.apps" in output
    assert "there is no Secret settings in inference, and Deployment triton-tritonkit uses it" in output
    assert "tritonkit:26.09 names no registry" in output
    assert "nothing was changed: missing are rights, Secret, images" in output
    assert (cluster.writes, (project / "store").exists()) == ([], False)


def test_models_with_errors_are_not_deployed(run: Run, project: Path) -> None:
    (project / "model_repository/net/1/model.onnx").unlink()
    code, output = run("deploy", "--apply")
    assert code == 1
    assert "`tritonkit build` makes the weights" in output
    assert "nothing was changed: missing are context, models" in output


def test_values_that_the_chart_refuses_end_a_dry_run_with_its_reason(run: Run, project: Path) -> None:
    write(project, {"lifecycle": {"terminationGracePeriodSeconds": 5}})
    code, output = run("deploy")
    assert code == 1
    assert "terminationGracePeriodSeconds" in output
    assert "Next: correct what the chart refuses" in output
    write(project, {"replica": 2})
    assert "replica" in run("deploy")[1]


def test_a_schema_error_in_extra_objects_is_found_without_a_cluster(run: Run, project: Path) -> None:
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "datta": {}}
    write(project, {"extraObjects": [wrong]})
    code, output = run("deploy")
    assert (code, "ConfigMap mine" in output, "datta" in output) == (1, True, True)


def test_the_current_context_of_the_kubeconfig_is_never_used(run: Run, project: Path, cluster: ApiServer) -> None:
    write(project, context="prod")
    code, output = run("deploy", "--apply")
    assert (code, cluster.writes) == (1, [])
    assert "the kubeconfig has no context 'prod': it has another, here" in output
    code, output = run("rollback")
    assert (code, "no context 'prod'" in output) == (3, True)


def test_a_rollback_without_a_release_says_so(run: Run, cluster: ApiServer) -> None:
    code, output = run("rollback")
    assert (code, "release: not found" in output) == (1, True)
    assert not cluster.writes


def test_a_kubeconfig_that_is_broken_is_not_called_empty(run: Run, project: Path) -> None:
    (project / "kubeconfig").write_text("clusters: [{{{", encoding="utf-8")
    assert "the kubeconfig cannot be read: " in run("deploy")[1]
    code, output = run("rollback")
    assert (code, "the kubeconfig cannot be read: " in output) == (3, True)


def test_without_helm_it_says_what_was_not_checked_and_what_is_missing(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise MissingError("there is no helm", "install helm 4")

    monkeypatch.setattr(binaries, "helm", none)
    write(project, context="it's")
    (project / "prod.yaml").rename(project / "a b.yaml")
    (project / "prod.yaml").symlink_to("a b.yaml")
    code, output = run("deploy")
    assert code == 0
    assert "unchecked  chart  without helm it was neither linted nor rendered" in output
    assert "Next: helm: install helm 4 (1 more above: context)." in output
    assert f"Then `make deploy ENV={project / 'prod.yaml'}` again" in output
    spaced = environment.load(str(project / "a b.yaml"), project)
    monkeypatch.delenv("MAKELEVEL")  # who came without make has none
    assert environment.command(spaced, "rollback") == f"tritonkit deploy '{project / 'a b.yaml'}' --rollback"


def test_a_failed_diff_leaves_the_changes_unchecked(
    run: Run, cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise CheckFailed("kubectl diff: no", "is the program `diff` installed?")

    monkeypatch.setattr(difference, "find", refused)
    code, output = run("deploy")
    assert code == 0
    assert "unchecked  changes" in output
    assert output.index("dry run, nothing is changed") < output.index(
        "what would change is not known: kubectl diff: no"
    )


def test_models_of_the_wrong_type_are_no_traceback(run: Run, project: Path) -> None:
    write(project, {"models": "s3://a/b"})
    code, output = run("deploy")
    assert (code, "values.models is 's3://a/b', and not a mapping" in output) == (2, True)
    write(project, {"models": {"pvc": "models", "nfs": []}})
    code, output = run("deploy")
    assert (code, "at '/models/nfs'" in output) == (1, True), output


def test_two_sources_of_models_are_refused(project: Path) -> None:
    write(project, {"models": {"uri": "s3://a/b"}})
    with pytest.raises(InputError, match=r"sets deploy\.publish and values\.models\.uri"):
        models.find(environment.load(str(project / "prod.yaml"), project), project)
    write(project, {"models": {"uri": "s3://a/b"}}, publish="")
    assert models.find(environment.load(str(project / "prod.yaml"), project), project).version == ""
    write(project, {"models": {}}, publish="")
    with pytest.raises(InputError, match="names no models"):
        models.find(environment.load(str(project / "prod.yaml"), project), project)
