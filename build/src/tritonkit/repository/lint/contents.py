"""What a repository contains, read once into plain data; files are opened when a rule first asks for them.

It judges nothing: a file that cannot be read is a fact like any other.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.passport import EngineFacts, ModelPassport
from tritonkit.repository import model_directory
from tritonkit.repository.lint import backends, graphs, pbtxt
from tritonkit.repository.lint.findings import Options
from tritonkit.repository.model_directory import CONFIG, PASSPORT, custom_config, is_version

MAX_CONFIG_BYTES = 4 * 2**20  # no configuration is near this; a model file under that name is
AUTO_MAX_BATCH_SIZE = 4  # core's `default-max-batch-size`


@dataclass(frozen=True)
class Json:
    """A JSON file: what it says, or why it says nothing."""

    path: Path
    data: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class PassportFile:
    """A model's passport: what can be read of it, or why nothing can."""

    path: Path
    data: ModelPassport
    problem: str = ""


@dataclass(frozen=True)
class PlanPassport:
    """A plan's passport: what can be read of it, or why nothing can; None also where there is none."""

    path: Path
    data: EngineFacts | None
    problem: str = ""


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs as Triton will serve them, and the largest batch."""

    inputs: dict[str, graphs.Tensor]
    outputs: dict[str, graphs.Tensor]
    max_batch_size: int
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Model:
    """One folder of a repository, which Triton takes for a model.

    Attributes:
        name: The folder's name.
        directory: The folder.
        folders: Names of the folders in it.
        config_path: Where its configuration is, or would be.
        text: The configuration's text; None if there is no such file, or it cannot be read.
        config_problem: Why it cannot be read; empty if it can, or is not there.
        config: What it says; an empty configuration where it says nothing.
        mistake: Why the text is no configuration.
    """

    name: str
    directory: Path
    folders: tuple[str, ...]
    config_path: Path
    text: str | None
    config_problem: str
    config: pb.ModelConfig
    mistake: pbtxt.Mistake | None

    @cached_property
    def outline(self) -> pbtxt.Node:
        """Where each field of the configuration stands."""
        return pbtxt.outline(self.text or "")

    @cached_property
    def ignores(self) -> list[pbtxt.Ignore]:
        """The comments that switch rules off."""
        return pbtxt.ignores(self.text or "")

    @cached_property
    def served(self) -> backends.Served:
        """Backend and file."""
        return backends.resolve(self.config, self.name, self.directory, self.folders)

    @cached_property
    def usable(self) -> bool:
        """Whether the configuration says something that other rules may rely on."""
        return self.mistake is None and not self.config_problem

    @cached_property
    def stray(self) -> bool:
        """Whether the folder was never meant as a model: no configuration, no version."""
        return self.text is None and not self.config_problem and not any(name[:1].isdigit() for name in self.folders)

    @cached_property
    def ensemble(self) -> bool:
        """Whether it is an ensemble of other models."""
        return self.served.platform == backends.ENSEMBLE or self.config.HasField("ensemble_scheduling")

    @cached_property
    def versions(self) -> list[int]:
        """Numbers of the version folders, as Triton reads them."""
        return sorted(int(name) for name in self.folders if is_version(name))

    @cached_property
    def loaded(self) -> list[int]:
        """The versions that the policy loads."""
        return self.chosen(self.versions)

    def chosen(self, numbers: list[int]) -> list[int]:
        """Those of ``numbers``, which are sorted, that the version policy loads."""
        return model_directory.loaded(numbers, self.config)

    def version(self, number: int) -> Path:
        """A version's folder."""
        return self.directory / str(number)

    def line(self, *steps: pbtxt.Step) -> int | None:
        """The line of a field in the configuration."""
        return self.outline.line_of(*steps)

    @cached_property
    def graph_paths(self) -> list[Path]:
        """The ONNX files that an onnxruntime backend will open, whether they exist or not."""
        if self.served.backend not in backends.ONNX:
            return []
        paths = [self.version(number) / self.served.filename for number in self.loaded]
        return [path / "model.onnx" if is_folder(path) else path for path in paths]

    @cached_property
    def dead_links(self) -> list[Path]:
        """Links to nothing beside the configuration; Triton asks each entry there for its time, and fails."""
        return sorted(place for place in entries(self.directory) if place != self.config_path and is_dead_link(place))

    @cached_property
    def read_graphs(self) -> dict[Path, graphs.Graph | str]:
        """Each of these files that exists: its graph, or why it has none."""
        return {path: graphs.read(path) for path in self.graph_paths if is_file(path)}

    @property
    def graphs(self) -> list[graphs.Graph]:
        """The graphs that could be read."""
        return [graph for graph in self.read_graphs.values() if isinstance(graph, graphs.Graph)]

    @cached_property
    def passport(self) -> PassportFile:
        """The model's own passport; one that says nothing where there is none."""
        file = read_json(self.directory / PASSPORT)
        return PassportFile(file.path, ModelPassport.parse_readable(file.data), file.problem)

    @cached_property
    def plans(self) -> dict[Path, PlanPassport]:
        """Every TensorRT plan in a loaded version, with its passport."""
        plans = {}
        for number in self.loaded:
            for path in sorted(entries(self.version(number))):
                if path.suffix in {".plan", ".engine"} and is_file(path):
                    file = read_json(path.with_name(path.name + ".json"))
                    facts = EngineFacts.parse_readable(file.data) if file.data else None
                    plans[path] = PlanPassport(file.path, facts, file.problem)
        return plans

    @cached_property
    def signature(self) -> Signature | None:
        """What Triton serves once it has completed the configuration; None where only the backend knows."""
        config = self.config
        declared = _declared(config)
        if config.input and config.output:
            return declared
        if self.served.backend in backends.ONNX and self.graphs:
            return _completed(declared, self.graphs[-1])
        return None


@dataclass(frozen=True)
class Repository:
    """A model repository: every folder in it is a model to Triton."""

    path: Path
    models: dict[str, Model]


def read(path: Path, options: Options) -> Repository:
    """Look at every folder of a repository.

    Raises:
        OSError: The repository itself cannot be listed.
    """
    custom = options.flag("model-config-name")
    places = [Path(entry.path) for entry in os.scandir(path)]
    folders = sorted(place.name for place in places if is_folder(place) or is_dead_link(place))
    return Repository(path, {name: _model(path / name, custom[-1] if custom else "") for name in folders})


def _model(directory: Path, custom: str) -> Model:
    path = directory / CONFIG
    if custom and is_file(directory / custom_config(custom)):
        path = directory / custom_config(custom)
    text, problem = _read_config(path)
    parsed = pbtxt.parse(text) if text is not None else pb.ModelConfig()
    mistake = parsed if isinstance(parsed, pbtxt.Mistake) else None
    folders = tuple(sorted(entry.name for entry in entries(directory) if is_folder(entry)))
    config = pb.ModelConfig() if mistake else parsed
    return Model(directory.name, directory, folders, path, text, problem, config, mistake)


def _read_config(path: Path) -> tuple[str | None, str]:
    """The text of a configuration, and why there is none although something is there."""
    if not os.path.lexists(path):
        return None, ""
    try:
        if path.is_dir():
            return None, "is a folder"
        if path.is_symlink() and not path.exists():
            return None, "is a link to nothing"
        if not path.is_file():
            return None, "is no regular file"
        if path.stat().st_size > MAX_CONFIG_BYTES:
            return None, f"has {path.stat().st_size:,} bytes"
        return path.read_bytes().decode("utf-8"), ""
    except UnicodeDecodeError:
        return None, "is not text in UTF-8"
    except OSError as error:  # a link to itself, no permission
        return None, f"cannot be read ({error.strerror})"


def read_json(path: Path) -> Json:
    """A JSON object in a file; a file that is not there says nothing and has no problem."""
    if not is_file(path):
        return Json(path, {})
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return Json(path, {}, f"is not JSON ({str(error)[:80]})")
    return Json(path, data) if isinstance(data, dict) else Json(path, {}, "is no JSON object")


def entries(directory: Path) -> list[Path]:
    """What is in a folder; nothing where it cannot be listed."""
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def is_file(path: Path) -> bool:
    """Whether it is a file that is there; False also for a link to itself."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_dead_link(path: Path) -> bool:
    """Whether it is a link to what is not there, or to itself."""
    try:
        return path.is_symlink() and not path.exists()
    except OSError:
        return True


def is_folder(path: Path) -> bool:
    """Whether it is a folder that is there; False also for a link to itself."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _declared(config: pb.ModelConfig) -> Signature:
    return Signature(
        {entry.name: _tensor(entry) for entry in config.input},
        {entry.name: _tensor(entry) for entry in config.output},
        config.max_batch_size,
        frozenset(entry.name for entry in config.input if entry.optional),
    )


def _tensor(entry: Any) -> graphs.Tensor:
    dtype = pb.DataType.Name(entry.data_type) if entry.data_type in pb.DataType.values() else ""
    return graphs.Tensor(entry.name, dtype, tuple(entry.dims), dtype)


def _completed(declared: Signature, graph: graphs.Graph) -> Signature:
    """As an onnxruntime backend completes it: batches of 4 where every first dimension is free."""
    tensors = [*graph.inputs.values(), *graph.outputs.values()]
    size = declared.max_batch_size
    if size == 0 and all(tensor.dims and tensor.dims[0] == -1 for tensor in tensors):
        size = AUTO_MAX_BATCH_SIZE
    skipped = 1 if size else 0

    def described(tensors: dict[str, graphs.Tensor]) -> dict[str, graphs.Tensor]:
        return {
            name: graphs.Tensor(name, tensor.dtype, (tensor.dims or ())[skipped:] or (1,), tensor.kind)
            for name, tensor in tensors.items()
        }

    return Signature(
        declared.inputs or described(graph.inputs),
        declared.outputs or described(graph.outputs),
        size,
        declared.optional,
    )
