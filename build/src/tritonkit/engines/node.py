"""What a node has: GPUs with their driver, TensorRT, the Triton image, the CPU. Reads only; judges nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_QUERY = ("--query-gpu=name,compute_cap,memory.total,uuid,driver_version", "--format=csv,noheader,nounits")
_LIBRARY = re.compile(r"libnvinfer\.so\.(\d+\.\d+\.\d+)")
_LIBRARY_DIRECTORIES = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64",
    "/usr/local/tensorrt/lib", "/opt/tensorrt/lib",
)  # fmt: skip
# Where pip puts TensorRT, or only its bindings beside the libraries of an image.
_PACKAGES = ("tensorrt", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings")


@dataclass(frozen=True)
class NodeGpu:
    """One GPU as its driver describes it; in MIG mode this is the whole GPU, not the slice."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    uuid: str = ""
    driver: str = ""

    @property
    def compute(self) -> str:
        """``8.6``."""
        return f"{self.capability[0]}.{self.capability[1]}"


@dataclass(frozen=True)
class Node:
    """What a check compares a passport with.

    Attributes:
        gpus: Those that ``nvidia-smi`` shows.
        tensorrt_version: Of the installed TensorRT, three or four numbers; None if there is none.
        image: The Triton image's tag, such as ``26.09-py3``; None if it is not known.
        cpu_features: Flags of /proc/cpuinfo.
    """

    gpus: tuple[NodeGpu, ...] = ()
    tensorrt_version: str | None = None
    image: str | None = None
    cpu_features: frozenset[str] = frozenset()


def read(image: str | None = None) -> Node:
    """This machine; ``image`` overrides what the Triton image says about itself."""
    tag = image or os.environ.get("NVIDIA_TRITON_SERVER_VERSION") or None
    return Node(gpus(), tensorrt_version(), tag, cpu_features())


def gpus() -> tuple[NodeGpu, ...]:
    """The GPUs that ``nvidia-smi`` shows; none if it is missing or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        completed = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gpu for line in completed.stdout.splitlines() if (gpu := parse_gpu(line)))


def parse_gpu(line: str) -> NodeGpu | None:
    """One line of the query: ``NVIDIA A10G, 8.6, 23028, GPU-5f…, 580.95.05`` (memory in MiB)."""
    match = re.fullmatch(r"\s*(.+?),\s*(\d+)\.(\d+),\s*(\d+),\s*([^\s,]*)(?:,\s*(\S+))?\s*", line)
    if not match:
        return None
    return NodeGpu(match[1], (int(match[2]), int(match[3])), int(match[4]) * 2**20, match[5], match[6] or "")


def tensorrt_version(directories: Iterable[Path] | None = None) -> str | None:
    """The installed TensorRT: its library by file name, as Triton loads that one; else the Python package.

    The library's name has three numbers; a package of the same three adds the fourth.
    """
    if directories is None:
        searched = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *_LIBRARY_DIRECTORIES]
        directories = [Path(place) for place in searched if place]
    library = next((version for place in directories for version in _libraries(place)), None)
    package = _package()
    if library is None or (package is not None and package.startswith(f"{library}.")):
        return package
    return library


def _libraries(place: Path) -> list[str]:
    try:
        names = sorted(path.name for path in place.iterdir())
    except OSError:
        return []
    return [match[1] for name in names if (match := _LIBRARY.fullmatch(name))]


def _package() -> str | None:
    for name in _PACKAGES:
        try:
            return ".".join(re.findall(r"\d+", metadata.version(name))[:4])
        except metadata.PackageNotFoundError:
            continue
    return None


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The CPU's instructions as Linux names them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()
