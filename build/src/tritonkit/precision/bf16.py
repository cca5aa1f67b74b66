"""bf16 by casts in the graph, for GPUs that have it: fp32's range with 8 bits of mantissa, so that nothing overflows.

onnxruntime's CUDA provider has bf16 kernels for many operators and not for all: those without stay in fp32, found by
asking it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tritonkit import external_data
from tritonkit.errors import GraphError
from tritonkit.graph import Session
from tritonkit.precision import fp16, onnxgraph

SINCE = (8, 0)  # compute capability of the first GPUs with bf16 (NVIDIA Ampere)
# What onnxruntime says of a node that no provider can run.
_NO_KERNEL = re.compile(r"[Cc]ould not find an implementation for (\w+)\(|no kernel.*?for (\w+)\b")


def make(
    model: onnx.ModelProto, path: Path, opens: Callable[[Path], object] = lambda path: Session(path, device="cuda")
) -> list[str]:
    """Write a graph in bf16, with the operators that onnxruntime has no kernel for in fp32.

    Args:
        model: An fp32 graph; not changed.
        path: Where it is written.
        opens: Opens a session on the GPU; raises :class:`GraphError` where a kernel is missing.

    Returns:
        The operators that stay in fp32.

    Raises:
        GraphError: The GPU takes the graph with no operator left out.
    """
    kept: list[str] = []
    while True:
        external_data.save(convert(model, kept), path)
        try:
            opens(path)
        except GraphError as error:
            missing = _NO_KERNEL.search(error.message)
            operator = next(filter(None, missing.groups()), "") if missing else ""
            if not operator or operator in kept or operator == "Cast":
                raise
            kept.append(operator)
            continue
        return kept


def convert(model: onnx.ModelProto, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """The same graph in bf16, with fp32 inputs and outputs.

    onnxruntime's own converter places the casts, for fp16; what it made half then becomes bf16, from the fp32 weights.

    Args:
        model: An fp32 graph; not changed.
        kept: Types of operators that stay in fp32.
    """
    from onnxruntime.transformers import float16

    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    constants = {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what fp16 cannot hold, and bf16 can
        halved: onnx.ModelProto = float16.convert_float_to_float16(
            external_data.infer_shapes(model), keep_io_types=True, disable_shape_infer=True,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *onnxgraph.CONTROL, *kept],
        )  # fmt: skip
    fp16.cast_for_bodies(halved)
    for tensor in halved.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(_bf16(weights.get(tensor.name, tensor), tensor.name))
    for node in halved.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.t.data_type == TensorProto.FLOAT16:
                source = constants.get(node.output[0], attribute.t)
                attribute.t.CopyFrom(_bf16(source, attribute.t.name))
    for value in halved.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnxgraph.sort(halved)  # the library puts the casts of inputs last
    return halved


def _bf16(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import ml_dtypes

    array = numpy_helper.to_array(tensor).astype(np.float32)
    return numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), name)
