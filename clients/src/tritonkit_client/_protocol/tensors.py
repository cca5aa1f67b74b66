"""Triton's tensor types, and tensors to and from the bytes that both protocols carry; validates nothing."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Buffer = bytes | memoryview

BYTES = "BYTES"
FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})

# KServe v2, "Tensor Data Types". The wire is little-endian whatever this machine is.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(np.object_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Triton's name for a numpy dtype, or numpy's own where Triton has none."""
    if dtype.kind in "SUT":
        return BYTES
    return _NAMES.get(dtype.newbyteorder("<"), str(dtype))


def encode(array: Array, datatype: str) -> Buffer:
    """The bytes of a tensor as Triton wants them.

    Args:
        array: Any shape; its dtype is `DTYPES[datatype]`, for BYTES an array of ``str`` and ``bytes``.
        datatype: One of `DTYPES`.

    Returns:
        For a C-contiguous numeric array a view of its own memory; otherwise new bytes.

    Raises:
        UnicodeEncodeError: A ``str`` that UTF-8 cannot carry (a lone surrogate).
    """
    if datatype != BYTES:
        if array.ndim and array.size and array.flags.c_contiguous and datatype != "BF16":
            return array.data.cast("B")
        # ml_dtypes exports no buffer of its own, hence the bytes view.
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    parts: list[bytes] = []
    for item in array.reshape(-1).tolist():
        data = item.encode() if isinstance(item, str) else item
        parts += (struct.pack("<I", len(data)), data)
    return b"".join(parts)


def decode(data: Buffer, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor in some bytes.

    Returns:
        A read-only array. Numbers are a view of ``data`` (a copy only where ``data`` is not aligned for
        them); BYTES is an array of ``bytes`` objects.

    Raises:
        ValueError: The bytes do not make a tensor of this type and shape.
        KeyError: No such datatype.
    """
    if datatype == BYTES:
        array = np.empty(len(items := _split_bytes(data)), dtype=np.object_)
        array[:] = items
    else:
        array = np.frombuffer(data, dtype=DTYPES[datatype])
        if not array.flags.aligned:
            array = array.copy()
    array = array.reshape(shape)
    if array.flags.writeable:
        array.flags.writeable = False
    return array


def to_json(data: Buffer, datatype: str, shape: Sequence[int]) -> list[Any]:
    """The flat JSON list of a tensor's bytes; BYTES as text.

    Raises:
        ValueError: An element is not UTF-8, or not finite: JSON has no such numbers.
    """
    array = decode(data, datatype, shape).reshape(-1)
    if datatype == BYTES:
        return [item.decode() for item in array]
    numbers = array.astype(np.float64) if datatype in FLOATS else array
    if datatype in FLOATS and not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise ValueError(f"element {place} is {numbers[place]}, which JSON does not have")
    return list(numbers.tolist())


def from_json(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> Array:
    """The tensor in a flat or nested JSON list; read-only, as from `decode`.

    Raises:
        ValueError, TypeError: The list does not make a tensor of this type and shape.
        KeyError: No such datatype.
    """
    if datatype == BYTES:
        array = np.array(data, dtype=np.object_).reshape(-1)
        array[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in array]
    else:
        array = np.array(data, dtype=DTYPES[datatype])
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def from_contents(values: Iterable[Any], datatype: str, shape: Sequence[int]) -> Array:
    """The tensor in a typed field of gRPC's InferTensorContents; read-only, as from `decode`.

    Raises:
        ValueError: There are not as many values as the shape has elements, or the type does not hold them.
        KeyError: No such datatype.
    """
    flat = list(values)
    if len(flat) != math.prod(shape):
        raise ValueError(f"{len(flat)} values came for a tensor of shape {list(shape)}")
    if datatype == BYTES:
        array = np.empty(len(flat), dtype=np.object_)
        array[:] = flat
    else:
        # The fields of the small integers are 32 bits wide.
        wide = np.array(flat, dtype=np.int64 if datatype in INTEGERS - {"UINT64"} else DTYPES[datatype])
        array = wide.astype(DTYPES[datatype])
        if datatype in INTEGERS and not np.array_equal(array, wide):
            raise ValueError(f"a value does not fit {datatype}")
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _split_bytes(data: Buffer) -> list[bytes]:
    """Elements of a BYTES tensor: each is its length as a little-endian uint32, then so many bytes."""
    items: list[bytes] = []
    offset = 0
    while offset < len(data):
        start = offset + 4
        # A cut-off length reads as a smaller number or as 0; either way the last element does not end with the data.
        offset = start + int.from_bytes(data[offset:start], "little")
        items.append(bytes(data[start:offset]))
    if offset != len(data):
        raise ValueError(f"a BYTES tensor of {len(data)} bytes ends inside an element")
    return items
