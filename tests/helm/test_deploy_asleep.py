"""`make deploy` where no pod runs, and where a bucket's scheme was forgotten."""
# ruff: noqa: F811

from __future__ import annotations

import subprocess
from pathlib import Path

from deployments import Run, api, cluster, model, project, run, tools, version, write  # noqa: F401
from fakecluster.state import KEDA, ApiServer


def test_a_version_that_comes_while_no_pod_runs_is_not_called_broken(
    run: Run, project: Path, cluster: ApiServer
) -> None:
    cluster.served |= KEDA
    keda = {"enabled": True, "kind": "keda", "minReplicas": 0, "keda": {"activation": {"query": "sum(arrivals)"}}}
    write(project, {"autoscaling": keda})
    code, output = run("deploy", "--apply")
    assert code == 0, output
    assert "Phase:          Succeeded" in output, "the first pod stays for the test"

    deployment = cluster.find("Deployment", "triton-tritonkit")
    assert deployment is not None
    deployment["spec"]["replicas"] = 0  # as KEDA does
    cluster.test_passes = False  # as nobody answers
    model(project, "2.0")
    code, output = run("deploy", "--apply")
    assert code == 0, output
    assert "triton-tritonkit has no pod now, so nobody has loaded this yet" in output
    assert f"triton will serve models version {version(project)}" in output
    commands = output.partition("To try it:\n")[2].splitlines()
    start, wait, test, stop = (line.strip() for line in commands if line.startswith("    "))
    assert wait.startswith("kubectl --context here -n inference wait --for=jsonpath=")
    assert test == "helm --kube-context here -n inference test triton --logs"
    annotations = []
    for command in (start, stop):
        subprocess.run(command, shell=True, check=True, timeout=60)
        scaler = cluster.find("ScaledObject", "triton-tritonkit")
        assert scaler is not None
        annotations.append((scaler["metadata"].get("annotations") or {}).get("autoscaling.keda.sh/paused-replicas"))
    assert annotations == ["1", None]


def test_a_bucket_without_a_scheme_is_reported_before_anything_else(run: Run, project: Path) -> None:
    write(project, publish="example-models/prod")
    code, output = run("deploy")
    assert code == 2
    assert "deploy.publish: example-models/prod does not say which store it is in" in output
    assert "write s3://example-models/prod" in output
