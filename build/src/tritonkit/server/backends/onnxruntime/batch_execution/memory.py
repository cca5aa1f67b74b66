"""CUDA memory, streams and the driver, through NVIDIA's own Python bindings (package ``cuda-bindings``)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime

NEEDED_CUDA = 13000  # onnxruntime-gpu's wheels since 1.27 are built with CUDA 13.0
NEEDED_DRIVER = "580"  # the first driver that has it (CUDA 13.0 release notes)
CONTEXTS: dict[int, int] = {}  # device → bytes of this process's context there


def check_driver(version: int) -> None:
    """Refuse a driver that onnxruntime's build cannot use; its own message names an error number only.

    Args:
        version: What ``cudaDriverGetVersion`` says: 1000 x major + 10 x minor; 0 without a driver.

    Raises:
        RuntimeError: The driver is too old, or missing.
    """
    if version == 0:
        raise RuntimeError("no NVIDIA driver is loaded; a model on a GPU needs one, 580 or newer")
    if version < NEEDED_CUDA:
        raise RuntimeError(
            f"the NVIDIA driver supports CUDA {version // 1000}.{version % 1000 // 10}, and onnxruntime needs CUDA "
            f"{NEEDED_CUDA // 1000}: install driver {NEEDED_DRIVER} or newer on this node"
        )


class Device:
    """One GPU's stream and memory.

    Args:
        number: The CUDA device.

    Raises:
        RuntimeError: The driver is missing or too old, or the device cannot be used.
    """

    def __init__(self, number: int) -> None:
        check_driver(_call(runtime.cudaDriverGetVersion))
        self.number = number
        before = _used_bytes(number)
        _call(runtime.cudaSetDevice, number)
        _call(runtime.cudaFree, 0)  # makes the context
        # A process has one context on a device: what its first session found holds for those after it.
        self.context_bytes = CONTEXTS.setdefault(number, _used_bytes(number) - before)
        self.stream = _call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking)
        properties = _call(runtime.cudaGetDeviceProperties, number)
        self.name = properties.name.decode()
        self.capability = (int(properties.major), int(properties.minor))

    def free_bytes(self) -> tuple[int, int]:
        """What is free, and all there is."""
        free, total = _call(runtime.cudaMemGetInfo)
        return int(free), int(total)

    def allocate(self, nbytes: int) -> int:
        """Memory on the device, zeros; its address.

        Raises:
            MemoryError: The device has too little free memory.
        """
        try:
            address = int(_call(runtime.cudaMalloc, nbytes))
        except RuntimeError as error:
            free, total = self.free_bytes()
            raise MemoryError(f"{nbytes} bytes were asked for, {free} of {total} are free") from error
        _call(runtime.cudaMemset, address, 0, nbytes)
        return address

    def allocate_pinned(self, nbytes: int) -> np.ndarray:
        """Host memory that the device copies from and to by itself, as bytes."""
        address = int(_call(runtime.cudaHostAlloc, nbytes, 0))
        buffer: Any = (ctypes.c_uint8 * nbytes).from_address(address)
        return np.frombuffer(buffer, np.uint8)

    def to_device(self, address: int, rows: np.ndarray) -> None:
        """Begin to copy host memory to an address."""
        self._copy(address, rows.ctypes.data, rows.nbytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def to_host(self, rows: np.ndarray, address: int) -> None:
        """Begin to copy from an address to host memory."""
        self._copy(rows.ctypes.data, address, rows.nbytes, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def within(self, target: int, source: int, nbytes: int) -> None:
        """Begin to copy from one address of a device to another."""
        self._copy(target, source, nbytes, runtime.cudaMemcpyKind.cudaMemcpyDefault)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        _call(runtime.cudaMemcpyAsync, target, source, nbytes, kind, self.stream)

    def zero(self, address: int, nbytes: int) -> None:
        """Begin to overwrite memory with zeros."""
        _call(runtime.cudaMemsetAsync, address, 0, nbytes, self.stream)

    def wait(self) -> None:
        """Wait for everything that was begun."""
        _call(runtime.cudaStreamSynchronize, self.stream)


@contextlib.contextmanager
def exclusive(number: int) -> Iterator[None]:
    """Keep other processes of this user from preparing sizes on the device meanwhile, where files can be locked."""
    path = Path(tempfile.gettempdir(), f"tritonkit-{os.getuid()}-gpu-{number}.lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _used_bytes(number: int) -> int:
    """Bytes in use on the device, without making a context there; 0 where the driver does not say."""
    try:
        from cuda.bindings import nvml

        nvml.init_v2()
        bus = _call(runtime.cudaDeviceGetPCIBusId, 32, number)
        handle = nvml.device_get_handle_by_pci_bus_id_v2(bus.rstrip(b"\0").decode())
        return int(nvml.device_get_memory_info_v2(handle).used)
    except Exception:  # every library of the driver may be missing or refuse; the figure is then left out
        return 0


def _call(function: Any, *arguments: Any) -> Any:
    """Call CUDA's runtime; its result, or its results.

    Raises:
        RuntimeError: CUDA's own name of the error.
    """
    error, *results = function(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        raise RuntimeError(f"{function.__name__}: {error.name}")
    return results[0] if len(results) == 1 else tuple(results)
