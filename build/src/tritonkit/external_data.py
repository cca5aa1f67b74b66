"""Weights that lie beside an ONNX graph (its *external data*): where they are, reading, writing and hashing them.

onnx itself refuses such a file when it is a link or has several hard links. A Hugging Face cache is made of links, and
a repository shares files with the store by hard links; so only what onnx's refusal guards against is refused here: a
graph that names a file outside its own folder.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import onnx
from onnx import TensorProto, helper
from onnx.shape_inference import InferenceError

from tritonkit.dependencies import sha256
from tritonkit.errors import GraphError

LARGEST_BYTES = 2**31 - 2**20  # a protobuf message ends at 2 GiB; the margin is for the graph itself
SUFFIX = ".data"  # model.onnx has its weights in model.onnx.data, where tritonkit writes them
_LEAST_BYTES = 1024  # smaller tensors stay in the graph: shapes, scalars and biases, which shape inference reads
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Place:
    """Where one tensor's numbers are: ``length`` bytes of a file, from ``offset``."""

    path: Path
    offset: int
    length: int


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, also of subgraphs and of the model's own functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def external(model: onnx.ModelProto) -> list[TensorProto]:
    """The tensors whose numbers are in files beside the graph."""
    return [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]


def locate(tensor: TensorProto, graph: Path) -> Place:
    """Where an external tensor of the graph at ``graph`` is; links are followed.

    Raises:
        GraphError: The file is missing or too short, or the graph names one outside its folder.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = graph.parent / location
    if not location or PurePosixPath(location).is_absolute() or ".." in PurePosixPath(location).parts:
        raise GraphError(
            f"{graph}: its weights file {location!r} lies outside {graph.parent}, where onnxruntime reads none",
            f"copy it beside {graph.name}, and let the graph name it there, in Python: "
            f"m = onnx.load({str(graph)!r}, load_external_data=False); [setattr(e, 'value', "
            f"{PurePosixPath(location).name!r}) for t in m.graph.initializer for e in t.external_data if e.key == "
            f"'location']; onnx.save(m, {str(graph)!r})",
        )
    if path.is_symlink() and not path.exists():
        raise GraphError(
            f"{graph}: its weights file {location} is a link to nothing ({path.readlink()})",
            f"download it again, or copy {location} beside {graph.name}",
        )
    if not path.is_file():
        raise GraphError(f"{graph}: its weights file {location} is missing", f"copy {location} beside {graph.name}")
    size, offset = path.stat().st_size, int(entries.get("offset", 0))
    length = int(entries.get("length", max(size - offset, 0)))
    if offset + length > size:
        raise GraphError(
            f"{graph}: its weights file {location} has {size:,} bytes, {tensor.name!r} ends at {offset + length:,}",
            f"copy or download {location} again: it is cut short",
        )
    return Place(path, offset, length)


def check(model: onnx.ModelProto, path: Path) -> None:
    """Hold a graph that was read from ``path`` without its weights to ONNX's rules, and its weights' files to it.

    Raises:
        GraphError: A file with weights is not there, or too short.
        onnx.checker.ValidationError: The graph breaks a rule.
    """
    if not external(model):
        onnx.checker.check_model(str(path))
        return
    stand_in = onnx.ModelProto()
    stand_in.CopyFrom(model)
    for tensor in external(stand_in):
        locate(tensor, path)
        _mark_internal(tensor)
        tensor.dims[:] = [0]  # no numbers to look for
    onnx.checker.check_model(stand_in)


def load(path: Path) -> onnx.ModelProto:
    """A model with all its weights in memory.

    Raises:
        GraphError: A file with weights is not there, or too short.
    """
    model = onnx.load(path, load_external_data=False)
    for tensor in external(model):
        place = locate(tensor, path)
        with place.path.open("rb") as file:
            file.seek(place.offset)
            tensor.raw_data = file.read(place.length)
        _mark_internal(tensor)
    return model


def save(model: onnx.ModelProto, path: Path, data_name: str = "") -> None:
    """Write a model; weights go beside it only if it has more than 2 GB.

    Args:
        model: With all weights in memory. Those of a larger model are taken out of it.
        path: Where the graph is written.
        data_name: The name of the file beside it; ``path``'s own name and ``.data`` if not given.
    """
    if size_bytes(model) > LARGEST_BYTES:
        location = data_name or f"{path.name}{SUFFIX}"
        with path.with_name(location).open("wb") as file:
            for tensor in tensors(model):
                if is_weight(tensor):
                    offset, length = file.tell(), file.write(tensor.raw_data)
                    tensor.ClearField("raw_data")
                    _mark_external(tensor, location, offset, length)
    onnx.save(model, path)


def copy(origin: Path, path: Path) -> None:
    """Copy a graph with its weights: into the graph's file if it then has at most 2 GB, else into one file beside it.

    Raises:
        GraphError: A file with weights is not there, or too short.
    """
    model = onnx.load(origin, load_external_data=False)
    if sum(file.stat().st_size for file in files(origin, model)) <= LARGEST_BYTES:
        onnx.save(load(origin), path)
        return
    location = f"{path.name}{SUFFIX}"
    with path.with_name(location).open("wb") as file:
        for tensor in external(model):
            place, offset = locate(tensor, origin), file.tell()
            with place.path.open("rb") as held:
                held.seek(place.offset)
                _copy_bytes(held, file, place.length)
            _mark_external(tensor, location, offset, place.length)
    onnx.save(model, path)


def files(path: Path, model: onnx.ModelProto | None = None) -> list[Path]:
    """A graph's file, and those beside it that hold its weights.

    Args:
        path: The graph.
        model: The same without its weights, if it has been read.

    Raises:
        GraphError: A file with weights is not there, or too short.
    """
    model = model or onnx.load(path, load_external_data=False)
    return [path, *sorted({locate(tensor, path).path for tensor in external(model)})]


def graph_sha256(path: Path) -> str:
    """The hash of a graph and of its weights, wherever they lie: that of the file itself if it holds them all."""
    hashes = [sha256(file) for file in files(path)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def size_bytes(model: onnx.ModelProto) -> int:
    """What a model with its weights in memory takes as one file, nearly; without serializing it."""
    return sum(_numbers_bytes(tensor) for tensor in tensors(model))


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the shapes and types that follow from the graph; onnx infers those of less than 2 GB only.

    What a graph notes of its tensors (``value_info``) helps where nothing can be inferred, and may be wrong: converters
    change a tensor and not its note, which onnx then refuses.

    Args:
        model: With all weights in memory; not changed.

    Raises:
        GraphError: The types of its operators contradict each other.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in tensors(light):
        if is_weight(tensor):
            tensor.ClearField("raw_data")  # inference reads the numbers of shapes only
    stored = {tensor.name for tensor in light.graph.initializer}
    notes = [value for value in light.graph.value_info if value.name not in stored]  # an initializer has its type
    try:
        inferred = _inferred(light, notes)
    except InferenceError:
        try:
            inferred = _inferred(light, [])
        except InferenceError as error:
            raise GraphError(
                f"onnx cannot tell the types of the graph's tensors: {str(error).strip().splitlines()[0]}",
                "the operators around the tensor that it names take other types: cast it there, and export again; fp32 "
                "needs no such types (`--precision fp32`)",
            ) from error
    for bare, tensor in zip(tensors(inferred), tensors(model), strict=True):
        if tensor.HasField("raw_data"):
            bare.raw_data = tensor.raw_data
    return inferred


def _inferred(model: onnx.ModelProto, notes: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    del model.graph.value_info[:]
    model.graph.value_info.extend(notes)
    return onnx.shape_inference.infer_shapes(model)


def is_weight(tensor: TensorProto) -> bool:
    """Whether a tensor in memory is large enough to lie beside its graph, and is nothing that decides shapes."""
    return tensor.HasField("raw_data") and _numbers_bytes(tensor) >= _LEAST_BYTES


def _numbers_bytes(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _copy_bytes(source: IO[bytes], target: IO[bytes], length: int) -> None:
    while length:
        chunk = source.read(min(length, _CHUNK_BYTES))
        if not chunk:
            raise OSError(f"{source.name} was cut short while it was read")
        length -= target.write(chunk)


def _mark_internal(tensor: TensorProto) -> None:
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _mark_external(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
