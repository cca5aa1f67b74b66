"""A directory's safetensors files: which there are, whether they are whole, and what they hold.

Only headers are read (https://huggingface.co/docs/safetensors, "Format"): 8 bytes of length, little-endian, then JSON
with type, shape and place of each tensor, then the tensors.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.errors import SourceError
from tritonkit.llm.directory import Directory, read_json

INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000  # the format's own limit, in bytes (safetensors, MAX_HEADER_SIZE)
_SHARD = re.compile(r"(.*-)(\d+)-of-(\d+)(\.safetensors)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_AGAIN = "download it again"


@dataclass(frozen=True)
class Tensor:
    """One tensor: its type as safetensors names it (``BF16``), shape, and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """All weights of a directory.

    Attributes:
        files: The files that an engine loads, in order.
        tensors: Name to tensor.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]

    @property
    def checkpoint_bytes(self) -> int:
        """What the tensors take in the files."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """How many numbers there are; of a quantized checkpoint, packed ones count as one."""
        return sum(tensor.elements for tensor in self.tensors.values())


def read(directory: Directory) -> Weights:
    """Read every header, and check that each file is as long as its header says and no tensor is missing.

    Raises:
        SourceError: There are no weights, or a file or tensor is missing or cut off.
    """
    files = _files(directory.path)
    placed: dict[str, Path] = {}
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_file(file).items():
            placed[name], tensors[name] = file, tensor
    index = read_json(directory.path / INDEX).get("weight_map")
    for name, file_name in index.items() if isinstance(index, dict) else ():
        if placed.get(name) != directory.path / file_name:
            raise SourceError(
                f"{directory.path / file_name} has no tensor {name}, which {INDEX} places there",
                "download both files again: they are of different versions",
            )
    _check_layers(directory, tensors)
    return Weights(tuple(files), tensors)


def _files(directory: Path) -> list[Path]:
    """The files that an engine loads: those of the index, else all but a second copy of the same weights."""
    index = read_json(directory / INDEX).get("weight_map")
    if isinstance(index, dict) and index:
        names = sorted({str(name) for name in index.values()})
        if absent := [name for name in names if not (directory / name).is_file()]:
            raise SourceError(
                f"{directory} lacks {len(absent)} of {len(names)} files of weights: {', '.join(absent[:3])}"
                + (" …" if len(absent) > 3 else ""),
                "download them into it",
            )
        return [directory / name for name in names]
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        others = sorted(path.name for path in directory.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".gguf"})
        raise SourceError(
            f"{directory} has no weights (*.safetensors)" + (f", only {others[0]}" if others else ""),
            "save them so:  model.save_pretrained(DIRECTORY)" if others else "copy the weights beside config.json",
        )
    models = [path for path in paths if path.name.startswith("model")]
    _check_shards(directory, models or paths)
    return models or paths


def _check_shards(directory: Path, files: list[Path]) -> None:
    """Without an index, names like ``model-00001-of-00003`` say how many there have to be."""
    names = {path.name for path in files}
    for path in files:
        if match := _SHARD.fullmatch(path.name):
            first, number, last, end = match.groups()
            expected = [f"{first}{count:0{len(number)}}-of-{last}{end}" for count in range(1, int(last) + 1)]
            if absent := [name for name in expected if name not in names]:
                raise SourceError(f"{directory} lacks {absent[0]}, one of {int(last)} files of weights", _AGAIN)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by their names.

    Raises:
        SourceError: The file is not a safetensors file, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= LARGEST_HEADER:
            raise SourceError(f"{path} is no safetensors file: {_looks_like(start, size)}", _AGAIN)
        text = file.read(length)
    if len(text) < length:
        raise SourceError(f"{path} is cut off in its header: it has {size:,} bytes of {length + 8:,}", _AGAIN)
    try:
        header: dict[str, Any] = json.loads(text)
        tensors = {
            name: (Tensor(entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(f"{path} has a header that is not safetensors' ({type(error).__name__})", _AGAIN) from error
    if size != 8 + length + end:
        what = "is cut off" if size < 8 + length + end else "has more than its header says"
        raise SourceError(f"{path} {what}: {size:,} bytes where its header says {8 + length + end:,}", _AGAIN)
    return tensors


def _looks_like(start: bytes, size: int) -> str:
    if start.startswith(b"version "):
        return "a pointer of Git LFS (run `git lfs pull`)"
    return "it is empty" if not size else f"its first 8 bytes are no length ({size:,} bytes in all)"


def _check_layers(directory: Directory, tensors: Mapping[str, Tensor]) -> None:
    """Every layer of the configuration has a tensor; of a file without an index, nothing else says what is missing."""
    present = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if not present:
        return
    if absent := sorted(set(range(directory.layers)) - present):
        raise SourceError(
            f"{directory.path} has no weights of layer {absent[0]}: config.json has {directory.layers} layers, the "
            f"files have {len(present)}",
            "download all files of weights, or correct num_hidden_layers",
        )
