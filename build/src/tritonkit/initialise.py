"""Writes a first recipe by looking at a model: names, dtypes, and which dimensions move.

The recipe is meant to build as it is; its comments say what to check and what else it may say.
"""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonkit import dtypes, graph, sources
from tritonkit.errors import InputError, SourceError
from tritonkit.recipe import HfSource, Recipe

# A dimension that moves gets this range until its user knows better.
RANGE = "{min: 1, opt: 64, max: 256}"
# Functions that are called so in every file, whichever model they make.
_FUNCTIONS_OF_ANY_MODEL = {
    f"{verb}{noun}" for verb in ("load", "build", "create", "get", "make") for noun in ("", "_model", "_module", "_net")
} | {"model", "module", "net", "main"}
_HF_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Sketch:
    """What was found out about a model.

    Attributes:
        name: A model name made from the source's.
        source: The recipe's ``source`` value, as YAML.
        inputs: Name to (dtype, dims without batch).
        outputs: Likewise.
        batched: Whether the first dimension is a batch.
        notes: Lines for the user, on what could only be guessed.
    """

    name: str
    source: str
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    batched: bool
    notes: tuple[str, ...] = ()


def sketch(
    model: str, directory: Path, shapes: Mapping[str, tuple[str, tuple[int | str, ...]]] | None = None
) -> Sketch:
    """Look at a model.

    Args:
        model: ``model.onnx``, ``package.module:function``, ``file.py:function`` or a Hugging Face directory.
        directory: Where the recipe will lie; relative paths are written relative to it.
        shapes: Inputs of a module (name to dtype and dims without batch), which cannot be seen in it.

    Raises:
        InputError: The model is none of these, or does not say enough about itself.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        return _from_graph(path, directory)
    if path.is_dir():
        return _from_hf(path, directory)
    if ":" in model:
        return _from_module(model, directory, shapes)
    raise InputError(
        f"{model} is no .onnx file, no directory, and not of the form module:function",
        "check the path, or write package.module:function",
    )


def _from_graph(path: Path, directory: Path) -> Sketch:
    signature = graph.read_signature(path)
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    batched = all(tensor.dims and not isinstance(tensor.dims[0], int) for tensor in tensors)
    notes = () if batched else ("The graph's first dimension is fixed, so requests cannot be batched.",)
    taken: dict[str, str] = {}

    def describe(tensor: graph.GraphTensor) -> tuple[str, tuple[int | str, ...]]:
        if tensor.dims is None:
            raise InputError(f"{path}: {tensor.name!r} has no shape in the graph", "export it with shapes")
        return tensor.dtype, tuple(
            dim if isinstance(dim, int) else _dim_name(dim or f"{tensor.name}_{axis}", taken)
            for axis, dim in enumerate(tensor.dims)
        )[int(batched) :]

    inputs = {tensor.name: describe(tensor) for tensor in signature.inputs.values()}
    outputs = {tensor.name: describe(tensor) for tensor in signature.outputs.values()}
    source = f"{{onnx: {_relative(path, directory)}}}"
    return Sketch(_model_name(path.stem if path.stem != "model" else _normal(path).parent.name),
                  source, inputs, outputs, batched, notes)  # fmt: skip


def _from_hf(path: Path, directory: Path) -> Sketch:
    recipe = Recipe.model_construct(
        path=directory / "recipe.yaml", source=HfSource(hf=str(path.resolve())), max_batch_size=16
    )
    module = sources.load_module(recipe)
    names = [name for name in inspect.signature(module.forward).parameters if name in _HF_INPUTS[:2]]
    if not names:
        raise InputError(
            f"{path}: its forward takes none of {', '.join(_HF_INPUTS[:2])}",
            "write a function that returns the module, and run `tritonkit init module:function --input …`",
        )
    inputs = dict.fromkeys(names, ("int64", ("sequence",)))
    outputs, notes = _run(module, inputs)
    notes = ("Token ids other than 0 and 1 are only tried with `samples`: name a function that yields real ones.",
             *notes)  # fmt: skip
    name = _normal(path).name
    return Sketch(_model_name(name), f"{{hf: {_relative(path, directory)}}}", inputs, outputs, True, notes)


def _from_module(model: str, directory: Path, shapes: Mapping[str, tuple[str, tuple[int | str, ...]]] | None) -> Sketch:
    reference = _reference(model, directory)
    recipe = Recipe.model_construct(path=directory / "recipe.yaml", source=reference, max_batch_size=16)
    module = sources.load_module(recipe)
    parameters = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind.name != "VAR_POSITIONAL"
    ]
    if not shapes:
        example = " ".join(f"--input {name}:fp32:3,224,224" for name in parameters or ["x"])
        raise InputError(
            f"{model}: a module does not say what it takes; its forward has: {', '.join(parameters) or '*args'}",
            f"say it:  tritonkit init {model} {example}",
        )
    outputs, notes = _run(module, shapes)
    return Sketch(_name_of_reference(reference), reference, shapes, outputs, True, notes)


def _name_of_reference(reference: str) -> str:
    """What a module's model is called: its function, as a file may hold several; the file where that says nothing."""
    place, _, function = reference.rpartition(":")
    stem = re.split(r"[./]", place.removesuffix(".py"))[-1]
    return _model_name(stem if function.lower() in _FUNCTIONS_OF_ANY_MODEL else function)


def _run(
    module: typing.Any, inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
) -> tuple[dict[str, tuple[str, tuple[int | str, ...]]], tuple[str, ...]]:
    """Names, dtypes and dims of a module's outputs, found by running it at two sizes of what moves."""
    import torch

    def call(size: int) -> dict[str, typing.Any]:
        tensors = {
            name: torch.ones((2, *(size if isinstance(d, str) else d for d in dims)),
                             dtype=getattr(torch, _TORCH.get(dtype, dtype)))
            for name, (dtype, dims) in inputs.items()
        }  # fmt: skip
        parameters = inspect.signature(module.forward).parameters
        with torch.no_grad():
            by_name = all(name in parameters for name in tensors)
            result = module(**tensors) if by_name else module(*tensors.values())
        if isinstance(result, torch.Tensor):
            return {"output": result}
        if isinstance(result, Mapping):
            return {name: value for name, value in result.items() if isinstance(value, torch.Tensor)}
        return {f"output_{index}": value for index, value in enumerate(result)}

    try:
        small, large = call(8), call(12)
    except Exception as error:
        given = ", ".join(f"{name} {dtype}{list(dims)}" for name, (dtype, dims) in inputs.items())
        raise SourceError(
            f"the module's forward rejects {given} (with a batch of 2): {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}",
            "correct --input: name:dtype:dims, dims without the batch dimension",
        ) from error
    moving = next((d for _, dims in inputs.values() for d in dims if isinstance(d, str)), None)
    outputs = {}
    for name, value in small.items():
        dims = tuple(
            a if a == b else str(moving) if a == 8 else f"{name}_{axis}"
            for axis, (a, b) in enumerate(zip(value.shape[1:], large[name].shape[1:], strict=True))
        )
        outputs[name] = (_dtype_of(str(value.dtype)), dims)
    notes = () if list(outputs) != ["output"] else ("`output` is a name of ours: call it what it is.",)
    return outputs, notes


_TORCH = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def _dtype_of(torch_name: str) -> str:
    name = torch_name.removeprefix("torch.")
    return {value: key for key, value in _TORCH.items()}.get(name, name)


def parse_input(text: str) -> tuple[str, tuple[str, tuple[int | str, ...]]]:
    """``image:uint8:224,224,3`` → name, dtype and dims.

    Raises:
        InputError: It is not of that form.
    """
    parts = text.split(":")
    if len(parts) != 3 or parts[1] not in dtypes.BY_NAME:
        raise InputError(
            f"--input {text}: expected name:dtype:dims, for example image:uint8:224,224,3 or ids:int64:sequence",
            f"dtypes are {', '.join(dtypes.BY_NAME)}; dims have no batch dimension",
        )
    dims = tuple(int(dim) if dim.isdigit() else dim for dim in parts[2].split(",") if dim)
    return parts[0], (parts[1], dims)


def as_yaml(found: Sketch) -> str:
    """The recipe as text, with comments."""
    lines = [
        "# What goes in and comes out has no batch dimension. Build it with: tritonkit build THIS_FILE",
        *(f"# {note}" for note in found.notes),
        f"name: {found.name}",
        f"source: {found.source}",
        "inputs:",
        *_tensor_lines(found.inputs),
        "outputs:",
        *_tensor_lines(found.outputs),
    ]
    names = {dim for _, dims in [*found.inputs.values(), *found.outputs.values()] for dim in dims}
    if moving := sorted(dim for dim in names if isinstance(dim, str)):
        lines.append("shapes:   # what each moving dimension may be; `opt` is the size to be fast at")
        lines += [f"  {dim}: {RANGE}" for dim in moving]
    lines.append(
        "max_batch_size: 16   # the largest batch that Triton makes of waiting requests"
        if found.batched
        else "max_batch_size: 0   # requests carry the whole shape"
    )
    lines += [
        "# samples: my_module:function   # yields real inputs; without it, checks run on noise (0 and 1 for integers)",
        "# tolerance: 0.0001             # largest difference from the module, over the output's largest value",
        "# batching: {max_queue_delay_us: 1000, instances: 1}",
    ]
    return "\n".join(lines) + "\n"


def _tensor_lines(tensors: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> list[str]:
    return [
        f"  {_quoted(name)}: {{dtype: {dtype}, dims: [{', '.join(map(str, dims))}]}}"
        for name, (dtype, dims) in tensors.items()
    ]


def _quoted(name: str) -> str:
    return (
        name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in {"y", "n", "on", "off"} else f'"{name}"'
    )


def _dim_name(text: str, taken: dict[str, str]) -> str:
    """A dimension's symbol as an identifier; equal symbols stay equal."""
    return taken.setdefault(text, re.sub(r"\W+", "_", text).strip("_") or "dim")


def _model_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower() or "model"


def _relative(path: Path, directory: Path) -> str:
    place = _normal(path)
    try:
        return str(place.relative_to(_normal(directory)))
    except ValueError:
        return str(place)


def _normal(path: Path) -> Path:
    """An absolute path with its links left in: beside what a link points to, a graph's weights may have other names."""
    return Path(os.path.normpath(path.absolute()))


def _reference(model: str, directory: Path) -> str:
    file, _, function = model.rpartition(":")
    return f"{_relative(Path(file), directory)}:{function}" if file.endswith(".py") else model
