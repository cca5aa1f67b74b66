"""Spans for a client's requests, for OpenTelemetry; needs the extra ``tritonkit-client[opentelemetry]``.

Each attempt is a span, a child of whatever span is current where the client was called, and the server gets its
W3C trace context, so that Triton's own spans (``--trace-config mode=opentelemetry``) become its children.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from opentelemetry import propagate, trace

from ._engine.events import HookSet, RequestEvent, ResponseEvent, RetryEvent


def hooks(tracer_provider: trace.TracerProvider | None = None) -> HookSet:
    """The listeners to pass to a client as ``event_hooks``.

    Args:
        tracer_provider: The global one by default.
    """
    tracer = trace.get_tracer("tritonkit_client", tracer_provider=tracer_provider)
    running: dict[int, trace.Span] = {}

    def request(event: RequestEvent) -> None:
        server = urlsplit(event.endpoint)
        attributes: dict[str, Any] = {
            "server.address": server.hostname or "",
            "server.port": server.port or 0,
            "rpc.method": event.operation,
            "tritonkit.model": event.model,
            "tritonkit.request_id": event.request_id,
            "tritonkit.attempt": event.attempt,
        }
        name = f"{event.operation} {event.model}".strip()
        span = tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes)
        running[id(event)] = span
        propagate.inject(event.headers, context=trace.set_span_in_context(span))

    def response(event: ResponseEvent) -> None:
        span = running.pop(id(event.request), None)
        if span is None:
            return
        if event.error is not None:
            span.set_attribute("error.type", type(event.error).__name__)
            span.set_status(trace.StatusCode.ERROR, event.error.message)
        elif event.cancelled:
            span.set_attribute("tritonkit.cancelled", True)
        span.end()

    def retry(event: RetryEvent) -> None:
        current = trace.get_current_span()
        current.add_event("tritonkit.retry", {"wait_s": event.wait_s, "error.type": type(event.error).__name__})

    return {"request": [request], "response": [response], "retry": [retry]}
