"""What ``--target cuda`` needs of a GPU: a driver, a compute capability, memory. Knows GPUs by their figures only."""

from __future__ import annotations

import re

# What onnxruntime-gpu 1.31 is built for (server/requirements-cuda.txt), the driver branch that CUDA 13 needs at least,
# and the compute capability below which CUDA 13 has no kernels: CUDA Toolkit release notes, "CUDA Driver" and
# "Deprecated Architectures". A driver of that branch or a newer one runs every 13.x (minor version compatibility).
CUDA = "13"
DRIVER_SINCE = 580
CAPABILITY_SINCE = (7, 5)
# Driver branch → the newest CUDA that it runs natively; the same table.
_BRANCHES = {
    450: "11.0", 455: "11.1", 460: "11.2", 465: "11.3", 470: "11.4", 495: "11.5", 510: "11.6", 515: "11.7",
    520: "11.8", 525: "12.0", 530: "12.1", 535: "12.2", 545: "12.3", 550: "12.4", 555: "12.5", 560: "12.6",
    565: "12.7", 570: "12.8", 575: "12.9", 580: "13.0",
}  # fmt: skip


def branch(driver: str) -> int | None:
    """The branch of a driver's version, 580 for ``580.159.04``; None if it is no version."""
    match = re.match(r"(\d{3,4})\.\d+", driver)
    return int(match[1]) if match else None


def newest_cuda(driver: str) -> str:
    """The newest CUDA that a driver is known to run, ``12.4``; empty for one that the table does not reach."""
    number = branch(driver)
    known = [release for start, release in _BRANCHES.items() if number is not None and start <= number]
    return known[-1] if known else ""


def obstacle(driver: str, capability: tuple[int, int]) -> tuple[str, str] | None:
    """Why CUDA 13 does not run on a GPU, and what to do; None where driver and GPU are new enough."""
    number = branch(driver)
    if capability < CAPABILITY_SINCE:
        least = "{}.{}".format(*CAPABILITY_SINCE)
        return (
            f"compute capability {capability[0]}.{capability[1]} is below {least}, the lowest of CUDA {CUDA}",
            "use a GPU of the Turing generation or newer (T4, A10, L4, A100, H100 …)",
        )
    if number is not None and number < DRIVER_SINCE:
        runs = f", which runs CUDA up to {newest}" if (newest := newest_cuda(driver)) else ""
        return (
            f"the driver is {driver}{runs}; CUDA {CUDA} needs {DRIVER_SINCE} or newer",
            f"install NVIDIA driver {DRIVER_SINCE} or newer on this machine (on Kubernetes: on the node)",
        )
    return None
