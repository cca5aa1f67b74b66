"""The servers that the cases are put to, started once each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tritonkit.server import TritonServer

from .cases import CASES
from .lab import PARTS, SERVERS, Files, Served, ask, core_only, states, write

LOAD_S = 60.0
HANG_S = 5.0  # a load of a Python model takes a tenth of that


@pytest.fixture(scope="session")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Triton says of each bad model that it is to refuse; empty if it loads one."""
    repository = tmp_path_factory.mktemp("bad") / "repository"
    bad = {f"{case.name}_bad": case for case in CASES if case.says}
    for name, files in (PARTS | {name: case.bad for name, case in bad.items()}).items():
        write(repository / name, files)
    answers: dict[str, str] = {}
    for alone in (True, False):
        folder = tmp_path_factory.mktemp("core" if alone else "real")
        timeouts_s = {name: HANG_S if case.hangs else LOAD_S for name, case in bad.items() if case.core_alone == alone}
        arguments = core_only(folder / "backends") if alone else []
        answers |= ask(repository, timeouts_s, folder, arguments, 1 if alone else SERVERS)
    return answers


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Servers with all good models, and with the bad ones that lint only advises against.

    What the core alone judges is on one without Python processes; requests go to the other.
    """
    same: dict[str, str] = {}
    reasons: dict[str, str] = {}
    settings = ["--strict-readiness=false", "--exit-on-error=false", "--model-load-thread-count=16"]
    with ExitStack() as stack:
        for alone in (True, False):
            folder = tmp_path_factory.mktemp("core" if alone else "real")
            models: dict[str, Files] = {name: files for name, files in PARTS.items() if not (alone and _is_onnx(files))}
            for case in CASES:
                if case.core_alone == alone:
                    models |= {f"{case.name}_good": case.good} if case.runs else {}
                    models |= {f"{case.name}_bad": case.bad} if case.advised else {}
            mine: dict[str, str] = {}
            for name, files in models.items():
                mine[name] = next((other for other in mine if models[other] == files), name)
                if mine[name] == name:
                    write(folder / "repository" / name, files)
            arguments = [*settings, *(core_only(folder / "backends") if alone else [])]
            server = TritonServer(
                folder / "repository", arguments=arguments, timeout_s=200, exit_timeout_s=0, keep_queue_bounds=True
            )
            stack.enter_context(server)
            same |= mine
            reasons |= states(server)
        yield Served(server, same, reasons)


def _is_onnx(files: Files) -> bool:
    return any(name.endswith(".onnx") for name in files)
