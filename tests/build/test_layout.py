"""The traps of a folder called build/, the walls between the rooms, and what a wheel must carry."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def tracked(root: Path) -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.split("\0") if name and (root / name).is_file()]


def test_build_is_source_and_not_a_package(root: Path) -> None:
    assert not (root / "build/__init__.py").exists()
    ignored = subprocess.run(["git", "check-ignore", "build/src/tritonkit/new.py", "build/new"], cwd=root, check=False)
    assert ignored.returncode == 1, "a line of .gitignore swallows build/"
    code = "import importlib.util as u; spec = u.find_spec('build'); print(getattr(spec, 'origin', None))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root.parent, capture_output=True, text=True, check=True)
    assert str(root) not in result.stdout


def test_nothing_tracked_is_over_two_megabytes(root: Path) -> None:
    assert [path for path in tracked(root) if path.stat().st_size > 2_000_000] == []


def test_no_module_is_longer_than_400_lines(root: Path) -> None:
    long = {str(path): lines for path in tracked(root) if path.suffix == ".py"
            and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400}  # fmt: skip
    assert long == {}


def imports(folder: Path) -> set[str]:
    """The top-level names that a folder's modules import."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("clients/src", {"tritonkit", "tritonkit_load", "torch", "gevent", "locust", "onnx", "onnxruntime"}),
        ("build/src", {"tritonkit_client", "tritonkit_load", "locust", "gevent"}),
    ],
)
def test_rooms_know_only_what_they_may(root: Path, folder: str, forbidden: set[str]) -> None:
    assert not imports(root / folder) & forbidden


def test_load_tests_know_nothing_of_what_measures_tritonkit_itself(root: Path) -> None:
    package = root / "loadtests/src/tritonkit_load"
    for room in ("load", "tokens", "tuning", "reporting"):
        for path in (package / room).rglob("*.py"):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            modules = [f"{node.module}.{alias.name}" for node in tree if isinstance(node, ast.ImportFrom)
                       for alias in node.names]  # fmt: skip
            assert not [module for module in modules if module.startswith("tritonkit_load.benchmarks")], path


def test_the_backend_imports_nothing_of_ours(root: Path) -> None:
    # ``cuda`` is NVIDIA's bindings, in the environment of a GPU's server; others lie beside a model.py.
    allowed = {"numpy", "onnxruntime", "triton_python_backend_utils", "cuda"}
    allowed |= {"batch_execution", "forest_inference", "vllm_engine"}
    assert imports(root / "build/src/tritonkit/server/backends") - sys.stdlib_module_names <= allowed


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("build", ["tritonkit/py.typed", "tritonkit/server/backends/onnxruntime/model.py",
                   "tritonkit/kubetools/crds/scaledobject-keda.sh-v1alpha1.json",
                   "tritonkit/server/backends/onnxruntime/batch_execution/sized.py",
                    "tritonkit/server/backends/fil/model.py", "tritonkit/server/backends/fil/forest_inference.py",
                   "tritonkit/server/backends/vllm/vllm_engine/process.py", "tritonkit/server/end_with_parent.py",
                   "tritonkit/server/requirements-cpu.txt", "tritonkit/server/requirements-cuda.txt",
                   "tritonkit/server/requirements-vllm-cpu.txt", "tritonkit/server/requirements-vllm-cuda.txt"]),
        ("clients", ["tritonkit_client/py.typed", "tritonkit_client/__init__.py"]),
        ("loadtests", ["tritonkit_load/py.typed", "tritonkit_load/locustfile.py", "tritonkit_load/reporting/load.html.j2",
                       "tritonkit_load/benchmarks/peers/fastapi/requirements.txt",
                       "tritonkit_load/benchmarks/gpu/recipes/resnet50.yaml"]),
    ],
)  # fmt: skip
def test_wheel_carries_what_it_needs_and_nothing_else(
    root: Path, tmp_path: Path, folder: str, names: list[str]
) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, root / folder], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    assert set(names) <= set(packed)
    package = names[0].partition("/")[0]
    assert all(name.startswith((f"{package}/", f"{package}-")) for name in packed)
