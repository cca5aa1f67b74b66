"""A model's directory in a repository: the names of its files, which folders are versions, which versions are loaded.

Everything that reads or writes such a directory takes names and rules from here; what the configuration should say is
for :mod:`tritonkit.repository.config`, and which files tritonkit wrote for :mod:`tritonkit.repository.ownership`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.errors import InputError

if TYPE_CHECKING:  # it loads gRPC, which names of files do not need
    from tritonclient.grpc import model_config_pb2 as pb

CONFIG = "config.pbtxt"
PASSPORT = "passport.json"
CONFIGS = "configs"  # other configurations, by name: tritonserver --model-config-name
ENGINE_GRAPH = "engine.onnx"  # what `tritonkit engine` builds plans from; Triton does not read it
PLAN = "model.plan"  # what the tensorrt backend opens where the configuration names no file
LABELS = "labels.txt"
WARMUP = "warmup"
RESERVED = frozenset({WARMUP, "initial_state", CONFIGS})  # folders that Triton never takes for versions


def custom_config(name: str) -> str:
    """Where a configuration for ``--model-config-name`` lies in the directory."""
    return f"{CONFIGS}/{name}.pbtxt"


def is_labels(path: str) -> bool:
    """Whether a path in the directory is a file of labels: ``labels.txt``, or one for each output."""
    return "/" not in path and path.startswith("labels") and path.endswith(".txt")


def is_version(name: str) -> bool:
    """Whether Triton takes a folder of this name for a version."""
    return name.isdecimal() and name.isascii() and (name == "0" or not name.startswith("0"))


def versions(directory: Path) -> list[int]:
    """The versions that have a folder, the newest last; none where there is no such directory."""
    folders = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in folders if is_version(path.name) and path.is_dir())


def loaded(numbers: Sequence[int], config: pb.ModelConfig) -> list[int]:
    """Those of ``numbers``, the newest last, that Triton loads: the newest, unless the configuration says otherwise.

    ``latest`` without a number, or with 0, loads none, and Triton refuses the model: `VersionsToLoad` in
    src/model_repository_manager/model_repository_manager.cc of triton-inference-server/core counts up to it.
    """
    policy = config.version_policy
    if policy.HasField("specific"):
        return [number for number in numbers if number in policy.specific.versions]
    if policy.HasField("all"):
        return list(numbers)
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return list(numbers[-count:]) if count else []


def read_config(path: Path) -> pb.ModelConfig | None:
    """The configuration in a file; None where the file is not there.

    Raises:
        InputError: The file is no model configuration.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, text_format.ParseError) as error:
        raise InputError(f"{path} is no model configuration: {error}", "`tritonkit lint` says more") from error


def find_config(directory: Path) -> pb.ModelConfig | None:
    """A model's configuration; None where it has none that can be read: what is wrong with it, Triton says."""
    try:
        return read_config(directory / CONFIG)
    except InputError:
        return None
