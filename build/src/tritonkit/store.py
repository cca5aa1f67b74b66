"""Content-addressed artifacts: a graph with all that a repository needs of it, named by what made it.

An artifact's first name is the hash of the request (recipe, tool versions, exporter code); its second is the
hash of what the export read (:mod:`tritonkit.dependencies`). An artifact is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tritonkit import atomic
from tritonkit import recipe as recipes
from tritonkit.dependencies import Dependencies, installed_version, sha256
from tritonkit.passport import Measurement

ABOUT = "artifact.json"
GRAPH = "model.onnx"
# The modules that an artifact is made with; a change in any of them makes a new one.
_CODE = (
    "dtypes", "export", "external_data", "graph", "hf", "module_outputs", "padding", "parity", "samples", "sources",
)  # fmt: skip
# How a graph is served, and what is made of it later, does not change its export.
_NOT_EXPORTED = {
    "batching", "precisions", "accuracy", "calibration", "slo", "gpus", "text", "python", "tf32", "version", "traffic",
}  # fmt: skip
_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")


def home() -> Path:
    """Where artifacts and the server live: ``$TRITONKIT_HOME``, else ``tritonkit`` in the user's cache."""
    if chosen := os.environ.get("TRITONKIT_HOME"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritonkit"


class Record(BaseModel):
    """What ``artifact.json`` says of a graph in the store; how a variant was made stands there too.

    Attributes:
        key: The request's, or of a variant the hash of the facts that it follows from.
        graph_sha256: Of the graph, with its weights; empty for an artifact without one.
        seconds: What making it took.
        parity: How an export compares with its source.
        warmup_shapes: Shapes of the warm-up data, by input.
        dependencies: What an export read.
        cpu_features: A variant needs a CPU with one of them.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    graph_sha256: str = ""
    seconds: float = 0.0
    parity: tuple[Measurement, ...] = ()
    warmup_shapes: dict[str, tuple[int, ...]] = {}
    dependencies: Dependencies | None = None
    cpu_features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """One finished export: ``path`` holds ``model.onnx``, labels, warm-up data and ``artifact.json``.

    Attributes:
        path: Its folder.
        about: All that ``artifact.json`` says, as plain data.
    """

    path: Path
    about: dict[str, Any]

    @cached_property
    def record(self) -> Record:
        """What readers need of ``about``."""
        return Record.model_validate(self.about)

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    @property
    def weights(self) -> list[Path]:
        """The files beside the graph that hold weights of it, under the names that it gives them."""
        return sorted(self.path.glob(f"{GRAPH}?*"))

    @property
    def graph_bytes(self) -> int:
        """Its size, with weights that lie beside it."""
        return sum(path.stat().st_size for path in (self.graph, *self.weights))

    @property
    def identity(self) -> list[str]:
        """What identifies an export: the key of its request, and the hash of what it read."""
        return [self.path.parent.name, self.path.name]


def request_key(recipe: recipes.Recipe) -> str:
    """The hash of everything that is known about an export before running it."""
    tools = tool_versions()
    code = {name: sha256(Path(__file__).with_name(f"{name}.py")) for name in _CODE}
    settings = {name: value for name, value in recipes.as_json(recipe).items() if name not in _NOT_EXPORTED}
    facts = {"recipe": settings, "tools": tools, "code": code, "python": list(sys.version_info[:2])}
    if not isinstance(recipe.source, str) or ".py:" in recipe.source:
        facts["directory"] = str(recipe.directory.resolve())  # relative paths mean other files elsewhere
    return hash_of(facts)


def find(key: str) -> Artifact | None:
    """The artifact of a request whose dependencies are all unchanged."""
    for about in sorted((home() / "artifacts" / key).glob(f"*/{ABOUT}")):
        try:
            data = json.loads(about.read_text(encoding="utf-8"))
            artifact = Artifact(about.parent, data)
            read = artifact.record.dependencies
            if _whole(about.parent, data) and read is not None and read.hold():
                return artifact
        except (ValueError, KeyError, TypeError, OSError):
            continue  # an artifact that cannot be read is an artifact to make again
    return None


def make(key: str, write: Callable[[Path], tuple[dict[str, Any], Dependencies]]) -> Artifact:
    """Let ``write`` fill a directory, and publish it in one step.

    Args:
        key: From :func:`request_key`.
        write: Fills the directory it gets; returns what to say about it, and what it depended on.
    """
    parent = home() / "artifacts" / key
    with atomic.staging(parent / "artifact") as stage:
        about, dependencies = write(stage)
        about |= {"key": key, "graph_sha256": _graph_sha256(stage), "dependencies": dependencies.as_json()}
        about["files"] = _sizes(stage)
        (stage / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        target = parent / hash_of(about["dependencies"])[:16]
        atomic.put(stage, target)
    return Artifact(target, about)


def derive(facts: Mapping[str, object], write: Callable[[Path], dict[str, Any]]) -> tuple[Artifact, bool]:
    """An artifact that follows from facts alone: made once, then read by the hash of the facts.

    Args:
        facts: Everything that the result depends on, as plain data.
        write: Fills the directory it gets; returns what to say about it.

    Returns:
        The artifact, and whether it was made now.
    """
    key = hash_of(dict(facts))
    target = home() / "derived" / key
    try:
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
        if _whole(target, about):
            return Artifact(target, about), False
    except (ValueError, KeyError, TypeError, OSError):
        pass  # absent, or damaged and to be made again
    with atomic.staging(target) as stage:
        about = {**write(stage), "key": key, "files": _sizes(stage)}
        if (stage / GRAPH).is_file():
            about["graph_sha256"] = _graph_sha256(stage)
        (stage / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        atomic.put(stage, target)
    return Artifact(target, about), True


def _graph_sha256(directory: Path) -> str:
    from tritonkit import external_data  # here, as it loads onnx, which finding an artifact does not need

    return external_data.graph_sha256(directory / GRAPH)


def _sizes(directory: Path) -> dict[str, int]:
    """Every file below a directory, with its size."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size for path in directory.rglob("*") if path.is_file()
    }


def _whole(directory: Path, about: dict[str, Any]) -> bool:
    """Whether all files of an artifact are there in their size: a cache is cleaned by hand, or copied in part."""
    return all((directory / name).stat().st_size == size for name, size in about["files"].items())


def code_hash(*files: Path) -> str:
    """One hash over source files: what they make is made again when they change."""
    return hash_of({file.name: sha256(file) for file in files})


def tool_versions() -> dict[str, str]:
    """The versions of the packages that artifacts are made with."""
    return {name: installed_version(name) for name in _TOOLS}


def hash_of(data: object) -> str:
    """SHA-256 of plain data, in hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
