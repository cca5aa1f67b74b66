"""The server's side of a load test: Triton's statistics at both ends of the measured seconds, and its GPUs between.

It asks twice a test (the GPUs once a second), so that watching costs the server nothing that shows.
"""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Sequence

import gevent

from tritonkit_client import Client, Duration, ModelStatistics, TritonkitClientError
from tritonkit_load.load.payloads import split_version
from tritonkit_load.load.result import ServerSide

_GPU = re.compile(r"^(nv_gpu_utilization|nv_gpu_memory_used_bytes)\{[^}]*\} ([0-9.e+-]+)$", re.MULTILINE)
_SETTLES_S = 0.1  # the server counts a request a moment after it has answered it
_EVERY_S = 1.0


class Watch:
    """Sees one test from the server's side.

    Args:
        client: To ask.
        models: Of whom to ask.
        metrics_url: Triton's Prometheus metrics; None: no GPU figures.
    """

    def __init__(self, client: Client, models: tuple[str, ...], metrics_url: str | None) -> None:
        self._client = client
        self._models = models
        self._metrics_url = metrics_url
        self._before: dict[str, ModelStatistics] = {}
        self._gpu: list[tuple[float, int]] = []
        self._poller: gevent.Greenlet | None = None

    def begin(self) -> None:
        """The measured seconds begin."""
        self._before = self._counted()
        if self._metrics_url:
            self._poller = gevent.spawn(self._poll, self._metrics_url)

    def end(self) -> dict[str, ServerSide]:
        """What was counted since `begin`, by model; nothing of one that the server has no figures of."""
        if self._poller is not None:
            self._poller.kill()
        if not self._before:
            return {}
        gevent.sleep(_SETTLES_S)
        after = self._counted()
        utilization = sum(busy for busy, _ in self._gpu) / len(self._gpu) if self._gpu else None
        memory = max((used for _, used in self._gpu), default=None)
        return {
            name: difference(self._before[name], after[name], utilization, memory)
            for name in after
            if name in self._before
        }

    def _counted(self) -> dict[str, ModelStatistics]:
        statistics = {}
        for model in self._models:
            try:
                name, version = split_version(model)
                versions = self._client.statistics(name, model_version=version, timeout=5)
            except TritonkitClientError:
                continue  # another server than Triton, or one that has just died: there is nothing to tell of it
            if versions:
                statistics[model] = summed(versions)
        return statistics

    def _poll(self, url: str) -> None:
        while True:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    usage = gpus(answer.read().decode())
            except (OSError, UnicodeDecodeError):
                usage = None
            if usage is not None:
                self._gpu.append(usage)
            gevent.sleep(_EVERY_S)


def gpus(metrics: str) -> tuple[float, int] | None:
    """Mean utilization (0 to 1) and used bytes of all GPUs in Triton's metrics; None where it sees none."""
    readings = _GPU.findall(metrics)
    busy = [float(value) for name, value in readings if name == "nv_gpu_utilization"]
    used = [float(value) for name, value in readings if name == "nv_gpu_memory_used_bytes"]
    return (sum(busy) / len(busy), int(sum(used))) if busy else None


def summed(versions: Sequence[ModelStatistics]) -> ModelStatistics:
    """All versions of a model as one."""

    def duration(of: str) -> Duration:
        durations = [getattr(version, of) for version in versions]
        return Duration(sum(part.count for part in durations), sum(part.total_ns for part in durations))

    sizes: Counter[int] = Counter()
    for version in versions:
        sizes.update(version.executions_by_batch_size)
    return ModelStatistics(
        versions[0].name, "", sum(version.inference_count for version in versions),
        sum(version.execution_count for version in versions), duration("success"), duration("fail"), duration("queue"),
        duration("compute_input"), duration("compute_infer"), duration("compute_output"), sizes,
    )  # fmt: skip


def difference(
    before: ModelStatistics, after: ModelStatistics, utilization: float | None, memory: int | None
) -> ServerSide:
    """What came between two counts. A model that was loaded anew in between counts from its loading."""
    if after.success.count < before.success.count:
        none = Duration(0, 0)
        before = ModelStatistics(before.name, "", 0, 0, none, none, none, none, none, none, {})

    def mean_ms(of: str) -> float:
        first: Duration = getattr(before, of)
        last: Duration = getattr(after, of)
        return (last.total_ns - first.total_ns) / max(last.count - first.count, 1) / 1e6

    inferences = after.inference_count - before.inference_count
    executions = after.execution_count - before.execution_count
    sizes = {
        size: count - before.executions_by_batch_size.get(size, 0)
        for size, count in sorted(after.executions_by_batch_size.items())
    }
    parts = [mean_ms(of) for of in ("compute_input", "compute_infer", "compute_output")]
    return ServerSide(
        requests=after.success.count - before.success.count,
        inferences=inferences,
        executions=executions,
        average_batch=inferences / executions if executions else 0.0,
        batch_sizes={size: count for size, count in sizes.items() if count},
        request_ms=mean_ms("success"),
        queue_ms=mean_ms("queue"),
        compute_ms=sum(parts),
        compute_input_ms=parts[0],
        compute_infer_ms=parts[1],
        compute_output_ms=parts[2],
        gpu_utilization=utilization,
        gpu_memory_bytes=memory,
    )
