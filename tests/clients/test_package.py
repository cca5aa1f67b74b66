"""The package as a whole: what it exports, what it drags in, and where its I/O is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import tritonkit_client

SOURCES = Path(tritonkit_client.__file__).parent
# The only modules that may open a connection, and with what.
IO = {
    "_async_client.py": {"asyncio"},
    "_async_streaming_client.py": {"asyncio"},
    "_transport/grpc.py": {"grpc"},
    "_transport/grpc_aio.py": {"asyncio", "grpc"},
    "_transport/http.py": {"asyncio", "ssl", "urllib3"},
    "_transport/sockets.py": {"socket", "ssl"},
}


def test_exports_are_sorted_complete_and_present() -> None:
    exported = tritonkit_client.__all__
    # Constants first, as ruff sorts.
    assert exported == sorted(exported, key=lambda name: (not name.isupper(), name))
    public = {name for name, value in vars(tritonkit_client).items() if isinstance(value, type)}
    assert set(exported) == public


def test_only_the_transports_import_what_does_io() -> None:
    for path in SOURCES.rglob("*.py"):
        used = {name.split(".")[0] for name in imports(path)}
        module = path.relative_to(SOURCES).as_posix()
        assert used & {"asyncio", "grpc", "http", "socket", "ssl", "urllib3"} == IO.get(module, set()), module


def imports(path: Path) -> set[str]:
    """The absolute modules that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return modules


def test_the_wheel_alone_works_and_brings_nothing_heavy(root: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(root / "clients")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    clean = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clean], check=True)
    python = clean / "bin/python"
    install = ["--python", python, "install", "--quiet", "--no-compile", "-c", root / "constraints.txt", wheel]
    subprocess.run([*pip, *map(str, install)], check=True)
    code = "import importlib.metadata as m; print(*(part.name for part in m.distributions()))"
    listed = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    installed = {name.lower().replace("_", "-") for name in listed.split()}
    assert installed == {
        "tritonkit-client", "numpy", "ml-dtypes", "tritonclient", "grpcio", "protobuf", "python-rapidjson", "urllib3",
        "packaging", "typing-extensions",
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(clean / "bin/tritonkit-client"), "health", "grpc://127.0.0.1:1", "--timeout", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr[:24]) == (2, "error: ConnectionFailed:")


def test_importing_it_brings_no_heavy_or_monkey_patching_package() -> None:
    code = "import sys, tritonkit_client; print(*{'torch', 'gevent', 'aiohttp', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# Names that came with Python 3.11: mypy and ruff do not refuse them, as they check for 3.11.
LATER = {("datetime", "UTC"), ("asyncio", "timeout"), ("asyncio", "TaskGroup"), ("asyncio", "Runner")}


def test_nothing_needs_more_than_python_3_10() -> None:
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in LATER, path.name
        # asyncio had a TimeoutError of its own until 3.11: a handler of the built-in one would not catch it.
        if "asyncio.wait_for" in path.read_text():
            caught = [name for handler in ast.walk(tree) if isinstance(handler, ast.ExceptHandler) and handler.type
                      for name in ast.walk(handler.type) if isinstance(name, ast.Name)]  # fmt: skip
            assert "TimeoutError" not in {name.id for name in caught}, path.name
