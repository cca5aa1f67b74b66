"""Runs one small graph by onnxruntime as `tritonkit_onnxruntime` does: an I/O binding, a captured CUDA graph, replays.

A program for the embedded server's own environment, which imports nothing of tritonkit:

    python3 cuda_probe.py GRAPH cuda|cpu

GRAPH maps ``x`` (FP32) to ``y`` = 2 x, of the shape that it states. The last line of standard output is ``ok``, or why
it is not.
"""

import sys

import numpy as np
import onnxruntime as ort

_PROVIDERS = {"cuda": ("CUDAExecutionProvider", {"device_id": "0", "enable_cuda_graph": "1"}),
              "cpu": ("CPUExecutionProvider", {})}  # fmt: skip
_RUNS = 3  # the first prepares, the next captures, the last replays


def run(path: str, device: str) -> str:
    """``ok``, or what went wrong."""
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries, where they come from Python packages
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 2  # its warnings say why a provider did not start
    provider, provider_options = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        return f"this onnxruntime ({ort.__version__}) is the CPU build"
    session = ort.InferenceSession(path, session_options, providers=[(provider, provider_options)])
    if provider not in session.get_providers():
        return f"{provider} did not start"
    shape = session.get_inputs()[0].shape
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 64  # small whole numbers: exact in TF32, too
    x = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(values), device, 0)
    y = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(values), device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)
    options = ort.RunOptions()
    if device == "cuda":
        options.add_run_config_entry("gpu_graph_id", "1")
    for count in range(1, _RUNS + 1):
        x.update_inplace(values + count)
        session.run_with_iobinding(binding, options)
        if not np.array_equal(y.numpy(), 2 * (values + count)):
            return f"run {count} of {_RUNS} gave a wrong answer"
    return "ok"


if __name__ == "__main__":
    try:
        print(run(*sys.argv[1:]))  # noqa: T201
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "))  # noqa: T201
