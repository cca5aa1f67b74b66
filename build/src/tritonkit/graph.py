"""Reads ONNX graphs: opens them, runs them on the CPU, and holds them against what a recipe says.

Weights are never loaded to look at a graph's signature. Making graphs is for :mod:`tritonkit.export`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from tritonkit import external_data, graph_inspection, sources
from tritonkit.dtypes import BY_ONNX
from tritonkit.errors import GraphError, MissingError
from tritonkit.recipe import OnnxSource, Recipe, TensorSpec

Array = NDArray[Any]
# Words of onnxruntime's refusals (1.24 to 1.32) and what leads on; the first that fits counts.
_ADVICE = {
    r"registered function/op|No Op registered|No opset import": "export it with operators that onnxruntime has: a "
    "newer opset, or without those of a library or of TensorRT's plugins; `tritonkit lint` names them",
    r"escapes model directory|External data path: .* \(resolved path": "copy the file of weights into the graph's "
    "folder: onnxruntime reads no weights from elsewhere, links followed",
    r"External data path does not exist|out of bounds or can not be read": "copy the whole file of weights beside the "
    "graph, under the name that the graph has for it",
    r"IR version|guarantees support|official support for domain": "export it with a lower opset",
}


@dataclass(frozen=True)
class GraphTensor:
    """One input or output of a graph; a dim is a size, a symbol's name, or None where nothing is known."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What goes into a graph and what comes out, in the graph's order."""

    inputs: dict[str, GraphTensor]
    outputs: dict[str, GraphTensor]
    opset: int


def read_signature(path: Path) -> Signature:
    """The inputs and outputs of an ONNX file.

    Raises:
        GraphError: The file is missing or no valid ONNX, or has a type that Triton does not serve.
    """
    model = _parse(path)
    if _without_shape(model):
        model = _with_inferred_shapes(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return Signature(
        {value.name: _tensor(path, value) for value in inputs},
        {value.name: _tensor(path, value) for value in model.graph.output},
        graph_inspection.opset(model),
    )


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.output:
            raise ValueError("it has no outputs")
        external_data.check(model, path)
    except onnx.checker.ValidationError as error:
        if not _without_shape(model):
            raise GraphError(
                f"{path} is not a valid ONNX model: {_first_line(error)}", "export or download it again"
            ) from error
    except GraphError:
        raise
    except FileNotFoundError as error:
        raise GraphError(f"there is no file {path}", "correct the path; it is relative to the recipe") from error
    except Exception as error:  # protobuf, checker and ValueError: all say that this is no ONNX model
        raise GraphError(
            f"{path} is not a valid ONNX model: {_first_line(error)}", "export or download it again"
        ) from error
    return model


def _with_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that follow from its nodes; the symbols that inference makes up say nothing."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:  # what onnxruntime makes of it, its session says
        return model
    for before, after in zip(model.graph.output, inferred.graph.output, strict=True):
        if not before.type.tensor_type.HasField("shape"):
            for dim in after.type.tensor_type.shape.dim:
                if dim.dim_param.startswith("unk__"):
                    dim.Clear()
    return inferred


def _without_shape(model: onnx.ModelProto) -> bool:
    """Whether an input or output has no shape, which ONNX's checker refuses and onnxruntime runs."""
    values = (*model.graph.input, *model.graph.output)
    return any(value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape") for value in values)


def _tensor(path: Path, value: onnx.ValueInfoProto) -> GraphTensor:
    tensor = value.type.tensor_type
    if tensor.elem_type not in BY_ONNX:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if value.type.HasField("tensor_type") else "no tensor"
        raise GraphError(
            f"{path}: {value.name!r} is {kind}, which Triton's ONNX Runtime backend does not serve",
            "cast it inside the graph",
        )
    dims: tuple[int | str | None, ...] | None = None
    if tensor.HasField("shape"):
        # Some converters write -1 where a dimension moves, and onnxruntime reads it so.
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
            for dim in tensor.shape.dim
        )
        if 0 in dims:
            raise GraphError(
                f"{path}: {value.name!r} has the shape {list(dims)}; Triton has no dimension of size 0",
                "export it with a dynamic dimension there",
            )
    return GraphTensor(value.name, BY_ONNX[tensor.elem_type].name, dims)


def check_against(recipe: Recipe, path: Path) -> None:
    """Refuse a graph that contradicts its recipe: names, dtypes, ranks, sizes, a fixed batch dimension.

    Raises:
        GraphError: The graph contradicts the recipe; the message names every contradiction.
    """
    signature = read_signature(path)
    file = recipe.directory / recipe.source.onnx if isinstance(recipe.source, OnnxSource) else "the exported graph"
    problems: list[str] = []
    for kind, declared, actual in (
        ("input", recipe.inputs, signature.inputs),
        ("output", recipe.outputs, signature.outputs),
    ):
        problems += _compare_names(kind, declared, actual)
        for name, spec in declared.items():
            if name in actual:
                problems += _compare(recipe, f"{kind} {name!r}", spec, actual[name])
    if problems:
        tensors = (*signature.inputs.values(), *signature.outputs.values())
        fixed = not recipe.max_batch_size or any(not t.dims or isinstance(t.dims[0], int) for t in tensors)
        fix = f"correct the recipe; this writes one that agrees:  {sources.init_command(recipe, batched=not fixed)}"
        if not isinstance(recipe.source, OnnxSource) and any("the recipe says dynamic" in text for text in problems):
            fix = (
                "PyTorch's exporter took that size for a constant. Write the module so that it moves (recurrent "
                "layers: LSTM or GRU, several of one layer in a row in place of num_layers), or give the size as a "
                "number in dims"
            )
        raise GraphError(
            f"{file} contradicts {recipe.path}:\n" + "\n".join(f"  - {problem}" for problem in problems), fix
        )


def _compare_names(kind: str, declared: Mapping[str, TensorSpec], actual: Mapping[str, GraphTensor]) -> list[str]:
    problems = [
        f"the graph has no {kind} {name!r}; it has: {', '.join(actual)}" for name in declared if name not in actual
    ]
    if kind == "input":
        problems += [f"the graph's input {name!r} is not in the recipe" for name in actual if name not in declared]
    return problems


def _compare(recipe: Recipe, where: str, spec: TensorSpec, actual: GraphTensor) -> list[str]:
    problems = []
    if actual.dtype != spec.dtype:
        problems.append(f"{where}: the recipe says {spec.dtype}, the graph {actual.dtype}")
    if actual.dims is None:
        return problems
    batched = recipe.max_batch_size > 0
    expected: tuple[int | str | None, ...] = (None, *spec.dims) if batched else spec.dims
    if batched and len(spec.dims) == len(actual.dims):
        problems.append(
            f"{where}: max_batch_size {recipe.max_batch_size} puts a batch dimension in front of {list(spec.dims)}, "
            f"and the graph has {list(actual.dims)} in all; set max_batch_size: 0, or leave the batch out of dims"
        )
        return problems
    if len(expected) != len(actual.dims):
        problems.append(
            f"{where}: the recipe says {list(spec.dims)}{' after the batch dimension' if batched else ''}, "
            f"the graph {list(actual.dims)}"
        )
        return problems
    if batched and isinstance(actual.dims[0], int):
        problems.append(
            f"{where}: max_batch_size is {recipe.max_batch_size}, but the graph's batch dimension is fixed at "
            f"{actual.dims[0]}; set max_batch_size: 0, or export it with a dynamic batch dimension"
        )
    for declared_dim, actual_dim in list(zip(expected, actual.dims, strict=True))[int(batched) :]:
        if isinstance(actual_dim, int) and isinstance(declared_dim, int) and declared_dim != actual_dim:
            problems.append(f"{where}: the recipe says {declared_dim}, the graph is fixed at {actual_dim}")
        elif isinstance(actual_dim, int) and isinstance(declared_dim, str):
            problems.append(f"{where}: the recipe says dynamic {declared_dim!r}, the graph is fixed at {actual_dim}")
    return problems


def declare_outputs(recipe: Recipe, path: Path) -> None:
    """Write into a graph what its recipe knows of its outputs' shapes and the graph does not say.

    NVIDIA's backend takes an output without a shape for a number, and refuses a size that the configuration has and the
    graph has not.

    Args:
        recipe: Agrees with the graph (:func:`check_against`).
        path: The ONNX file, which is written anew if anything is missing; weights beside it stay.
    """
    model = onnx.load(path, load_external_data=False)
    rows: tuple[int | str, ...] = ("batch",) if recipe.max_batch_size else ()
    changed = False
    for value in (*model.graph.input, *model.graph.output):
        spec = recipe.inputs.get(value.name) or recipe.outputs.get(value.name)
        if spec is None:
            continue
        dims, shape = (*rows, *spec.dims), value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            changed = True
            shape.SetInParent()
            for dim in dims:
                shape.dim.add(**({"dim_value": dim} if isinstance(dim, int) else {"dim_param": dim}))
        elif value.name in recipe.outputs:
            for dim, entry in zip(dims, shape.dim, strict=True):
                if isinstance(dim, int) and entry.dim_value != dim:
                    changed, entry.dim_value = True, dim
    if changed:
        onnx.save(model, path)


def session_options(threads: int) -> Any:
    """onnxruntime's options for a session in this process: quiet, and with so many threads inside one operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is an error is raised too
    options.intra_op_num_threads = threads
    return options


def _providers(device: str, *, tf32: bool) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    # The served configuration's own choice, for the same reason (docs/decisions/0005).
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": str(int(tf32))}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


@contextmanager
def _loadable(model: Path | onnx.ModelProto) -> Iterator[str | bytes]:
    """What onnxruntime opens: a file, or a model's bytes; a model over 2 GB as files, for as long as it opens."""
    if isinstance(model, Path):
        yield str(model)
    elif external_data.size_bytes(model) <= external_data.LARGEST_BYTES:
        yield model.SerializeToString()
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        with tempfile.TemporaryDirectory(prefix="tritonkit-") as directory:
            path = Path(directory) / "model.onnx"
            external_data.save(copy, path)
            yield str(path)


class Session:
    """onnxruntime on the CPU, for checks and benchmarks in this process.

    Args:
        model: An ONNX file, or a model in memory.
        threads: Threads inside one operator; 0 lets onnxruntime decide.
        optimize: False runs the graph node by node, as it is written.
        without: Names of onnxruntime's optimizers to leave out.
        device: ``cuda`` needs onnxruntime's GPU build, and never falls back to the CPU.
        tf32: Whether a GPU may multiply fp32 with TF32's mantissa.

    Raises:
        GraphError: onnxruntime cannot load the graph.
        MissingError: onnxruntime is not installed.
    """

    def __init__(
        self,
        model: Path | onnx.ModelProto,
        threads: int = 0,
        *,
        optimize: bool = True,
        device: str = "cpu",
        without: Sequence[str] = (),
        tf32: bool = True,
    ) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # on by default on Linux since onnxruntime 1.29
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingError("onnxruntime is not installed", 'pip install "tritonkit[cpu]"') from error
        options = session_options(threads)
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's libraries, where they come from Python packages
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        name = model if isinstance(model, Path) else "the graph"
        try:
            with _loadable(model) as loaded:
                self._session: Any = onnxruntime.InferenceSession(
                    loaded, options, providers=_providers(device, tf32=tf32), disabled_optimizers=list(without) or None
                )
        except Exception as error:
            raise GraphError(f"onnxruntime cannot load {name}: {_first_line(error)}", _advice(str(error))) from error
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise MissingError("onnxruntime's CUDA provider did not start", "`tritonkit doctor` says what is missing")
        self.output_names: list[str] = [value.name for value in self._session.get_outputs()]

    @staticmethod
    def has_cuda() -> bool:
        """Whether onnxruntime can use a GPU here."""
        import onnxruntime

        return Path("/dev/nvidiactl").exists() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for one batch.

        Raises:
            GraphError: The graph rejects these inputs.
        """
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:
            raise GraphError(
                f"onnxruntime cannot run the graph on {shapes_of(inputs)}: {_first_line(error)}",
                "check `dims` and `shapes` in the recipe, and let `samples` yield what the model expects: without it, "
                "checks run on noise, with 0 and 1 for integers",
            ) from error
        return dict(zip(self.output_names, values, strict=True))


def shapes_of(inputs: Mapping[str, Array]) -> str:
    """Inputs as a reader wants them in a message: ``image uint8[2, 224, 224, 3]``."""
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())


def _advice(words: str) -> str:
    """What to do about onnxruntime's refusal of a graph, by its own words (1.32)."""
    for sign, fix in _ADVICE.items():
        if re.search(sign, words):
            return fix
    return "export it again"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
