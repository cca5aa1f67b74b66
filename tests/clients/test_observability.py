"""A client's events, traces and metrics; and a server's configuration, statistics and repository."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from tritonkit.server import TritonServer
from tritonkit_client import Client, NotSupported, ServerError, opentelemetry, prometheus

Connect = Callable[..., Client]
ONE = np.ones((1, 3), np.float32)


def test_every_call_is_announced_and_answered(url: str, connect: Connect) -> None:
    events: list[Any] = []
    client = connect(url, event_hooks={"request": [events.append], "response": [events.append]})
    client.infer("arithmetic", left=ONE, right=ONE, request_id="mine")
    requests, responses = events[::2], events[1::2]
    assert [event.operation for event in requests] == ["metadata", "config", "infer"]
    assert {event.endpoint for event in requests} == {url}
    assert {event.model for event in requests} == {"arithmetic"}
    assert requests[-1].request_id == "mine"
    assert [event.request for event in responses] == requests
    assert all(0 < event.seconds < 5 and event.error is None for event in responses)


def test_a_trace_goes_on_in_the_server(url: str, connect: Connect) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client = connect(url, event_hooks=opentelemetry.hooks(provider))
    client.infer("inspect")
    exporter.clear()
    parameters = json.loads(client.infer("inspect")["seen"][0])["parameters"]
    arrived = {name.lower().removeprefix("triton_http_"): value for name, value in parameters.items()}
    (span,) = exporter.get_finished_spans()
    assert span.name == "infer inspect"
    assert span.kind is trace.SpanKind.CLIENT
    version, trace_id, parent, flags = arrived["traceparent"].split("-")
    assert version == "00"
    assert int(flags, 16) & 1
    assert (int(trace_id, 16), int(parent, 16)) == (span.context.trace_id, span.context.span_id)
    exporter.clear()
    with pytest.raises(ServerError):
        client.infer("sleep", {"timeout": -1.0})
    failed = exporter.get_finished_spans()[-1]
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "ServerError"
    assert failed.status.status_code is trace.StatusCode.ERROR


def test_a_callers_span_is_the_parent_also_in_threads_of_infer_many(server: TritonServer) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with Client(server.grpc_url, event_hooks=opentelemetry.hooks(provider)) as client:
        with tracer.start_as_current_span("mine") as mine:
            client.infer_many("arithmetic", {"left": np.ones((8, 3), np.float32), "right": np.ones((8, 3), np.float32)})
        spans = [span for span in exporter.get_finished_spans() if span.name == "infer arithmetic"]
    assert len(spans) == 2
    assert {span.parent.span_id for span in spans if span.parent} == {mine.get_span_context().span_id}


def test_requests_are_counted_by_outcome(url: str, connect: Connect) -> None:
    registry = CollectorRegistry()
    # The clients of a registry count together.
    for _ in range(2):
        client = connect(url, event_hooks=[prometheus.hooks(registry), opentelemetry.hooks()])
        client.infer("arithmetic", left=ONE, right=ONE)
    with pytest.raises(ServerError):
        client.infer("sleep", {"timeout": -1.0})

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tritonkit_client_{name}", labels)

    assert value("requests_total", operation="infer", model="arithmetic", outcome="ok") == 2
    assert value("requests_total", operation="infer", model="sleep", outcome="ServerError") == 1
    assert value("request_seconds_count", operation="infer", model="arithmetic") == 2
    assert value("in_flight", operation="infer", model="arithmetic") == 0


def test_the_configuration_is_the_servers(client: Client) -> None:
    config = client.config("arithmetic")
    assert config["name"] == "arithmetic"
    assert int(config["max_batch_size"]) == 4
    assert [tensor["name"] for tensor in config["input"]] == ["left", "right"]


def test_the_repository_says_what_is_ready(client: Client) -> None:
    entries = {entry.name: entry for entry in client.repository()}
    assert entries["arithmetic"].state == "READY"
    assert entries["arithmetic"].version == "1"


@pytest.fixture
def unloaded(server: TritonServer) -> Iterator[str]:
    yield "reloaded"
    with Client(server.grpc_url) as client:
        # Until it is unloaded, a model keeps a configuration that it was loaded with.
        client.unload("reloaded")
        wait_until(lambda: state(client, "reloaded") == "UNAVAILABLE")
        client.load("reloaded")


def state(client: Client, model: str) -> str:
    return next(entry.state for entry in client.repository() if entry.name == model)


@pytest.mark.parametrize(("kind", "protocol"), [(Client, "grpc"), (blocking.client, "http")])
def test_a_model_is_loaded_with_another_configuration(
    kind: Connect, protocol: str, server: TritonServer, unloaded: str
) -> None:
    with kind(f"{protocol}://127.0.0.1:{server.ports[protocol]}") as client:
        assert client.metadata(unloaded).max_batch_size == 4
        client.load(unloaded, config={**client_config(), "max_batch_size": 7})
        assert client.metadata(unloaded).max_batch_size == 7
        with pytest.raises(ServerError, match="failed to load"):
            client.load("absent")


def client_config() -> dict[str, Any]:
    def side(*names: str) -> list[dict[str, Any]]:
        return [{"name": name, "data_type": "TYPE_FP32", "dims": [3]} for name in names]

    return {"backend": "python", "input": side("left", "right"), "output": side("sum", "difference")}


def test_a_server_without_an_operation_says_so(server: TritonServer, connect: Connect) -> None:
    with pytest.raises(NotSupported):
        connect(f"{server.http_url}/elsewhere").repository()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
