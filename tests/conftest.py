"""What every room's tests share: one home for artifacts and the server, and the zoo's models built once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tritonkit.server import runtime

os.environ.pop("COLUMNS", None)  # a width that consoles would keep from their import on
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default on Linux since onnxruntime 1.29

ROOT = Path(__file__).parents[1]

# Several processes share the suite's files. These folders stay whole, as their files share what is dear to set up.
_WHOLE = ("build/lint", "build/engines", "build/precision", "build/publishing")
# What takes longest begins first, so that no process is left with it at the end.
_LONG = (
    "build/lint", "build/precision", "helm/test_deploy.py", "loadtests/test_compare.py", "build/test_rebuild.py",
    "build/test_export.py", "e2e/test_loadtests.py", "e2e/test_variants.py", "build/publishing",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests a process takes together, and in which order they begin."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _LONG.index(_group(item)) if _group(item) in _LONG else len(_LONG))


def _group(item: pytest.Item) -> str:
    file = item.path.relative_to(ROOT / "tests").as_posix()
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
    """Every shipped recipe in fp32 for the CPU, which answers to the digit; artifacts come from the user's store."""
    from tritonkit import pipeline, recipe

    repository = tmp_path_factory.mktemp("zoo") / "model_repository"
    recipes = [recipe.load(path) for path in sorted((ROOT / "build/recipes").glob("*.yaml"))]
    pipeline.build(recipes, repository, "cpu", pipeline.Options(precisions=("fp32",)))
    return repository


@pytest.fixture(scope="session")
def promoted_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shipped recipe as `make build` makes it: in the variant that the gate chose on this machine."""
    from tritonkit import pipeline, recipe

    repository = tmp_path_factory.mktemp("promoted") / "model_repository"
    pipeline.build([recipe.load(path) for path in sorted((ROOT / "build/recipes").glob("*.yaml"))], repository)
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
