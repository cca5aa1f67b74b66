"""Another pod: the ``tritonkit`` command with a stand-in for a GPU node, for tests that race processes.

TensorRT-RTX takes TensorRT's place. HOLD=SECONDS waits before a build; DIE ends it half-way through writing the plan.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tritonkit import cli
from tritonkit.engines import builder, node, plans

TOOLKIT = builder.Toolkit("tensorrt", builder.load("tensorrt_rtx").module)
GPU = node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30)
build = plans.build


def held(*arguments: Any) -> Any:
    """Say that a build begins, and wait."""
    os.write(1, b"BUILDING\n")
    time.sleep(float(os.environ.get("HOLD", "0")))
    return build(*arguments)


def cut(directory: Path, plan: builder.Plan, _said: object) -> Path:
    """Write half of a plan, and die."""
    directory.mkdir(parents=True)
    (directory / "model_sm86.plan").write_bytes(plan.data[: len(plan.data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    stand_ins: list[tuple[Any, str, Any]] = [
        (builder, "load", lambda _name: TOOLKIT),
        (node, "gpus", lambda: (GPU,)),
        (node, "read", lambda _image=None: node.Node((GPU,), TOOLKIT.version)),
        (plans, "build", held),
    ]
    if "DIE" in os.environ:
        stand_ins.append((plans, "write", cut))
    for module, name, stand_in in stand_ins:
        setattr(module, name, stand_in)
    sys.exit(cli.main(sys.argv[1:]))
