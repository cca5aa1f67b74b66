"""The tensor types that a recipe may name, and what ONNX, numpy and Triton call each of them.

Only types that Triton's ONNX Runtime backend serves are here; bfloat16 is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True)
class Dtype:
    """One tensor type under all its names.

    Attributes:
        name: The recipe's word, for example ``fp32``.
        numpy: The numpy dtype; ``object`` (of ``bytes``) for strings.
        onnx: ``onnx.TensorProto.DataType`` number.
        triton: The name in ``config.pbtxt``, for example ``TYPE_FP32``.
    """

    name: str
    numpy: np.dtype[np.generic]
    onnx: int
    triton: str


_P = onnx.TensorProto
_TABLE = (
    Dtype("bool", np.dtype(np.bool_), _P.BOOL, "TYPE_BOOL"),
    Dtype("uint8", np.dtype(np.uint8), _P.UINT8, "TYPE_UINT8"),
    Dtype("uint16", np.dtype(np.uint16), _P.UINT16, "TYPE_UINT16"),
    Dtype("uint32", np.dtype(np.uint32), _P.UINT32, "TYPE_UINT32"),
    Dtype("uint64", np.dtype(np.uint64), _P.UINT64, "TYPE_UINT64"),
    Dtype("int8", np.dtype(np.int8), _P.INT8, "TYPE_INT8"),
    Dtype("int16", np.dtype(np.int16), _P.INT16, "TYPE_INT16"),
    Dtype("int32", np.dtype(np.int32), _P.INT32, "TYPE_INT32"),
    Dtype("int64", np.dtype(np.int64), _P.INT64, "TYPE_INT64"),
    Dtype("fp16", np.dtype(np.float16), _P.FLOAT16, "TYPE_FP16"),
    Dtype("fp32", np.dtype(np.float32), _P.FLOAT, "TYPE_FP32"),
    Dtype("fp64", np.dtype(np.float64), _P.DOUBLE, "TYPE_FP64"),
    Dtype("string", np.dtype(np.object_), _P.STRING, "TYPE_STRING"),
)
BY_NAME = {dtype.name: dtype for dtype in _TABLE}
BY_ONNX = {dtype.onnx: dtype for dtype in _TABLE}
