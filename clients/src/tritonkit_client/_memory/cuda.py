"""Segments in the memory of an NVIDIA GPU. Loads the package cuda-bindings for the first client that uses them.

tritonclient's helpers for it copy an array on the host once more on the way in, and a whole segment on the way out.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .._protocol.calls import InferRequest, Region, Tensor
from .._protocol.device_array import ANY_STREAM, DeviceArray
from .._protocol.errors import InvalidInput, TritonkitClientError


class Gpu:
    """A GPU whose memory can be allocated.

    Args:
        number: The GPU's, as CUDA counts them in this process.

    Raises:
        InvalidInput: The package is not installed, or there is no such GPU.
    """

    def __init__(self, number: int) -> None:
        driver = _driver()
        count = _call("cuDeviceGetCount")
        if not 0 <= number < count:
            raise InvalidInput(f"there is no GPU {number}: this process sees {count}", "choose another device_id")
        self.number = number
        with _current(number):
            # A stream that waits for no other: copies do not queue behind what the application computes.
            self._stream = _call("cuStreamCreate", driver.CUstream_flags.CU_STREAM_NON_BLOCKING)

    def allocate(self, size: int) -> tuple[int, bytes]:
        """New memory: its address, and the handle by which another process opens it.

        Raises:
            MemoryError: The GPU has not that much memory left.
        """
        driver = _driver()
        with _current(self.number):
            status, pointer = driver.cuMemAlloc(size)
            if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise MemoryError(f"GPU {self.number} has no {size} bytes left")
            _check("cuMemAlloc", status)
            handle = _call("cuIpcGetMemHandle", pointer)
        return int(pointer), ctypes.string_at(handle.getPtr(), driver.CU_IPC_HANDLE_SIZE)

    def free(self, pointer: int) -> None:
        """Give memory back."""
        with _current(self.number):
            _call("cuMemFree", pointer)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy bytes and wait for the copy; each address may be the host's or any GPU's."""
        with _current(self.number):
            _call("cuMemcpyAsync", target, source, size, self._stream)
            _call("cuStreamSynchronize", self._stream)


class CudaSegment:
    """A `Segment` in the memory of a GPU."""

    def __init__(self, gpu: Gpu, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._gpu = gpu
        self._pointer, handle = gpu.allocate(size)
        self.region = Region(name, size, "cuda", handle=handle, device=gpu.number)

    def write(self, tensor: Tensor) -> None:
        """See `Segment.write`; an array on a GPU is copied on the GPU."""
        if tensor.device is not None:
            _wait_for(tensor.device)
            self._gpu.copy(self._pointer, tensor.device.pointer, tensor.size)
        else:
            data = np.frombuffer(tensor.data, np.uint8)
            self._gpu.copy(self._pointer, data.ctypes.data, data.size)

    def read(self, size: int, done: Callable[[], None]) -> memoryview:
        """See `Segment.read`; here it is a copy."""
        data = np.empty(size, np.uint8)
        self._gpu.copy(data.ctypes.data, self._pointer, size)
        done()
        return data.data

    def remove(self, used: bool) -> None:
        """Free the memory, or leave that to the end of the process.

        Freeing what another process has open is undefined behaviour (cuIpcCloseMemHandle): in the server, which
        serves others too.
        """
        if not used:
            self._gpu.free(self._pointer)


def on_host(request: InferRequest) -> InferRequest:
    """The request with the bytes of its arrays on a GPU copied to the host."""
    if all(tensor.device is None for tensor in request.inputs):
        return request
    inputs = (
        tensor if tensor.device is None else replace(tensor, data=_copy_to_host(tensor.device), device=None)
        for tensor in request.inputs
    )
    return replace(request, inputs=tuple(inputs))


def _copy_to_host(array: DeviceArray) -> memoryview:
    data = np.empty(array.size, np.uint8)
    _wait_for(array)
    with _current(_number_of(array)):
        _call("cuMemcpy", data.ctypes.data, array.pointer, array.size)
    return data.data


def _wait_for(array: DeviceArray) -> None:
    """Wait until the work that fills an array is done: GPUs run it asynchronously."""
    if array.stream is None:
        return
    with _current(_number_of(array)):
        if array.stream == ANY_STREAM:
            _call("cuCtxSynchronize")
        else:
            _call("cuStreamSynchronize", array.stream)


def _number_of(array: DeviceArray) -> int:
    attribute = _driver().CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_call("cuPointerGetAttribute", attribute, array.pointer))


@contextlib.contextmanager
def _current(number: int) -> Iterator[None]:
    """Make a GPU this thread's current one, as the driver's functions need it, and restore the last one."""
    _call("cuCtxPushCurrent", _context(number))
    try:
        yield
    finally:
        _call("cuCtxPopCurrent")


@functools.cache
def _context(number: int) -> Any:
    """A GPU's primary context, which PyTorch, CuPy and JAX use too; kept for as long as the process lives."""
    return _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", number))


@functools.cache
def _driver() -> Any:
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise InvalidInput(
            f"CUDA shared memory needs the package cuda-bindings ({error})", "pip install 'tritonkit-client[cuda]'"
        ) from error
    try:
        (status,) = driver.cuInit(0)
        problem = "" if status == driver.CUresult.CUDA_SUCCESS else status.name
    except RuntimeError as error:  # the package does not find the driver's library
        problem = str(error)
    if problem:
        raise InvalidInput(
            f"CUDA shared memory needs an NVIDIA GPU and its driver on this machine: {problem}",
            "see whether `nvidia-smi` lists one, or use shared_memory=SharedMemory()",
        )
    return driver


def _call(name: str, *arguments: Any) -> Any:
    """Call a function of the driver; returns its first result, if it has any."""
    status, *results = getattr(_driver(), name)(*arguments)
    _check(name, status)
    return results[0] if results else None


def _check(name: str, status: Any) -> None:
    if status != _driver().CUresult.CUDA_SUCCESS:
        raise TritonkitClientError(
            f"CUDA failed in {name}: {status.name}",
            "an array's memory may be gone, or earlier work on the GPU failed: such errors show up late",
        )
