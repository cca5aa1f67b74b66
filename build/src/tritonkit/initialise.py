"""Writes a first recipe by looking at a model: names, dtypes, and which dimensions move.

The recipe is meant to build as it is; its comments say what to check and what else it may say.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit import dtypes, onnx_tensors, probing, sources
from tritonkit.errors import InputError, SourceError
from tritonkit.probing import Dims
from tritonkit.recipe import HfSource, Recipe

MAX_BATCH_SIZE = 16
# A dimension that moves gets this range until its user knows better; a batch that cannot be batched gets few.
RANGE = "{min: 1, opt: 64, max: 256}"
FEW = "{min: 1, opt: 1, max: 16}"
LONGEST = 512  # tokens, for a model that takes more: attention's cost grows with their square
_WEIGHTS = {".pt", ".pth", ".safetensors", ".ckpt"}
_MODEL_FILES = {".py", ".onnx", ".ubj", ".json", ".txt", ".model", ".tl", *_WEIGHTS}
# Functions that are called so in every file, whichever model they make.
_FUNCTIONS_OF_ANY_MODEL = {
    f"{verb}{noun}" for verb in ("load", "build", "create", "get", "make") for noun in ("", "_model", "_module", "_net")
} | {"model", "module", "net", "main", "train", "fit"}


@dataclass(frozen=True)
class Sketch:
    """What is known about a model, for its first recipe.

    Attributes:
        name: A model name made from the source's.
        source: The recipe's ``source`` value, as YAML.
        inputs: Name to (dtype, dims without batch).
        outputs: Likewise.
        max_batch_size: The largest batch; 0 if the first dimension is not a batch.
        notes: Lines for the user, on what could only be guessed.
        ranges: Dimension to its range as YAML, where it is not ``RANGE``.
    """

    name: str
    source: str
    inputs: Mapping[str, tuple[str, Dims]]
    outputs: Mapping[str, tuple[str, Dims]]
    max_batch_size: int
    notes: tuple[str, ...] = ()
    ranges: Mapping[str, str] = field(default_factory=dict)


def sketch(
    model: str,
    directory: Path,
    shapes: Mapping[str, tuple[str, Dims]] | None = None,
    max_batch_size: int = MAX_BATCH_SIZE,
) -> Sketch:
    """Look at a model.

    Args:
        model: ``model.onnx``, ``package.module:function``, ``file.py:function`` or a Hugging Face directory.
        directory: Where the recipe will lie; relative paths are written relative to it.
        shapes: Inputs of a module (name to dtype and dims without batch), which cannot be seen in it; or inputs of a
            graph that are to be narrower than the graph has them.
        max_batch_size: The largest batch. With 0, dims have everything, and requests are never batched.

    Raises:
        InputError: The model is none of these, or does not say enough about itself.
    """
    path = Path(model)
    if path.suffix == ".onnx":
        return _from_graph(path, directory, shapes or {}, max_batch_size)
    if path.is_dir():
        return _from_hf(path, directory, shapes or {}, max_batch_size)
    if ":" in model:
        return _from_module(model, directory, shapes or {}, max_batch_size)
    raise InputError(
        f"{model} is no .onnx file, no directory, and not of the form module:function",
        "check the path, or write package.module:function",
    )


def check_file(model: str) -> None:
    """Refuse a file that is not there, or that has no model in it, in the words of somebody who has no recipe yet.

    Raises:
        InputError: The model cannot be used; the message names the file that was probably meant.
    """
    file, _, function = model.rpartition(":")
    path = Path(file if file and function.isidentifier() else model)
    names_function = str(path) != model
    if path.suffix in _MODEL_FILES and not path.exists():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob(f"*{path.suffix}")], n=1)
        suggestion = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise InputError(
            f"there is no file {path}{suggestion}", "check the path; it starts from the folder this runs in"
        )
    if path.suffix in _WEIGHTS and not names_function and not path.is_dir():
        raise InputError(
            f"{path} has weights, and no code that computes with them",
            "write a function that makes the module and loads them, and name it:  tritonkit init my_model.py:load "
            "--input NAME:DTYPE:DIMS",
        )
    if path.suffix == ".py" and not names_function:
        raise InputError(f"{path} may have several functions", f"name one:  tritonkit init {path}:load")
    if names_function and path.is_file() and path.suffix != ".py":
        raise InputError(f"{path} is no Python file", "name a file that ends in .py, or package.module:function")


def _from_graph(path: Path, directory: Path, shapes: Mapping[str, tuple[str, Dims]], max_batch_size: int) -> Sketch:
    tensors = onnx_tensors.describe(path, shapes, batched=max_batch_size > 0)
    source = f"{{onnx: {relative(path, directory)}}}"
    return Sketch(
        model_name(path.stem if path.stem != "model" else _normal(path).parent.name),
        source, tensors.inputs, tensors.outputs, max_batch_size if tensors.batched else 0, tensors.notes,
        ranges=dict.fromkeys(tensors.batch_dims, FEW),
    )  # fmt: skip


def _from_hf(path: Path, directory: Path, shapes: Mapping[str, tuple[str, Dims]], max_batch_size: int) -> Sketch:
    from tritonkit import hf

    recipe = Recipe.model_construct(
        path=directory / "recipe.yaml", source=HfSource(hf=str(path.resolve())), max_batch_size=max_batch_size
    )
    module = sources.load_module(recipe, str(path))
    load = f"transformers.{type(module).__name__}.from_pretrained({str(path.resolve())!r}, dtype=torch.float32)"
    origin = _Origin(str(path), load, path.resolve())
    precision = hf.checkpoint_precision(path)
    notes = []
    if precision:
        notes.append(
            f"The checkpoint is {precision}. It is loaded as fp32, which everything is compared with; "
            f"`precisions: [fp32, {precision}]` builds that variant."
        )
    name = model_name(_normal(path).name)
    return _of_module(origin, module, f"{{hf: {relative(path, directory)}}}", name, shapes, max_batch_size, notes)


def _from_module(model: str, directory: Path, shapes: Mapping[str, tuple[str, Dims]], max_batch_size: int) -> Sketch:
    source = reference(model, directory)
    recipe = Recipe.model_construct(path=directory / "recipe.yaml", source=source, max_batch_size=max_batch_size)
    module = sources.load_module(recipe, model)
    origin = _Origin(model, f"{source.rpartition(':')[2]}()", None)
    if not shapes and not sources.is_transformers(module):
        parameters = _parameters(module)
        example = " ".join(f"--input {name}:fp32:3,224,224" for name in parameters or ["x"])
        raise InputError(
            f"{model}: a module does not say what it takes; its forward has: {', '.join(parameters) or '*args'}",
            f"say it:  tritonkit init {model} {example}",
        )
    return _of_module(origin, module, source, name_of_reference(source), shapes, max_batch_size, [])


def _of_module(
    origin: _Origin,
    module: typing.Any,
    source: str,
    name: str,
    shapes: Mapping[str, tuple[str, Dims]],
    max_batch_size: int,
    notes: Sequence[str],
) -> Sketch:
    """A module's sketch; what it takes is found where transformers knows it, and what it returns by running it."""
    ranges: dict[str, str] = {}
    most = None
    if not shapes:
        from tritonkit import hf

        shapes, guesses = hf.inputs_of(module, origin.directory)
        most = hf.most_tokens(module, origin.directory)
        notes = [*notes, *guesses]
        if most:
            notes = [*notes, f"The model takes up to {most} tokens."]
            longest = min(most, LONGEST)
            ranges[hf.TOKENS] = f"{{min: 1, opt: {min(64, longest)}, max: {longest}}}"
    outputs, more = _run(origin, module, shapes, most, batched=max_batch_size > 0)
    return Sketch(name, source, shapes, outputs, max_batch_size, (*notes, *more), ranges)


def _parameters(module: typing.Any) -> list[str]:
    """The parameters that ``forward`` requires; if it requires none, the first optional one."""
    named = {
        name: parameter
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if not parameter.kind.name.startswith("VAR_")
    }
    needed = [name for name, parameter in named.items() if parameter.default is inspect.Parameter.empty]
    return needed or list(named)[:1]


def name_of_reference(reference: str) -> str:
    """A name for a module's model: its function's, or its file's where the function is called as in any file."""
    place, _, function = reference.rpartition(":")
    stem = re.split(r"[./]", place.removesuffix(".py"))[-1]
    return model_name(stem if function.lower() in _FUNCTIONS_OF_ANY_MODEL else function)


@dataclass(frozen=True)
class _Origin:
    """Where a module came from.

    Attributes:
        model: What the user named.
        load: A Python expression that makes the module.
        directory: Its Hugging Face directory, if it has one.
    """

    model: str
    load: str
    directory: Path | None


def _run(
    origin: _Origin, module: typing.Any, inputs: Mapping[str, tuple[str, Dims]], most: int | None, *, batched: bool
) -> tuple[dict[str, tuple[str, Dims]], tuple[str, ...]]:
    """Names, dtypes and dims of a module's outputs, found by running it at several sizes, and notes."""
    import torch

    from tritonkit import module_outputs

    results: dict[int, typing.Any] = {}  # the last result of each batch, for the wrapper of one that is no tensors

    def run(batch: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        tensors = {
            name: torch.ones((batch,) * batched + tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims),
                             dtype=getattr(torch, _TORCH.get(dtype, dtype)))
            for name, (dtype, dims) in inputs.items()
        }  # fmt: skip
        with torch.no_grad():
            by_keyword = all(name in inspect.signature(module.forward).parameters for name in tensors)
            results[batch] = module(**tensors) if by_keyword else module(*tensors.values())
        parts = module_outputs.by_name(results[batch])
        return {name: tuple(value.shape) for name, value in parts.items() if isinstance(value, torch.Tensor)}

    names = list(dict.fromkeys(dim for _, dims in inputs.values() for dim in dims if isinstance(dim, str)))
    try:
        output_dims = probing.output_dims(run, names, batched=batched, most=most)
    except Exception as error:
        raise _rejected(origin, inputs, error, _parameters(module), batched=batched) from error
    parts = module_outputs.by_name(results[probing.BATCHES[0]])
    problems = {name: module_outputs.problem(name, value) for name, value in parts.items()}
    problems |= {name: dims.why for name, dims in output_dims.items() if isinstance(dims, probing.NoBatch)}
    problems = {name: why for name, why in problems.items() if why} or ({} if parts else {"": "it returns no tensors"})
    kept = [name for name in parts if name not in problems]
    if problems and (not kept or not isinstance(results[probing.BATCHES[0]], Mapping)):
        batch = probing.BATCHES[1]
        code = module_outputs.wrapper(results.get(batch), list(inputs), origin.load, batch if batched else None)
        raise SourceError(f"{origin.model}: {'; '.join(problems.values())}", _wrapped(origin, inputs, code))
    outputs = {
        name: (str(module_outputs.dtype_of(parts[name])), typing.cast("Dims", output_dims[name])) for name in kept
    }
    notes = [f"Left out: {why}." for why in problems.values()]
    notes += ["`output` is a name of ours: call it what it is."] if kept == ["output"] else []
    return outputs, tuple(notes)


def _wrapped(origin: _Origin, inputs: Mapping[str, tuple[str, Dims]], code: str) -> str:
    """How to go on with a module whose outputs are no tensors."""
    arguments = " ".join(f"--input {as_argument(name, dtype, dims)}" for name, (dtype, dims) in inputs.items())
    file, _, _ = origin.model.rpartition(":")
    place, note = (file, "in it") if file.endswith(".py") else ("wrapper.py", "in wrapper.py, with its imports")
    return f"return tensors by name, from a wrapper {note}, then  tritonkit init {place}:flat {arguments}\n\n{code}"


def _rejected(
    origin: _Origin,
    inputs: Mapping[str, tuple[str, Dims]],
    error: Exception,
    parameters: Sequence[str],
    *,
    batched: bool,
) -> SourceError:
    given = ", ".join(f"{name} {dtype}{list(dims)}" for name, (dtype, dims) in inputs.items())
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    beside = " (with a batch of 2)" if batched else ""
    if origin.directory is None:
        fix = "correct --input: name:dtype:dims, " + (
            "dims without the batch dimension" if batched else "dims with all dimensions"
        )
        if len(inputs) < len(parameters):
            fix = f"say an --input for each of {', '.join(parameters)}; or {fix}"
    else:
        fix = (
            "load it in a function of yours, in a module that takes what can be sent, and say what that is: "
            "`tritonkit init FILE.py:load --input NAME:DTYPE:DIMS`"
        )
    return SourceError(f"{origin.model}: its forward rejects {given}{beside}: {reason}", fix)


_TORCH = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def as_argument(name: str, dtype: str, dims: Dims) -> str:
    """An input as ``--input`` takes it."""
    return f"{name}:{dtype}:{','.join(map(str, dims))}"


def parse_input(text: str) -> tuple[str, tuple[str, Dims]]:
    """``image:uint8:224,224,3`` → name, dtype and dims.

    Raises:
        InputError: The text is not of that form.
    """
    name, dtype, dims = ([*text.rsplit(":", 2), "", ""])[:3]
    sizes = [dim.strip() for dim in dims.split(",") if dim.strip()]
    wrong = [
        dim for dim in sizes if not (dim.isdigit() and int(dim)) and not re.fullmatch(r"[A-Za-z_]\w*", dim, re.ASCII)
    ]
    if not name or dtype not in dtypes.BY_NAME or wrong:
        raise InputError(
            f"--input {text}: " + (f"{wrong[0]!r} is no dimension" if wrong else "this is not name:dtype:dims"),
            "for example image:uint8:224,224,3, or ids:int64:sequence where a dimension moves, or gain:fp32: for a "
            f"number; dtypes are {', '.join(dtypes.BY_NAME)}",
        )
    return name, (dtype, tuple(int(dim) if dim.isdigit() else dim for dim in sizes))


def as_yaml(draft: Sketch) -> str:
    """The recipe as text, with comments."""
    lines = [
        "# Build it with: tritonkit build THIS_FILE",
        "# What goes in and comes out is said without its batch dimension." if draft.max_batch_size else "",
        *(f"# {note}" for note in draft.notes),
        f"name: {draft.name}",
        f"source: {draft.source}",
        "inputs:",
        *_tensor_lines(draft.inputs),
        "outputs:   # rename them if you like: they are in the order in which the module returns them"
        if all(name.startswith("output_") for name in draft.outputs)
        else "outputs:",
        *_tensor_lines(draft.outputs),
    ]
    moving = dict.fromkeys(dim for _, dims in draft.inputs.values() for dim in dims if isinstance(dim, str))
    if moving:
        lines.append("shapes:   # what each moving dimension may be; `opt` is the size to be fast at")
        lines += [f"  {_quoted(dim)}: {draft.ranges.get(dim, RANGE)}" for dim in moving]
    lines.append(
        f"max_batch_size: {draft.max_batch_size}   # the largest batch that Triton makes of waiting requests"
        if draft.max_batch_size
        else "max_batch_size: 0   # requests carry the whole shape"
    )
    lines += [
        "# samples: my_module:function   # yields real inputs; without it, checks run on noise (0 and 1 for integers)",
        "# tolerance: 0.0001             # largest difference from the module, over the output's largest value",
        "# batching: {max_queue_delay_us: 1000, instances: 2}   # the target cpu's defaults",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _tensor_lines(tensors: Mapping[str, tuple[str, Dims]]) -> list[str]:
    return [
        f"  {_quoted(name)}: {{dtype: {dtype}, dims: [{', '.join(map(_quoted, dims))}]}}"
        for name, (dtype, dims) in tensors.items()
    ]


def _quoted(name: str | int) -> str:
    """A name as YAML reads it back: without quotes only where no version of YAML takes it for something else."""
    plain = isinstance(name, int) or (
        re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        and name.lower() not in {"y", "n", "on", "off", "yes", "no", "true", "false", "null"}
    )
    return str(name) if plain else json.dumps(name)


def model_name(text: str) -> str:
    """A model's name for Triton, made of any text."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower() or "model"


def relative(path: Path, directory: Path) -> str:
    """A path as a recipe in ``directory`` names it: relative where it lies below, else absolute."""
    place = _normal(path)
    try:
        return str(place.relative_to(_normal(directory)))
    except ValueError:
        return str(place)


def _normal(path: Path) -> Path:
    """An absolute path with its links left in: beside what a link points to, a graph's weights may have other names."""
    return Path(os.path.normpath(path.absolute()))


def reference(model: str, directory: Path) -> str:
    """A function as a recipe in ``directory`` names it."""
    file, _, function = model.rpartition(":")
    return f"{relative(Path(file), directory)}:{function}" if file.endswith(".py") else model
