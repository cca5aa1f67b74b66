"""Other people's repositories: lint finds no error in one that is valid, and the real server loads what it can."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit.repository import lint
from tritonkit.server import TritonServer

from .lab import states, write
from .strangers import STRANGERS, Stranger


def build(place: Path, stranger: Stranger) -> Path:
    for name, files in stranger.models.items():
        write(place / stranger.name / name, files)
    for name, content in stranger.top.items():
        (place / stranger.name / name).write_text(str(content), encoding="utf-8")
    return place / stranger.name


@pytest.mark.parametrize("stranger", STRANGERS, ids=[stranger.name for stranger in STRANGERS])
def test_a_valid_repository_has_no_errors(stranger: Stranger, tmp_path: Path) -> None:
    report = lint.check(build(tmp_path, stranger), stranger.options)
    assert report.models == len(stranger.models)
    assert [
        f"{finding.rule} {finding.model}: {finding.message}"
        for finding in report.findings
        if finding.severity == "error"
    ] == []


def test_the_real_server_loads_all_of_them_that_it_has_a_backend_for(tmp_path: Path) -> None:
    repositories = [build(tmp_path, stranger) for stranger in STRANGERS if stranger.runs]
    arguments = [f"--model-repository={path}" for path in repositories[1:]]
    arguments += [flag for stranger in STRANGERS for flag in stranger.options.server or ()]
    arguments += ["--strict-readiness=false", "--exit-on-error=false", "--model-load-thread-count=16"]
    with TritonServer(repositories[0], arguments=arguments, timeout_s=120, exit_timeout_s=0) as server:
        reasons = states(server)
    models = [name for stranger in STRANGERS if stranger.runs for name in stranger.models]
    assert {name: reasons.get(name, "not in the index") for name in models} == dict.fromkeys(models, "")
