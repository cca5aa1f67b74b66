"""Arrays on a GPU, as the CUDA array interface describes them. Only reads that description: no copies, no CUDA.

https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tensors import DTYPES

# In place of a stream: the array does not name its stream (before version 3 of the interface no array does).
ANY_STREAM = -1


@dataclass(frozen=True)
class DeviceArray:
    """An array on a GPU.

    Attributes:
        pointer: The address of its first element; 0 where it has no elements.
        shape, dtype: As in numpy.
        contiguous: Whether its elements lie one after another, as in C.
        stream: The CUDA stream whose work must be done before the array is read; `ANY_STREAM`: all streams; None:
            the array can be read at once.
        owner: The object that keeps the memory.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool
    stream: int | None
    owner: object

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def on_device(value: object) -> bool:
    """Whether a value has the CUDA array interface."""
    try:
        return hasattr(value, "__cuda_array_interface__")
    except RuntimeError:  # PyTorch's answer for a tensor on a GPU that requires gradients
        return True


def device_array(value: object) -> DeviceArray:
    """The description of a value that is `on_device`.

    Raises:
        ValueError: Its elements cannot be read as they are.
    """
    try:
        interface: dict[str, Any] = value.__cuda_array_interface__  # type: ignore[attr-defined]
        dtype = np.dtype(interface["typestr"])
        shape = tuple(interface["shape"])
        pointer = interface["data"][0]
        version = interface["version"]
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error
    if interface.get("mask") is not None:
        raise ValueError("it is masked")
    # PyTorch's and ml_dtypes' spelling of bfloat16, which numpy itself takes for two bytes of anything.
    dtype = DTYPES["BF16"] if dtype == np.dtype("V2") else dtype
    contiguous = _is_contiguous(shape, interface.get("strides"), dtype.itemsize)
    stream = interface.get("stream") if version >= 3 else ANY_STREAM
    return DeviceArray(pointer, shape, dtype, contiguous, stream, value)


def _is_contiguous(shape: Sequence[int], strides: Sequence[int] | None, itemsize: int) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
