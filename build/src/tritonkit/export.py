"""PyTorch to ONNX: a module becomes a graph with the recipe's names, types and dynamic dimensions.

It checks what the module does with the declared inputs before the exporter sees it, so that a mistake in
the recipe is reported in the words of the recipe. Whether the graph computes the same is for :mod:`tritonkit.parity`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tritonkit import external_data, module_outputs, samples, sources
from tritonkit.errors import SourceError
from tritonkit.graph import shapes_of
from tritonkit.recipe import OutputSpec, Recipe

Array = NDArray[Any]

OPSET = 20  # the newest that every onnxruntime since 1.17 runs, and so every Triton image since 24.03
BATCH = "batch"


class Adapter(torch.nn.Module):
    """The user's module with the recipe's signature: tensors in the recipe's order, a tuple of tensors out.

    Inputs go in by keyword when ``forward`` has parameters of those names, else by position. Outputs are
    taken by key from a mapping, by position from a sequence.
    """

    def __init__(self, module: torch.nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.module = module
        self.input_names = list(recipe.inputs)
        self.output_names = list(recipe.outputs)
        self.where = str(recipe.path)
        parameters = inspect.signature(module.forward).parameters
        self.by_keyword = all(
            name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY
            for name in self.input_names
        )

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the module on the recipe's inputs, in their order."""
        if self.by_keyword:
            result = self.module(**dict(zip(self.input_names, tensors, strict=True)))
        else:
            result = self.module(*tensors)
        return self._outputs(result)

    def _outputs(self, result: Any) -> tuple[torch.Tensor, ...]:
        parts = module_outputs.by_name(result)
        if isinstance(result, Mapping):
            if missing := [name for name in self.output_names if name not in result]:
                raise SourceError(
                    f"{self.where}: the module returns no output {missing[0]!r}; it returns: {', '.join(result)}",
                    "name the outputs like the keys that the module returns",
                )
            return self._tensors(result, {name: result[name] for name in self.output_names})
        self._tensors(result, parts)
        if len(parts) != len(self.output_names):
            raise SourceError(
                f"{self.where}: the module returns {len(parts)} outputs, the recipe names "
                f"{len(self.output_names)}: {', '.join(self.output_names)}",
                "name every output of the module, in its order",
            )
        return tuple(parts.values())

    def _tensors(self, result: Any, parts: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        problems = [problem for name, value in parts.items() if (problem := module_outputs.problem(name, value))]
        if not parts:
            problems = [f"the module returns a {type(result).__name__}, which has no tensors"]
        if problems:
            raise SourceError(
                f"{self.where}: {'; '.join(problems)}",
                "name a function as the source that returns a wrapper, which returns tensors by name:\n\n"
                + module_outputs.wrapper(result, self.input_names, "load()  # what the source is now"),
            )
        return tuple(parts.values())


def reference(adapter: Adapter, recipe: Recipe, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the eager module gives for one batch.

    Raises:
        SourceError: The module rejects the declared inputs, or returns other outputs than declared.
    """
    try:
        with torch.no_grad():
            tensors = adapter(*(_tensor(inputs[name]) for name in recipe.inputs))
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{recipe.path}: the module's forward rejects the declared inputs ({shapes_of(inputs)}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            f"{sources.place(error)}",
            _rejection_fix(recipe),
        ) from error
    outputs = {}
    for (name, spec), tensor in zip(recipe.outputs.items(), tensors, strict=True):
        outputs[name] = _numpy(recipe, name, spec, tensor)
    return outputs


def _rejection_fix(recipe: Recipe) -> str:
    """How to correct inputs that a module rejects: their types and dims, or their values."""
    fix = "make dtype and dims (without the batch dimension) those that forward expects"
    if recipe.samples is None and any(np.issubdtype(spec.type.numpy, np.integer) for spec in recipe.inputs.values()):
        fix += (
            "; or, if it is the values (without samples integers are 0 and 1), name real inputs: "
            "`samples: file.py:function`"
        )
    if recipe.shapes:
        fix += (
            f"; samples are cut and repeated to each size of {', '.join(recipe.shapes)}: a length in an input of its "
            "own does not follow, a mask of the same dimension does"
        )
    return fix


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, order="C"))  # np.ascontiguousarray makes a number a row of one


def _numpy(recipe: Recipe, name: str, spec: OutputSpec, tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    rest = array.shape[1:] if recipe.max_batch_size else array.shape
    fits = len(rest) == len(spec.dims) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(spec.dims, rest, strict=True)
    )
    if array.dtype != spec.type.numpy or not fits:
        raise SourceError(
            f"{recipe.path}: output {name!r} is {array.dtype}{list(rest)}, the recipe says "
            f"{spec.dtype}{list(spec.dims)}" + (" (without the batch dimension)" if recipe.max_batch_size else ""),
            "correct dtype and dims of that output",
        )
    return array


FEW_STEPS = 5  # of a recurrent layer: more than a batch's example has rows, and no usual width


def to_onnx(adapter: Adapter, recipe: Recipe, dataset: Sequence[samples.Sample], path: Path) -> None:
    """Export with the dynamo exporter and write ``path``; weights go beside it only past 2 GB.

    Raises:
        SourceError: The module cannot be exported; the message has the exporter's reason.
    """
    if half_precision(adapter) == "bf16":
        raise SourceError(
            f"{recipe.path}: the module has weights of bf16, which onnxruntime does not compute with on a CPU, where "
            "graphs are checked",
            "return module.float() from the source's function; `precisions: [fp32, bf16]` in the recipe then builds "
            "bf16 as a variant, which is judged",
        )
    few_steps = any(isinstance(module, torch.nn.RNNBase) for module in adapter.modules())
    sizes = {name: _example_size(name, recipe, few_steps=few_steps) for name in recipe.shapes}
    example = samples.resized(dataset[0], recipe, sizes)
    if recipe.max_batch_size:
        example = samples.batch([samples.resized(s, recipe, sizes) for s in dataset], 2)  # 1 would specialise
    args = tuple(_tensor(example[name]) for name in recipe.inputs)
    try:
        program = _exported(adapter, args, recipe)
    except Exception as error:
        if not _use_eager_attention(adapter):
            raise _not_exported(recipe, error) from error
        try:
            program = _exported(adapter, args, recipe)
        except Exception as again:
            raise _not_exported(recipe, again) from again
    if few_steps:
        _free_sizes(program.model, recipe, sizes)
    _name_tensors(program.model, recipe)
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    program.save(str(path), external_data=weights > external_data.LARGEST_BYTES)


def _exported(adapter: Adapter, args: tuple[torch.Tensor, ...], recipe: Recipe) -> torch.onnx.ONNXProgram:
    with _quiet():
        program = torch.onnx.export(
            adapter, args, dynamo=True, opset_version=OPSET, dynamic_shapes=(_dynamic_shapes(recipe),),
            optimize=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program


def _not_exported(recipe: Recipe, error: Exception) -> SourceError:
    return SourceError(
        f"{recipe.path}: PyTorch cannot export the module: {_reason(error)}{sources.place(error)}",
        "data-dependent control flow and ops without an ONNX form must go (of packed sequences too: run the layer over "
        "the padding, and pool its states with a mask); `--debug` shows the whole report",
    )


def _use_eager_attention(adapter: Adapter) -> bool:
    """Let transformers' models compute attention step by step; whether any of them did otherwise.

    PyTorch cannot export its fused attention for every layout of heads (T5's), and its steps for all.
    """
    changed = False
    for module in adapter.modules():
        model: Any = module
        if sources.is_transformers(model) and model.config._attn_implementation not in {None, "eager"}:
            model.set_attn_implementation("eager")
            changed = True
    return changed


def half_precision(module: torch.nn.Module) -> str:
    """The half precision that a module has weights of: ``fp16``, ``bf16`` or empty."""
    kinds = {parameter.dtype for parameter in (*module.parameters(), *module.buffers())}
    return "bf16" if torch.bfloat16 in kinds else "fp16" if torch.float16 in kinds else ""


def _example_size(name: str, recipe: Recipe, *, few_steps: bool) -> int:
    """Near ``opt``, but not 1: the exporter takes a size of 1 for a constant.

    A module with recurrent layers gets a short sequence: PyTorch traces every step of it, for a second or more each,
    before the graph has one node for all of them.
    """
    bounds = recipe.shapes[name]
    size = max(bounds.min, FEW_STEPS) if few_steps else bounds.opt
    return min(max(min(size, bounds.opt), 2), bounds.max)


def _dynamic_shapes(recipe: Recipe) -> tuple[dict[int, Any], ...]:
    dims: dict[str, Any] = {
        name: torch.export.Dim(name, min=bounds.min, max=bounds.max)
        for name, bounds in recipe.shapes.items()
        if bounds.min < bounds.max
    }
    batch = {0: torch.export.Dim(BATCH, min=1)} if recipe.max_batch_size else {}
    first = len(batch)
    return tuple(
        batch | {first + axis: dims[dim] for axis, dim in enumerate(spec.dims) if isinstance(dim, str) and dim in dims}
        for spec in recipe.inputs.values()
    )


def _free_sizes(model: Any, recipe: Recipe, sizes: Mapping[str, int]) -> None:
    """Let the dimensions of a recurrent layer's answers move.

    PyTorch traces the layer step by step, and so records the example's number of steps as a shape, also where the
    graph has one node for all of them and answers with as many as it is given. Where it does hold a number of steps,
    the comparison with the module at both ends of the range shows it.
    """
    moving = {name: size for name, size in sizes.items() if recipe.shapes[name].min < recipe.shapes[name].max}
    batch = (None,) * (recipe.max_batch_size > 0)
    for value, spec in zip(model.graph.outputs, recipe.outputs.values(), strict=True):
        dims = (*batch, *spec.dims)
        if value.shape is not None and len(value.shape) == len(dims):
            recorded = zip(value.shape, dims, strict=True)
            value.shape = type(value.shape)([dim if moving.get(str(dim)) == size else size for size, dim in recorded])
    for node in model.graph:
        for value in node.outputs:
            inner = all(value is not output for output in model.graph.outputs)
            if inner and value.shape is not None and not set(moving.values()).isdisjoint(value.shape):
                value.shape = None


def _name_tensors(model: Any, recipe: Recipe) -> None:
    """Give inputs and outputs the recipe's names, moving any inner value that has one of them out of the way."""
    graph = model.graph
    names = [*recipe.inputs, *recipe.outputs]
    edge = [*graph.inputs, *graph.outputs]
    for node in graph:
        for value in node.outputs:
            if value.name in names and not any(value is other for other in edge):
                value.name = f"{value.name}__inner"
    for name in [name for name in graph.initializers if name in names]:
        value = graph.initializers.pop(name)
        value.name = f"{name}__weight"
        graph.initializers[value.name] = value
    for index, value in enumerate(edge):
        value.name = f"__tritonkit_{index}"  # two steps, as the recipe may swap names
    for value, name in zip(edge, names, strict=True):
        value.name = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns about its own insides; none of it is for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: the exporter wraps it in pages of its own report."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
