"""The GPUs of this machine: whether there are any, and how much of their memory is in use, as the driver says."""

from __future__ import annotations

import os
import subprocess

from tritonkit.errors import MissingError
from tritonkit_load.load import environment

TIMEOUT_S = 10
MIB = 2**20


def names() -> list[str]:
    """The name of every GPU that this process may use.

    Raises:
        MissingError: There is no GPU.
    """
    gpus = environment.gpus()
    if not gpus:
        raise MissingError("make bench-gpu needs an NVIDIA GPU and its driver; this machine has none")
    return gpus


def driver() -> str:
    """The driver's version."""
    return _query("driver_version")


def used_bytes() -> int:
    """Bytes in use on the first GPU that this process may use, of all processes."""
    return int(_query("memory.used")) * MIB


def _query(what: str) -> str:
    """One figure of the first GPU.

    Raises:
        MissingError: ``nvidia-smi`` is missing or fails.
    """
    command = ["nvidia-smi", f"--query-gpu=index,uuid,{what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"nvidia-smi does not say {what}: {error}", "install it; the driver brings it") from error
    return environment.visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))[0]
