"""Runs batches of any size at a few prepared ones, padded up, so that nothing is prepared while requests wait.

onnxruntime's CUDA provider prepares every convolution anew whenever the batch size changes, and launches hundreds of
small kernels one by one. So each prepared size is run once when the model loads, and captured as a CUDA graph.

    settings   what a model's configuration says of sizes, graphs and padding
    planning   which prepared sizes a batch is run at, by what each of them costs
    rows       requests as rows, grouped by length
    sized      rows into pieces, pieces through a runner, and the answers back
    direct     batches as they come
    sequences  their states, kept between requests
    cpu, cuda  the runners: a session, its prepared sizes, and the memory that they read and write
    stalls     ends a process that Triton has given up
    convolutions  what decides whether sizes share a session on a GPU
    memory     CUDA memory, streams and driver, through NVIDIA's own Python bindings

It imports numpy and onnxruntime only (and ``cuda.bindings`` for a GPU), as it runs inside Triton; tritonkit's gate
imports it too, so that what is judged is what is served.
"""

from .direct import DirectExecution
from .sequences import Sequences
from .settings import Padding, SettingsError, Sizes, read_sizes
from .sized import SizedExecution, open_execution
from .stalls import StallGuard

__all__ = [
    "DirectExecution", "Padding", "Sequences", "SettingsError", "SizedExecution", "Sizes", "StallGuard",
    "open_execution", "read_sizes",
]  # fmt: skip
