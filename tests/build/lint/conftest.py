"""The servers that the cases are put to, started once each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tritonkit.server import TritonServer

from .cases import CASES
from .lab import PARTS, Files, Served, ask, states, write

LOAD_S = 60.0
HANG_S = 5.0  # a load of a Python model takes a tenth of that


@pytest.fixture(scope="session")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Triton says of each bad model that it is to refuse; empty if it loads one."""
    repository = tmp_path_factory.mktemp("bad") / "repository"
    bad = {f"{case.name}_bad": case for case in CASES if case.says}
    for name, files in (PARTS | {name: case.bad for name, case in bad.items()}).items():
        write(repository / name, files)
    timeouts_s = {name: HANG_S if case.hangs else LOAD_S for name, case in bad.items()}
    return ask(repository, timeouts_s, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with all good models, and with the bad ones that lint only advises against."""
    repository = tmp_path_factory.mktemp("good") / "repository"
    models: dict[str, Files] = dict(PARTS)
    for case in CASES:
        models |= {f"{case.name}_good": case.good} if case.runs else {}
        models |= {f"{case.name}_bad": case.bad} if case.advised else {}
    same: dict[str, str] = {}
    for name, files in models.items():
        same[name] = next((other for other in same if models[other] == files), name)
        if same[name] == name:
            write(repository / name, files)
    arguments = ["--strict-readiness=false", "--exit-on-error=false", "--model-load-thread-count=16"]
    with TritonServer(repository, arguments=arguments, timeout_s=200, exit_timeout_s=0) as server:
        yield Served(server, same, states(server))
