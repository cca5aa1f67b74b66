"""Finds the chart that an environment deploys: a folder, a packed chart, or one in an OCI registry or behind a URL."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tritonkit.deploying import chart
from tritonkit.deploying.environment import Environment
from tritonkit.errors import InputError, MissingError

DEFAULT = "helm/tritonkit"  # of a checkout
NAME = "tritonkit"
_REMOTE = ("oci://", "https://", "http://")
_REFERENCE = re.compile(r"(?P<repository>oci://[^@]+?)(?::(?P<version>[^:/@]+))?(?P<digest>@sha256:[0-9a-f]{64})?")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Chart:
    """A chart on this machine's disk.

    Attributes:
        folder: The one with ``Chart.yaml``.
        source: Where it comes from, as a person writes it.
        version: Its own version.
        triton: NVIDIA's release of Triton that it deploys.
    """

    folder: Path
    source: str
    version: str
    triton: str


@contextmanager
def unpacked(environment: Environment, project: Path, helm: Path | None) -> Iterator[Chart]:
    """The environment's chart, for as long as the ``with`` block; what was fetched or unpacked is removed at its end.

    Args:
        environment: Whose ``deploy.chart`` names it.
        project: The folder that relative paths count from.
        helm: The program, which fetches what is not on this machine.

    Raises:
        InputError: There is no chart of that name, it has another name than this command's values are for, or its
            version is not fixed.
        MissingError: It has to be fetched, and there is no helm, or the registry does not give it.
    """
    source = environment.deploy.chart or DEFAULT
    with tempfile.TemporaryDirectory(prefix="tritonkit-chart-") as place:
        if source.startswith(_REMOTE):
            yield _read(_fetched(environment, source, helm, Path(place)), source, environment)
        elif (project / source).is_file():
            yield _read(_extracted(environment, project / source, Path(place)), source, environment)
        else:
            yield _read(project / source, source, environment)


def _read(folder: Path, source: str, environment: Environment) -> Chart:
    if not (folder / "Chart.yaml").is_file():
        raise InputError(
            f"{environment.path}: there is no chart in {folder}: it has no Chart.yaml",
            f"set deploy.chart to the chart's folder, or to oci://REGISTRY/PATH/{NAME}:VERSION",
        )
    try:
        about = chart.about(folder)
        name, version, triton = (str(about.get(key, "")) for key in ("name", "version", "appVersion"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{folder}/Chart.yaml cannot be read: {error}", "correct it") from error
    if name != NAME:
        raise InputError(
            f"{environment.path}: {source} is the chart {name!r}; this command writes values of the chart {NAME}",
            "name that chart in deploy.chart; as a dependency of another chart, deploy it with helm alone",
        )
    return Chart(folder, source, version, triton)


def _extracted(environment: Environment, archive: Path, place: Path) -> Path:
    try:
        with tarfile.open(archive) as files:
            files.extractall(place, filter="data")
    except (OSError, tarfile.TarError) as error:
        text = f"{environment.path}: deploy.chart: {archive} is no packed chart: {error}"
        raise InputError(text, "name a chart's folder, or what `helm package` made of it") from error
    return _only_folder(place)


def _only_folder(place: Path) -> Path:
    return next((path for path in sorted(place.iterdir()) if path.is_dir()), place)


def _fetched(environment: Environment, source: str, helm: Path | None, place: Path) -> Path:
    if helm is None:
        raise MissingError(f"without helm the chart {source} cannot be fetched", "https://helm.sh/docs/intro/install")
    command = [str(helm), "pull", *_location(environment, source), "--untar", "--untardir", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["helm gave no reason"])[-1].removeprefix("Error: ")
        login = f"; log in with `helm registry login {urlsplit(source).netloc}`" if source.startswith("oci://") else ""
        raise MissingError(
            f"{environment.path}: helm cannot fetch the chart {source}: {reason}",
            f"check deploy.chart and the network{login}",
        )
    return _only_folder(place)


def _location(environment: Environment, source: str) -> list[str]:
    """helm's words for a chart of a fixed version; plain HTTP only on this machine."""
    host = urlsplit(source).hostname
    plain = ["--plain-http"] if host in _LOOPBACK and not source.startswith("https://") else []
    if not source.startswith("oci://"):
        return [source, *plain]
    match = _REFERENCE.fullmatch(source)
    if match is None or not (match["version"] or match["digest"]):
        raise InputError(
            f"{environment.path}: deploy.chart: {source} names no version, so it would be another chart some day",
            f"{source.rstrip('/')}:VERSION, or @sha256:… with its 64 digits",
        )
    version = ["--version", match["version"]] if match["version"] else []
    return [match["repository"] + (match["digest"] or ""), *version, *plain]
