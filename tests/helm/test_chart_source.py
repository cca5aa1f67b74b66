"""Where `tritonkit deploy` takes its chart from: a folder, a packed chart, and a real OCI registry."""
# ruff: noqa: F811

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import ociregistry
import pytest
import yaml
from deployments import Run, api, cluster, project, run, tools, write  # noqa: F401
from fakecluster.state import ApiServer
from manifests.rendering import CHART

from tritonkit import cli
from tritonkit.deploying import chart_source, environment
from tritonkit.errors import InputError, MissingError
from tritonkit.kubetools import binaries

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]


def helm(*words: str, data: str = "") -> str:
    done = subprocess.run([str(binaries.helm()), *words], input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    helm("package", str(CHART), "--destination", str(folder))
    return folder / f"tritonkit-{VERSION}.tgz"


@pytest.fixture(scope="session")
def pushed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The chart in a registry: its address without a version, and its digest."""
    with ociregistry.running(tmp_path_factory.mktemp("registry")) as address:
        output = helm("push", str(packed), f"oci://{address}/charts", "--plain-http")
        (digest,) = re.findall(r"sha256:[0-9a-f]{64}", output)
        yield f"oci://{address}/charts/tritonkit", digest


def without_checkout(project: Path) -> None:
    (project / "helm/tritonkit").unlink()


def test_a_chart_of_a_registry_is_deployed_by_version_and_by_digest(
    run: Run, project: Path, cluster: ApiServer, pushed: tuple[str, str]
) -> None:
    address, digest = pushed
    without_checkout(project)
    write(project, chart=f"{address}:{VERSION}")
    code, output = run("deploy", "--apply")
    assert code == 0, output
    assert f"chart     tritonkit {VERSION} with Triton " in output
    assert f"from {address}:{VERSION}\n" in output
    assert cluster.find("Deployment", "triton-tritonkit") is not None
    write(project, {"replicas": 2, "pdb": {"enabled": False}}, chart=f"{address}@{digest}")
    code, output = run("deploy")
    assert code == 0, output
    assert "change   Deployment triton-tritonkit: 2 pods" in output
    assert run("deploy", "--apply")[0] == 0
    code, output = run("rollback")  # which needs no chart
    assert code == 0, output
    deployment = cluster.find("Deployment", "triton-tritonkit")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1


def test_a_packed_chart_is_rendered_as_its_folder_is(run: Run, project: Path, packed: Path) -> None:
    assert run("deploy")[0] == 0
    manifest = project / "reports/deploy/prod.yaml"
    of_folder = manifest.read_text(encoding="utf-8")
    manifest.unlink()
    without_checkout(project)
    (project / "charts").mkdir()
    (project / "charts/mine.tgz").write_bytes(packed.read_bytes())
    write(project, chart="charts/mine.tgz")
    code, output = run("deploy")
    assert code == 0, output
    assert "in charts/mine.tgz\n" in output
    assert manifest.read_text(encoding="utf-8") == of_folder


def test_without_a_checkout_and_without_a_chart_the_fix_leads_on(run: Run, project: Path) -> None:
    without_checkout(project)
    code, output = run("deploy")
    assert code == 2
    assert "there is no chart in " in output
    assert "set deploy.chart to the chart's folder, or to oci://REGISTRY/PATH/tritonkit:VERSION" in output
    write(project, chart=str(CHART))
    assert run("deploy")[0] == 0


@pytest.mark.parametrize(
    ("chart", "code", "words"),
    [
        ("{address}", 2, "names no version, so it would be another chart some day"),
        ("{address}:9.9.9", 3, "helm cannot fetch the chart"),
        ("oci://127.0.0.1:1/charts/tritonkit:0.1.0", 3, "helm cannot fetch the chart oci://127.0.0.1:1/"),
        ("prod.yaml", 2, "is no packed chart"),
        ("model_repository", 2, "it has no Chart.yaml"),
    ],
)
def test_a_chart_that_cannot_be_had_ends_before_anything_is_done(
    run: Run, project: Path, pushed: tuple[str, str], chart: str, code: int, words: str
) -> None:
    write(project, chart=chart.format(address=pushed[0]))
    result, output = run("deploy", "--apply")
    assert (result, words in output) == (code, True), output
    assert not (project / "store").exists()


def test_a_registry_with_users_is_logged_in_to_as_the_message_says(
    run: Run, project: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("guarded")
    # htpasswd's form of the password `secret`: bcrypt, which is all that the registry takes.
    (folder / "users").write_text(f"me:{_bcrypt('secret')}\n", encoding="utf-8")
    with ociregistry.running(folder, folder / "users") as address:
        write(project, chart=f"oci://{address}/charts/tritonkit:{VERSION}")
        code, output = run("deploy")
        assert code == 3
        assert f"log in with `helm registry login {address}`" in output
        helm("registry", "login", address, "--plain-http", "-u", "me", "--password-stdin", data="secret")
        helm("push", str(packed), f"oci://{address}/charts", "--plain-http")
        code, output = run("deploy")
        assert code == 0, output


def _bcrypt(password: str) -> str:
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def test_another_chart_is_refused(run: Run, project: Path) -> None:
    (project / "nginx").mkdir()
    (project / "nginx/Chart.yaml").write_text("apiVersion: v2\nname: nginx\nversion: 1.0.0\n", encoding="utf-8")
    write(project, chart="nginx")
    code, output = run("deploy")
    assert (code, "is the chart 'nginx'" in output) == (2, True)


def test_an_archive_that_reaches_out_of_its_folder_is_refused(project: Path) -> None:
    (project / "evil").write_text("x", encoding="utf-8")
    with tarfile.open(project / "evil.tgz", "w:gz") as archive:
        archive.add(project / "evil", "../evil-outside")
    write(project, chart="evil.tgz")
    loaded = environment.load(str(project / "prod.yaml"), project)
    with pytest.raises(InputError, match="is no packed chart"), chart_source.unpacked(loaded, project, None):
        pass
    assert not (project.parent / "evil-outside").exists()


def test_without_helm_a_chart_of_a_registry_is_missing(project: Path) -> None:
    write(project, chart="oci://registry.example.com/charts/tritonkit:0.1.0")
    loaded = environment.load(str(project / "prod.yaml"), project)
    with pytest.raises(MissingError, match="without helm"), chart_source.unpacked(loaded, project, None):
        pass


def test_apply_beside_rollback_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", str(project / "prod.yaml"), "--apply", "--rollback"]) == 2
    assert "--apply and --rollback are two things" in capsys.readouterr().err


def test_an_environment_by_name_is_looked_up_in_the_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", "prod", "--project", str(project)]) == 2
    assert "name its file, such as prod.yaml" in capsys.readouterr().err
    (project / "helm/environments").mkdir()
    (project / "helm/environments/prod.yaml").write_text((project / "prod.yaml").read_text("utf-8"), encoding="utf-8")
    assert cli.main(["deploy", "prod", "--project", str(project)]) == 0
