"""The two kinds of shared memory, and helpers for tests of either."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tritonkit_client import CudaSharedMemory, SharedMemory

BIG = np.random.default_rng(0).integers(0, 255, (2, 700_000), dtype=np.uint8)
KINDS = {"system": SharedMemory, "cuda": CudaSharedMemory}

gpu = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU: nvidia-smi is not here")


def needs_the_extra() -> None:
    """Skip where the extra is not installed."""
    pytest.importorskip("cuda.bindings.driver", reason="the extra is not installed: tritonkit-client[cuda]")


def unregister(admin: InferenceServerClient, name: str, memory: str) -> None:
    """Unregister a region on a server, once its last request has ended."""
    for _ in range(200):
        try:
            getattr(admin, f"unregister_{memory}_shared_memory")(name)
            return
        except InferenceServerException as error:
            if "in use" not in str(error):
                raise
    raise AssertionError(f"{name} stays in use")
