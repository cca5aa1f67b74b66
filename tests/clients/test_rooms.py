"""The rooms of the client: imports between them run one way, and opening a room costs nothing.

::

    _cli                                 the command
    └── the modules beside the rooms     Client, AsyncClient and what they share
        ├── _language                    prompts, chat, answers
        └── _engine                      operations, servers, attempts
            ├── _memory                  segments
            ├── _transport               connections
            └── _protocol                wire formats, tensors, metadata, errors: below all of them
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tritonkit_client

PACKAGE = Path(tritonkit_client.__file__).parent
BESIDE = "beside the rooms"
# What each room may import besides itself.
ROOMS = {
    "_protocol": set[str](),
    "_memory": {"_protocol"},
    "_transport": {"_protocol"},
    "_engine": {"_protocol", "_memory", "_transport"},
    "_language": {"_protocol", "_engine"},
    BESIDE: {"_protocol", "_memory", "_transport", "_engine", "_language"},
    "_cli": {"_protocol", "_transport", "_language", BESIDE},
}
# A call, and the memory that a server knows, name the server by its type; they never run a line of the engine.
TYPES_ONLY = {("_protocol/calls.py", "_engine"), ("_memory/shared_memory.py", "_engine")}


def nodes(tree: ast.AST, typing: bool) -> Iterator[ast.AST]:
    """The nodes of a module that run, or those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            if typing:
                yield from (inner for statement in node.body for inner in ast.walk(statement))
            else:
                yield from (inner for statement in node.orelse for inner in ast.walk(statement))
            continue
        if not typing:
            yield node
        yield from nodes(node, typing)


def rooms_imported(source: str, room: str, typing: bool = False) -> set[str]:
    """The other rooms that a module of a room imports."""
    here = ["tritonkit_client", *([] if room == BESIDE else [room])]
    targets: list[list[str]] = []
    for node in nodes(ast.parse(source), typing):
        if isinstance(node, ast.Import):
            targets += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")] if node.level else (
                (node.module or "").split(".")
            )  # fmt: skip
            targets += [[part for part in (*module, alias.name) if part] for alias in node.names]
    rooms = {(target[1] if target[1] in ROOMS else BESIDE) if len(target) > 1 else BESIDE
             for target in targets if target[0] == "tritonkit_client"}  # fmt: skip
    return rooms - {room}


def modules(room: str) -> list[Path]:
    folder, pattern = (PACKAGE, "*.py") if room == BESIDE else (PACKAGE / room, "**/*.py")
    paths = sorted(folder.glob(pattern))
    assert paths
    return paths


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    for path in modules(room):
        # ``python -m tritonkit_client`` is the command.
        allowed = ROOMS[room] | ({"_cli"} if path == PACKAGE / "__main__.py" else set())
        assert rooms_imported(path.read_text(), room) <= allowed, path.relative_to(PACKAGE)


def test_only_types_of_the_engine_are_named_below_it() -> None:
    named = {
        (path.relative_to(PACKAGE).as_posix(), other)
        for room in ROOMS
        for path in modules(room)
        for other in rooms_imported(path.read_text(), room, typing=True) - ROOMS[room]
    }
    assert named == TYPES_ONLY


@pytest.mark.parametrize(
    "source",
    [
        "from .._engine.servers import Server",
        "from .. import _engine",
        "from .._engine import servers",
        "def read():\n    from .._engine.servers import Server",
        "import tritonkit_client._engine.servers",
        "from tritonkit_client._engine import servers",
        "from tritonkit_client import _engine",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from .._engine.servers import Server",
    ],
)
def test_an_import_of_another_room_is_seen_however_it_is_written(source: str) -> None:
    assert rooms_imported(source, "_protocol") == {"_engine"}
    assert rooms_imported(f"if TYPE_CHECKING:\n    from .._engine import servers\n{source}", "_protocol") == {"_engine"}
    assert rooms_imported("from .tensors import Array\nimport numpy", "_protocol") == set()


def test_the_rooms_of_this_test_are_those_of_the_package() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS.keys() - {BESIDE}


def test_opening_a_room_runs_nothing() -> None:
    for room in ROOMS.keys() - {BESIDE}:
        (docstring,) = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
        assert isinstance(docstring, ast.Expr), room


def test_what_lies_beside_the_rooms_is_what_a_caller_sees() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__", "__main__", "prometheus", "opentelemetry", "_base", "_client", "_async_client", "_model",
        "_async_model", "_streaming_client", "_async_streaming_client", "_pickling",
    }  # fmt: skip
