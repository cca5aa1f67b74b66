"""The server's side: what came between two counts, and GPUs in Triton's metrics."""

from __future__ import annotations

import pytest

from tritonkit_client import Duration, ModelStatistics
from tritonkit_load.load.serverside import difference, gpus, summed

METRICS = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.500000
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.250000
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1000000000.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 500000000.000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 8000000000.000000
"""


def counted(version: str, requests: int, ms: float, sizes: dict[int, int]) -> ModelStatistics:
    """So many requests, each of which took so long in all of the parts."""
    took = Duration(requests, int(requests * ms * 1e6))
    inferences = sum(size * count for size, count in sizes.items())
    return ModelStatistics(
        "m", version, inferences, sum(sizes.values()), took, Duration(0, 0), took, took, took, took, sizes
    )


def test_a_difference_has_only_what_came_between() -> None:
    before, after = counted("1", 10, 1.0, {1: 10}), counted("1", 40, 2.5, {1: 15, 8: 4})
    figures = difference(before, after, 0.5, 1000)
    assert (figures.requests, figures.inferences, figures.executions) == (30, 37, 9)
    assert figures.batch_sizes == {1: 5, 8: 4}
    assert figures.average_batch == pytest.approx(37 / 9)
    assert figures.queue_ms == pytest.approx((40 * 2.5 - 10 * 1.0) / 30)
    assert figures.compute_ms == pytest.approx(3 * figures.queue_ms)
    assert (figures.gpu_utilization, figures.gpu_memory_bytes) == (0.5, 1000)


def test_a_model_that_was_loaded_anew_counts_from_its_loading() -> None:
    figures = difference(counted("1", 50, 1.0, {1: 50}), counted("1", 20, 2.0, {2: 10}), None, None)
    assert (figures.requests, figures.inferences, figures.batch_sizes) == (20, 20, {2: 10})
    assert figures.queue_ms == pytest.approx(2.0)


def test_versions_add_up() -> None:
    total = summed([counted("1", 10, 1.0, {1: 10}), counted("2", 10, 3.0, {1: 2, 4: 2})])
    assert (total.success.count, total.success.total_ns) == (20, 40_000_000)
    assert dict(total.executions_by_batch_size) == {1: 12, 4: 2}


def test_gpus_are_read_from_tritons_metrics() -> None:
    assert gpus(METRICS) == (0.375, 1_500_000_000)
    assert gpus('nv_inference_count{model="m",version="1"} 5\n') is None
