"""Fixtures of all tests: a common home for artifacts and the server, and the zoo's models, built once."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tritonkit.server import runtime

os.environ.pop("COLUMNS", None)  # consoles would keep this width from their import on
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default on Linux since onnxruntime 1.29

ROOT = Path(__file__).parents[1]

# Several processes share the suite's files. These folders stay whole, as their files share an expensive setup.
_WHOLE = ("build/lint", "build/engines", "build/precision", "build/publishing", "clients")
# The longest begin first, so that no process is left with one of them at the end. Of two that make the same variants
# of the shipped models, the second begins later, and finds them in the store.
_LONG = (
    "build/lint", "clients", "build/precision", "helm/test_deploy.py", "loadtests/test_compare.py", "build/test_rebuild.py",
    "build/test_export.py", "e2e/test_loadtests.py", "build/publishing", "e2e/test_variants.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests in the order in which they begin."""
    places = {group: place for place, group in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(_group(item.nodeid), len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process whole groups: pytest-xdist 3.8's own way, marks, has no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return Groups(config, log)


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return next((folder for folder in _WHOLE if file.startswith(f"{folder}/")), file)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def installed_server() -> runtime.Runtime:
    """The server in the home that the tests were started with; a project's own home has none."""
    return runtime.find()


@pytest.fixture(scope="session")
def zoo_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shipped recipe in fp32 for the CPU, which is exact; artifacts come from the user's store."""
    from tritonkit import pipeline

    return _built_once(tmp_path_factory, "zoo", pipeline.Options(precisions=("fp32",)))


@pytest.fixture(scope="session")
def promoted_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shipped recipe as `make build` makes it: in the variant that the gate chose on this machine."""
    from tritonkit import pipeline

    return _built_once(tmp_path_factory, "promoted", pipeline.DEFAULTS)


def _built_once(tmp_path_factory: pytest.TempPathFactory, name: str, options: Any) -> Path:
    """The shipped recipes' repository, which all processes of a run share: the first that needs it builds it."""
    from tritonkit import pipeline, recipe

    own = tmp_path_factory.getbasetemp()
    folder = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    repository = folder / name / "model_repository"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not repository.exists():  # a build writes all of it or nothing
            recipes = [recipe.load(path) for path in sorted((ROOT / "build/recipes").glob("*.yaml"))]
            pipeline.build(recipes, repository, "cpu", options)
    return repository


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small filesystem of its own; skips where that is not allowed."""
    place = tmp_path / "mount"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True, check=False)
