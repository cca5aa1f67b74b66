"""What serving adds to a batch's time: the way there and back, an instance's own work, and the memory it holds.

The figures are of ``tritonkit_onnxruntime`` behind Triton, measured on one H200 (docs/measurements/gpu.md). TensorRT's
backend is C++ and was not measured here: the same figures are an upper bound for it, but an instance's work, which is
left out (MLPerf v3.0 has Triton at 1.00 of NVIDIA's own harness, Offline).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tritonkit.advisor import latency
from tritonkit.advisor.graph_cost import Cost, Precision
from tritonkit.advisor.latency import Coefficients, Engine
from tritonkit.advisor.queueing import Service
from tritonkit.gpus import Gpu

INSTANCES = 4  # on a GPU, as `tritonkit build --target cuda` writes them
REQUEST_MS = 1.5  # of a lone request above in process: 1.67, 1.59 and 1.29 for three models
# An instance's work for a request beside the GPU's: with two instances 5,138, 6,268 and 7,044 requests a second are
# 0.389, 0.319 and 0.284 ms a request and instance; less 0.127, 0.094 and 0.079 of the GPU leaves 0.26, 0.23 and 0.21.
HOST_MS = 0.23
# The most requests a second that were measured of one server: two H200s, BERT-base, 512 in flight. More is promised of
# none, as nothing says that its host would carry it.
MOST_RPS = 21_406
# How sharply the lower of two limits counts; 3 puts the rows with four instances within 20 % (validation.served).
_SHARPNESS = 3.0
_CONTEXT_BYTES = 524 * 2**20  # a process's CUDA context
# An instance's prepared sizes over the activations alive at a time of all their samples: 3,632, 2,742 and 1,216 MiB.
_ARENA = 4.0
_RUNTIME_FACTOR = 1.3  # weights an instance holds over those of the graph: 94, 128 and 360 MiB measured


def service(
    batches: Mapping[int, Cost], gpu: Gpu, precision: Precision, engine: Engine, known: Coefficients,
    instances: int = INSTANCES,
) -> Service:  # fmt: skip
    """One replica: a GPU with its instances.

    Args:
        batches: Batch size to the graph's cost.
        gpu: The whole of it.
        precision: Of the layers with weights.
        engine: Whose coefficients ``known`` are.
        known: What the engine reaches.
        instances: Of the model on the GPU; they take turns at it.
    """
    times = {size: latency.predict(cost, gpu, precision, known) for size, cost in batches.items()}
    if engine == "tensorrt":  # pinned copies run beside the batch before
        return Service({size: max(time.gpu_ms, time.copy_ms) for size, time in times.items()}, REQUEST_MS, MOST_RPS)
    each = min(time.ms / size for size, time in times.items())
    limit = min(MOST_RPS, served_rps(each, instances))
    # Batches take as much longer as the whole replica is slower than its GPU.
    slower = max(1.0, 1e3 / each / limit)
    return Service({size: time.ms * slower for size, time in times.items()}, REQUEST_MS, limit)


def served_rps(gpu_ms: float, instances: int) -> float:
    """Requests a second of a replica: of its GPU, and of instances that each do one request after the other.

    Args:
        gpu_ms: Of the GPU and its copies for one sample, in the best batch.
        instances: Of the model on the GPU.
    """
    work = (HOST_MS + gpu_ms) / instances
    return float(1e3 / (work**_SHARPNESS + gpu_ms**_SHARPNESS) ** (1 / _SHARPNESS))


def memory_bytes(batches: Mapping[int, Cost], precision: Precision, instances: int = INSTANCES) -> int:
    """Device memory of all instances: contexts, weights, and activations of every prepared size."""
    each = latency.BYTES[precision]
    weights = next(iter(batches.values())).weights * each * _RUNTIME_FACTOR
    floats = sum(cost.peak_floats for cost in batches.values())
    return math.ceil(instances * (_CONTEXT_BYTES + weights + _ARENA * floats * max(each, 2)))


def batch_sizes(largest: int) -> Sequence[int]:
    """Powers of two up to the largest batch, and that itself: the sizes that are prepared."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*sizes, largest)
