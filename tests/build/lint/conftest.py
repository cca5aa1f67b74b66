"""The servers that the cases are put to, started once each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tritonkit.server import TritonServer

from .cases import CASES
from .lab import AS_WRITTEN, PARTS, SERVERS, Case, Files, Served, ask, core_only, states, write

WAYS = ("core", "as completed", "as written")
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
    for way in WAYS:
        folder = tmp_path_factory.mktemp(way.replace(" ", "-"))
        timeouts_s = {name: HANG_S if case.hangs else LOAD_S for name, case in bad.items() if _way(case) == way}
        answers |= ask(repository, timeouts_s, folder, _arguments(way, folder), 1 if way == "core" else SERVERS)
    return answers


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Servers with all good models, and with the bad ones that lint only advises against.

    Requests go to the last, as complete configurations have it.
    """
    same: dict[str, str] = {}
    reasons: dict[str, str] = {}
    settings = ["--strict-readiness=false", "--exit-on-error=false", "--model-load-thread-count=4"]
    with ExitStack() as stack:
        for way in WAYS:
            models: dict[str, Files] = {}
            for case in CASES:
                if _way(case) == way:
                    models |= {f"{case.name}_good": case.good} if case.runs else {}
                    models |= {f"{case.name}_bad": case.bad} if case.advised else {}
            configs = [str(files.get("config.pbtxt")) for files in models.values()]
            models |= {part: files for part, files in PARTS.items() if any(f'"{part}"' in text for text in configs)}
            folder = tmp_path_factory.mktemp(way.replace(" ", "-"))
            mine: dict[str, str] = {}
            for name, files in models.items():
                mine[name] = next((other for other in mine if models[other] == files and name not in PARTS), name)
                if mine[name] == name:
                    write(folder / "repository" / name, files)
            arguments = [*settings, *_arguments(way, folder)]
            server = TritonServer(
                folder / "repository", arguments=arguments, timeout_s=200, exit_timeout_s=0, keep_queue_bounds=True
            )
            stack.enter_context(server)
            same |= mine
            reasons |= states(server)
        yield Served(server, same, reasons)


def _way(case: Case) -> str:
    """Which server judges a case as any would, for the least work."""
    if case.core_alone:
        return "core"
    return "as completed" if case.completed else "as written"


def _arguments(way: str, folder: Path) -> list[str]:
    return {"core": lambda: core_only(folder / "backends"), "as written": lambda: [AS_WRITTEN]}.get(way, list)()
