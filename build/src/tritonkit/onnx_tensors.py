"""A graph's inputs and outputs in a recipe's words: names of dimensions, and whether the first one is a batch.

What the graph does not say is found by running it on noise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonkit import graph, probing
from tritonkit.dtypes import BY_NAME
from tritonkit.errors import InputError, TritonkitError
from tritonkit.graph import GraphTensor, Signature
from tritonkit.parity import distance
from tritonkit.probing import Dims

BATCH = "batch"
MIXED = 1e-2  # as the largest tolerance of the check "alone" (tritonkit.parity)
Tensors = dict[str, tuple[str, Dims]]


@dataclass(frozen=True)
class Described:
    """A graph's tensors.

    Attributes:
        inputs: Name to dtype and dims, without the batch dimension where there is one.
        outputs: Likewise.
        batched: Whether requests can be batched.
        notes: What the user should know.
        batch_dims: Names of dimensions that are a batch, in a graph that is not to be batched.
    """

    inputs: Tensors
    outputs: Tensors
    batched: bool
    notes: tuple[str, ...]
    batch_dims: tuple[str, ...] = ()


def describe(path: Path, shapes: Mapping[str, tuple[str, Dims]], *, batched: bool) -> Described:
    """Look at a graph.

    Args:
        path: The ONNX file.
        shapes: Inputs that are to be narrower than the graph has them: name to dtype and dims without batch.
        batched: False leaves the first dimension in dims even where it is a batch.

    Raises:
        InputError: ``shapes`` contradicts the graph, or the graph does not say how many dimensions an input has.
        GraphError: The file is no graph that Triton serves.
    """
    signature = graph.read_signature(path)
    _check_shapes(path, signature, shapes)
    names: dict[str, str] = {}
    inputs = {name: _named(tensor, names) for name, tensor in signature.inputs.items() if tensor.dims is not None}
    outputs = {name: _named(tensor, names) for name, tensor in signature.outputs.items() if tensor.dims is not None}
    fixed = _why_not_batched(signature)
    reason, leading = fixed, _leading(signature)
    if batched and not fixed and (len(leading) != 1 or len(outputs) < len(signature.outputs)):
        reason, probed = _probe_batch(path, signature, _narrowed(inputs, shapes, batched=True), leading)
        unknown = {name for name, tensor in signature.outputs.items() if tensor.dims is None or None in tensor.dims}
        outputs |= {name: described for name, described in probed.items() if name in unknown}
    requested, batched = batched, batched and not reason
    inputs = _narrowed(inputs, shapes, batched=batched)
    if missing := [name for name in signature.outputs if name not in outputs]:
        outputs |= _probed(path, signature, inputs, missing)
    outputs = {name: outputs[name] for name in signature.outputs}
    if batched:
        return Described(_rows_of(inputs), _rows_of(outputs), True, ())
    notes = (f"Requests cannot be batched: {reason}.",) if requested else ()
    batches = {dims[0] for _, dims in inputs.values() if dims and isinstance(dims[0], str)} if not fixed else set()
    return Described(inputs, outputs, False, notes, tuple(sorted(map(str, batches))))


def _check_shapes(path: Path, signature: Signature, shapes: Mapping[str, tuple[str, Dims]]) -> None:
    for name, (dtype, _) in shapes.items():
        if name not in signature.inputs:
            raise InputError(
                f"--input {name}: {path} has no such input", f"its inputs are {', '.join(signature.inputs)}"
            )
        if dtype != signature.inputs[name].dtype:
            raise InputError(
                f"--input {name}:{dtype}: {path} takes {signature.inputs[name].dtype}",
                f"say {name}:{signature.inputs[name].dtype}:DIMS",
            )
    for name, tensor in signature.inputs.items():
        if tensor.dims is None and name not in shapes:
            raise InputError(
                f"{path}: the input {name!r} has no shape in the graph",
                f"say it:  tritonkit init {path} --input {name}:{tensor.dtype}:DIMS  (3,224,224 for example)",
            )


def _why_not_batched(signature: Signature) -> str:
    """Why the signature forbids batches, as the end of a sentence; empty if it does not."""
    for tensor in (*signature.inputs.values(), *signature.outputs.values()):
        if tensor.dims is None:
            continue
        if not tensor.dims:
            return f"{tensor.name!r} is a number by itself, one for the whole request"
        if isinstance(tensor.dims[0], int):
            return f"the first dimension of {tensor.name!r} is fixed at {tensor.dims[0]}"
    return ""


def _leading(signature: Signature) -> set[str | None]:
    """The names of all first dimensions; one name is a batch."""
    tensors = (*signature.inputs.values(), *signature.outputs.values())
    return {dim if isinstance(dim, str) else None for dim in (t.dims[0] if t.dims else None for t in tensors)} or {None}


def _named(tensor: GraphTensor, names: dict[str, str]) -> tuple[str, Dims]:
    assert tensor.dims is not None
    return tensor.dtype, tuple(
        dim if isinstance(dim, int) else _dim_name(dim or f"{tensor.name}_{axis}", names)
        for axis, dim in enumerate(tensor.dims)
    )


def _dim_name(text: str, names: dict[str, str]) -> str:
    """A dimension's symbol as an identifier: equal symbols stay equal, and others different."""
    if text not in names:
        name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "dim"
        name = f"dim_{name}" if name[0].isdigit() else name
        while name in names.values():
            name += "_"
        names[text] = name
    return names[text]


def _narrowed(inputs: Tensors, shapes: Mapping[str, tuple[str, Dims]], *, batched: bool) -> Tensors:
    """Inputs as the user narrowed them; the first dimension of all is called alike where it is a batch."""
    if not batched:
        return inputs | dict(shapes)
    rows = {name: (dtype, (BATCH, *dims[1:])) for name, (dtype, dims) in inputs.items()}
    return rows | {name: (dtype, (BATCH, *dims)) for name, (dtype, dims) in shapes.items()}


def _rows_of(tensors: Tensors) -> Tensors:
    return {name: (dtype, dims[1:]) for name, (dtype, dims) in tensors.items()}


def _runner(path: Path, inputs: Tensors, *, batched: bool) -> probing.Run:
    session = graph.Session(path)

    def run(batch: int, sizes: Mapping[str, int]) -> probing.Shapes:
        outputs = session.run(_noise(inputs, {**sizes, BATCH: batch} if batched else sizes))
        return {name: value.shape for name, value in outputs.items()}

    return run


def _noise(inputs: Tensors, sizes: Mapping[str, int]) -> dict[str, graph.Array]:
    random = np.random.default_rng(0)
    arrays = {}
    for name, (dtype, dims) in inputs.items():
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
        kind = BY_NAME[dtype].numpy
        noise = random.standard_normal(shape) if kind.kind == "f" else np.ones(shape)
        arrays[name] = np.full(shape, "text", object) if dtype == "string" else np.asarray(noise, dtype=kind)
    return arrays


def _mixed_output(path: Path, inputs: Tensors) -> str:
    """The first output whose rows are not what they are alone, by more than rounding; empty if there is none."""
    session = graph.Session(path)
    for small, _ in probing.SIZES:
        try:
            batch = _noise(inputs, dict.fromkeys(_moving(inputs, 1), small) | {BATCH: probing.BATCHES[1]})
            together = session.run(batch)
            rows = [
                session.run({name: array[i : i + 1] for name, array in batch.items()})
                for i in range(probing.BATCHES[1])
            ]
        except TritonkitError:
            continue
        apart = {
            name: distance(np.concatenate([row[name] for row in rows]), array)[1] for name, array in together.items()
        }
        return next((name for name, value in apart.items() if value > MIXED), "")
    return ""


def _moving(inputs: Tensors, first: int) -> list[str]:
    return list(dict.fromkeys(dim for _, dims in inputs.values() for dim in dims[first:] if isinstance(dim, str)))


def _probe_batch(path: Path, signature: Signature, inputs: Tensors, leading: set[str | None]) -> tuple[str, Tensors]:
    """Why a graph whose tensors name their first dimensions differently has no batch, and outputs without shape.

    Where it does not run on noise, different names are taken for different dimensions.
    """
    try:
        output_dims = probing.output_dims(_runner(path, inputs, batched=True), _moving(inputs, 1), batched=True)
    except TritonkitError:
        if len(leading - {None}) > 1:
            return (
                f"their first dimensions are called {' and '.join(sorted(str(name) for name in leading - {None}))}",
                {},
            )
        return "", {}
    for dims in output_dims.values():
        if isinstance(dims, probing.NoBatch):
            return dims.why, {}
    if len(leading - {None}) > 1 and (mixed := _mixed_output(path, inputs)):
        return f"a row of {mixed!r} changes with the rows beside it", {}
    return "", {
        name: (signature.outputs[name].dtype, (BATCH, *dims))
        for name, dims in output_dims.items()
        if not isinstance(dims, probing.NoBatch)
    }


def _probed(path: Path, signature: Signature, inputs: Tensors, missing: list[str]) -> Tensors:
    """Outputs that have no shape in the graph, as a run has them."""
    try:
        output_dims = probing.output_dims(_runner(path, inputs, batched=False), _moving(inputs, 0), batched=False)
    except TritonkitError as error:
        narrow = " ".join(f"--input {name}:{tensor.dtype}:DIMS" for name, tensor in signature.inputs.items())
        raise InputError(
            f"{path}: the output {missing[0]!r} has no shape in the graph, and the graph does not run on noise: "
            f"{error.message}",
            f"say inputs that it runs on:  tritonkit init {path} {narrow}",
        ) from error
    return {
        name: (signature.outputs[name].dtype, dims)
        for name, dims in output_dims.items()
        if name in missing and not isinstance(dims, probing.NoBatch)
    }
