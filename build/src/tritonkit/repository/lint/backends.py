"""Which backend serves a model and from which file: what Triton's core fills in where a configuration is silent.

Follows ``AutoCompleteBackendFields`` of triton-inference-server/core, in its order; each case was also tried
against the embedded server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.model_directory import PLAN

ENSEMBLE = "ensemble"
TENSORRT = "tensorrt"
ONNXRUNTIME = "onnxruntime"  # NVIDIA's C++ backend; on the embedded server ours serves this name too
TRITONKIT_ONNXRUNTIME = "tritonkit_onnxruntime"  # ours by its own name (docs/decisions/0013)
ONNX = frozenset({ONNXRUNTIME, TRITONKIT_ONNXRUNTIME})
PYTHON = "python"
PYTORCH = "pytorch"
OPENVINO = "openvino"
TENSORFLOW = "tensorflow"
DEFAULT_FILES = {
    TENSORRT: PLAN,
    ONNXRUNTIME: "model.onnx",
    OPENVINO: "model.xml",
    PYTORCH: "model.pt",
    PYTHON: "model.py",
}
# Of a backend that Triton's core does not know: it finds no file by itself.
_OWN_FILES = {TRITONKIT_ONNXRUNTIME: DEFAULT_FILES[ONNXRUNTIME]}
_PLATFORMS = {
    "tensorrt_plan": TENSORRT,
    "onnxruntime_onnx": ONNXRUNTIME,
    "tensorflow_savedmodel": TENSORFLOW,
    "tensorflow_graphdef": TENSORFLOW,
    ENSEMBLE: ENSEMBLE,
}
_TENSORFLOW_FILES = {"tensorflow_savedmodel": "model.savedmodel", "tensorflow_graphdef": "model.graphdef"}


@dataclass(frozen=True)
class Served:
    """How Triton serves a model; an empty backend means that it cannot tell, or that it is an ensemble."""

    backend: str
    platform: str
    filename: str


def backend_of_platform(platform: str) -> str:
    """The backend that a ``platform`` means; empty for one that Triton does not know.

    PyTorch has had several platforms (``pytorch_libtorch``, later those of Torch itself), so any of its kind counts.
    """
    if platform.startswith(("pytorch", "torch")):
        return PYTORCH
    return _PLATFORMS.get(platform, "")


def resolve(config: pb.ModelConfig, name: str, directory: Path, folders: Sequence[str]) -> Served:
    """Backend, platform and file of a model.

    Args:
        config: What ``config.pbtxt`` says; an empty one where there is no such file.
        name: The model's directory's name.
        directory: The model's directory.
        folders: Names of the folders in it.
    """
    # Triton looks into the folder whose name sorts first, whatever it is: `.ipynb_checkpoints` before `1`.
    first = directory / min(folders) if folders else None
    backend = config.backend or backend_of_platform(config.platform)
    if backend == ENSEMBLE:
        return Served("", ENSEMBLE, "")
    filename = config.default_model_filename
    silent = not config.platform and not filename
    if not backend:
        backend = _by_file(filename, first if silent else None)
    if not backend and silent and "." in name:
        backend = name.partition(".")[2]
        filename = f"model.{backend}"
    platform = config.platform
    if backend == TENSORFLOW:
        platform = platform or _tensorflow_platform(filename, first)
        filename = filename or _TENSORFLOW_FILES.get(platform, "")
    return Served(backend, platform, filename or (DEFAULT_FILES | _OWN_FILES).get(backend, ""))


def _by_file(filename: str, first: Path | None) -> str:
    """The backend that a file name means, or the first folder's files; empty if they mean none."""
    known = dict.fromkeys(_TENSORFLOW_FILES.values(), TENSORFLOW)
    known |= {file: backend for backend, file in DEFAULT_FILES.items()} | {"model.pt2": PYTORCH}
    if filename:
        return known.get(filename, "")
    if first is None:
        return ""
    return next((backend for file, backend in known.items() if exists(first / file)), "")


def _tensorflow_platform(filename: str, first: Path | None) -> str:
    for platform, file in _TENSORFLOW_FILES.items():
        if filename == file or (not filename and first is not None and exists(first / file)):
            return platform
    return ""


def exists(path: Path) -> bool:
    """Whether something is there; False also where one may not look."""
    try:
        return path.exists()
    except OSError:
        return False
