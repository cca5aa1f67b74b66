"""Metrics of a client's requests, for Prometheus; needs the extra ``tritonkit-client[prometheus]``.

``tritonkit_client_requests_total{operation,model,outcome}``, where the outcome is ``ok``, ``cancelled`` or the name
of the error; ``tritonkit_client_request_seconds{operation,model}``; ``tritonkit_client_in_flight{operation,model}``;
``tritonkit_client_retries_total{operation,model,error}``. Each attempt counts as a request.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from ._engine.events import HookSet, RequestEvent, ResponseEvent, RetryEvent

# In seconds: from a small model beside the client to a large, remote one.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class _Metrics:
    requests: Counter
    seconds: Histogram
    in_flight: Gauge
    retries: Counter


# All clients of a registry count together.
_metrics_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def hooks(registry: CollectorRegistry = REGISTRY) -> HookSet:
    """The listeners to pass to a client as ``event_hooks``.

    Args:
        registry: Where the metrics are registered; prometheus_client's own by default.
    """
    with _making:
        metrics = _metrics_by_registry.get(registry) or _metrics_by_registry.setdefault(registry, _make(registry))

    def request(event: RequestEvent) -> None:
        metrics.in_flight.labels(event.operation, event.model).inc()

    def response(event: ResponseEvent) -> None:
        labels = (event.request.operation, event.request.model)
        outcome = "cancelled" if event.cancelled else type(event.error).__name__ if event.error else "ok"
        metrics.in_flight.labels(*labels).dec()
        metrics.requests.labels(*labels, outcome).inc()
        metrics.seconds.labels(*labels).observe(event.seconds)

    def retry(event: RetryEvent) -> None:
        metrics.retries.labels(event.request.operation, event.request.model, type(event.error).__name__).inc()

    return {"request": [request], "response": [response], "retry": [retry]}


def _make(registry: CollectorRegistry) -> _Metrics:
    name, labels = "tritonkit_client", ("operation", "model")
    return _Metrics(
        Counter(f"{name}_requests", "Attempts by outcome", (*labels, "outcome"), registry=registry),
        Histogram(f"{name}_request_seconds", "How long attempts took", labels, registry=registry, buckets=_BUCKETS),
        Gauge(f"{name}_in_flight", "Attempts without an answer", labels, registry=registry),
        Counter(f"{name}_retries", "Calls sent again, by what failed", (*labels, "error"), registry=registry),
    )
