"""Whether ``--target cuda`` works on a GPU of this machine: driver, compute capability, and a graph that runs there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from tritonkit.engines import cuda
from tritonkit.engines.node import NodeGpu
from tritonkit.errors import MissingError
from tritonkit.server import runtime
from tritonkit.server.runtime import Runtime

PROBE = Path(__file__).with_name("cuda_probe.py")
PROBE_S = 30.0
_SHAPE = (2, 8, 4, 4)
_LOG_MARKS = re.compile(r"\x1b\[[\d;]*m|^\S+ \S+ \[[EWF]:onnxruntime:[^\]]*\] ")
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Verdict:
    """Whether CUDA works on one GPU.

    Attributes:
        works: True if a CUDA graph was captured and replayed there, with right answers; None if not tried.
        text: What worked, or why it does not work, as one line.
        fix: What to do; empty where it works.
    """

    works: bool | None
    text: str
    fix: str = ""


def examine(gpu: NodeGpu, server: Runtime | None = None) -> Verdict:
    """Judge one GPU, at most half a minute.

    Args:
        gpu: The GPU.
        server: The embedded server for CUDA; the installed one if it is None.
    """
    if problem := cuda.obstacle(gpu.driver, gpu.capability):
        return Verdict(False, *problem)
    try:
        server = server or runtime.find("cuda")
    except MissingError:
        return Verdict(
            None, "not tried: the embedded server for CUDA is not installed", "tritonkit install-server --device cuda"
        )
    why = probe(server, "cuda", gpu.uuid)
    if why:
        again = f"remove {server.path}, and run `tritonkit install-server --device cuda` again"
        return Verdict(False, why, again)
    return Verdict(True, "a CUDA graph was captured and replayed, with right answers")


def probe(server: Runtime, device: Literal["cpu", "cuda"], uuid: str = "", timeout_s: float = PROBE_S) -> str:
    """Run a small graph in the embedded server's own environment; empty if it works, else why not in one line.

    Args:
        server: Whose environment.
        device: ``cpu`` tries the same but for CUDA.
        uuid: The GPU; the first visible one if empty.
        timeout_s: After which it is ended.
    """
    environment = server.environment() | ({"CUDA_VISIBLE_DEVICES": uuid} if uuid else {})
    with tempfile.TemporaryDirectory(prefix="tritonkit-probe-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(tiny_graph())
        # Isolated, as Triton's stub is: modules beside the program must not stand in for the environment's.
        command = [str(server.path / "env/bin/python3"), "-I", str(PROBE), str(path), device]
        try:
            completed = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
            )
        except subprocess.TimeoutExpired:
            return f"the trial did not end within {timeout_s:g} s"
        except OSError as error:
            return f"the server's Python does not start: {error.strerror}"
    return reason(completed.returncode, completed.stdout, completed.stderr)


def reason(code: int, out: str, err: str) -> str:
    """Why a trial failed, from what it printed; empty if it did not fail."""
    last = (out.strip().splitlines() or [""])[-1].strip()
    if code == 0 and last == "ok":
        return ""
    log = [_LOG_MARKS.sub("", _LOG_MARKS.sub("", line)).strip() for line in err.splitlines()]
    # onnxruntime logs the cause (a library that is missing, a driver that is too old), then goes on without the GPU.
    cause = next((line for line in log if re.search(r"cannot open|fail|error|insufficient", line, re.IGNORECASE)), "")
    if code == 0:
        last = last or "the trial said nothing"
    else:
        last = f"the trial ended with {'signal' if code < 0 else 'exit code'} {abs(code)}"
        cause = cause or next((line for line in reversed(log) if line), "")
    text = f"{last}: {cause}" if cause else last
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]} …"


def tiny_graph(factor: int = 2) -> bytes:
    """A convolution that doubles its input, or multiplies it by another factor; so cuDNN has its part in the trial."""
    channels = _SHAPE[1]
    kernel = (factor * np.eye(channels, dtype=np.float32)).reshape(channels, channels, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, _SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, _SHAPE)],
        [onnx.numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
